"""Schedulers by name, one's own, what they report, and what a run measures."""

from __future__ import annotations

import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest

from ember_xcs._core.options import ExecutionOptions, schedulers
from ember_xcs._lower.plan import Executor, TaskKind
from ember_xcs._runtime.adaptive import AdaptiveScheduler
from ember_xcs._runtime.layout import layout_of
from ember_xcs._runtime.noop import NoOpScheduler
from ember_xcs._runtime.parallel import ParallelScheduler
from ember_xcs._runtime.registry import choose_scheduler, create_scheduler, register_scheduler
from ember_xcs._runtime.scheduler import Scheduler
from ember_xcs._runtime.sequential import SequentialScheduler
from ember_xcs._runtime.supervise import execute_plan
from ember_xcs.errors import ExecutionTimeout, NodeExecutionError, OptionsError, XCSError
from tests.runtime.plans import Each, make_plan, node

ALL = ["sequential", "topological", "parallel", "wave", "adaptive"]


class NewestFirst:
    """A scheduler as a user would write it."""

    def prepare(self, plan):
        self.prepared = plan

    def execute(self, run):
        self.run, ready = run, run.ready
        while ready:
            ready += run.perform(ready.pop())

    def get_partial_results(self):
        return self.run.partial_results()


class Pooled(NewestFirst):
    """Another, which performs tasks in threads of its own."""

    def execute(self, run):
        self.run = run
        with ThreadPoolExecutor(4) as pool:
            ready = run.ready
            while ready:
                ready = [i for more in pool.map(run.perform, ready) for i in more]


@pytest.fixture
def registered():
    register_scheduler("newest", NewestFirst)
    yield "newest"
    del schedulers["newest"]


def diamond():
    return make_plan(
        {
            "a": node(lambda x: x + 1, "x"),
            "b": node(lambda a: a * 2, "a"),
            "c": node(lambda a: a * 3, "a"),
            "d": node(lambda b, c: b + c, "b", "c"),
            "fan": node(lambda item, d: item + d, "batch", "d", fan=Each()),
        },
        ["x", "batch"],
    )


@pytest.mark.parametrize("scheduler", [NewestFirst(), Pooled()])
def test_a_scheduler_of_ones_own_runs_plans(scheduler) -> None:
    assert isinstance(scheduler, Scheduler)
    plan = diamond()
    run = execute_plan(plan, (1, [1, 2]), ExecutionOptions(scheduler=scheduler))
    assert run.results == {"a": 2, "b": 4, "c": 6, "d": 10, "fan": [11, 12]}
    assert scheduler.get_partial_results() == run.results
    assert scheduler.prepared is plan


def test_a_scheduler_of_ones_own_is_subject_to_deadlines_and_errors(registered) -> None:
    opened = threading.Event()
    plan = make_plan({"a": node(lambda: opened.wait(30))})
    with pytest.raises(ExecutionTimeout, match="'a'"):
        execute_plan(plan, (), {"timeout_seconds": 0.1}, scheduler=registered)
    opened.set()
    with pytest.raises(NodeExecutionError):
        execute_plan(make_plan({"a": node(lambda: 1 / 0)}), (), {"scheduler": registered})


def test_a_scheduler_that_forgets_a_task_is_an_error() -> None:
    class Forgetful(NewestFirst):
        def execute(self, run):
            run.perform(run.ready[0])

    with pytest.raises(XCSError, match=r"Forgetful\.execute returned, but 'b' was not computed"):
        execute_plan(diamond(), (1, []), scheduler=Forgetful())


def test_names_are_taken_once(registered) -> None:
    register_scheduler("newest", NewestFirst)
    with pytest.raises(OptionsError, match="taken"):
        register_scheduler("newest", Pooled)
    with pytest.raises(OptionsError, match="auto"):
        register_scheduler("auto", Pooled)
    with pytest.raises(OptionsError, match=r"did you mean 'wave'\?"):
        create_scheduler("waves")
    with pytest.raises(OptionsError, match="cannot be made"):
        create_scheduler("wave", depth=3)


def test_auto_is_sequential_exactly_where_no_host_call_can_overlap() -> None:
    chain = make_plan({"a": node(lambda: 1), "b": node(lambda a: a, "a")})
    pure = make_plan({n: node(lambda: 1, executor=Executor.INLINE) for n in "ab"})
    beside = make_plan({"a": node(lambda: 1), "b": node(lambda: 1, executor=Executor.INLINE)})
    glued = make_plan(
        {"a": node(lambda: 1), "b": node(lambda: 1, executor=Executor.INLINE, kind=TaskKind.GLUE)}
    )
    fan = make_plan({"a": node(lambda i: i, "x", fan=Each())}, ["x"])
    for plan, expected in (
        (chain, SequentialScheduler),
        (pure, SequentialScheduler),
        (glued, SequentialScheduler),
        (beside, ParallelScheduler),
        (fan, ParallelScheduler),
    ):
        assert type(choose_scheduler("auto", layout_of(plan))) is expected


def test_the_noop_scheduler_plans_and_runs_nothing() -> None:
    scheduler = NoOpScheduler()
    ran = []
    plan = make_plan({"a": node(lambda: ran.append(1)), "b": node(lambda a: a, "a")})
    run = execute_plan(plan, (), scheduler=scheduler)
    assert ran == []
    assert run.results == {}
    assert set(run.skipped) == {"a", "b"}
    assert scheduler.report == (
        "plan 'test': 2 tasks (2 call)\n  wave 1: a (thread)\n  wave 2: b (thread)"
    )


def test_the_adaptive_scheduler_raises_its_concurrency_where_calls_do_not_hinder_each_other() -> (
    None
):
    scheduler = AdaptiveScheduler(initial=2)
    plan = make_plan({"f": node(lambda _: time.sleep(0.01), "x", fan=Each())}, ["x"])
    execute_plan(plan, (range(150),), scheduler=scheduler)
    assert scheduler.concurrency >= 8


def test_the_adaptive_scheduler_stays_low_where_calls_wait_for_each_other() -> None:
    one_at_a_time = threading.Lock()

    def call(_):
        with one_at_a_time:
            time.sleep(0.002)

    scheduler = AdaptiveScheduler(initial=2)
    plan = make_plan({"f": node(call, "x", fan=Each())}, ["x"])
    execute_plan(plan, (range(200),), scheduler=scheduler)
    assert scheduler.concurrency <= 6


@pytest.mark.parametrize("scheduler", ALL)
def test_values_are_freed_as_soon_as_nobody_reads_them(scheduler) -> None:
    size = 4_000_000
    nodes = {"n0": node(lambda: bytearray(size))}
    nodes |= {f"n{i}": node(lambda x: bytearray(size), f"n{i - 1}") for i in range(1, 40)}
    plan = make_plan(nodes, [], ["n39"])
    execute_plan(plan, (), scheduler=scheduler)
    tracemalloc.start()
    try:
        execute_plan(plan, (), scheduler=scheduler)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3.5 * size


@pytest.mark.parametrize("scheduler", ALL)
def test_a_run_is_measured_where_asked(scheduler) -> None:
    plan = diamond()
    run = execute_plan(plan, (1, [1, 2]), {"collect_metrics": True}, scheduler=scheduler)
    assert sorted((e.node_id, e.element) for e in run.timeline if e.element is None) == [
        (name, None) for name in "abcd"
    ]
    assert sorted(e.element for e in run.timeline if e.node_id == "fan") == [0, 1]
    assert all(0 <= e.start_seconds <= e.end_seconds for e in run.timeline)
    metrics = run.metrics
    assert metrics.calls == {"call": 6}
    assert metrics.peak_concurrency >= 1
    assert metrics.busy_seconds > 0
    assert metrics.wall_seconds >= max(e.end_seconds for e in run.timeline)
    unmeasured = execute_plan(plan, (1, [1, 2]), scheduler=scheduler)
    assert unmeasured.timeline == ()
    assert unmeasured.metrics.calls is None


def test_a_run_is_freed_without_the_collector() -> None:
    import gc
    import weakref

    for options in ({}, {"collect_metrics": True}, {"timeout_seconds": 60.0}):
        gc.disable()
        try:
            run = execute_plan(diamond(), (1, [1, 2]), options)
            ref = weakref.ref(run)
            del run
            deadline = time.perf_counter() + 10
            while ref() is not None and time.perf_counter() < deadline:
                pass  # a pool thread may be about to let go of it
            assert ref() is None
        finally:
            gc.enable()
