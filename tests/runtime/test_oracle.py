"""Every scheduler gives the results of a plain Python loop, on any plan."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ember_xcs._lower.plan import Executor, Plan, TaskKind
from ember_xcs._runtime.supervise import aexecute_plan, execute_plan
from ember_xcs.errors import NodeExecutionError
from tests.runtime.plans import Each, make_plan, node

SCHEDULERS = ["auto", "sequential", "topological", "parallel", "wave", "adaptive"]
HOSTS = [Executor.THREAD, Executor.ASYNC, Executor.INLINE]


def digest(number: int) -> Callable[..., Any]:
    return lambda *values: hash((number, *values)) % 1_000_003


def fanned(number: int) -> Callable[..., Any]:
    return lambda item, *values: hash((number, item, *values)) % 1_000_003


def coroutine(function: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*values: Any) -> Any:
        await asyncio.sleep(0)
        return function(*values)

    return call


@st.composite
def random_plans(draw: st.DrawFn) -> tuple[Plan, dict[str, Any]]:
    """A plan over a number and a batch to fan over, and its results by a plain loop."""
    expected: dict[str, Any] = {"x": 5, "batch": (1, 2, 3)}
    nodes = {}
    for i in range(draw(st.integers(1, 12))):
        scalars = [name for name, value in expected.items() if not isinstance(value, list | tuple)]
        reads = draw(st.lists(st.sampled_from(scalars), max_size=4))
        executor = draw(st.sampled_from(HOSTS))
        kind = draw(st.sampled_from([TaskKind.CALL, TaskKind.GLUE]))
        settings: dict[str, Any] = {}
        if draw(st.integers(0, 3)) == 0:
            settings["fan"] = Each()
            settings["concurrency"] = draw(st.sampled_from([None, 1, 2]))
            batch = draw(
                st.sampled_from([n for n, v in expected.items() if isinstance(v, list | tuple)])
            )
            function = fanned(i)
            value: Any = [function(item, *(expected[r] for r in reads)) for item in expected[batch]]
            reads = [batch, *reads]
        else:
            function = digest(i)
            value = function(*(expected[read] for read in reads))
        if draw(st.integers(0, 5)) == 0:
            settings["timeout_seconds"] = 30.0
        run = coroutine(function) if executor is Executor.ASYNC else function
        nodes[f"n{i}"] = node(run, *reads, executor=executor, kind=kind, **settings)
        expected[f"n{i}"] = value
    wanted = draw(st.lists(st.sampled_from(list(nodes)), unique=True, min_size=1))
    plan = make_plan(nodes, ["x", "batch"], wanted)
    return plan, {name: expected[name] for name in wanted}


@given(random_plans(), st.sampled_from([None, 1, 2]), st.booleans(), st.sampled_from([None, 60]))
def test_every_scheduler_agrees_with_a_plain_loop(case, max_workers, measured, timeout) -> None:
    plan, expected = case
    options = {
        "max_workers": max_workers,
        "collect_metrics": measured,
        "timeout_seconds": timeout,
    }
    for scheduler in SCHEDULERS:
        run = execute_plan(plan, (5, (1, 2, 3)), options, scheduler=scheduler)
        assert run.results == expected
        assert run.complete


@given(random_plans())
def test_the_asynchronous_twin_agrees_with_a_plain_loop(case) -> None:
    plan, expected = case
    for scheduler in SCHEDULERS:
        run = asyncio.run(aexecute_plan(plan, (5, (1, 2, 3)), scheduler=scheduler))
        assert run.results == expected


def boom(*values: Any) -> Any:
    raise ValueError("boom")


async def aboom(*values: Any) -> Any:
    raise ValueError("boom")


@given(random_plans(), st.data())
def test_every_scheduler_skips_exactly_what_depends_on_failures(case, data) -> None:
    plan, _ = case
    failing = data.draw(st.sets(st.sampled_from([task.index for task in plan.tasks]), min_size=1))
    nodes = {
        task.node_ids[0]: node(
            (aboom if task.executor is Executor.ASYNC else boom)
            if task.index in failing
            else task.run,
            *(("x", "batch", *(t.node_ids[0] for t in plan.tasks))[slot] for slot in task.reads),
            executor=task.executor,
            kind=task.kind,
            fan=task.fan,
            concurrency=task.concurrency,
            timeout_seconds=task.timeout_seconds,
        )
        for task in plan.tasks
    }
    failing_plan = make_plan(nodes, ["x", "batch"])
    parents = {name: [r for r in n.reads if r in nodes] for name, n in nodes.items()}
    failed: set[str] = set()
    skipped: set[str] = set()
    for index, name in enumerate(nodes):
        if any(parent in failed | skipped for parent in parents[name]):
            skipped.add(name)
        elif index in failing:
            failed.add(name)
    expected = execute_plan(make_plan_like(plan), (5, (1, 2, 3))).results
    for scheduler in SCHEDULERS:
        run = execute_plan(
            failing_plan, (5, (1, 2, 3)), {"on_error": "continue"}, scheduler=scheduler
        )
        assert set(run.errors) == failed
        assert set(run.skipped) == skipped
        assert run.results == {
            name: value for name, value in expected.items() if name not in failed | skipped
        }
        with pytest.raises(NodeExecutionError, match="boom"):
            execute_plan(failing_plan, (5, (1, 2, 3)), scheduler=scheduler)


def make_plan_like(plan: Plan) -> Plan:
    """The same plan with every node an output."""
    names = ("x", "batch", *(t.node_ids[0] for t in plan.tasks))
    return make_plan(
        {
            task.node_ids[0]: node(
                task.run,
                *(names[slot] for slot in task.reads),
                executor=task.executor,
                fan=task.fan,
            )
            for task in plan.tasks
        },
        ["x", "batch"],
    )
