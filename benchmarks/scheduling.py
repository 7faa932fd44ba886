"""What scheduling costs: no-op nodes, against the same done by hand and by others.

The engine is measured twice: on plans made by hand, and on graphs that a user builds and runs
with ``xcs.execute_graph``, where the check of the inputs and the look-up of the plan count too.
"""

from __future__ import annotations

import functools
import operator
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Annotated, Any, TypedDict

import ember_xcs as xcs
from benchmarks.harness import Row, compare, installed, ratio_row, skipped
from ember_xcs import Executor, Plan, Task, TaskKind, execute_plan

Parents = Sequence[Sequence[int]]


def noop(*values: Any) -> int:
    return 1


def chain(n: int = 1000) -> Parents:
    return [[], *([i] for i in range(n - 1))]


def fan_out(n: int = 1000) -> Parents:
    return [[], *([0] for _ in range(n)), list(range(1, n + 1))]


def layered(layers: int = 10, width: int = 100) -> Parents:
    parents: list[list[int]] = [[] for _ in range(width)]
    for layer in range(1, layers):
        base = (layer - 1) * width
        parents += [[base + (i + k) % width for k in range(3)] for i in range(width)]
    return parents


SHAPES: dict[str, Parents] = {
    "chain 1000": chain(),
    "fan-out 1000": fan_out(),
    "layered 10x100": layered(),
}


def children_of(parents: Parents) -> list[list[int]]:
    children: list[list[int]] = [[] for _ in parents]
    for i, its_parents in enumerate(parents):
        for parent in its_parents:
            children[parent].append(i)
    return children


def plan_of(
    parents: Parents,
    functions: Sequence[Callable[..., Any]],
    executor: Executor = Executor.THREAD,
) -> Plan:
    children = children_of(parents)
    depth = [1.0] * len(parents)
    for i in reversed(range(len(parents))):
        depth[i] += max((depth[c] for c in children[i]), default=0)
    tasks = tuple(
        Task(
            index=i,
            kind=TaskKind.CALL,
            node_ids=(f"n{i}",),
            operator="benchmark",
            run=functions[i],
            reads=tuple(parents[i]),
            writes=(i,),
            successors=tuple(children[i]),
            parent_count=len(parents[i]),
            priority=depth[i],
            executor=executor,
        )
        for i in range(len(parents))
    )
    sinks = {f"n{i}": i for i, its in enumerate(children) if not its}
    return Plan(
        name="benchmark",
        tasks=tasks,
        slot_count=len(parents),
        inputs=(),
        constants=(),
        outputs=sinks,
        node_slots={f"n{i}": i for i in range(len(parents))},
        reader_counts=tuple(map(len, children)),
        roots=tuple(i for i, its in enumerate(parents) if not its),
    )


def plain_loop(parents: Parents, functions: Sequence[Callable[..., Any]]) -> list[Any]:
    values: list[Any] = [None] * len(parents)
    for i, fn in enumerate(functions):
        values[i] = fn(*[values[p] for p in parents[i]])
    return values


class ThreadsByHand:
    """N threads, a queue of ready nodes, counts of open parents; a worker goes on with one."""

    def __init__(self, count: int = 8) -> None:
        self.queue: SimpleQueue[Any] = SimpleQueue()
        for _ in range(count):
            threading.Thread(target=self.work, daemon=True).start()

    def run(self, parents: Parents, functions: Sequence[Callable[..., Any]]) -> list[Any]:
        job = Job(
            functions,
            parents,
            children_of_cached(parents),
            [len(p) for p in parents],
            [None] * len(parents),
        )
        job.left = len(parents)
        for i, its in enumerate(parents):
            if not its:
                self.queue.put((job, i))
        job.over.wait()
        return job.values

    def work(self) -> None:
        while True:
            job, i = self.queue.get()
            while i is not None:
                i = self.step(job, i)

    def step(self, job: Job, i: int) -> int | None:
        values = job.values
        values[i] = job.functions[i](*[values[p] for p in job.parents[i]])
        ready = []
        with job.lock:
            job.left -= 1
            left = job.left
            for child in job.children[i]:
                job.open[child] -= 1
                if not job.open[child]:
                    ready.append(child)
        if left == 0:
            job.over.set()
            return None
        for child in ready[1:]:
            self.queue.put((job, child))
        return ready[0] if ready else None


@dataclass
class Job:
    functions: Sequence[Callable[..., Any]]
    parents: Parents
    children: list[list[int]]
    open: list[int]
    values: list[Any]
    left: int = 0

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.over = threading.Event()


_children: dict[int, list[list[int]]] = {}


def children_of_cached(parents: Parents) -> list[list[int]]:
    if id(parents) not in _children:
        _children[id(parents)] = children_of(parents)
    return _children[id(parents)]


def graph_of(parents: Parents) -> xcs.XCSGraph:
    """The graph as a user writes it: a lambda with as many parameters as the node has parents."""
    of_none, of_one, of_three = (lambda: 1), (lambda a: 1), (lambda a, b, c: 1)
    of_many = lambda **values: 1  # noqa: E731
    lambdas = {0: of_none, 1: of_one, 3: of_three}
    graph = xcs.XCSGraph("benchmark")
    nodes: list[xcs.XCSNode] = []
    for i, its in enumerate(parents):
        node = graph.add_node(lambdas.get(len(its), of_many), f"n{i}")
        for k, parent in enumerate(its):
            field = "abc"[k] if len(its) in lambdas else f"v{k}"
            graph.connect(nodes[parent], node.inputs[field])
        nodes.append(node)
    return graph


def annotated_graph() -> xcs.XCSGraph:
    """A chain of 1000 functions that declare what they take and return, and so are checked."""

    def first() -> int:
        return 1

    def follow(a: int) -> int:
        return 1

    graph = xcs.XCSGraph("annotated")
    node = graph.add_node(first)
    for _ in range(999):
        following = graph.add_node(follow)
        graph.connect(node, following.inputs["a"])
        node = following
    return graph


def dask_of(parents: Parents) -> Callable[[], Any]:
    """The graph in dask's own form, so that nothing is converted in the measured run."""
    from dask._task_spec import Task as DaskTask
    from dask._task_spec import TaskRef
    from dask.threaded import get

    graph = {
        f"n{i}": DaskTask(f"n{i}", noop, *(TaskRef(f"n{p}") for p in its))
        for i, its in enumerate(parents)
    }
    ends = [f"n{i}" for i, its in enumerate(children_of(parents)) if not its]
    return lambda: get(graph, ends)


class State(TypedDict):
    values: Annotated[list[int], operator.add]


def langgraph_of(parents: Parents) -> Callable[[], Any]:
    """The graph compiled by LangGraph; a node waits for all its parents."""
    from langgraph.graph import END, START, StateGraph

    nothing: dict[str, list[int]] = {"values": []}
    builder = StateGraph(State)
    for i, its in enumerate(parents):
        builder.add_node(f"n{i}", lambda state: nothing)
        builder.add_edge([f"n{p}" for p in its] if its else START, f"n{i}")
    for i, its in enumerate(children_of(parents)):
        if not its:
            builder.add_edge(f"n{i}", END)
    compiled = builder.compile()
    config = {"recursion_limit": len(parents) + 10}
    return lambda: compiled.invoke({"values": []}, config)


def rows(quick: bool = False) -> Iterator[Row]:
    hands = ThreadsByHand()
    for shape, parents in SHAPES.items():
        functions = [noop] * len(parents)
        plan = plan_of(parents, functions)
        graph = graph_of(parents)
        ends = [1 for its in children_of(parents) if not its]
        for name in ("sequential", "parallel"):
            assert list(xcs.execute_graph(graph, scheduler=name).values()) == ends
        hand = {
            "sequential": ("plain loop", functools.partial(plain_loop, parents, functions), 4),
            "parallel": ("threads by hand", functools.partial(hands.run, parents, functions), 2),
        }
        for name, (against, by_hand, bar) in hand.items():
            sides = {
                "plan": functools.partial(execute_plan, plan, (), scheduler=name),
                "graph": functools.partial(xcs.execute_graph, graph, scheduler=name),
                against: by_hand,
            }
            times = compare(7 if quick else 31, sides, warm=3)
            yield ratio_row(f"{name}, plan, {shape}", times, "plan", against, bar)
            yield ratio_row(f"{name}, execute_graph, {shape}", times, "graph", against, bar)
        yield from against_others(shape, parents, graph, 3 if quick else 9)
    annotated, parents = annotated_graph(), chain()
    sides = {
        "graph": lambda: xcs.execute_graph(annotated, scheduler="sequential"),
        "plain loop": functools.partial(plain_loop, parents, [noop] * len(parents)),
    }
    times = compare(7 if quick else 31, sides, warm=3)
    yield ratio_row(
        "sequential, execute_graph, chain 1000 of int -> int", times, "graph", "plain loop"
    )


def against_others(
    shape: str, parents: Parents, graph: xcs.XCSGraph, repeats: int
) -> Iterator[Row]:
    """How many times faster than those who do the same for a living."""
    ours = functools.partial(xcs.execute_graph, graph, scheduler="parallel")
    what = f"parallel, execute_graph, {shape}"
    for name, package, make, bar in (
        ("dask threaded", "dask", dask_of, 8),
        ("LangGraph", "langgraph", langgraph_of, 20),
    ):
        if installed(package):
            times = compare(repeats, {"ours": ours, name: make(parents)}, warm=2)
            yield ratio_row(what, times, "ours", name, bar, faster=True)
        else:
            yield skipped(f"{what}: times faster than {name}", package)
