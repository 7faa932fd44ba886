"""A graph as a function of its inputs, for ``jit`` and the transformations."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from ember_xcs._core import calls
from ember_xcs._core.jax_state import under_jax_trace
from ember_xcs._core.operator import Kind, Operator
from ember_xcs._core.operator_class import derived
from ember_xcs._core.plumbing import Pack, Pick
from ember_xcs._core.signature import Field, Signature
from ember_xcs._graph import XCSGraph
from ember_xcs._graph.pick import pick_field
from ember_xcs._graph.ports import MISSING
from ember_xcs._lower.pure import is_pure
from ember_xcs._passes.arguments import call_arguments
from ember_xcs._runtime.execute import execute_graph
from ember_xcs._trace.host_values import HostValue
from ember_xcs.errors import OperatorInputError, TracingError, UnknownFieldError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["GraphFunction", "as_callable"]


class GraphFunction(Operator):
    """A graph, called with its inputs; it returns its output, or a dict of several by name.

    Attributes:
        graph: The graph. It is not to change any more: what is compiled of it is kept.
    """

    graph: XCSGraph

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what the graph computes from its inputs."""
        inputs = self._inputs(args, kwargs)
        if not under_jax_trace() and calls.current_recorder() is None:
            results: Mapping[str, Any] = dict(execute_graph(self.graph, inputs))
        else:
            results = _evaluated(self.graph, inputs)
        return next(iter(results.values())) if len(results) == 1 else dict(results)

    def _inputs(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        parameters = self.call_parameters.parameters.values()
        names = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
        takes = f"graph {self.graph.name!r} takes {', '.join(names) or 'no inputs'}, and was given"
        if len(args) > len(names):
            raise OperatorInputError(f"{takes} {len(args)} positional arguments.")
        positional = dict(zip(names, args, strict=False))
        twice = positional.keys() & kwargs.keys()
        if twice:
            raise OperatorInputError(f"{takes} {min(twice)!r} both by position and by name.")
        unknown = kwargs.keys() - set(names)
        if unknown and not self.signature.open:
            raise OperatorInputError(f"{takes} {min(unknown)!r}, which is none of these.")
        return {**positional, **kwargs}

    @derived
    def name(self) -> str:
        """The name of the graph."""
        return str(self.graph.name)

    @derived
    def kind(self) -> Kind:
        """``"pure"`` where every node is, else ``"composite"``."""
        return "pure" if is_pure(self.graph) else "composite"

    @derived
    def signature(self) -> Signature:
        """The inputs of the graph."""
        fields = (Field(name, required=i.required) for name, i in self.graph.inputs.items())
        return Signature(tuple(fields), open=self.graph.takes_any_input)

    @derived
    def call_parameters(self) -> inspect.Signature:
        """The inputs of the graph, by position or name."""
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        required = {
            name: inspect.Parameter.empty if i.required else None
            for name, i in self.graph.inputs.items()
        }
        ordered = sorted(required, key=lambda name: required[name] is None)
        parameters = [inspect.Parameter(name, kind, default=required[name]) for name in ordered]
        if self.signature.open:
            parameters.append(inspect.Parameter("inputs", inspect.Parameter.VAR_KEYWORD))
        return inspect.Signature(parameters)


def _evaluated(graph: XCSGraph, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the outputs of a graph, its operators called one after another, to be staged."""
    defaults = {k: v.default for k, v in graph.inputs.items() if v.default is not MISSING}
    given = {**defaults, **inputs}
    results: dict[str, Any] = {}
    for node_id in graph.topological_sort():
        operator = graph[node_id].operator
        fields = _received(graph, node_id, results, given)
        args, kwargs = call_arguments(operator.signature, fields)
        is_plumbing = isinstance(operator, Pack | Pick)
        call = operator.forward if is_plumbing else operator
        results[node_id] = call(*args, **kwargs)
    return {
        name: given[str(port.field)]
        if port.node_id is None
        else _output(graph, results, port.node_id, port.field)
        for name, port in graph.outputs.items()
    }


def _received(
    graph: XCSGraph, node_id: str, results: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns what a node receives, by field."""
    for spread in graph.bindings(node_id).spreads:
        if not spread.whole and isinstance(results.get(spread.source or ""), HostValue):
            raise _unknown_fields(graph, str(spread.source))
    try:
        return dict(graph.prepare_node_inputs(node_id, results, given))
    except UnknownFieldError as error:
        unknown = [node for node, value in results.items() if isinstance(value, HostValue)]
        if not unknown:
            raise
        raise _unknown_fields(graph, ", ".join(unknown)) from error


def _unknown_fields(graph: XCSGraph, nodes: str) -> TracingError:
    return TracingError(
        f"graph {graph.name!r} cannot be staged: an edge or output takes a field of what a host "
        f"operator ({nodes}) returns, which is not known while staging. Declare what it returns "
        "(by its annotation or output_spec), or use mode='structural'."
    )


def _output(graph: XCSGraph, results: Mapping[str, Any], node_id: str, field: str | None) -> Any:
    value = results[node_id]
    if field is None:
        return value
    if isinstance(value, HostValue):
        raise _unknown_fields(graph, node_id)
    return pick_field(value, field)


def as_callable(given: Any) -> Any:
    """Returns a graph, as it is now, as a function of its inputs; anything else as it is."""
    return GraphFunction(given.copy()) if isinstance(given, XCSGraph) else given
