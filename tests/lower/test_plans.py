"""Plans: flat, in a stable order, with their slots, counts and priorities."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax.numpy as jnp
import pytest
from hypothesis import given

import ember_xcs as xcs
from ember_xcs._core.options import get_execution_options
from ember_xcs._lower.lower import lower
from ember_xcs._lower.plan import Executor, Plan, TaskKind
from tests.properties.graphs import Calls, random_graphs

OPTIONS = get_execution_options()


def plan_of(graph: xcs.XCSGraph, *passes: str) -> Plan:
    return lower(graph, OPTIONS.replace(passes=passes) if passes else OPTIONS)


def labels(plan: Plan) -> list[str]:
    return ["+".join(task.node_ids) for task in plan.tasks]


@xcs.host
def call(x):
    return x


@xcs.host(side_effects=True)
def write(x):
    return x


add = xcs.pure(lambda x: x + 1)


def chain(*operators: Any) -> xcs.XCSGraph:
    graph = xcs.XCSGraph()
    before = None
    for k, operator in enumerate(operators):
        node = graph.add_node(operator, f"n{k}")
        if before is not None:
            graph.connect(before, node.inputs["x"])
        before = node
    return graph


# Tasks


@given(random_graphs())
def test_a_plan_is_consistent(case) -> None:
    plan = plan_of(case.graph)
    written = set(range(len(plan.inputs))) | {slot for slot, _ in plan.constants}
    assert len(written) == len(plan.inputs) + len(plan.constants)
    readers = [0] * plan.slot_count
    parents: list[set[int]] = [set() for _ in plan.tasks]
    writer: dict[int, int] = {}
    for position, task in enumerate(plan.tasks):
        assert task.index == position
        assert set(task.reads) <= written, "a slot is read before it is written"
        assert not set(task.writes) & written, "a slot is written twice"
        written |= set(task.writes)
        for slot in set(task.reads):
            readers[slot] += 1
        parents[position] = {writer[slot] for slot in task.reads if slot in writer}
        writer |= dict.fromkeys(task.writes, position)
    assert tuple(readers) == plan.reader_counts
    assert written == set(range(plan.slot_count))
    assert set(plan.outputs.values()) <= written
    assert plan.roots == tuple(k for k, found in enumerate(parents) if not found)
    for position, task in enumerate(plan.tasks):
        assert task.parent_count == len(parents[position])
        assert set(task.successors) == {k for k, p in enumerate(parents) if position in p}
        assert len(set(task.successors)) == len(task.successors)
        assert all(task.priority > plan.tasks[after].priority for after in task.successors)


@given(random_graphs())
def test_the_same_graph_gives_the_same_plan(case) -> None:
    one, other = plan_of(case.graph), plan_of(case.graph.copy())
    assert labels(one) == labels(other)
    assert [(t.reads, t.writes, t.successors) for t in one.tasks] == [
        (t.reads, t.writes, t.successors) for t in other.tasks
    ]


def test_tasks_are_in_the_order_in_which_nodes_were_added_where_there_is_a_choice() -> None:
    graph = xcs.XCSGraph()
    for node_id in ("c", "a", "b"):
        graph.add_node(call, node_id)
    graph.connect("b", graph["c"])
    assert labels(plan_of(graph)) == ["a", "b", "c"]


def test_priorities_are_the_longest_path_to_a_result_in_calls() -> None:
    graph = chain(call, add, call, call)
    graph.connect("n0", graph.add_node(call, "side").inputs["x"])
    priorities = dict(zip(labels(plan := plan_of(graph)), plan.tasks, strict=True))
    found = {name: task.priority for name, task in priorities.items()}
    assert found == pytest.approx({"n0": 3.001, "n1": 2.001, "n2": 2, "n3": 1, "side": 1})


def test_what_kinds_of_nodes_become() -> None:
    async def later(x):
        return x

    graph = xcs.XCSGraph()
    graph.add_node(call, "thread")
    graph.add_node(xcs.host(later), "async")
    graph.add_node(xcs.host(executor="inline")(lambda x: x), "inline")
    graph.add_node(xcs.host(timeout=3.0)(lambda x: x), "timed")
    graph.add_node(add, "pure")
    tasks = {task.node_ids[0]: task for task in plan_of(graph).tasks}
    assert tasks["thread"].executor is Executor.THREAD
    assert tasks["async"].executor is Executor.ASYNC
    assert tasks["inline"].executor is Executor.INLINE
    assert tasks["timed"].timeout_seconds == 3.0
    assert tasks["pure"].kind is TaskKind.REGION
    assert all(tasks[name].kind is TaskKind.CALL for name in ("thread", "async", "inline"))


def test_a_plain_function_is_called_itself() -> None:
    def work(x):
        return x

    graph = xcs.XCSGraph()
    graph.add_node(work, "a")
    graph.connect("a", graph.add_node(work, "b").inputs["x"])
    assert plan_of(graph).tasks[1].run is work


def test_a_function_whose_input_may_be_left_out_is_not_called_itself() -> None:
    def work(x, y=2):
        return x + y

    graph = xcs.XCSGraph()
    graph.add_node(work, "a")
    assert plan_of(graph).tasks[0].run is not work
    assert xcs.execute_graph(graph, {"x": 1})["a"] == 3


def test_a_function_with_a_constant_is_not_called_itself() -> None:
    def work(x, y):
        return x - y

    graph = xcs.XCSGraph()
    graph.add_node(call, "a")
    graph.connect("a", graph.add_node(work, "b", constants={"x": 5}).inputs["y"])
    assert plan_of(graph).tasks[1].run is not work
    assert xcs.execute_graph(graph, {"x": 1})["b"] == 4


def test_arguments_of_a_plain_call_are_in_the_order_of_its_parameters() -> None:
    def minus(x, y):
        return x - y

    graph = xcs.XCSGraph()
    for node_id in ("one", "two"):
        graph.add_node(xcs.host(lambda x: x), node_id)
        graph.connect(graph.input(node_id), graph[node_id].inputs["x"])
    node = graph.add_node(minus, "minus")
    graph.connect("one", node.inputs["y"])
    graph.connect("two", node.inputs["x"])
    assert plan_of(graph).tasks[2].run is minus
    assert xcs.execute_graph(graph, {"one": 1, "two": 20})["minus"] == 19


def test_a_value_that_is_read_whole_and_by_fields_has_a_slot_for_each() -> None:
    graph = xcs.XCSGraph()
    record = graph.add_node(xcs.host(lambda: {"x": 1, "y": 2}), "record")
    for name, source in {
        "x": record.outputs["x"],
        "again": record.outputs["x"],
        "y": record.outputs["y"],
        "whole": record,
    }.items():
        graph.connect(source, graph.add_node(call, name).inputs["x"])
    tasks = {task.node_ids[0]: task for task in plan_of(graph).tasks}
    assert tasks["x"].reads == tasks["again"].reads
    assert len(tasks["record"].writes) == 3
    assert dict(xcs.execute_graph(graph)) == {
        "x": 1,
        "again": 1,
        "y": 2,
        "whole": {"x": 1, "y": 2},
    }


def test_a_region_gives_what_is_read_outside_of_it_and_no_more() -> None:
    graph = chain(add, add, add)
    both = graph.add_node(xcs.host(lambda a, b: (float(a), float(b))), "both")
    graph.connect("n1", both.inputs["a"])
    graph.connect("n2", both.inputs["b"])
    region, last = plan_of(graph).tasks
    assert region.node_ids == ("n0", "n1", "n2")
    assert region.writes == last.reads
    assert xcs.execute_graph(graph, {"x": 1})["both"] == (3.0, 4.0)


def test_side_effects_are_in_program_order() -> None:
    log = []

    def noted(name):
        def note(x):
            log.append(name)
            return x

        return xcs.host(side_effects=True)(note)

    graph = xcs.XCSGraph()
    slow = graph.add_node(call, "slow")
    first = graph.add_node(noted("first"), "first")
    graph.connect(slow, first)
    graph.add_node(noted("second"), "second")
    graph.add_node(add, "pure")
    third = graph.add_node(noted("third"), "third")
    graph.connect("pure", third.inputs["x"])
    for scheduler in ("sequential", "parallel", "wave", "adaptive"):
        log.clear()
        xcs.execute_graph(graph, {"x": 1}, scheduler=scheduler)
        assert log == ["first", "second", "third"]


def test_order_of_side_effects_is_no_cycle_with_what_is_fused() -> None:
    graph = xcs.XCSGraph()
    late = graph.add_node(call, "late")
    one = graph.add_node(write, "one")
    shared = graph.add_node(add, "shared")
    other = graph.add_node(add, "other")
    two = graph.add_node(write, "two")
    graph.connect(late, one)
    graph.connect(one, shared.inputs["x"])
    graph.connect(graph.input("x"), other.inputs["x"])
    graph.connect(other, two.inputs["x"])
    graph.set_outputs("shared", "two")
    result = xcs.execute_graph(graph, {"x": 1})
    assert [int(value) for value in result.values()] == [2, 2]


def test_outputs_can_be_inputs_of_the_graph() -> None:
    graph = chain(add)
    graph.set_outputs(echo=graph.input("x"), sum="n0")
    assert dict(xcs.execute_graph(graph, {"x": 1})) == {"echo": 1, "sum": 2}
    assert dict(xcs.execute_graph(graph, {"x": 1}, options={"passes": ()})) == {
        "echo": 1,
        "sum": 2,
    }


# Memory


class Tracked:
    """A value whose end can be seen."""

    alive = 0

    def __init__(self) -> None:
        type(self).alive += 1

    def __del__(self) -> None:
        type(self).alive -= 1


@pytest.mark.parametrize("scheduler", ["sequential", "parallel", "wave"])
def test_values_are_freed_with_their_last_reader(scheduler) -> None:
    Tracked.alive = 0
    most = []

    def make(x):
        most.append(Tracked.alive)
        return Tracked()

    graph = chain(*[make] * 20)
    result = xcs.execute_graph(graph, {"x": 1}, scheduler=scheduler)
    assert max(most) <= 2
    assert len(result) == 1
    assert Tracked.alive == 1
    del result
    gc.collect()
    assert Tracked.alive == 0


# The cache of plans


def test_a_plan_is_made_once() -> None:
    graph = chain(add, call)
    assert plan_of(graph) is plan_of(graph)


def test_each_set_of_passes_has_its_own_plan() -> None:
    graph = chain(add, add, call)
    assert plan_of(graph, "fusion") is plan_of(graph, "fusion")
    assert len(plan_of(graph, "fusion").tasks) == 2
    assert len(plan_of(graph, "dead_nodes").tasks) == 3


def test_a_changed_graph_has_a_new_plan() -> None:
    graph = chain(add, call)
    before = plan_of(graph)
    graph.connect("n1", graph.add_node(call, "more"))
    after = plan_of(graph)
    assert (len(before.tasks), len(after.tasks)) == (2, 3)
    graph.remove_node("more")
    assert plan_of(graph) is not before
    assert len(plan_of(graph).tasks) == 2


def test_plans_of_earlier_versions_are_forgotten() -> None:
    graph = chain(add, call)
    plan = weakref.ref(plan_of(graph))
    graph.add_node(call, "more")
    plan_of(graph)
    gc.collect()
    assert plan() is None


def test_the_cache_keeps_no_graph_and_no_plan_alive() -> None:
    graph = chain(add, call, add)
    graph.add_node(xcs.host(lambda x: {"y": x}), "record")
    reader = graph.add_node(call, "reader")
    graph.connect(graph["record"].outputs["y"], reader.inputs["x"])
    xcs.execute_graph(graph, {"x": 1})
    alive = weakref.ref(graph), weakref.ref(plan_of(graph))
    del graph, reader
    gc.collect()
    assert [ref() for ref in alive] == [None, None]


def test_many_threads_make_one_plan() -> None:
    counts = Calls()
    start = threading.Barrier(6)

    def traced(x):
        counts.note("traced")
        return x + 1

    graph = chain(call, xcs.pure(traced), call)

    def run(k: int) -> float:
        start.wait(timeout=20)
        return float(xcs.execute_graph(graph, {"x": float(k)})["n2"])

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(run, range(6))) == [k + 1.0 for k in range(6)]
    assert counts.counts["traced"] == 1


def test_a_graph_can_run_inside_an_operator_of_itself() -> None:
    graph = xcs.XCSGraph()

    def down(x):
        return x if x == 0 else xcs.execute_graph(graph, {"x": x - 1})["n"] + x

    graph.add_node(down, "n")
    assert xcs.execute_graph(graph, {"x": 5})["n"] == 15


# Fusion, as the plan shows it


def region_count(plan: Plan) -> int:
    return sum(task.kind is TaskKind.REGION for task in plan.tasks)


def test_a_numeric_graph_is_one_task() -> None:
    graph = chain(*[add] * 6)
    graph.connect("n2", graph.add_node(add, "side").inputs["x"])
    assert len(plan_of(graph).tasks) == 1


def test_numeric_glue_of_a_staged_function_is_one_program_before_and_one_after() -> None:
    @xcs.host
    def score(x: float) -> float:
        return x

    program = xcs.jit.trace(lambda x: sum(score(x * k + 1) for k in range(8)))
    assert region_count(plan_of(program.graph(1.0))) == 2


def test_heavy_work_of_a_staged_function_overlaps_a_call() -> None:
    @xcs.host
    def score(x: float) -> float:
        return x

    def program(matrix, x):
        return (matrix @ matrix).sum() + score(x + 1)

    plan = plan_of(xcs.jit.trace(program).graph(jnp.ones((512, 512)), 1.0))
    call_task = next(task for task in plan.tasks if task.kind is TaskKind.CALL)
    before = [t for t in plan.tasks if call_task.index in t.successors]
    heavy = [t for t in plan.tasks if t.kind is TaskKind.REGION and not t.parent_count]
    assert len(heavy) == 2
    assert len(before) == 1
    assert region_count(plan) == 3


def test_packs_for_results_and_picks_for_calls_are_outside() -> None:
    from ember_xcs._core.plumbing import Pick

    graph = xcs.XCSGraph()
    a = graph.add_node(xcs.pure(lambda x: {"v": x}), "a")
    pick = graph.add_node(Pick((("item", "v"),)), "pick")
    graph.connect(a, pick.inputs["value"])
    graph.connect(pick, graph.add_node(call, "host"))
    graph.connect(pick, graph.add_node(add, "b").inputs["x"])
    plan = plan_of(graph)
    assert {name: t.kind for name, t in zip(labels(plan), plan.tasks, strict=True)} == {
        "a": TaskKind.REGION,
        "pick": TaskKind.GLUE,
        "host": TaskKind.CALL,
        "b": TaskKind.REGION,
    }
    assert {k: float(v) for k, v in xcs.execute_graph(graph, {"x": 1.0}).items()} == {
        "host": 1.0,
        "b": 2.0,
    }
