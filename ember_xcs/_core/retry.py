"""``Retry``: which failures of a host call are tried again, and when."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

from ember_xcs.errors import OptionsError

__all__ = ["Retry", "retry_after"]


@dataclasses.dataclass(frozen=True, slots=True)
class Retry:
    """Tries a failed host call again, after a growing pause.

    The pause after attempt ``k`` is ``initial_seconds * multiplier ** (k - 1)``, no longer than
    ``max_seconds``. An error with a ``retry_after`` (in seconds: what a server asked for) is waited
    for as long as that; one that says ``retryable = False`` of itself is not tried again. With
    jitter the pause is a random part of it, at least half, so that calls that failed together do
    not come back together.

    Attributes:
        attempts: The most attempts, the first one included.
        initial_seconds: The first pause.
        multiplier: How the pauses grow.
        max_seconds: The longest pause of its own; a longer ``retry_after`` ends the attempts.
        jitter: Whether pauses are random.
        retry_on: The classes of errors that are tried again.

    Example:
        >>> retry = Retry(attempts=4, initial_seconds=1.0, jitter=False)
        >>> [retry.pause(attempt, ValueError()) for attempt in (1, 2, 3, 4)]
        [1.0, 2.0, 4.0, None]
    """

    attempts: int = 3
    initial_seconds: float = 0.5
    multiplier: float = 2.0
    max_seconds: float = 30.0
    jitter: bool = True
    retry_on: type[Exception] | tuple[type[Exception], ...] = (Exception,)

    def __post_init__(self) -> None:
        """Checks the values."""
        if not _is_number(self.attempts, int) or self.attempts < 1:
            raise OptionsError(f"Retry: attempts={self.attempts!r} is to be an int of at least 1.")
        for name, least in (("initial_seconds", 0.0), ("multiplier", 1.0), ("max_seconds", 0.0)):
            value = getattr(self, name)
            if not _is_number(value, int | float) or not least <= value < float("inf"):
                raise OptionsError(
                    f"Retry: {name}={value!r} is to be a number of at least {least}."
                )
        kinds: Any = self.retry_on if isinstance(self.retry_on, tuple) else (self.retry_on,)
        if not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
            raise OptionsError(
                f"Retry: retry_on={self.retry_on!r} is to be a class of exceptions, or a tuple."
            )

    def pause(self, attempt: int, error: BaseException) -> float | None:
        """Returns how long to wait after a failed attempt, in seconds; None to give up.

        Args:
            attempt: The number of the attempt that failed, from 1.
            error: What it raised.
        """
        if attempt >= self.attempts or not isinstance(error, self.retry_on):
            return None
        if getattr(error, "retryable", True) is False:
            return None
        asked = retry_after(error)
        if asked is not None:
            return asked if asked <= self.max_seconds else None
        pause = min(self.initial_seconds * self.multiplier ** (attempt - 1), self.max_seconds)
        return pause * random.uniform(0.5, 1.0) if self.jitter else pause


def _is_number(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def retry_after(error: BaseException) -> float | None:
    """Returns how long a server asked to wait, in seconds, if an error says so."""
    asked: Any = getattr(error, "retry_after", None)
    return float(asked) if _is_number(asked, int | float) and asked >= 0 else None
