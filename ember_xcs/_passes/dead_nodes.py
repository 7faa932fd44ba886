"""Leaving out what no result needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ember_xcs._core.operator import HostOperator, Operator, sub_operators
from ember_xcs._passes.rewrite import rebuilt

if TYPE_CHECKING:
    from ember_xcs._graph import XCSGraph

__all__ = ["dead_nodes", "may_be_dropped", "side_effects_alone"]


def dead_nodes(graph: XCSGraph) -> XCSGraph:
    """Returns the graph without pure and deterministic nodes that no result needs.

    Host work that may give another result each time, or has side effects, stays: it was called
    for, and plain Python would call it.
    """
    if not any(map(may_be_dropped, graph.operators)):
        return graph
    needed = {port.node_id for port in graph.outputs.values() if port.node_id is not None}
    dropped = set()
    for node_id in reversed(graph.topological_sort()):
        if node_id not in needed and may_be_dropped(graph[node_id].operator):
            dropped.add(node_id)
        else:
            needed.update(e.source for e in graph.in_edges(node_id) if e.source is not None)
    return rebuilt(graph, dropped) if dropped else graph


def side_effects_alone(graph: XCSGraph) -> XCSGraph:
    """Returns the graph with its side effects and what they need, and no output of its own."""
    needed: set[str] = set()
    for node_id in reversed(graph.topological_sort()):
        if node_id in needed or _has_side_effects(graph[node_id].operator):
            needed.add(node_id)
            needed.update(e.source for e in graph.in_edges(node_id) if e.source is not None)
    rest = graph.copy()
    rest.set_outputs()
    rest.remove_nodes(set(graph.nodes) - needed)
    return rest


def _has_side_effects(operator: Operator) -> bool:
    """Whether an operator, or one in it, is declared to have side effects."""
    if isinstance(operator, HostOperator) and operator.policy.side_effects:
        return True
    return any(map(_has_side_effects, sub_operators(operator)))


def may_be_dropped(operator: Operator) -> bool:
    """Whether nobody can tell that an operator was not run, but by its result."""
    if isinstance(operator, HostOperator):
        return operator.policy.deterministic and not operator.policy.side_effects
    return operator.kind in ("pure", "glue")
