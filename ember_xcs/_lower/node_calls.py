"""How the operator of a node is called from the values that feed it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ember_xcs._core.functions import HostFunction
from ember_xcs._core.operator import HostOperator, Operator
from ember_xcs._graph import MISSING, NodeBindings, XCSGraph
from ember_xcs._graph.bindings import ConstantBinding, InputBinding, OutputBinding
from ember_xcs._passes.arguments import call_arguments

if TYPE_CHECKING:
    from ember_xcs._trace.nodes import StagedCall

__all__ = ["ConstantSource", "NodeCall", "Source", "node_call", "staged_sources"]

Source = tuple[str | None, str | None]
"""Where a value comes from: (node, field of its output) or (None, input of the graph); (None,
None) are all inputs of the graph, as a mapping."""


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class ConstantSource:
    """A value that is known before the run."""

    value: Any


class NodeCall:
    """Calls an operator with values by position: ``call(*values)``.

    It can be pickled if its operator and constants can, and so be sent to another process.

    Attributes:
        operator: What is called.
        sources: Where each value comes from.
        fields: The input field that each of the first values feeds; the rest are spreads.
        constants: Fields with known values.
    """

    __slots__ = ("_positional", "bindings", "constants", "fields", "operator", "sources")

    def __init__(self, operator: Operator, bindings: NodeBindings) -> None:
        self.operator, self.bindings = operator, bindings
        self.constants: dict[str, Any] = {}
        self.fields: list[str] = []
        self.sources: list[Source] = []
        for field, binding in bindings.fields.items():
            if isinstance(binding, ConstantBinding):
                self.constants[field] = binding.value
            else:
                self.fields.append(field)
                self.sources.append(_source(binding))
        self.sources.extend((s.source, s.source_field) for s in bindings.spreads)
        self._positional = [f.name for f in operator.signature.fields if f.positional]

    def arguments(self, values: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns the positional and keyword arguments for these values."""
        fields = dict(self.constants)
        fields.update((f, v) for f, v in zip(self.fields, values, strict=False) if v is not MISSING)
        if self.bindings.spreads:
            fields.update(self.bindings.spread(values[len(self.fields) :]))
        return call_arguments(self.operator.signature, fields)

    def __call__(self, *values: Any) -> Any:
        """Returns the operator's result; a coroutine if it is async."""
        args, kwargs = self.arguments(values)
        if isinstance(self.operator, HostOperator):
            return self.operator.start(args, kwargs)
        return self.operator.run(args, kwargs)

    @property
    def order(self) -> list[str] | None:
        """The fields in the order of the parameters, if a plain positional call will do."""
        if self.constants or self.bindings.spreads or self.operator.signature.style == "inputs":
            return None
        wanted = self._positional[: len(self.fields)]
        return wanted if set(wanted) == set(self.fields) else None


def _source(binding: InputBinding | OutputBinding) -> Source:
    if isinstance(binding, InputBinding):
        return None, binding.name
    return binding.source, binding.source_field


def node_call(
    graph: XCSGraph, node_id: str, needs_conversion: Callable[[Source], bool]
) -> tuple[Callable[..., Any], list[Source]]:
    """Returns what to call for a node, and where its arguments come from, in order.

    Where nothing has to be converted, checked or named, that is the user's own function.

    Args:
        graph: The graph.
        node_id: The node.
        needs_conversion: Whether a value from a source may have to be converted for host code.
    """
    operator = graph[node_id].operator
    call = NodeCall(operator, graph.bindings(node_id))
    order = call.order
    if order is None or not _is_plain(operator) or _may_be_missing(call):
        return call, call.sources
    by_field = dict(zip(call.fields, call.sources, strict=True))
    sources = [by_field[field] for field in order]
    if any(map(needs_conversion, sources)):
        return call, call.sources
    return _plain_function(operator), sources


def _is_plain(operator: Operator) -> bool:
    """Whether calling ``forward`` is all that calling the operator does."""
    return (
        isinstance(operator, HostOperator)
        and operator.output_type.is_host
        and not operator.validates_inputs
    )


def _may_be_missing(call: NodeCall) -> bool:
    bindings: Iterable[Any] = call.bindings.fields.values()
    return any(isinstance(b, InputBinding) and not b.required for b in bindings)


def _plain_function(operator: Operator) -> Callable[..., Any]:
    if isinstance(operator, HostFunction):
        return operator.function
    return operator.forward


def staged_sources(bindings: NodeBindings, operator: StagedCall) -> list[Source | ConstantSource]:
    """Returns where each operand of a staged call comes from."""
    found = [bindings.fields[name] for name in operator.signature.names]
    return [
        ConstantSource(b.value) if isinstance(b, ConstantBinding) else _source(b) for b in found
    ]
