"""``Limit``: what a resource allows."""

from __future__ import annotations

import dataclasses

from ember_xcs.errors import OptionsError

__all__ = ["Limit"]


@dataclasses.dataclass(frozen=True, slots=True)
class Limit:
    """What a resource allows; None for no limit.

    Attributes:
        concurrency: The most calls in flight.
        requests_per_minute: The most calls begun in any sixty seconds.
        tokens_per_minute: The most tokens of the calls begun in any sixty seconds.
        burst: The most calls that begin at once, where requests per minute are limited; then they
            are spread over the minute. None: as many as the minute allows.

    Example:
        >>> Limit(concurrency=64, requests_per_minute=500).concurrency
        64
    """

    concurrency: int | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    burst: int | None = None

    def __post_init__(self) -> None:
        """Checks the values."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            kinds = int if field.name in ("concurrency", "burst") else int | float
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, kinds) or not value >= 1:
                raise OptionsError(f"Limit: {field.name}={value!r} is to be at least 1, or None.")
        if self.burst is not None and self.requests_per_minute is None:
            raise OptionsError("Limit: burst is for requests_per_minute, which is not given.")
