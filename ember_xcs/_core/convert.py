"""What a host operator receives: values as plain Python would hand them over.

A rank-0 array arrives as a Python number where the parameter is annotated ``float``, ``int``,
``bool`` or ``complex``; any array arrives as a ``jax.Array`` where it is annotated so, and
as a read-only numpy array otherwise. Everything else arrives as it is.
"""

from __future__ import annotations

import operator
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ember_xcs._core.records import is_plain_tree, make_record
from ember_xcs._core.signature import record_fields

if TYPE_CHECKING:
    from ember_xcs._core.operator import Operator

__all__ = ["element_annotation", "host_value", "read_only", "to_host"]

_NUMBERS = (complex, float, int, bool)
_ATOMS = frozenset({str, bytes, int, float, bool, complex, type(None)})


def to_host(
    called: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """Returns the arguments of a host operator in the form in which it receives them."""
    if _all_atoms(args) and _all_atoms(kwargs.values()):
        return args, kwargs
    fields = called.signature.fields
    hints = [field.annotation for field in fields] + [Any] * len(args)
    converted = tuple([host_value(v, hint) for v, hint in zip(args, hints, strict=False)])
    if not kwargs:
        return converted, kwargs
    by_name = {field.name: field.annotation for field in fields}
    return converted, {k: host_value(v, by_name.get(k, Any)) for k, v in kwargs.items()}


def _all_atoms(values: Any) -> bool:
    for value in values:  # noqa: SIM110  (a generator costs more than the loop)
        if type(value) not in _ATOMS:
            return False
    return True


def host_value(value: Any, annotation: Any = Any) -> Any:
    """Returns ``value`` as a parameter with this annotation receives it."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return _array(value, annotation)
    if kind is list or kind is tuple:
        hints = element_annotation(annotation)
        items = [host_value(item, hints(k)) for k, item in enumerate(value)]
        return value if _unchanged(items, value) else kind(items)
    if kind is dict:
        hints = element_annotation(annotation)
        items = [host_value(item, hints(key)) for key, item in value.items()]
        return value if _unchanged(items, value.values()) else dict(zip(value, items, strict=True))
    return _record(value)


def _unchanged(new: Iterable[Any], old: Iterable[Any]) -> bool:
    """Whether a container can be handed over itself: a plain call hands over no copy."""
    return all(map(operator.is_, new, old))


def _array(value: Any, annotation: Any) -> Any:
    if annotation in _NUMBERS and value.ndim == 0:  # the usual case first
        item = value.item()
        return item if type(item) is annotation else _number(item, annotation)
    wanted = _alternatives(annotation)
    if np.ndim(value) == 0:
        for number in _NUMBERS:
            if number in wanted:
                item = value.item()
                return item if type(item) in wanted else _number(item, number)
    if any(map(_is_jax_array, wanted)):
        return jnp.asarray(value)
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.extended):
        return value
    return read_only(value)


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """The types that an annotation allows: one, or those of a union."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _alternatives(annotation.__origin__)
    if origin in (typing.Union, types.UnionType):
        return tuple(t for part in typing.get_args(annotation) for t in _alternatives(part))
    return (annotation,)


def _number(value: Any, number: type) -> Any:
    """Returns a number as ``number`` where nothing is lost by it, and otherwise as it is."""
    order = (bool, int, float, complex)
    if type(value) not in order or order.index(type(value)) > order.index(number):
        return value
    return number(value)


def _is_jax_array(annotation: Any) -> bool:
    return annotation is jax.Array or getattr(annotation, "array_type", None) is jax.Array


def read_only(value: Any) -> np.ndarray[Any, Any]:
    """Returns an array as a numpy array that cannot be written to."""
    view: np.ndarray[Any, Any] = np.asarray(value).view()
    view.flags.writeable = False
    return view


def _record(value: Any) -> Any:
    """Returns a record with its own arrays converted; anything else as it is."""
    if not is_plain_tree(type(value)):
        return value
    fields = record_fields(type(value)) or {}
    old = {name: getattr(value, name) for name in fields}
    new = {name: host_value(old[name], hint) for name, hint in fields.items()}
    if all(new[name] is old[name] for name in fields):
        return value
    return make_record(type(value), new)


def element_annotation(annotation: Any) -> Callable[[Any], Any]:
    """Returns a function from the key or index of an element to its annotation."""
    fields = record_fields(annotation)
    if fields is not None:
        names: Sequence[str] = tuple(fields)
        return lambda key: fields.get(names[key] if isinstance(key, int) else key, Any)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if not isinstance(origin, type) or not args:
        return lambda _key: Any
    if issubclass(origin, Mapping):
        return lambda _key: args[-1]
    if origin is tuple and args[-1] is not Ellipsis:
        return lambda key: args[key] if key < len(args) else Any
    return lambda _key: args[0]
