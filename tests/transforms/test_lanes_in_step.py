"""Batched loops and branches around batch end points: their lanes go in step, and ask together."""

from __future__ import annotations

import threading

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import ember_xcs as xcs


class Scaled(xcs.HostOperator):
    """Multiplies, and notes which numbers it was asked for together."""

    factor: float
    asked: list[list[float]]

    def forward(self, x: float) -> float:
        self.asked.append([x])
        return self.factor * x

    def forward_batch(self, x: list[float]) -> list[float]:
        self.asked.append(sorted(x))
        return [self.factor * value for value in x]


def test_each_branch_of_a_switch_asks_once_for_its_lanes():
    ten, hundred = Scaled(10.0, []), Scaled(100.0, [])
    choose = xcs.vmap(lambda k, x: xcs.switch(k, [lambda y: y, ten, hundred], x))
    result = choose(jnp.array([0, 1, 2, 1, 2, 7, -3]), jnp.arange(7.0))
    np.testing.assert_array_equal(result, [0.0, 10.0, 200.0, 30.0, 400.0, 500.0, 6.0])
    assert ten.asked == [[1.0, 3.0]]
    assert hundred.asked == [[2.0, 4.0, 5.0]]


def test_the_branches_run_at_the_same_time():
    meeting = threading.Barrier(2, timeout=10)

    class Meets(Scaled):
        def forward_batch(self, x: list[float]) -> list[float]:
            meeting.wait()
            return super().forward_batch(x)

    one, other = Meets(10.0, []), Meets(100.0, [])
    branch = xcs.vmap(lambda x: xcs.cond(x > 1, one, other, x))
    np.testing.assert_array_equal(branch(jnp.arange(4.0)), [0.0, 100.0, 20.0, 30.0])


def test_a_branch_that_no_lane_is_on_makes_no_call():
    never = Scaled(10.0, [])
    result = xcs.vmap(lambda x: xcs.cond(x > 9, never, lambda y: y, x))(jnp.arange(4.0))
    np.testing.assert_array_equal(result, jnp.arange(4.0))
    assert never.asked == []


def test_an_empty_batch_makes_no_call():
    never = Scaled(10.0, [])
    result = xcs.vmap(lambda x: xcs.cond(x > 0, never, lambda y: y, x))(jnp.zeros(0))
    assert result.shape == (0,)
    assert never.asked == []


def test_each_round_of_a_loop_asks_once_for_the_lanes_that_run():
    double = Scaled(2.0, [])
    grow = xcs.vmap(lambda x: xcs.while_loop(lambda y: y < 8, double, x))
    np.testing.assert_array_equal(grow(jnp.array([1.0, 3.0, 9.0])), [8.0, 12.0, 9.0])
    assert double.asked == [[1.0, 3.0], [2.0, 6.0], [4.0]]


def test_lanes_of_nested_maps_ask_together():
    double = Scaled(2.0, [])
    branch = lambda x, limit: xcs.cond(x > limit, double, lambda y: -y, x)  # noqa: E731
    both = xcs.vmap(xcs.vmap(branch, in_axes=(0, None)), in_axes=(0, 0))
    x, limits = jnp.arange(6.0).reshape(2, 3), jnp.array([0.5, 4.5])
    expected = [
        [2.0 * v if v > limit else -v for v in row] for row, limit in zip(x, limits, strict=True)
    ]
    np.testing.assert_array_equal(both(x, limits), expected)
    assert double.asked == [[1.0, 2.0, 5.0]]


def test_host_values_pass_through_branches_in_step():
    class Shout(xcs.HostOperator):
        asked: list[int]

        def forward(self, text: str) -> str:
            raise AssertionError

        def forward_batch(self, text: list[str]) -> list[str]:
            self.asked.append(len(text))
            return [t.upper() for t in text]

    shout = Shout([])
    choose = xcs.vmap(xcs.jit.trace(lambda loud, t: xcs.cond(loud, shout, lambda t: t, t)))
    texts = ["a", "b", "c"]
    assert choose(jnp.array([True, False, True]), texts) == ["A", "b", "C"]
    assert shout.asked == [2]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(-4, 6), min_size=0, max_size=6),
    st.integers(0, 3),
)
def test_loops_of_branches_are_the_loop_in_python(starts: list[int], rounds: int):
    up, down = Scaled(2.0, []), Scaled(-1.0, [])

    def body(state):
        k, x = state
        return k + 1, xcs.cond(x < 3, up, lambda y: down(y) + 1.0, x)

    def program(x):
        return xcs.while_loop(lambda s: (s[0] < rounds) & (s[1] != 0), body, (0, x))[1]

    def plain(x: float) -> float:
        for _ in range(rounds):
            if x == 0:
                break
            x = 2.0 * x if x < 3 else -x + 1.0
        return x

    result = xcs.vmap(program)(jnp.array(starts, jnp.float32))
    np.testing.assert_array_equal(result, np.array([plain(float(x)) for x in starts], np.float32))
    assert all(len(asked) <= len(starts) for asked in (*up.asked, *down.asked))


def test_jax_jit_of_the_same_says_what_to_do():
    double = Scaled(2.0, [])
    with np.testing.assert_raises(xcs.TracingError):
        jax.jit(xcs.vmap(lambda x: xcs.cond(x > 0, double, lambda y: y, x)))(jnp.ones(2))
