"""How many tokens a call is likely to use, before it has said so."""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["TokenEstimate"]

_MOST_SAMPLES: Final = 256


class TokenEstimate:
    """What calls use of what was expected for them: a ratio over the last of them."""

    def __init__(self) -> None:
        self._each_expected: deque[float] = deque(maxlen=_MOST_SAMPLES)
        self._each_used: deque[float] = deque(maxlen=_MOST_SAMPLES)
        self._expected = self._used = 0.0

    @property
    def knows(self) -> bool:
        """Whether a call has ended."""
        return bool(self._each_used)

    def allows(self, in_flight: int) -> bool:
        """Whether enough is known for another call beside those in flight."""
        known = len(self._each_used)
        return in_flight <= known or known == _MOST_SAMPLES

    def of(self, expected: float) -> float:
        """Returns what a call is likely to use."""
        if self._expected > 0:
            return expected * self._used / self._expected
        return expected

    def add(self, expected: float, used: float) -> None:
        """Learns from a call that has ended."""
        self._each_expected.append(expected)
        self._each_used.append(used)
        self._expected, self._used = sum(self._each_expected), sum(self._each_used)
