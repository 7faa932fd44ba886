"""Changes of objects: at once where only the program can see them, and else after a wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ember_xcs._enhanced.construction import known_items
from ember_xcs._enhanced.containers import ALL, END
from ember_xcs._enhanced.flow import active_flow
from ember_xcs._enhanced.lifting import hashable, plain_call, value_of
from ember_xcs._enhanced.pending import Pending
from ember_xcs._enhanced.safety import ATOMS, stores_only

if TYPE_CHECKING:
    from collections.abc import Callable

    from ember_xcs._enhanced.flow import Flow

__all__ = ["delete_attribute", "delete_item", "in_place", "mutated", "set_attribute", "set_item"]

_READS_ALL = frozenset({"sort", "remove"})
_TAKES_ITEMS = frozenset({"extend", "update"})


def mutated(flow: Flow, bound: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Calls a method that changes a list, dict or set."""
    receiver, name = bound.__self__, bound.__name__
    part = END if type(receiver) is list and name in ("append", "extend") else ALL
    if name in _READS_ALL or kwargs.get("key") or not _may_change(flow, receiver, part):
        return _after_all(flow, receiver, bound, args, kwargs)
    if type(receiver) is set:
        return plain_call(bound, *map(hashable, args), **kwargs)
    if name in _TAKES_ITEMS:
        return _take_items(flow, receiver, name, args, kwargs)
    if name in ("pop", "setdefault") or (name == "insert" and args):
        args = (hashable(args[0]), *args[1:]) if args else args
    result = bound(*args, **kwargs)
    if any(type(a) is Pending for a in args):
        flow.containers.tainted[id(receiver)] = receiver
    return result


def _may_change(flow: Flow, container: Any, part: Any) -> bool:
    """Whether a container may be changed at once; within a ``try``, so that it can be undone."""
    if not flow.containers.is_fresh(container, flow.since):
        return False
    if flow.tries:
        if flow.unsettled:
            flow.containers.changing(flow.clock, container, part)
        else:
            flow.containers.keep()
    return True


def _take_items(
    flow: Flow, receiver: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    if type(receiver) is list:
        items = known_items(args[0]) if len(args) == 1 else None
        if items is None and args and type(args[0]) is Pending:
            items = known_items(value_of(args[0]))
        if items is None:
            return _after_all(flow, receiver, receiver.extend, args, kwargs)
        receiver.extend(items)
    elif not args or type(value_of(args[0])) is dict:
        receiver.update(*map(value_of, args), **kwargs)
    else:
        return _after_all(flow, receiver, receiver.update, args, kwargs)
    flow.containers.look(receiver)
    return None


def _after_all(
    flow: Flow,
    receiver: Any,
    change: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Makes a change that other code could see, after all that came before it."""
    flow.settle()
    args = tuple(map(value_of, args))
    kwargs = {name: value_of(value) for name, value in kwargs.items()}
    if not flow.containers.holds(receiver):
        for value in (*args, *kwargs.values()):
            flow.containers.escape(value)
    flow.eager += 1
    try:
        return change(*args, **kwargs)
    finally:
        flow.eager -= 1


def set_item(value: Any, container: Any, key: Any) -> None:
    """``container[key] = value``."""
    flow = active_flow()
    is_plain = type(value) in ATOMS and type(key) in ATOMS and type(container) in (list, dict)
    if is_plain and (flow is None or flow.eager or not flow.is_busy):
        container[key] = value
        return
    container, key = value_of(container), hashable(key)
    if flow is None or flow.eager:
        container[key] = value_of(value)
    elif type(key) is not slice and _may_change(flow, container, key):
        container[key] = value
        if type(value) is Pending:
            flow.containers.tainted[id(container)] = container
    else:
        _after_all(flow, container, _set_item, (container, key, value), {})


def _set_item(container: Any, key: Any, value: Any) -> None:
    container[key] = value


def delete_item(container: Any, key: Any) -> None:
    """``del container[key]``."""
    container, key = value_of(container), value_of(key)
    flow = active_flow()
    if flow is None or flow.eager or _may_change(flow, container, ALL):
        del container[key]
    else:
        _after_all(flow, container, _delete_item, (container, key), {})


def _delete_item(container: Any, key: Any) -> None:
    del container[key]


def set_attribute(value: Any, receiver: Any, name: str) -> None:
    """``receiver.name = value``."""
    receiver = value_of(receiver)
    flow = active_flow()
    if flow is None or flow.eager:
        setattr(receiver, name, value_of(value))
    elif stores_only(type(receiver), name) and _may_change(flow, receiver, name):
        setattr(receiver, name, value)
        if type(value) is Pending:
            flow.containers.tainted[id(receiver)] = receiver
    else:
        _after_all(flow, receiver, setattr, (receiver, name, value), {})


def delete_attribute(receiver: Any, name: str) -> None:
    """``del receiver.name``."""
    receiver = value_of(receiver)
    flow = active_flow()
    if flow is None or flow.eager:
        delattr(receiver, name)
    else:
        _after_all(flow, receiver, delattr, (receiver, name), {})


def in_place(
    change: Callable[[Any, Any], Any], expression: Callable[[Any, Any], Any], left: Any, right: Any
) -> Any:
    """Returns what ``left += right`` binds, and the like.

    Args:
        change: Does it in place.
        expression: The same for values that cannot change.
        left: What is changed.
        right: By what.
    """
    if type(left) in ATOMS and type(right) in ATOMS:
        return change(left, right)
    if type(left) is Pending and not left.is_immutable:
        left = value_of(left)
    if type(left) is Pending or type(left) in ATOMS or type(left) is tuple:
        return expression(left, right)
    flow = active_flow()
    if flow is None or flow.eager:
        return change(left, value_of(right))
    if type(left) is list and change.__name__ == "iadd":
        if _may_change(flow, left, END):
            _take_items(flow, left, "extend", (right,), {})
            return left
    elif type(left) in (dict, set) and _may_change(flow, left, ALL):
        left = change(left, value_of(right))
        if type(left) is dict:
            flow.containers.look(left)
        return left
    return _after_all(flow, left, change, (left, right), {})
