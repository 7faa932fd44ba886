"""Classes whose instances are stored, and whether two values are the same in type and content."""

from __future__ import annotations

import dataclasses
import enum
import functools
import struct
from typing import Any, NamedTuple

import jax
import numpy as np
import pydantic

import ember_xcs as xcs


class Colour(enum.Enum):
    RED = "red"
    BLUE = 2


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Pair(NamedTuple):
    first: Any
    second: Any = 0


@dataclasses.dataclass(frozen=True)
class Point:
    x: Any
    y: Any = 0

    def __post_init__(self) -> None:
        if isinstance(self.x, str) and self.x == "forbidden":
            raise AssertionError("the constructor ran")

    @functools.cached_property
    def total(self) -> Any:
        return self.x


@dataclasses.dataclass(slots=True)
class Slotted:
    a: Any


class Answer(pydantic.BaseModel):
    text: str
    parts: list[Any] = []
    _hidden: int = 3


class Open(pydantic.BaseModel, extra="allow"):
    a: int = 1


class Scale(xcs.Operator):
    factor: Any

    def forward(self, x: Any) -> Any:
        return self.factor * x


def same(one: Any, other: Any) -> bool:
    """Whether two values have the same types and contents, bit by bit."""
    if type(one) is not type(other):
        return False
    for kinds, compare in _COMPARISONS:
        if isinstance(one, kinds):
            return compare(one, other)
    if dataclasses.is_dataclass(one):
        names = [field.name for field in dataclasses.fields(one)]
        return all(same(getattr(one, n), getattr(other, n)) for n in names)
    return bool(one == other)


def _same_jax(one: jax.Array, other: jax.Array) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if jax.dtypes.issubdtype(one.dtype, jax.dtypes.prng_key):
        return _same_jax(jax.random.key_data(one), jax.random.key_data(other))
    return one.weak_type == other.weak_type and same(np.asarray(one), np.asarray(other))


def _same_array(one: np.ndarray, other: np.ndarray) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype.hasobject or one.dtype.kind == "T":
        return same(one.tolist(), other.tolist())
    return _bits(one) == _bits(other)


def _bits(array: np.ndarray) -> bytes:
    return array.tobytes() if array.dtype.char not in "gG" else repr(array.tolist()).encode()


_COMPARISONS = (
    (jax.Array, _same_jax),
    (np.ndarray, _same_array),
    (np.generic, lambda one, other: _same_array(np.asarray(one), np.asarray(other))),
    (float, lambda one, other: struct.pack("d", one) == struct.pack("d", other)),
    (complex, lambda one, other: same((one.real, one.imag), (other.real, other.imag))),
    (dict, lambda one, other: same(list(one.items()), list(other.items()))),
    (list | tuple, lambda one, other: len(one) == len(other) and all(map(same, one, other))),
)
