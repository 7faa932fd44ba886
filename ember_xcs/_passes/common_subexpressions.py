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
    if not any(map(may_be_dropped, graph.operators)):
        return graph
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
        return _key(identity)
    leaves, structure = jax.tree.flatten(operator)
    return structure, tuple(map(_Same, leaves))


class _Same:
    """Stands for one object, and keeps it: an id of its own may be another's tomorrow."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value


def _key(value: Any) -> Any:
    """What stands for a constant: equal for interchangeable values, and for no others.

    Equality of arrays looks through shapes and dtypes, and that of objects that hold arrays does
    too; so what cannot be hashed is equal only to itself.
    """
    kind = type(value)
    if kind is tuple or kind is list:
        return kind, tuple(map(_key, value))
    if kind is dict:
        return kind, tuple((_key(key), _key(item)) for key, item in value.items())
    try:
        hash(value)
    except TypeError:
        return _Same(value)
    return Static(value)


def _feeds(graph: XCSGraph, node_id: str, replaced: Mapping[str, str]) -> Any:
    bindings = graph.bindings(node_id)
    fields: list[Any] = []
    for field, binding in sorted(bindings.fields.items()):
        if isinstance(binding, ConstantBinding):
            fields.append((field, "constant", _key(binding.value)))
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
