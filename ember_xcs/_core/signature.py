"""What an operator takes and gives: its input fields and its output fields."""

from __future__ import annotations

import dataclasses
import inspect
import typing
import weakref
from collections.abc import Callable
from typing import Any

__all__ = ["Field", "Signature", "callable_signature", "record_fields"]

_EMPTY = inspect.Parameter.empty


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """One input field of an operator.

    Attributes:
        name: The parameter's name; for ``inputs=`` style operators, the key.
        required: Whether a call without it is an error.
        annotation: Its resolved type, ``typing.Any`` where there is none.
        positional: Whether it can be passed by position.
    """

    name: str
    required: bool = True
    annotation: Any = Any
    positional: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Signature:
    """The input and output fields of an operator.

    Attributes:
        fields: The named inputs, in order.
        open: Whether further, undeclared input names are accepted.
        outputs: Names of the output fields where the output is a record or a
            declared mapping; None where the output is one value or is unknown.
        returns: The resolved return annotation, ``typing.Any`` where there is none.
        style: ``"arguments"``, or ``"inputs"`` for ``forward(self, *, inputs)``.
    """

    fields: tuple[Field, ...]
    open: bool = False
    outputs: tuple[str, ...] | None = None
    returns: Any = Any
    style: typing.Literal["arguments", "inputs"] = "arguments"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the input fields, in order."""
        return tuple(field.name for field in self.fields)

    def field(self, name: str) -> Field | None:
        """Returns the input field called ``name``, or None."""
        return next((field for field in self.fields if field.name == name), None)


def record_fields(annotation: Any) -> dict[str, Any] | None:
    """Returns the fields of a record type with their types, or None if it is none.

    Records are pydantic models, dataclasses, ``NamedTuple`` and ``TypedDict``.
    """
    if not isinstance(annotation, type):
        return None
    model_fields = getattr(annotation, "model_fields", None)
    if isinstance(model_fields, dict):
        return {name: _model_field_type(field) for name, field in model_fields.items()}
    if dataclasses.is_dataclass(annotation):
        hints = _hints(annotation)
        return {f.name: hints.get(f.name, Any) for f in dataclasses.fields(annotation)}
    if typing.is_typeddict(annotation):
        return _hints(annotation)
    if issubclass(annotation, tuple) and hasattr(annotation, "_fields"):
        hints = _hints(annotation)
        return {name: hints.get(name, Any) for name in annotation._fields}
    return None


def _model_field_type(field: Any) -> Any:
    """The type of a field of a pydantic model, with the notes that pydantic keeps beside it."""
    notes = tuple(field.metadata)
    return typing.Annotated[(field.annotation, *notes)] if notes else field.annotation


def callable_signature(function: Callable[..., Any], *, skip_first: bool = False) -> Signature:
    """Returns the signature of a function, with its annotations resolved.

    Args:
        function: What to inspect.
        skip_first: Whether its first parameter is ``self``.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some builtins have no signature
        return Signature((), open=True)
    hints = _hints(function)
    if skip_first:
        parameters = parameters[1:]
    returns = hints.get("return", Any)
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    is_open = len(named) < len(parameters)
    only = parameters[0] if len(parameters) == 1 else None
    if only is not None and only.name == "inputs" and only.kind is only.KEYWORD_ONLY:
        return Signature((), open=True, returns=returns, style="inputs")
    fields = tuple(
        Field(
            p.name,
            required=p.default is _EMPTY,
            annotation=hints.get(p.name, Any),
            positional=p.kind is not p.KEYWORD_ONLY,
        )
        for p in named
    )
    record = record_fields(returns)
    return Signature(fields, is_open, tuple(record) if record is not None else None, returns)


_class_hints: weakref.WeakKeyDictionary[type, dict[str, Any]] = weakref.WeakKeyDictionary()


def _hints(thing: Any) -> dict[str, Any]:
    """Resolved annotations; what cannot be resolved counts as not annotated."""
    if isinstance(thing, type) and thing in _class_hints:
        return dict(_class_hints[thing])
    try:
        hints = typing.get_type_hints(thing, include_extras=True)
        if isinstance(thing, type):
            _class_hints[thing] = hints
        return dict(hints)
    except (NameError, TypeError, AttributeError):
        raw = getattr(thing, "__annotations__", None) or {}
        return {name: hint for name, hint in raw.items() if not isinstance(hint, str)}
