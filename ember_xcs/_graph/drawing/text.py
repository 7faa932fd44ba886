"""A graph as a table in plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ember_xcs._graph.graph import XCSGraph
    from ember_xcs._graph.node import XCSNode
    from ember_xcs._graph.ports import Edge, OutputPort

__all__ = ["describe"]


def describe(graph: XCSGraph) -> str:
    """Returns a table of the nodes, what feeds them, and the outputs."""
    rows: list[tuple[str, ...]] = [("node", "kind", "operator", "takes")]
    rows += [
        (_line(n.id), n.operator.kind, _line(n.name), ", ".join(_takes(graph, n)) or "nothing")
        for n in graph.nodes.values()
    ]
    inputs = [i.name if i.required else f"{i.name} (optional)" for i in graph.inputs.values()]
    outputs = [_output(name, port) for name, port in graph.outputs.items()]
    return "\n".join(
        [
            f"XCSGraph {graph.name!r}: {len(graph)} nodes, {len(graph.edges)} edges",
            f"inputs: {_line(', '.join(inputs)) or 'none'}",
            *(_table(rows) if len(graph) else []),
            f"outputs: {_line(', '.join(outputs)) or 'none'}",
        ]
    )


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = (zip(row, widths, strict=True) for row in rows)
    return ["  " + "  ".join(cell.ljust(width) for cell, width in row).rstrip() for row in padded]


def _takes(graph: XCSGraph, node: XCSNode) -> list[str]:
    constants = [f"{_line(field)} = {_short(value)}" for field, value in node.constants.items()]
    edges = graph.in_edges(node)
    if edges:
        return [_fed(edge) for edge in edges] + constants
    names = node.operator.signature.names
    return [f"{field} <- input" for field in names if field not in node.constants] + constants


def _fed(edge: Edge) -> str:
    source = "input" if edge.source is None else edge.source
    origin = source if edge.source_field is None else f"{source}.{edge.source_field}"
    return _line(f"{edge.target_field or '*'} <- {origin}")


def _output(name: str, port: OutputPort) -> str:
    node_id = "input" if port.node_id is None else port.node_id
    origin = node_id if port.field is None else f"{node_id}.{port.field}"
    return name if name == origin else f"{name} = {origin}"


def _short(value: object) -> str:
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype}{list(value.shape)}"
    text = _line(repr(value))
    return text if len(text) <= 40 else text[:37] + "..."


def _line(text: str) -> str:
    """One line of it, so that a table stays a table."""
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
