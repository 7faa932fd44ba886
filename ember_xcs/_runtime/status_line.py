"""The line on stderr that tells of the runs of the process; one for all of them.

On a terminal it is rewritten ten times a second. A notebook gets the same once a second, since
each change is a message to the browser. Anything else, such as a log, gets a plain line every half
minute. In each of them the last state of a run stays; not of runs so short and many that their
lines would be a flood.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TextIO

from ember_xcs._runtime.progress import Progress, ticker, warn_of

if TYPE_CHECKING:
    from ember_xcs._runtime.progress import Teller

__all__ = ["StatusLine", "status_line"]

_SHORT_SECONDS: Final = 0.5


@dataclass(frozen=True)
class _Style:
    """How lines are shown.

    Attributes:
        pause_seconds: How often, in seconds.
        rewrites: Whether a line takes the place of the one before.
        erase: What makes the cursor's line empty, and the cursor go to its beginning.
    """

    pause_seconds: float
    rewrites: bool
    erase: str = ""


_TERMINAL: Final = _Style(0.1, rewrites=True, erase="\r\x1b[2K")
_NOTEBOOK: Final = _Style(1.0, rewrites=True, erase="\r")
_PLAIN: Final = _Style(30.0, rewrites=False)


class StatusLine:
    """A line for all runs that are to be shown; what is written is whole lines, never mixed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: list[Teller] = []
        self._stream: TextIO | None = None
        self._style = _PLAIN
        self._width = 0  # of what is in the line now
        self._error: BaseException | None = None
        self._kept_at = float("-inf")
        self._begun_at = 0.0

    def join(self, run: Teller) -> None:
        """Shows a run from now on."""
        with self._lock:
            if not self._runs:
                self._stream, self._error, self._width = sys.stderr, None, 0
                self._style = _style_of(self._stream)
                self._begun_at = time.monotonic()
            self._runs.append(run)
        ticker.add(self)

    def tick(self) -> float:
        """Shows how far the runs are."""
        with self._lock:
            early = not self._style.rewrites and (
                time.monotonic() - self._begun_at < self._style.pause_seconds
            )
            if self._runs and not early:
                self._show(str(_together([run.progress() for run in self._runs])))
            return self._style.pause_seconds

    def leave(self, run: Teller) -> None:
        """Shows the end of a run, and no more of it; warns if the line could not be written."""
        with self._lock:
            self._runs.remove(run)
            if not self._runs:
                ticker.remove(self)
            last = run.progress(is_over=True)
            is_one_of_many = time.monotonic() - self._kept_at < _SHORT_SECONDS
            if last.seconds >= _SHORT_SECONDS or not is_one_of_many:
                self._show(str(last), stays=True)
                self._kept_at = time.monotonic()
            elif self._style.rewrites:
                self._show(str(last))
            error, self._error = self._error, None
        if error is not None:
            warn_of(error, "stderr, where progress=True shows a line,")

    def end_line(self) -> None:
        """Ends a line that more was to be written over; what comes next has one of its own."""
        with self._lock:
            if self._width:
                self._write("\n")
            self._width = 0

    def _show(self, text: str, *, stays: bool = False) -> None:
        if self._stream is None or self._error is not None:
            return
        style = self._style
        if style.rewrites and not stays:
            text = text[: shutil.get_terminal_size().columns - 1]
        padding = " " * (self._width - len(text)) if style is _NOTEBOOK else ""
        ends = stays or not style.rewrites
        self._width = 0 if ends else len(text)
        self._write(f"{style.erase}{text}{padding}{chr(10) if ends else ''}")

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError) as error:  # closed, or nobody reads it
            self._error = error


def _style_of(stream: TextIO | None) -> _Style:
    if type(stream).__module__.startswith("ipykernel"):
        return _NOTEBOOK
    is_terminal = stream is not None and not stream.closed and stream.isatty()
    return _TERMINAL if is_terminal and os.environ.get("TERM") != "dumb" else _PLAIN


def _together(runs: list[Progress]) -> Progress:
    """What several runs come to."""
    if len(runs) == 1:
        return runs[0]
    costs = [run.cost for run in runs if run.cost is not None]
    return Progress(
        run=f"{len(runs)} runs",
        calls_done=sum(run.calls_done for run in runs),
        calls_known=sum(run.calls_known for run in runs),
        in_flight=sum(run.in_flight for run in runs),
        failed=sum(run.failed for run in runs),
        retries=sum(run.retries for run in runs),
        cost=sum(costs) if len(costs) == len(runs) else None,
        seconds=max(run.seconds for run in runs),
    )


status_line = StatusLine()
atexit.register(status_line.end_line)


def _after_fork() -> None:
    status_line.__init__()  # type: ignore[misc]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
