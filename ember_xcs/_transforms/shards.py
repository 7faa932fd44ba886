"""Arguments cut into shards on the host, and results put together again."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ember_xcs._core.arguments import summary
from ember_xcs._core.layout import same_value
from ember_xcs._trace.dict_order import keeping_order
from ember_xcs._transforms.partition_spec import is_spec
from ember_xcs.errors import TransformError

__all__ = ["check_divides", "cut", "joined_shards", "mesh_axes", "names_of", "shard_indices"]

Index = Mapping[str, int]
"""Which shard: its position along each mesh axis, by name."""


def names_of(entry: Any) -> tuple[str, ...]:
    """Returns the mesh axes that an entry of a ``PartitionSpec`` names."""
    if entry is None:
        return ()
    return entry if isinstance(entry, tuple) else (entry,)


def mesh_axes(spec: Any) -> set[str]:
    """Returns the mesh axes that a ``PartitionSpec`` names."""
    return {name for entry in spec for name in names_of(entry)}


def shard_indices(axes: Sequence[str], sizes: Mapping[str, int]) -> Iterator[Index]:
    """Yields the index of every shard over these mesh axes, the last one fastest."""
    for index in itertools.product(*(range(sizes[name]) for name in axes)):
        yield dict(zip(axes, index, strict=True))


def check_divides(label: str, value: Any, spec: Any, sizes: Mapping[str, int]) -> None:
    """Checks that an argument can be cut by a spec.

    Raises:
        TransformError: It has too few axes, or one that does not divide.
    """
    shape = _shape(value)
    if len(spec) > len(shape):
        raise TransformError(
            f"{label} is {summary(value)}, with {len(shape)} axes, and its PartitionSpec "
            f"{tuple(spec)!r} is for {len(spec)}. Give one entry for each axis, or fewer."
        )
    for axis, entry in enumerate(spec):
        count = math.prod(sizes[name] for name in names_of(entry))
        if shape[axis] % count:
            named = ", ".join(f"{name!r} (size {sizes[name]})" for name in names_of(entry))
            raise TransformError(
                f"axis {axis} of {label}, which is {summary(value)}, has size {shape[axis]}, and "
                f"that does not divide over mesh axis {named}: pad it to a multiple of {count}, "
                "use a mesh that divides it, or use xcs.pmap, which takes batches of any length."
            )


def _shape(value: Any) -> tuple[int, ...]:
    """The shape of an array, or of lists within lists."""
    if type(value) is not list:
        return tuple(getattr(value, "shape", ()))
    inner = [_shape(item) for item in value]
    is_regular = bool(inner) and all(type(item) is list for item in value) and len(set(inner)) == 1
    return (len(value), *(inner[0] if is_regular else ()))


def cut(value: Any, spec: Any, index: Index, sizes: Mapping[str, int]) -> Any:
    """Returns the part of an argument that one shard has.

    Args:
        value: An array, or a list (of lists), that divides.
        spec: Its ``PartitionSpec``, with names.
        index: Which shard.
        sizes: The sizes of the mesh axes.
    """
    slices = [_slice(n, entry, index, sizes) for n, entry in zip(_shape(value), spec, strict=False)]
    if type(value) is list:
        return _cut_list(value, slices)
    return value[tuple(slices)] if slices else value


def _slice(size: int, entry: Any, index: Index, sizes: Mapping[str, int]) -> slice:
    position, count = 0, 1
    for name in names_of(entry):
        position = position * sizes[name] + index[name]
        count *= sizes[name]
    length = size // count
    return slice(position * length, (position + 1) * length)


def _cut_list(value: list[Any], slices: Sequence[slice]) -> list[Any]:
    if not slices:
        return value
    first, *rest = slices
    return [_cut_list(item, rest) if rest else item for item in value[first]]


def joined_shards(
    name: str,
    results: Sequence[tuple[Index, Any]],
    out_specs: Any,
    sizes: Mapping[str, int],
) -> Any:
    """Returns the results of all shards, put together by their specs.

    Args:
        name: The function's name, for messages.
        results: What it returned, by shard.
        out_specs: A tree of ``PartitionSpec`` that is a prefix of the result.
        sizes: The sizes of the mesh axes.

    Raises:
        TransformError: The results have different structures, cannot be joined, or differ where
            the spec says that they are the same.
    """
    structure: Any = jax.tree.structure(_ordered(results[0][1]), is_leaf=_is_value)
    rows = []
    for index, result in results:
        leaves, found = jax.tree.flatten(_ordered(result), is_leaf=_is_value)
        if found != structure:
            raise TransformError(
                f"the results of {name} do not match in structure: shard "
                f"{dict(results[0][0])} gave {structure}, and shard {dict(index)} gave {found}."
            )
        rows.append(leaves)
    specs = _leaf_specs(name, structure, out_specs)
    indices = [index for index, _ in results]
    leaves = [
        _joined_leaf(name, list(zip(indices, column, strict=True)), spec, sizes)
        for column, spec in zip(zip(*rows, strict=True), specs, strict=True)
    ]
    return structure.unflatten(leaves)


def _is_value(value: Any) -> bool:
    return value is None or type(value) is list


def _ordered(value: Any) -> Any:
    return keeping_order(value, _is_value)


def _leaf_specs(name: str, structure: Any, out_specs: Any) -> list[Any]:
    outer: Any
    specs, outer = jax.tree.flatten(out_specs, is_leaf=is_spec)
    try:
        parts = outer.flatten_up_to(structure.unflatten(range(structure.num_leaves)))
    except ValueError as error:
        raise TransformError(
            f"out_specs={out_specs!r} does not fit the result of {name}, which is {structure}: "
            f"{error}"
        ) from None
    # By number: JAX sorts the keys of dicts, and results keep the order that they came in.
    found = {
        k: spec for spec, part in zip(specs, parts, strict=True) for k in jax.tree.leaves(part)
    }
    return [found[k] for k in range(structure.num_leaves)]


def _joined_leaf(
    name: str, values: Sequence[tuple[Index, Any]], spec: Any, sizes: Mapping[str, int]
) -> Any:
    named = mesh_axes(spec)
    by_index: dict[tuple[tuple[str, int], ...], Any] = {}
    for index, value in values:
        key = tuple(sorted((axis, k) for axis, k in index.items() if axis in named))
        if key not in by_index:
            by_index[key] = value
        elif not _equal(by_index[key], value):
            others = sorted(index.keys() - named)
            raise TransformError(
                f"out_specs says that a result of {name} is the same along mesh axis "
                f"{', '.join(map(repr, others))}, and shard {dict(index)} gave another than the "
                "shards before it. Name the axis in out_specs, or return the same from each."
            )
    return _built(name, by_index, tuple(spec), 0, {}, sizes)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, jax.Array | np.ndarray):
        return bool(np.array_equal(one, other))
    return same_value(one, other)


def _built(
    name: str,
    by_index: Mapping[tuple[tuple[str, int], ...], Any],
    spec: Sequence[Any],
    axis: int,
    fixed: Index,
    sizes: Mapping[str, int],
) -> Any:
    """What the shards at ``fixed`` come to, joined along ``axis`` and those after it."""
    if axis == len(spec):
        return by_index[tuple(sorted(fixed.items()))]
    names = names_of(spec[axis])
    if not names:
        return _built(name, by_index, spec, axis + 1, fixed, sizes)
    parts = [
        _built(name, by_index, spec, axis + 1, {**fixed, **index}, sizes)
        for index in shard_indices(names, sizes)
    ]
    return _concatenated(name, parts, axis)


def _concatenated(name: str, parts: Sequence[Any], axis: int) -> Any:
    if all(type(part) is list for part in parts):
        if axis == 0:
            return [item for part in parts for item in part]
        return [_concatenated(name, rows, axis - 1) for rows in zip(*parts, strict=True)]
    arrays = [part for part in parts if isinstance(part, jax.Array | np.ndarray)]
    if len(arrays) < len(parts) or any(array.ndim <= axis for array in arrays):
        raise TransformError(
            f"out_specs joins a result of {name} along axis {axis}, and a shard gave "
            f"{summary(parts[0])}, which has no such axis. Return a list or an array with one "
            "entry for each of the shard's, or leave the axis out of out_specs."
        )
    if any(isinstance(array, jax.Array) for array in arrays):
        return jnp.concatenate([jnp.asarray(array) for array in arrays], axis)
    return np.concatenate(arrays, axis)
