"""Where the values of a real run come from, told by the identity of objects.

Identity proves something only for objects that nobody else can have. So what an operator returns
is handed on with strings, numbers and built-in containers made anew: an equal literal elsewhere
is then another object. What cannot be made anew (small integers, booleans, None, strings of
one character) has no identity of its own and proves nothing. Other objects prove something if
nobody but the operator's result refers to them, which their reference count tells.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import sys
import threading
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from ember_xcs._core.plumbing import Step, opened_container
from ember_xcs._core.pydantic_models import is_model

__all__ = ["Provenance", "Tracked", "children_of", "has_identity", "made_anew"]

_TRUSTED = frozenset({"builtins", "pydantic", "typing"})
_HOOKS = frozenset({"__getattr__", "__getattribute__", "__getitem__"})
_ATOMS = (str, bytes, int, float, complex, bool, type(None))


@dataclasses.dataclass(slots=True)
class Tracked:
    """An object that is known to be a value of the run, or a part of one.

    Attributes:
        value: The object; kept, so that no other gets its id.
        source: The number of a call, or the name of an input.
        path: From the source's value to the object.
        state: What it consists of; if that changes, the object was changed in place.
        ambiguous: Whether others may have the same object, so that it proves nothing.
        children: Its parts.
    """

    value: Any
    source: int | str
    path: tuple[Step, ...]
    state: Any
    ambiguous: bool
    children: list[Tracked]

    def unchanged(self) -> bool:
        """Whether neither the object nor a part of it was changed in place."""
        return _same(self.state, _state(self.value)) and all(c.unchanged() for c in self.children)


class Provenance:
    """The objects that are values of a run, by identity."""

    def __init__(self) -> None:
        self._known: dict[int, Tracked] = {}
        self._lock = threading.Lock()

    def add(self, value: Any, source: int | str, shared: frozenset[int]) -> None:
        """Remembers a value and its parts; ``shared`` are the ids of objects that prove nothing."""
        with self._lock:
            self._add(value, source, (), shared, proves=True)

    def _add(
        self,
        value: Any,
        source: int | str,
        path: tuple[Step, ...],
        shared: frozenset[int],
        proves: bool,
    ) -> Tracked:
        inner = proves and not _computes_attributes(type(value))
        parts = [
            self._add(part, source, (*path, step), shared, inner)
            for step, part in children_of(value) or ()
        ]
        known = self._known.get(id(value))
        unproven = id(value) in shared or known is not None or not has_identity(value)
        tracked = Tracked(value, source, path, _state(value), unproven or not proves, parts)
        self._known[id(value)] = tracked
        return tracked

    def find(self, value: Any) -> Tracked | None:
        """Returns what is known about an object."""
        if not has_identity(value):
            return None
        with self._lock:
            return self._known.get(id(value))


def children_of(value: Any) -> list[tuple[Step, Any]] | None:
    """Returns the parts of a built-in container or a record with the steps to them, or None."""
    opened = opened_container(value)
    if opened is None or opened[0] == "tree":
        return None
    kind, _, keys, items = opened
    access = "attribute" if kind == "record" else "item"
    names: Iterable[Any] = keys or range(len(items))
    return [((access, name), item) for name, item in zip(names, items, strict=True)]


def _computes_attributes(cls: type) -> bool:
    """Whether a record has properties: they may return one part or another."""
    if cls in _ATOMS or cls in (list, tuple, dict):
        return False
    own = [base for base in cls.__mro__ if base.__module__.split(".")[0] not in _TRUSTED]
    members = [(name, member) for base in own for name, member in vars(base).items()]
    return any(
        isinstance(member, property | functools.cached_property) or name in _HOOKS
        for name, member in members
    )


def has_identity(value: Any) -> bool:
    """Whether an object of this value can be told from others that are equal."""
    if type(value) is tuple and not value:
        return False
    return type(value) not in _ATOMS or _fresh_atom(value) is not _fresh_atom(value)


def _fresh_atom(value: Any) -> Any:
    kind = type(value)
    if kind is str or kind is bytes:
        return value[:1] + value[1:]
    if kind is int:
        return value + 1 - 1
    if kind is float:
        return float.fromhex(value.hex())
    return complex(value.real, value.imag) if kind is complex else value


def made_anew(holder: list[Any], copies_arrays: bool = False) -> tuple[Any, frozenset[int]]:
    """Returns the only item of a list, made anew, and the ids of its parts that others have too.

    Args:
        holder: A list whose item nobody else refers to, unless the operator kept it.
        copies_arrays: Whether arrays are made anew, too.
    """
    found: list[tuple[int, Any]] = []
    fresh = _made_anew(holder, found, copies_arrays)[0]
    return fresh, frozenset(id(part) for count, part in found if count > _SOLE)


def _made_anew(value: Any, found: list[tuple[int, Any]], copies_arrays: bool) -> Any:
    if type(value) in _ATOMS:
        return _fresh_atom(value)
    parts = children_of(value)
    if parts is not None:
        fresh = [(step, _made_anew(part, found, copies_arrays)) for step, part in parts]
        return _rebuilt(value, fresh)
    if copies_arrays and isinstance(value, np.ndarray | jax.Array):
        return value.copy()
    found.append((sys.getrefcount(value), value))
    return value


def _measured() -> int:
    found: list[tuple[int, Any]] = []
    _made_anew([np.empty(0)], found, False)
    return found[0][0]


def _rebuilt(value: Any, parts: list[tuple[Step, Any]]) -> Any:
    """Returns a container like ``value`` with other parts."""
    if type(value) in (list, tuple):
        return type(value)(part for _, part in parts)
    fields = {key: part for (_, key), part in parts}
    if type(value) is dict:
        return fields
    if is_model(value):
        return value.model_copy(update=fields)
    if isinstance(value, tuple):
        return type(value)(**fields)
    made = copy.copy(value)
    for name, part in fields.items():
        object.__setattr__(made, name, part)
    return made


def _state(value: Any) -> Any:
    """What an object consists of, to be compared by identity."""
    if type(value) in _ATOMS or isinstance(value, tuple | jax.Array):
        return None
    if isinstance(value, np.ndarray):
        items = value.ravel().tolist() if value.dtype == object else value.tobytes()
        return [value.shape, value.dtype, items]
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, dict):
        return [part for item in value.items() for part in item]
    if isinstance(value, list | set | frozenset):
        return list(value)
    parts = children_of(value)
    if parts is not None:
        return [part for _, part in parts]
    fields = getattr(value, "__dict__", None)
    return [part for item in fields.items() for part in item] if type(fields) is dict else None


def _same(one: Any, other: Any) -> bool:
    if type(one) is list and type(other) is list:
        return len(one) == len(other) and all(map(_same_part, one, other))
    return one is other or (type(one) is bytes and one == other)


def _same_part(one: Any, other: Any) -> bool:
    if type(one) in (tuple, bytes) or isinstance(one, np.dtype):
        return type(one) is type(other) and bool(one == other)
    return one is other


_SOLE = _measured()
"""The reference count, inside ``_made_anew``, of an object that only its container refers to."""
