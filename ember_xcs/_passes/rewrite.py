"""Rebuilding a graph without some of its nodes, or with others in their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ember_xcs._graph import (
    ConstantBinding,
    Edge,
    OutputBinding,
    OutputPort,
    XCSGraph,
    XCSNode,
    pick_field,
)

__all__ = ["add_edge", "emptied", "rebuilt", "same_port"]

_NOTHING: Mapping[str, str] = {}


def rebuilt(
    graph: XCSGraph,
    dropped: set[str],
    replaced: Mapping[str, str] | None = None,
    values: Mapping[str, Any] | None = None,
    notes: Mapping[str, Mapping[str, str]] | None = None,
) -> XCSGraph:
    """Returns a graph without the nodes ``dropped``.

    Args:
        graph: The graph; it is not changed.
        dropped: The nodes to leave out.
        replaced: For dropped nodes that others read: the node that is read instead.
        values: For dropped nodes that others read: the value that is read instead.
        notes: For other nodes: what is added to their metadata.
    """
    replaced, values, notes = replaced or {}, values or {}, notes or {}
    result = emptied(graph)
    for node in graph.nodes.values():
        if node.id not in dropped:
            constants = {**node.constants, **_folded(graph, node, values)}
            result.add_node(
                node.operator,
                node.id,
                node.name if node.has_own_name else None,
                {**node.metadata, **notes.get(node.id, {})} or None,
                constants or None,
            )
    for node_id in result.nodes:
        for edge in graph.in_edges(node_id):
            if edge.source not in values:
                add_edge(result, edge, replaced)
    result.set_outputs(
        **{name: same_port(result, port, replaced) for name, port in graph.outputs.items()}
    )
    return result


def emptied(graph: XCSGraph) -> XCSGraph:
    """Returns a graph of the same name and declared inputs, without nodes."""
    result = XCSGraph(graph.name)
    for name, given in graph.declared_inputs.items():
        result.input(name, given.default)
    return result


def same_port(graph: XCSGraph, port: OutputPort, replaced: Mapping[str, str] = _NOTHING) -> Any:
    """Returns what a port of another graph is in this one."""
    if port.node_id is None:
        return graph.input(str(port.field))
    node = graph[replaced.get(port.node_id, port.node_id)]
    return node if port.field is None else node.outputs[port.field]


def _folded(graph: XCSGraph, node: XCSNode, values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a node that now are constants."""
    if not any(edge.source in values for edge in graph.in_edges(node)):
        return {}
    found = {}
    for field, binding in graph.bindings(node).fields.items():
        if isinstance(binding, OutputBinding) and binding.source in values:
            value = values[binding.source]
            picked = binding.source_field
            found[field] = value if picked is None else pick_field(value, picked)
        elif isinstance(binding, ConstantBinding):
            found[field] = binding.value
    return found


def add_edge(graph: XCSGraph, edge: Edge, replaced: Mapping[str, str] = _NOTHING) -> None:
    """Adds the edge of another graph."""
    target: Any = graph[edge.target]
    if edge.target_field is not None:
        target = target.inputs[edge.target_field]
    source: Any
    if edge.source is None:
        source = graph.input(str(edge.source_field))
    else:
        source = graph[replaced.get(edge.source, edge.source)]
        if edge.source_field is not None:
            source = source.outputs[edge.source_field]
    graph.connect(source, target)
