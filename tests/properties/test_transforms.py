"""Random programs, batches and axes through ``vmap``, ``pmap`` and ``jit``.

The oracles are ``jax.vmap`` for numbers and the plain loop for everything else.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import ember_xcs as xcs
from tests.counting import Calls

SIZES = st.integers(0, 5)
NAMES = st.sampled_from(["a", "b", "c", "z"])


@xcs.host
def square(x: float) -> float:
    return x * x


# Random trees of arrays, with random axes


@dataclasses.dataclass(frozen=True)
class Mapped:
    """A leaf of arguments: an array, and the axis that is mapped over."""

    array: np.ndarray
    axis: int | None


@st.composite
def leaves(draw, size):
    """An array whose batch axis stands anywhere, or one that is shared."""
    shape = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    if draw(st.integers(0, 3)) == 0:
        axis = None
    else:
        axis = draw(st.integers(-len(shape) - 1, len(shape)))
        place = axis if axis >= 0 else axis + len(shape) + 1
        shape = (*shape[:place], size, *shape[place:])
    count = int(np.prod(shape, dtype=int))
    start = draw(st.integers(-3, 3))
    kind = draw(st.sampled_from([np.float32, np.int32]))
    return Mapped((np.arange(count) + start).astype(kind).reshape(shape), axis)


def trees(leaf):
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=2).map(tuple),
            st.dictionaries(NAMES, inner, min_size=1, max_size=3),
        ),
        max_leaves=4,
    )


def is_mapped(value):
    return isinstance(value, Mapped)


def parts(tree):
    """The arrays of a tree, and its axes."""
    arrays = jax.tree.map(lambda m: jnp.asarray(m.array), tree, is_leaf=is_mapped)
    return arrays, jax.tree.map(lambda m: m.axis, tree, is_leaf=is_mapped)


@st.composite
def calls_with_axes(draw):
    size = draw(SIZES)
    count = draw(st.integers(1, 3))
    trees_of_args = [draw(trees(leaves(size))) for _ in range(count)]
    first = np.arange(size * 2, dtype=np.float32).reshape(size, 2)  # something is mapped at least
    args, axes = zip(*map(parts, [Mapped(first, 0), *trees_of_args]), strict=True)
    return size, args, axes


def summed(*args):
    """Touches all arguments, and returns a tree of their structure and a sum."""
    leaves = jax.tree.leaves(args)
    return {"sum": sum(jnp.sum(x) for x in leaves), "same": jax.tree.map(lambda x: x * 2, args)}


def assert_same(ours, expected):
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    for mine, theirs in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


@given(calls_with_axes(), st.sampled_from(["vmap", "pmap", "jit(vmap)", "vmap(jit)"]))
def test_trees_of_arrays_along_any_axes(call, how):
    _, args, axes = call
    transform = {
        "vmap": lambda f, axes: xcs.vmap(f, in_axes=axes),
        "pmap": lambda f, axes: xcs.pmap(f, in_axes=axes),
        "jit(vmap)": lambda f, axes: xcs.jit(xcs.vmap(f, in_axes=axes)),
        "vmap(jit)": lambda f, axes: xcs.vmap(xcs.jit(f), in_axes=axes),
    }[how]
    expected = jax.vmap(summed, in_axes=axes)(*args)
    assert_same(transform(summed, axes)(*args), expected)


@given(calls_with_axes())
def test_mixed_functions_along_any_axes(call):
    _, args, axes = call

    def mixed(*args):
        result = summed(*args)
        return result | {"square": square(result["sum"]) + 1}

    def numeric(*args):
        result = summed(*args)
        return result | {"square": result["sum"].astype(jnp.float32) ** 2 + 1}

    expected = jax.vmap(numeric, in_axes=axes)(*args)
    assert_same(xcs.vmap(mixed, in_axes=axes)(*args), expected)


@given(SIZES, st.data())
def test_results_along_any_axes(size, data):
    batch = jnp.arange(size * 6.0).reshape(size, 2, 3)
    axes = st.integers(-3, 2)
    out_axes = data.draw(
        st.one_of(axes, st.tuples(axes, axes), st.tuples(axes, st.fixed_dictionaries({"k": axes})))
    )

    def function(x):
        return x + 1, {"k": jnp.sin(x.T)}

    def with_call(x):
        return x + 1 + square(x[0, 0]) * 0, {"k": jnp.sin(x.T)}

    expected = jax.vmap(function, out_axes=out_axes)(batch)
    assert_same(xcs.vmap(function, out_axes=out_axes)(batch), expected)
    assert_same(xcs.vmap(with_call, out_axes=out_axes)(batch), expected)


# Random nestings

LAYERS = st.lists(st.sampled_from(["vmap", "pmap", "jit"]), min_size=1, max_size=4)


def nested(function: Any, layers: list[str]) -> Any:
    for layer in reversed(layers):
        function = getattr(xcs, layer)(function)
    return function


def depth_of(layers):
    return len(layers) - layers.count("jit")


def looped(function, batch, depth):
    return [looped(function, x, depth - 1) for x in batch] if depth else function(batch)


@given(LAYERS, st.data())
def test_nestings_over_numbers(layers, data):
    shape = tuple(data.draw(st.lists(SIZES, min_size=4, max_size=4)))[: depth_of(layers)]
    batch = jnp.arange(float(np.prod(shape, dtype=int))).reshape(shape)
    expected = np.asarray(batch) ** 2 * 3
    for function in (lambda x: x * x * 3, lambda x: square(x) * 3):
        np.testing.assert_allclose(nested(function, layers)(batch), expected, rtol=1e-6)


@given(LAYERS, st.data())
def test_nestings_over_lists_of_text(layers, data):
    batch = st.text("xyz", max_size=3)
    for _ in range(depth_of(layers)):
        batch = st.lists(batch, max_size=3)
    given_batch = data.draw(batch)
    calls = Calls()
    host = calls.host(lambda text: text + "!")
    expected = looped(lambda text: text + "!", given_batch, depth_of(layers))
    assert nested(lambda text: text + "!", layers)(given_batch) == expected
    assert nested(host, layers)(given_batch) == expected
    texts: list[str] = []
    looped(texts.append, given_batch, depth_of(layers))
    assert calls.sorted == sorted(texts)


# Random values without arrays

VALUES = st.one_of(st.text("xyz", max_size=3), st.none(), st.integers(0, 9), st.booleans())


@given(SIZES, st.dictionaries(NAMES, st.booleans(), min_size=1), st.data())
def test_dicts_of_lists_and_of_shared_values(size, fields, data):
    columns = {
        name: data.draw(st.lists(st.text("xyz"), min_size=size, max_size=size))
        if batched
        else data.draw(st.text("xyz"))
        for name, batched in fields.items()
    }
    first = [str(k) for k in range(size)]
    rows = [
        {name: columns[name][k] if batched else columns[name] for name, batched in fields.items()}
        for k in range(size)
    ]
    expected = [f"{k}{row}" for k, row in zip(first, rows, strict=True)]
    assert xcs.vmap(lambda k, row: f"{k}{row}")(first, columns) == expected
    assert xcs.vmap(xcs.host(lambda k, row: f"{k}{row}"))(first, columns) == expected


@given(st.lists(VALUES, max_size=5))
def test_lists_of_any_values_come_back(values):
    first = [f"{k}" for k in range(len(values))]
    result = xcs.vmap(lambda k, x: [k, x])(first, values)
    assert result == [[k, x] for k, x in zip(first, values, strict=True)]
    assert [type(x) for _, x in result] == [type(x) for x in values]
