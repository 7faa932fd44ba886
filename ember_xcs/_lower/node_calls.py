"""How the operator of a node is called from the values that feed it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Sequence
from typing import Any

from ember_xcs._core.functions import HostFunction
from ember_xcs._core.operator import HostOperator, Operator
from ember_xcs._graph import MISSING, NodeBindings
from ember_xcs._graph.bindings import ConstantBinding, InputBinding, OutputBinding
from ember_xcs._passes.arguments import call_arguments

__all__ = [
    "ConstantSource",
    "NodeCall",
    "PlainCall",
    "Source",
    "plain_call",
    "staged_sources",
]

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

    __slots__ = ("bindings", "constants", "fields", "operator", "sources")

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
        if bindings.spreads:
            self.sources.extend([(s.source, s.source_field) for s in bindings.spreads])

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


def _source(binding: InputBinding | OutputBinding) -> Source:
    if isinstance(binding, InputBinding):
        return None, binding.name
    return binding.source, binding.source_field


@dataclasses.dataclass(frozen=True, slots=True)
class PlainCall:
    """A host operator whose ``forward`` may be called as it is.

    Attributes:
        parameters: The parameters that can be passed by position.
        function: The function; it checks the result where the operator declares a number.
    """

    parameters: tuple[str, ...]
    function: Callable[..., Any]

    def sources(self, bindings: NodeBindings, converted: Container[str]) -> list[Source] | None:
        """Returns where the arguments come from, in order; None where calling a node takes more.

        It does where an argument has to be named, is known before the run, may be left out, or
        may have to be converted for host code.

        Args:
            bindings: What feeds the node.
            converted: The nodes whose values may have to be converted.
        """
        fields = bindings.fields
        parameters = self.parameters[: len(fields)]
        if bindings.spreads or len(parameters) < len(fields):
            return None
        sources: list[Source] = []
        for parameter in parameters:
            binding = fields.get(parameter)
            if type(binding) is not OutputBinding:
                return None
            _, node, field = binding
            if node in converted:
                return None
            sources.append((node, field))
        return sources


def plain_call(operator: Operator) -> PlainCall | None:
    """Returns how an operator may be called as it is; None where calling it takes more."""
    if not isinstance(operator, HostOperator) or operator.validates_inputs:
        return None
    signature, declared = operator.signature, operator.output_type
    function = operator.function if isinstance(operator, HostFunction) else operator.forward
    if signature.style == "inputs":
        return None
    if not declared.is_host:
        number = getattr(declared.kind, "number", None)
        if number is None or declared.spec is not None or operator.is_async:
            return None
        if operator.policy.executor == "process":  # the function itself has to be sent there
            return None
        function = _checked(function, number, operator)
    return PlainCall(tuple(f.name for f in signature.fields if f.positional), function)


def _checked(function: Callable[..., Any], number: type, operator: HostOperator) -> Any:
    """A function whose result is checked, in passing where it is just what was declared."""

    def checked(*values: Any) -> Any:
        result = function(*values)
        return result if type(result) is number else operator.finished(result)

    return checked


def staged_sources(bindings: NodeBindings, names: Sequence[str]) -> list[Source | ConstantSource]:
    """Returns where each operand of a staged call comes from.

    Args:
        bindings: What feeds the node.
        names: The fields of the operands, in order.
    """
    found = [bindings.fields[name] for name in names]
    return [
        ConstantSource(b.value) if isinstance(b, ConstantBinding) else _source(b) for b in found
    ]
