"""``jax.lax`` loops with host calls under ``vmap``: the lanes that are done make no more calls.

The oracle is the same loop in plain Python, one lane after the other: as many calls, no more.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import ember_xcs as xcs
from tests.counting import Calls

LIMITS = [0.0, 1.0, 3.0]
TURNS = int(sum(LIMITS))


@pytest.fixture
def calls():
    return Calls()


@pytest.fixture
def increment(calls):
    @calls.host
    def increment(x: float) -> float:
        return x + 1

    return increment


def count_up(increment, limit, start=0.0):
    return lax.while_loop(lambda x: x < limit, increment, start)


def test_each_lane_makes_only_its_own_turns(calls, increment):
    result = xcs.jit.trace(jax.vmap(lambda n: count_up(increment, n)))(jnp.array(LIMITS))
    assert result.tolist() == LIMITS
    assert calls.sorted == [0.0, 0.0, 1.0, 2.0]


def test_a_batch_in_which_no_lane_runs_makes_no_call(calls, increment):
    result = xcs.jit.trace(jax.vmap(lambda n: count_up(increment, n)))(jnp.zeros(3))
    assert result.tolist() == [0.0, 0.0, 0.0]
    assert calls.seen == []


def test_nested_vmaps_around_a_loop_mask_each_lane(calls, increment):
    limits = jnp.array([LIMITS, [2.0, 0.0, 0.0]])
    result = xcs.jit.trace(jax.vmap(jax.vmap(lambda n: count_up(increment, n))))(limits)
    assert result.tolist() == limits.tolist()
    assert len(calls) == int(limits.sum())


def test_an_unbatched_loop_argument_is_not_fanned_out(calls, increment):
    def f(limit, start):
        return count_up(increment, limit, start)

    result = xcs.jit.trace(jax.vmap(f, in_axes=(0, None)))(jnp.array(LIMITS), 1.0)
    assert result.tolist() == [1.0, 1.0, 3.0]
    assert calls.seen == [1.0, 2.0]


def test_a_loop_that_depends_on_nothing_batched_runs_once(calls, increment):
    def f(x, limit):
        return x + count_up(increment, limit)

    result = xcs.jit.trace(jax.vmap(f, in_axes=(0, None)))(jnp.array(LIMITS), 2.0)
    assert result.tolist() == [2.0, 3.0, 5.0]
    assert calls.seen == [0.0, 1.0]


@pytest.mark.parametrize("starts", [[10.0, 20.0], [10.0, 20.0, 30.0]])
def test_an_outer_vmap_that_does_not_reach_the_predicate_keeps_its_results(
    calls, increment, starts
):
    def one(limit, start):
        body = lambda c: (c[0] + 1, increment(c[1]))  # noqa: E731
        return lax.while_loop(lambda c: c[0] < limit, body, (0.0, start))[1]

    @xcs.jit.trace
    def f(limits, starts):
        return jax.vmap(lambda a: jax.vmap(lambda n: one(n, a))(limits))(starts)

    result = f(jnp.array(LIMITS), jnp.array(starts))
    assert result.tolist() == [[a + n for n in LIMITS] for a in starts]
    if len(starts) != len(LIMITS):  # where the sizes differ there is no doubt which are lanes
        assert len(calls) == TURNS * len(starts)


def test_an_inner_vmap_over_the_carry_is_masked_by_the_lanes_around_it(calls, increment):
    def one(limit):
        body = lambda c: (c[0] + 1, jax.vmap(increment)(c[1]))  # noqa: E731
        return lax.while_loop(lambda c: c[0] < limit, body, (0.0, jnp.zeros(3)))[1]

    result = xcs.jit.trace(jax.vmap(one))(jnp.array(LIMITS))
    assert result.tolist() == [[n] * 3 for n in LIMITS]
    assert len(calls) == 3 * TURNS


def test_an_inner_vmap_over_a_constant_is_made_once_a_turn(calls, increment):
    def one(limit, items):
        body = lambda c: (c[0] + 1, c[1] + jax.vmap(increment)(items).sum())  # noqa: E731
        return lax.while_loop(lambda c: c[0] < limit, body, (0.0, 0.0))[1]

    f = xcs.jit.trace(jax.vmap(one, in_axes=(0, None)))
    result = f(jnp.array(LIMITS), jnp.arange(5.0))
    assert result.tolist() == [15.0 * n for n in LIMITS]
    assert len(calls) == 5 * 3


def test_a_call_on_a_constant_of_its_lane_is_made_for_live_lanes(calls, increment):
    def one(limit, item):
        body = lambda c: (c[0] + 1, c[1] + increment(item))  # noqa: E731
        return lax.while_loop(lambda c: c[0] < limit, body, (0.0, 0.0))[1]

    items = jnp.array([10.0, 20.0, 30.0])
    result = xcs.jit.trace(jax.vmap(one))(jnp.array(LIMITS), items)
    assert result.tolist() == [0.0, 21.0, 93.0]
    assert calls.sorted == [20.0, 30.0, 30.0, 30.0]


def test_a_constant_of_an_axis_that_is_no_lane_is_not_masked(calls, increment):
    def one(limit, item):
        body = lambda c: (c[0] + 1, c[1] + increment(item))  # noqa: E731
        return lax.while_loop(lambda c: c[0] < limit, body, (0.0, 0.0))[1]

    @xcs.jit.trace
    def f(limits, items):
        return jax.vmap(lambda x: jax.vmap(lambda n: one(n, x))(limits))(items)

    items = [10.0, 20.0, 30.0]
    result = f(jnp.array(LIMITS), jnp.array(items))
    assert result.tolist() == [[n * (x + 1) for n in LIMITS] for x in items]


def test_a_host_condition_is_not_asked_for_lanes_that_are_done(calls):
    @xcs.host
    def extend(text: str) -> str:
        return text + "."

    @calls.host
    def is_short(text: str) -> bool:
        return len(text) < 3

    @xcs.host
    def begin(k: int) -> str:
        return "a" * k

    f = xcs.jit.trace(jax.vmap(lambda k: lax.while_loop(is_short, extend, begin(k))))
    assert f(jnp.array([0, 2, 5])) == ["...", "aa.", "aaaaa"]
    assert sorted(calls.seen) == ["", ".", "..", "...", "aa", "aa.", "aaaaa"]


def test_a_lane_that_is_done_stays_done_though_a_stochastic_condition_changes_its_mind(calls):
    answers = {0: iter([False, True, True]), 1: iter([True, True, False])}

    @xcs.host
    def go_on(lane: int) -> bool:
        return next(answers[int(lane)])

    def one(lane):
        return lax.while_loop(lambda c: go_on(c[0]), lambda c: (c[0], c[1] + 1), (lane, 0))[1]

    assert xcs.jit.trace(jax.vmap(one))(jnp.arange(2)).tolist() == [0, 2]


def nested_loops(increment):
    def one(limit):
        def body(carry):
            turn, total = carry
            total = lax.while_loop(lambda x: x < turn + 1, increment, total * 0.0)
            return turn + 1, total

        return lax.while_loop(lambda c: c[0] < limit, body, (0.0, 0.0))[1]

    return one


def test_a_loop_in_a_loop_calls_for_live_lanes_of_both(calls, increment):
    result = xcs.jit.trace(jax.vmap(nested_loops(increment)))(jnp.array(LIMITS))
    assert result.tolist() == LIMITS
    assert len(calls) == sum(turn + 1 for n in LIMITS for turn in range(int(n)))


def test_a_loop_in_a_loop_under_two_vmaps_calls_for_live_lanes_of_both(calls, increment):
    limits = jnp.array([LIMITS, [2.0, 0.0, 1.0]])
    result = xcs.jit.trace(jax.vmap(jax.vmap(nested_loops(increment))))(limits)
    assert result.tolist() == limits.tolist()
    expected = sum(k + 1 for n in limits.ravel().tolist() for k in range(int(n)))
    assert len(calls) == expected


def test_an_inner_loop_with_a_fixed_number_of_turns_calls_for_live_lanes(calls, increment):
    def one(limit):
        def body(carry):
            turn, total = carry
            inner = lambda c: (c[0] + 1, increment(c[1]))  # noqa: E731
            return turn + 1, lax.while_loop(lambda c: c[0] < 2, inner, (0, total))[1]

        return lax.while_loop(lambda c: c[0] < limit, body, (0.0, 0.0))[1]

    result = xcs.jit.trace(jax.vmap(one))(jnp.array(LIMITS))
    assert result.tolist() == [2 * n for n in LIMITS]
    assert len(calls) == 2 * TURNS


def test_a_scan_in_a_loop_calls_for_live_lanes(calls, increment):
    def one(limit):
        def body(carry):
            turn, total = carry
            total, _ = lax.scan(lambda x, _: (increment(x), None), total, None, length=2)
            return turn + 1, total

        return lax.while_loop(lambda c: c[0] < limit, body, (0.0, 0.0))[1]

    result = xcs.jit.trace(jax.vmap(one))(jnp.array(LIMITS))
    assert result.tolist() == [2 * n for n in LIMITS]
    assert len(calls) == 2 * TURNS


def test_a_loop_in_a_scan_calls_for_live_lanes(calls, increment):
    def one(limit):
        def body(carry, x):
            return count_up(increment, limit, carry * 0.0) + x, carry

        return lax.scan(body, 0.0, jnp.arange(2.0))

    last, _ = xcs.jit.trace(jax.vmap(one))(jnp.array(LIMITS))
    assert last.tolist() == [n + 1 for n in LIMITS]
    assert len(calls) == 2 * TURNS


def test_an_unbatched_branch_in_a_loop_calls_for_live_lanes(calls, increment):
    def one(limit, loud):
        def body(carry):
            turn, total = carry
            return turn + 1, lax.cond(loud, increment, lambda x: x - 1, total)

        return lax.while_loop(lambda c: c[0] < limit, body, (0.0, 0.0))[1]

    f = xcs.jit.trace(jax.vmap(one, in_axes=(0, None)))
    assert f(jnp.array(LIMITS), True).tolist() == LIMITS
    assert len(calls) == TURNS
    assert f(jnp.array(LIMITS), False).tolist() == [-n for n in LIMITS]
    assert len(calls) == TURNS


def test_a_branch_of_xcs_in_a_loop_of_lax_is_taken_by_live_lanes_alone(calls, increment):
    def one(limit):
        body = lambda c: (c[0] + 1, xcs.cond(c[0] > 0, increment, lambda x: x, c[1]))  # noqa: E731
        return lax.while_loop(lambda c: c[0] < limit, body, (0.0, 0.0))[1]

    result = xcs.jit.trace(jax.vmap(one))(jnp.array(LIMITS))
    assert result.tolist() == [max(n - 1, 0) for n in LIMITS]
    assert len(calls) == sum(max(int(n) - 1, 0) for n in LIMITS)


def test_a_call_inside_a_nested_jit_in_a_loop_gives_the_results_of_plain_python(increment):
    def one(limit):
        body = lambda c: (c[0] + 1, jax.vmap(jax.jit(increment))(c[1]))  # noqa: E731
        return lax.while_loop(lambda c: c[0] < limit, body, (0.0, jnp.zeros(3)))[1]

    result = xcs.jit.trace(jax.vmap(one))(jnp.array(LIMITS))
    assert result.tolist() == [[n] * 3 for n in LIMITS]


def test_live_lanes_go_to_the_batch_end_point_together():
    batches = []

    class Increment(xcs.HostOperator):
        def forward(self, x: float) -> float:
            raise AssertionError("calls of a batch go to forward_batch")

        def forward_batch(self, x):
            batches.append([float(v) for v in x])
            return [float(v) + 1 for v in x]

    increment = Increment()
    result = xcs.jit.trace(jax.vmap(lambda n: count_up(increment, n)))(jnp.array(LIMITS))
    assert result.tolist() == LIMITS
    assert batches == [[0.0, 0.0], [1.0], [2.0]]


def test_a_dead_lane_keeps_its_host_value(calls):
    @calls.host
    def extend(text: str, k: int) -> str:
        return f"{text}{k}"

    def one(limit, text):
        body = lambda c: (c[0] + 1, extend(c[1], c[0]))  # noqa: E731
        return lax.while_loop(lambda c: c[0] < limit, body, (0, text))[1]

    @xcs.jit.trace
    def f(limits, text):
        return jax.vmap(one, in_axes=(0, None))(limits, text)

    assert f(jnp.array([2, 0, 1]), "n") == ["n01", "n", "n0"]
    assert len(calls) == 3


def test_a_collective_over_the_lanes_works_beside_host_calls(increment):
    def one(limit, axis_share):
        body = lambda c: (increment(c[0]), lax.psum(1, "lanes"))  # noqa: E731
        return lax.while_loop(lambda c: c[0] < limit, body, (0.0, axis_share))

    f = xcs.jit.trace(jax.vmap(one, axis_name="lanes"))
    totals, counted = f(jnp.array(LIMITS), jnp.zeros(3, int))
    assert totals.tolist() == LIMITS
    np.testing.assert_array_equal(counted, [0, 3, 3])
