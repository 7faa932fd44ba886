"""Which types run no code of the user's when they are operated on, read or shown."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

from ember_xcs._core.operator import Operator
from ember_xcs._enhanced.pure import SAFE_TYPES
from ember_xcs._enhanced.special_methods import ON_VALUES

__all__ = ["ATOMS", "builds_only", "is_plain_attribute", "is_record", "is_safe", "stores_only"]

ATOMS: Final = frozenset({str, bytes, int, float, complex, bool, type(None)})
"""Types of values that cannot change and contain nothing."""

F = TypeVar("F", bound=Callable[..., Any])


def _cached(function: F) -> F:
    return cast("F", functools.lru_cache(maxsize=8192)(function))


@_cached
def is_safe(kind: Any) -> bool:
    """Whether the operators, truth, text and hash of a type run no code of the user's."""
    if kind in SAFE_TYPES or issubclass(kind, Operator):
        return True
    return not any(_is_written(kind, name) for name in ON_VALUES)


def _is_written(kind: type, name: str) -> bool:
    found = _in_mro(kind, name)
    if not isinstance(found, types.FunctionType):
        return False
    return not (_is_generated(found) or _is_of_a_library(kind, name))


def _is_generated(function: types.FunctionType) -> bool:
    """Whether a method was made by ``dataclasses`` or ``collections.namedtuple``."""
    filename = function.__code__.co_filename
    return filename.startswith("<") or function.__module__ in ("dataclasses", "reprlib", "enum")


def _is_of_a_library(kind: type, name: str) -> bool:
    for cls in kind.__mro__:
        if name in cls.__dict__:
            return cls.__module__.partition(".")[0] in _LIBRARIES
    return False


_LIBRARIES: Final = frozenset(
    {
        "numpy", "jax", "jaxlib", "collections", "datetime", "decimal", "fractions", "uuid",
        "pathlib", "enum", "pydantic", "ember_xcs", "typing", "functools", "builtins",
    }
)  # fmt: skip


def _in_mro(kind: type, name: str) -> Any:
    for cls in kind.__mro__:
        if name in cls.__dict__:
            return cls.__dict__[name]
    return None


@_cached
def is_plain_attribute(kind: Any, name: str) -> bool:
    """Whether reading an attribute of objects of a type runs no code of the user's."""
    if kind in SAFE_TYPES or issubclass(kind, Operator):
        return True
    if kind.__module__.partition(".")[0] in _LIBRARIES:
        return True
    if _in_mro(kind, "__getattribute__") is not object.__dict__["__getattribute__"] and not (
        issubclass(kind, type | BaseException | tuple | types.ModuleType)
    ):
        return False
    found = _in_mro(kind, name)
    if found is None:
        return _in_mro(kind, "__getattr__") is None
    plain = (types.FunctionType, staticmethod, classmethod, types.MemberDescriptorType, type)
    return isinstance(found, plain) or not hasattr(type(found), "__get__")


@_cached
def builds_only(kind: Any) -> bool:
    """Whether making an object of a class only stores what it is given.

    It does for dataclasses without a ``__post_init__``, named tuples, and exceptions with no
    ``__init__`` of their own.
    """
    if issubclass(kind, BaseException):
        return not any(_is_written(kind, name) for name in ("__init__", "__new__"))
    if type(kind) is not type:
        return False
    new, init = _in_mro(kind, "__new__"), _in_mro(kind, "__init__")
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        new = getattr(new, "__func__", new)
        return isinstance(new, types.FunctionType) and _is_generated(new)
    if not hasattr(kind, "__dataclass_fields__") or hasattr(kind, "__post_init__"):
        return False
    is_generated = isinstance(init, types.FunctionType) and _is_generated(init)
    return is_generated and new is object.__dict__["__new__"]


@_cached
def is_record(kind: Any) -> bool:
    """Whether a class is a dataclass whose instances keep what they are given in a ``__dict__``."""
    return (
        builds_only(kind)
        and hasattr(kind, "__dataclass_fields__")
        and bool(kind.__dictoffset__)
        and not any(isinstance(vars(c).get("__slots__"), tuple) for c in kind.__mro__)
    )


@_cached
def stores_only(kind: Any, name: str) -> bool:
    """Whether setting an attribute of a record only stores the value."""
    if kind.__setattr__ is not object.__setattr__:
        return False
    return not hasattr(type(_in_mro(kind, name)), "__set__")
