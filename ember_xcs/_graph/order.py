"""Topological order: Kahn (1962), "Topological sorting of large networks", and its cycles."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ember_xcs._graph.messages import explain, path
from ember_xcs.errors import CycleError

if TYPE_CHECKING:
    from ember_xcs._graph.graph import XCSGraph

__all__ = ["topological_order"]


def topological_order(graph: XCSGraph, successors: Mapping[str, Iterable[str]]) -> list[str]:
    """Returns the node ids, sources first; among the ready ones, the first added goes first.

    Args:
        graph: The graph.
        successors: For each node that is read, those that read it.

    Raises:
        CycleError: When the edges form a cycle.
    """
    position = {node_id: index for index, node_id in enumerate(graph)}
    if _is_forward(successors, position):
        return list(position)
    return _sorted_order(graph, position)


def _is_forward(successors: Mapping[str, Iterable[str]], position: dict[str, int]) -> bool:
    """Whether every edge leads from an earlier to a later node.

    Then the order of insertion is the answer; graphs are mostly built in it, and this is several
    times faster than finding it.
    """
    return all(
        position[node_id] < position[target]
        for node_id, targets in successors.items()
        for target in targets
    )


def _sorted_order(graph: XCSGraph, position: dict[str, int]) -> list[str]:
    ids = list(position)
    waiting = [len(graph.predecessors(node_id)) for node_id in ids]
    ready = [index for index, count in enumerate(waiting) if not count]  # sorted, hence a heap
    order: list[str] = []
    while ready:
        node_id = ids[heapq.heappop(ready)]
        order.append(node_id)
        for target in graph.successors(node_id):
            index = position[target]
            waiting[index] -= 1
            if not waiting[index]:
                heapq.heappush(ready, index)
    if len(order) < len(ids):
        left = {node_id for node_id, count in zip(ids, waiting, strict=True) if count}
        raise _cycle_error(_find_cycle(graph, left, position))
    return order


def _find_cycle(graph: XCSGraph, left: set[str], position: dict[str, int]) -> list[str]:
    """Returns a cycle among nodes that each have a predecessor among them."""
    node_id = min(left, key=position.__getitem__)
    steps: dict[str, int] = {}
    while node_id not in steps:
        steps[node_id] = len(steps)
        node_id = next(source for source in graph.predecessors(node_id) if source in left)
    backwards = list(steps)[steps[node_id] :]
    cycle = backwards[::-1]
    first = min(range(len(cycle)), key=lambda step: position[cycle[step]])
    return cycle[first:] + cycle[:first]


def _cycle_error(cycle: list[str]) -> CycleError:
    return CycleError(
        explain(
            f"The edges form a cycle: {path([*cycle, cycle[0]])}",
            "A graph must be acyclic, since a node waits for all that it reads",
            f"Remove one of these edges, such as graph.remove_edge({cycle[-1]!r}, {cycle[0]!r}), "
            "or put the loop inside one operator",
        ),
        tuple(cycle),
    )
