"""What feeds each input field of a node.

An edge with a target field says it itself. The others are resolved here, in two steps, so that
the order of the edges matters only where nothing else can decide:

1. *By name.* A source that declares its output fields carries them to the input fields of the
   same name. A node without inbound edges takes the inputs of the graph by name.
2. *By position.* Any other output goes to the next unbound parameter, in the order of the edges.

Where a source declares nothing (its annotation is ``Any`` or a dict), only its value can tell
which of the two it is: a mapping goes by name, anything else by position. Such an edge is a
*spread*, resolved by the same two steps while the graph runs. An unmapped edge that goes by
position waits with the spreads of its node, since they may take the field that it would get.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ember_xcs._graph.messages import explain, listing
from ember_xcs._graph.parameters import OutputForm, Parameters, output_form, parameters_of
from ember_xcs._graph.ports import Edge, check_output_field, unknown_input_field
from ember_xcs.errors import FieldConflictError, UnboundInputError, UnknownFieldError

if TYPE_CHECKING:
    from ember_xcs._core.operator import Operator
    from ember_xcs._graph.graph import XCSGraph
    from ember_xcs._graph.node import XCSNode
    from ember_xcs._graph.ports import GraphInput

__all__ = [
    "Binder",
    "Binding",
    "ConstantBinding",
    "InputBinding",
    "NodeBindings",
    "OutputBinding",
    "SpreadBinding",
]


class ConstantBinding(NamedTuple):
    """A field that has a value already.

    Attributes:
        field: The input field of the node.
        value: Its value.
    """

    field: str
    value: Any

    @property
    def origin(self) -> str:
        """Where the value comes from, for messages."""
        return "a constant of the node"


class InputBinding(NamedTuple):
    """A field that takes an input of the graph.

    Attributes:
        field: The input field of the node.
        name: The input of the graph.
        required: Whether a run without that input is an error; if not, the field is left to its
            operator's default.
    """

    field: str
    name: str
    required: bool = True

    @property
    def origin(self) -> str:
        """Where the value comes from, for messages."""
        return f"the graph input {self.name!r}"


class OutputBinding(NamedTuple):
    """A field that takes the output of a node, or a field of it.

    Attributes:
        field: The input field of the node.
        source: The node that the value comes from.
        source_field: The field of its output (see ``pick_field``), None for the whole of it.
    """

    field: str
    source: str
    source_field: str | None = None

    @property
    def origin(self) -> str:
        """Where the value comes from, for messages."""
        return _origin(self.source, self.source_field)


class SpreadBinding(NamedTuple):
    """An unmapped edge whose fields only its value can tell.

    Attributes:
        source: The node that the value comes from, None for an input of the graph.
        source_field: The field of its output, None for the whole of it; or the name of the input
            of the graph. Both None: all the inputs of the graph, as one mapping.
        whole: Whether the value is known to be no mapping, and waits only for the others.
    """

    source: str | None
    source_field: str | None = None
    whole: bool = False

    @property
    def origin(self) -> str:
        """Where the value comes from, for messages."""
        return _origin(self.source, self.source_field)


Binding: TypeAlias = ConstantBinding | InputBinding | OutputBinding


class NodeBindings(NamedTuple):
    """What feeds a node.

    Attributes:
        node_id: The node.
        fields: What feeds each field that is known before the run, by field name.
        spreads: What is known only during the run, in the order of the edges.
        parameters: What the node's operator takes.
    """

    node_id: str
    fields: Mapping[str, Binding]
    spreads: tuple[SpreadBinding, ...]
    parameters: Parameters

    def spread(self, values: Iterable[Any]) -> dict[str, Any]:
        """Returns the fields that the values of ``spreads`` feed.

        Args:
            values: One value for each entry of ``spreads``, in that order.

        Raises:
            FieldConflictError: When two values would feed one field, or no field is left.
            UnknownFieldError: When a mapping has no key that names a field.
            UnboundInputError: When a required field is left without a value.
        """
        bound = {field: binding.origin for field, binding in self.fields.items()}
        result: dict[str, Any] = {}
        pairs = list(zip(self.spreads, values, strict=True))
        for spread, value in pairs:
            if not spread.whole and isinstance(value, Mapping):
                for field in self._named(spread, value):
                    self._claim(field, spread.origin, bound)
                    result[field] = value[field]
        for spread, value in pairs:
            if spread.whole or not isinstance(value, Mapping):
                field = next_field(self.node_id, self.parameters, bound, spread)
                bound[field] = spread.origin
                result[field] = value
        for field in self.parameters.required:
            if field not in bound:
                raise unbound(self.node_id, field)
        return result

    def _named(self, spread: SpreadBinding, value: Mapping[Any, Any]) -> list[str]:
        constant = {f for f, b in self.fields.items() if isinstance(b, ConstantBinding)}
        takes = self.parameters.takes
        names = [k for k in value if isinstance(k, str) and takes(k) and k not in constant]
        whole_inputs = spread.source is None and spread.source_field is None
        if not names and not whole_inputs:
            raise nothing_carried(self.node_id, spread, map(str, value), self.parameters)
        return names

    def _claim(self, field: str, origin: str, bound: dict[str, str]) -> None:
        if field in bound:
            raise conflict(self.node_id, field, bound[field], origin)
        bound[field] = origin


class Binder:
    """Finds the bindings of the nodes of a graph, as long as the graph is not changed.

    What depends on an operator alone is found once for each operator: the nodes of a large graph
    mostly share a few.

    Args:
        graph: The graph.
    """

    __slots__ = ("declared", "nodes", "takers")

    def __init__(self, graph: XCSGraph) -> None:
        self.nodes = graph.nodes
        self.declared = graph.declared_inputs
        self.takers: dict[Operator, _Taker] = {}

    def bind(self, node: XCSNode, edges: Sequence[Edge]) -> NodeBindings:
        """Returns what feeds a node.

        Args:
            node: The node.
            edges: The edges to it.

        Raises:
            UnknownFieldError: When an edge names a field that is not there, or carries none.
            FieldConflictError: When two edges write one field.
            UnboundInputError: When nothing feeds a required field.
        """
        parameters = self.taker(node.operator).parameters
        if edges and not node.constants:
            fields = self._whole_outputs(edges, parameters)
            if fields is not None:
                return NodeBindings(node.id, fields, (), parameters)
        resolution = _Resolution(self, node, parameters)
        if edges:
            resolution.bind_edges(edges)
        else:
            resolution.bind_graph_inputs(self.declared)
        return resolution.finish()

    def _whole_outputs(
        self, edges: Iterable[Edge], parameters: Parameters
    ) -> dict[str, Binding] | None:
        """The bindings of edges that carry whole outputs, each to a field of its own.

        Nearly all nodes of large graphs are fed so, and this takes a third of the time of a
        resolution. None where there is more to it, or something is wrong.
        """
        nodes, takers, whole = self.nodes, self.takers, OutputForm.WHOLE
        unnamed = iter(parameters.in_order)
        fields: dict[str, Binding] = {}
        for source, source_field, _, target_field in edges:
            field = target_field
            if source is None or source_field is not None:
                return None
            if field is None:
                operator = nodes[source].operator
                if (takers.get(operator) or self.taker(operator)).form is not whole:
                    return None
                field = next(unnamed, None)
            if field in fields or field not in parameters.known:
                return None
            fields[field] = OutputBinding(field, source)
        for field in parameters.required:
            if field not in fields:
                return None
        return fields

    def taker(self, operator: Operator) -> _Taker:
        """Returns what the operator of a node takes and gives."""
        found = self.takers.get(operator)
        if found is None:
            signature = operator.signature
            form = output_form(signature)
            taker = _Taker(parameters_of(signature), signature.outputs, form)
            found = self.takers[operator] = taker
        return found

    def is_whole(self, edge: Edge) -> bool:
        """Whether what an edge carries is declared to be no mapping."""
        if edge.source is None or edge.source_field is not None:
            return False
        return self.taker(self.nodes[edge.source].operator).form is OutputForm.WHOLE


class _Taker(NamedTuple):
    """What an operator takes, the fields of its output if it declares them, and their form."""

    parameters: Parameters
    outputs: tuple[str, ...] | None
    form: OutputForm


class _Resolution:
    """The bindings of one node while they are being found."""

    __slots__ = ("binder", "fields", "node", "parameters", "spreads")

    def __init__(self, binder: Binder, node: XCSNode, parameters: Parameters) -> None:
        self.binder, self.node, self.parameters = binder, node, parameters
        self.fields: dict[str, Binding] = {}
        self.spreads: list[SpreadBinding] = []
        for field, value in node.constants.items():
            self._bind(ConstantBinding(field, value))

    def bind_graph_inputs(self, declared: Mapping[str, GraphInput]) -> None:
        for field in self.parameters.names:
            if field not in self.fields:
                default = field in declared and not declared[field].required
                required = field in self.parameters.required and not default
                self._bind(InputBinding(field, field, required))
        if self.parameters.takes_everything:
            self.spreads.append(SpreadBinding(None, None))

    def bind_edges(self, edges: Iterable[Edge]) -> None:
        unmapped: list[Edge] = []
        for edge in edges:
            source, source_field, _, target_field = edge
            if source_field is not None and source is not None:
                check_output_field(self.binder.nodes[source], source_field)
            if target_field is None:
                unmapped.append(edge)
            else:
                self._bind(_binding(edge, target_field))
        if unmapped:
            self._bind_by_position([e for e in unmapped if not self._bound_by_name(e)])

    def _bound_by_name(self, edge: Edge) -> bool:
        """Carries what has a name that the node knows; False where the edge has no names."""
        if edge.source_field is not None:
            if edge.source_field not in self.parameters.known:
                return False
            self._bind(_binding(edge, edge.source_field))
            return True
        source = edge.source or ""
        declared = self.binder.taker(self.binder.nodes[source].operator).outputs
        if declared is None:
            return False
        constants = self.node.constants
        carried = [f for f in declared if self.parameters.takes(f) and f not in constants]
        if not carried:
            raise nothing_carried(self.node.id, SpreadBinding(source), declared, self.parameters)
        for field in carried:
            self._bind(OutputBinding(field, source, field))
        return True

    def _bind_by_position(self, edges: list[Edge]) -> None:
        whole = [self.binder.is_whole(edge) for edge in edges]
        if all(whole):
            fields = iter(self.parameters.in_order)
            for edge in edges:
                field = next((f for f in fields if f not in self.fields), None)
                self._bind(_binding(edge, self._undeclared(edge) if field is None else field))
        else:
            self.spreads.extend(
                SpreadBinding(edge.source, edge.source_field, is_whole)
                for edge, is_whole in zip(edges, whole, strict=True)
            )

    def _undeclared(self, edge: Edge) -> str:
        """The field of an edge for which no parameter is left; an error, but for open operators."""
        bound = {field: b.origin for field, b in self.fields.items()}
        spread = SpreadBinding(edge.source, edge.source_field, whole=True)
        return next_field(self.node.id, self.parameters, bound, spread)

    def _bind(self, binding: Binding) -> None:
        field = binding.field
        if not self.parameters.takes(field):
            raise unknown_input_field(self.node, field, self.parameters.names)
        known = self.fields.setdefault(field, binding)
        if known is not binding:
            raise conflict(self.node.id, field, known.origin, binding.origin)

    def finish(self) -> NodeBindings:
        if not self.spreads:
            for field in self.parameters.required:
                if field not in self.fields:
                    raise unbound(self.node.id, field)
        return NodeBindings(self.node.id, self.fields, tuple(self.spreads), self.parameters)


def _binding(edge: Edge, field: str) -> InputBinding | OutputBinding:
    source, source_field, _, _ = edge
    if source is None:
        return InputBinding(field, source_field or "")
    return OutputBinding(field, source, source_field)


def _origin(source: str | None, source_field: str | None) -> str:
    if source is None:
        return "the graph's inputs" if source_field is None else f"the graph input {source_field!r}"
    if source_field is None:
        return f"the output of {source!r}"
    return f"the field {source_field!r} of {source!r}"


def next_field(
    node_id: str, parameters: Parameters, bound: Mapping[str, str], spread: SpreadBinding
) -> str:
    """Returns the next unbound parameter, in the order of the signature."""
    for field in parameters.in_order:
        if field not in bound:
            return field
    if parameters.open and spread.source_field is not None and spread.source_field not in bound:
        return spread.source_field
    feeders = (f"{field!r} by {origin}" for field, origin in bound.items())
    raise FieldConflictError(
        explain(
            f"No unbound parameter of {node_id!r} is left for {spread.origin}; "
            f"fed already: {', '.join(feeders) or 'none, as it names no parameters'}",
            "An edge without mapping that carries no mapping goes to the next unbound parameter",
            f"Name the field: graph.add_edge(source, graph[{node_id!r}].inputs['field'])",
        ),
        (*([spread.source] if spread.source is not None else []), node_id),
    )


def nothing_carried(
    node_id: str, spread: SpreadBinding, gives: Iterable[str], parameters: Parameters
) -> UnknownFieldError:
    """Returns the error for an unmapped edge of which no field has a place at its target."""
    return UnknownFieldError(
        explain(
            f"The edge to {node_id!r} carries nothing: {spread.origin} has the fields "
            f"{listing(gives)}, and {node_id!r} takes {listing(parameters.names)}",
            "An edge without mapping carries output fields to input fields of the same name",
            f"Map them, as in graph.add_edge({spread.source!r}, {node_id!r}, field_mappings="
            "{'output field': 'input field'}), or pass the whole output: "
            f"graph.add_edge({spread.source!r}, graph[{node_id!r}].inputs['input field'])",
        ),
        (*([spread.source] if spread.source is not None else []), node_id),
    )


def conflict(node_id: str, field: str, first: str, second: str) -> FieldConflictError:
    """Returns the error for a field that is fed twice."""
    return FieldConflictError(
        explain(
            f"The input field {field!r} of {node_id!r} is fed by {first} and by {second}",
            "One field takes one value",
            "Remove one of them, or map one to another field with field_mappings={...}",
        ),
        (node_id,),
    )


def unbound(node_id: str, field: str) -> UnboundInputError:
    """Returns the error for a required field that nothing feeds."""
    return UnboundInputError(
        explain(
            f"Nothing feeds the input field {field!r} of {node_id!r}",
            "A parameter without default needs a value, and a node with inbound edges takes no "
            "inputs of the graph by itself",
            f"Add an edge to it, such as graph.connect(graph.input({field!r}), "
            f"graph[{node_id!r}].inputs[{field!r}]), or a constant: add_node(..., "
            f"constants={{{field!r}: value}})",
        ),
        (node_id,),
    )
