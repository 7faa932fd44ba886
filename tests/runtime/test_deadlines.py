"""Deadlines, Ctrl-C and cancellation."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

import pytest

from ember_xcs._lower.plan import Executor
from ember_xcs._runtime.supervise import aexecute_plan, execute_plan
from ember_xcs._runtime.threads import threads
from ember_xcs.errors import ExecutionCancelled, ExecutionTimeout, NodeExecutionError
from tests.runtime.plans import Each, make_plan, node

SCHEDULERS = ["sequential", "topological", "parallel", "wave", "adaptive"]


class Gate:
    """A call that blocks its thread until the test ends."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()

    def __call__(self, *values):
        self.entered.set()
        while not self.opened.wait(0.05):  # between waits, a signal is noticed
            pass
        return 1


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.opened.set()


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_run_ends_at_its_deadline_with_what_it_has_and_names_abandoned_threads(
    scheduler, gate
) -> None:
    nodes = {"fast": node(lambda: 7), "slow": node(gate, "fast"), "after": node(gate, "slow")}
    start = time.perf_counter()
    with pytest.raises(
        ExecutionTimeout, match=r"0\.2 s.*'ember_xcs-worker-\d+' in node 'slow'"
    ) as e:
        execute_plan(make_plan(nodes), (), {"timeout_seconds": 0.2}, scheduler=scheduler)
    assert time.perf_counter() - start < 5
    assert e.value.partial_results == {"fast": 7}


def test_partial_results_are_returned_where_wanted(gate) -> None:
    plan = make_plan({"fast": node(lambda: 7), "slow": node(gate, "fast")})
    options = {"timeout_seconds": 0.2, "return_partial_results": True}
    run = execute_plan(plan, (), options)
    assert run.results == {"fast": 7}
    assert not run.complete
    assert run.timed_out


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_coroutines_are_cancelled_at_the_deadline_and_may_clean_up(scheduler) -> None:
    cleaned = []

    async def hang(item=0):
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(item)

    plan = make_plan(
        {"hang": node(hang, "x", executor=Executor.ASYNC, fan=Each(), concurrency=3)}, ["x"]
    )
    with pytest.raises(ExecutionTimeout):
        execute_plan(plan, ([1, 2, 3, 4],), {"timeout_seconds": 0.2}, scheduler=scheduler)
    assert sorted(cleaned) == ([1] if scheduler == "sequential" else [1, 2, 3])


def test_a_coroutine_that_will_not_be_cancelled_does_not_hold_up_the_deadline() -> None:
    release = asyncio.Event()

    async def stubborn():
        while not release.is_set():
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if time.perf_counter() - start > 1:
                    raise

    start = time.perf_counter()
    plan = make_plan({"stubborn": node(stubborn, executor=Executor.ASYNC)})
    with pytest.raises(ExecutionTimeout):
        execute_plan(plan, (), {"timeout_seconds": 0.1})
    assert time.perf_counter() - start < 5
    time.sleep(max(0.0, start + 1.1 - time.perf_counter()))  # so that it lets itself be cancelled


def test_a_run_within_its_deadline_is_not_touched() -> None:
    assert execute_plan(make_plan({"a": node(lambda: 1)}), (), {"timeout_seconds": 60}).complete


@pytest.mark.parametrize("executor", [Executor.THREAD, Executor.INLINE, Executor.ASYNC])
@pytest.mark.parametrize("on_error", ["raise", "continue"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_call_that_takes_too_long_is_a_failure_of_its_node(
    executor, on_error, scheduler, gate
) -> None:
    async def hang():
        await asyncio.Event().wait()

    slow = node(
        hang if executor is Executor.ASYNC else gate, executor=executor, timeout_seconds=0.1
    )
    plan = make_plan({"slow": slow, "after": node(lambda x: x, "slow"), "other": node(lambda: 2)})
    if on_error == "raise":
        with pytest.raises(NodeExecutionError, match=r"longer than its 0\.1 s") as caught:
            execute_plan(plan, (), scheduler=scheduler)
        assert isinstance(caught.value.__cause__, ExecutionTimeout)
        return
    run = execute_plan(plan, (), {"on_error": "continue"}, scheduler=scheduler)
    assert isinstance(run.errors["slow"].__cause__, ExecutionTimeout)
    assert run.results == {"other": 2}


def test_the_pool_replaces_abandoned_threads(gate) -> None:
    plan = make_plan({"slow": node(gate, timeout_seconds=0.05)})
    for _ in range(3):
        with pytest.raises(NodeExecutionError, match="abandoned"):
            execute_plan(plan, ())
    assert execute_plan(make_plan({f"n{i}": node(lambda: 1) for i in range(9)}), ()).complete
    assert threads.size >= 3


@pytest.mark.parametrize("options", [{}, {"timeout_seconds": 60.0}])
@pytest.mark.parametrize("scheduler", ["sequential", "parallel"])
def test_ctrl_c_ends_a_run_at_once_while_threads_are_busy(scheduler, options) -> None:
    gates = [Gate() for _ in range(4)]
    pid = os.getpid()

    def interrupt() -> None:
        assert gates[0].entered.wait(30)
        os.kill(pid, signal.SIGINT)

    killer = threading.Thread(target=interrupt)
    killer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            execute_plan(
                make_plan({f"n{i}": node(g) for i, g in enumerate(gates)}),
                (),
                options,
                scheduler=scheduler,
            )
    finally:
        killer.join()
        for each in gates:
            each.opened.set()


def test_ctrl_c_cancels_coroutines_in_flight() -> None:
    flying, cancelled, pid = threading.Event(), threading.Event(), os.getpid()

    async def fly():
        flying.set()
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    def interrupt() -> None:
        assert flying.wait(30)
        os.kill(pid, signal.SIGINT)

    killer = threading.Thread(target=interrupt)
    killer.start()
    with pytest.raises(KeyboardInterrupt):
        execute_plan(make_plan({"fly": node(fly, executor=Executor.ASYNC)}), ())
    killer.join()
    assert cancelled.is_set()


def test_cancelling_the_task_that_awaits_a_run_cancels_the_run() -> None:
    flying, cancelled = threading.Event(), threading.Event()

    async def fly():
        flying.set()
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    async def main() -> None:
        plan = make_plan({"fly": node(fly, executor=Executor.ASYNC)})
        task = asyncio.create_task(aexecute_plan(plan, ()))
        while not flying.is_set():  # noqa: ASYNC110  (set on another loop)
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert cancelled.is_set()


def test_the_asynchronous_twin_keeps_its_deadline(gate) -> None:
    async def main() -> None:
        with pytest.raises(ExecutionTimeout, match="'slow'"):
            await aexecute_plan(make_plan({"slow": node(gate)}), (), {"timeout_seconds": 0.1})

    asyncio.run(main())


def test_a_run_within_an_operator_is_cancelled_with_the_outer_run() -> None:
    flying, outcome, over = threading.Event(), [], threading.Event()

    async def fly():
        flying.set()
        await asyncio.sleep(60)

    def inner():
        try:
            execute_plan(make_plan({"fly": node(fly, executor=Executor.ASYNC)}), ())
        except ExecutionCancelled as error:
            outcome.append(error)
        finally:
            over.set()

    def fail():
        assert flying.wait(30)
        raise ValueError("boom")

    plan = make_plan({"inner": node(inner), "fail": node(fail)})
    with pytest.raises(NodeExecutionError, match="boom"):
        execute_plan(plan, (), {"timeout_seconds": 60.0})
    assert over.wait(30)
    assert len(outcome) == 1
