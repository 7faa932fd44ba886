"""Host calls in staged functions: batching, choosing, gradients, nesting.

The oracle is the same program in plain Python or plain JAX.
"""

from __future__ import annotations

import functools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pydantic
import pytest

import ember_xcs as xcs
from tests.counting import Calls


@pytest.fixture
def calls():
    return Calls()


@xcs.host
def name_of(k: int) -> str:
    return "abcdefgh"[k]


@xcs.host
def double(x: float) -> float:
    return 2 * x


def test_the_calls_of_a_batch_run_at_once():
    together = threading.Barrier(8, timeout=20)

    @xcs.host
    def meet(k: int) -> str:
        together.wait()  # passes only when all eight calls are in it
        return f"met {k}"

    assert xcs.jit.trace(jax.vmap(meet))(jnp.arange(8)) == [f"met {k}" for k in range(8)]


def test_asynchronous_calls_of_a_batch_run_at_once():
    arrived = Calls()
    gate = []

    @xcs.host
    async def meet(k: int) -> int:
        import asyncio

        if not gate:
            gate.append(asyncio.Event())
        arrived.add(k)
        if len(arrived) == 8:
            gate[0].set()
        await asyncio.wait_for(gate[0].wait(), 20)
        return k

    assert xcs.jit.trace(jax.vmap(meet))(jnp.arange(8)).tolist() == list(range(8))


def test_independent_calls_of_different_operators_run_at_once():
    together = threading.Barrier(2, timeout=20)

    @xcs.host
    def left(x: float) -> float:
        together.wait()
        return x + 1

    @xcs.host
    def right(x: float) -> float:
        together.wait()
        return x + 2

    assert float(xcs.jit.trace(lambda x: left(x) * right(x))(1.0)) == 6.0


def test_an_unbatched_call_under_vmap_is_made_once(calls):
    @calls.host
    def load(name: str) -> float:
        return 3.0

    f = xcs.jit.trace(jax.vmap(lambda x, name: x * load(name), in_axes=(0, None)))
    assert f(jnp.arange(4.0), "model").tolist() == [0.0, 3.0, 6.0, 9.0]
    assert calls.seen == ["model"]


def test_an_operand_that_is_not_batched_reaches_each_call_as_it_is(calls):
    @calls.host
    def answer(question: str, k: int) -> str:
        return f"{question}{k}"

    f = xcs.jit.trace(jax.vmap(answer, in_axes=(None, 0)))
    assert f("q", jnp.arange(2)) == ["q0", "q1"]
    assert calls.seen == ["q", "q"]


@pytest.mark.parametrize(
    ("outer", "inner"), [((0, None), (None, 0)), ((None, 0), (0, None)), ((0, 0), (0, None))]
)
def test_nested_vmaps_give_nested_batches(outer, inner):
    @xcs.host
    def subtract(x: float, y: float) -> float:
        return x - y

    def nested(f):
        return jax.vmap(jax.vmap(f, in_axes=inner), in_axes=outer)

    ranks = [(outer[k] == 0) + (inner[k] == 0) for k in range(2)]
    x, y = (jnp.arange(3.0**rank).reshape((3,) * rank) for rank in ranks)
    expected = nested(lambda a, b: a - b)(x, y)
    np.testing.assert_array_equal(xcs.jit.trace(nested(subtract))(x, y), expected)


def test_in_axes_count_from_the_end():
    x = jnp.arange(6.0).reshape(2, 3)
    f = jax.vmap(jax.vmap(double), in_axes=-1)
    np.testing.assert_array_equal(xcs.jit.trace(f)(x), 2 * x.T)


def test_out_axes_are_those_of_jax():
    @xcs.host(out=jax.ShapeDtypeStruct((3,), jnp.float32))
    def row(k: int):
        return np.arange(3, dtype=np.float32) + k

    f = jax.vmap(row, out_axes=1)
    expected = np.stack([np.arange(3) + k for k in range(2)], axis=1)
    np.testing.assert_array_equal(xcs.jit.trace(f)(jnp.arange(2)), expected)


def test_a_collective_over_a_batch_of_results():
    f = jax.vmap(lambda x: jax.lax.psum(double(x), "i"), axis_name="i")
    assert xcs.jit.trace(f)(jnp.arange(3.0)).tolist() == [6.0] * 3


CHOICES = {
    "argmax": (lambda a, s: a[jnp.argmax(s)], "d"),
    "argsort": (lambda a, s: a[jnp.argsort(-s)[:3]], ["d", "b", "c"]),
    "slice": (lambda a, s: a[1:3], ["b", "c"]),
    "negative index": (lambda a, s: a[-1], "d"),
    "fancy": (lambda a, s: a[jnp.array([[0, 3], [1, 1]])], [["a", "d"], ["b", "b"]]),
    "numpy fancy": (lambda a, s: a[np.array([2, 0])], ["c", "a"]),
    "take": (lambda a, s: jnp.take(a, jnp.array([1, 1]), axis=0), ["b", "b"]),
    "stack": (lambda a, s: jnp.stack([a[0], a[3]]), ["a", "d"]),
    "concatenate": (lambda a, s: jnp.concatenate([a[:1], a[2:]]), ["a", "c", "d"]),
    "where": (lambda a, s: jnp.where(s > 1, a, a[::-1]), ["d", "b", "c", "d"]),
    "where scalar": (lambda a, s: jnp.where(s[0] > 1, a[0], a[1]), "b"),
    "reshape": (lambda a, s: jnp.reshape(a, (2, 2)), [["a", "b"], ["c", "d"]]),
    "flip": (lambda a, s: jnp.flip(a), ["d", "c", "b", "a"]),
    "new axis": (lambda a, s: a[:, None], [["a"], ["b"], ["c"], ["d"]]),
    "transpose": (lambda a, s: jnp.reshape(a, (2, 2)).T, [["a", "c"], ["b", "d"]]),
    "broadcast": (lambda a, s: jnp.broadcast_to(a[0], (2,)), ["a", "a"]),
    "iteration": (lambda a, s: list(a)[::2], ["a", "c"]),
    "unpacking": (lambda a, s: tuple(a), ("a", "b", "c", "d")),
    "tree": (lambda a, s: {"best": a[0], "all": [a]}, {"best": "a", "all": [["a", "b", "c", "d"]]}),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_numbers_choose_among_host_values(choice):
    choose, expected = CHOICES[choice]

    @xcs.jit.trace
    def f(scores):
        return choose(jax.vmap(name_of)(jnp.arange(4)), scores)

    assert f(jnp.array([0.0, 2.0, 1.5, 3.0])) == expected


def test_host_values_are_chosen_for_each_element_of_a_batch():
    @xcs.jit.trace
    def f(scores):
        return jax.vmap(lambda s: jax.vmap(name_of)(jnp.arange(3))[jnp.argmax(s)])(scores)

    assert f(jnp.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])) == ["b", "c"]


def test_choosing_by_a_score_calls_nothing_twice(calls):
    @calls.host
    def judge(text: str) -> float:
        return float(ord(text))

    @xcs.jit.trace
    def f(ks):
        names = jax.vmap(name_of)(ks)
        return names[jnp.argmax(jax.vmap(judge)(names))]

    assert f(jnp.array([2, 5, 1])) == "f"
    assert calls.sorted == ["b", "c", "f"]


class Verdict(pydantic.BaseModel):
    score: float
    why: str


@xcs.host
def verdict(k: int) -> Verdict:
    return Verdict(score=float(k % 3), why=f"because {k}")


def test_a_field_of_batched_records_is_an_array_and_another_host_values():
    @xcs.jit.trace
    def f(ks):
        v = jax.vmap(verdict)(ks)
        return v.why[jnp.argmax(v.score)], v.score

    why, scores = f(jnp.array([3, 5, 4]))
    assert why == "because 5"
    assert scores.tolist() == [0.0, 2.0, 1.0]


def test_a_record_is_chosen_whole_by_tree_map():
    @xcs.jit.trace
    def f(ks):
        v = jax.vmap(verdict)(ks)
        return jax.tree.map(lambda x: x[jnp.argmax(v.score)], v)

    best = f(jnp.array([3, 5, 4]))
    assert (type(best), float(best.score), best.why) == (Verdict, 2.0, "because 5")


def test_a_record_goes_to_another_operator_as_the_record_it_is():
    @xcs.host
    def describe(v: Verdict) -> str:
        return f"{type(v).__name__} {v.score} {v.why}"

    assert xcs.jit.trace(lambda k: describe(verdict(k)))(4) == describe(verdict(4))


def test_the_gradient_through_a_host_call_is_zero():
    f = lambda x: x * x + double(x)  # noqa: E731
    assert float(xcs.jit.trace(jax.grad(f))(3.0)) == 6.0


def test_parameters_around_a_host_call_are_trained():
    def loss(w, xs):
        answers = jax.vmap(double)(xs)
        return jnp.mean((w * answers - 6.0) ** 2)

    step = xcs.jit.trace(jax.value_and_grad(loss))
    w, xs = 0.0, jnp.array([1.0, 1.0])
    for _ in range(30):
        value, gradient = step(w, xs)
        w = w - 0.1 * gradient
    assert abs(float(w) - 3.0) < 1e-3
    assert float(value) < 1e-3


def test_the_gradient_of_a_vmap_and_the_vmap_of_a_gradient():
    one = lambda w, x: w * w * double(x)  # noqa: E731
    xs = jnp.array([1.0, 2.0])
    total = jax.grad(lambda w: jax.vmap(functools.partial(one, w))(xs).sum())
    each = jax.vmap(jax.grad(one), in_axes=(None, 0))
    assert float(xcs.jit.trace(total)(3.0)) == 36.0
    assert xcs.jit.trace(each)(3.0, xs).tolist() == [12.0, 24.0]


def test_the_forward_mode_derivative_through_a_host_call_is_zero():
    f = lambda x: x * x + double(x)  # noqa: E731
    value, tangent = xcs.jit.trace(lambda x: jax.jvp(f, (x,), (1.0,)))(3.0)
    assert (float(value), float(tangent)) == (15.0, 6.0)


def test_host_values_pass_through_a_differentiated_function():
    def loss(w, k):
        return w * w, name_of(k)

    gradient, text = xcs.jit.trace(jax.grad(loss, has_aux=True))(3.0, 2)
    assert (float(gradient), text) == (6.0, "c")


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint, xcs.jit, xcs.jit.trace])
def test_a_host_call_inside_a_nested_transformation(wrap, calls):
    @calls.host
    def triple(x: float) -> float:
        return 3 * x

    inner = wrap(lambda x: triple(x) + 1)
    assert float(xcs.jit.trace(lambda x: inner(x) * 2)(2.0)) == 14.0
    assert calls.seen == [2.0]


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint])
def test_the_gradient_through_a_nested_transformation_with_a_host_call(wrap):
    inner = wrap(lambda x: x * x + double(x))
    assert float(xcs.jit.trace(jax.grad(inner))(3.0)) == 6.0
    assert xcs.jit.trace(jax.vmap(jax.grad(inner)))(jnp.array([1.0, 2.0])).tolist() == [2.0, 4.0]


def test_checkpoint_does_not_repeat_a_host_call_for_the_gradient(calls):
    @calls.host
    def triple(x: float) -> float:
        return 3 * x

    f = jax.grad(jax.checkpoint(lambda w, x: jnp.sin(w) * triple(x)))
    expected = np.cos(1.0) * 6
    np.testing.assert_allclose(xcs.jit.trace(f)(1.0, 2.0), expected, rtol=1e-5)
    assert calls.seen == [2.0]


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint])
def test_an_unused_call_in_a_differentiated_function_is_still_made(wrap, calls):
    @calls.host
    def triple(x: float) -> float:
        return 3 * x

    f = jax.grad(wrap(lambda w, x: (triple(x), w * w)[1]))
    assert float(xcs.jit.trace(f)(3.0, 2.0)) == 6.0
    assert calls.seen == [2.0]


@pytest.mark.parametrize("checkpointed", [True, False])
def test_a_differentiated_scan_makes_each_call_once(checkpointed, calls):
    @calls.host
    def triple(x: float) -> float:
        return 3 * x

    def loss(w, xs):
        return jax.lax.scan(lambda c, x: (c * w + triple(x), None), 1.0, xs)[0]

    f = jax.grad(jax.checkpoint(loss) if checkpointed else loss)
    np.testing.assert_allclose(xcs.jit.trace(f)(2.0, jnp.array([1.0, 5.0])), 2 * 2.0 + 3.0)
    assert calls.seen == [1.0, 5.0]


def test_a_custom_derivative_rule_around_a_host_call_is_used():
    @jax.custom_vjp
    def scored(x):
        return double(x)

    scored.defvjp(lambda x: (double(x), x), lambda x, g: (g * 7.0,))
    assert float(xcs.jit.trace(scored)(3.0)) == 6.0
    assert float(xcs.jit.trace(jax.grad(scored))(3.0)) == 7.0


def test_a_custom_jvp_around_a_host_call_is_used():
    @jax.custom_jvp
    def scored(x):
        return double(x)

    scored.defjvp(lambda primals, tangents: (scored(*primals), 5.0 * tangents[0]))
    assert float(xcs.jit.trace(scored)(3.0)) == 6.0
    assert float(xcs.jit.trace(jax.grad(scored))(3.0)) == 5.0


def test_vmap_of_jit_and_jit_of_vmap_are_the_same():
    a = xcs.jit.trace(jax.vmap(jax.jit(double)))
    b = xcs.jit.trace(jax.jit(jax.vmap(double)))
    assert a(jnp.arange(3.0)).tolist() == b(jnp.arange(3.0)).tolist() == [0.0, 2.0, 4.0]


def test_a_jitted_function_inside_another_is_part_of_its_graph():
    inner = xcs.jit(lambda x: double(x) + 1)
    outer = xcs.jit.trace(lambda x: inner(x) * inner(x + 1))
    assert float(outer(1.0)) == 15.0
    graph = outer.graph(1.0)
    assert [graph[n].operator.kind for n in graph].count("host") == 2


def test_vmap_of_a_jitted_function_inside_another():
    inner = xcs.jit(lambda x: double(x) + 1)
    assert xcs.jit.trace(jax.vmap(inner))(jnp.arange(2.0)).tolist() == [1.0, 3.0]


def test_an_empty_batch_makes_no_call_and_gives_an_empty_result(calls):
    @calls.host
    def text(x: float) -> str:
        return "x"

    f = xcs.jit.trace(lambda xs: (jax.vmap(text)(xs), jax.vmap(double)(xs)))
    texts, numbers = f(jnp.zeros(0))
    assert (texts, numbers.shape, numbers.dtype) == ([], (0,), jnp.float32)
    assert calls.seen == []
