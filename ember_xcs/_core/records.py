"""Records as pytrees: pydantic models, dataclasses, ``NamedTuple``, ``TypedDict``.

A record that an operator declares as its output, or that a compiled function is given, is staged
as a tree of its fields, so its class must be a JAX pytree. Named tuples and dicts are; the others
are registered here, once.
"""

from __future__ import annotations

import dataclasses
import threading
import weakref
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from ember_xcs._core.signature import record_fields

__all__ = ["is_plain_tree", "make_record", "open_records", "register_record"]

_NO_RECORDS = (str, bytes, bool, int, float, complex, type(None), jax.Array, np.ndarray, np.generic)

_lock = threading.Lock()
_registered: weakref.WeakSet[type] = weakref.WeakSet()
_ours: weakref.WeakSet[type] = weakref.WeakSet()


def make_record(cls: type, values: dict[str, Any]) -> Any:
    """Returns a record of class ``cls`` with these fields, unvalidated."""
    if hasattr(cls, "model_construct"):
        model = cls.model_construct(set(values), **values)
        model.__dict__.update(values)  # fields with an alias are not found by their names
        return model
    if dataclasses.is_dataclass(cls):
        record = object.__new__(cls)
        for name, value in values.items():
            object.__setattr__(record, name, value)
        return record
    return cls(**values)


def register_record(cls: type) -> None:
    """Makes a pydantic model or dataclass a JAX pytree, unless it is one already."""
    with _lock:
        if cls in _registered:
            return
        if not _is_pytree(cls):
            _register(cls, tuple(record_fields(cls) or ()))
            _ours.add(cls)
        _registered.add(cls)


def open_records(leaves: Iterable[Any]) -> bool:
    """Makes the classes of records among some leaves pytrees; returns whether there were any.

    A record that holds more than its fields (private attributes of a pydantic model, what a
    ``__post_init__`` sets besides) could not be put together again, and stays a leaf.
    """
    found = {type(leaf) for leaf in leaves if not isinstance(leaf, _NO_RECORDS) and _is_open(leaf)}
    for cls in found:
        register_record(cls)
    return bool(found)


def _is_open(value: Any) -> bool:
    """Whether a value is a record of a class not seen before, and nothing but its fields."""
    cls = type(value)
    model_fields = getattr(cls, "model_fields", None)
    if isinstance(model_fields, dict):
        more = getattr(value, "__pydantic_private__", None) or value.__pydantic_extra__
        return cls not in _registered and not more
    if not dataclasses.is_dataclass(cls) or cls in _registered:
        return False
    names = {field.name for field in dataclasses.fields(cls)}
    held = getattr(value, "__dict__", {}).keys()
    return held <= names and all(hasattr(value, name) for name in names)


def is_plain_tree(cls: type) -> bool:
    """Whether JAX sees a record of this class as its fields, no more and no less.

    Where a library has registered the class, some fields may be part of the structure.
    """
    return cls in _ours or issubclass(cls, tuple | dict)


def _is_pytree(cls: type) -> bool:
    probe = object.__new__(cls) if not issubclass(cls, tuple | dict) else None
    if probe is None:
        return True
    try:
        return not jax.tree_util.all_leaves([probe])
    except (AttributeError, TypeError, ValueError):  # registered, and a blank one cannot be opened
        return True


def _register(cls: type, names: tuple[str, ...]) -> None:
    keys = tuple(jax.tree_util.GetAttrKey(name) for name in names)

    def flatten(record: Any) -> tuple[list[Any], None]:
        return [getattr(record, name) for name in names], None

    def flatten_with_keys(record: Any) -> tuple[list[tuple[Any, Any]], None]:
        return [(k, getattr(record, n)) for k, n in zip(keys, names, strict=True)], None

    def unflatten(_aux: None, values: Iterable[Any]) -> Any:
        return make_record(cls, dict(zip(names, values, strict=True)))

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
