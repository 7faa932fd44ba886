"""The rules of edges, and what is said when they are broken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ember_xcs._graph.messages import explain, listing
from ember_xcs.errors import GraphError, UnknownFieldError, UnknownNodeError

if TYPE_CHECKING:
    from ember_xcs._graph.node import XCSNode
    from ember_xcs._graph.ports import Edge

__all__ = [
    "check_mappings",
    "foreign_node",
    "is_within",
    "no_such_edge",
    "prefixed_fields",
    "unknown_input",
]


def check_mappings(
    source_field: str | None, target_field: str | None, mappings: Mapping[str, str]
) -> None:
    """Raises GraphError for mappings between ports, and for none."""
    if source_field is not None or target_field is not None:
        raise GraphError(
            explain(
                f"An edge between ports was given field_mappings={dict(mappings)!r}, too",
                "A port names its field already",
                "Give the nodes with field_mappings, or the ports without",
            )
        )
    if not mappings:
        raise GraphError(
            explain(
                "field_mappings is empty",
                "An edge carries something",
                "Leave field_mappings out to have the edge resolved by field names",
            )
        )


def prefixed_fields(source: XCSNode, target: XCSNode, prefix: str) -> dict[str, str]:
    """Returns output field -> input field, for all that match with ``prefix`` before them."""
    declared = source.operator.signature.outputs
    if declared is None:
        raise UnknownFieldError(
            explain(
                f"{source.id!r} ({source.operator.name}) does not declare its output fields",
                "Fields are matched by the names in the return annotation",
                "Annotate it with a record type (pydantic, dataclass, NamedTuple, TypedDict), or "
                "map the fields: add_edge(..., field_mappings={'output': 'input'})",
            ),
            (source.id, target.id),
        )
    fields = {name: prefix + name for name in declared if prefix + name in target.inputs}
    if not fields:
        raise UnknownFieldError(
            explain(
                f"No output field of {source.id!r} with {prefix!r} before it is an input field of "
                f"{target.id!r}: {listing(declared)} against {listing(target.inputs)}",
                "Fields are matched by name",
                "Map the fields: add_edge(..., field_mappings={'output': 'input'})",
            ),
            (source.id, target.id),
        )
    return fields


def is_within(edge: Edge, wanted: Edge) -> bool:
    """Whether ``edge`` is one of those that ``wanted`` describes; None fields stand for any."""
    return (
        edge.source == wanted.source
        and wanted.source_field in (None, edge.source_field)
        and wanted.target_field in (None, edge.target_field)
    )


def no_such_edge(edge: Edge) -> GraphError:
    """Returns the error for removing an edge that is not there."""
    ends = [end for end in (edge.source, edge.target) if end is not None]
    source = f"the graph input {edge.source_field!r}" if edge.source is None else repr(edge.source)
    fields = [f for f in (edge.source and edge.source_field, edge.target_field) if f]
    through = f" through {listing(fields)}" if fields else ""
    return GraphError(
        explain(
            f"There is no edge from {source} to {edge.target!r}{through}",
            "Only what was added can be removed",
            f"See graph.in_edges({edge.target!r}) for the edges that there are",
        ),
        tuple(ends),
    )


def unknown_input(name: str | None) -> GraphError:
    """Returns the error for an input that was declared in another graph."""
    return GraphError(
        explain(
            f"The graph declares no input {name!r}",
            "An input belongs to the graph that declared it",
            f"Declare it in this one: graph.input({name!r})",
        )
    )


def foreign_node(node_id: str) -> UnknownNodeError:
    """Returns the error for a node of another graph, of which this one has a namesake."""
    return UnknownNodeError(
        explain(
            f"This node {node_id!r} belongs to another graph",
            "An edge joins nodes of one graph",
            f"Use this graph's own: graph[{node_id!r}], or add the node with graph.add_node(node)",
        ),
        (node_id,),
    )
