"""What a graph consists of: its nodes, its edges, its inputs and its outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

from ember_xcs._core.functions import as_operator
from ember_xcs._core.operator import Operator
from ember_xcs._graph import connecting
from ember_xcs._graph.messages import did_you_mean, explain, listing
from ember_xcs._graph.node import XCSNode, readable_id
from ember_xcs._graph.ports import MISSING, Edge, GraphInput, InputPort, OutputPort
from ember_xcs.errors import DuplicateNodeError, FieldConflictError, GraphError, UnknownNodeError

__all__ = ["GraphStructure", "NodeLike", "SourceLike", "TargetLike"]

T = TypeVar("T")

NodeLike: TypeAlias = XCSNode | str
SourceLike: TypeAlias = XCSNode | str | OutputPort
TargetLike: TypeAlias = XCSNode | str | InputPort


class GraphStructure:
    """The nodes and edges of a graph, and how they are added and removed."""

    def __init__(self, name: str = "graph") -> None:
        self.name = name
        self._nodes: dict[str, XCSNode] = {}
        self._inbound: dict[str, list[Edge]] = {}
        self._successors: dict[str, dict[str, None]] = {}
        self._inputs: dict[str, GraphInput] = {}
        self._outputs: dict[str, OutputPort] | None = None
        self._version = 0
        self._next_number: dict[str, int] = {}
        self._wrapped: dict[int, tuple[Callable[..., Any], Operator]] = {}
        self._derived: dict[str, Any] = {}

    # Nodes

    def add_node(
        self,
        op: Operator | Callable[..., Any] | XCSNode,
        node_id: str | None = None,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        constants: Mapping[str, Any] | None = None,
    ) -> XCSNode:
        """Adds a use of an operator and returns its node.

        Args:
            op: An operator; a bare callable becomes a host operator. A node of another graph is
                shared: it keeps its id, name, metadata and constants.
            node_id: A unique id; by default the operator's name, numbered from the second on.
            name: What it is called in pictures; by default the operator's name.
            metadata: Notes, without effect on a run.
            constants: Values for input fields, by field name.

        Raises:
            DuplicateNodeError: When the graph has a node of this id.
        """
        if isinstance(op, XCSNode):
            return self._add(op if node_id is None else op.renamed(node_id))
        operator = self._as_operator(op)
        if node_id is None:
            node_id = self._fresh_id(operator.name)
        return self._add(XCSNode(node_id, operator, name, metadata, constants))

    def _add(self, node: XCSNode) -> XCSNode:
        node_id = node.id
        if node_id in self._nodes:
            raise _duplicate(node_id)
        if not node_id:
            raise GraphError(
                explain(
                    f"The node id {node_id!r} is not one",
                    "An id is a string that is not empty",
                    "Leave node_id out to get a readable id",
                )
            )
        self._nodes[node_id] = node
        self._changed()
        return node

    def _as_operator(self, op: Operator | Callable[..., Any]) -> Operator:
        """One function is one operator, however many nodes use it."""
        known = self._wrapped.get(id(op))
        if known is None or known[0] is not op:  # a graph that was unpickled has the ids of others
            if isinstance(op, Operator):
                return op
            known = self._wrapped[id(op)] = (op, as_operator(op))
        return known[1]

    def _fresh_id(self, operator_name: str) -> str:
        base = readable_id(operator_name)
        number = self._next_number.get(base, 1)
        node_id = base if number == 1 else f"{base}_{number}"
        while node_id in self._nodes:
            number += 1
            node_id = f"{base}_{number}"
        self._next_number[base] = number + 1
        return node_id

    def remove_node(self, node: NodeLike) -> None:
        """Removes a node, its edges, and the outputs of the graph that name it."""
        self.remove_nodes([node])

    def remove_nodes(self, nodes: Iterable[NodeLike]) -> None:
        """Removes nodes, their edges, and the outputs of the graph that name them.

        A node that loses its last inbound edge takes the graph's inputs from then on. Where no
        named output is left, the outputs are the nodes without successors again.
        """
        gone = {self._id(node) for node in nodes}
        targets = {t for node_id in gone for t in self._successors.get(node_id, ())} - gone
        for node_id in gone:
            for source in self.predecessors(node_id):
                self._successors[source].pop(node_id, None)
        for target in targets:
            self._inbound[target] = [e for e in self._inbound[target] if e.source not in gone]
        for node_id in gone:
            del self._nodes[node_id]
            self._inbound.pop(node_id, None)
            self._successors.pop(node_id, None)
        if self._outputs is not None:
            kept = {k: port for k, port in self._outputs.items() if port.node_id not in gone}
            self._outputs = kept or None
        self._changed()

    # Edges

    def add_edge(
        self,
        source: SourceLike,
        target: TargetLike,
        field_mappings: Mapping[str, str] | None = None,
    ) -> tuple[Edge, ...]:
        """Adds an edge, or one for each entry of ``field_mappings``, and returns them.

        Args:
            source: A node or its id, an output port, or an input of the graph.
            target: A node or its id, or an input port.
            field_mappings: Output field to input field; only between two nodes.

        Raises:
            UnknownNodeError: When an end is no node of this graph.
        """
        nodes = self._nodes
        source_id: str | None
        source_field = target_field = None
        # Most edges of large graphs are between ids. They keep those of the nodes, and not equal
        # strings of their own.
        if type(source) is str and (known := nodes.get(source)) is not None:
            source_id = known.id
        else:
            source_id, source_field = self._source(source)
        if type(target) is str and (known := nodes.get(target)) is not None:
            target_id = known.id
        else:
            target_id, target_field = self._target(target)
        if field_mappings is None:
            edges: tuple[Edge, ...] = (Edge(source_id, source_field, target_id, target_field),)
        else:
            connecting.check_mappings(source_field, target_field, field_mappings)
            edges = tuple(Edge(source_id, k, target_id, v) for k, v in field_mappings.items())
        inbound = self._inbound.get(target_id)
        if inbound is None:
            self._inbound[target_id] = list(edges)
        else:
            inbound.extend(edges)
        if source_id is not None:
            readers = self._successors.get(source_id)
            if readers is None:
                self._successors[source_id] = {target_id: None}
            else:
                readers[target_id] = None
        self._changed()
        return edges

    def connect(self, source: SourceLike, target: TargetLike) -> Edge:
        """Adds one edge between two nodes or ports and returns it.

        Example:
            >>> from ember_xcs._graph import XCSGraph
            >>> def draft(topic: str) -> dict: ...
            >>> def review(text: str) -> str: ...
            >>> graph = XCSGraph()
            >>> a, b = graph.add_node(draft), graph.add_node(review)
            >>> graph.connect(a.outputs["body"], b.inputs["text"])
            Edge(source='draft', source_field='body', target='review', target_field='text')
        """
        return self.add_edge(source, target)[0]

    def connect_matching(self, source: NodeLike, target: NodeLike) -> tuple[Edge, ...]:
        """Maps every output field of ``source`` to the input field of the same name.

        Raises:
            UnknownFieldError: When the source declares no output fields, or none has a match.
        """
        return self.connect_prefixed(source, target, prefix="")

    def connect_prefixed(self, source: NodeLike, target: NodeLike, prefix: str) -> tuple[Edge, ...]:
        """Maps every output field ``x`` of ``source`` to the input field ``prefix + x``.

        Raises:
            UnknownFieldError: When the source declares no output fields, or none has a match.
        """
        nodes = self[source], self[target]
        return self.add_edge(*nodes, field_mappings=connecting.prefixed_fields(*nodes, prefix))

    def remove_edge(
        self,
        source: SourceLike,
        target: TargetLike,
    ) -> None:
        """Removes the edges from ``source`` to ``target``; ports narrow down which.

        Raises:
            GraphError: When there is no such edge.
        """
        source_id, source_field = self._source(source)
        target_id, target_field = self._target(target)
        wanted = Edge(source_id, source_field, target_id, target_field)
        inbound = self._inbound.get(target_id, [])
        kept = [edge for edge in inbound if not connecting.is_within(edge, wanted)]
        if len(kept) == len(inbound):
            raise connecting.no_such_edge(wanted)
        self._inbound[target_id] = kept
        if source_id is not None and all(edge.source != source_id for edge in kept):
            del self._successors[source_id][target_id]
        self._changed()

    def _target(self, target: TargetLike) -> tuple[str, str | None]:
        if isinstance(target, InputPort):
            return self._id(target.node), target.field
        return self._id(target), None

    def _source(self, source: SourceLike) -> tuple[str | None, str | None]:
        if not isinstance(source, OutputPort):
            return self._id(source), None
        if source.node is not None:
            return self._id(source.node), source.field
        if source.field is None or source.field not in self._inputs:
            raise connecting.unknown_input(source.field)
        return None, source.field

    # Inputs and outputs

    def input(self, name: str, default: Any = MISSING) -> OutputPort:
        """Declares an input of the graph and returns it as a source for edges.

        Args:
            name: What runs call it.
            default: Its value in runs without it; without a default it is required.

        Raises:
            GraphError: When it was declared before with another default.
        """
        known = self._inputs.get(name)
        if known is None or (known.default is MISSING and default is not MISSING):
            self._inputs[name] = GraphInput(name, default is MISSING, default, explicit=True)
            self._changed()
        elif default is not MISSING and default is not known.default:
            raise GraphError(
                explain(
                    f"The input {name!r} was declared with the default {known.default!r} before",
                    "An input has one default",
                    "Declare it once, or use another name",
                )
            )
        return OutputPort(None, name)

    @property
    def declared_inputs(self) -> Mapping[str, GraphInput]:
        """The inputs that were declared by ``input``, by name."""
        return MappingProxyType(self._inputs)

    @property
    def outputs(self) -> Mapping[str, OutputPort]:
        """The results by name; by default the nodes without successors, by id."""
        if self._outputs is not None:
            return MappingProxyType(self._outputs)
        ends = (n for n in self._nodes.values() if not self._successors.get(n.id))
        return MappingProxyType(self._cached("ends", lambda: {n.id: OutputPort(n) for n in ends}))

    @property
    def has_own_outputs(self) -> bool:
        """Whether the outputs were set, rather than being the nodes without successors."""
        return self._outputs is not None

    def set_outputs(self, /, *sources: SourceLike, **named: SourceLike) -> None:
        """Says what the results are; without arguments, the nodes without successors.

        Args:
            *sources: Nodes, their ids or output ports. A node's result is called by its id, a
                field's ``"id.field"``.
            **named: The same under a name of your choice.

        Raises:
            UnknownNodeError: When one is no node of this graph.
            FieldConflictError: When two results have one name.
        """
        ports: dict[str, OutputPort] = {}
        pairs = [(None, source) for source in sources] + list(named.items())
        for given_name, source in pairs:
            node_id, field = self._source(source)
            port = OutputPort(None if node_id is None else self._nodes[node_id], field)
            name = given_name or ".".join(part for part in (node_id, field) if part is not None)
            if name in ports:
                raise FieldConflictError(
                    explain(
                        f"Two outputs are called {name!r}",
                        "Results are returned by name",
                        "Name one of them: graph.set_outputs(other_name=...)",
                    )
                )
            ports[name] = port
        self._outputs = ports or None
        self._changed()

    # Questions

    @property
    def version(self) -> int:
        """A number that grows with each change of the graph."""
        return self._version

    @property
    def nodes(self) -> Mapping[str, XCSNode]:
        """The nodes by id, in the order in which they were added."""
        return MappingProxyType(self._nodes)

    @property
    def operators(self) -> tuple[Operator, ...]:
        """The operators of the nodes, each once, in the order in which they were first used."""
        found = (node.operator for node in self._nodes.values())
        return self._cached("operators", lambda: tuple(dict.fromkeys(found)))

    @property
    def edges(self) -> tuple[Edge, ...]:
        """All edges, by target."""
        inbound = (self._inbound.get(node_id, ()) for node_id in self._nodes)
        return tuple(edge for edges in inbound for edge in edges)

    def in_edges(self, node: NodeLike) -> tuple[Edge, ...]:
        """Returns the edges to a node, in the order in which they were added."""
        return tuple(self._inbound.get(self._id(node), ()))

    def predecessors(self, node: NodeLike) -> tuple[str, ...]:
        """Returns the ids of the nodes that a node reads, each once, in the order of its edges."""
        edges = self._inbound.get(self._id(node), ())
        return tuple(dict.fromkeys(edge.source for edge in edges if edge.source is not None))

    def successors(self, node: NodeLike) -> tuple[str, ...]:
        """Returns the ids of the nodes that read a node, each once."""
        return tuple(self._successors.get(self._id(node), ()))

    def _unfed(self) -> list[XCSNode]:
        """The nodes without inbound edges."""
        nodes, inbound = self._nodes.items(), self._inbound
        return self._cached("unfed", lambda: [n for k, n in nodes if not inbound.get(k)])

    def _cached(self, key: str, compute: Callable[[], T]) -> T:
        if key not in self._derived:
            self._derived[key] = compute()
        value: T = self._derived[key]
        return value

    def _changed(self) -> None:
        self._version += 1
        if self._derived:
            self._derived = {}

    def _id(self, node: NodeLike) -> str:
        """The id of a node of this graph, which need not be the graph that it was added to."""
        if type(node) is str and node in self._nodes:  # the way that all internal work takes
            return node
        node_id = node if isinstance(node, str) else getattr(node, "id", None)
        known = self._nodes.get(node_id) if isinstance(node_id, str) else None
        if known is None:
            raise _unknown(node, node_id, self._nodes)
        if known is not node and not isinstance(node, str):
            raise connecting.foreign_node(known.id)
        return known.id

    def __getitem__(self, node: NodeLike) -> XCSNode:
        """Returns the node of this id.

        Raises:
            UnknownNodeError: When there is none.
        """
        found = self._nodes.get(node) if type(node) is str else None
        return self._nodes[self._id(node)] if found is None else found

    def __contains__(self, node: object) -> bool:
        """Whether this is an id or a node of the graph."""
        if isinstance(node, XCSNode):
            return self._nodes.get(node.id) is node
        return node in self._nodes

    def __iter__(self) -> Iterator[str]:
        """Iterates over the ids of the nodes, in the order in which they were added."""
        return iter(self._nodes)

    def __len__(self) -> int:
        """The number of nodes."""
        return len(self._nodes)

    def __bool__(self) -> bool:
        """True: a graph without nodes is a graph."""
        return True


def _duplicate(node_id: str) -> DuplicateNodeError:
    return DuplicateNodeError(
        explain(
            f"The graph has a node {node_id!r} already",
            "The id of a node is unique in its graph",
            "Choose another node_id, or leave it out to get a fresh one",
        ),
        (node_id,),
    )


def _unknown(given: object, node_id: str | None, known: Mapping[str, XCSNode]) -> UnknownNodeError:
    if not isinstance(node_id, str):
        return UnknownNodeError(
            explain(
                f"{given!r} is no node",
                "An end of an edge is a node, its id, or a port",
                "Add an operator with graph.add_node(operator) and use what that returns",
            )
        )
    return UnknownNodeError(
        explain(
            f"The graph has no node {node_id!r}{did_you_mean(node_id, known)}",
            f"It has {len(known)} nodes: {listing(known)}",
            "Use one of their ids, or add the node first",
        ),
        (node_id,),
    )
