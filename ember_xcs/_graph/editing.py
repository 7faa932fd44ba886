"""Graphs from graphs: copies, merges and parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ember_xcs._graph.bindings import InputBinding, OutputBinding
from ember_xcs._graph.messages import explain
from ember_xcs._graph.ports import MISSING, Edge, InputPort, OutputPort
from ember_xcs.errors import DuplicateNodeError, GraphError

if TYPE_CHECKING:
    from ember_xcs._graph.graph import XCSGraph
    from ember_xcs._graph.node import XCSNode

__all__ = ["copy_into", "cut_into", "merge"]


def copy_into(graph: XCSGraph, source: XCSGraph) -> None:
    """Makes an empty graph like ``source``."""
    for node in source.nodes.values():
        graph.add_node(node)
    _declare_inputs(graph, source)
    _add_edges(graph, source.edges, lambda node_id: graph[node_id])
    if source.has_own_outputs:
        graph.set_outputs(**source.outputs)


def merge(graph: XCSGraph, other: XCSGraph, namespace: str) -> dict[str, XCSNode]:
    """Adds a graph to another; returns the new nodes by their ids in ``other``."""
    ids = {node_id: f"{namespace}/{node_id}" if namespace else node_id for node_id in other}
    edges, nodes = other.edges, list(other.nodes.values())
    taken = [node_id for node_id in ids.values() if node_id in graph]
    if taken:
        raise DuplicateNodeError(
            explain(
                f"Both graphs have a node {taken[0]!r}",
                "The id of a node is unique in its graph",
                "Merge with a namespace: graph.merge(other, namespace='retrieval')",
            ),
            tuple(taken),
        )
    _declare_inputs(graph, other)
    added = {n.id: graph.add_node(n, ids[n.id] if namespace else None) for n in nodes}
    _add_edges(graph, edges, added.__getitem__)
    return added


def cut_into(graph: XCSGraph, source: XCSGraph, kept: set[str]) -> None:
    """Makes an empty graph of the ``kept`` nodes of another."""
    for node in source.nodes.values():
        if node.id in kept:
            graph.add_node(node)
    edges = {node_id: source.in_edges(node_id) for node_id in graph}
    is_cut = {
        node_id: any(e.source is not None and e.source not in kept for e in inbound)
        for node_id, inbound in edges.items()
    }
    used = {e.source_field for inbound in edges.values() for e in inbound if e.source is None}
    _declare_inputs(graph, source, {name for name in source.declared_inputs if name in used})
    names = _CutNames(graph, source)
    for node_id, inbound in edges.items():
        resolved = _resolved_edges(source, node_id) if is_cut[node_id] else inbound
        cut = [names.as_input(edge) if edge.source not in kept else edge for edge in resolved]
        _add_edges(graph, cut, lambda node_id: graph[node_id])
    if source.has_own_outputs:
        left = {k: p for k, p in source.outputs.items() if p.node_id in kept}
        graph.set_outputs(**left)


class _CutNames:
    """The names of the inputs that stand for values of nodes that were left out."""

    def __init__(self, graph: XCSGraph, source: XCSGraph) -> None:
        self.graph = graph
        fields = {name for node in graph.nodes.values() for name in node.operator.signature.names}
        self.taken = fields | set(source.declared_inputs)
        self.names: dict[tuple[str, str | None], str] = {}

    def as_input(self, edge: Edge) -> Edge:
        """Returns the edge from the input that stands for its source."""
        if edge.source is None:
            return edge
        value = edge.source, edge.source_field
        if value not in self.names:
            self.names[value] = self._fresh(".".join(part for part in value if part is not None))
        return Edge(None, self.names[value], edge.target, edge.target_field)

    def _fresh(self, wanted: str) -> str:
        name, number = wanted, 2
        while name in self.taken:
            name, number = f"{wanted}_{number}", number + 1
        self.taken.add(name)
        self.graph.input(name)
        return name


def _resolved_edges(graph: XCSGraph, node_id: str) -> list[Edge]:
    """The edges to a node with all their fields: what is cut off can no longer tell them."""
    bindings = graph.bindings(node_id)
    edges: list[Edge] = []
    for binding in bindings.fields.values():
        if isinstance(binding, OutputBinding):
            edges.append(Edge(binding.source, binding.source_field, node_id, binding.field))
        elif isinstance(binding, InputBinding):
            edges.append(Edge(None, binding.name, node_id, binding.field))
    edges.extend(Edge(s.source, s.source_field, node_id) for s in bindings.spreads)
    return edges


def _declare_inputs(graph: XCSGraph, source: XCSGraph, names: set[str] | None = None) -> None:
    known = graph.declared_inputs
    for name, declared in source.declared_inputs.items():
        if names is not None and name not in names:
            continue
        both = name in known and MISSING not in (known[name].default, declared.default)
        if both and known[name].default is not declared.default:
            raise GraphError(
                explain(
                    f"Both graphs declare the input {name!r}, with different defaults",
                    "Inputs of one name become one",
                    "Give it one default, or another name in one of the graphs",
                )
            )
        graph.input(name, declared.default)


def _add_edges(graph: XCSGraph, edges: Iterable[Edge], node: Callable[[str], XCSNode]) -> None:
    for edge in edges:
        source = OutputPort(None if edge.source is None else node(edge.source), edge.source_field)
        target = node(edge.target)
        field = edge.target_field
        graph.add_edge(source, target if field is None else InputPort(target, field))
