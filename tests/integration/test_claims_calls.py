"""How often host calls are made, in which order, and what waits for what."""

from __future__ import annotations

import threading

import jax
import jax.numpy as jnp
import pytest

import ember_xcs as xcs
from tests.counting import Calls

WAIT = 20.0  # seconds, after which a call that should have been let go fails


@pytest.fixture
def calls():
    return Calls()


def test_five_identical_stochastic_calls_are_five_calls(calls):
    @calls.host
    def sample(q: str) -> str:
        return f"{q}{len(calls)}"

    answers = xcs.jit.trace(lambda q: [sample(q) for _ in range(5)])("a")
    assert len(answers) == len(calls) == 5


def test_five_identical_deterministic_calls_are_one_call(calls):
    @calls.host(deterministic=True)
    def search(q: str) -> str:
        return q + "!"

    assert xcs.jit.trace(lambda q: [search(q) for _ in range(5)])("a") == ["a!"] * 5
    assert calls.seen == ["a"]


def test_deterministic_calls_of_different_arguments_are_not_merged(calls):
    @calls.host(deterministic=True)
    def search(q: str, k: int = 0) -> str:
        return f"{q}{k}"

    result = xcs.jit.trace(lambda q, r: [search(q), search(r), search(q, 1), search(q, k=1)])(
        "a", "b"
    )
    assert result == ["a0", "b0", "a1", "a1"]
    assert len(calls) == 3


def test_deterministic_calls_behind_one_another_are_merged(calls):
    @calls.host(deterministic=True)
    def search(q: str) -> str:
        return q + "!"

    assert xcs.jit.trace(lambda q: (search(search(q)), search(search(q))))("a") == ("a!!", "a!!")
    assert calls.seen == ["a", "a!"]


def test_deterministic_batches_are_merged_whole(calls):
    @calls.host(deterministic=True)
    def embed(k: int) -> float:
        return float(k)

    f = xcs.jit.trace(lambda ks: jax.vmap(embed)(ks) + jax.vmap(embed)(ks))
    assert f(jnp.arange(3)).tolist() == [0.0, 2.0, 4.0]
    assert len(calls) == 3


def test_an_unused_stochastic_call_is_still_made(calls):
    @calls.host
    def sample(q: str) -> str:
        return q

    assert xcs.jit.trace(lambda q: (sample(q), q)[1])("a") == "a"
    assert calls.seen == ["a"]


def test_an_unused_deterministic_call_is_not_made(calls):
    @calls.host(deterministic=True)
    def search(q: str) -> str:
        return q

    assert xcs.jit.trace(lambda q: (search(q), q)[1])("a") == "a"
    assert calls.seen == []


@pytest.mark.parametrize("deterministic", [False, True])
def test_side_effects_happen_in_program_order_though_unused(calls, deterministic):
    @calls.host(side_effects=True, deterministic=deterministic)
    def write(line: str) -> None:
        return None

    def f(q):
        for k in range(8):
            write(f"line {k}")
        return q

    xcs.jit.trace(f)("a")
    assert calls.seen == [f"line {k}" for k in range(8)]


def test_side_effects_of_different_operators_keep_the_program_order(calls):
    @calls.host(side_effects=True)
    def first(line: str) -> None: ...

    @calls.host(side_effects=True)
    def second(line: str) -> None: ...

    @xcs.host
    def slow(q: str) -> str:
        return q

    def f(q):
        first("1")
        second(slow("2"))
        first("3")
        second("4")

    xcs.jit.trace(f)("a")
    assert calls.seen == ["1", "2", "3", "4"]


def test_side_effects_in_a_loop_happen_in_order(calls):
    @calls.host(side_effects=True)
    def write(k: int) -> None: ...

    def body(k, carry):
        write(k)
        return carry

    xcs.jit.trace(lambda n: xcs.fori_loop(0, n, body, 0))(5)
    assert calls.seen == [0, 1, 2, 3, 4]


def test_an_unused_loop_with_stochastic_calls_is_still_run(calls):
    @calls.host
    def sample(k: int) -> int:
        return k

    f = xcs.jit.trace(lambda n: (jax.lax.fori_loop(0, n, lambda k, c: sample(c), 0), n)[1])
    assert int(f(3)) == 3
    assert len(calls) == 3


def test_a_fast_call_and_what_follows_it_do_not_wait_for_a_slow_call():
    followed = threading.Event()

    @xcs.host
    def fast(x: float) -> float:
        return x

    @xcs.host
    def slow(x: float) -> float:
        assert followed.wait(WAIT)  # it ends only after what follows the fast call has run
        return x

    @xcs.host
    def follow(x: float) -> float:
        followed.set()
        return x

    def f(x):
        a, b = fast(x), slow(x)
        after = jnp.sin(a) * 2
        return follow(after) + jnp.cos(a) * jnp.tanh(b) + after

    assert jnp.allclose(
        xcs.jit.trace(f)(1.0), jnp.sin(1.0) * 4 + jnp.cos(1.0) * jnp.tanh(1.0), rtol=1e-5
    )


def test_numeric_work_before_a_call_does_not_hold_up_another_call():
    ended = threading.Event()

    @xcs.host
    def first(x: float) -> float:
        ended.set()
        return x

    @xcs.host
    def gate(x: float) -> float:
        assert ended.wait(WAIT)
        return x

    def f(x):
        held = gate(x)
        return first(jnp.sin(x)) + jnp.sin(x) * held  # sin(x) is wanted before the gate and behind

    assert float(xcs.jit.trace(f)(0.0)) == 0.0


@pytest.mark.parametrize("scheduler", ["parallel", "adaptive"])
def test_branches_of_different_depth_run_through_without_waiting_for_each_other(scheduler):
    done = threading.Event()

    @xcs.host
    def step(x: float) -> float:
        return x + 1

    @xcs.host
    def last(x: float) -> float:
        done.set()
        return x

    @xcs.host
    def slow(x: float) -> float:
        assert done.wait(WAIT)
        return x

    def f(x):
        y = x
        for _ in range(4):
            y = step(y * 1.0)
        return slow(x) + last(y)

    assert float(xcs.jit.trace(f, options={"scheduler": scheduler})(1.0)) == 6.0


REGIONS = {
    "nothing numeric": (lambda op, x: op(x), 0),
    "before": (lambda op, x: op(x * 2 + 1), 1),
    "behind": (lambda op, x: op(x) * 2 + 1, 1),
    "before and behind": (lambda op, x: jnp.sin(op(x * 2)) + 1, 2),
    "between two": (lambda op, x: op(jnp.sin(op(x)) + 1), 1),
    "behind two": (lambda op, x: jnp.sin(op(x)) + jnp.cos(op(x)), 1),
    "chain of three": (lambda op, x: op(op(op(x * 2) + 1) + 1) + 1, 4),
    "long numeric part": (lambda op, x: sum(jnp.sin(op(x)) * k for k in range(20)), 1),
}


@pytest.mark.parametrize("program", REGIONS)
def test_regions_are_as_few_as_the_calls_allow(program):
    @xcs.host
    def op(x: float) -> float:
        return x

    build, count = REGIONS[program]
    f = xcs.jit.trace(lambda x: build(op, x))
    assert len(f.lower(1.0).regions) == count
    assert jnp.allclose(f(1.0), build(lambda v: v, 1.0), rtol=1e-5)


def test_what_stands_behind_a_call_is_compiled_while_the_call_runs():
    """The call ends only once a program has been compiled: the one behind it."""
    begun, compiled = threading.Event(), threading.Event()

    def listen(event: str, _seconds: float, **_more: object) -> None:
        if "backend_compile" in event and begun.is_set():
            compiled.set()

    @xcs.host(out=jax.ShapeDtypeStruct((17,), jnp.float32))
    def slow(x):
        begun.set()
        assert compiled.wait(WAIT)
        return x

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        f = xcs.jit.trace(lambda x: jnp.tanh(jnp.sin(slow(x)) + 0.12345))
        assert f(jnp.ones(17)).shape == (17,)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_a_second_call_compiles_nothing():
    compiled = Calls()

    def listen(event: str, _seconds: float, **_more: object) -> None:
        if "backend_compile" in event:
            compiled.add(event)

    @xcs.host
    def plus_one(x: float) -> float:
        return x + 1

    f = xcs.jit.trace(lambda x: jnp.sin(plus_one(jnp.cos(x))) + x)
    f(1.0)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        f(2.0)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert compiled.seen == []
