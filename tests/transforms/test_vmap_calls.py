"""When and how often ``vmap`` makes host calls: counted, overlapped, batched, and in async code."""

import asyncio
import contextvars
import threading

import jax.numpy as jnp
import numpy as np
import pytest

import ember_xcs as xcs
from tests.counting import Calls
from tests.transforms.functions import exclaimed, exclaimed_later, length, shout

SECONDS = 30
"""How long the parties of a barrier wait for one another before the test fails."""


# How often calls are made


def test_each_element_is_called_once():
    calls = Calls()
    xcs.vmap(calls.host(lambda t: t))([f"{k}" for k in range(20)])
    assert calls.sorted == sorted(f"{k}" for k in range(20))


def test_each_call_of_a_mixed_function_is_made_once():
    calls = Calls()

    @calls.host
    def counted(x: float) -> float:
        return x

    for _ in range(2):
        xcs.vmap(lambda x: counted(x) + counted(x + 10))(jnp.arange(3.0))
        assert calls.sorted == [0.0, 1.0, 2.0, 10.0, 11.0, 12.0]
        calls.clear()


def test_each_element_of_a_dynamic_function_is_called_once():
    calls = Calls()
    seen = calls.host(lambda t: t)
    assert xcs.vmap(lambda t: seen(t) + "!")(["a", "a", "b"]) == ["a!", "a!", "b!"]
    assert calls.sorted == ["a", "a", "b"]


def test_an_empty_batch_calls_nothing():
    calls = Calls()
    assert xcs.vmap(calls.host(lambda t: t))([]) == []
    assert xcs.vmap(calls.add)([]) == []
    assert len(calls) == 0


def test_a_call_that_depends_on_nothing_batched_is_made_once():
    calls = Calls()
    once = calls.host(lambda s: s + "1")
    staged = xcs.jit.trace(lambda s, t: (once(s), shout(t)))
    result = xcs.vmap(staged, in_axes=(None, 0))("s", ["a", "b"])
    assert result == (["s1", "s1"], ["A", "B"])
    assert calls.seen == ["s"]


def test_explaining_calls_nothing():
    calls = Calls()
    mapped = xcs.vmap(calls.host(lambda t: t))
    assert mapped.explain(["a"]).strategy == "trace"
    assert xcs.vmap(calls.add).explain(["a"]).strategy == "elements"
    assert len(calls) == 0


def test_the_explanation_says_why_it_is_not_staged():
    text = str(xcs.vmap(lambda t: t + "!").explain(["a"]))
    assert "a plain function is staged where all its arguments are arrays and numbers" in text


def test_an_operator_that_cannot_be_staged_is_called_for_each_element():
    class Branching(xcs.Operator):
        judge: xcs.HostOperator

        def forward(self, text):
            return "long" if self.judge(text) > 2 else "short"

    mapped = xcs.vmap(Branching(length))
    assert mapped(["abc", "a"]) == ["long", "short"]
    explanation = mapped.explain(["abc", "a"])
    assert explanation.strategy == "elements"
    assert "cannot be staged" in str(explanation)


# Concurrency: parties that wait for one another, so that too few at a time would never end


@pytest.mark.parametrize("declare", [lambda f: f, xcs.host], ids=["plain", "host"])
def test_all_elements_are_in_flight_together(declare):
    barrier = threading.Barrier(16)

    @declare
    def meet(text):
        barrier.wait(SECONDS)
        return text

    batch = [f"{k}" for k in range(16)]
    assert xcs.vmap(meet)(batch) == batch


@pytest.mark.parametrize("declare", [lambda f: f, xcs.host], ids=["plain", "host"])
def test_coroutines_are_in_flight_together(declare):
    waiting = []

    @declare
    async def meet(text):
        loop = asyncio.get_running_loop()
        waiting.append(loop.create_future())
        if len(waiting) == 16:
            for future in waiting:
                future.set_result(None)
        await asyncio.wait_for(waiting[int(text)], SECONDS)
        return text

    batch = [f"{k}" for k in range(16)]
    assert xcs.vmap(meet)(batch) == batch


@pytest.mark.parametrize("inner", [xcs.vmap, xcs.pmap, lambda f: xcs.jit(xcs.vmap(f))])
@pytest.mark.parametrize("declare", [lambda f: f, xcs.host], ids=["plain", "host"])
def test_nested_maps_overlap_fully(declare, inner):
    barrier = threading.Barrier(12)

    @declare
    def meet(text):
        barrier.wait(SECONDS)
        return text

    batch = [[f"{row}{column}" for column in range(4)] for row in range(3)]
    assert xcs.vmap(inner(meet))(batch) == batch


def test_what_finishes_first_does_not_come_first():
    done = threading.Event()

    @xcs.host
    def function(text: str) -> str:
        if text == "last":
            done.set()
        else:
            assert done.wait(SECONDS)
        return text

    assert xcs.vmap(function)(["first", "last"]) == ["first", "last"]


def test_max_workers_bounds_the_calls_in_flight():
    lock, inside, most = threading.Lock(), [0], [0]
    met = threading.Barrier(2)

    @xcs.host
    def function(text: str) -> str:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        met.wait(SECONDS)
        with lock:
            inside[0] -= 1
        return text

    with xcs.execution_options(max_workers=2):
        assert xcs.vmap(function)(["a", "b", "c", "d"]) == ["a", "b", "c", "d"]
    assert most == [2]


# Batch end points


class TenTimes(xcs.HostOperator):
    """Answers batches, and fails if it is asked one by one."""

    calls: Calls

    def forward(self, x: float) -> float:
        raise AssertionError("a batch goes to forward_batch")

    def forward_batch(self, x):
        self.calls.add(list(x))
        return [10 * value for value in x]


@pytest.mark.parametrize("mapped", [xcs.vmap, xcs.pmap, lambda f: xcs.jit(xcs.vmap(f))])
def test_a_batch_end_point_is_asked_once(mapped):
    calls = Calls()
    result = mapped(TenTimes(calls))(jnp.arange(3.0))
    np.testing.assert_array_equal(result, [0.0, 10.0, 20.0])
    assert calls.seen == [[0.0, 1.0, 2.0]]


def test_a_batch_end_point_within_a_function():
    calls = Calls()
    ten_times = TenTimes(calls)
    result = xcs.vmap(lambda x: ten_times(x * 2) + 1)(jnp.arange(3.0))
    np.testing.assert_array_equal(result, [1.0, 21.0, 41.0])
    assert calls.seen == [[0.0, 2.0, 4.0]]


def test_nested_maps_ask_a_batch_end_point_once():
    calls = Calls()
    result = xcs.vmap(xcs.vmap(TenTimes(calls)))(jnp.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(result, 10 * np.arange(6.0).reshape(2, 3))
    assert calls.seen == [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]]


def test_max_batch_size_cuts_the_calls_of_a_batch_end_point():
    class Cut(TenTimes):
        max_batch_size = 2

    calls = Calls()
    xcs.vmap(Cut(calls))(jnp.arange(5.0))
    assert calls.sorted == [[0.0, 1.0], [2.0, 3.0], [4.0]]


def test_an_empty_batch_does_not_ask_the_batch_end_point():
    calls = Calls()
    assert xcs.vmap(TenTimes(calls))([]).shape == (0,)
    assert calls.seen == []


def test_a_batch_end_point_behind_a_branch_is_asked_once():
    calls = Calls()
    ten_times = TenTimes(calls)
    branch = xcs.vmap(lambda x: xcs.cond(x > 0, ten_times, lambda y: y, x))
    np.testing.assert_array_equal(branch(jnp.arange(-1.0, 3.0)), [-1.0, 0.0, 10.0, 20.0])
    assert calls.seen == [[1.0, 2.0]]


def test_lanes_on_another_branch_pay_for_no_call():
    calls = Calls()

    @calls.host
    def counted(x: float) -> float:
        return 10 * x

    result = xcs.vmap(lambda x: xcs.cond(x > 0, counted, lambda y: y, x))(jnp.arange(-1.0, 3.0))
    np.testing.assert_array_equal(result, [-1.0, 0.0, 10.0, 20.0])
    assert calls.sorted == [1.0, 2.0]


# Async code around it


def test_acall_leaves_the_event_loop_free():
    async def main():
        loop, reached = asyncio.get_running_loop(), threading.Event()

        def function(text):
            loop.call_soon_threadsafe(reached.set)
            assert reached.wait(SECONDS), "the event loop was blocked"
            return text + "!"

        return await xcs.vmap(function).acall(["a", "b"])

    assert asyncio.run(main()) == ["a!", "b!"]


@pytest.mark.parametrize("function", [shout, exclaimed, exclaimed_later])
def test_acall_gives_what_a_call_gives(function):
    batch = ["ab", "c"]
    assert asyncio.run(xcs.vmap(function).acall(batch)) == xcs.vmap(function)(batch)


def test_acall_of_a_numeric_function():
    result = asyncio.run(xcs.vmap(jnp.sin).acall(jnp.arange(3.0)))
    np.testing.assert_allclose(result, np.sin(np.arange(3.0)), rtol=1e-6)


def test_plain_code_that_calls_async_operators_inside_an_event_loop():
    later = xcs.host(exclaimed_later)

    async def main():
        return xcs.vmap(lambda t: later(t) + "?")(["ab", "cd", "ef"])

    assert asyncio.run(main()) == ["ab!?", "cd!?", "ef!?"]


def test_numbers_through_an_async_function():
    async def add(x):
        return x + 1

    np.testing.assert_array_equal(xcs.vmap(add)(jnp.arange(3)), [1, 2, 3])


def test_context_variables_reach_every_element():
    name = contextvars.ContextVar("name")
    name.set("ada")
    assert xcs.vmap(lambda t: t + name.get())(["a", "b"]) == ["aada", "bada"]


def test_a_deadline_ends_a_map():
    release = threading.Event()

    def function(text):
        release.wait(SECONDS)
        return text

    with xcs.execution_options(timeout_seconds=0.2), pytest.raises(xcs.ExecutionTimeout):
        xcs.vmap(function)(["a", "b"])
    release.set()


def test_composite_operators_overlap_within_an_element():
    met = threading.Barrier(4)

    @xcs.host
    def meet(text: str) -> str:
        met.wait(SECONDS)
        return text

    class Both(xcs.Operator):
        first: xcs.HostOperator
        second: xcs.HostOperator

        def forward(self, text):
            return self.first(text), self.second(text)

    assert xcs.vmap(Both(meet, meet))(["a", "b"]) == (["a", "b"], ["a", "b"])


def test_choosing_among_the_results_by_numbers():
    @xcs.host
    def repeat(count: int) -> str:
        return "x" * count

    chosen = xcs.jit.trace(lambda counts: xcs.vmap(repeat)(counts)[jnp.argmax(counts)])
    assert chosen(jnp.array([1, 3, 2])) == "xxx"
