"""Loops and branches of ``xcs`` and of ``jax.lax`` with host calls in them.

The oracle is the same program in plain Python.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import ember_xcs as xcs
from tests.counting import Calls


@pytest.fixture
def calls():
    return Calls()


@pytest.fixture
def extend(calls):
    @calls.host
    def extend(text: str, k: int = 0) -> str:
        return f"{text}{k}"

    return extend


@pytest.fixture
def increment(calls):
    @calls.host
    def increment(x: float) -> float:
        return x + 1

    return increment


@xcs.host
def is_short(text: str) -> bool:
    return len(text) < 4


@xcs.host
def with_dot(text: str) -> str:
    return text + "."


WHILES = pytest.mark.parametrize("while_loop", [lax.while_loop, xcs.while_loop])
CONDS = pytest.mark.parametrize("cond", [lax.cond, xcs.cond])


@WHILES
def test_an_agent_loop_on_text(while_loop):
    f = xcs.jit.trace(lambda text: while_loop(is_short, with_dot, text))
    assert f("go") == "go.."
    assert f("stays") == "stays"


@WHILES
def test_a_loop_over_a_tree_of_numbers_and_text(while_loop, extend):
    def body(state):
        return {"k": state["k"] + 1, "text": extend(state["text"], state["k"])}

    f = xcs.jit.trace(lambda s: while_loop(lambda s: s["k"] < 3, body, s))
    result = f({"k": 0, "text": "n"})
    assert (int(result["k"]), result["text"]) == (3, "n012")


def test_a_text_known_while_staging_may_begin_a_loop(extend):
    f = xcs.jit.trace(lambda n: xcs.fori_loop(0, n, lambda k, text: extend(text, k), "n"))
    assert f(2) == "n01"


def test_a_text_known_while_staging_may_come_out_of_a_body():
    f = xcs.jit.trace(
        lambda n: xcs.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, "ran"), (0, "did not"))[1]
    )
    assert (f(0), f(1)) == ("did not", "ran")


def test_a_loop_outside_any_jit_runs_at_once(extend):
    assert xcs.while_loop(is_short, with_dot, "go") == "go.."
    assert xcs.fori_loop(0, 2, lambda k, text: extend(text, k), "n") == "n01"


def test_a_numeric_loop_is_that_of_lax():
    f = lambda loop: loop(lambda c: c < 5.0, lambda c: c * 1.5 + 1, jnp.float32(0.1))  # noqa: E731
    assert f(xcs.while_loop) == f(lax.while_loop)


def test_a_loop_of_xcs_in_a_loop_of_xcs_runs_its_turns(calls, increment):
    def body(carry):
        turn, total = carry
        return turn + 1, xcs.while_loop(lambda x: x < turn + 1, increment, total * 0)

    f = xcs.jit.trace(lambda n: xcs.while_loop(lambda c: c[0] < n, body, (0.0, 0.0)))
    assert [float(x) for x in f(3.0)] == [3.0, 3.0]
    assert len(calls) == 1 + 2 + 3


def test_lanes_of_a_loop_of_xcs_run_on_their_own(calls, increment):
    f = xcs.jit.trace(
        jax.vmap(lambda n: xcs.while_loop(lambda x: x < n, increment, 0.0), in_axes=0)
    )
    assert f(jnp.array([0.0, 1.0, 3.0])).tolist() == [0.0, 1.0, 3.0]
    assert calls.sorted == [0.0, 0.0, 1.0, 2.0]


def test_lanes_of_a_loop_of_xcs_under_two_vmaps_run_on_their_own(calls, increment):
    limits = jnp.array([[0.0, 1.0], [2.0, 0.0]])
    one = lambda n: xcs.while_loop(lambda x: x < n, increment, 0.0)  # noqa: E731
    assert xcs.jit.trace(jax.vmap(jax.vmap(one)))(limits).tolist() == limits.tolist()
    assert len(calls) == 3


@CONDS
@pytest.mark.parametrize(("loud", "expected"), [(True, "n1"), (False, "n2")])
def test_one_branch_is_run(cond, loud, expected, calls, extend):
    f = xcs.jit.trace(lambda p, t: cond(p, lambda t: extend(t, 1), lambda t: extend(t, 2), t))
    assert f(loud, "n") == expected
    assert len(calls) == 1


def test_the_result_of_a_host_call_chooses_the_branch(calls, extend):
    f = xcs.jit.trace(lambda t: xcs.cond(is_short(t), lambda t: extend(t, 1), lambda t: t, t))
    assert (f("ab"), f("abcd")) == ("ab1", "abcd")
    assert len(calls) == 1


def test_under_vmap_each_lane_takes_its_own_branch_alone(calls, increment):
    one = lambda x: xcs.cond(x > 1, increment, lambda x: x, x)  # noqa: E731
    result = xcs.jit.trace(jax.vmap(one))(jnp.array([0.0, 1.0, 2.0, 3.0]))
    assert result.tolist() == [0.0, 1.0, 3.0, 4.0]
    assert calls.sorted == [2.0, 3.0]


def test_a_batched_cond_of_lax_gives_the_results_of_plain_python(increment):
    one = lambda x: lax.cond(x > 1, increment, lambda x: x, x)  # noqa: E731
    result = xcs.jit.trace(jax.vmap(one))(jnp.array([0.0, 2.0]))
    assert result.tolist() == [0.0, 3.0]


@pytest.mark.parametrize(("index", "expected"), [(-3, "n0"), (0, "n0"), (1, "n1"), (7, "n2")])
def test_switch_runs_one_branch_and_brings_its_index_into_range(index, expected, calls, extend):
    branches = [lambda t, k=k: extend(t, k) for k in range(3)]
    assert xcs.jit.trace(lambda k, t: xcs.switch(k, branches, t))(index, "n") == expected
    assert len(calls) == 1


def test_switch_under_vmap_runs_one_branch_for_each_lane(calls, increment):
    branches = [increment, lambda x: x, lambda x: -x]
    f = xcs.jit.trace(jax.vmap(lambda k, x: xcs.switch(k, branches, x)))
    assert f(jnp.arange(3), jnp.array([1.0, 2.0, 3.0])).tolist() == [2.0, 2.0, -3.0]
    assert calls.seen == [1.0]


def test_a_switch_with_one_branch_runs_it(extend):
    assert xcs.jit.trace(lambda t: xcs.switch(0, [extend], t))("n") == "n0"


def test_branches_of_different_structure_are_an_error_of_jax(increment):
    f = xcs.jit.trace(lambda x: xcs.cond(x > 0, lambda x: (increment(x), x), increment, x))
    with pytest.raises((TypeError, xcs.TracingError), match=r"(?i)structure|branches|output"):
        f(1.0)


def test_fori_loop_with_bounds_known_only_at_run_time(calls, extend):
    f = xcs.jit.trace(lambda a, b, t: xcs.fori_loop(a, b, lambda k, t: extend(t, k), t))
    assert f(2, 5, "n") == "n234"
    assert f(5, 2, "n") == "n"


def test_fori_loop_with_known_bounds_is_differentiated_through_its_numeric_parts(increment):
    def loss(w):
        return xcs.fori_loop(0, 3, lambda _, x: w * x + increment(x) * 0, 1.0)

    assert float(xcs.jit.trace(jax.grad(loss))(2.0)) == 12.0


SCANS = pytest.mark.parametrize("scan", [lax.scan, xcs.scan])


@SCANS
def test_a_scan_gives_its_last_carry_and_the_results_of_its_steps(scan, calls, extend):
    def body(text, k):
        text = extend(text, k)
        return text, (text, k * 2)

    last, (texts, numbers) = xcs.jit.trace(lambda t: scan(body, t, jnp.arange(3)))("n")
    assert (last, texts, numbers.tolist()) == ("n012", ["n0", "n01", "n012"], [0, 2, 4])
    assert calls.seen == ["n", "n0", "n01"]


@SCANS
def test_a_scan_in_reverse_stacks_in_the_order_of_its_input(scan, extend):
    def body(text, k):
        text = extend(text, k)
        return text, text

    f = xcs.jit.trace(lambda t: scan(body, t, jnp.arange(3), reverse=True))
    assert f("n") == ("n210", ["n210", "n21", "n2"])


@SCANS
def test_a_scan_by_length_alone(scan, calls, increment):
    f = xcs.jit.trace(lambda x: scan(lambda c, _: (increment(c), c), x, None, length=4))
    last, column = f(0.0)
    assert (float(last), column.tolist()) == (4.0, [0.0, 1.0, 2.0, 3.0])


def test_a_scan_in_two_steps(extend):
    def body(text, k):
        return extend(text, k), None

    assert xcs.jit.trace(lambda t: xcs.scan(body)(t, jnp.arange(2)))("n") == ("n01", None)


def test_a_scan_in_two_steps_keeps_its_settings(extend):
    def body(text, k):
        return extend(text, k), None

    f = xcs.jit.trace(lambda t: xcs.scan(body, reverse=True)(t, jnp.arange(2)))
    assert f("n") == ("n10", None)


def test_a_scan_without_carry_runs_at_once():
    last, results = xcs.scan(lambda c, x: (c, x * 2), None, jnp.arange(3))
    assert last is None
    assert results.tolist() == [0, 2, 4]


@SCANS
def test_a_scan_of_no_steps_returns_its_carry(scan, calls, extend):
    def body(text, k):
        text = extend(text, k)
        return text, text

    assert xcs.jit.trace(lambda t: scan(body, t, jnp.arange(0)))("n") == ("n", [])
    assert calls.seen == []


def test_a_scan_over_host_values(extend):
    @xcs.host
    def word(k: int) -> str:
        return "abc"[k]

    @xcs.host
    def join(a: str, b: str) -> str:
        return a + b

    @xcs.jit.trace
    def f(start):
        words = jax.vmap(word)(jnp.arange(3))
        return xcs.scan(lambda text, w: (join(text, w), None), start, words)[0]

    assert f("-") == "-abc"


def test_a_scan_over_a_list_of_texts_that_are_arguments():
    @xcs.host
    def join(a: str, b: str) -> str:
        return a + b

    @xcs.jit.trace
    def f(start, words):
        words = jnp.stack(words)
        return xcs.scan(lambda text, w: (join(text, w), text), start, words)

    assert f("-", ["a", "b"]) == ("-ab", ["-", "-a"])


def test_a_scan_under_vmap_calls_each_step_for_all_lanes(calls, increment):
    f = xcs.jit.trace(
        jax.vmap(lambda x: xcs.scan(lambda c, _: (increment(c), None), x, None, length=2)[0])
    )
    assert f(jnp.array([0.0, 10.0])).tolist() == [2.0, 12.0]
    assert calls.sorted == [0.0, 1.0, 10.0, 11.0]


def test_a_scan_is_differentiated_through_its_numeric_parts(increment):
    def loss(w, xs):
        return xcs.scan(lambda c, x: (c * w + increment(x), None), 1.0, xs)[0]

    gradient = xcs.jit.trace(jax.grad(loss))(2.0, jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(gradient, 2 * 2.0 + 1.0)


def test_lax_map_calls_one_element_after_the_other(calls, increment):
    assert xcs.jit.trace(lambda xs: lax.map(increment, xs))(jnp.arange(3.0)).tolist() == [1, 2, 3]
    assert calls.seen == [0.0, 1.0, 2.0]


def test_the_gradient_of_a_loop_with_calls_is_refused_with_the_remedy(increment):
    f = xcs.jit.trace(jax.grad(lambda x: xcs.while_loop(lambda c: c < 5, increment, x)))
    with pytest.raises(xcs.TracingError, match=r"xcs\.scan"):
        f(1.0)


def test_the_truth_of_a_text_is_no_predicate():
    f = xcs.jit.trace(lambda t: xcs.cond(with_dot(t), lambda: 1, lambda: 2))
    with pytest.raises(xcs.TracingError, match="-> bool"):
        f("a")


def test_a_loop_of_xcs_takes_host_values_that_jax_numpy_has_moved():
    @xcs.jit.trace
    def f(a, b, first):
        chosen = jnp.where(first, a, b)
        grown = xcs.while_loop(is_short, with_dot, chosen)
        return grown, xcs.cond(first, lambda t: jnp.stack([t])[0], with_dot, chosen)

    assert f("a", "bb", False) == ("bb..", "bb.")
    assert f("a", "bb", True) == ("a...", "a")


def test_a_loop_of_lax_that_mixes_arrays_and_host_values_is_an_error_with_the_remedy():
    @xcs.jit.trace
    def f(a, b):
        return lax.while_loop(is_short, with_dot, jnp.stack([a, b])[0])

    with pytest.raises(xcs.TracingError, match=r"xcs\.HostValue\(jnp\.stack") as raised:
        f("a", "b")
    assert "test_control_flow.py" in raised.value.user_line


def test_a_body_that_is_no_function_is_an_error_that_names_it():
    with pytest.raises(TypeError, match="body_fun"):
        xcs.while_loop(lambda c: False, 3, 0)


def test_an_error_in_a_body_names_the_operator_and_keeps_the_cause():
    @xcs.host
    def fail(text: str) -> str:
        raise ValueError("quota")

    f = xcs.jit.trace(lambda t: xcs.while_loop(is_short, fail, t))
    with pytest.raises(xcs.NodeExecutionError, match="fail") as raised:
        f("a")
    cause = raised.value
    while cause.__cause__ is not None:
        cause = cause.__cause__
    assert isinstance(cause, ValueError)
