"""What scheduling costs, against the same done by hand.

Each row is a ratio of medians over repeats that are interleaved, so that noise of the machine
falls on both sides. Run it as ``python benchmarks/scheduling.py``.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from ember_xcs._lower.plan import Executor, Plan, Task, TaskKind
from ember_xcs._runtime.shutdown import shutdown_pools
from ember_xcs._runtime.supervise import execute_plan

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


def compare(
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    repeats: int,
    before: Callable[[], Any] = gc.collect,
) -> tuple[float, float]:
    """Returns the medians of both, in seconds."""
    times: tuple[list[float], list[float]] = ([], [])
    ours(), theirs()
    for _ in range(repeats):
        for side, function in zip(times, (ours, theirs), strict=True):
            before()
            start = time.perf_counter()
            function()
            side.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def row(name: str, times: tuple[float, float], bar: float) -> None:
    ours, theirs = times
    ratio = ours / theirs
    verdict = "" if ratio <= bar else "  above the bar"
    print(f"{name:<50} {ours * 1e3:9.3f} {theirs * 1e3:9.3f} {ratio:6.2f} {bar:5.2f}{verdict}")


def overheads(repeats: int = 41) -> None:
    hands = ThreadsByHand()
    for shape, parents in SHAPES.items():
        functions = [noop] * len(parents)
        plan = plan_of(parents, functions)
        loop = functools.partial(plain_loop, parents, functions)
        by_hand = functools.partial(hands.run, parents, functions)
        for name, other, bar in (("sequential", loop, 4), ("parallel", by_hand, 2)):
            ours = functools.partial(execute_plan, plan, (), scheduler=name)
            against = "plain loop" if other is loop else "threads by hand"
            row(f"{name}, {shape}, / {against}", compare(ours, other, repeats), bar)


def async_calls(n: int = 200, seconds: float = 0.05, repeats: int = 9) -> None:
    async def call(*_: Any) -> int:
        await asyncio.sleep(seconds)
        return 1

    async def gather() -> int:
        return sum(await asyncio.gather(*(call() for _ in range(n))))

    plan = plan_of([[] for _ in range(n)], [call] * n, Executor.ASYNC)
    times = compare(lambda: execute_plan(plan, ()), lambda: asyncio.run(gather()), repeats)
    row(f"{n} async calls of 50 ms, / asyncio.gather", times, 1.1)


def blocking_calls(n: int = 200, seconds: float = 0.05, repeats: int = 9) -> None:
    def call(*_: Any) -> int:
        time.sleep(seconds)
        return 1

    hands = ThreadsByHand(n)
    parents: Parents = [[] for _ in range(n)]
    functions = [call] * n
    plan = plan_of(parents, functions)
    times = compare(lambda: execute_plan(plan, ()), lambda: hands.run(parents, functions), repeats)
    row(f"{n} blocking calls of 50 ms, / warm threads", times, 1.4)
    times = compare(
        lambda: execute_plan(plan, ()),
        lambda: hands.run(parents, functions),
        repeats,
        before=shutdown_pools,
    )
    row(f"{n} blocking calls, no thread yet, / warm threads", times, 1.4)


def skewed(repeats: int = 9) -> None:
    """A call of 100 ms beside a chain of five of 20 ms, which end in one node."""

    def wait(seconds: float) -> Callable[..., int]:
        return lambda *_: time.sleep(seconds) or 1

    parents: Parents = [[], [0], [1], [2], [3], [], [5], [4, 6]]
    plan = plan_of(parents, [wait(seconds) for seconds in [0.02] * 5 + [0.1, 0.0, 0.0]])
    times = compare(lambda: execute_plan(plan, ()), lambda: time.sleep(0.1), repeats)
    row("slow node beside a fast chain, / critical path", times, 1.1)


def main() -> None:
    print(f"{'':<50} {'ours ms':>9} {'hand ms':>9} {'ratio':>6} {'bar':>5}")
    overheads()
    async_calls()
    blocking_calls()
    skewed()


if __name__ == "__main__":
    main()
