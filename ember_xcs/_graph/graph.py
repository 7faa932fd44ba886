"""XCSGraph: what will be computed, by which operators, from what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from ember_xcs._core.collector import uncollected
from ember_xcs._graph import drawing, editing, serialization
from ember_xcs._graph.bindings import Binder, NodeBindings
from ember_xcs._graph.inputs import graph_inputs, node_inputs, takes_any_input
from ember_xcs._graph.order import topological_order
from ember_xcs._graph.ports import GraphInput, check_output_field
from ember_xcs._graph.structure import GraphStructure, NodeLike

if TYPE_CHECKING:
    from ember_xcs._graph.drawing.states import RunResult
    from ember_xcs._graph.node import XCSNode

__all__ = ["XCSGraph"]


class XCSGraph(GraphStructure):
    """A graph of operators: nodes compute, edges say which output feeds which input.

    A node without inbound edges takes the graph's inputs by field name. An edge without mapping
    carries a mapping output by field names, any other output to the next unbound parameter.

    Args:
        name: What the graph is called in pictures and messages.

    Example:
        >>> def search(query: str) -> list[str]: ...
        >>> def answer(query: str, documents: list[str]) -> str: ...
        >>> graph = XCSGraph("qa")
        >>> found = graph.add_node(search)
        >>> answered = graph.add_node(answer)
        >>> _ = graph.connect(graph.input("query"), answered.inputs["query"])
        >>> _ = graph.connect(found, answered.inputs["documents"])
        >>> graph.validate()
        >>> list(graph.inputs), list(graph.outputs), graph.topological_sort()
        (['query'], ['answer'], ['search', 'answer'])
    """

    # Questions

    @property
    def inputs(self) -> Mapping[str, GraphInput]:
        """All inputs by name: the declared ones, then those that nodes without edges imply."""
        return MappingProxyType(self._cached("inputs", self._all_inputs))

    def _all_inputs(self) -> dict[str, GraphInput]:
        return graph_inputs(self.declared_inputs, self._unfed())

    @property
    def takes_any_input(self) -> bool:
        """Whether a node takes all that the graph is given, whatever its name."""
        return self._cached("takes_any_input", lambda: takes_any_input(self._unfed()))

    def topological_sort(self) -> list[str]:
        """Returns the node ids, sources first; among the ready ones, the first added goes first.

        Raises:
            CycleError: When the edges form a cycle; the message shows it as a path.
        """
        return list(self._cached("order", lambda: topological_order(self, self._successors)))

    def bindings(self, node: NodeLike) -> NodeBindings:
        """Returns what feeds each input field of a node.

        Raises:
            UnknownFieldError: When an edge names a field that is not there, or carries none.
            FieldConflictError: When two edges write one field.
            UnboundInputError: When nothing feeds a required field.
        """
        node_id = self._id(node)
        known: dict[str, NodeBindings] = self._cached("bindings", dict)
        found = known.get(node_id)
        if found is None:
            binder = self._cached("binder", lambda: Binder(self))
            edges = self._inbound.get(node_id, ())
            found = known[node_id] = binder.bind(self._nodes[node_id], edges)
        return found

    def prepare_node_inputs(
        self,
        node_id: NodeLike,
        results: Mapping[str, Any],
        inputs: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Returns what a node receives, by field.

        Args:
            node_id: The node or its id.
            results: The outputs of the nodes that it reads, by id.
            inputs: The inputs of the graph, by name.

        Raises:
            UnboundInputError: When a required input of the graph is not among ``inputs``.
            UnknownFieldError: When an output does not have a field that an edge picks.

        Example:
            >>> graph = XCSGraph()
            >>> _ = graph.add_node(lambda text: text.upper(), "shout")
            >>> graph.prepare_node_inputs("shout", {}, {"text": "hello"})
            {'text': 'hello'}
        """
        return node_inputs(self, self.bindings(node_id), results, inputs or {})

    def validate(self) -> None:
        """Checks that the graph can run: no cycle, every field known and fed once.

        Raises:
            GraphError: The subclass that says what is wrong.
        """
        self._cached("validated", self._validated)

    def all_bindings(self) -> Mapping[str, NodeBindings]:
        """Returns what feeds each input field of each node, by the id of the node.

        Raises:
            GraphError: When the edges to a node cannot be resolved: see ``bindings``.
        """
        return MappingProxyType(self._cached("all_bindings", self._all_bindings))

    def _all_bindings(self) -> dict[str, NodeBindings]:
        known: dict[str, NodeBindings] = self._cached("bindings", dict)
        bind, inbound = self._cached("binder", lambda: Binder(self)).bind, self._inbound
        for node_id, node in self._nodes.items():
            if node_id not in known:
                known[node_id] = bind(node, inbound.get(node_id, ()))
        return known

    def _validated(self) -> bool:
        self.topological_sort()
        with uncollected(len(self)):
            self.all_bindings()
        for port in self.outputs.values():
            if port.node is not None and port.field is not None:
                check_output_field(port.node, port.field)
        return True

    # Graphs from graphs

    def copy(self) -> Self:
        """Returns a graph of its own with the same nodes, edges, inputs and outputs.

        Nodes do not change, so the two share them: a node can be used with either.
        """
        duplicate = type(self)(self.name)
        editing.copy_into(duplicate, self)
        return duplicate

    def merge(self, other: XCSGraph, namespace: str = "") -> dict[str, XCSNode]:
        """Adds the nodes, edges and declared inputs of another graph to this one.

        Inputs of one name become one. The outputs of ``other`` are not taken over.

        Args:
            other: What to add; it stays as it is.
            namespace: Put before the ids, as in ``"retrieval/search"``; empty for none.

        Returns:
            The new nodes, by their ids in ``other``.

        Raises:
            DuplicateNodeError: When an id is taken; this graph is then as it was.
        """
        return editing.merge(self, other, namespace)

    def subgraph(self, nodes: Iterable[NodeLike], name: str | None = None) -> Self:
        """Returns a graph of some of the nodes.

        Each value that they read from the others becomes an input of it, called by the node that
        it came from: ``"search"``, or ``"search.text"`` for a field. Named outputs that are left
        stay; where none is, the outputs are the nodes without successors.

        Args:
            nodes: The nodes to keep.
            name: What it is called; by default as this graph.

        Example:
            >>> graph = XCSGraph()
            >>> def search(query: str) -> str: ...
            >>> def answer(text: str) -> str: ...
            >>> _ = graph.connect(graph.add_node(search), graph.add_node(answer))
            >>> part = graph.subgraph(["answer"])
            >>> list(part.inputs), part.prepare_node_inputs("answer", {}, {"search": "found"})
            (['search'], {'text': 'found'})
        """
        part = type(self)(self.name if name is None else name)
        editing.cut_into(part, self, {self._id(node) for node in nodes})
        return part

    # JSON

    def to_json(self, indent: int | None = None) -> str:
        """Returns the graph as JSON: operators as import paths and JSON fields, never pickles.

        Args:
            indent: Spaces for each level; None for one line.

        Raises:
            GraphFormatError: When an operator has no import path, or a value is not JSON.
        """
        return serialization.graph_to_json(self, indent)

    @classmethod
    def from_json(cls, source: str, allowed_modules: Iterable[str] = ()) -> Self:
        """Returns the graph that ``to_json`` saved.

        Args:
            source: The JSON text.
            allowed_modules: Modules that operators may be imported from, with all below them:
                ``"app"`` allows ``app.search``, and not ``application``. The operator classes of
                ember_xcs itself are always allowed.

        Raises:
            GraphFormatError: When the text is not such JSON, or names what is not allowed or not
                there.
        """
        graph = cls()
        serialization.load_into(graph, source, tuple(allowed_modules))
        return graph

    # Pictures

    def describe(self) -> str:
        """Returns a table of the nodes, what feeds them, and the outputs."""
        return drawing.text.describe(self)

    def to_mermaid(self) -> str:
        """Returns the graph as a Mermaid flow chart."""
        return drawing.mermaid.to_mermaid(self)

    def to_dot(self) -> str:
        """Returns the graph in Graphviz's language."""
        return drawing.dot.to_dot(self)

    def to_svg(self, result: RunResult | None = None, dark: bool = False) -> str:
        """Returns the graph as an SVG picture.

        Args:
            result: The result of a run, to show which nodes failed, which were skipped, and how
                long each took.
            dark: Whether it is for a dark background.

        Raises:
            GraphError: When the graph has too many nodes to be readable.
        """
        return drawing.svg.to_svg(self, result, dark=dark)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Returns what Jupyter shows."""
        return drawing.notebook.mimebundle(self)

    def _repr_html_(self) -> str:
        return drawing.notebook.html(self)

    def __repr__(self) -> str:
        edges = len(self.edges)
        return f"XCSGraph({self.name!r}, {len(self)} nodes, {edges} edges)"
