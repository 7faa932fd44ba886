"""What came of running a graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ember_xcs._runtime.run import Run
    from ember_xcs._runtime.timeline import ExecutionMetrics, TimelineEntry
    from ember_xcs.errors import NodeExecutionError

__all__ = ["ExecutionResult"]


class ExecutionResult(Mapping[str, Any]):
    """The outputs of the requested nodes, by node id or output name, and how they came about.

    Where partial results are wanted (``return_partial_results``), a batch that was not finished is
    a list of what its calls returned, with an exception in the place of each that has not ended.

    Attributes:
        errors: The failures, by node id.
        skipped: Why a node did not run, by node id.
        complete: Whether every requested output is there and nothing failed.
        metrics: What the run came to.
        timeline: The calls in the order of their starting; empty unless ``collect_metrics`` or
            ``trace_execution`` was set.
    """

    def __init__(self, run: Run) -> None:
        self._values = run.kept_results
        self.errors: Mapping[str, NodeExecutionError] = dict(run.errors)
        self.skipped: Mapping[str, str] = dict(run.skipped)
        self.complete: bool = run.complete
        self.metrics: ExecutionMetrics = run.metrics
        self.timeline: tuple[TimelineEntry, ...] = run.timeline
        self._timed_out = run.timed_out

    def __getitem__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise KeyError(self._why_missing(name)) from self.errors.get(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        states = {"failed": self.errors, "skipped": self.skipped}
        notes = "".join(f", {len(nodes)} {state}" for state, nodes in states.items() if nodes)
        notes += ", timed out" if self._timed_out else ""
        return f"ExecutionResult({', '.join(self._values) or 'empty'}{notes})"

    def _why_missing(self, name: str) -> str:
        if name in self.errors:
            return f"{name!r} failed: {self.errors[name]}"
        if name in self.skipped:
            return f"{name!r} was skipped: {self.skipped[name]}"
        if self._timed_out:
            return f"{name!r} was not computed before the deadline"
        return f"{name!r} is not among the requested outputs: {', '.join(self._values) or 'none'}"
