"""Graphs by writing the calls: ``with autograph() as graph:`` records them without running them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ember_xcs._core import calls
from ember_xcs._graph import OutputPort, XCSGraph, XCSNode
from ember_xcs._trace.recorder import GraphRecorder
from ember_xcs._trace.symbols import is_symbol

__all__ = ["AutoGraph", "autograph"]


class AutoGraph(XCSGraph):
    """An ``XCSGraph`` whose nodes are the calls of a ``with autograph()`` block.

    Where a node or a port is asked for, the symbol that a recorded call returned will do.
    """

    def __init__(self, name: str = "graph") -> None:
        super().__init__(name)
        self._recorder: _AutoRecorder | None = None

    def _source(self, source: Any) -> tuple[str | None, str | None]:
        if is_symbol(source) and self._recorder is not None:
            source = self._recorder.source(source)
        return super()._source(source)

    def _id(self, node: Any) -> str:
        if is_symbol(node) and self._recorder is not None:
            node = self._recorder.source(node)
        return super()._id(node)


class _AutoRecorder(GraphRecorder):
    """Takes the nodes and ports of its graph as values, too."""

    def is_value(self, value: Any) -> bool:
        """Whether this stands for a value that is known only in a run."""
        return is_symbol(value) or isinstance(value, OutputPort | XCSNode)

    def source(self, value: Any) -> Any:
        """Returns a node or port of the graph that gives the value."""
        return super().source(value) if is_symbol(value) else value


@contextlib.contextmanager
def autograph(name: str = "graph", *, recursive: bool = True) -> Iterator[AutoGraph]:
    """Records the operator calls of a block into a graph, without running them.

    A recorded call returns a symbol: it can be passed to other operators, alone or in containers,
    fields can be picked from it, and it can be given to ``graph.set_outputs``. Nodes and ports of
    the graph can be passed to operators, too; other values become constants.

    Args:
        name: The name of the graph.
        recursive: Whether composite operators are opened into the calls that they make.

    Yields:
        The graph. Its inputs are what ``graph.input("name")`` declares.

    Raises:
        TracingError: A symbol is used for what needs its value; the message has the user's line.

    Example:
        >>> from ember_xcs._core.functions import host
        >>> draft, judge = (
        ...     host(lambda topic: ..., name="draft"),
        ...     host(lambda text: ..., name="judge"),
        ... )
        >>> with autograph("essay") as graph:
        ...     text = draft(graph.input("topic"))
        ...     score = judge(text)
        >>> graph.set_outputs(score=score)
        >>> list(graph.inputs), graph.topological_sort(), list(graph.outputs)
        (['topic'], ['draft', 'judge'], ['score'])
    """
    graph = AutoGraph(name)
    recorder = graph._recorder = _AutoRecorder(graph, recursive)  # noqa: SLF001  (its other half)
    with calls.recording(recorder):
        yield graph
