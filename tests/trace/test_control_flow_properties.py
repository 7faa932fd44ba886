"""Loops with host calls under any nesting of ``vmap`` give what JAX gives for numeric bodies.

A program is written over an operation. With a host operator for it, it is staged and interpreted;
with the same arithmetic in JAX, it is the oracle. All axes have the same size, so that nothing but
the right bookkeeping tells lanes from other axes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import ember_xcs as xcs

SIZE = 2


def arithmetic(x):
    return x * 0.5 + 1.0


@xcs.host
def operator(x: float) -> float:
    return x * 0.5 + 1.0


def scanned(op, x, item):
    return lax.scan(lambda c, _: (op(c), None), x, None, length=2)[0]


def looped(op, x, item):
    return lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, op(c[1] + item)), (0, x))[1]


def looped_by_value(op, x, item):
    return lax.while_loop(lambda c: c < item, lambda c: op(c) + 0.75, x * 0.0)


STEPS = {
    "call": lambda op, x, item: op(x),
    "call on a constant": lambda op, x, item: x + op(item),
    "call on both": lambda op, x, item: op(x + item),
    "inner vmap": lambda op, x, item: jax.vmap(op)(jnp.stack([x, x + 1])).sum(),
    "inner vmap of both": lambda op, x, item: jax.vmap(lambda k: op(x + k))(jnp.arange(2.0)).sum(),
    "inner vmap of a jit": lambda op, x, item: jax.vmap(jax.jit(op))(jnp.stack([x, item])).sum(),
    "inner vmap of a constant": lambda op, x, item: x + jax.vmap(op)(jnp.stack([item, 1.0])).sum(),
    "scan": scanned,
    "loop": looped,
    "loop by value": looped_by_value,
    "scan in an inner vmap": lambda op, x, item: jax.vmap(lambda v: scanned(op, v, item))(
        jnp.stack([x, item])
    ).sum(),
    "loop in an inner vmap": lambda op, x, item: jax.vmap(lambda v: looped_by_value(op, x, v))(
        jnp.stack([item, 1.5])
    ).sum(),
    "branch": lambda op, x, item: lax.cond(x > 1, op, lambda v: v + item, x),
    "branch on a constant": lambda op, x, item: lax.cond(item > 1, op, lambda v: v + 1, x),
}
AXES = st.sampled_from([0, None])


def program(op, steps):
    def f(limit, start, item):
        def body(carry):
            turn, x = carry
            for step in steps:
                x = STEPS[step](op, x, item)
            return turn + 1, x

        return lax.while_loop(lambda c: c[0] < limit, body, (0, start))

    return f


@pytest.mark.slow
@settings(max_examples=25)  # each compiles a program of its own
@given(
    steps=st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=3),
    axes=st.lists(st.tuples(AXES, AXES, AXES).filter(lambda level: 0 in level), max_size=3),
    data=st.data(),
)
def test_a_loop_of_lax_under_any_vmaps_gives_the_values_of_jax(steps, axes, data):
    ranks = [sum(level[k] == 0 for level in axes) for k in range(3)]
    draw = lambda values, rank: np.array(  # noqa: E731
        data.draw(st.lists(values, min_size=SIZE**rank, max_size=SIZE**rank))
    ).reshape((SIZE,) * rank)
    limit = jnp.asarray(draw(st.integers(0, 3), ranks[0]))
    start, item = (
        jnp.asarray(draw(st.sampled_from([0.0, 0.5, 2.0]), rank), jnp.float32) for rank in ranks[1:]
    )
    staged, oracle = program(operator, steps), program(arithmetic, steps)
    for level in axes:
        staged, oracle = jax.vmap(staged, in_axes=level), jax.vmap(oracle, in_axes=level)
    turns, values = xcs.jit.trace(staged)(limit, start, item)
    expected_turns, expected = oracle(limit, start, item)
    np.testing.assert_array_equal(turns, expected_turns)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
