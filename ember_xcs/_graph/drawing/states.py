"""What a run did to each node, as pictures show it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["NodeState", "RunResult", "TimelineEntry", "node_states"]


class TimelineEntry(Protocol):
    """When a node ran, in seconds since the run began."""

    @property
    def node_id(self) -> str:
        """The node."""
        ...

    @property
    def start_seconds(self) -> float:
        """When it began."""
        ...

    @property
    def end_seconds(self) -> float:
        """When it ended."""
        ...


class RunResult(Protocol):
    """The part of a run's result that pictures show."""

    @property
    def errors(self) -> Mapping[str, Any]:
        """The nodes that failed."""
        ...

    @property
    def skipped(self) -> Collection[str]:
        """The nodes that did not run, since another failed."""
        ...

    @property
    def timeline(self) -> Iterable[TimelineEntry] | None:
        """When each node ran."""
        ...


@dataclass(frozen=True, slots=True)
class NodeState:
    """What a run did to a node.

    Attributes:
        word: ``"failed"``, ``"skipped"``, ``"done"``, or nothing where it is not known.
        seconds: How long it took, None where that was not measured.
    """

    word: str = ""
    seconds: float | None = None

    @property
    def note(self) -> str:
        """The state and the time, for people."""
        words = [] if self.word in ("", "done") else [self.word]
        return " ".join(words + ([] if self.seconds is None else [_duration(self.seconds)]))


def node_states(result: RunResult | None) -> dict[str, NodeState]:
    """Returns the state of each node that a run says something about."""
    if result is None:
        return {}
    seconds: dict[str, float] = {}
    for entry in result.timeline or ():
        took = entry.end_seconds - entry.start_seconds
        seconds[entry.node_id] = seconds.get(entry.node_id, 0.0) + took
    words = dict.fromkeys(seconds, "done")
    words |= dict.fromkeys(result.skipped, "skipped") | dict.fromkeys(result.errors, "failed")
    return {node_id: NodeState(word, seconds.get(node_id)) for node_id, word in words.items()}


def _duration(seconds: float) -> str:
    if seconds >= 100:
        return f"{seconds:.0f} s"
    if seconds >= 1:
        return f"{seconds:.1f} s"
    if seconds >= 1e-3:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds * 1e6:.0f} \N{MICRO SIGN}s"
