"""Pure operators, jitted where they are given arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ember_xcs._core.operator import Operator, sub_operators
from ember_xcs._core.static import Static
from ember_xcs._enhanced.pending import Pending

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["is_array_or_number", "is_for_host", "parts", "run"]

_ARRAYS = (jax.Array, np.ndarray, np.generic)


def run(operator: Operator, /, *args: Any, **kwargs: Any) -> Any:
    """Returns the result of a pure operator."""
    leaves = jax.tree.leaves((operator, args, kwargs))
    is_numeric = all(isinstance(x, (*_ARRAYS, int, float, complex)) for x in leaves)
    if not is_numeric or not any(isinstance(x, _ARRAYS) for x in leaves):
        return operator.run(args, kwargs)
    result = _run(operator, args, kwargs)
    return jax.tree.map(_opened, result, is_leaf=_is_static)


@jax.jit
def _run(operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return jax.tree.map(_kept, operator.run(args, kwargs))


def _kept(leaf: Any) -> Any:
    """What is no array stays what it is: plain Python would return it so."""
    return leaf if isinstance(leaf, (*_ARRAYS, jax.core.Tracer)) else Static(leaf)


def _opened(leaf: Any) -> Any:
    return leaf.value if type(leaf) is Static else leaf


def _is_static(node: Any) -> bool:
    return type(node) is Static


def is_array_or_number(value: Any) -> bool:
    """Whether JAX computes with a value."""
    return isinstance(value, (*_ARRAYS, int, float, complex))


def is_for_host(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether arguments have a value that JAX does not compute with, and are all there."""
    leaves = jax.tree.leaves((args, kwargs))
    if any(type(leaf) is Pending for leaf in leaves):
        return False
    return not all(map(is_array_or_number, leaves))


def parts(operator: Operator) -> Iterator[Operator]:
    """Yields the operators in the fields of an operator."""
    return sub_operators(operator)
