"""What overlaps with what, and what must not wait for what."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import Counter

import pytest

from ember_xcs._lower.plan import Executor, TaskKind
from ember_xcs._runtime.io_loop import io_loop
from ember_xcs._runtime.supervise import aexecute_plan, execute_plan
from ember_xcs.errors import NodeExecutionError
from tests.runtime.plans import Each, make_plan, node

SCHEDULERS = ["sequential", "topological", "parallel", "wave", "adaptive"]
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


class Meter:
    """Counts how many calls are in flight at once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.now = self.peak = 0

    def __enter__(self):
        with self.lock:
            self.now += 1
            self.peak = max(self.peak, self.now)

    def __exit__(self, *_):
        with self.lock:
            self.now -= 1


def test_blocking_calls_all_run_at_once_by_default() -> None:
    barrier = threading.Barrier(60)
    plan = make_plan({f"n{i}": node(lambda: barrier.wait(30)) for i in range(60)})
    assert sorted(execute_plan(plan, ()).results.values()) == list(range(60))


def test_coroutines_all_run_at_once_by_default() -> None:
    async def meet():
        return await barrier.wait()

    async def together():
        nonlocal barrier
        barrier = asyncio.Barrier(60)
        plan = make_plan({f"n{i}": node(meet, executor=Executor.ASYNC) for i in range(60)})
        return await aexecute_plan(plan, ())

    barrier: asyncio.Barrier
    barrier = asyncio.Barrier(60)
    plan = make_plan({f"n{i}": node(meet, executor=Executor.ASYNC) for i in range(60)})
    assert sorted(execute_plan(plan, ()).results.values()) == list(range(60))
    assert asyncio.run(together()).complete


@pytest.mark.parametrize("executor", [Executor.THREAD, Executor.ASYNC])
@pytest.mark.parametrize("scheduler", ["parallel", "wave", "topological"])
@pytest.mark.parametrize("max_workers", [1, 3])
def test_max_workers_bounds_the_calls_in_flight(executor, scheduler, max_workers) -> None:
    meter = Meter()

    def call(*_):
        with meter:
            return threading.Event().wait(0.001)

    async def acall(*_):
        with meter:
            await asyncio.sleep(0.001)

    run = acall if executor is Executor.ASYNC else call
    nodes = {f"n{i}": node(run, executor=executor) for i in range(20)}
    nodes["fan"] = node(run, "x", executor=executor, fan=Each())
    plan = make_plan(nodes, ["x"])
    options = {"max_workers": max_workers}
    assert execute_plan(plan, (range(20),), options, scheduler=scheduler).complete
    assert meter.peak <= max_workers


@pytest.mark.parametrize("executor", [Executor.THREAD, Executor.ASYNC])
def test_the_concurrency_of_a_fan_bounds_its_calls(executor) -> None:
    meter = Meter()

    def call(_):
        with meter:
            return threading.Event().wait(0.001)

    async def acall(_):
        with meter:
            await asyncio.sleep(0.001)

    run = acall if executor is Executor.ASYNC else call
    plan = make_plan({"fan": node(run, "x", executor=executor, fan=Each(), concurrency=2)}, ["x"])
    assert execute_plan(plan, (range(30),)).complete
    assert meter.peak == 2


def test_a_fast_chain_does_not_wait_for_a_slow_call_beside_it() -> None:
    end_of_chain = threading.Event()
    nodes = {"slow": node(lambda: end_of_chain.wait(30)), "c0": node(lambda: 0)}
    nodes |= {f"c{i}": node(lambda x: x + 1, f"c{i - 1}") for i in range(1, 20)}
    nodes["last"] = node(lambda _: end_of_chain.set(), "c19")
    assert execute_plan(make_plan(nodes), ()).results["slow"] is True


def test_the_wave_scheduler_waits_for_the_whole_wave() -> None:
    order: list[str] = []
    nodes = {
        "a": node(lambda: order.append("a")),
        "b": node(lambda: order.append("b")),
        "c": node(lambda _: order.append("c"), "a"),
    }
    execute_plan(make_plan(nodes), (), scheduler="wave")
    assert sorted(order[:2]) == ["a", "b"]
    assert order[2] == "c"


def test_longest_path_goes_first() -> None:
    order: list[str] = []
    nodes = {
        "short": node(lambda: order.append("short")),
        "long": node(lambda: order.append("long")),
        "longer": node(lambda _: order.append("longer"), "long"),
    }
    for scheduler in ("topological", "parallel"):
        order.clear()
        execute_plan(make_plan(nodes), (), {"max_workers": 1}, scheduler=scheduler)
        assert order[0] == "long"


@pytest.mark.parametrize("max_workers", [1, None])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_runs_nest_without_waiting_for_each_other(max_workers, scheduler) -> None:
    async def leaf():
        await asyncio.sleep(0)
        return 1

    def level(depth: int):
        if depth == 0:
            nodes = {f"n{i}": node(leaf, executor=Executor.ASYNC) for i in range(2)}
        else:
            nodes = {f"n{i}": node(lambda: level(depth - 1)) for i in range(3)}
        options = {"max_workers": max_workers}
        return sum(
            execute_plan(make_plan(nodes), (), options, scheduler=scheduler).results.values()
        )

    assert level(3) == 54


def test_many_threads_run_one_plan_at_once_and_each_task_runs_once_per_run() -> None:
    counts: Counter[str] = Counter()
    lock = threading.Lock()

    def count(name):
        def call(*values):
            with lock:
                counts[name] += 1
            return sum(values) + 1

        return call

    names = [f"n{i}" for i in range(30)]
    nodes = {n: node(count(n), *names[max(0, i - 3) : i]) for i, n in enumerate(names)}
    plan = make_plan(nodes, [], ["n29"])
    expected = execute_plan(plan, (), scheduler="sequential").results
    results = []
    callers = [
        threading.Thread(
            target=lambda s=s: results.append(execute_plan(plan, (), scheduler=s).results)
        )
        for s in SCHEDULERS * 4
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert results == [expected] * len(callers)
    assert set(counts.values()) == {len(callers) + 1}


def test_a_run_from_a_coroutine_uses_our_loop_and_not_the_callers() -> None:
    async def where():
        return asyncio.get_running_loop()

    async def main():
        plan = make_plan({"a": node(where, executor=Executor.ASYNC)})
        mine = asyncio.get_running_loop()
        assert execute_plan(plan, ()).results["a"] is not mine
        assert (await aexecute_plan(plan, ())).results["a"] is not mine

    asyncio.run(main())


def test_the_asynchronous_twin_does_not_block_the_loop() -> None:
    async def main():
        opened = threading.Event()
        plan = make_plan({"wait": node(lambda: opened.wait(30))})
        run = asyncio.create_task(aexecute_plan(plan, ()))
        await asyncio.sleep(0)
        opened.set()
        return (await run).results

    assert asyncio.run(main()) == {"wait": True}


def test_a_run_on_the_io_loop_that_needs_the_io_loop_is_refused_with_the_remedy() -> None:
    async def leaf():
        return 1

    leaves = make_plan({"leaf": node(leaf, executor=Executor.ASYNC)})

    async def direct():
        return execute_plan(leaves, ()).results

    async def by_a_thread():
        nodes = {f"n{i}": node(lambda: execute_plan(leaves, ())) for i in range(2)}
        return execute_plan(make_plan(nodes), ()).results

    async def twin():
        return (await aexecute_plan(leaves, ())).results["leaf"]

    for operator in (direct, by_a_thread):
        with pytest.raises(NodeExecutionError, match="async twin"):
            execute_plan(make_plan({"a": node(operator, executor=Executor.ASYNC)}), ())
    assert execute_plan(make_plan({"a": node(twin, executor=Executor.ASYNC)}), ()).results == {
        "a": 1
    }


@pytest.mark.parametrize("executor", [Executor.THREAD, Executor.ASYNC, Executor.INLINE])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_context_variables_reach_operators_and_do_not_leak_between_them(
    executor, scheduler
) -> None:
    def read(*_):
        seen = variable.get()
        variable.set("leaked")
        return seen

    async def aread(*_):
        return read()

    run = aread if executor is Executor.ASYNC else read
    nodes = {f"n{i}": node(run, executor=executor) for i in range(10)}
    nodes |= {f"m{i}": node(run, f"n{i}", executor=executor) for i in range(10)}
    nodes["fan"] = node(run, "x", executor=executor, fan=Each())
    nodes["timed"] = node(run, executor=executor, timeout_seconds=30.0)
    plan = make_plan(nodes, ["x"])
    token = variable.set("mine")
    try:
        results = execute_plan(plan, (range(5),), scheduler=scheduler).results
        assert variable.get() == "mine"
    finally:
        variable.reset(token)
    assert results.pop("fan") == ["mine"] * 5
    assert set(results.values()) == {"mine"}


def test_glue_between_coroutines_stays_on_the_io_loop() -> None:
    seen = []

    async def call(*_):
        return 1

    def glue(_):
        seen.append(io_loop.is_current())

    nodes = {
        "a": node(call, executor=Executor.ASYNC),
        "glue": node(glue, "a", executor=Executor.INLINE, kind=TaskKind.GLUE),
        "b": node(call, "glue", executor=Executor.ASYNC),
    }
    execute_plan(make_plan(nodes), ())
    assert seen == [True]


def test_warmups_run_once_per_plan_behind_a_host_call() -> None:
    warmed = threading.Event()
    runs = []

    def warm():
        runs.append(threading.current_thread())
        warmed.set()

    def call():
        return warmed.wait(30)

    plan = make_plan({"call": node(call)}, warmups=[warm])
    assert execute_plan(plan, ()).results == {"call": True}
    assert execute_plan(plan, ()).results == {"call": True}
    assert len(runs) == 1


def test_a_warmup_that_fails_is_counted_and_the_run_goes_on() -> None:
    failed = threading.Event()

    def warm():
        failed.set()
        raise ValueError

    plan = make_plan({"a": node(lambda: failed.wait(30)), "b": node(lambda: 1)}, warmups=[warm])
    run = execute_plan(plan, ())
    assert run.complete
    while not run.failed_warmups:
        pass
    assert run.metrics.failed_warmups == 1


def test_without_a_host_call_nothing_is_warmed_up() -> None:
    runs: list[int] = []
    plan = make_plan(
        {"a": node(lambda: 1, executor=Executor.INLINE)}, warmups=[lambda: runs.append(1)]
    )
    execute_plan(plan, ())
    assert runs == []
