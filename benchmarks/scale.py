"""Graphs of up to 100,000 nodes: built, validated, planned, run."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import ember_xcs as xcs
from benchmarks.harness import Row, compare, duration, installed, ratio_row, skipped

SIZES = (10_000, 30_000, 100_000)
WIDTH = 100
BAR = 5


def start() -> str:
    return ""


def step(a: str, b: str) -> str:
    return a


def edges(count: int) -> Iterator[tuple[int, int, int]]:
    """Layers of 100 nodes; each node reads two of the layer before: (node, its parents)."""
    for i in range(WIDTH, count):
        base = (i // WIDTH - 1) * WIDTH
        yield i, base + i % WIDTH, base + (i + 1) % WIDTH


def built(count: int) -> xcs.XCSGraph:
    """The graph, by the calls that a user makes."""
    graph = xcs.XCSGraph("large")
    for i in range(count):
        graph.add_node(start if i < WIDTH else step, f"n{i}")
    for i, a, b in edges(count):
        graph.add_edge(f"n{a}", f"n{i}")
        graph.add_edge(f"n{b}", f"n{i}")
    return graph


def planned(count: int) -> Any:
    """Built, validated and planned."""
    graph = built(count)
    graph.validate()
    return xcs.GraphExecutor(graph).plan()


def by_networkx(count: int) -> Any:
    """The same graph in networkx."""
    import networkx

    graph = networkx.DiGraph()
    for i in range(count):
        graph.add_node(f"n{i}", operator=start if i < WIDTH else step)
    for i, a, b in edges(count):
        graph.add_edge(f"n{a}", f"n{i}", field="a")
        graph.add_edge(f"n{b}", f"n{i}", field="b")
    return graph


def sorted_by_networkx(count: int) -> Any:
    """The same, and sorted, which finds cycles."""
    import networkx

    return list(networkx.topological_sort(by_networkx(count)))


def plain_loop(count: int) -> Callable[[], list[str]]:
    """The nodes called one after another."""
    reads: list[tuple[int, ...]] = [()] * min(WIDTH, count)
    reads += [(a, b) for _, a, b in edges(count)]
    functions: list[Callable[..., str]] = [start if i < WIDTH else step for i in range(count)]

    def run() -> list[str]:
        values = [""] * count
        for i, function in enumerate(functions):
            values[i] = function(*[values[k] for k in reads[i]])
        return values[-WIDTH:]

    return run


def growth(repeats: int) -> Iterator[Row]:
    """Time for each node, at each size, over that at the smallest."""
    phases: dict[str, Callable[[xcs.XCSGraph], Any]] = {
        "validate": lambda graph: graph.validate(),
        "plan": lambda graph: xcs.GraphExecutor(graph).plan(),
        "run, sequential": lambda graph: xcs.execute_graph(graph, scheduler="sequential"),
        "run, parallel": lambda graph: xcs.execute_graph(graph, scheduler="parallel"),
    }
    found: dict[tuple[str, int], list[float]] = {}
    for _ in range(repeats):
        for size in SIZES:
            gc.collect()
            begin = time.perf_counter()
            graph = built(size)
            found.setdefault(("build", size), []).append(time.perf_counter() - begin)
            for name, phase in phases.items():
                begin = time.perf_counter()
                phase(graph)
                found.setdefault((name, size), []).append(time.perf_counter() - begin)
    small, *larger = SIZES
    for name in ("build", *phases):
        per_node = {size: statistics.median(found[name, size]) / size for size in SIZES}
        for size in larger:
            yield Row(
                f"{name}, a node: {size:,} nodes / {small:,} nodes",
                per_node[size] / per_node[small],
                detail=f"{duration(per_node[size])} / {duration(per_node[small])}",
            )


def rows(quick: bool = False) -> Iterator[Row]:
    count = SIZES[0] if quick else SIZES[-1]
    repeats = 3 if quick else 7
    graph = built(count)
    for scheduler in ("sequential", "parallel"):
        assert list(xcs.execute_graph(graph, scheduler=scheduler).values()) == [""] * WIDTH
    what = f"{count:,} nodes"
    if installed("networkx"):
        assert by_networkx(1000).number_of_edges() == len(built(1000).edges)
        sides = {
            "build": lambda: built(count),
            "build, validate, plan": lambda: planned(count),
            "networkx building it": lambda: by_networkx(count),
            "networkx building and sorting it": lambda: sorted_by_networkx(count),
        }
        times = compare(repeats, sides)
        yield ratio_row(f"build, {what}", times, "build", "networkx building it")
        yield ratio_row(
            f"build, validate, plan, {what}",
            times,
            "build, validate, plan",
            "networkx building it",
            BAR,
        )
        yield ratio_row(
            f"build, validate, plan, {what}",
            times,
            "build, validate, plan",
            "networkx building and sorting it",
        )
    else:
        yield skipped(f"build, validate, plan, {what} / networkx", "networkx")
    loop = plain_loop(count)
    assert loop() == [""] * WIDTH
    runs = {
        "sequential": lambda: xcs.execute_graph(graph, scheduler="sequential"),
        "parallel": lambda: xcs.execute_graph(graph, scheduler="parallel"),
        "plain loop": loop,
    }
    times = compare(repeats, runs)
    yield ratio_row(f"run, sequential, {what}", times, "sequential", "plain loop")
    yield ratio_row(f"run, parallel, {what}", times, "parallel", "plain loop")
    yield from growth(2 if quick else 5)
