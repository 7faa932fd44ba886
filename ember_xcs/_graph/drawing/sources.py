"""What all pictures show: the edges between two ends as one arrow with a label."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ember_xcs._graph.graph import XCSGraph
    from ember_xcs._graph.ports import Edge

__all__ = ["arrows", "edge_label", "shown_inputs"]


def edge_label(edge: Edge) -> str:
    """Returns ``"text"``, ``"text -> document"``, or nothing where no field is named."""
    source_field = edge.source_field if edge.source is not None else None
    if edge.target_field is None or edge.target_field == source_field:
        return source_field or ""
    if source_field is None:
        return edge.target_field if edge.target_field != edge.source_field else ""
    return f"{source_field} \N{RIGHTWARDS ARROW} {edge.target_field}"


def arrows(graph: XCSGraph) -> dict[tuple[str | None, str, str], list[str]]:
    """Returns the arrows of a picture with the labels of each.

    An arrow is ``(source, input, target)``: ``source`` is a node id, or None with the name of an
    input of the graph. Inputs that nodes take by name are arrows, too.
    """
    found: dict[tuple[str | None, str, str], list[str]] = {}
    for node in graph.nodes.values():
        edges = graph.in_edges(node)
        if not edges:
            for field in node.operator.signature.names:
                if field not in node.constants:
                    found[None, field, node.id] = []
        for edge in edges:
            name = (edge.source_field or "") if edge.source is None else ""
            labels = found.setdefault((edge.source, name, node.id), [])
            if label := edge_label(edge):
                labels.append(label)
    return found


def shown_inputs(graph: XCSGraph) -> list[tuple[str, bool]]:
    """Returns the name of each input of the graph, and whether it is required."""
    return [(declared.name, declared.required) for declared in graph.inputs.values()]
