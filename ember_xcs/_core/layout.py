"""How an operator splits into what JAX sees (arrays) and what it does not (the rest).

The split is decided once, from the values that an instance is made with, and it stays with every
copy that JAX makes of it: a tree of gradients, shapes or axis numbers in the form of an
operator has the structure of that operator.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Layout", "is_array", "layout_of", "same_value"]

_PLAIN = (str, bytes, bool, int, float, complex, type(None))


def is_array(value: Any) -> bool:
    """Whether JAX takes ``value`` for an array, concrete or abstract."""
    return isinstance(value, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct)


def same_value(one: Any, other: Any) -> bool:
    """Whether two static values are interchangeable; values that cannot be compared are not.

    ``1``, ``1.0`` and ``True`` are not, nor are ``0.0`` and ``-0.0``: a program compiled for one of
    them would give another's results.
    """
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same_value, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_value(v, other[k]) for k, v in one.items())
    if isinstance(one, float):
        return one == other and math.copysign(1.0, one) == math.copysign(1.0, other)
    if isinstance(one, np.ndarray | np.generic | jax.Array):
        return _same_array(one, other)
    try:
        return bool(one == other)
    except (TypeError, ValueError):  # such as objects that compare elementwise
        return False


def _same_array(one: Any, other: Any) -> bool:
    """Whether two arrays have the same shape, dtype and contents, bit by bit."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if isinstance(one, jax.core.Tracer) or isinstance(other, jax.core.Tracer):
        return False
    if jnp.issubdtype(one.dtype, jax.dtypes.extended):
        one, other = jax.random.key_data(one), jax.random.key_data(other)
    one, other = np.asarray(one), np.asarray(other)
    if one.dtype.hasobject:
        return all(map(same_value, one.ravel().tolist(), other.ravel().tolist()))
    return bool(one.tobytes() == other.tobytes())


class Layout:
    """Which fields of an operator are trees of arrays, mixed trees, or static.

    Attributes:
        whole: Fields whose leaves are all arrays or operators.
        mixed: Fields with other leaves too: name, structure, for each leaf whether it is dynamic,
            and the leaves that are not.
        static: The other fields, with their values.
    """

    __slots__ = ("_hash", "mixed", "static", "whole")

    def __init__(
        self,
        whole: tuple[str, ...],
        mixed: tuple[tuple[str, Any, tuple[bool, ...], tuple[Any, ...]], ...],
        static: tuple[tuple[str, Any], ...],
    ) -> None:
        self.whole, self.mixed, self.static = whole, mixed, static
        hashes = tuple(_hash_or_type(value) for value in self._static_values())
        names = tuple(name for name, _ in static)
        shapes = tuple((name, _hash_or_type(tree), keep) for name, tree, keep, _ in mixed)
        self._hash = hash((whole, shapes, names, hashes))

    def _static_values(self) -> Iterator[Any]:
        for _, value in self.static:
            yield value
        for *_, values in self.mixed:
            yield from values

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return (
            isinstance(other, Layout)
            and self._hash == other._hash
            and self.whole == other.whole
            and [name for name, _ in self.static] == [name for name, _ in other.static]
            and tuple(m[:3] for m in self.mixed) == tuple(m[:3] for m in other.mixed)
            and all(map(same_value, self._static_values(), other._static_values()))
        )

    def __repr__(self) -> str:
        return f"Layout(arrays={self.whole}, static={dict(self.static)})"

    def flatten(self, fields: Mapping[str, Any]) -> list[Any]:
        """Returns the children: each whole field, then the dynamic leaves of each mixed one."""
        children = [fields[name] for name in self.whole]
        for name, structure, dynamic, _ in self.mixed:
            leaves = structure.flatten_up_to(fields[name])
            children.append([leaf for leaf, keep in zip(leaves, dynamic, strict=True) if keep])
        return children

    def keys(self) -> list[jax.tree_util.GetAttrKey]:
        """Returns the keys of the children, in their order."""
        names = [*self.whole, *(name for name, *_ in self.mixed)]
        return [jax.tree_util.GetAttrKey(name) for name in names]

    def unflatten(self, children: Sequence[Any]) -> dict[str, Any]:
        """Returns all fields from the children."""
        fields = dict(self.static)
        fields.update(zip(self.whole, children, strict=False))
        for (name, structure, dynamic, static), leaves in zip(
            self.mixed, children[len(self.whole) :], strict=True
        ):
            arrays, rest = iter(leaves), iter(static)
            merged = [next(arrays) if keep else next(rest) for keep in dynamic]
            fields[name] = structure.unflatten(merged)
        return fields


def layout_of(fields: Mapping[str, Any], is_branch: Any) -> Layout:
    """Returns the layout of an instance with these fields.

    Args:
        fields: The fields by name.
        is_branch: Says whether a value is an operator.
    """
    whole: list[str] = []
    mixed: list[tuple[str, Any, tuple[bool, ...], tuple[Any, ...]]] = []
    static: list[tuple[str, Any]] = []
    for name, value in fields.items():
        if isinstance(value, _PLAIN):
            static.append((name, value))
            continue
        leaves, structure = jax.tree.flatten(value, is_leaf=is_branch)
        dynamic = tuple(is_branch(leaf) or is_array(leaf) for leaf in leaves)
        if not any(dynamic):
            static.append((name, value))
        elif all(dynamic):
            whole.append(name)
        else:
            rest = tuple(v for v, keep in zip(leaves, dynamic, strict=True) if not keep)
            mixed.append((name, structure, dynamic, rest))
    return Layout(tuple(whole), tuple(mixed), tuple(static))


def _hash_or_type(value: Any) -> int:
    try:
        return hash(value)
    except TypeError:
        return hash(type(value))
