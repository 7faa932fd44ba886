"""Computing once what is asked for twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax

from ember_xcs._core.static import Static
from ember_xcs._graph import ConstantBinding, InputBinding, XCSGraph
from ember_xcs._passes.dead_nodes import may_be_dropped
from ember_xcs._passes.rewrite import rebuilt

if TYPE_CHECKING:
    from ember_xcs._core.operator import Operator

__all__ = ["common_subexpressions"]


def common_subexpressions(graph: XCSGraph) -> XCSGraph:
    """Returns the graph with equal nodes merged: the same operator, fed from the same places.

    Only pure and deterministic operators are merged: two calls of a language model with one
    prompt are two samples.
    """
    first: dict[Any, str] = {}
    replaced: dict[str, str] = {}
    for node_id in graph.topological_sort():
        operator = graph[node_id].operator
        if may_be_dropped(operator):
            key = (_identity(operator), _feeds(graph, node_id, replaced))
            known = first.setdefault(key, node_id)
            if known != node_id:
                replaced[node_id] = known
    return rebuilt(graph, set(replaced), replaced=replaced) if replaced else graph


def _identity(operator: Operator) -> Any:
    """What two operators share that give the same results for the same inputs."""
    identity = getattr(operator, "identity", None)
    if identity is not None:
        return tuple(map(_key, identity))
    leaves, structure = jax.tree.flatten(operator)
    return structure, tuple(map(id, leaves))


def _key(part: Any) -> Any:
    return tuple(map(_key, part)) if isinstance(part, tuple) else Static(part)


def _feeds(graph: XCSGraph, node_id: str, replaced: Mapping[str, str]) -> Any:
    bindings = graph.bindings(node_id)
    fields: list[Any] = []
    for field, binding in sorted(bindings.fields.items()):
        if isinstance(binding, ConstantBinding):
            fields.append((field, "constant", Static(binding.value)))
        elif isinstance(binding, InputBinding):
            fields.append((field, "input", binding.name))
        else:
            source = replaced.get(binding.source, binding.source)
            fields.append((field, source, binding.source_field))
    spreads = [
        (replaced.get(s.source, s.source) if s.source else None, s.source_field)
        for s in bindings.spreads
    ]
    return tuple(fields), tuple(spreads)
