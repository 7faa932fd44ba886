"""The results of the elements of a batch, put together as one tree of batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ember_xcs._core.arguments import summary
from ember_xcs._core.layout import same_value
from ember_xcs._core.operator import HostOperator
from ember_xcs._core.outputs import HOST, OutputType
from ember_xcs._trace.dict_order import InOrder, keeping_order
from ember_xcs._transforms.batches import is_axis
from ember_xcs.errors import TransformError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["joined"]


def joined(name: str, function: Any, results: Sequence[Any], out_axes: Any = 0) -> Any:
    """Returns the results of all elements as one tree, like the tree of one of them.

    Arrays are stacked; anything else comes in a list. Of a host operator, what it declares to be a
    number or an array is stacked, as where its calls are staged, and each other result is one value
    in a list. Lists are values: a function may well return lists of different lengths.

    Args:
        name: The function's name, for messages.
        function: What was called.
        results: What it returned, in order; exceptions stand for elements that failed, and where
            one is returned in parts all stay in a list.
        out_axes: As in ``jax.vmap``.

    Raises:
        TransformError: The results have not all the same structure, or do not fit ``out_axes``.
    """
    structure: Any
    good = [result for result in results if not isinstance(result, Exception)]
    declared = function.output_type if isinstance(function, HostOperator) else None
    if declared is not None:
        rows, structure = _declared_rows(name, declared, results)
        kinds: Sequence[Any] = declared.leaves
    else:
        structure = jax.tree.structure(_ordered(good[0]), is_leaf=_is_value) if good else _LEAF
        rows = [_row(name, structure, result, k) for k, result in enumerate(results)]
        kinds = [None] * structure.num_leaves
    whole = len(good) == len(results)
    if not whole and structure != _LEAF:  # an exception stands for a whole result, not in parts
        return list(results)
    columns = list(zip(*rows, strict=True)) if rows else [()] * structure.num_leaves
    axes = _leaf_axes(name, structure, out_axes)
    return structure.unflatten(
        [
            _column(name, column, kind, axis, whole)
            for column, kind, axis in zip(columns, kinds, axes, strict=True)
        ]
    )


_LEAF = jax.tree.structure(0)


def _is_value(value: Any) -> bool:
    """Whether a result is no tree: all but dicts and tuples are values of their own."""
    return not isinstance(value, dict | tuple | InOrder)


def _ordered(value: Any) -> Any:
    return keeping_order(value, _is_value)


def _declared_rows(
    name: str, declared: OutputType, results: Sequence[Any]
) -> tuple[list[list[Any]], Any]:
    count = len(declared.leaves)
    rows = [
        [result] * count if isinstance(result, Exception) else declared.split(result, name)
        for result in results
    ]
    return rows, declared.structure


def _row(name: str, structure: Any, result: Any, index: int) -> list[Any]:
    """The leaves of one result; the exception in each place if it is one."""
    if isinstance(result, Exception):
        return [result] * structure.num_leaves
    found: Any
    leaves, found = jax.tree.flatten(_ordered(result), is_leaf=_is_value)
    if bool(found != structure) and not _same_keys(found, structure):
        raise TransformError(
            f"the results of {name} do not match in structure: element 0 gave {structure}, and "
            f"element {index} gave {summary(result)}, which is {found}. Return the same structure "
            "for every element, or an object that is no tree of dicts and tuples, such as a list."
        )
    return list(structure.flatten_up_to(result)) if found != structure else leaves


def _same_keys(one: Any, other: Any) -> bool:
    """Whether two trees differ in the order of their keys alone."""
    plain: list[Any] = [jax.tree.structure(t.unflatten([0] * t.num_leaves)) for t in (one, other)]
    return bool(plain[0] == plain[1])


def _leaf_axes(name: str, structure: Any, out_axes: Any) -> list[int | None]:
    """The axis of each leaf, from a prefix of the tree."""
    spec: Any
    spec_leaves, spec = jax.tree.flatten(out_axes, is_leaf=is_axis)
    try:
        parts = spec.flatten_up_to(structure.unflatten([0] * structure.num_leaves))
    except ValueError as error:
        raise TransformError(
            f"out_axes={out_axes!r} does not fit the results of {name}, which are {structure}: "
            f"{error}"
        ) from None
    counts = [len(jax.tree.leaves(part)) for part in parts]
    return [axis for axis, n in zip(spec_leaves, counts, strict=True) for _ in range(n)]


def _column(name: str, column: Sequence[Any], kind: Any, axis: int | None, whole: bool) -> Any:
    if axis is None:
        return _shared(name, column)
    if kind is HOST or (kind is None and not _are_arrays(column)):
        return _listed(name, column, axis)
    if not whole:  # an array has no place for an exception
        return list(column)
    if not column:
        return jnp.zeros((0, *kind.struct.shape), kind.struct.dtype)
    if not -np.ndim(column[0]) - 1 <= axis <= np.ndim(column[0]):
        raise TransformError(
            f"out_axes has {axis} for a result of {name} that is {summary(column[0])} for each "
            f"element: stacked it has {np.ndim(column[0]) + 1} axes."
        )
    if kind is not None or any(isinstance(value, jax.Array) for value in column):
        return jnp.stack([jnp.asarray(value) for value in column], axis)
    return np.stack(column, axis)


def _are_arrays(column: Sequence[Any]) -> bool:
    """Whether the results are arrays of one shape."""
    arrays = [v for v in column if isinstance(v, jax.Array | np.ndarray)]
    return bool(arrays) and len(arrays) == len(column) and len({a.shape for a in arrays}) == 1


def _listed(name: str, column: Sequence[Any], axis: int) -> list[Any]:
    if axis != 0:
        raise TransformError(
            f"out_axes has {axis} for a result of {name} that is no array "
            f"({summary(column[0]) if column else 'none'}): a list has axis 0 alone."
        )
    return list(column)


def _shared(name: str, column: Sequence[Any]) -> Any:
    if not column:
        raise TransformError(
            f"out_axes has None for a result of {name}, which no element gave: the batch is empty."
        )
    for k, value in enumerate(column):
        if not _equal(value, column[0]):
            raise TransformError(
                f"out_axes has None for a result of {name}, which is then the same for all "
                f"elements, and element {k} differs from element 0. Give the axis in out_axes."
            )
    return column[0]


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, jax.Array | np.ndarray):
        return np.shape(one) == np.shape(other) and bool(np.array_equal(one, other))
    return same_value(one, other)
