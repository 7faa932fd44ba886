"""What there is of a batch when its run ends before all of its calls have."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import jax
import jax.numpy as jnp
import pytest

import ember_xcs as xcs
from ember_xcs._lower.plan import Executor
from ember_xcs._runtime.supervise import execute_plan
from tests.counting import Calls
from tests.runtime.batched import Double
from tests.runtime.plans import Each, make_plan, node

SCHEDULERS = ["sequential", "topological", "parallel", "wave", "adaptive"]


def shown(partial: object) -> object:
    """The structure of a partial result, with the types of exceptions in their places."""
    if isinstance(partial, list):
        return [shown(item) for item in partial]
    return type(partial) if isinstance(partial, BaseException) else partial


class Finishing:
    """Coroutines for 0, 1, 2, ... of which the first few end and the others never do."""

    def __init__(self, count: int) -> None:
        self.count, self.ended = count, threading.Semaphore(0)

    async def __call__(self, item: int) -> int:
        if item >= self.count:
            await asyncio.Event().wait()
        self.ended.release()
        return 10 * item

    def wait(self) -> None:
        for _ in range(self.count):
            assert self.ended.acquire(timeout=30)


def plan_of(finishing: Finishing, **others):
    fan = node(finishing, "x", executor=Executor.ASYNC, fan=Each())
    return make_plan({"fan": fan, "after": node(len, "fan"), **others}, ["x"])


EXPECTED = [0, 10, xcs.ExecutionCancelled, xcs.ExecutionCancelled]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_spent_budget_leaves_the_calls_that_were_made(scheduler) -> None:
    ask = xcs.host(lambda x: f"answer {x}", name="ask")
    program = xcs.jit.trace(jax.vmap(ask))
    options = {"budget": xcs.Budget(calls=2), "max_workers": 1, "scheduler": scheduler}
    with xcs.execution_options(**options), pytest.raises(xcs.BudgetExceeded) as caught:
        program(jnp.arange(4))
    cancelled = xcs.ExecutionCancelled
    assert shown(caught.value.partial_results["ask"]) == [
        "answer 0", "answer 1", cancelled, cancelled,
    ]  # fmt: skip
    error = caught.value.partial_results["ask"][3]
    assert "element 3 of node 'ask' had no result when its run ended" in str(error)


@pytest.mark.parametrize("scheduler", ["parallel", "wave"])
def test_a_deadline_leaves_the_calls_that_have_ended(scheduler) -> None:
    with pytest.raises(xcs.ExecutionTimeout) as caught:
        execute_plan(
            plan_of(Finishing(2)), ([0, 1, 2, 3],), {"timeout_seconds": 0.2}, scheduler=scheduler
        )
    assert {k: shown(v) for k, v in caught.value.partial_results.items()} == {"fan": EXPECTED}


def test_the_budget_of_seconds_leaves_the_calls_that_have_ended() -> None:
    with pytest.raises(xcs.BudgetExceeded) as caught:
        execute_plan(plan_of(Finishing(2)), ([0, 1, 2, 3],), {"budget": xcs.Budget(seconds=0.2)})
    assert shown(caught.value.partial_results["fan"]) == EXPECTED


def test_results_that_are_returned_in_part_have_the_parts_of_batches() -> None:
    run = execute_plan(
        plan_of(Finishing(2)),
        ([0, 1, 2, 3],),
        {"timeout_seconds": 0.2, "return_partial_results": True},
    )
    result = xcs.ExecutionResult(run)
    assert {k: shown(v) for k, v in result.items()} == {"fan": EXPECTED}
    assert not result.complete
    with pytest.raises(KeyError, match="not computed before the deadline"):
        result["after"]


def test_a_batch_of_which_no_call_has_ended_is_no_partial_result() -> None:
    with pytest.raises(xcs.ExecutionTimeout) as caught:
        execute_plan(plan_of(Finishing(0)), ([0, 1],), {"timeout_seconds": 0.1})
    assert caught.value.partial_results == {}


@pytest.mark.parametrize("options", [{}, {"timeout_seconds": 60.0}])
def test_ctrl_c_leaves_the_calls_that_have_ended(options) -> None:
    finishing, pid = Finishing(2), os.getpid()

    def interrupt() -> None:
        finishing.wait()
        os.kill(pid, signal.SIGINT)

    killer = threading.Thread(target=interrupt)
    scheduler = xcs.ParallelScheduler()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    killer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            execute_plan(plan_of(finishing), ([0, 1, 2, 3],), options, scheduler=scheduler)
    finally:
        killer.join()
        signal.signal(signal.SIGINT, before)
    assert shown(scheduler.get_partial_results()["fan"]) == EXPECTED


def test_the_error_of_another_node_leaves_the_calls_that_have_ended() -> None:
    finishing, scheduler = Finishing(2), xcs.ParallelScheduler()

    def fail() -> None:
        finishing.wait()
        raise ValueError("no")

    with pytest.raises(xcs.NodeExecutionError):
        execute_plan(plan_of(finishing, fail=node(fail)), ([0, 1, 2, 3],), scheduler=scheduler)
    assert shown(scheduler.get_partial_results()["fan"]) == EXPECTED


@pytest.mark.parametrize("on_error", ["raise", "continue"])
@pytest.mark.parametrize("executor", [Executor.THREAD, Executor.INLINE])
def test_the_error_of_a_call_stands_in_its_place(executor, on_error) -> None:
    def check(item: int) -> int:
        if item == 2:
            raise ValueError("two")
        return 10 * item

    plan = make_plan({"fan": node(check, "x", fan=Each(), executor=executor)}, ["x"])
    scheduler = xcs.ParallelScheduler(max_workers=1)
    options = {"on_error": on_error, "return_partial_results": True}
    try:
        run = execute_plan(plan, ([0, 1, 2, 3],), options, scheduler=scheduler)
    except xcs.NodeExecutionError:
        assert on_error == "raise"
    else:
        assert dict(xcs.ExecutionResult(run)) == {}  # the node has failed
    partial = shown(scheduler.get_partial_results()["fan"])
    assert partial == [0, 10, ValueError, xcs.ExecutionCancelled]


def test_finished_batches_of_an_end_point_are_kept_by_element() -> None:
    class Cut(Double):
        max_batch_size = 2

    calls = Calls()
    program = xcs.jit.trace(jax.vmap(Cut(calls)))
    options = {"budget": xcs.Budget(calls=3), "max_workers": 1}
    with xcs.execution_options(**options), pytest.raises(xcs.BudgetExceeded) as caught:
        program(jnp.arange(5))
    (partial,) = [v for k, v in caught.value.partial_results.items() if k != "result_0"]
    cancelled = xcs.ExecutionCancelled
    assert shown(partial) == [0, 2, cancelled, cancelled, cancelled]
    assert calls.seen == [[0, 1]]


def test_a_batch_of_several_axes_is_nested_lists() -> None:
    ask = xcs.host(lambda x: x + 0, name="ask")
    program = xcs.jit.trace(jax.vmap(jax.vmap(ask)))
    options = {"budget": xcs.Budget(calls=3), "max_workers": 1}
    with xcs.execution_options(**options), pytest.raises(xcs.BudgetExceeded) as caught:
        program(jnp.arange(4).reshape(2, 2))
    assert shown(caught.value.partial_results["ask"]) == [[0, 1], [2, xcs.ExecutionCancelled]]


def test_elements_that_are_mapped_one_by_one_are_kept_too() -> None:
    options = {"budget": xcs.Budget(calls=2), "max_workers": 1}
    ask = xcs.host(lambda text: text.upper(), name="ask")
    mapped = xcs.pmap(ask, executor="thread", chunk_size=2)
    with xcs.execution_options(**options), pytest.raises(xcs.BudgetExceeded) as caught:
        mapped(["a", "b", "c", "d", "e", "f"])
    (partial,) = [v for k, v in caught.value.partial_results.items() if k == "results"]
    cancelled = xcs.ExecutionCancelled
    assert shown(partial) == ["A", "B", "C", "D", cancelled, cancelled]
