"""Expressions on values that are not there yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ember_xcs._enhanced.containers import Snapshot
from ember_xcs._enhanced.flow import active_flow
from ember_xcs._enhanced.pending import DONE, Pending
from ember_xcs._enhanced.safety import ATOMS, is_safe
from ember_xcs.errors import XCSError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ember_xcs._enhanced.flow import Flow

__all__ = [
    "VIEWS",
    "escape_all",
    "has_pending",
    "hashable",
    "lift",
    "materialized",
    "plain_call",
    "tuple_of",
    "value_of",
]  # fmt: skip

VIEWS = frozenset({type({}.keys()), type({}.values()), type({}.items())})


def value_of(value: Any) -> Any:
    """Returns a value when it is there: a pending one is waited for."""
    if type(value) is not Pending:
        return value
    flow = active_flow()
    if flow is not None:
        return flow.force(value)
    if value.state == DONE:
        return value.value
    raise XCSError(
        f"internal error: {value!r} reached another thread than that of its program. Run this with "
        "EMBER_XCS_ENHANCED=0, and please report the program."
    )


def hashable(value: Any) -> Any:
    """Returns a value that is about to be hashed: all that is in it is there."""
    value = value_of(value)
    if type(value) in ATOMS:
        return value
    flow = active_flow()
    if flow is not None and not flow.eager:
        is_deep = flow.containers.has_pending(value)
        if is_deep or (flow.is_busy and not is_safe(type(value))):
            flow.settle()
    return value


def plain_call(function: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Calls a function as plain Python does."""
    if any(type(a) is Pending for a in args):
        args = tuple(map(value_of, args))
    if any(type(a) is Pending for a in kwargs.values()):
        kwargs = {name: value_of(a) for name, a in kwargs.items()}
    return function(*args, **kwargs)


def has_pending(flow: Flow, args: Iterable[Any], kwargs: dict[str, Any]) -> bool:
    """Whether arguments are pending, or contain what is."""
    for value in (*args, *kwargs.values()):
        if type(value) is Pending:
            return True
    if not flow.containers.tainted:
        return False
    return any(map(flow.containers.has_pending, (*args, *kwargs.values())))


def lift(
    flow: Flow,
    label: str,
    work: Callable[..., Any],
    args: Iterable[Any],
    kwargs: dict[str, Any],
    *,
    immutable: bool = False,
) -> Any:
    """Returns what an expression gives: its value if all is there, and else a pending one.

    An operand of a class with operator methods of the user's may do anything: with one, it is
    computed after all that came before.

    Args:
        flow: The run.
        label: What it is called.
        work: Computes it; free of effects.
        args: Its operands.
        kwargs: Its operands by name.
        immutable: Whether it gives a number or a text.

    """
    args = tuple(args)
    if not all(type(a) is Pending or is_safe(type(a)) for a in (*args, *kwargs.values())):
        flow.settle()
        return plain_call(work, *args, **kwargs)
    snapshot = Snapshot(flow.containers, args, kwargs)
    if not snapshot.holes and not snapshot.originals:
        return work(*snapshot.args, **snapshot.kwargs)
    node = flow.submit("lift", label, work, snapshot)
    node.is_immutable = immutable
    return node.value if node.state == DONE else node


def tuple_of(items: tuple[Any, ...]) -> Any:
    """Returns a tuple that the program has written down, pending if one of its items is."""
    for item in items:
        if type(item) is Pending:
            break
    else:
        return items
    flow = active_flow()
    items = tuple(i.value if type(i) is Pending and i.state == DONE else i for i in items)
    if flow is None or flow.eager or not any(type(i) is Pending for i in items):
        return tuple(map(value_of, items))
    snapshot = Snapshot(flow.containers, (), {})
    snapshot.args = list(items)
    snapshot.holes = [(snapshot.args, k, i) for k, i in enumerate(items) if type(i) is Pending]
    node = flow.submit("lift", "tuple", _tuple, snapshot)
    node.elements = items
    return node


def _tuple(*items: Any) -> tuple[Any, ...]:
    return items


def escape_all(
    flow: Flow, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns arguments as other code may see them; all calls have ended."""
    args = tuple(map(value_of, args))
    for value in args:
        flow.containers.escape(value)
    if kwargs:
        kwargs = {name: value_of(value) for name, value in kwargs.items()}
        for value in kwargs.values():
            flow.containers.escape(value)
    return args, kwargs


def materialized(flow: Flow, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns arguments with views and iterators over containers of pending values as lists."""
    if not flow.containers.tainted:
        return args
    found = flow.containers
    if not any(type(a) in VIEWS or found.is_iterator(a) for a in args):
        return args
    made: list[Any] = []
    for value in args:
        if type(value) in VIEWS or found.is_iterator(value):
            value = [tuple_of(i) if type(i) is tuple else i for i in value]  # noqa: PLW2901
            found.add(value, flow.clock)
        made.append(value)
    return tuple(made)
