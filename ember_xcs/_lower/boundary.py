"""What crosses the border of a compiled region that JAX does not compute with.

A constant that is no array (a string in a dict of arrays, say) crosses as part of the tree's
structure: a node without children, compared and hashed by its value. A region is thus compiled
once for each such value, as for static arguments of ``jax.jit``. An object that can change while
it stays equal to itself cannot cross: a program compiled for it would show what it was before.
"""

from __future__ import annotations

import enum
import types
from typing import Any

import jax
import numpy as np

from ember_xcs._core.static import Static

__all__ = ["all_arrays", "are_constants", "from_static", "to_static"]

_CONSTANTS = (
    str,
    bytes,
    enum.Enum,
    type,
    types.FunctionType,
    types.BuiltinFunctionType,
)


def _is_array(leaf: Any) -> bool:
    return isinstance(
        leaf, jax.Array | np.ndarray | np.generic | bool | int | float | complex
    ) and not (isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind in "OSUV")


def all_arrays(tree: Any) -> bool:
    """Whether JAX takes every leaf of a tree."""
    return all(map(_is_array, jax.tree.leaves(tree)))


def are_constants(tree: Any) -> bool:
    """Whether the leaves of a tree that are not arrays can be part of its structure."""
    return all(_is_array(leaf) or isinstance(leaf, _CONSTANTS) for leaf in jax.tree.leaves(tree))


def to_static(tree: Any) -> Any:
    """Returns a tree whose leaves are all arrays; the others are in its structure."""
    return jax.tree.map(lambda leaf: leaf if _is_array(leaf) else Static(leaf), tree)


def from_static(tree: Any) -> Any:
    """Returns the tree that ``to_static`` was given."""
    return jax.tree.map(
        lambda leaf: leaf.value if isinstance(leaf, Static) else leaf,
        tree,
        is_leaf=lambda node: isinstance(node, Static),
    )
