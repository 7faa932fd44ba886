"""Batches among the arguments of a call: what has one, along which axis, and how long it is.

A batch is an array, or a list that JAX could not map over itself: of numbers, of text, of
records. A list of arrays with axes is a tree, as it is for JAX. What has no axis at all (text,
None, a record) is shared by all elements.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ember_xcs._core.arguments import summary
from ember_xcs._trace.host_values import HostBatch, HostValue
from ember_xcs._trace.staging import is_numeric
from ember_xcs._trace.user_line import user_line
from ember_xcs._transforms.prefixes import CallStructure, SettingKind, take_apart
from ember_xcs.errors import TracingError, TransformError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Along", "Argument", "Arguments", "as_array", "is_axis", "is_batch", "split_arguments"]


@dataclasses.dataclass(frozen=True)
class _NoKey:
    """The key of the value of an ``Along``, which has no part in the labels of arguments."""

    def __str__(self) -> str:
        return ""


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True)
class Along:
    """An argument that is mapped along an axis, or shared; part of the structure of a call.

    Attributes:
        value: The array, host value or object.
        axis: The axis, or None.
    """

    value: Any
    axis: int | None

    def tree_flatten_with_keys(self) -> tuple[tuple[tuple[Any, Any]], int | None]:
        """Returns the value, for JAX."""
        return ((_NoKey(), self.value),), self.axis

    @classmethod
    def tree_unflatten(cls, axis: int | None, children: tuple[Any]) -> Along:
        """Returns an argument from its value."""
        return cls(children[0], axis)


@dataclasses.dataclass(frozen=True)
class Argument:
    """One leaf of the arguments of a mapped call.

    Attributes:
        label: What it is called: ``documents``, ``settings['k']``.
        value: The array, the list, or what is shared.
        axis: The axis that is mapped over; None for what is shared.
    """

    label: str
    value: Any
    axis: int | None

    @property
    def size(self) -> int | None:
        """How many elements it has; None if it is shared."""
        if self.axis is None:
            return None
        if type(self.value) is list and self.axis == 0:
            return len(self.value)
        shape = np.shape(self.staged) if type(self.value) is list else np.shape(self.value)
        if not -len(shape) <= self.axis < len(shape):
            raise TransformError(
                f"{self.label} is to be mapped along axis {self.axis}, and it is "
                f"{summary(self.value)}, which has {len(shape)} axes. Give its axis in in_axes, or "
                "None to share it."
            )
        return int(shape[self.axis])

    @property
    def staged(self) -> Any:
        """The value as JAX takes it: lists of numbers as arrays, of other things as host values."""
        if type(self.value) is list and self.axis is not None:
            return as_array(self.value)
        if isinstance(self.value, np.ndarray) and not is_numeric(self.value):
            return self.value.astype(object).view(HostBatch) if self.value.ndim else self.value
        return self.value

    @property
    def objects(self) -> Any:
        """The value for host code: a list as host values, whatever is in it."""
        if type(self.value) is not list or self.axis is None:
            return self.staged
        shape, leaves = _shape_and_leaves(self.value)
        if any(isinstance(leaf, HostValue | jax.Array) for leaf in leaves):
            return self.staged
        return _object_array(leaves, shape)

    def elements(self) -> Sequence[Any]:
        """Returns the elements, as plain Python has them."""
        assert self.axis is not None
        if type(self.value) is list and self.axis == 0:
            return self.value
        array = self.staged
        if isinstance(array, np.ndarray):
            rows = np.moveaxis(array, self.axis, 0)
            return rows.tolist() if rows.dtype == object else list(rows)
        return list(jnp.moveaxis(array, self.axis, 0))


class Arguments:
    """The arguments of a mapped call, taken apart.

    Attributes:
        name: The function's name, for messages.
        leaves: The leaves of ``(args, kwargs)``, batches in one piece.
        structure: Their tree.
        size: How many elements the batches have.
    """

    def __init__(
        self,
        name: str,
        leaves: Sequence[Argument],
        structure: CallStructure,
        axis_size: int | None,
    ) -> None:
        self.name, self.leaves, self.structure = name, leaves, structure
        self.size = _common_size(name, leaves, axis_size)

    @property
    def is_numeric(self) -> bool:
        """Whether JAX computes with all of them."""
        return all(_is_for_jax(leaf.staged) for leaf in self.leaves)

    def marked(self, *, as_objects: bool = False) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns ``(args, kwargs)`` with every leaf marked by the axis it is mapped along.

        Args:
            as_objects: Whether lists of numbers stay what they are, for code that is no JAX.
        """
        marks = [
            Along(leaf.objects if as_objects else leaf.staged, leaf.axis) for leaf in self.leaves
        ]
        args, kwargs = self.structure.unflatten(marks)
        return args, kwargs

    def calls(self) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
        """Yields the arguments of each element, as a plain loop would pass them."""
        columns = [None if leaf.axis is None else leaf.elements() for leaf in self.leaves]
        for k in range(self.size):
            values = [
                leaf.value if column is None else column[k]
                for leaf, column in zip(self.leaves, columns, strict=True)
            ]
            args, kwargs = self.structure.unflatten(values)
            yield tuple(args), kwargs


def _common_size(name: str, leaves: Sequence[Argument], axis_size: int | None) -> int:
    sizes = {leaf.label: leaf.size for leaf in leaves if leaf.axis is not None}
    if axis_size is not None:
        sizes["axis_size"] = axis_size
    if not sizes:
        _refuse_unknown(name, leaves)
        raise TransformError(
            f"{name} was given nothing to map over: "
            f"{', '.join(f'{x.label} is {summary(x.value)}' for x in leaves) or 'no arguments'}. A "
            "batch is an array, or a list with one entry for each call."
        )
    if len(set(sizes.values())) > 1:
        raise TransformError(
            f"{name} was given batches of different lengths: "
            f"{', '.join(f'{label} has {size}' for label, size in sizes.items())}. Batches are of "
            "one length; what all elements share has None in in_axes."
        )
    size = next(iter(sizes.values()))
    assert size is not None
    return size


def _refuse_unknown(name: str, leaves: Sequence[Argument]) -> None:
    """Raises if a value that is not known yet may turn out to be a batch."""
    for leaf in leaves:
        if isinstance(leaf.value, HostValue):
            raise TracingError(
                f"{name} was given {leaf.label}, a host value that is not known while the function "
                "is being staged, and so neither is how many elements it has. Give it a list of a "
                "length that is known, or do this in a @host function.",
                user_line(),
            )


def split_arguments(
    name: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    in_axes: Any,
    parameters: Sequence[str],
    axis_size: int | None = None,
) -> Arguments:
    """Returns the arguments of a mapped call, taken apart.

    Args:
        name: What is called, for messages.
        args: By position.
        kwargs: By name; they are mapped along axis 0.
        in_axes: As in ``jax.vmap``; also a dict by name of parameter or input field.
        parameters: The names of the parameters, in order.
        axis_size: The length of the batches, where it is known.

    Raises:
        TransformError: ``in_axes`` does not fit the arguments, or the batches do not fit together.
    """
    found, structure = take_apart(name, args, kwargs, parameters, in_axes, _AXES)
    lenient = "inputs" in kwargs or not all(_is_for_jax(leaf.value) for leaf in found)
    leaves = [Argument(label, value, _axis(value, axis, lenient)) for label, value, axis in found]
    return Arguments(name, leaves, structure, axis_size)


def is_axis(value: Any) -> bool:
    """Whether a value is a leaf of ``in_axes`` or ``out_axes``."""
    return value is None or isinstance(value, int)


def _is_host_value(value: Any) -> bool:
    return isinstance(value, HostValue)


def is_batch(value: Any) -> bool:
    """Whether a value is one leaf of mapped arguments: a host value, or a list that is a batch."""
    if type(value) is not list:
        return isinstance(value, HostValue)
    leaves = jax.tree.leaves(value, is_leaf=_is_host_value)
    return not leaves or not all(len(getattr(leaf, "shape", ())) > 0 for leaf in leaves)


_AXES = SettingKind(
    name="in_axes",
    default=0,
    is_leaf=is_axis,
    what="an int or None",
    stops=lambda axis: _is_host_value if axis is None else is_batch,
)


def _is_for_jax(value: Any) -> bool:
    if type(value) is list:
        return bool(value) and all(map(_is_for_jax, value))
    return is_numeric(value)


def _axis(value: Any, axis: int | None, lenient: bool) -> int | None:
    """The axis of a leaf; None for what has no axis and is shared."""
    if axis is None or type(value) is list:
        return axis
    if getattr(value, "shape", ()):
        return axis
    return None if lenient or not is_numeric(value) else axis


def as_array(batch: list[Any]) -> Any:
    """Returns a list as JAX takes it: an array of numbers, or host values in its shape."""
    shape, leaves = _shape_and_leaves(batch)
    if leaves and all(map(_is_number, leaves)):
        return _numbers(batch, leaves, shape)
    if any(isinstance(leaf, HostValue | jax.core.Tracer) for leaf in leaves):
        return _stacked(leaves, shape)
    return _object_array(leaves, shape)


def _object_array(leaves: Sequence[Any], shape: tuple[int, ...]) -> HostBatch:
    return np.fromiter(leaves, object, len(leaves)).reshape(shape).view(HostBatch)


def _numbers(batch: list[Any], leaves: Sequence[Any], shape: tuple[int, ...]) -> Any:
    if any(isinstance(leaf, jax.Array) for leaf in leaves):
        return jnp.stack(list(leaves)).reshape(shape)
    array = np.array(batch)
    if array.dtype == object or array.shape != shape or not _is_exact(array):
        return _object_array(leaves, shape)
    return jnp.asarray(array)


def _is_exact(array: np.ndarray[Any, Any]) -> bool:
    """Whether JAX has integers large enough for these."""
    if not np.issubdtype(array.dtype, np.integer) or not array.size:
        return True
    info = np.iinfo(jax.dtypes.canonicalize_dtype(array.dtype))
    return bool(info.min <= array.min() and array.max() <= info.max)


def _stacked(leaves: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """Host values, or numbers not known yet, as one array."""
    from_host = [leaf.array if isinstance(leaf, HostValue) else leaf for leaf in leaves]
    stacked = jnp.stack(from_host)
    stacked = stacked.reshape(*shape, *stacked.shape[1:])
    return HostValue(stacked) if isinstance(leaves[0], HostValue) else stacked


def _is_number(leaf: Any) -> bool:
    return is_numeric(leaf) and np.ndim(leaf) == 0 and not isinstance(leaf, jax.core.Tracer)


def _shape_and_leaves(batch: list[Any]) -> tuple[tuple[int, ...], list[Any]]:
    """The shape of lists within lists as far as they are regular, and what they hold."""
    shape, leaves = [len(batch)], list(batch)
    while leaves and all(type(leaf) is list for leaf in leaves):
        sizes = {len(leaf) for leaf in leaves}
        if len(sizes) != 1:
            break
        shape.append(sizes.pop())
        leaves = [item for leaf in leaves for item in leaf]
    return tuple(shape), leaves
