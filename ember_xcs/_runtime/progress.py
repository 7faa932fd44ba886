"""How far runs are, for whoever watches: a record, and who is told it when.

One thread of the pool tells everybody, so no call and no event loop waits for a terminal or for the
code of a user; the end of a run is told by the thread that asked for it, before that goes on.
Whoever is told decides when to be told next. What fails while being told is not told any more: the
run goes on, and at its end the thread that asked for it is warned.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from ember_xcs._runtime.threads import threads

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Listener", "Progress", "Teller", "ticker"]

_INTERVAL_SECONDS: Final = 0.1
_LONGEST_SILENCE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is, the runs within it included.

    Attributes:
        run: The name of what runs.
        calls_done: How many host calls have ended, well or not, or were answered by a cache or a
            journal.
        calls_known: How many there are, as far as is known: what depends on results adds its own.
        in_flight: How many are being made now; not those that stand in line or pause.
        failed: How many ended with an error, after all of their attempts.
        retries: How many further attempts were made.
        tokens: How many tokens were reported to have been used.
        cost: What was reported to have been spent; None if a price is not known.
        seconds: How long it has been running, in seconds.
        is_over: Whether this is the end of it.

    Example:
        >>> print(Progress("qa", 12, 40, in_flight=8, retries=1, seconds=3.21))
        qa: 12/40 calls, 8 in flight, 1 retry, 3.2 s
    """

    run: str
    calls_done: int
    calls_known: int
    in_flight: int = 0
    failed: int = 0
    retries: int = 0
    tokens: int = 0
    cost: float | None = 0.0
    seconds: float = 0.0
    is_over: bool = False

    def __str__(self) -> str:
        name = "".join(letter if letter.isprintable() else " " for letter in self.run)
        parts = [f"{name}: {self.calls_done}/{self.calls_known} calls"]
        parts += [f"{self.in_flight} in flight"] if self.in_flight else []
        parts += [f"{self.failed} failed"] if self.failed else []
        parts += [f"{self.retries} {'retry' if self.retries == 1 else 'retries'}"] * (
            self.retries > 0
        )
        parts += [f"cost {self.cost:.4g}"] if self.cost else []
        return ", ".join([*parts, f"{self.seconds:.1f} s"])


class Teller(Protocol):
    """Who tells of a run."""

    def progress(self, *, is_over: bool = False) -> Progress:
        """Returns how far the run is."""
        ...


class Told(Protocol):
    """Who is told from time to time."""

    def tick(self) -> float:
        """Tells what is to be told now; returns when to come again, in seconds from now."""
        ...


class Listener:
    """A function that is told of one run: ten times a second at most, and once at the end.

    Args:
        function: What is called with each record, never twice at the same time.
        teller: The run.
    """

    def __init__(self, function: Callable[[Progress], object], teller: Teller) -> None:
        self._function, self._teller = function, teller
        self._lock = threading.Lock()  # or a record could come after the last one
        self._last: Progress | None = None
        self._error: BaseException | None = None
        self._is_over = False

    def start(self) -> None:
        """Has the function told from now on."""
        ticker.add(self)

    def tick(self) -> float:
        """Tells of the run if there is something new, or a second has passed."""
        with self._lock:
            if not self._is_over:
                record = self._teller.progress()
                if not self._is_known(record):
                    self._tell(record)
        return _INTERVAL_SECONDS

    def finish(self) -> None:
        """Tells of the end, and warns if the function has failed."""
        ticker.remove(self)
        with self._lock:
            self._is_over = True
            self._tell(self._teller.progress(is_over=True))
        if self._error is not None:
            name = getattr(self._function, "__qualname__", repr(self._function))
            warn_of(self._error, f"{name}, given as progress=,")

    def _is_known(self, record: Progress) -> bool:
        last = self._last
        if last is None or record.seconds - last.seconds >= _LONGEST_SILENCE_SECONDS:
            return False
        return replace(record, seconds=last.seconds) == last

    def _tell(self, record: Progress) -> None:
        if self._error is not None:
            return
        self._last = record
        try:
            self._function(record)
        except (Exception, SystemExit) as error:  # noqa: BLE001  (user code may raise anything)
            self._error = error


def warn_of(error: BaseException, who: str) -> None:
    """Warns that somebody who was told has failed, and where."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    warnings.warn(
        f"{who} raised {type(error).__name__}: {error} ({last.filename}:{last.lineno}); it was not "
        "told of that run any more, whose results are not affected. See that it takes one "
        "xcs.Progress and raises nothing.",
        RuntimeWarning,
        stacklevel=2,
    )


class _Ticker:
    """Whoever is to be told, each when it is due, by one thread that is there as long as needed."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: dict[Told, float] = {}
        self._ticking = False

    def add(self, told: Told) -> None:
        """Tells somebody from now on."""
        with self._changed:
            self._due[told] = time.monotonic() + _INTERVAL_SECONDS
            if not self._ticking:
                threads.submit(self._tick)
                self._ticking = True  # last: if Ctrl-C comes before, the next run has it done
            self._changed.notify()

    def remove(self, told: Told) -> None:
        """Tells somebody no more; what is being told just now is told to its end."""
        with self._changed:
            self._due.pop(told, None)
            self._changed.notify()

    def _tick(self) -> None:
        while self._due_now_or_none() is not None:
            for told in self._take_due():
                pause = told.tick()
                with self._changed:
                    if told in self._due:
                        self._due[told] = time.monotonic() + pause

    def _due_now_or_none(self) -> float | None:
        """Waits until somebody is due, and returns when that was; None when nobody is left."""
        with self._changed:
            while self._due:
                first = min(self._due.values())
                left = first - time.monotonic()
                if left <= 0:
                    return first
                self._changed.wait(left)
            self._ticking = False
            return None

    def _take_due(self) -> list[Told]:
        with self._changed:
            now = time.monotonic()
            return [told for told, due in self._due.items() if due <= now]


ticker = _Ticker()


def _after_fork() -> None:
    ticker.__init__()  # type: ignore[misc]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
