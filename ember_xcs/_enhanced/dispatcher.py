"""What rewritten code asks at each call: should it be made now, later, or after a wait?"""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING, Any, cast

from ember_xcs._core.arguments import bind_arguments
from ember_xcs._core.calls import current_recorder, in_event_loop, would_be_awaited
from ember_xcs._core.operator import HostOperator, Operator
from ember_xcs._enhanced import pure_operators
from ember_xcs._enhanced.calls import kind_of
from ember_xcs._enhanced.construction import CONSTRUCTORS, constructed, iterator_over
from ember_xcs._enhanced.containers import Snapshot
from ember_xcs._enhanced.flow import Flow, active_flow
from ember_xcs._enhanced.functions import inline_version, is_nested, is_pure_callback
from ember_xcs._enhanced.leaves import leaf_version
from ember_xcs._enhanced.lifting import (
    escape_all,
    has_pending,
    lift,
    materialized,
    plain_call,
    value_of,
)
from ember_xcs._enhanced.mutation import mutated
from ember_xcs._enhanced.natures import nature_of
from ember_xcs._enhanced.pending import Pending, Postponed
from ember_xcs._enhanced.pure import (
    IMMUTABLE_RESULTS,
    ITERATORS,
    MUTATORS,
    PURE_FUNCTIONS,
    is_pure_function,
    is_pure_method,
)
from ember_xcs._enhanced.safety import ATOMS, builds_only, is_plain_attribute, is_record, is_safe
from ember_xcs._enhanced.templates import read_by_template

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["method", "target"]

_NEW_CONTAINERS = frozenset({sorted, list, dict, set})
_NEW_BY_METHOD = frozenset({"split", "rsplit", "splitlines", "copy", "findall", "most_common"})
_TEXT_METHODS = frozenset(n for n in dir(str) if not n.startswith("_"))
_READ_METHODS = _TEXT_METHODS | {"get", "keys", "items", "values", "copy", "count", "index"}
_CONTAINERS_BY_METHOD = frozenset(
    {"split", "rsplit", "splitlines", "copy", "items", "keys", "values", "get", "partition"}
)

Target = "Callable[..., Any]"


def target(function: Any) -> Any:
    """Returns what rewritten code is to call in place of a function."""
    if type(function) in _BUILTIN_TYPES:
        known = _PURE_TARGETS.get(function)
        if known is not None:
            return known
    flow = active_flow()
    if type(function) is Pending:
        function = value_of(function)
    if flow is None or flow.eager:
        return functools.partial(plain_call, function)
    return _way_of(type(function))(flow, function)


def method(receiver: Any, name: str) -> Any:
    """Returns what rewritten code is to call in place of a method."""
    if type(receiver) is Pending:
        return functools.partial(_method_of_pending, receiver, name)
    kind = type(receiver)
    if name in _METHODS.get(kind, ()):
        return functools.partial(_call_known, receiver, name)
    flow = active_flow()
    if flow is None or flow.eager:
        return functools.partial(plain_call, getattr(receiver, name))
    if flow.is_busy and not is_plain_attribute(kind, name):
        flow.settle()
    bound = getattr(receiver, name)
    return _way_of(type(bound))(flow, bound)


def _find_way(kind: Any) -> Callable[[Flow, Any], Any]:
    """How callables of a type are called."""
    known = _WAYS.get(kind)
    if known is not None:
        return known
    nature = nature_of(kind)
    if nature is not None:
        return functools.partial(_concurrently, nature)
    if issubclass(kind, type):
        return _class
    if issubclass(kind, Operator):
        return _operator
    call = getattr(kind, "__call__", None)  # noqa: B004  (asked for what it is, not whether)
    if isinstance(call, types.FunctionType):
        return _callable_object
    return _unknown


_way_of: Any = functools.lru_cache(maxsize=4096)(_find_way)


def _unknown(flow: Flow, function: Any) -> Any:
    return functools.partial(call_unknown, function)


def call_unknown(function: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Calls code that is not known, after all that came before it."""
    flow = active_flow()
    if flow is None or flow.eager:
        return plain_call(function, *args, **kwargs)
    flow.settle()
    args, kwargs = escape_all(flow, args, kwargs)
    flow.containers.escape(getattr(function, "__self__", function))
    flow.eager += 1
    try:
        return function(*args, **kwargs)
    finally:
        flow.eager -= 1


def _function(flow: Flow, function: types.FunctionType) -> Any:
    if is_pure_function(function):
        return functools.partial(_call_pure, function)
    inline = _inline(flow, function)
    return _unknown(flow, function) if inline is None else leaf_version(function, inline)


def _inline(flow: Flow, function: types.FunctionType) -> types.FunctionType | None:
    """A function as part of the program; None if it is not to be, or cannot be."""
    if not flow.is_recursive and not is_nested(function):
        return None
    return inline_version(function)


def _bound(flow: Flow, bound: types.MethodType) -> Any:
    function = bound.__func__
    if type(function) is types.FunctionType:
        inline = _inline(flow, function)
        if inline is not None:
            return functools.partial(inline, bound.__self__)
    elif isinstance(function, Operator):
        return functools.partial(_operator(flow, function), bound.__self__)
    return _unknown(flow, bound)


def _builtin(flow: Flow, function: Any) -> Any:
    receiver = function.__self__
    kind = type(receiver)
    if kind is types.ModuleType or receiver is None:
        if is_pure_function(function):
            return functools.partial(_call_pure, function)
        return _unknown(flow, function)
    name = function.__name__
    if name in MUTATORS.get(kind, ()):
        return functools.partial(mutated, flow, function)
    if is_pure_method(kind, name):
        return functools.partial(_call_pure_method, receiver, name, function)
    return _unknown(flow, function)


def _class(flow: Flow, kind: type) -> Any:
    if kind in CONSTRUCTORS:
        return functools.partial(constructed, kind)
    if kind in ITERATORS:
        return functools.partial(iterator_over, kind, call_unknown)
    if is_pure_function(kind):
        return functools.partial(_call_pure, kind)
    if builds_only(kind):
        return functools.partial(_call_builder, kind)
    return _unknown(flow, kind)


def _partial(flow: Flow, made: functools.partial[Any]) -> Any:
    return functools.partial(target(made.func), *made.args, **made.keywords)


def _callable_object(flow: Flow, instance: Any) -> Any:
    inline = _inline(flow, cast("Any", type(instance)).__call__)
    if inline is None:
        return _unknown(flow, instance)
    return functools.partial(inline, instance)


_WAYS: dict[type, Callable[[Flow, Any], Any]] = {
    types.FunctionType: _function,
    types.MethodType: _bound,
    types.BuiltinFunctionType: _builtin,
    functools.partial: _partial,
}


# What is pure

_METHODS: dict[type, frozenset[str]] = {
    kind: frozenset(n for n in dir(kind) if n in MUTATORS.get(kind, ()) or is_pure_method(kind, n))
    for kind in (str, bytes, int, float, tuple, list, dict, set)
}


def _call_known(receiver: Any, name: str, /, *args: Any, **kwargs: Any) -> Any:
    """Calls a method of a builtin type that is pure, or changes its receiver."""
    bound = getattr(receiver, name)
    flow = active_flow()
    if flow is None or flow.eager:
        return plain_call(bound, *args, **kwargs)
    if not (kwargs or name in _NEW_BY_METHOD or flow.is_busy) and _are_atoms(args):
        return bound(*args)
    if name in MUTATORS.get(type(receiver), ()):
        return mutated(flow, bound, *args, **kwargs)
    return _call_pure_method(receiver, name, bound, *args, **kwargs)


def _are_atoms(args: tuple[Any, ...]) -> bool:
    for value in args:  # noqa: SIM110  (a generator costs more than the loop)
        if type(value) not in ATOMS:
            return False
    return True


def _call_pure(function: Any, /, *args: Any, **kwargs: Any) -> Any:
    if not kwargs and _are_atoms(args) and function not in _NEW_CONTAINERS:
        return function(*args)
    flow = active_flow()
    if flow is None or flow.eager:
        return plain_call(function, *args, **kwargs)
    if function is len and len(args) == 1 and type(args[0]) in (list, dict, tuple, set):
        return len(args[0])  # whatever is in it
    callbacks = _callbacks(args, kwargs)
    if not all(map(is_pure_callback, callbacks)):
        return call_unknown(function, *args, **kwargs)
    args = materialized(flow, args)
    if has_pending(flow, args, kwargs):
        if any(flow.containers.holds(getattr(c, "__self__", None)) for c in callbacks):
            return call_unknown(function, *args, **kwargs)
        name = function.__name__
        return lift(flow, name, function, args, kwargs, immutable=function in IMMUTABLE_RESULTS)
    _settle_for(flow, args, kwargs)
    flow.eager += 1
    try:
        result = function(*args, **kwargs)
    finally:
        flow.eager -= 1
    if function in _NEW_CONTAINERS:
        flow.containers.add(result, flow.clock)
    return result


_BUILTIN_TYPES = frozenset({types.BuiltinFunctionType, type})
_PURE_TARGETS = {
    function: functools.partial(_call_pure, function)
    for function in PURE_FUNCTIONS
    if type(function) in _BUILTIN_TYPES and function not in CONSTRUCTORS
}


def _settle_for(flow: Flow, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Waits where an argument runs code of the user's when it is read."""
    if flow.is_busy and not (
        all(is_safe(type(a)) for a in args) and all(is_safe(type(a)) for a in kwargs.values())
    ):
        flow.settle()


_CALLBACK_TYPES = (types.FunctionType, types.MethodType, functools.partial)


def _callbacks(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    found = [a for a in args if isinstance(a, (*_CALLBACK_TYPES, types.BuiltinFunctionType))]
    return found + [a for a in kwargs.values() if callable(a) and type(a) is not Pending]


def _call_pure_method(receiver: Any, name: str, bound: Any, /, *args: Any, **kwargs: Any) -> Any:
    flow = active_flow()
    if flow is None or flow.eager:
        return plain_call(bound, *args, **kwargs)
    if not all(map(is_pure_callback, _callbacks(args, kwargs))):
        return call_unknown(bound, *args, **kwargs)
    if name in ("format", "format_map") and type(receiver) is str:
        args, kwargs = read_by_template(receiver, name, args, kwargs)
    args = materialized(flow, args)
    reads_all = type(receiver) not in (list, dict) or name in ("index", "count")
    if has_pending(flow, args, kwargs) or (reads_all and has_pending(flow, (receiver,), {})):
        work = functools.partial(_method_by_name, name)
        immutable = isinstance(receiver, str | bytes) and name not in _CONTAINERS_BY_METHOD
        return lift(flow, name, work, (receiver, *args), kwargs, immutable=immutable)
    _settle_for(flow, args, kwargs)
    result = bound(*args, **kwargs)
    if name in _NEW_BY_METHOD and type(result) in (list, dict, set):
        flow.containers.add(result, flow.clock)
    return result


def _method_by_name(name: str, receiver: Any, /, *args: Any, **kwargs: Any) -> Any:
    return getattr(receiver, name)(*args, **kwargs)


def _method_of_pending(receiver: Pending, name: str, /, *args: Any, **kwargs: Any) -> Any:
    flow = active_flow()
    is_text = receiver.is_immutable and name in _TEXT_METHODS
    if flow is None or flow.eager or name not in _READ_METHODS:
        return method(value_of(receiver), name)(*args, **kwargs)
    if not all(map(is_pure_callback, _callbacks(args, kwargs))):
        return method(value_of(receiver), name)(*args, **kwargs)
    args = materialized(flow, args)
    work = functools.partial(_method_of_data, name)
    immutable = is_text and name not in _CONTAINERS_BY_METHOD
    return lift(flow, name, work, (receiver, *args), kwargs, immutable=immutable)


def _method_of_data(name: str, receiver: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Calls a method of a result; if the result is no plain data, the program has to do it."""
    if not is_pure_method(type(receiver), name):
        raise Postponed
    return getattr(receiver, name)(*args, **kwargs)


def _call_builder(kind: type, /, *args: Any, **kwargs: Any) -> Any:
    """Makes an object that only stores what it is given."""
    flow = active_flow()
    if flow is None or flow.eager:
        return plain_call(kind, *args, **kwargs)
    if is_record(kind):
        made = kind(*args, **kwargs)
        flow.containers.add(made, flow.clock)
        return made
    given = [*args, *kwargs.values()]
    is_deep = any(flow.containers.has_pending(a) for a in given if type(a) is not Pending)
    if is_deep or issubclass(kind, BaseException):
        flow.settle()
    else:
        for value in given:
            flow.containers.escape(value)
        pending = [value for value in given if type(value) is Pending]
        if pending and not any(p.elements for p in pending):
            return lift(flow, kind.__name__, kind, args, kwargs)
    return kind(*map(value_of, args), **{k: value_of(v) for k, v in kwargs.items()})


# Operators


def _operator(flow: Flow, operator: Operator) -> Any:
    if current_recorder() is not None:
        return _unknown(flow, operator)
    kind = operator.kind
    if kind == "composite":
        return _composite(flow, operator)
    if kind == "pure":
        return functools.partial(_call_pure_operator, operator)
    if kind == "glue":
        return functools.partial(_call_glue, operator)
    assert isinstance(operator, HostOperator)
    if operator.is_async and in_event_loop() and would_be_awaited():
        return _unknown(flow, operator)
    return functools.partial(_call_host, operator)


def _call_host(operator: HostOperator, /, *args: Any, **kwargs: Any) -> Any:
    flow = active_flow()
    if flow is None or flow.eager:
        return plain_call(operator, *args, **kwargs)
    has_effects = operator.policy.side_effects
    kind = kind_of(operator)
    snapshot = Snapshot(flow.containers, args, kwargs)
    if kind == "inline" and not snapshot.holes:
        if has_effects:
            flow.settle()
        return plain_call(operator, *snapshot.args, **snapshot.kwargs)
    label = flow.record.label(operator.name)
    node = flow.submit(kind, label, _runner(operator), snapshot, operator, after_all=has_effects)
    node.is_immutable = operator.signature.returns in (str, int, float, bool, bytes)
    return node


def _runner(operator: Operator) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        return operator.run(args, kwargs)

    return run


def _call_pure_operator(operator: Operator, /, *args: Any, **kwargs: Any) -> Any:
    flow = active_flow()
    if flow is None or flow.eager:
        return plain_call(operator, *args, **kwargs)
    if flow.is_recursive and pure_operators.is_for_host(args, kwargs):
        inline = _open_forward(operator)
        if inline is not None:
            return _call_composite(inline, operator, *args, **kwargs)
    snapshot = Snapshot(flow.containers, args, kwargs)
    work = functools.partial(pure_operators.run, operator)
    if not snapshot.holes:
        return work(*snapshot.args, **snapshot.kwargs)
    return flow.submit("pure", flow.record.label(operator.name), work, snapshot)


def _call_glue(operator: Operator, /, *args: Any, **kwargs: Any) -> Any:
    flow = active_flow()
    if flow is None or flow.eager:
        return plain_call(operator, *args, **kwargs)
    return lift(flow, str(operator.name), _runner(operator), args, kwargs, immutable=True)


def _composite(flow: Flow, operator: Operator) -> Any:
    """An operator that calls others: its own code is part of the program where it can be."""
    inline = _open_forward(operator) if flow.is_recursive else None
    if inline is None:
        return functools.partial(_call_whole, operator.name, operator.kind, operator, operator)
    return functools.partial(_call_composite, inline, operator)


def _open_forward(operator: Operator) -> Any:
    """What an operator does, as part of the program; None if it checks values or has no source."""
    is_open = not operator.validates_inputs and operator.output_type.is_host
    return inline_version(type(operator).forward) if is_open else None


def _call_composite(inline: Any, operator: Operator, /, *args: Any, **kwargs: Any) -> Any:
    bind_arguments(operator, args, kwargs)
    return inline(operator, *args, **kwargs)


def _call_whole(
    name: str, nature: str, part: Any, function: Any, /, *args: Any, **kwargs: Any
) -> Any:
    """Calls something that consists of operator calls, as one call."""
    flow = active_flow()
    if flow is None or flow.eager:
        return plain_call(function, *args, **kwargs)
    snapshot = Snapshot(flow.containers, args, kwargs)
    if nature == "pure" and not snapshot.holes:
        return function(*snapshot.args, **snapshot.kwargs)
    kind = "pure" if nature == "pure" else "thread"
    return flow.submit(
        kind, flow.record.label(name), function, snapshot, after_all=_may_have_effects(part)
    )


def _may_have_effects(part: Any) -> bool:
    """Whether an operator in something has side effects, or it cannot be told."""
    if isinstance(part, HostOperator):
        return part.policy.side_effects
    if isinstance(part, Operator):
        return any(map(_may_have_effects, pure_operators.parts(part)))
    wrapped = getattr(part, "__wrapped__", None)
    return wrapped is None or _may_have_effects(wrapped)


def _concurrently(nature: Callable[[Any], Any], flow: Flow, function: Any) -> Any:
    """How to call what another part of the library has made of a function."""
    found = nature(function)
    if found in ("host", "pure"):
        name = getattr(function, "name", None) or getattr(function, "__name__", "call")
        return functools.partial(_call_whole, str(name), found, function, function)
    if found == "unknown":
        return _unknown(flow, function)
    if getattr(function, "mode", None) == "enhanced":
        return target(found)
    return functools.partial(_call_compiled, function, found)


def _call_compiled(function: Any, original: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Calls a compiled function: JAX's if its arguments are, and else as part of the program."""
    if all(map(pure_operators.is_array_or_number, (*args, *kwargs.values()))):
        return call_unknown(function, *args, **kwargs)
    return target(original)(*args, **kwargs)
