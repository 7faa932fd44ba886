"""``PartitionSpec``: JAX's, where mesh axes may also be named by position."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

__all__ = ["AxisPosition", "PartitionSpec", "is_spec"]


@dataclasses.dataclass(frozen=True)
class AxisPosition:
    """A mesh axis by its position; JAX takes a plain 0 for "no axis"."""

    index: int

    def __repr__(self) -> str:
        return str(self.index)


class _IsJax(type):
    """Instances are JAX's own: no other class may be derived from it."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, jax.sharding.PartitionSpec)


class PartitionSpec(metaclass=_IsJax):
    """How an array is cut over a mesh: makes a ``jax.sharding.PartitionSpec``.

    Each entry says over which mesh axis that axis of the array is cut: a name, a position (0 is the
    first axis of the mesh), a tuple of these, or None. Positions are for ``xcs.mesh_sharded`` and
    ``xcs.DeviceMesh``, which know the mesh; in ``jax.P(0)`` the zero is lost.

    Example:
        >>> PartitionSpec("x", None) == jax.P("x", None)
        True
        >>> PartitionSpec(0, (1, 2))
        P(0, (1, 2))
    """

    UNCONSTRAINED = jax.sharding.PartitionSpec.UNCONSTRAINED

    def __new__(cls, *partitions: Any, **settings: Any) -> Any:
        """Returns JAX's object."""
        return jax.sharding.PartitionSpec(*map(_entry, partitions), **settings)


def _entry(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return tuple(map(_entry, value))
    is_position = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return AxisPosition(int(value)) if is_position else value


def is_spec(value: Any) -> bool:
    """Whether a value is one spec, not a tree of them; None stands for the empty one."""
    return value is None or isinstance(value, jax.sharding.PartitionSpec)
