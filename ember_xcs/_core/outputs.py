"""Abstract types: what an operator declares to return, and what came back.

============================================================== ==========================
returns                                                        is
============================================================== ==========================
``float``, ``int``, ``bool``, ``complex``                      a rank-0 array of that kind
``out=``, ``Annotated[jax.Array, ShapeDtypeStruct(...)]``,      that array
a jaxtyping annotation with fixed dimensions
a pydantic model, dataclass, ``NamedTuple``, ``TypedDict``     a tree of its fields
anything else, or nothing                                      one host value
============================================================== ==========================
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ember_xcs._core.arguments import is_abstract, summary, validation_problems
from ember_xcs._core.operator_class import is_operator_class
from ember_xcs._core.pydantic_models import is_model_class, validation_errors
from ember_xcs._core.records import is_plain_tree, make_record, register_record
from ember_xcs._core.signature import Unresolved, record_fields
from ember_xcs.errors import OperatorOutputError

__all__ = ["HOST", "ArrayType", "OutputType", "RecordType", "output_type"]

_NUMBERS = (float, int, bool, complex)


class _Host:
    """The type of a value that JAX does not see."""

    def __repr__(self) -> str:
        return "host"


HOST = _Host()


@dataclasses.dataclass(frozen=True, slots=True)
class ArrayType:
    """An array of known shape; ``number`` is the Python type where it was declared as one."""

    shape: tuple[int, ...]
    dtype: Any
    number: type | None = None

    @property
    def struct(self) -> jax.ShapeDtypeStruct:
        """The same for JAX, in the precision that JAX is set to."""
        return _struct(self, jax.config.jax_enable_x64)  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return self.number.__name__ if self.number else f"{self.dtype}{list(self.shape)}"


@functools.lru_cache(maxsize=4096)
def _struct(kind: ArrayType, _is_x64: bool) -> jax.ShapeDtypeStruct:
    dtype = jnp.result_type(kind.number) if kind.number else kind.dtype
    return jax.ShapeDtypeStruct(kind.shape, jax.dtypes.canonicalize_dtype(dtype))


@dataclasses.dataclass(frozen=True, slots=True)
class RecordType:
    """A record class with the types of its fields."""

    cls: type
    fields: tuple[tuple[str, Any], ...]

    def __repr__(self) -> str:
        return self.cls.__name__

    def template(self) -> Any:
        """Returns a record that holds the types of its fields."""
        values = {name: _template(kind) for name, kind in self.fields}
        return values if typing.is_typeddict(self.cls) else make_record(self.cls, values)


def _template(kind: Any) -> Any:
    return jax.tree.map(lambda k: k.template() if isinstance(k, RecordType) else k, kind)


_LEAF: Any = jax.tree.structure(0)


class OutputType:
    """What an operator declares to return.

    Attributes:
        kind: An ``ArrayType``, a ``RecordType``, ``HOST``, or a tree of arrays from ``out=``.
        spec: A pydantic model that a mapping result is validated against, or None.
    """

    __slots__ = ("_trivial", "kind", "leaves", "spec", "structure")

    def __init__(self, kind: Any, spec: type | None = None) -> None:
        self.kind, self.spec = kind, spec
        self.leaves: list[Any]
        self.structure: Any
        self.leaves, self.structure = jax.tree.flatten(_template(kind))
        self._trivial = kind is HOST and spec is None

    @property
    def is_leaf(self) -> bool:
        """Whether it is one array, number or host value, and not a tree of them."""
        return self.spec is None and self.structure == _LEAF

    @property
    def is_host(self) -> bool:
        """Whether it is one host value, with nothing to check."""
        return self._trivial

    def validated(self, value: Any, operator: str) -> Any:
        """Returns what a plain call returns: ``value``, checked and, for models, coerced.

        Raises:
            OperatorOutputError: It is not what ``operator`` declares.
        """
        if self._trivial:
            return value
        if self.spec is not None:
            return _spec_validated(value, self.spec, operator)
        return _checked(value, self.kind, operator)

    def split(self, value: Any, operator: str) -> list[Any]:
        """Returns the leaves of a checked value, numbers and arrays as numpy arrays."""
        try:
            leaves = self.structure.flatten_up_to(value)
        except ValueError as error:
            raise _not_the_declared_class(operator, self.kind, value) from error
        return [
            leaf if kind is HOST else np.asarray(leaf, kind.struct.dtype)
            for leaf, kind in zip(leaves, self.leaves, strict=True)
        ]

    def __repr__(self) -> str:
        return f"OutputType({self.kind!r})"


def output_type(returns: Any, *, out: Any = None, spec: type | None = None) -> OutputType:
    """Returns the abstract type of a return annotation, or of ``out`` where that is given.

    Args:
        returns: The resolved return annotation.
        out: A ``jax.ShapeDtypeStruct``, a type of the table, or a tree of these.
        spec: The ``output_spec`` of the operator.

    Raises:
        TypeError: The annotation, or one in the record that it names, cannot be resolved.
    """
    if out is not None:
        is_leaf = lambda node: isinstance(node, type)  # noqa: E731
        return OutputType(jax.tree.map(_leaf_type, out, is_leaf=is_leaf), spec)
    return OutputType(_annotated_type(returns), spec)


def _leaf_type(declared: Any) -> Any:
    if isinstance(declared, jax.ShapeDtypeStruct):
        return ArrayType(declared.shape, declared.dtype)
    if hasattr(declared, "shape") and hasattr(declared, "dtype"):
        return ArrayType(tuple(declared.shape), declared.dtype)
    return _annotated_type(declared)


def _annotated_type(annotation: Any) -> Any:
    if isinstance(annotation, Unresolved):
        raise annotation.error()
    if typing.get_origin(annotation) is typing.Annotated:
        base, *notes = typing.get_args(annotation)
        structs = [note for note in notes if isinstance(note, jax.ShapeDtypeStruct)]
        return _leaf_type(structs[0]) if structs else _annotated_type(base)
    if annotation in _NUMBERS:
        return ArrayType((), jnp.result_type(annotation), number=annotation)
    return _record_type(annotation) or _jaxtyping(annotation) or HOST


def _record_type(annotation: Any) -> RecordType | None:
    """Returns the type of a record, unless its fields are not all that JAX would see of it."""
    fields = record_fields(annotation)
    if fields is None or is_operator_class(annotation):
        return None
    if typing.is_typeddict(annotation):
        if _optional_keys(annotation, fields):
            return None
    else:
        register_record(annotation)
        if not is_plain_tree(annotation):
            return None
    types = ((name, _annotated_type(_without_qualifier(hint))) for name, hint in fields.items())
    return RecordType(annotation, tuple(types))


def _optional_keys(typed_dict: Any, fields: Mapping[str, Any]) -> bool:
    """Whether some keys may be missing; string annotations hide it from ``typing``."""
    not_required = any(typing.get_origin(hint) is typing.NotRequired for hint in fields.values())
    return not_required or not typed_dict.__required_keys__ >= fields.keys()


def _without_qualifier(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Required else hint


def _jaxtyping(annotation: Any) -> ArrayType | None:
    """Returns the type of a jaxtyping annotation whose dimensions are all numbers."""
    dimensions, dtypes = getattr(annotation, "dim_str", None), getattr(annotation, "dtypes", None)
    if not isinstance(dimensions, str) or not isinstance(dtypes, list | tuple):
        return None
    sizes = dimensions.split()
    if not all(size.isdigit() for size in sizes):
        return None
    shape = tuple(map(int, sizes))
    if len(dtypes) == 1:
        return ArrayType(shape, np.dtype(dtypes[0]))
    for number in (float, int, bool, complex):
        if str(jnp.result_type(number)) in dtypes:
            return ArrayType(shape, jnp.result_type(number))
    return None


def _checked(value: Any, kind: Any, operator: str) -> Any:
    if kind is HOST:
        return value
    if isinstance(kind, ArrayType):
        _check_array(value, kind, operator)
        return value
    if isinstance(kind, RecordType):
        return _checked_record(value, kind, operator)
    try:
        leaves = jax.tree.structure(kind).flatten_up_to(value)  # type: ignore[attr-defined]
    except ValueError:
        raise _mismatch(operator, kind, value) from None
    for leaf, part in zip(leaves, jax.tree.leaves(kind), strict=True):
        _checked(leaf, part, operator)
    return value


def _check_array(value: Any, kind: ArrayType, operator: str) -> None:
    if kind.number is not None and type(value) is kind.number:
        return
    if not isinstance(value, jax.Array | np.ndarray | np.generic | float | int | complex):
        raise _mismatch(operator, kind, value)
    declared = np.dtype(kind.dtype)
    given = value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype
    if np.shape(value) != kind.shape or not _fits(given, declared):
        raise _mismatch(operator, kind, value)


def _fits(given: Any, declared: Any) -> bool:
    """Whether a dtype is of the declared kind, or of one that turns into it without loss."""
    kinds = (np.bool_, np.integer, np.floating, np.complexfloating)

    def rank(dtype: Any) -> int | None:
        return next((k for k, kind in enumerate(kinds) if jnp.issubdtype(dtype, kind)), None)

    low, high = rank(given), rank(declared)
    if low is None or high is None:
        return bool(given == declared)
    return low == high or (0 < low < high)


def _checked_record(value: Any, kind: RecordType, operator: str) -> Any:
    if is_model_class(kind.cls) and isinstance(value, Mapping):
        value = _model_from(value, kind.cls, operator)
    if typing.is_typeddict(kind.cls):
        return _checked_typed_dict(value, kind, operator)
    if not isinstance(value, kind.cls):
        raise _mismatch(operator, kind, value)
    for name, part in kind.fields:
        _checked(getattr(value, name), part, f"{operator}.{name}")
    return value


def _checked_typed_dict(value: Any, kind: RecordType, operator: str) -> Any:
    if not isinstance(value, Mapping) or value.keys() != {name for name, _ in kind.fields}:
        raise _mismatch(operator, kind, value)
    for name, part in kind.fields:
        _checked(value[name], part, f"{operator}.{name}")
    return value


def _model_from(value: Mapping[str, Any], cls: Any, operator: str) -> Any:
    if is_abstract(value) and value.keys() == cls.model_fields.keys():
        return make_record(cls, dict(value))
    return _validated_model(value, cls, operator)


def _spec_validated(value: Any, spec: Any, operator: str) -> Any:
    """Returns what ``output_spec`` makes of a result; of one not known yet, the result."""
    if is_abstract(value):
        return value
    model = _validated_model(value, spec, operator)
    if not isinstance(value, Mapping):
        return model
    return {name: getattr(model, name) for name in spec.model_fields}


def _validated_model(value: Any, spec: Any, operator: str) -> Any:
    try:
        return spec.model_validate(value)
    except validation_errors() as error:
        raise OperatorOutputError(
            f"operator {operator!r} declares to return {spec.__name__} and returned "
            f"{summary(value)}: {validation_problems(error)}."
        ) from None


def _not_the_declared_class(operator: str, kind: Any, value: Any) -> OperatorOutputError:
    return OperatorOutputError(
        f"operator {operator!r} declares to return {kind!r} and returned {summary(value)}, whose "
        "fields need not be the same; where operators are staged, the result has the declared "
        f"fields and no others. Return a {kind!r}, or declare Any."
    )


def _mismatch(operator: str, kind: Any, value: Any) -> OperatorOutputError:
    return OperatorOutputError(
        f"operator {operator!r} declares to return {kind!r} and returned {summary(value)}. "
        f"Return what is declared, or change the declaration (the return annotation, or out=)."
    )
