"""How a run fails."""

from __future__ import annotations

import asyncio
import threading
import traceback

import numpy as np
import pytest

from ember_xcs._lower.plan import Executor
from ember_xcs._runtime.supervise import aexecute_plan, execute_plan
from ember_xcs.errors import NodeExecutionError, XCSError
from tests.runtime.plans import Each, make_plan, node

SCHEDULERS = ["sequential", "topological", "parallel", "wave", "adaptive"]


def boom(*values):
    raise ValueError("boom")


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_error_names_the_node_the_operator_and_the_shapes_of_its_inputs(scheduler) -> None:
    plan = make_plan({"judge": node(boom, "x", "text")}, ["x", "text"])
    with pytest.raises(NodeExecutionError) as caught:
        execute_plan(plan, (np.zeros((3, 4), np.float32), "secret prompt"), scheduler=scheduler)
    error = caught.value
    assert (error.node_id, error.operator) == ("judge", "op_judge")
    assert error.inputs == "float32[3, 4], str[13]"
    assert "secret" not in str(error)
    assert isinstance(error.__cause__, ValueError)
    assert "boom" in "".join(traceback.format_tb(error.__cause__.__traceback__))


@pytest.mark.parametrize("executor", [Executor.THREAD, Executor.ASYNC, Executor.INLINE])
def test_a_failing_call_of_a_fan_is_named(executor) -> None:
    def call(item):
        if item == 30:
            raise ValueError("boom")
        return item

    async def acall(item):
        return call(item)

    run = acall if executor is Executor.ASYNC else call
    plan = make_plan({"each": node(run, "x", executor=executor, fan=Each())}, ["x"])
    with pytest.raises(NodeExecutionError, match="failed") as caught:
        execute_plan(plan, ([10, 20, 30],), scheduler="parallel")
    if executor is not Executor.INLINE:
        assert "at element 2" in str(caught.value)
        assert caught.value.inputs == "int"


def test_the_first_error_cancels_coroutines_in_flight() -> None:
    cancelled, flying = threading.Event(), threading.Event()

    async def fly():
        flying.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def fail():
        assert flying.wait(10)
        raise ValueError("boom")

    plan = make_plan({"fly": node(fly, executor=Executor.ASYNC), "fail": node(fail)})
    with pytest.raises(NodeExecutionError, match="'fail'"):
        execute_plan(plan, ())
    assert cancelled.is_set()


def test_the_first_error_is_raised_while_threads_are_busy_and_begins_nothing_more() -> None:
    busy, release, later = threading.Event(), threading.Event(), []

    def block():
        busy.set()
        assert release.wait(10)
        return 1

    def fail():
        assert busy.wait(10)
        raise ValueError("boom")

    plan = make_plan(
        {"block": node(block), "fail": node(fail), "later": node(later.append, "block")}
    )
    outcome: list[BaseException] = []

    def attempt() -> None:  # the caller itself may be the one that runs `block`
        with pytest.raises(NodeExecutionError) as caught:
            execute_plan(plan, (), {"timeout_seconds": 30.0}, scheduler="parallel")
        outcome.append(caught.value)

    attempt()
    release.set()
    assert outcome
    assert later == []


def test_on_error_continue_says_what_is_missing_and_why() -> None:
    plan = make_plan(
        {
            "a": node(boom),
            "b": node(lambda a: a, "a"),
            "c": node(lambda: 3),
            "d": node(lambda b, c: b, "b", "c"),
        }
    )
    run = execute_plan(plan, (), {"on_error": "continue"})
    assert run.results == {"c": 3}
    assert run.skipped == dict.fromkeys("bd", "depends on 'a', which failed with ValueError")
    assert not run.complete


def test_a_failed_fan_lets_its_calls_in_flight_end_and_begins_no_more() -> None:
    begun: list[int] = []

    def call(item):
        begun.append(item)
        if item == 0:
            raise ValueError("boom")
        return item

    plan = make_plan(
        {"each": node(call, "x", fan=Each(), concurrency=1), "other": node(lambda: 1)}, ["x"]
    )
    run = execute_plan(plan, (list(range(50)),), {"on_error": "continue"}, scheduler="parallel")
    assert begun == [0]
    assert set(run.errors) == {"each"}
    assert run.results == {"other": 1}


@pytest.mark.parametrize("max_workers", [1, 2])
def test_a_failed_fan_does_not_hold_up_what_waits_for_its_place(max_workers) -> None:
    plan = make_plan(
        {
            "bad": node(boom, "x", fan=Each()),
            **{f"good{i}": node(lambda: 1) for i in range(5)},
            "fan": node(lambda item: item, "x", fan=Each()),
        },
        ["x"],
    )
    options = {"on_error": "continue", "max_workers": max_workers}
    run = execute_plan(plan, (list(range(20)),), options, scheduler="parallel")
    assert set(run.errors) == {"bad"}
    assert run.results == {**{f"good{i}": 1 for i in range(5)}, "fan": list(range(20))}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("executor", [Executor.THREAD, Executor.ASYNC])
@pytest.mark.parametrize("scheduler", ["sequential", "parallel"])
def test_what_is_not_an_exception_of_the_operator_passes_unwrapped(
    error, executor, scheduler
) -> None:
    def leave():
        raise error

    async def aleave():
        raise error

    run = aleave if executor is Executor.ASYNC else leave
    nodes = {f"n{i}": node(run, executor=executor) for i in range(3)}
    with pytest.raises(error):
        execute_plan(make_plan(nodes), (), scheduler=scheduler)


def test_an_operator_that_is_cancelled_by_itself_has_failed() -> None:
    async def cancel():
        raise asyncio.CancelledError

    plan = make_plan({"a": node(cancel, executor=Executor.ASYNC)})
    with pytest.raises(NodeExecutionError, match="CancelledError"):
        execute_plan(plan, ())


def test_unpacking_and_joining_that_fail_are_failures_of_the_node() -> None:
    class Bad(Each):
        def join(self, values, results):
            raise ValueError("join")

        def split(self, values):
            if values[0] is None:
                raise ValueError("split")
            return super().split(values)

    async def item(value):
        return value

    for executor, run in ((Executor.THREAD, boom), (Executor.ASYNC, item)):
        plan = make_plan({"a": node(run, "x", executor=executor, fan=Bad())}, ["x"])
        with pytest.raises(NodeExecutionError, match="split"):
            execute_plan(plan, (None,))
    with pytest.raises(NodeExecutionError, match="join"):
        execute_plan(plan, ([1, 2],))


def test_a_wrong_number_of_inputs_is_an_error() -> None:
    with pytest.raises(XCSError, match="takes 1 inputs"):
        execute_plan(make_plan({"a": node(boom, "x")}, ["x"]), ())


def test_the_asynchronous_twin_raises_the_same() -> None:
    with pytest.raises(NodeExecutionError, match="boom"):
        asyncio.run(aexecute_plan(make_plan({"a": node(boom)}), ()))
