"""How many tokens a call is likely to use, before it has said so."""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["TokenEstimate"]

_MOST_SAMPLES: Final = 256


class TokenEstimate:
    """What calls use of what was expected for them: a ratio over the last of them."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque()
        self._expected = self._used = 0.0

    @property
    def knows(self) -> bool:
        """Whether a call has ended."""
        return bool(self._samples)

    def allows(self, in_flight: int) -> bool:
        """Whether enough is known for another call beside those in flight."""
        return in_flight <= len(self._samples) or len(self._samples) == _MOST_SAMPLES

    def of(self, expected: float) -> float:
        """Returns what a call is likely to use."""
        if self._expected > 0:
            return expected * self._used / self._expected
        return expected

    def add(self, expected: float, used: float) -> None:
        """Learns from a call that has ended."""
        self._samples.append((expected, used))
        if len(self._samples) > _MOST_SAMPLES:
            self._samples.popleft()
        self._expected = sum(expected for expected, _ in self._samples)
        self._used = sum(used for _, used in self._samples)
