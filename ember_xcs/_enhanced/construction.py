"""Containers that the program makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ember_xcs._enhanced.flow import active_flow
from ember_xcs._enhanced.lifting import (
    VIEWS,
    has_pending,
    hashable,
    lift,
    plain_call,
    tuple_of,
    value_of,
)
from ember_xcs._enhanced.pending import DONE, Pending
from ember_xcs._enhanced.safety import is_safe

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CONSTRUCTORS", "constructed", "fresh", "iterator_over", "known_items"]

CONSTRUCTORS: Final[frozenset[type]] = frozenset({list, tuple, dict})


def fresh(container: Any) -> Any:
    """Returns a list, dict or set after noting that the program has just made it."""
    flow = active_flow()
    if flow is not None and not flow.eager:
        flow.containers.add(container, flow.clock)
        return container
    return _without_pending(container)


def _without_pending(container: Any) -> Any:
    """A container made where nothing may be pending."""
    if type(container) is dict:
        for key, item in container.items():
            if type(item) is Pending:
                container[key] = value_of(item)
    elif type(container) is list:
        for k, item in enumerate(container):
            if type(item) is Pending:
                container[k] = value_of(item)
    return container


def known_items(value: Any) -> list[Any] | None:
    """Returns the items of what can be gone through without running other code; else None."""
    if type(value) is Pending:
        if value.state == DONE:
            return known_items(value.value)
        return None if value.elements is None else list(value.elements)
    kind = type(value)
    if kind in (list, tuple, str, dict, range, set, frozenset, bytes):
        return list(value)
    flow = active_flow()
    if kind in VIEWS or (flow is not None and flow.containers.is_iterator(value)):
        return [tuple_of(i) if type(i) is tuple else i for i in value]
    return None


def constructed(kind: type, /, *args: Any, **kwargs: Any) -> Any:
    """Returns ``list(...)``, ``tuple(...)`` or ``dict(...)``."""
    flow = active_flow()
    if flow is None or flow.eager:
        return plain_call(kind, *args, **kwargs)
    if kind is dict:
        return _dict(*args, **kwargs)
    items = known_items(args[0]) if len(args) == 1 and not kwargs else None
    if items is None:
        return _other(kind, args, kwargs)
    return fresh(items) if kind is list else tuple_of(tuple(items))


def _dict(*args: Any, **kwargs: Any) -> Any:
    if not args:
        return fresh(kwargs)
    given, *rest = args
    if not rest and type(given) is dict:
        return fresh({**given, **kwargs})
    pairs = known_items(given) if not rest else None
    if pairs is None or not all(_is_pair(pair) for pair in pairs):
        return _other(dict, args, kwargs)
    made: dict[Any, Any] = {}
    for pair in pairs:
        key, value = (pair.elements or ()) if type(pair) is Pending else pair
        made[hashable(key)] = value
    made.update(kwargs)
    return fresh(made)


def _is_pair(item: Any) -> bool:
    if type(item) is Pending:
        return item.elements is not None and len(item.elements) == 2
    return type(item) in (tuple, list) and len(item) == 2


def _other(kind: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The same for what it is not known how to go through."""
    flow = active_flow()
    assert flow is not None
    if has_pending(flow, args, kwargs):
        return lift(flow, kind.__name__, kind, args, kwargs)
    if flow.is_busy and not all(is_safe(type(a)) for a in args):
        flow.settle()
    made = kind(*args, **kwargs)
    return fresh(made) if kind is not tuple else tuple_of(made)


def iterator_over(kind: Any, otherwise: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Returns ``zip(...)``, ``enumerate(...)`` or ``reversed(...)``."""
    flow = active_flow()
    if flow is None or flow.eager:
        return plain_call(kind, *args, **kwargs)
    args = tuple(map(value_of, args))
    kwargs = {name: value_of(value) for name, value in kwargs.items()}
    known = (list, tuple, str, dict, range, set, frozenset, bytes, int, *VIEWS)
    if not all(type(a) in known or flow.containers.is_iterator(a) for a in args):
        return otherwise(kind, *args, **kwargs)
    made = kind(*args, **kwargs)
    flow.containers.add_iterator(made)
    return made
