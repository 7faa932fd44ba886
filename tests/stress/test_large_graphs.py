"""Graphs of 100,000 nodes build, validate, plan and run; nothing recurses per node."""

from __future__ import annotations

import contextlib
import inspect
import random
import sys
import time
from collections.abc import Callable, Iterator

import pytest

import ember_xcs as xcs
from ember_xcs._core.options import get_execution_options
from ember_xcs._graph import fusion
from ember_xcs._lower.lower import lower
from ember_xcs._lower.plan import TaskKind

pytestmark = pytest.mark.stress

MANY = 100_000


@contextlib.contextmanager
def little_stack(frames: int = 200) -> Iterator[None]:
    """Lets no code go deeper than so many frames from here."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + frames)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def work(x: int) -> int:
    return (x * 31 + 7) % 10_007


def join(x: int, y: int) -> int:
    return (x * 31 + y) % 10_007


pure_work = xcs.pure(work)
pure_join = xcs.pure(join)
deterministic = xcs.host(deterministic=True)(work)


def chain(size: int) -> xcs.XCSGraph:
    graph = xcs.XCSGraph("chain")
    node = graph.add_node(work, "n0")
    for k in range(1, size):
        after = graph.add_node(work, f"n{k}")
        graph.connect(node, after)
        node = after
    return graph


def chain_result(size: int) -> int:
    value = 3
    for _ in range(size):
        value = work(value)
    return value


def fan_out(size: int) -> xcs.XCSGraph:
    graph = xcs.XCSGraph("fan")
    root = graph.add_node(work, "root")
    for k in range(size - 1):
        graph.connect(root, graph.add_node(work, f"n{k}"))
    return graph


def layered(size: int, width: int = 100) -> xcs.XCSGraph:
    graph = xcs.XCSGraph("layers")
    before = [graph.add_node(work, f"l0_{k}") for k in range(width)]
    for level in range(1, size // width):
        nodes = [graph.add_node(join, f"l{level}_{k}") for k in range(width)]
        for k, node in enumerate(nodes):
            graph.connect(before[k], node)
            graph.connect(before[(k + 1) % width], node)
        before = nodes
    return graph


def mixed(size: int, pure_share: float = 0.0, seed: int = 0) -> xcs.XCSGraph:
    """Nodes that read random recent ones; some numeric, some deterministic, some unused."""
    chance = random.Random(seed)
    graph = xcs.XCSGraph("mixed")
    nodes = [graph.add_node(work, "n0")]
    for k in range(1, size):
        recent = nodes[-50:]
        one, other = chance.choice(recent), chance.choice(recent)
        if chance.random() < pure_share:
            node = graph.add_node(pure_join, f"n{k}")
        else:
            node = graph.add_node(join if k % 3 else deterministic_join, f"n{k}")
        graph.connect(one, node.inputs["x"])
        graph.connect(other, node.inputs["y"])
        nodes.append(node)
    return graph


deterministic_join = xcs.host(deterministic=True)(join)

SHAPES: dict[str, Callable[[int], xcs.XCSGraph]] = {
    "chain": chain,
    "fan_out": fan_out,
    "layered": layered,
    "mixed": mixed,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_hundred_thousand_nodes_run_the_same_in_sequence_and_in_parallel(shape) -> None:
    with little_stack():
        graph = SHAPES[shape](MANY)
        graph.validate()
        assert len(graph) == MANY
        results = [
            dict(xcs.execute_graph(graph, {"x": 3}, scheduler=scheduler))
            for scheduler in ("sequential", "parallel")
        ]
    assert results[0] == results[1]
    assert list(results[0]) == list(graph.outputs)
    if shape == "chain":
        assert results[0] == {f"n{MANY - 1}": chain_result(MANY)}
    if shape == "fan_out":
        assert set(results[0].values()) == {chain_result(2)}


@pytest.mark.parametrize("shape", SHAPES)
def test_planning_grows_linearly(shape) -> None:
    def seconds(size: int) -> float:
        graph = SHAPES[shape](size)
        start = time.perf_counter()
        graph.validate()
        lower(graph, get_execution_options())
        return time.perf_counter() - start

    small = min(seconds(MANY // 10) for _ in range(3))
    assert seconds(MANY) < 30 * small


def test_a_plan_of_many_host_calls_and_numeric_nodes() -> None:
    """Too many calls for exact sets: regions are found section by section."""
    graph = mixed(MANY, pure_share=0.5)
    start = time.perf_counter()
    with little_stack():
        plan = lower(graph, get_execution_options())
    assert time.perf_counter() - start < 50
    kinds = [task.kind for task in plan.tasks]
    pure = sum(node.operator.kind == "pure" for node in graph.nodes.values())
    assert kinds.count(TaskKind.REGION) < pure
    assert sum(len(task.node_ids) for task in plan.tasks) <= MANY


def test_numeric_nodes_in_a_graph_of_many_calls_give_what_python_gives() -> None:
    """The numeric part is small, since each region is compiled."""
    graph = chain(6_000)
    node = graph.add_node(pure_work, "p0")
    graph.connect("n5999", node.inputs["x"])
    for k in range(1, 300):
        after = graph.add_node(pure_work, f"p{k}")
        graph.connect(node, after.inputs["x"])
        node = after
    with little_stack(600):
        result = xcs.execute_graph(graph, {"x": 3}, scheduler="parallel")
    assert int(result["p299"]) == chain_result(6_300)


def test_fusion_of_a_hundred_thousand_numeric_nodes_is_one_group() -> None:
    parents = [[]] + [sorted({k // 2, k - 1}) if k > 1 else [0] for k in range(1, MANY)]
    with little_stack(50):
        groups = fusion.fusion_groups(parents, [True] * MANY, {MANY - 1})
    assert set(groups) == {0}


def test_passes_over_a_hundred_thousand_nodes() -> None:
    graph = xcs.XCSGraph()
    x = graph.input("x")
    for k in range(MANY // 4):
        one, same = (graph.add_node(deterministic, f"{name}{k}") for name in ("a", "b"))
        graph.connect(x, one.inputs["x"])
        graph.connect(x, same.inputs["x"])
        both = graph.add_node(deterministic_join, f"c{k}")
        graph.connect(one, both.inputs["x"])
        graph.connect(same, both.inputs["y"])
        graph.connect(both, graph.add_node(deterministic, f"dead{k}").inputs["x"])
    graph.set_outputs("c0", f"c{MANY // 4 - 1}")
    with little_stack():
        assert len(xcs.optimize(graph, ["dead_nodes"])) == 6
        assert len(xcs.optimize(graph, ["common_subexpressions"])) == 3
        assert xcs.optimize(graph, ["constant_folding", "open_composites"]) is graph
        result = xcs.execute_graph(graph, {"x": 3})
    assert set(result.values()) == {join(work(3), work(3))}


def test_many_side_effects_stay_in_order() -> None:
    log: list[int] = []

    def note(k):
        log.append(k)

    operator = xcs.host(side_effects=True)(note)
    graph = xcs.XCSGraph()
    for k in range(MANY // 10):
        graph.add_node(operator, f"n{k}", constants={"k": k})
    with little_stack():
        xcs.execute_graph(graph, scheduler="parallel")
    assert log == list(range(MANY // 10))
