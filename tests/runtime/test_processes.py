"""Calls in processes."""

from __future__ import annotations

import os
import threading
import time

import pytest

from ember_xcs._lower.plan import Executor
from ember_xcs._runtime.supervise import execute_plan
from ember_xcs.errors import ExecutionTimeout, NodeExecutionError
from tests.runtime import work
from tests.runtime.plans import Each, make_plan, node


def process(run, *reads, **settings):
    return node(run, *reads, executor=Executor.PROCESS, **settings)


@pytest.mark.parametrize("scheduler", ["sequential", "parallel", "wave"])
def test_a_fan_over_processes_keeps_its_order_and_reuses_at_most_as_many_as_processors(
    scheduler,
) -> None:
    plan = make_plan(
        {
            "squares": process(work.square, "x", fan=Each()),
            "pids": process(work.pid, "x", fan=Each()),
        },
        ["x"],
    )
    run = execute_plan(plan, (list(range(20)),), scheduler=scheduler)
    assert run.results["squares"] == [i * i for i in range(20)]
    assert os.getpid() not in run.results["pids"]
    assert len(set(run.results["pids"])) <= (os.cpu_count() or 1)


def test_an_exception_keeps_its_type_and_the_traceback_of_the_process() -> None:
    with pytest.raises(NodeExecutionError) as caught:
        execute_plan(make_plan({"a": process(work.fail, "x")}, ["x"]), (4,))
    cause = caught.value.__cause__
    assert isinstance(cause, ValueError)
    assert "raise ValueError" in str(cause.__cause__)


def test_what_cannot_be_pickled_is_a_clear_error() -> None:
    with pytest.raises(NodeExecutionError, match="top level of an importable module"):
        execute_plan(make_plan({"a": process(lambda: 1)}), ())
    with pytest.raises(NodeExecutionError, match="result cannot be sent back"):
        execute_plan(make_plan({"a": process(work.unpicklable)}), ())
    with pytest.raises(NodeExecutionError, match="Strange: strange"):
        execute_plan(make_plan({"a": process(work.fail_strangely)}), ())


def test_a_process_that_dies_is_a_clear_error_and_is_replaced() -> None:
    with pytest.raises(NodeExecutionError, match="died with exit code 3"):
        execute_plan(make_plan({"a": process(work.die)}), ())
    run = execute_plan(make_plan({"a": process(work.square, "x")}, ["x"]), (3,))
    assert run.results == {"a": 9}


def test_a_call_that_takes_too_long_is_killed() -> None:
    plan = make_plan({"a": process(work.hang, timeout_seconds=0.2)})
    with pytest.raises(NodeExecutionError) as caught:
        execute_plan(plan, ())
    assert isinstance(caught.value.__cause__, ExecutionTimeout)


def test_processes_are_killed_at_the_deadline_of_their_run() -> None:
    start = time.perf_counter()
    with pytest.raises(ExecutionTimeout):
        execute_plan(make_plan({"a": process(work.hang)}), (), {"timeout_seconds": 0.5})
    assert time.perf_counter() - start < 30


def test_runs_share_the_processes() -> None:
    plan = make_plan({"a": process(work.square, "x", fan=Each())}, ["x"])
    results: list[list[int]] = []
    runs = [
        threading.Thread(
            target=lambda: results.append(execute_plan(plan, ([1, 2, 3],)).results["a"])
        )
        for _ in range(4)
    ]
    for each in runs:
        each.start()
    for each in runs:
        each.join()
    assert results == [[1, 4, 9]] * 4
