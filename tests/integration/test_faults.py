"""Operators that fail, hang and lie, in staged functions and graphs."""

from __future__ import annotations

import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ember_xcs as xcs
from tests.counting import Calls

WAIT = 20.0  # seconds


@xcs.host
def plus_one(x: float) -> float:
    return x + 1


@xcs.host
def fail(x: float) -> float:
    raise ValueError("quota")


@pytest.fixture
def release():
    """An event that calls wait for; set at the end, so that no thread is left hanging."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def hang(release):
    @xcs.host
    def hang(x: float) -> float:
        release.wait(WAIT)
        return x

    return hang


def test_an_operator_that_raises_ends_the_run():
    with pytest.raises(xcs.NodeExecutionError, match=r"fail.*ValueError: quota") as raised:
        xcs.jit.trace(lambda x: fail(x) + plus_one(x))(1.0)
    assert isinstance(raised.value.__cause__, ValueError)


def test_what_depends_on_a_failed_call_is_not_run():
    calls = Calls()
    after = calls.host(plus_one.function)
    with pytest.raises(xcs.NodeExecutionError):
        xcs.jit.trace(lambda x: after(fail(x)))(1.0)
    assert calls.seen == []


def test_an_error_is_raised_though_another_call_is_in_flight(release):
    begun = threading.Event()

    @xcs.host
    def slow(x: float) -> float:
        begun.set()
        release.wait(WAIT)
        return x

    @xcs.host
    def fail_then(x: float) -> float:
        assert begun.wait(WAIT)
        raise ValueError("quota")

    timer = threading.Timer(0.2, release.set)  # the call in flight ends after the failure
    timer.start()
    after = Calls()
    f = xcs.jit.trace(lambda x: (fail_then(x), after.host(plus_one.function)(slow(x))))
    with pytest.raises(xcs.NodeExecutionError, match="quota"):
        f(1.0)
    timer.join()
    assert after.seen == []


@pytest.mark.parametrize(
    "answer",
    ["text", None, [1.0], 1j, np.ones(2)],
    ids=["text", "none", "list", "complex", "array"],
)
def test_a_result_of_another_type_than_declared_is_an_error(answer):
    @xcs.host
    def lie(x: float) -> float:
        return answer

    with pytest.raises(xcs.NodeExecutionError, match=r"lie.*declares to return float"):
        xcs.jit.trace(lambda x: lie(x) * 2)(1.0)


def test_the_batch_end_point_returns_one_result_for_each_call():
    class Short(xcs.HostOperator):
        def forward(self, x: float) -> float:
            return x

        def forward_batch(self, x):
            return x[:-1]

    with pytest.raises(xcs.NodeExecutionError, match="3 calls and returned 2"):
        xcs.jit.trace(jax.vmap(Short()))(jnp.arange(3.0))


def test_the_first_failing_element_of_a_batch_is_named():
    @xcs.host
    def check(k: int) -> int:
        if k in (2, 4):
            raise ValueError(f"bad {k}")
        return k

    with pytest.raises(xcs.NodeExecutionError, match=r"element [24].*bad [24]"):
        xcs.jit.trace(jax.vmap(check))(jnp.arange(5))


def test_no_further_elements_of_a_batch_begin_after_a_failure():
    calls = Calls()

    @calls.host
    def check(k: int) -> int:
        raise ValueError("bad")

    with pytest.raises(xcs.NodeExecutionError):
        xcs.jit.trace(jax.vmap(check), options={"scheduler": "sequential"})(jnp.arange(100))
    assert len(calls) == 1


def test_a_call_that_takes_longer_than_its_timeout_is_an_error(release):
    @xcs.host(timeout=0.05)
    def slow(x: float) -> float:
        release.wait(WAIT)
        return x

    with pytest.raises(xcs.XCSError, match=r"slow.*longer than its 0\.05 s"):
        xcs.jit.trace(lambda x: slow(x) + 1)(1.0)


def test_a_run_that_passes_its_deadline_ends_with_partial_results(hang):
    f = xcs.jit.trace(lambda x: hang(plus_one(x)), options={"timeout_seconds": 0.2})
    with pytest.raises(xcs.ExecutionTimeout) as raised:
        f(1.0)
    assert float(raised.value.partial_results["plus_one"]) == 2.0


def test_a_graph_that_passes_its_deadline_ends_with_partial_results(hang):
    graph = xcs.XCSGraph("g")
    graph.connect(graph.add_node(plus_one, node_id="a"), graph.add_node(hang, node_id="b"))
    with pytest.raises(xcs.ExecutionTimeout) as raised:
        xcs.execute_graph(graph, {"x": 1.0}, options={"timeout_seconds": 0.2})
    assert raised.value.partial_results["a"] == 2.0


def test_a_deadline_reaches_into_a_loop(release):
    turns = Calls()

    @turns.host
    def turn(x: float) -> float:
        if len(turns) == 3:
            release.wait(WAIT)
        return x + 1

    f = xcs.jit.trace(
        lambda n: xcs.while_loop(lambda x: x < n, turn, 0.0), options={"timeout_seconds": 0.5}
    )
    with pytest.raises(xcs.ExecutionTimeout):
        f(100.0)
    assert len(turns) == 3


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_nested_runs_with_one_worker_come_to_their_end(depth):
    f = xcs.jit.trace(lambda x: plus_one(x) * 2)
    for _ in range(depth):

        @xcs.host
        def nested(x: float, inner=f) -> float:
            return float(inner(x))

        f = xcs.jit.trace(lambda x, nested=nested: nested(x) + nested(x))
    with xcs.execution_options(max_workers=1):
        assert float(f(1.0)) == 4.0 * 2**depth


def test_a_nested_batch_with_one_worker_comes_to_its_end():
    inner = xcs.jit.trace(lambda x: jax.vmap(plus_one)(jnp.arange(4.0) + x).sum())

    @xcs.host
    def outer(x: float) -> float:
        return float(inner(x))

    with xcs.execution_options(max_workers=1):
        assert xcs.jit.trace(jax.vmap(outer))(jnp.arange(2.0)).tolist() == [10.0, 14.0]


def test_runs_from_many_threads_do_not_disturb_each_other():
    @xcs.host
    def tag(text: str, k: int) -> str:
        return f"{text}{k}"

    f = xcs.jit.trace(jax.vmap(tag, in_axes=(None, 0)))
    results = {}
    begin = threading.Barrier(8, timeout=WAIT)

    def run(name):
        begin.wait()
        results[name] = [f(name, jnp.arange(5)) for _ in range(10)]

    threads = [threading.Thread(target=run, args=(f"n{k}.",)) for k in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert results == {f"n{k}.": [[f"n{k}.{j}" for j in range(5)]] * 10 for k in range(8)}


def test_an_error_in_one_thread_does_not_reach_another():
    @xcs.host
    def check(x: float) -> float:
        if x < 0:
            raise ValueError("negative")
        return x

    f, outcomes = xcs.jit.trace(lambda x: check(x) * 2), Calls()

    def run(x):
        try:
            outcomes.add((x, float(f(x))))
        except xcs.NodeExecutionError:
            outcomes.add((x, None))

    threads = [threading.Thread(target=run, args=(float(k),)) for k in range(-4, 4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert outcomes.sorted == [(float(k), 2.0 * k if k >= 0 else None) for k in range(-4, 4)]


def test_a_function_works_after_it_has_failed():
    broken = [True]

    @xcs.host
    def check(x: float) -> float:
        if broken:
            raise ValueError("quota")
        return x

    f = xcs.jit.trace(lambda x: check(x) + plus_one(x))
    with pytest.raises(xcs.NodeExecutionError):
        f(1.0)
    broken.clear()
    assert float(f(1.0)) == 3.0


@pytest.fixture
def interruptible():
    """Ctrl-C as usual: a shell starts background jobs deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_a_run_that_waits(release):
    begun = threading.Event()

    @xcs.host
    def slow(x: float) -> float:
        begun.set()
        release.wait(WAIT)
        return x

    def interrupt():
        assert begun.wait(WAIT)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    def run():
        xcs.jit.trace(lambda x: slow(x) + slow(x + 1))(1.0)
        release.wait(WAIT)  # the interrupt comes here at the latest

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run()
    thread.join()


def test_no_thread_is_left_after_the_pools_are_shut_down():
    xcs.shutdown_pools()
    before = set(threading.enumerate())

    @xcs.host
    async def later(x: float) -> float:
        return x

    f = xcs.jit.trace(lambda xs: jax.vmap(plus_one)(xs) + jax.vmap(later)(xs))
    assert f(jnp.arange(8.0)).tolist() == [2.0 * k + 1 for k in range(8)]
    assert xcs.shutdown_pools() == []
    assert set(threading.enumerate()) <= before
    assert f(jnp.arange(2.0)).tolist() == [1.0, 3.0]  # and they start again


def test_numeric_parts_that_fail_name_their_region():
    @xcs.host(out=jax.ShapeDtypeStruct((2,), jnp.float32))
    def pair(x: float):
        return jnp.ones(2)

    with pytest.raises((xcs.XCSError, TypeError), match=r"(?i)shapes|incompatible"):
        xcs.jit.trace(lambda x: pair(x) + jnp.ones(3))(1.0)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_is_not_an_exception_ends_the_run_as_itself(kind):
    @xcs.host
    def leave(x: float) -> float:
        raise kind("bye")

    with pytest.raises(kind):
        xcs.jit.trace(lambda x: leave(x) + plus_one(x))(1.0)
    assert float(xcs.jit.trace(lambda x: plus_one(x) + 0)(1.0)) == 2.0


def test_errors_in_graphs_are_kept_beside_what_succeeded():
    graph = xcs.XCSGraph("g")
    graph.add_node(plus_one, node_id="good")
    graph.connect(graph.add_node(fail, node_id="bad"), graph.add_node(plus_one, node_id="after"))
    result = xcs.execute_graph(graph, {"x": 1.0}, options={"on_error": "continue"}, outputs="all")
    assert result["good"] == 2.0
    assert isinstance(result.errors["bad"].__cause__, ValueError)
    assert "after" in result.skipped
    assert not result.complete
