"""Computing before the run what needs no input."""

from __future__ import annotations

import math
from typing import Any

import jax

from ember_xcs._core import calls
from ember_xcs._graph import ConstantBinding, OutputBinding, XCSGraph, pick_field
from ember_xcs._passes.rewrite import rebuilt

__all__ = ["constant_folding"]

_MAX_BYTES = 1 << 20
"""Larger constants are cheaper to compute than to keep."""


def constant_folding(graph: XCSGraph) -> XCSGraph:
    """Returns the graph with pure nodes that need no input replaced by their values.

    A node whose value is a result, or is larger than a megabyte, stays; so does one whose
    value only the run could bind to a field.
    """
    results = {port.node_id for port in graph.outputs.values() if port.node_id is not None}
    kept = results | _read_by_spreads(graph)
    values: dict[str, Any] = {}
    for node_id in graph.topological_sort():
        if node_id not in kept and _is_constant(graph, node_id, values):
            value = _value(graph, node_id, values)
            if value is not None:
                values[node_id] = value
    return rebuilt(graph, set(values), values=values) if values else graph


def _read_by_spreads(graph: XCSGraph) -> set[str]:
    """Nodes read by an edge that only the run resolves, or by a node that would lose all edges."""
    found: set[str] = set()
    for node_id in graph.nodes:
        bindings = graph.bindings(node_id)
        if bindings.spreads or set(bindings.fields) != set(bindings.parameters.names):
            found.update(e.source for e in graph.in_edges(node_id) if e.source is not None)
    return found


def _is_constant(graph: XCSGraph, node_id: str, values: dict[str, Any]) -> bool:
    operator, bindings = graph[node_id].operator, graph.bindings(node_id)
    if operator.kind != "pure" or bindings.spreads:
        return False
    if getattr(operator, "host_inputs", None) or getattr(operator, "host_outputs", None):
        return False
    return all(
        isinstance(b, ConstantBinding) or (isinstance(b, OutputBinding) and b.source in values)
        for b in bindings.fields.values()
    )


def _value(graph: XCSGraph, node_id: str, values: dict[str, Any]) -> Any:
    """The value of a node; None where it is too large, or no tree of arrays."""
    operator = graph[node_id].operator
    fields = {}
    for field, binding in graph.bindings(node_id).fields.items():
        if isinstance(binding, ConstantBinding):
            fields[field] = binding.value
        elif isinstance(binding, OutputBinding):
            value = values[binding.source]
            picked = binding.source_field
            fields[field] = value if picked is None else pick_field(value, picked)
    if not all(isinstance(leaf, jax.Array | int | float) for leaf in jax.tree.leaves(fields)):
        return None
    ordered = [fields[f.name] for f in operator.signature.fields if f.name in fields]
    compute = jax.jit(lambda args: operator.run(tuple(args), {}))
    with calls.recording(None):
        size = sum(
            math.prod(leaf.shape) * leaf.dtype.itemsize
            for leaf in jax.tree.leaves(jax.eval_shape(compute, ordered))
        )
        return compute(ordered) if size <= _MAX_BYTES else None
