"""A value in the structure of a tree: JAX compares and hashes it, and never computes with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from ember_xcs._core.layout import same_value

__all__ = ["Static"]


@jax.tree_util.register_pytree_node_class
class Static:
    """A pytree without leaves that carries a value in its structure."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def tree_flatten(self) -> tuple[tuple[()], Static]:
        """Returns no leaves, and itself as the structure."""
        return (), self

    @classmethod
    def tree_unflatten(cls, aux: Static, _children: Sequence[Any]) -> Static:
        """Returns the value that was flattened."""
        return aux

    def __hash__(self) -> int:
        try:
            return hash(self.value)
        except TypeError:  # a list, say: equality decides
            return hash(type(self.value))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and same_value(self.value, other.value)

    def __repr__(self) -> str:
        return f"Static({type(self.value).__name__})"
