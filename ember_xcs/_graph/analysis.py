"""Questions about the shape of a graph: what depends on what, and what takes longest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from ember_xcs._graph.messages import explain
from ember_xcs.errors import GraphError, UnknownNodeError

if TYPE_CHECKING:
    from ember_xcs._graph.graph import XCSGraph
    from ember_xcs._graph.structure import NodeLike

__all__ = ["DependencyAnalyzer"]


class DependencyAnalyzer:
    """Answers what depends on what in a graph, as the graph is at the time of the question.

    Args:
        graph: The graph to look at.

    Example:
        >>> from ember_xcs._graph import XCSGraph
        >>> graph = XCSGraph()
        >>> a, b, c = (graph.add_node(lambda x: x, name) for name in "abc")
        >>> _ = graph.connect(a, b), graph.connect(a, c)
        >>> analyzer = DependencyAnalyzer(graph)
        >>> analyzer.waves(), analyzer.critical_path({"c": 5.0})
        ([['a'], ['b', 'c']], ['a', 'c'])
    """

    def __init__(self, graph: XCSGraph) -> None:
        self.graph = graph

    def dependencies(self, node: NodeLike) -> set[str]:
        """Returns the nodes that a node reads."""
        return set(self.graph.predecessors(node))

    def dependents(self, node: NodeLike) -> set[str]:
        """Returns the nodes that read a node."""
        return set(self.graph.successors(node))

    def transitive_dependencies(self, node: NodeLike) -> set[str]:
        """Returns all the nodes that must have run before a node."""
        return _reachable(self.graph.predecessors(node), self.graph.predecessors)

    def transitive_dependents(self, node: NodeLike) -> set[str]:
        """Returns all the nodes that must wait for a node."""
        return _reachable(self.graph.successors(node), self.graph.successors)

    def waves(self) -> list[list[str]]:
        """Returns the nodes by their depth: those of one wave do not depend on one another.

        Raises:
            CycleError: When the edges form a cycle.
        """
        depth: dict[str, int] = {}
        waves: list[list[str]] = []
        for node_id in self.graph.topological_sort():
            sources = self.graph.predecessors(node_id)
            depth[node_id] = level = 1 + max((depth[s] for s in sources), default=-1)
            if level == len(waves):
                waves.append([])
            waves[level].append(node_id)
        return waves

    def critical_path(self, durations: Mapping[str, float] | None = None) -> list[str]:
        """Returns the path that takes longest: no schedule can be shorter.

        Args:
            durations: How long each node takes, in seconds; 1 for those that are not named.

        Raises:
            CycleError: When the edges form a cycle.
            UnknownNodeError: When a duration is given for what is no node.
            GraphError: When a duration is negative.
        """
        seconds = durations or {}
        self._check_durations(seconds)
        finish: dict[str, float] = {}
        before: dict[str, str | None] = {}
        for node_id in self.graph.topological_sort():
            sources = self.graph.predecessors(node_id)
            latest = max(sources, key=finish.__getitem__, default=None)
            before[node_id] = latest
            start = 0.0 if latest is None else finish[latest]
            finish[node_id] = start + seconds.get(node_id, 1.0)
        return _walk_back(max(finish, key=finish.__getitem__, default=None), before)

    def components(self) -> list[list[str]]:
        """Returns the parts of the graph that no edge joins, each in the order of insertion."""
        found: dict[str, int] = {}
        count = 0
        for node_id in self.graph:
            if node_id not in found:
                found[node_id] = count
                others = _reachable(self._neighbours(node_id), self._neighbours)
                found.update(dict.fromkeys(others, count))
                count += 1
        parts: list[list[str]] = [[] for _ in range(count)]
        for node_id in self.graph:
            parts[found[node_id]].append(node_id)
        return parts

    def _neighbours(self, node_id: str) -> tuple[str, ...]:
        return self.graph.predecessors(node_id) + self.graph.successors(node_id)

    def _check_durations(self, seconds: Mapping[str, float]) -> None:
        for node_id, duration in seconds.items():
            if node_id not in self.graph:
                raise UnknownNodeError(
                    explain(
                        f"A duration is given for {node_id!r}, which is no node of the graph",
                        "Durations are given by node id",
                        "Correct the id, or leave it out",
                    ),
                    (node_id,),
                )
            if not duration >= 0:
                raise GraphError(
                    explain(
                        f"The duration of {node_id!r} is {duration!r}",
                        "A duration is a number of seconds that is not negative",
                        "Correct it, or leave it out to count as 1 second",
                    ),
                    (node_id,),
                )


def _reachable(start: Iterable[str], step: Callable[[str], Iterable[str]]) -> set[str]:
    seen = set(start)
    stack = list(seen)
    while stack:
        new = set(step(stack.pop())) - seen
        seen |= new
        stack.extend(new)
    return seen


def _walk_back(last: str | None, before: Mapping[str, str | None]) -> list[str]:
    path: list[str] = []
    while last is not None:
        path.append(last)
        last = before[last]
    return path[::-1]
