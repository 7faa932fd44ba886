"""Picking a field of an output."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from ember_xcs._graph.messages import did_you_mean, explain, listing
from ember_xcs._graph.ports import is_index
from ember_xcs.errors import UnknownFieldError

__all__ = ["pick_field"]


def pick_field(value: Any, field: str) -> Any:
    """Returns one field of a value.

    A mapping is asked for the key, a sequence or an array for the position where the field is a
    whole number, and anything else for the attribute. Attributes that begin with an underscore
    are no fields.

    Args:
        value: The output of a node.
        field: A key, a position such as ``"0"``, or the name of an attribute.

    Raises:
        UnknownFieldError: When the value has no such field.

    Example:
        >>> (
        ...     pick_field({"text": "yes"}, "text"),
        ...     pick_field(["a", "b"], "-1"),
        ...     pick_field(3j, "imag"),
        ... )
        ('yes', 'b', 3.0)
    """
    if isinstance(value, Mapping):
        if field in value:
            return value[field]
        raise _no_field(value, field, map(str, value))
    if is_index(field):
        return _item(value, int(field))
    if field.startswith("_") or not hasattr(value, field):
        raise _no_field(value, field, _attributes(value))
    return getattr(value, field)


def _item(value: Any, index: int) -> Any:
    try:
        return value[index]
    except (IndexError, TypeError, KeyError) as error:
        size = len(value) if hasattr(value, "__len__") else 0
        raise _no_field(value, str(index), map(str, range(min(size, 1000)))) from error


def _attributes(value: Any) -> Iterable[str]:
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value)]
    names = getattr(type(value), "model_fields", None) or getattr(value, "_fields", None)
    return list(names or (name for name in getattr(value, "__dict__", ()) if name[0] != "_"))


def _no_field(value: Any, field: str, known: Iterable[str]) -> UnknownFieldError:
    names = list(known)
    return UnknownFieldError(
        explain(
            f"An output of type {type(value).__name__} has no field {field!r}"
            + did_you_mean(field, names),
            f"A field is a key of a mapping, a position in a sequence or an attribute; this value "
            f"has {listing(names)}",
            "Correct the field of the edge, or return it from the operator",
        )
    )
