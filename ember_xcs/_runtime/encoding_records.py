"""Instances of classes by their fields: enums, dataclasses, named tuples, models, operators.

A record is stored with the name of its class and put together again only if that name leads, among
the modules already loaded, to a class of the same kind and with the same fields.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from ember_xcs._core.operator_class import fields_of, is_operator_class, make_instance
from ember_xcs._core.pydantic_models import is_model_class
from ember_xcs._runtime.encoding_rules import Unstorable

if TYPE_CHECKING:
    from collections.abc import Callable

    from ember_xcs._runtime.encoding import Decoder, Encoder

__all__ = ["read_record", "write_record"]

_BUILT_IN = (tuple, list, dict, set, frozenset, str, bytes, int, float, complex, BaseException)


def write_record(encoder: Encoder, value: Any) -> Any:
    """Returns the tree of an instance of a class that says what its fields are.

    Raises:
        Unstorable: Its class is not of such a kind, or could not be found again by its name.
    """
    cls = type(value)
    kind = _kind(cls)
    if kind is None:
        raise Unstorable(
            f"a {_name(cls)} cannot be stored: only plain values, arrays, enums, dataclasses, "
            "named tuples, pydantic models and operators can; convert it to one of these"
        )
    reference = encoder.class_reference(cls) or _reference(cls)
    state = encoder.nested(lambda: _KINDS[kind].write(encoder, value))
    return ["record", kind, reference, state]


def read_record(decoder: Decoder, kind: str, reference: list[str], state: Any) -> Any:
    """Returns an instance with the fields that were stored.

    Raises:
        Unstorable: Its class is not loaded, or is no longer what it was.
    """
    cls = _find(*reference)
    if _kind(cls) != kind:
        raise _changed(cls, f"it is no {kind} any more")
    return _KINDS[kind].read(decoder, cls, state)


def _kind(cls: type) -> str | None:
    return next((kind for kind, rules in _KINDS.items() if rules.has(cls)), None)


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _changed(cls: type, how: str) -> Unstorable:
    return Unstorable(
        f"a stored {_name(cls)} cannot be restored: {how}; what was stored before the class was "
        "changed has to be computed again"
    )


def _reference(cls: type) -> list[str]:
    """The module and the name of a class, under which it can be found."""
    if _lookup(cls.__module__, cls.__qualname__) is not cls:
        raise Unstorable(
            f"a {_name(cls)} cannot be stored: its class could not be found under that name when "
            "it is read; define the class at the top level of a module"
        )
    return [cls.__module__, cls.__qualname__]


def _find(module: str, qualname: str) -> type:
    found = _lookup(module, qualname)
    if not isinstance(found, type):
        raise Unstorable(
            f"a stored {module}.{qualname} cannot be restored: no class of that name is loaded, "
            "and reading imports nothing; import its module first"
        )
    return found


def _lookup(module: str, qualname: str) -> Any:
    """What stands under a name, if its module is loaded; no code of the module is run."""
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, "__dict__", {}).get(part)
    good = getattr(found, "__module__", None) == module
    return found if good and getattr(found, "__qualname__", None) == qualname else None


class _Rules(NamedTuple):
    """How one kind of class is told, and its instances written and read."""

    has: Callable[[type], bool]
    write: Callable[[Any, Any], Any]
    read: Callable[[Any, Any, Any], Any]


def _write_enum(encoder: Encoder, value: Any) -> Any:
    name = value.name if value.name in type(value).__members__ else None
    return [name, encoder.value(value.value)]


def _read_enum(decoder: Decoder, cls: Any, state: Any) -> Any:
    name, value = state
    if name is None:
        return cls(decoder.value(value))  # a combination of flags
    if name not in cls.__members__:
        raise _changed(cls, f"it has no member {name!r}")
    return cls.__members__[name]


def _write_named(encoder: Encoder, value: Any) -> Any:
    _check_no_more(value, getattr(value, "__dict__", {}))
    return [list(value._fields), encoder.values(value)]


def _read_named(decoder: Decoder, cls: Any, state: Any) -> Any:
    names, parts = state
    _check_fields(cls, names, cls._fields)
    return tuple.__new__(cls, decoder.values(parts))


def _write_dataclass(encoder: Encoder, value: Any) -> Any:
    names = [field.name for field in dataclasses.fields(value)]
    unset = [name for name in names if not hasattr(value, name)]
    if unset:
        raise Unstorable(f"a {_name(type(value))} whose field {unset[0]!r} is not set has no value")
    _check_no_more(value, getattr(value, "__dict__", {}).keys() - set(names))
    return {name: encoder.value(getattr(value, name)) for name in names}


def _read_dataclass(decoder: Decoder, cls: Any, state: Any) -> Any:
    _check_fields(cls, state, (field.name for field in dataclasses.fields(cls)))
    record = object.__new__(cls)
    for name, part in state.items():
        object.__setattr__(record, name, decoder.value(part))
    return record


_MODEL_STATE = {
    "__dict__": "fields",
    "__pydantic_fields_set__": "set",
    "__pydantic_extra__": "extra",
    "__pydantic_private__": "private",
}


def _write_model(encoder: Encoder, value: Any) -> Any:
    if type(value).__pydantic_generic_metadata__["origin"] is not None:
        raise Unstorable(
            f"a {_name(type(value))} cannot be stored: its class was made from a generic one and "
            "has no name of its own; define a subclass of it"
        )
    computed = _cached_properties(type(value))
    fields = {k: v for k, v in value.__dict__.items() if k not in computed}
    state = {**{name: getattr(value, name) for name in _MODEL_STATE}, "__dict__": fields}
    return {short: encoder.value(state[name]) for name, short in _MODEL_STATE.items()}


def _read_model(decoder: Decoder, cls: Any, state: Any) -> Any:
    values = {name: decoder.value(state[short]) for name, short in _MODEL_STATE.items()}
    _check_fields(cls, values["__dict__"], cls.model_fields)
    model = object.__new__(cls)
    for name, value in values.items():
        object.__setattr__(model, name, value)
    return model


def _write_operator(encoder: Encoder, value: Any) -> Any:
    return {name: encoder.value(part) for name, part in fields_of(value).items()}


def _read_operator(decoder: Decoder, cls: Any, state: Any) -> Any:
    declared = {field.name for field in dataclasses.fields(cls)}
    if not declared <= state.keys():
        raise _changed(cls, f"it has a field {min(declared - state.keys())!r} now")
    return make_instance(cls, {name: decoder.value(part) for name, part in state.items()})


def _check_fields(cls: type, stored: Any, present: Any) -> None:
    old, new = list(stored), list(present)
    if sorted(old) != sorted(new):
        raise _changed(cls, f"its fields were {', '.join(old)}, and are {', '.join(new)}")


def _check_no_more(value: Any, names: Any) -> None:
    more = set(names) - _cached_properties(type(value))
    if more:
        raise Unstorable(
            f"a {_name(type(value))} that has {min(more)!r} besides its fields cannot be stored: "
            "only fields are; make it a field"
        )


def _cached_properties(cls: type) -> set[str]:
    attributes = (item for base in cls.__mro__ for item in vars(base).items())
    return {name for name, value in attributes if isinstance(value, functools.cached_property)}


def _is_named_tuple(cls: type) -> bool:
    return issubclass(cls, tuple) and hasattr(cls, "_fields") and cls is not tuple


def _is_dataclass(cls: type) -> bool:
    return dataclasses.is_dataclass(cls) and not issubclass(cls, _BUILT_IN)


# The first kind that has a class counts.
_KINDS = {
    "enum": _Rules(lambda cls: issubclass(cls, enum.Enum), _write_enum, _read_enum),
    "operator": _Rules(is_operator_class, _write_operator, _read_operator),
    "model": _Rules(is_model_class, _write_model, _read_model),
    "named tuple": _Rules(_is_named_tuple, _write_named, _read_named),
    "dataclass": _Rules(_is_dataclass, _write_dataclass, _read_dataclass),
}
