"""Calls that are ready together, and go to the batch end point of their operator together."""

from __future__ import annotations

import asyncio
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ember_xcs as xcs
from tests.counting import Calls
from tests.runtime.batched import Double, DoubleLater, inline, roots, run

COALESCING = ["parallel", "adaptive", "wave"]
IN_ORDER = ["sequential", "topological"]


# What goes together


@pytest.mark.parametrize("kind", [Double, DoubleLater])
@pytest.mark.parametrize("scheduler", COALESCING)
def test_calls_of_different_nodes_that_are_ready_go_together(scheduler, kind) -> None:
    calls = Calls()
    result = run(roots(kind(calls)), scheduler=scheduler)
    assert dict(result) == dict.fromkeys(["n0", "n1", "n2", "n3"], 6)
    assert calls.seen == [[3, 3, 3, 3]]


@pytest.mark.parametrize("kind", [Double, DoubleLater])
@pytest.mark.parametrize("scheduler", IN_ORDER)
def test_schedulers_in_order_make_one_call_after_another(scheduler, kind) -> None:
    calls = Calls()
    result = run(roots(kind(calls)), scheduler=scheduler)
    assert dict(result) == dict.fromkeys(["n0", "n1", "n2", "n3"], 6)
    assert calls.seen == [3, 3, 3, 3]


@pytest.mark.parametrize("scheduler", [*COALESCING, *IN_ORDER])
def test_elements_of_one_map_go_together_in_every_scheduler(scheduler) -> None:
    calls = Calls()
    program = xcs.jit.trace(jax.vmap(Double(calls)), options={"scheduler": scheduler})
    np.testing.assert_array_equal(program(jnp.arange(3)), [0, 2, 4])
    assert calls.seen == [[0, 1, 2]]


def test_maps_and_single_calls_of_different_call_sites_go_together() -> None:
    calls = Calls()
    double = Double(calls)

    @xcs.jit.trace
    def program(xs, ys, z):
        return jax.vmap(double)(xs), jax.vmap(lambda y: double(x=y))(ys), double(z)

    first, second, third = program(jnp.array([1, 2]), jnp.array([3, 4, 5]), 6)
    assert ([*first], [*second], third) == ([2, 4], [6, 8, 10], 12)
    assert [sorted(batch) for batch in calls.seen] == [[1, 2, 3, 4, 5, 6]]


def test_calls_of_another_instance_do_not_go_along() -> None:
    ones, others = Calls(), Calls()
    graph = roots(Double(ones), 2)
    for k in range(2):
        graph.add_node(Double(others), node_id=f"other{k}")
    other = Double(others)
    graph.add_node(other, node_id="a")
    graph.add_node(other, node_id="b")
    run(graph)
    assert ones.seen == [[3, 3]]
    assert sorted(map(str, others.seen)) == ["3", "3", "[3, 3]"]


def test_a_call_that_is_ready_alone_is_a_plain_call() -> None:
    calls = Calls()
    double = Double(calls)
    graph = xcs.XCSGraph("chain")
    a, b = graph.add_node(double, node_id="a"), graph.add_node(double, node_id="b")
    graph.connect(a, b.inputs["x"])
    assert run(graph)["b"] == 12
    assert calls.seen == [3, 6]


def test_what_one_node_makes_ready_goes_together() -> None:
    calls = Calls()
    double = Double(calls)
    graph = xcs.XCSGraph("fan out")
    source = graph.add_node(xcs.host(lambda x: x + 1), node_id="source")
    for k in range(3):
        graph.connect(source, graph.add_node(double, node_id=f"n{k}").inputs["x"])
    run(graph)
    assert calls.seen == [[4, 4, 4]]


def test_calls_gather_while_no_more_may_be_in_flight() -> None:
    calls, begun, released = Calls(), threading.Event(), threading.Event()

    class Held(Double):
        def forward(self, x: int) -> int:
            begun.set()
            assert released.wait(30)
            return super().forward(x)

    held = Held(calls)
    graph = xcs.XCSGraph("held")
    graph.add_node(held, node_id="first")
    before = None
    for k in range(3):  # the others become ready one by one, once the first has begun
        step = graph.add_node(inline(lambda x: begun.wait(30) and 4), node_id=f"x{k}")
        graph.connect(step, graph.add_node(held, node_id=f"n{k}").inputs["x"])
        if before is not None:
            graph.connect(before, step.inputs["x"])
        before = step
    graph.connect(before, graph.add_node(inline(lambda x: released.set())).inputs["x"])
    run(graph, max_workers=1, scheduler="parallel")
    assert calls.seen == [3, [4, 4, 4]]


@pytest.mark.parametrize("workers", [1, None])
def test_max_batch_size_of_the_operator_and_of_the_run_both_hold(workers) -> None:
    calls = Calls()

    class Cut(Double):
        max_batch_size = 3

    run(roots(Cut(calls), 7), max_workers=workers)
    sizes = [len(c) if isinstance(c, list) else 1 for c in calls.seen]
    assert sorted(sizes) == [1, 3, 3]
    calls.clear()
    run(roots(Cut(calls), 7), max_workers=workers, max_batch_size=2)
    assert sorted(len(c) if isinstance(c, list) else 1 for c in calls.seen) == [1, 2, 2, 2]


@pytest.mark.parametrize("scheduler", ["parallel", "sequential"])
def test_max_batch_size_of_the_run_cuts_a_map(scheduler) -> None:
    calls = Calls()
    options = {"max_batch_size": 2, "scheduler": scheduler}
    result = xcs.jit.trace(jax.vmap(Double(calls)), options=options)(jnp.arange(5))
    np.testing.assert_array_equal(result, [0, 2, 4, 6, 8])
    assert sorted(calls.seen) == [[0, 1], [2, 3], [4]]


def test_batches_may_be_in_flight_at_the_same_time() -> None:
    meeting = threading.Barrier(2, timeout=30)

    class Meets(Double):
        max_batch_size = 2

        def forward_batch(self, x):
            meeting.wait()
            return super().forward_batch(x)

    calls = Calls()
    run(roots(Meets(calls), 4))
    assert calls.seen == [[3, 3], [3, 3]]


def test_num_workers_bounds_the_calls_of_the_end_point() -> None:
    most, now, lock = [0], [0], threading.Lock()

    class Counts(Double):
        max_batch_size = 1

        def forward_batch(self, x):
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            result = super().forward_batch(x)
            with lock:
                now[0] -= 1
            return result

    calls = Calls()
    inner = xcs.pmap(Counts(calls), num_workers=1)
    np.testing.assert_array_equal(xcs.jit.trace(inner)(jnp.arange(5)), [0, 2, 4, 6, 8])
    assert most == [1]
    assert sorted(calls.seen) == [[0], [1], [2], [3], [4]]


def test_calls_that_were_written_differently_go_together() -> None:
    asked = []

    class Join(xcs.HostOperator):
        def forward(self, a: str, b: str = "b", *, end: str = ".") -> str:
            return a + b + end

        def forward_batch(self, a, b, *, end):
            asked.append((a, b, end))
            return [x + y + z for x, y, z in zip(a, b, end, strict=True)]

    join = Join()

    @xcs.jit.trace
    def program(text):
        return join(text), join(text, "c"), join(a=text, end="!")

    assert program("a") == ("ab.", "ac.", "ab!")
    assert asked == [(["a", "a", "a"], ["b", "c", "b"], [".", ".", "!"])]


def test_side_effects_are_not_coalesced() -> None:
    calls = Calls()

    class Write(Double):
        side_effects = True

    run(roots(Write(calls)))
    assert calls.seen == [3, 3, 3, 3]


def test_samples_of_a_stochastic_operator_stay_separate() -> None:
    class Count(xcs.HostOperator):
        numbers: list

        def forward(self, x: int) -> int:
            raise AssertionError("one by one")

        def forward_batch(self, x):
            self.numbers.extend(range(len(x)))
            return list(range(len(x)))

    count = Count([])
    samples = xcs.jit.structural(xcs.Ensemble(count, 4))(1)
    assert sorted(samples) == [0, 1, 2, 3]


@pytest.mark.parametrize("plain", ["forward", "forward_batch"])
def test_one_of_both_may_be_a_coroutine_function(plain) -> None:
    calls = Calls()

    class Mixed(DoubleLater):
        pass

    setattr(Mixed, plain, getattr(Double, plain))
    assert run(roots(Mixed(calls)))["n3"] == 6
    np.testing.assert_array_equal(xcs.jit.trace(jax.vmap(Mixed(calls)))(jnp.arange(2)), [0, 2])
    assert calls.seen == [[3, 3, 3, 3], [0, 1]]


def test_an_operator_whose_own_arrays_are_mapped_is_many_operators() -> None:
    class Scale(xcs.HostOperator):
        factor: jax.Array

        def forward(self, x: float) -> float:
            return float(self.factor) * x

        def forward_batch(self, x):
            raise AssertionError("each has its own factor")

    scaled = jax.vmap(lambda factor, x: Scale(factor)(x))
    result = xcs.jit.trace(scaled)(jnp.arange(3.0), jnp.ones(3))
    np.testing.assert_array_equal(result, [0.0, 1.0, 2.0])


# Windows


def gathering(calls: Calls, *, window: float = 30.0):
    """A node that is ready at once, and one that becomes ready only when ``go`` is set."""

    class Waits(Double):
        batch_window_seconds = window

    go, double = threading.Event(), Waits(calls)
    graph = xcs.XCSGraph("gathering")
    graph.add_node(double, node_id="early")
    gate = graph.add_node(xcs.host(lambda x: go.wait(30) and 5), node_id="gate")
    late = graph.add_node(double, node_id="late")
    graph.connect(gate, late.inputs["x"])
    return graph, go


@pytest.mark.parametrize("scheduler", ["parallel", "adaptive"])
def test_within_the_window_a_call_waits_for_others(scheduler) -> None:
    calls = Calls()
    graph, go = gathering(calls)
    go.set()
    result = run(graph, scheduler=scheduler)
    assert (result["early"], result["late"]) == (6, 10)
    assert calls.seen == [[3, 5]]


def test_the_window_of_the_run_holds_where_the_operator_does_not_say() -> None:
    calls = Calls()
    graph, go = gathering(calls, window=None)
    go.set()
    run(graph, batch_window_seconds=30.0)
    assert calls.seen == [[3, 5]]


def test_when_the_window_is_over_a_call_goes() -> None:
    calls, went = Calls(), threading.Event()

    class Tells(Double):
        batch_window_seconds = 0.02

        def forward(self, x: int) -> int:
            went.set()
            return super().forward(x)

    tells = Tells(calls)
    graph = xcs.XCSGraph("over")
    graph.add_node(tells, node_id="early")
    gate = graph.add_node(xcs.host(lambda x: went.wait(30) and 5), node_id="gate")
    late = graph.add_node(tells, node_id="late")
    graph.connect(gate, late.inputs["x"])
    assert run(graph)["late"] == 10
    assert calls.seen == [3, 5]


def test_a_window_of_the_operator_may_be_none_at_all() -> None:
    calls, went = Calls(), threading.Event()

    class Tells(Double):
        batch_window_seconds = 0

        def forward(self, x: int) -> int:
            went.set()
            return super().forward(x)

    graph = xcs.XCSGraph("none")
    tells = Tells(calls)
    graph.add_node(tells, node_id="early")
    gate = graph.add_node(xcs.host(lambda x: went.wait(30) and 5), node_id="gate")
    graph.connect(gate, graph.add_node(tells, node_id="late").inputs["x"])
    run(graph, batch_window_seconds=1000.0)
    assert calls.seen == [3, 5]


@pytest.mark.timeout(30)
def test_nobody_waits_for_calls_that_need_the_result_first() -> None:
    calls, went = Calls(), threading.Event()

    class Tells(Double):
        batch_window_seconds = 1000.0

        def forward(self, x: int) -> int:
            went.set()
            return super().forward(x)

    tells = Tells(calls)
    graph = xcs.XCSGraph("chain")
    a, b = graph.add_node(tells, node_id="a"), graph.add_node(tells, node_id="b")
    graph.connect(a, b.inputs["x"])
    graph.add_node(xcs.host(lambda x: went.wait(25)), node_id="other")  # in flight all the time
    assert run(graph)["b"] == 12
    assert calls.seen == [3, 6]


@pytest.mark.timeout(30)
def test_nobody_waits_for_others_that_wait_themselves() -> None:
    ones, others = Calls(), Calls()

    class Waits(Double):
        batch_window_seconds = 1000.0

    one, other = Waits(ones), Waits(others)
    graph = xcs.XCSGraph("crossed")
    graph.add_node(one, node_id="a1")
    graph.add_node(other, node_id="b1")
    graph.connect("b1", graph.add_node(one, node_id="a2").inputs["x"])
    graph.connect("a1", graph.add_node(other, node_id="b2").inputs["x"])
    result = run(graph)
    assert (result["a2"], result["b2"]) == (12, 12)


@pytest.mark.timeout(30)
def test_nobody_waits_for_calls_that_are_skipped() -> None:
    calls, went = Calls(), threading.Event()

    class Tells(Double):
        batch_window_seconds = 1000.0

        def forward(self, x: int) -> int:
            went.set()
            return super().forward(x)

    @xcs.host
    def fail(x: int) -> int:
        raise ValueError("no")

    tells = Tells(calls)
    graph = xcs.XCSGraph("skipped")
    graph.add_node(tells, node_id="early")
    graph.connect(
        graph.add_node(fail, node_id="fail"), graph.add_node(tells, node_id="late").inputs["x"]
    )
    graph.add_node(xcs.host(lambda x: went.wait(25)), node_id="other")
    result = run(graph, on_error="continue")
    assert set(result.skipped) == {"late"}
    assert calls.seen == [3]


@pytest.mark.timeout(30)
def test_a_full_batch_does_not_wait() -> None:
    calls, went = Calls(), threading.Event()

    class Tells(Double):
        batch_window_seconds = 1000.0
        max_batch_size = 2

        def forward_batch(self, x):
            went.set()
            return super().forward_batch(x)

    tells = Tells(calls)
    graph = roots(tells, 2)
    gate = graph.add_node(xcs.host(lambda x: went.wait(25) and 5), node_id="gate")
    graph.connect(gate, graph.add_node(tells, node_id="late").inputs["x"])
    assert run(graph)["late"] == 10
    assert calls.seen == [[3, 3], 5]


def test_a_run_that_is_stopped_makes_no_call_that_waits() -> None:
    calls = Calls()

    class Waits(Double):
        batch_window_seconds = 1000.0

    @xcs.host
    async def hang(x: int) -> int:
        await asyncio.Event().wait()

    waits = Waits(calls)
    graph = roots(waits, 2)
    gate = graph.add_node(hang, node_id="gate")
    graph.connect(gate, graph.add_node(waits, node_id="late").inputs["x"])
    with pytest.raises(xcs.ExecutionTimeout):
        run(graph, timeout_seconds=0.1)
    assert calls.seen == []
