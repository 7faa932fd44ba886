"""Operator calls as nodes of a graph: what answers them while a structure is recorded."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from ember_xcs._core.arguments import bind_arguments
from ember_xcs._core.operator import Operator
from ember_xcs._core.operator_class import fields_of
from ember_xcs._core.outputs import HOST, OutputType, RecordType
from ember_xcs._core.plumbing import (
    CheckInputs,
    CheckOutput,
    Pack,
    Pick,
    Step,
    applied,
    path_text,
    split_form,
)
from ember_xcs._core.signature import record_fields
from ember_xcs._graph import XCSGraph, XCSNode
from ember_xcs._trace.symbols import (
    Origin,
    Symbol,
    declared_annotation,
    describe,
    is_symbol,
    origin_of,
)
from ember_xcs._trace.user_line import user_line
from ember_xcs.errors import OperatorInputError, TracingError

__all__ = ["GraphRecorder", "finished"]

_DEEPEST = 32
"""How many calls of one operator may be open inside one another."""

_NUMBERS = (float, int, bool, complex)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class GraphRecorder:
    """Answers operator calls with symbols, and adds a node to a graph for each.

    Args:
        graph: Where the nodes go.
        recursive: Whether the calls of composite operators are opened into those they make.
        root: An operator that is opened even if others are not.
    """

    def __init__(self, graph: XCSGraph, recursive: bool = True, root: Any = None) -> None:
        self.graph, self.recursive, self.root = graph, recursive, root
        self.is_open = True
        self.line: str | None = None
        self._opened: list[Operator] = []
        self._picks: dict[Any, XCSNode] = {}

    def input(self, name: str) -> Symbol:
        """Returns the symbol of an input of the graph, which it declares."""
        self.graph.input(name)
        return Symbol(Origin(self, name))

    def __call__(self, operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Returns a symbol for the output of the call; of an opened call, what it returns."""
        if not self.is_open:
            raise TracingError(
                f"operator {operator.name!r} was called by code that began in a recording which "
                "has ended. To mend it: make all calls before the recorded function returns.",
                user_line(),
            )
        self._refuse_symbols_inside(operator)
        bound = bind_arguments(operator, args, kwargs)
        if self._opens(operator, bound):
            return self._inside(operator, args, kwargs, bound)
        return self._symbol(self._add_call(operator, bound))

    def _symbol(self, node: XCSNode) -> Symbol:
        return Symbol(Origin(self, node, (), declared_annotation(node.operator)))

    def _refuse_symbols_inside(self, operator: Operator) -> None:
        for name, value in fields_of(operator).items():
            if self.symbols_in(value):
                raise TracingError(
                    f"the field {name!r} of operator {operator.name!r} holds "
                    f"{describe(self.symbols_in(value)[0])}, whose value is not known while the "
                    "structure of the program is recorded. The fields of an operator are "
                    "constants of the program. To mend it: make it a parameter of `forward`, and "
                    "pass the value as an argument.",
                    user_line(),
                )

    def symbols_in(self, value: Any) -> list[Any]:
        """Returns the symbols in a tree of containers."""
        return split_form(value, self.is_value)[1]

    def is_value(self, value: Any) -> bool:
        """Whether this stands for a value that is known only in a run."""
        return is_symbol(value)

    # Opening composite operators

    def _opens(self, operator: Operator, bound: inspect.BoundArguments) -> bool:
        if operator.kind != "composite" or not (self.recursive or operator is self.root):
            return False
        kinds = {bound.signature.parameters[name].kind for name in bound.arguments}
        return not (_validates_inputs(operator) and kinds.intersection(_VARIADIC))

    def _inside(
        self,
        operator: Operator,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        bound: inspect.BoundArguments,
    ) -> Any:
        """Runs the ``forward`` of a composite operator, whose calls are recorded in its place."""
        self._check_depth(operator)
        if _validates_inputs(operator):
            checked = self._symbol(self._add_check(operator, bound))
            bound.arguments = {name: checked[name] for name in bound.arguments}
            args, kwargs = bound.args, bound.kwargs
        self._opened.append(operator)
        try:
            result = finished(operator.forward(*args, **kwargs), operator.name)
        except RecursionError as error:
            raise _endless(operator) from error
        finally:
            self._opened.pop()
        return self._checked(result, operator)

    def _check_depth(self, operator: Operator) -> None:
        if sum(op is operator for op in self._opened) >= _DEEPEST:
            raise _endless(operator)

    def _add_check(self, operator: Operator, bound: inspect.BoundArguments) -> XCSNode:
        check = CheckInputs(operator, tuple(bound.arguments))
        return self._add_node(check, dict(bound.arguments))

    def _checked(self, value: Any, operator: Operator) -> Any:
        """Returns the result of an opened call, checked in the run where its type says so."""
        declared = operator.output_type
        if declared.is_host or not _validates(operator):
            return value
        if not self.symbols_in(value):
            return declared.validated(value, operator.name)
        exact = _is_declared(value, operator) if is_symbol(value) else _is_free(value, declared)
        return value if exact else self._check(value, operator)

    def _check(self, value: Any, operator: Operator) -> Symbol:
        return self._symbol(self._add_node(CheckOutput(operator), {"value": value}))

    # Calls as nodes

    def _add_call(self, operator: Operator, bound: inspect.BoundArguments) -> XCSNode:
        if operator.signature.style == "inputs":
            return self._add_inputs_call(operator, _by_field(bound)[0]["inputs"])
        fields, extra = _by_field(bound)
        names = [f.name for f in operator.signature.fields if f.positional and f.name not in fields]
        given = dict(zip(names, extra, strict=False))
        rest = {f"argument_{k}": extra[k] for k in range(len(names), len(extra))}
        if rest:
            declared = [f.name for f in operator.signature.fields if f.positional]
            first = {name: fields.pop(name) for name in declared if name in fields}
            fields = {**first, **given, **rest, **fields}
            operator = applied(operator, fields, len(first) + len(given) + len(rest))
        return self._add_node(operator, {**given, **fields}, bound)

    def _add_inputs_call(self, operator: Operator, inputs: Any) -> XCSNode:
        """Adds the node of ``operator(inputs=...)``: a dict of values, or one that will be."""
        if self.is_value(inputs):
            node = self._new_node(operator, {})
            source = self.source(inputs)
            if not isinstance(source, XCSNode):
                source = self._picked(source, (), source)
            self.graph.add_edge(source, node)
            return node
        if not isinstance(inputs, Mapping) or not all(type(key) is str for key in inputs):
            raise OperatorInputError(
                f"operator {operator.name!r} takes inputs={{name: value}}, and was given inputs= "
                f"of type {type(inputs).__name__}. Pass a dict whose keys are the names of fields."
            )
        self._check_names(operator, inputs)
        return self._add_node(operator, dict(inputs))

    def _check_names(self, operator: Operator, inputs: Mapping[str, Any]) -> None:
        signature = operator.signature
        unknown = [name for name in inputs if not signature.open and name not in signature.names]
        if unknown:
            raise TracingError(
                f"operator {operator.name!r} was given the input {unknown[0]!r}, which is no field "
                f"of its input_spec ({', '.join(signature.names)}). To mend it: leave it out, or "
                "declare it.",
                user_line(),
            )

    def _add_node(
        self,
        operator: Operator,
        fields: Mapping[str, Any],
        bound: inspect.BoundArguments | None = None,
    ) -> XCSNode:
        """Adds a node; fields without symbols become constants, the others edges."""
        constants: dict[str, Any] = {}
        sources: dict[str, Any] = {}
        for name, value in fields.items():
            form, parts = split_form(value, self.is_value)
            if form.kind == "part":
                sources[name] = self.source(parts[0])
            elif parts:
                sources[name] = self._packed(value)
            else:
                constants[name] = form.build(())
        if not sources:
            operator, constants = _closed(operator, constants, bound)
        node = self._new_node(operator, constants)
        for name, source in sources.items():
            self.graph.connect(source, node.inputs[name])
        return node

    def _new_node(self, operator: Operator, constants: Mapping[str, Any]) -> XCSNode:
        line = self.line or user_line()
        metadata = {"line": line} if line else None
        return self.graph.add_node(operator, constants=constants or None, metadata=metadata)

    # Where values come from

    def source(self, value: Any) -> Any:
        """Returns a node or port of the graph that gives the value of a symbol."""
        origin = origin_of(value)
        if origin.recording is not self:
            raise TracingError(
                f"{describe(value)} belongs to another recording. A symbol means something only "
                "in the program that is recorded with it. To mend it: pass the value as an "
                "argument of the recorded function.",
                user_line(),
            )
        source = origin.source
        base = self.graph.input(source) if isinstance(source, str) else source
        if not origin.path:
            return base
        field = _output_field(origin)
        if field is not None and isinstance(base, XCSNode):
            return base.outputs[field]
        return self._picked(base, origin.path, source)

    def gathered(self, value: Any) -> Any:
        """Returns a node or port that gives a value, which may be a container with symbols."""
        return self.source(value) if self.is_value(value) else self._packed(value)

    def _packed(self, value: Any) -> XCSNode:
        form, parts = split_form(value, self.is_value)
        pack = self._new_node(Pack(form), {})
        for k, part in enumerate(parts):
            self.graph.connect(self.source(part), pack.inputs[f"item{k}"])
        return pack

    def _picked(self, base: Any, path: tuple[Step, ...], source: Any) -> XCSNode:
        """Returns the node that picks a part; one for each part of a source."""
        key = (id(source) if isinstance(source, XCSNode) else source, _typed(path))
        node = self._picks.get(key)
        if node is None:
            node = self._new_node(Pick(path), {})
            self.graph.connect(base, node.inputs["value"])
            self._picks[key] = node
        return node


def _validates(operator: Operator) -> bool:
    """Whether a call does more than ``forward``; a sequence leaves it to its operators."""
    return type(operator).run is Operator.run


def _validates_inputs(operator: Operator) -> bool:
    return operator.validates_inputs and _validates(operator)


def _by_field(bound: inspect.BoundArguments) -> tuple[dict[str, Any], list[Any]]:
    """Returns the arguments by input field, and those that only ``*args`` takes."""
    fields: dict[str, Any] = {}
    extra: list[Any] = []
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            extra.extend(value)
        elif kind is inspect.Parameter.VAR_KEYWORD:
            fields.update(value)
        else:
            fields[name] = value
    return fields, extra


def _closed(
    operator: Operator, constants: dict[str, Any], bound: inspect.BoundArguments | None
) -> tuple[Operator, dict[str, Any]]:
    """Makes a call without symbols take nothing from the graph's inputs.

    A node without edges takes them by name: its defaults are therefore made constants, and what
    takes any name is made to take only those that it was given.
    """
    signature = operator.signature
    missing = [name for name in signature.names if name not in constants]
    if not missing and not signature.open:
        return operator, constants
    parameters = bound.signature.parameters if bound is not None else {}
    if signature.open or any(name not in parameters for name in missing):
        return applied(operator, constants), constants
    return operator, {**constants, **{name: parameters[name].default for name in missing}}


def _typed(path: tuple[Step, ...]) -> Any:
    """A key that tells ``[1]`` from ``[True]``, and works for slices."""
    return tuple((kind, type(key), path_text([(kind, key)])) for kind, key in path)


def _output_field(origin: Origin) -> str | None:
    """Returns the output field by which an edge picks exactly what Python would, or None."""
    node = origin.source
    if len(origin.path) != 1 or not isinstance(node, XCSNode):
        return None
    kind, key = origin.path[0]
    if type(key) not in (str, int):
        return None
    is_field = _is_record_field if node.operator.signature.outputs is not None else _is_item
    return str(key) if is_field(node.operator, kind, key) else None


def _is_record_field(operator: Operator, kind: str, key: str | int) -> bool:
    annotation = declared_annotation(operator)
    if operator.output_type.spec is not None:
        return key in (operator.signature.outputs or ())
    if type(key) is int:
        return kind == "item" and hasattr(annotation, "_fields")
    is_dict = isinstance(annotation, type) and issubclass(annotation, dict)
    access = "item" if is_dict or typing.is_typeddict(annotation) else "attribute"
    return kind == access and key in (operator.signature.outputs or ())


def _is_item(operator: Operator, kind: str, key: str | int) -> bool:
    """Whether a key or position is one of a declared mapping or sequence."""
    annotation = declared_annotation(operator)
    base = typing.get_origin(annotation) or annotation
    if kind != "item" or not isinstance(base, type):
        return False
    if type(key) is int:
        return issubclass(base, Sequence) and not issubclass(base, str | bytes)
    return issubclass(base, Mapping) or operator.signature.style == "inputs"


def _is_declared(symbol: Symbol, operator: Operator) -> bool:
    """Whether another operator has promised what this one declares, so that it is checked."""
    wanted, origin = declared_annotation(operator), origin_of(symbol)
    is_checked = wanted in _NUMBERS or record_fields(wanted) is not None
    is_output = isinstance(origin.source, XCSNode) and not origin.path
    return (
        is_checked and is_output and origin.annotation is wanted and not operator.output_type.spec
    )


def _is_free(value: Any, declared: OutputType) -> bool:
    """Whether a value is of the declared record class, whose fields may be anything."""
    kind = declared.kind
    if not isinstance(kind, RecordType) or declared.spec is not None:
        return False
    return type(value) is kind.cls and all(inner is HOST for _, inner in kind.fields)


def _endless(operator: Operator) -> TracingError:
    return TracingError(
        f"operator {operator.name!r} calls itself without end while its structure is recorded. "
        "A recorded program is a finite graph, and no value is known that could end the "
        "recursion. To mend it: use mode='enhanced', or make the operator a HostOperator.",
        user_line(),
    )


def finished(result: Any, name: str) -> Any:
    """Returns what a function returned; of an ``async def`` function, what it returns at its end.

    Raises:
        TracingError: The coroutine waits for something other than operators.
    """
    if is_symbol(result) or not inspect.iscoroutine(result):
        return result
    return _driven(result, name)


def _driven(coroutine: Coroutine[Any, Any, Any], name: str) -> Any:
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise TracingError(
        f"{name!r} awaits something that is no operator call, such as asyncio.sleep. While the "
        "structure of a program is recorded, nothing runs that could be awaited. To mend it: "
        "make it a HostOperator or an `async def` @host function, or use mode='enhanced'.",
        user_line(),
    )
