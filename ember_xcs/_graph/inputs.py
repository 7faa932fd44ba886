"""The inputs of a graph, and what a node receives in a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ember_xcs._graph.bindings import (
    Binding,
    ConstantBinding,
    InputBinding,
    NodeBindings,
    SpreadBinding,
)
from ember_xcs._graph.messages import explain, listing
from ember_xcs._graph.parameters import parameters_of
from ember_xcs._graph.pick import pick_field
from ember_xcs._graph.ports import MISSING, GraphInput
from ember_xcs.errors import GraphError, UnboundInputError

if TYPE_CHECKING:
    from ember_xcs._graph.graph import XCSGraph
    from ember_xcs._graph.node import XCSNode

__all__ = ["graph_inputs", "node_inputs", "takes_any_input"]


def graph_inputs(
    declared: Mapping[str, GraphInput], unfed: Iterable[XCSNode]
) -> dict[str, GraphInput]:
    """Returns the inputs of a graph: the declared ones, then those that its nodes imply.

    Args:
        declared: The declared ones, by name.
        unfed: The nodes without inbound edges.
    """
    inputs = dict(declared)
    for node in unfed:
        for field in node.operator.signature.fields:
            known = inputs.get(field.name)
            if field.name in node.constants or (known and (known.required or known.explicit)):
                continue
            inputs[field.name] = GraphInput(field.name, field.required)
    return inputs


def takes_any_input(unfed: Iterable[XCSNode]) -> bool:
    """Whether one of the nodes without inbound edges takes all that the graph is given."""
    return any(parameters_of(node.operator.signature).takes_everything for node in unfed)


def node_inputs(
    graph: XCSGraph, bindings: NodeBindings, results: Mapping[str, Any], inputs: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns what a node receives, by field, in a run with these results and inputs."""
    defaults = {k: v.default for k, v in graph.declared_inputs.items() if v.default is not MISSING}
    values = _Values(bindings.node_id, results, {**defaults, **inputs})
    received = {
        field: values.read(binding)
        for field, binding in bindings.fields.items()
        if not _is_left_out(binding, values.inputs)
    }
    if bindings.spreads:
        received |= bindings.spread([values.read_spread(spread) for spread in bindings.spreads])
    return received


def _is_left_out(binding: Binding, inputs: Mapping[str, Any]) -> bool:
    """Whether a field is left to its operator's default."""
    return isinstance(binding, InputBinding) and not binding.required and binding.name not in inputs


class _Values:
    """What is there to be read by one node."""

    __slots__ = ("inputs", "node_id", "results")

    def __init__(self, node_id: str, results: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
        self.node_id = node_id
        self.results = results
        self.inputs = inputs

    def read(self, binding: Binding) -> Any:
        if isinstance(binding, ConstantBinding):
            return binding.value
        if isinstance(binding, InputBinding):
            return self._input(binding.name)
        return self._output(binding.source, binding.source_field)

    def read_spread(self, spread: SpreadBinding) -> Any:
        if spread.source is not None:
            return self._output(spread.source, spread.source_field)
        return self.inputs if spread.source_field is None else self._input(spread.source_field)

    def _input(self, name: str) -> Any:
        if name in self.inputs:
            return self.inputs[name]
        raise UnboundInputError(
            explain(
                f"The graph input {name!r}, which {self.node_id!r} reads, was not given; "
                f"given: {listing(self.inputs)}",
                "An input without default is required",
                f"Pass it: inputs={{{name!r}: value}}, or give it a default: "
                f"graph.input({name!r}, default=value)",
            ),
            (self.node_id,),
        )

    def _output(self, source: str, field: str | None) -> Any:
        if source not in self.results:
            raise GraphError(
                explain(
                    f"There is no result of {source!r}, which {self.node_id!r} reads",
                    "A node runs after all the nodes that it reads",
                    f"Pass the output of {source!r} in results",
                ),
                (source, self.node_id),
            )
        value = self.results[source]
        return value if field is None else pick_field(value, field)
