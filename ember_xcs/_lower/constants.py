"""Compiled functions whose large constants are arguments of the XLA program.

An array that a function closes over, such as the weights of an operator, is a constant to
``jax.jit``. XLA then copies it into the program and looks for what can be computed of it while
it compiles, which takes long and twice the memory where the array is large. So the function is
traced once with its arrays as they are, and its large ones become arguments of what is compiled.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core as jex_core
import jax.numpy as jnp
import numpy as np

__all__ = ["LARGE_CONSTANT_BYTES", "Compiled", "with_large_constants_as_arguments"]

LARGE_CONSTANT_BYTES = 1 << 16
"""From which size on, in bytes, a constant is an argument; XLA folds smaller ones with profit."""


class Compiled:
    """``jax.jit`` of a function, made at the first call, when its constants are seen.

    Args:
        function: A function of trees of arrays.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._plain = jax.jit(function)
        self._chosen: Any = None

    def __call__(self, *args: Any) -> Any:
        """Returns the function's result."""
        return (self._chosen or self._choose(args))(*args)

    def lower(self, *args: Any) -> Any:
        """Returns what JAX lowers the function to, for arguments like these."""
        return (self._chosen or self._choose(args)).lower(*args)

    def _choose(self, args: tuple[Any, ...]) -> Any:
        traced = self._plain.trace(*args)
        self._chosen = with_large_constants_as_arguments(self._plain, traced)
        return self._chosen


def with_large_constants_as_arguments(
    jitted: Any, traced: Any, donate_argnums: tuple[int, ...] = ()
) -> Any:
    """Returns ``jitted``, or what computes the same with its large constants as arguments.

    Args:
        jitted: A function as ``jax.jit`` returned it, without static arguments.
        traced: What its ``trace`` returned.
        donate_argnums: The arguments whose memory it may reuse.
    """
    large = [c for c in traced.jaxpr.consts if _is_large(c)]
    return _Hoisted(jitted, large, donate_argnums) if large else jitted


class _Hoisted(functools.partial[Any]):
    """A compiled function of large constants and the arguments, with the former filled in.

    It is a ``partial``, so that nothing but C stands between a call and JAX. Calls with other
    shapes trace the function again: what it then closes over that was not there at first is a
    constant to XLA.
    """

    def __new__(cls, jitted: Any, large: list[Any], donate_argnums: tuple[int, ...]) -> Any:
        def function(arrays: tuple[Any, ...], *args: Any, **kwargs: Any) -> Any:
            return _computed(jitted, large, arrays, args, kwargs)

        function.__name__ = getattr(jitted, "__name__", "function")
        donated = tuple(k + 1 if k >= 0 else k for k in donate_argnums)
        return super().__new__(
            cls, jax.jit(function, donate_argnums=donated), tuple(map(_as_argument, large))
        )

    def lower(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what JAX lowers the function to, for arguments like these."""
        return self.func.lower(*self.args, *args, **kwargs)  # type: ignore[attr-defined]


def _computed(
    jitted: Any, large: list[Any], arrays: tuple[Any, ...], args: Any, kwargs: Any
) -> Any:
    """The function's result, with ``arrays`` for its large constants; JAX is tracing."""
    traced = jitted.trace(*args, **kwargs)  # known to JAX already, for the shapes of the first call
    given = {id(constant): array for constant, array in zip(large, arrays, strict=True)}
    constants = [given.get(id(c), c) for c in traced.jaxpr.consts]
    closed = jex_core.ClosedJaxpr(traced.jaxpr.jaxpr, constants)
    leaves = jex_core.jaxpr_as_fun(closed)(*jax.tree.leaves((args, kwargs)))
    return jax.tree.unflatten(jax.tree.structure(traced.out_info), leaves)


def _is_large(constant: Any) -> bool:
    if isinstance(constant, jax.core.Tracer) or not hasattr(constant, "__array__"):
        return False
    if constant.size * constant.dtype.itemsize < LARGE_CONSTANT_BYTES:
        return False
    return not isinstance(constant, jax.Array) or _goes_anywhere(constant)


def _goes_anywhere(array: jax.Array) -> bool:
    """Whether an array may be an argument beside any other.

    One that is bound to a device may not, among several devices; a constant may always.
    """
    return not array.committed or len(jax.devices()) == 1


def _as_argument(constant: Any) -> jax.Array:
    """A constant as JAX takes it fastest; a copy of what could change after it was traced."""
    return constant if isinstance(constant, jax.Array) else jnp.array(np.asarray(constant))
