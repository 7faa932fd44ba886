"""What host calls use: tokens, money; reported by them, counted by runs and budgets."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from contextvars import ContextVar

__all__ = ["Meter", "Usage", "current_meter", "metering", "record_usage"]


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """What calls have used.

    Attributes:
        calls: How many calls were made.
        tokens: How many tokens they used, of prompts and answers.
        cost: What they cost, in the currency of the prices; None if a price is not known.
    """

    calls: int = 0
    tokens: int = 0
    cost: float | None = 0.0

    def __add__(self, other: Usage) -> Usage:
        unknown = self.cost is None or other.cost is None
        cost = None if unknown else (self.cost or 0.0) + (other.cost or 0.0)
        return Usage(self.calls + other.calls, self.tokens + other.tokens, cost)


class Meter:
    """Adds up what is reported to it, from any thread.

    Args:
        outer: The meter that this one is part of, which counts the same.
    """

    def __init__(self, outer: Meter | None = None) -> None:
        self._outer = outer
        self._lock = threading.Lock()
        self._usage = Usage()
        self.reported = False

    @property
    def usage(self) -> Usage:
        """What was used so far."""
        return self._usage

    def add(self, usage: Usage) -> None:
        """Adds what was used, here and in the meters around this one."""
        with self._lock:
            self._usage = self._usage + usage
            self.reported = True
        if self._outer is not None:
            self._outer.add(usage)


_meter: ContextVar[Meter | None] = ContextVar("ember_xcs_meter", default=None)
current_meter = _meter.get


@contextlib.contextmanager
def metering(meter: Meter) -> Iterator[Meter]:
    """Has a meter count what is reported within a block."""
    token = _meter.set(meter)
    try:
        yield meter
    finally:
        _meter.reset(token)


def record_usage(*, tokens: int = 0, cost: float | None = 0.0) -> None:
    """Reports what the current call of a host operator used.

    The run counts it in its metrics, its budget, and the limit on tokens of the operator's
    resource. Outside a run it is counted nowhere.

    Args:
        tokens: How many tokens.
        cost: What they cost; None if the price is not known.

    Example:
        >>> with metering(Meter()) as meter:
        ...     record_usage(tokens=12)
        >>> meter.usage.tokens
        12
    """
    meter = current_meter()
    if meter is not None:
        meter.add(Usage(0, tokens, cost))
