"""How far a worker runs ahead of what it has dispatched.

JAX returns from a dispatch before the program has run. A worker that dispatches one program after
the other can thus be many programs ahead, and what those read is in memory until they have run,
long after the run has freed it: copies of what host code has returned, above all. So whoever has
dispatched a program with large arrays waits for the one before: two are in flight, which keeps a
device busy, and no more.

A worker waits for its own programs alone. Another worker takes what is ready meanwhile, and what is
dispatched there belongs to branches that advance at the same time.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, TypeAlias

import jax

__all__ = ["LARGE_ARRAY_BYTES", "has_large_arrays", "keep_up"]

LARGE_ARRAY_BYTES: Final = 1 << 20
"""From which size on, in bytes, an array is worth waiting for."""

_Output: TypeAlias = Callable[[], jax.Array | None]

# Each worker is in a context of its own. One that begins inherits what it has not dispatched; it
# waits for that once, which is of no consequence.
_last: ContextVar[_Output | None] = ContextVar("ember_xcs_last_large_program", default=None)


def has_large_arrays(tree: Any) -> bool:
    """Whether an array of a tree, or what JAX traces in its place, is large."""
    return any(_bytes(leaf) >= LARGE_ARRAY_BYTES for leaf in jax.tree.leaves(tree))


def keep_up(results: Any) -> None:
    """Waits until the program with large arrays that was dispatched here before has run.

    Args:
        results: What the last program returned.
    """
    output = _watched(results)
    if output is None:  # JAX is tracing, or host values were read from it
        return
    previous = _last.get()
    _last.set(output)
    array = None if previous is None else previous()
    if array is None:
        return
    try:
        array.block_until_ready()
    except RuntimeError:  # it failed, or was deleted: whoever reads it is told
        return


def _watched(results: Any) -> _Output | None:
    """Gives an array that is ready when all of these are, while there is one.

    It is the smallest, and kept alive only where it is small: memory is what this is about.
    """
    arrays = [leaf for leaf in jax.tree.leaves(results) if _is_computed(leaf)]
    if not arrays:
        return None
    smallest: jax.Array = min(arrays, key=_bytes)
    return weakref.ref(smallest) if _bytes(smallest) >= LARGE_ARRAY_BYTES else lambda: smallest


def _is_computed(leaf: Any) -> bool:
    """Whether a leaf is an array that a device computes, rather than one that is traced."""
    return isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)


def _bytes(leaf: Any) -> int:
    """The size of an array in bytes; 0 for what is none."""
    dtype = getattr(leaf, "dtype", None)
    return 0 if dtype is None else int(leaf.size * dtype.itemsize)
