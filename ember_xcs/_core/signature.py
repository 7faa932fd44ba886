"""What an operator takes and gives: its input fields and its output fields."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
import typing
import weakref
from collections.abc import Callable
from typing import Any

__all__ = ["Field", "Signature", "Unresolved", "callable_signature", "record_fields"]

_EMPTY = inspect.Parameter.empty


@dataclasses.dataclass(frozen=True, slots=True)
class Unresolved:
    """A string annotation that names nothing that can be found from where it stands.

    On a parameter it counts as none: a type that only type checkers import is no reason to refuse a
    function. Where it says what an operator returns, nobody can go on without it.

    Attributes:
        text: The annotation.
        owner: The function or class that it stands in.
        reason: Why it cannot be resolved.
    """

    text: str
    owner: str
    reason: str

    def error(self) -> TypeError:
        """Returns the error for an operator whose result depends on it."""
        return TypeError(
            f"{self.owner!r} is annotated {self.text!r}, which cannot be resolved ({self.reason}). "
            "What an operator returns decides how it is staged, so its type must be there when it "
            "is first used. Import the type outside `if TYPE_CHECKING:` or define it at the top of "
            "its module; or say what is returned with out=; or annotate Any, for a value that JAX "
            "does not see."
        )


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
    """Annotations, resolved where they can be."""
    if isinstance(thing, type) and thing in _class_hints:
        return dict(_class_hints[thing])
    try:
        hints = typing.get_type_hints(thing, include_extras=True)
        if isinstance(thing, type):
            _class_hints[thing] = hints
        return dict(hints)
    except (NameError, TypeError, AttributeError, SyntaxError):
        parts = reversed(thing.__mro__) if isinstance(thing, type) else [thing]
        return {name: hint for part in parts for name, hint in _one_by_one(part).items()}


def _one_by_one(thing: Any) -> dict[str, Any]:
    """The annotations of one function or class, of which some cannot be resolved."""
    raw = vars(thing) if isinstance(thing, type) else {}
    raw = raw.get("__annotations__") or getattr(thing, "__annotations__", None) or {}
    module = sys.modules.get(getattr(thing, "__module__", None) or "")
    names = getattr(inspect.unwrap(thing), "__globals__", None) or getattr(module, "__dict__", {})
    owner = getattr(thing, "__qualname__", repr(thing))
    return {name: _resolved(hint, names, owner) for name, hint in raw.items()}


def _resolved(hint: Any, names: dict[str, Any], owner: str) -> Any:
    alone = types.SimpleNamespace(__annotations__={"hint": hint})
    try:
        return typing.get_type_hints(alone, names, include_extras=True)["hint"]
    except (NameError, TypeError, AttributeError, SyntaxError) as error:
        return Unresolved(str(hint), owner, f"{type(error).__name__}: {error}")
