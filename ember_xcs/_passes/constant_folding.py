"""Computing before the run what needs no input."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import jax

from ember_xcs._core import calls
from ember_xcs._graph import ConstantBinding, OutputBinding, XCSGraph, pick_field
from ember_xcs._passes.arguments import call_arguments
from ember_xcs._passes.rewrite import rebuilt

if TYPE_CHECKING:
    from ember_xcs._core.operator import Operator

__all__ = ["constant_folding"]

_MAX_BYTES = 1 << 20
"""Larger constants are cheaper to compute than to keep."""


def constant_folding(graph: XCSGraph) -> XCSGraph:
    """Returns the graph with pure nodes that need no input replaced by their values.

    A node whose value is a result, or is larger than a megabyte, stays; so does one whose
    value only the run could bind to a field. One that fails stays, too: a run is where a failure
    is named, and where ``on_error`` says what becomes of the rest. Its metadata have the reason, as
    ``not_folded``.
    """
    if not any(operator.kind == "pure" for operator in graph.operators):
        return graph
    results = {port.node_id for port in graph.outputs.values() if port.node_id is not None}
    kept = results | _read_by_spreads(graph)
    values: dict[str, Any] = {}
    notes: dict[str, dict[str, str]] = {}
    for node_id in graph.topological_sort():
        if node_id not in kept and _is_constant(graph, node_id, values):
            try:
                value = _value(graph, node_id, values)
            except Exception as error:  # noqa: BLE001  (user code may raise anything)
                notes[node_id] = {"not_folded": f"{type(error).__name__}: {error}"}
                continue
            if value is not None:
                values[node_id] = value
    return rebuilt(graph, set(values), values=values, notes=notes) if values or notes else graph


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
    """The value of a node; None where it is too large. Raises whatever the operator raises."""
    operator = graph[node_id].operator
    constants, computed = {}, {}
    for field, binding in graph.bindings(node_id).fields.items():
        if isinstance(binding, ConstantBinding):
            constants[field] = binding.value
        elif isinstance(binding, OutputBinding):
            computed[field] = values[binding.source], binding.source_field
    compute = jax.jit(partial(_computed, operator, constants, list(computed)))
    arguments = list(computed.values())
    with calls.recording(None):
        picked = [v if name is None else pick_field(v, name) for v, name in arguments]
        size = sum(_bytes(leaf) for leaf in jax.tree.leaves(jax.eval_shape(compute, picked)))
        return compute(picked) if size <= _MAX_BYTES else None


def _computed(
    operator: Operator, constants: dict[str, Any], fields: list[str], values: list[Any]
) -> Any:
    given = constants | dict(zip(fields, values, strict=True))
    args, kwargs = call_arguments(operator.signature, given)
    return operator.run(args, kwargs)


def _bytes(leaf: Any) -> int:
    size: int = math.prod(leaf.shape) * leaf.dtype.itemsize
    return size
