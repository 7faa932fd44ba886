"""``Budget``: what a run may spend."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ember_xcs.errors import OptionsError

if TYPE_CHECKING:
    from ember_xcs._core.usage import Usage

__all__ = ["Budget"]


@dataclasses.dataclass(frozen=True, slots=True)
class Budget:
    """What a run may spend, the runs within it included; None for no bound.

    Tokens and costs are known when a call has reported them (``xcs.record_usage``), so calls in
    flight together may pass these bounds by what they use; no further call begins.

    Attributes:
        calls: The most host calls, further attempts included.
        tokens: The most tokens.
        cost: The most that calls may cost, in the currency of their prices.
        seconds: The longest that the run may take.

    Example:
        >>> Budget(calls=100, cost=0.50).calls
        100
    """

    calls: int | None = None
    tokens: int | None = None
    cost: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        """Checks the values."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            kinds = int if field.name in ("calls", "tokens") else int | float
            if isinstance(value, bool) or not isinstance(value, kinds) or not value >= 0:
                what = "an int" if kinds is int else "a number"
                raise OptionsError(
                    f"Budget: {field.name}={value!r} is to be {what} of at least 0, or None."
                )

    def exceeded_by(self, calls: int, usage: Usage, further: int = 1) -> str | None:
        """Returns which bound further calls would break; None if they may be made.

        Args:
            calls: How many calls were made.
            usage: What they reported.
            further: How many are to be made, all or none.
        """
        if self.calls is not None and calls + further > self.calls:
            together = f", {further} are ready together" if further > 1 else ""
            return f"{calls} calls were made{together}, and it allows {self.calls}"
        if self.tokens is not None and usage.tokens >= self.tokens:
            return f"{usage.tokens} tokens were used, and it allows {self.tokens}"
        if self.cost is not None and usage.cost is not None and usage.cost >= self.cost:
            return f"{usage.cost:g} was spent, and it allows {self.cost:g}"
        return None
