"""Leaving out what no result needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ember_xcs._core.operator import HostOperator, Operator
from ember_xcs._passes.rewrite import rebuilt

if TYPE_CHECKING:
    from ember_xcs._graph import XCSGraph

__all__ = ["dead_nodes", "may_be_dropped"]


def dead_nodes(graph: XCSGraph) -> XCSGraph:
    """Returns the graph without pure and deterministic nodes that no result needs.

    Host work that may give another result each time, or has side effects, stays: it was called
    for, and plain Python would call it.
    """
    needed = {port.node_id for port in graph.outputs.values() if port.node_id is not None}
    dropped = set()
    for node_id in reversed(graph.topological_sort()):
        if node_id not in needed and may_be_dropped(graph[node_id].operator):
            dropped.add(node_id)
        else:
            needed.update(e.source for e in graph.in_edges(node_id) if e.source is not None)
    return rebuilt(graph, dropped) if dropped else graph


def may_be_dropped(operator: Operator) -> bool:
    """Whether nobody can tell that an operator was not run, but by its result."""
    if isinstance(operator, HostOperator):
        return operator.policy.deterministic and not operator.policy.side_effects
    return operator.kind in ("pure", "glue")
