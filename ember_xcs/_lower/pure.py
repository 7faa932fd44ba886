"""Graphs without host work, as functions of arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ember_xcs._core.plumbing import Pack, Pick
from ember_xcs._lower.node_calls import NodeCall
from ember_xcs._lower.region import Region, RegionStep

if TYPE_CHECKING:
    from ember_xcs._graph import XCSGraph

__all__ = ["compute_pure", "is_pure"]


def is_pure(graph: XCSGraph) -> bool:
    """Whether every node of a graph is pure, or plumbing."""
    operators = (node.operator for node in graph.nodes.values())
    return all(op.kind == "pure" or isinstance(op, Pack | Pick) for op in operators)


def compute_pure(graph: XCSGraph, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the outputs of a pure graph by name, for inputs by name; JAX may be tracing."""
    steps = [
        RegionStep(node_id, NodeCall(graph[node_id].operator, graph.bindings(node_id)))
        for node_id in graph.topological_sort()
    ]
    ports = graph.outputs
    computed = {name: (p.node_id, p.field) for name, p in ports.items() if p.node_id is not None}
    region = Region(steps, list(computed.values()))
    values = region.compute([inputs[str(name)] for _, name in region.sources])
    passed = {n: inputs[str(p.field)] for n, p in ports.items() if p.node_id is None}
    return {**passed, **dict(zip(computed, values, strict=True))}
