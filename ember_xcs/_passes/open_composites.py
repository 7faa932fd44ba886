"""Opening composite operators, so that the calls inside them overlap with all others.

A composite operator as one node is one call, on one thread: the operators in it run one after
another. Its ``forward`` is recorded once, with symbols, and the calls that it makes become nodes
of the graph. What it returns is put together under its own id, so that everybody who read the
composite reads the same as before.

A composite stays one node where a recording could not stand for each of its calls: its code
chooses between paths, asks for more of a value than recordings allow, or its arguments are known
only in the run. Where the recording was tried, the metadata of the node have the reason, as
``not_opened``: what the code raised when it met a symbol, or what a run will meet, too, and name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jax

from ember_xcs._core.operator import Operator, sub_operators
from ember_xcs._core.operator_class import derived
from ember_xcs._core.plumbing import Pack
from ember_xcs._core.signature import Field, Signature
from ember_xcs._graph import ConstantBinding, Edge, NodeBindings, XCSGraph, XCSNode
from ember_xcs._graph.bindings import InputBinding, OutputBinding
from ember_xcs._passes.arguments import call_arguments
from ember_xcs._passes.rewrite import add_edge, emptied, rebuilt, same_port
from ember_xcs._trace.straight_line import choice_in_function
from ember_xcs._trace.structural import RecordedFunction, record_structure

__all__ = ["open_composites"]


def open_composites(graph: XCSGraph) -> XCSGraph:
    """Returns the graph with composite operators opened into the calls that they make.

    The node ``parallel`` becomes nodes such as ``parallel/search``, and a node ``parallel`` that
    puts their results together.
    """
    if all(operator.kind != "composite" for operator in graph.operators):
        return graph
    opened: dict[str, RecordedFunction] = {}
    notes: dict[str, dict[str, str]] = {}
    for node_id, node in graph.nodes.items():
        if node.operator.kind == "composite" and _may_be_recorded(graph, node):
            try:
                opened[node_id] = _recorded(graph, node)
            except Exception as error:  # noqa: BLE001  (user code may raise anything)
                notes[node_id] = {"not_opened": f"{type(error).__name__}: {error}"}
    noted = rebuilt(graph, set(), notes=notes) if notes else graph
    return _Splice(noted, opened).result if opened else noted


class Together(Pack):
    """Puts together what a composite operator returns.

    Attributes:
        count: How many parts there are.
        label: The name of the composite operator.
        declared: Its signature.
    """

    count: int
    label: str
    declared: Signature

    @derived
    def name(self) -> str:
        """The name of the composite operator."""
        return self.label

    @derived
    def signature(self) -> Signature:
        """An input for each part; the outputs of the composite operator."""
        fields = tuple(Field(f"item{k}") for k in range(self.count))
        return Signature(fields, outputs=self.declared.outputs, returns=self.declared.returns)


@dataclass(frozen=True, slots=True)
class _Argument:
    """Stands for the value of a field in the tree of arguments."""

    field: str


def _may_be_recorded(graph: XCSGraph, node: XCSNode) -> bool:
    return _are_known(graph, graph.bindings(node)) and _has_one_path(node.operator)


def _recorded(graph: XCSGraph, node: XCSNode) -> RecordedFunction:
    """What a composite operator does with such arguments. Raises whatever its code raises."""
    operator, bindings = node.operator, graph.bindings(node)
    fields = {name: _Argument(name) for name in bindings.fields}
    leaves, structure = jax.tree.flatten(call_arguments(operator.signature, fields))
    labels = [leaf.field for leaf in leaves]
    constants = {f: b.value for f, b in bindings.fields.items() if isinstance(b, ConstantBinding)}
    static = [k for k, label in enumerate(labels) if label in constants]
    values = [constants.get(label) for label in labels]
    return record_structure(operator, structure, values, labels, name=operator.name, static=static)


def _are_known(graph: XCSGraph, bindings: NodeBindings) -> bool:
    """Whether each run gives a value to the same fields."""
    always = {name for name, given in graph.declared_inputs.items() if not given.required}
    may_be_missing = (
        isinstance(b, InputBinding) and not b.required and b.name not in always
        for b in bindings.fields.values()
    )
    return not bindings.spreads and not any(may_be_missing)


def _has_one_path(operator: Operator) -> bool:
    """Whether the code of a composite operator, and of those in it, chooses nothing."""
    inside = (op for op in sub_operators(operator) if op.kind == "composite")
    return choice_in_function(operator.forward) is None and all(map(_has_one_path, inside))


class _Splice:
    """A graph with the recordings of some of its nodes in their places."""

    def __init__(self, graph: XCSGraph, opened: Mapping[str, RecordedFunction]) -> None:
        self.graph = graph
        self.result = emptied(graph)
        self.ids: dict[tuple[str, str], str] = {}
        for node in graph.nodes.values():
            if node.id in opened:
                self._add_recorded(node, opened[node.id])
            else:
                self.result.add_node(node)
        for node_id in graph.nodes:
            if node_id in opened:
                self._connect_recorded(node_id, opened[node_id])
            else:
                for edge in graph.in_edges(node_id):
                    add_edge(self.result, edge)
        ports = {name: same_port(self.result, port) for name, port in graph.outputs.items()}
        self.result.set_outputs(**ports)

    def _add_recorded(self, node: XCSNode, recorded: RecordedFunction) -> None:
        for inner in recorded.program.graph.nodes.values():
            self.ids[node.id, inner.id] = self._fresh(f"{node.id}/{inner.id}")
            self.result.add_node(inner, self.ids[node.id, inner.id])
        operator = node.operator
        count = len(recorded.program.outputs)
        together = Together(recorded.form, count, operator.name, operator.signature)
        name = node.name if node.has_own_name else None
        self.result.add_node(together, node.id, name, node.metadata or None)

    def _fresh(self, wanted: str) -> str:
        node_id, number = wanted, 2
        while node_id in self.graph or node_id in self.result:
            node_id, number = f"{wanted}_{number}", number + 1
        return node_id

    def _connect_recorded(self, node_id: str, recorded: RecordedFunction) -> None:
        inner = recorded.program.graph
        for target in inner.nodes:
            for edge in inner.in_edges(target):
                source, field = self._source(node_id, edge.source, edge.source_field)
                inside = Edge(source, field, self.ids[node_id, target], edge.target_field)
                add_edge(self.result, inside)
        ports = inner.outputs
        for k, (kind, name) in enumerate(recorded.program.outputs):
            port = ports[name] if kind == "output" else None
            inside_source = (port.node_id, port.field) if port is not None else (None, name)
            source, field = self._source(node_id, *inside_source)
            add_edge(self.result, Edge(source, field, node_id, f"item{k}"))

    def _source(
        self, node_id: str, source: str | None, field: str | None
    ) -> tuple[str | None, str | None]:
        """Where a value of a recording comes from in the whole graph."""
        if source is not None:
            return self.ids[node_id, source], field
        binding = self.graph.bindings(node_id).fields[str(field)]
        if isinstance(binding, OutputBinding):
            return binding.source, binding.source_field
        return None, binding.name  # type: ignore[union-attr]  # constants are not recorded as inputs
