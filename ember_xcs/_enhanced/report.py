"""What a run did: which calls overlapped, and where the program waited, and for what."""

from __future__ import annotations

import dataclasses
import linecache
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

from ember_xcs._enhanced.call_sites import is_internal

if TYPE_CHECKING:
    from types import CodeType, FrameType

    from ember_xcs._enhanced.pending import Pending

__all__ = ["Call", "Recorder", "RunReport", "Wait"]

_MOST_CALLS: Final = 2000
_MOST_LINES: Final = 200
_WORTH_SECONDS: Final = 1e-4  # shorter waits say nothing


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """A call of an operator.

    Attributes:
        label: Which: ``judge#3`` is the third call of ``judge``.
        start: When it began, in seconds after the run did.
        end: When it ended.
    """

    label: str
    start: float
    end: float


@dataclasses.dataclass(slots=True)
class Wait:
    """A line of the program that waited.

    Attributes:
        filename: The file.
        line: The line; 0 for the end of the program, which waits for its result.
        seconds: For how long, all times together.
        count: How often.
        longest: For what it waited longest.
        longest_seconds: How long that was.
    """

    filename: str
    line: int
    seconds: float = 0.0
    count: int = 0
    longest: str = ""
    longest_seconds: float = 0.0

    @property
    def text(self) -> str:
        """The line as it stands in the source."""
        return linecache.getline(self.filename, self.line).strip()


class Recorder:
    """Takes notes while a program runs; of a long run, only so many."""

    def __init__(self) -> None:
        self.begun = time.perf_counter()
        self.calls: list[tuple[str, float, float]] = []
        self.dropped = 0
        self._waits: dict[tuple[CodeType, int], Wait] = {}
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()

    def label(self, name: str) -> str:
        """Returns what the next call of an operator is called."""
        count = self._counts[name] = self._counts.get(name, 0) + 1
        return f"{name}#{count}"

    def ended(self, node: Pending) -> None:
        """Notes a call that has ended."""
        if len(self.calls) < _MOST_CALLS:
            self.calls.append((node.label, *node.seconds))
        else:
            self.dropped += 1

    def waited(self, node: Pending, seconds: float, root: FrameType | None) -> None:
        """Notes that the program waited for a call."""
        if seconds < _WORTH_SECONDS:
            return
        frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  (documented)
        while frame is not None and is_internal(frame.f_code) and frame is not root:
            frame = frame.f_back
        if frame is None:
            return
        line = 0 if frame is root else frame.f_lineno
        wait = self._waits.get((frame.f_code, line))
        if wait is None:
            if len(self._waits) >= _MOST_LINES:
                return
            wait = self._waits[frame.f_code, line] = Wait(frame.f_code.co_filename, line)
        wait.seconds += seconds
        wait.count += 1
        if seconds > wait.longest_seconds:
            wait.longest, wait.longest_seconds = node.cause, seconds

    def report(self, name: str) -> RunReport:
        """Returns what the run did, now that it is over."""
        calls = tuple(Call(n, a - self.begun, b - self.begun) for n, a, b in list(self.calls))
        waits = tuple(sorted(self._waits.values(), key=lambda wait: -wait.seconds))
        return RunReport(name, time.perf_counter() - self.begun, calls, waits, self.dropped)


@dataclasses.dataclass(frozen=True)
class RunReport:
    """What a run of an enhanced function did; printed, it is an account of its time.

    Attributes:
        name: The function.
        seconds: How long the run took.
        calls: Its operator calls, in the order in which they ended.
        waits: The lines that waited, longest first.
        dropped: How many calls were not noted, since there were too many.
    """

    name: str
    seconds: float
    calls: tuple[Call, ...]
    waits: tuple[Wait, ...]
    dropped: int = 0

    strategy = "enhanced"

    @property
    def call_seconds(self) -> float:
        """How long the calls would have taken one after another."""
        return sum(call.end - call.start for call in self.calls)

    def overlapping(self) -> list[tuple[str, ...]]:
        """Returns the groups of calls that were in flight together, in the order of their start."""
        groups: list[tuple[str, ...]] = []
        group: list[str] = []
        until = 0.0
        for call in sorted(self.calls, key=lambda call: call.start):
            if group and call.start >= until:
                groups.append(tuple(group))
                group = []
            group.append(call.label)
            until = max(until, call.end) if len(group) > 1 else call.end
        groups.append(tuple(group))
        return [group for group in groups if len(group) > 1]

    def __str__(self) -> str:
        lines = [
            f"{self.name}: {self.seconds:.2f} s for {len(self.calls) + self.dropped} calls that "
            f"take {self.call_seconds:.2f} s one after another"
        ]
        lines += [f"  together: {_listed(group)}" for group in self.overlapping()[:10]]
        lines += [f"  {line}" for wait in self.waits[:10] for line in _described(wait)]
        if not self.waits:
            lines.append("  the program did not wait")
        return "\n".join(lines)

    __repr__ = __str__


def _listed(group: tuple[str, ...]) -> str:
    if len(group) <= 6:
        return ", ".join(group)
    return f"{', '.join(group[:5])} and {len(group) - 5} more"


def _described(wait: Wait) -> list[str]:
    times = f", {wait.count} times" if wait.count > 1 else ""
    what = wait.longest if wait.count == 1 else f"longest {wait.longest}"
    if not wait.line:
        return [f"the result waited {wait.seconds:.2f} s for {what}"]
    return [
        f"line {wait.line}: `{wait.text}` waited {wait.seconds:.2f} s for {what}{times}",
        f"    {_remedy(wait.text)}",
    ]


def _remedy(text: str) -> str:
    """What would remove a wait, by the kind of statement that waited."""
    first = text.split(" ", 1)[0].rstrip(":")
    if first in ("if", "elif", "while", "assert"):
        return "the branch is decided here: make calls that do not depend on it above this line"
    if first in ("try", "except", "finally", "with"):
        return "a `try` or `with` ends all its calls: put more independent calls into one of them"
    if first in ("return", "yield"):
        return "the result leaves the program here: this is the end of its critical path"
    if first == "for":
        return "the loop needs its values: make the calls in a comprehension above it"
    if first in ("raise", "global", "nonlocal", "del"):
        return "what other code can see happens only after all earlier calls have ended well"
    return (
        "this is code that is not known to be free of effects, or needs the value itself: make "
        "it an operator (@xcs.host, or @xcs.pure), or move it below calls that do not depend on it"
    )
