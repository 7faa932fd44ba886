"""Symbols: what stands for a value while the structure of a program is recorded.

A symbol says where a value will come from: an input, or the output of an operator call, and the
path from there to the part that is meant. It can be passed to operators, put into containers,
picked from and returned. Everything else that Python could do with a value would need the
value, so it raises a ``TracingError``; ``isinstance`` too, since any answer might be wrong.

What Python does not let an object see goes unnoticed: ``symbol is None`` is false.
"""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import jax
import numpy as np

from ember_xcs._core.convert import element_annotation
from ember_xcs._core.outputs import RecordType
from ember_xcs._core.plumbing import Step, path_text
from ember_xcs._core.signature import record_fields
from ember_xcs._trace.user_line import user_line
from ember_xcs.errors import TracingError

if TYPE_CHECKING:
    from ember_xcs._core.operator import Operator
    from ember_xcs._graph import XCSNode

__all__ = [
    "Origin",
    "Recording",
    "Symbol",
    "SymbolAttributeError",
    "declared_annotation",
    "describe",
    "is_symbol",
    "origin_of",
    "refusal",
]

REMEDY = (
    "move it into a @pure function (arrays) or a @host function (anything else), or use "
    "mode='trace' for arithmetic on arrays, mode='enhanced' for plain Python"
)
_ARRAY_LIBRARIES = tuple(str(Path(module.__file__ or "").parent) for module in (jax, np))
_ARRAY_PROBES = frozenset({"aval", "dtype", "ndim", "shape", "sharding", "size", "weak_type"})


class SymbolAttributeError(TracingError, AttributeError):
    """Raised when a symbol is asked for an attribute that its value cannot have."""


class Recording(Protocol):
    """What a symbol belongs to."""

    @property
    def is_open(self) -> bool:
        """Whether it is still under way."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """Where the value of a symbol will come from.

    Attributes:
        recording: What the symbol belongs to.
        source: A node, or the name of an input.
        path: From the source's value to the part that is meant.
        annotation: The declared type of that part, ``typing.Any`` where there is none.
    """

    recording: Recording
    source: XCSNode | str
    path: tuple[Step, ...] = ()
    annotation: Any = Any

    def step(self, step: Step) -> Symbol:
        """Returns the symbol of a part."""
        inner = self._annotation_at(step)
        return Symbol(Origin(self.recording, self.source, (*self.path, step), inner))

    def _annotation_at(self, step: Step) -> Any:
        kind, key = step
        if kind == "attribute":
            return (record_fields(self.annotation) or {}).get(key, Any)
        return element_annotation(self.annotation)(key) if isinstance(key, str | int) else Any


class Symbol:
    """Stands for a value that is not known yet, in a program whose structure is recorded."""

    __slots__ = ("_xcs_origin",)
    _xcs_origin: Origin

    def __init__(self, origin: Origin) -> None:
        object.__setattr__(self, "_xcs_origin", origin)

    def __getattr__(self, name: str) -> Symbol:
        """Returns the symbol of a field.

        Raises:
            SymbolAttributeError: The name is private, or the declared type has no such field.
        """
        if name.startswith("__"):
            raise AttributeError(name)
        origin = origin_of(self)
        if name.startswith("_") or not _may_have(origin.annotation, name):
            raise _no_attribute(origin, name)
        _check_open(self, f"its field {name!r}")
        return origin.step(("attribute", name))

    def __getitem__(self, key: Any) -> Symbol:
        """Returns the symbol of an item.

        Raises:
            TracingError: The key is a symbol itself.
        """
        _check_open(self, "an item")
        if type(key) is Symbol:
            raise refusal(key, "its use as an index")
        return origin_of(self).step(("item", key))

    def __iter__(self) -> Iterator[Symbol]:
        """Yields the symbols of the items, where the declared type says how many there are.

        Raises:
            TracingError: It does not say so.
        """
        _check_open(self, "iteration")
        count = _declared_length(origin_of(self).annotation)
        if count is None:
            raise refusal(
                self,
                "iteration or unpacking",
                "declare its length (let the operator return tuple[str, float] or a NamedTuple), "
                "pick items by index, or loop in a @host function",
            )
        return iter([self[k] for k in range(count)])

    def __len__(self) -> int:
        """Returns how many items there are, where the declared type says so."""
        _check_open(self, "len()")
        count = _declared_length(origin_of(self).annotation)
        if count is None:
            raise refusal(self, "len()", "take it in a @host function that returns int")
        return count

    def __bool__(self) -> bool:
        """Raises: the value is not known yet."""
        raise refusal(self, "its truth (if, while, and, or, not)")

    def __await__(self) -> Generator[None, None, Symbol]:
        """Returns the symbol itself: an ``async def`` operator is recorded like any other."""
        yield from ()
        return self

    @property  # type: ignore[misc]  # it is never set
    def __class__(self) -> Any:
        """Raises: any type that a symbol said it has might be wrong."""
        if _asked_by_array_library():
            raise _used_as_array(self)
        raise refusal(self, "its type (isinstance)")

    @property
    def __jax_array__(self) -> NoReturn:
        raise _used_as_array(self)

    @property
    def __array_interface__(self) -> NoReturn:
        raise _used_as_array(self)

    def __array__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Raises: the value is not known yet."""
        raise _used_as_array(self)

    def __array_ufunc__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Raises: the value is not known yet."""
        raise _used_as_array(self)

    def __array_function__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Raises: the value is not known yet."""
        raise _used_as_array(self)

    def __call__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Raises: only operators can be called."""
        path = origin_of(self).path
        method = f"the method {path[-1][1]!r} of it" if path else "it"
        raise refusal(self, f"a call of {method}")

    def __str__(self) -> str:
        if _asked_by_array_library():
            raise _used_as_array(self)
        raise refusal(self, "its text", "build text with xcs.Template or in a @host function")

    def __format__(self, _spec: str) -> str:
        """Raises: the value is not known yet."""
        if _asked_by_array_library():
            raise _used_as_array(self)
        raise refusal(self, "its text", "build text with xcs.Template or in a @host function")

    def __repr__(self) -> str:
        return f"<symbol: {describe(self)}>"

    def __setattr__(self, name: str, _value: Any) -> NoReturn:
        """Raises: values are not changed in place."""
        raise refusal(self, f"setting its field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        """Raises: values are not changed in place."""
        raise refusal(self, f"deleting its field {name!r}")

    def __reduce_ex__(self, _protocol: Any) -> NoReturn:
        """Raises: a symbol means nothing outside its recording."""
        raise refusal(self, "a copy or pickle of it")


def is_symbol(value: Any) -> bool:
    """Whether a value is a symbol; unlike ``isinstance``, this never raises."""
    return type(value) is Symbol


def origin_of(symbol: Symbol) -> Origin:
    """Returns where the value of a symbol will come from."""
    return symbol._xcs_origin  # noqa: SLF001  (no public name, as fields of values need them all)


def describe(symbol: Symbol) -> str:
    """Returns what a symbol stands for: ``the output of 'judge'.score``."""
    origin = origin_of(symbol)
    source = origin.source
    if type(source) is str:
        return f"the input {source!r}{path_text(origin.path)}"
    return f"the output of {typing.cast('XCSNode', source).id!r}{path_text(origin.path)}"


def refusal(symbol: Symbol, what: str, remedy: str = REMEDY) -> TracingError:
    """Returns the error for a use of a symbol that would need its value."""
    if not origin_of(symbol).recording.is_open:
        return _leaked(symbol, what)
    return TracingError(
        f"{_given(symbol, what)} Between operator calls, a recorded program may pass values on, "
        f"put them into containers, pick fields from them and return them. To mend it: {remedy}.",
        user_line(),
    )


def _given(symbol: Symbol, what: str) -> str:
    return (
        f"{what} was asked of {describe(symbol)} while the structure of the program was being "
        "recorded, when no value is known yet."
    )


def _leaked(symbol: Symbol, what: str) -> TracingError:
    return TracingError(
        f"{what} was asked of {describe(symbol)} after the recording that it belongs to had ended. "
        "A symbol has no value, and means something only while its program is recorded. To mend "
        "it: return the value from the function, rather than storing it elsewhere (in a global, "
        "an object, a closure), and pass what an operator needs as an argument.",
        user_line(),
    )


def _check_open(symbol: Symbol, what: str) -> None:
    if not origin_of(symbol).recording.is_open:
        raise _leaked(symbol, what)


def _used_as_array(symbol: Symbol) -> TracingError:
    return refusal(
        symbol,
        "its use as an array (by jax.numpy, numpy or an operation with an array)",
        "move the numeric code into a @pure function, or use mode='trace'",
    )


def _asked_by_array_library() -> bool:
    asking = sys._getframe(2).f_code.co_filename  # noqa: SLF001  (inspect.stack reads every file)
    return asking.startswith(_ARRAY_LIBRARIES)


def _no_attribute(origin: Origin, name: str) -> SymbolAttributeError:
    symbol = Symbol(origin)
    fields = record_fields(origin.annotation)
    known = f" Its declared fields are {', '.join(map(repr, fields))}." if fields else ""
    remedy = (
        "move the numeric code into a @pure function, or use mode='trace'"
        if name in _ARRAY_PROBES
        else "correct the name, or declare the field in what the operator returns"
    )
    given = _given(symbol, f"the attribute {name!r}")
    return SymbolAttributeError(
        f"{given} It is no field of such a value.{known} To mend it: {remedy}.", user_line()
    )


def _may_have(annotation: Any, name: str) -> bool:
    """Whether a value of a declared type may have an attribute."""
    fields = record_fields(annotation)
    if fields is None or typing.is_typeddict(annotation):
        return name not in _ARRAY_PROBES
    return name in fields or hasattr(annotation, name)


def _declared_length(annotation: Any) -> int | None:
    """How many items a value of a declared type has when it is iterated over."""
    if isinstance(annotation, type) and issubclass(annotation, tuple):
        return len(annotation._fields) if hasattr(annotation, "_fields") else None
    args = typing.get_args(annotation)
    if typing.get_origin(annotation) is tuple and Ellipsis not in args:
        return len(args)
    return None


def declared_annotation(operator: Operator) -> Any:
    """Returns the declared type of an operator's output; ``out=`` comes before the annotation."""
    kind = operator.output_type.kind
    if isinstance(kind, RecordType | Mapping | Sequence):
        return _annotation_of(kind)
    return operator.signature.returns


def _annotation_of(kind: Any) -> Any:
    if isinstance(kind, RecordType):
        return kind.cls
    if isinstance(kind, Mapping):
        return dict[str, Any]
    if isinstance(kind, tuple) and type(kind) is tuple:
        return tuple[tuple(map(_annotation_of, kind))]  # type: ignore[misc]
    return list[Any] if isinstance(kind, list) else Any


def _refusing(operation: str) -> Any:
    def method(self: Symbol, *_others: Any) -> NoReturn:
        raise refusal(self, operation if " " in operation else f"`{operation}`")

    return method


for _name, _operation in {
    "add": "+", "sub": "-", "mul": "*", "truediv": "/", "floordiv": "//", "mod": "%", "pow": "**",
    "matmul": "@", "and": "&", "or": "|", "xor": "^", "lshift": "<<", "rshift": ">>",
    "divmod": "divmod()",
}.items():  # fmt: skip
    for _prefix in ("", "r", "i"):
        setattr(Symbol, f"__{_prefix}{_name}__", _refusing(_operation))

for _name, _operation in {
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
    "hash": "its hash (a key of a dict, an item of "
    "a set)", "contains": "in", "reversed": "reversed()", "next": "next()",
    "neg": "-", "pos": "+", "invert": "~", "abs": "abs()", "round": "round()", "int": "int()",
    "float": "float()", "complex": "complex()", "index": "its use as an index", "bytes": "bytes()",
    "fspath": "its use as a path", "enter": "with", "aenter": "async with", "aiter": "async for",
    "setitem": "setting an item", "delitem": "deleting an item", "dir": "dir()",
    "trunc": "math.trunc()", "floor": "math.floor()", "ceil": "math.ceil()",
}.items():  # fmt: skip
    setattr(Symbol, f"__{_name}__", _refusing(_operation))
