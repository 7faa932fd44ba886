"""The adaptive scheduler: as many calls at once as pays.

Some services answer 200 calls at once as fast as one, some get slower with each. Which it is
can only be measured, and the measure must not be fooled by operators that differ in how long
they take. So each call is compared with the fastest of its own operator: *the work done* by a
call is the least time that its operator was seen to need, and *the speed* of a window of calls
is the work done in it divided by the time that it took. With n calls in flight the speed is n
if they do not hinder one another, and stays where it was if they do.

The limit is doubled as long as the speed grows by at least half of what the limit grew by; when
it does not, the limit goes back to where the speed was the same with less, and is tried again a
little higher after some windows, since services change. (Doubling and backing off: slow start
and congestion avoidance, V. Jacobson 1988, "Congestion Avoidance and Control"; work relative to
the least latency: L. Brakmo and L. Peterson 1995, "TCP Vegas".)
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

from ember_xcs._runtime.scheduler import RunScheduler

if TYPE_CHECKING:
    from ember_xcs._runtime.run import Run

__all__ = ["AdaptiveScheduler", "Controller"]

_SETTLED_WINDOWS = 8  # how many windows the limit rests before more is tried again
_PAYS = 0.5  # the part of a growth of the limit that must show as growth of the speed


class Controller(Protocol):
    """Chooses how many host calls are in flight at once."""

    def ended(self, operator: str, seconds: float, in_flight: int) -> int:
        """Takes the duration of a call, and returns the limit from now on.

        Args:
            operator: The name of the operator that was called.
            seconds: How long the call took, in seconds.
            in_flight: How many calls were in flight, this one among them.
        """
        ...


class AdaptiveScheduler(RunScheduler):
    """Performs every task as soon as it is ready, as many at once as measurably pays.

    What was learnt is kept from run to run by the same instance.

    Args:
        initial: How many host calls in flight at once to begin with.
        minimum: The fewest.
        maximum: The most; None for ``max_workers`` of the options.
    """

    def __init__(self, initial: int = 4, minimum: int = 1, maximum: int | None = None) -> None:
        if not 1 <= minimum <= initial or (maximum is not None and maximum < initial):
            raise ValueError(
                f"minimum={minimum}, initial={initial}, maximum={maximum}: must be in this order, "
                "and at least 1"
            )
        self._maximum = maximum
        self._climber = _Climber(initial, minimum)

    @property
    def concurrency(self) -> int:
        """How many host calls may be in flight at once, as of now."""
        return self._climber.limit

    def execute(self, run: Run) -> None:
        """Performs all tasks of a run.

        Args:
            run: One execution of a plan.
        """
        self._run = run
        bounds = [n for n in (self._maximum, run.options.max_workers) if n is not None]
        controller = _Bounded(self._climber, min(bounds, default=None))
        run.perform_everything(concurrency=controller.limit, controller=controller)


class _Climber:
    """Climbs towards the limit at which more does not pay."""

    def __init__(self, initial: int, minimum: int) -> None:
        self.limit = initial
        self._minimum = minimum
        self._least: dict[str, float] = {}
        self._lock = threading.Lock()
        self._before: tuple[int, float] | None = None  # a limit and its speed
        self._resting = 0
        self._open_window()

    def ended(self, operator: str, seconds: float, in_flight: int) -> int:
        """Takes the duration of a call, and returns the limit from now on."""
        with self._lock:
            least = min(seconds, self._least.get(operator, seconds))
            self._least[operator] = least
            self._work += least
            self._calls += 1
            self._full += in_flight >= self.limit
            if self._calls >= max(self.limit, 4):
                self._close_window()
            return self.limit

    def _open_window(self) -> None:
        self._calls = self._full = 0
        self._work = 0.0
        self._began = time.perf_counter()

    def _close_window(self) -> None:
        speed = self._work / max(time.perf_counter() - self._began, 1e-9)
        if self._full * 2 >= self._calls:  # a limit that was not reached teaches nothing
            self._climb(speed)
        self._open_window()

    def _climb(self, speed: float) -> None:
        if self._resting:
            self._resting -= 1
            if self._resting == 0:
                self._before = (self.limit, speed)
                self.limit += max(1, self.limit // 4)
            return
        if self._before is not None:
            limit, slower = self._before
            wanted = 1 + _PAYS * (self.limit / limit - 1)
            if speed < slower * wanted:
                self.limit = max(self._minimum, limit)
                self._before = None
                self._resting = _SETTLED_WINDOWS
                return
        self._before = (self.limit, speed)
        self.limit *= 2


class _Bounded:
    """A climber within the bounds of one run."""

    def __init__(self, climber: _Climber, maximum: int | None) -> None:
        self._climber = climber
        self._maximum = maximum
        self.limit = self._bounded(climber.limit)

    def ended(self, operator: str, seconds: float, in_flight: int) -> int:
        """Takes the duration of a call, and returns the limit from now on."""
        return self._bounded(self._climber.ended(operator, seconds, in_flight))

    def _bounded(self, limit: int) -> int:
        return limit if self._maximum is None else min(limit, self._maximum)
