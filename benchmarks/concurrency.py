"""Host calls that wait: how much longer than they must take, with default settings."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

import ember_xcs as xcs
from benchmarks.harness import Row, compare, ratio_row
from benchmarks.scheduling import ThreadsByHand

COUNT, SECONDS = 200, 0.05
ASYNC_BAR, BLOCKING_BAR, SKEW_BAR = 1.1, 1.4, 1.1


@xcs.host
async def ask(number: int) -> int:
    await asyncio.sleep(SECONDS)
    return number


@xcs.host
def read(number: int) -> int:
    time.sleep(SECONDS)
    return number


def total(**numbers: int) -> int:
    return sum(numbers.values())


def fan(operator: Any) -> xcs.XCSGraph:
    """200 calls of an operator, and the sum of what they return."""
    graph = xcs.XCSGraph("fan")
    end = graph.add_node(total)
    for k in range(COUNT):
        node = graph.add_node(operator, constants={"number": k})
        graph.connect(node, end.inputs[f"n{k}"])
    return graph


def ways(operator: Any) -> dict[str, Callable[[], int]]:
    """A graph built by hand, and a vmap staged by jit."""
    graph = fan(operator)

    @xcs.jit.trace
    def mapped(numbers: jax.Array) -> jax.Array:
        return jnp.sum(jax.vmap(operator)(numbers))

    numbers = jnp.arange(COUNT)
    return {
        "execute_graph": lambda: int(xcs.execute_graph(graph)["total"]),
        "jit.trace of vmap": lambda: int(mapped(numbers)),
    }


async def gathered() -> int:
    async def call(number: int) -> int:
        await asyncio.sleep(SECONDS)
        return number

    return sum(await asyncio.gather(*(call(k) for k in range(COUNT))))


def async_calls(repeats: int) -> Iterator[Row]:
    sides = {**ways(ask), "asyncio.gather": lambda: asyncio.run(gathered())}
    check(sides)
    times = compare(repeats, sides)
    for name in ways(ask):
        what = f"{COUNT} async calls of 50 ms, {name}"
        yield ratio_row(what, times, name, "asyncio.gather", ASYNC_BAR)


def blocking_calls(repeats: int) -> Iterator[Row]:
    hands = ThreadsByHand(COUNT)
    parents: list[list[int]] = [[] for _ in range(COUNT)]

    def call() -> int:
        time.sleep(SECONDS)
        return 1

    def by_hand() -> int:
        return sum(k * one for k, one in enumerate(hands.run(parents, [call] * COUNT)))

    against = "200 warm threads by hand"
    sides: dict[str, Callable[[], int]] = {**ways(read), against: by_hand}
    check(sides)
    times = compare(repeats, sides)
    for name in ways(read):
        what = f"{COUNT} blocking calls of 50 ms, {name}, warm"
        yield ratio_row(what, times, name, against, BLOCKING_BAR)
    new = f"{COUNT} new threads by hand"
    times = compare(repeats, {**ways(read), new: new_threads}, before=xcs.shutdown_pools)
    for name in ways(read):
        yield ratio_row(f"{COUNT} blocking calls of 50 ms, {name}, no thread yet", times, name, new)


def new_threads() -> None:
    threads = [threading.Thread(target=time.sleep, args=(SECONDS,)) for _ in range(COUNT)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def check(sides: dict[str, Callable[[], int]]) -> None:
    assert {side() for side in sides.values()} == {sum(range(COUNT))}


def skewed(repeats: int) -> Iterator[Row]:
    """A call of 100 ms beside a chain of five of 20 ms, which both end in one node."""
    slow, quick = 0.1, 0.02

    @xcs.host
    def wait_long(x: int) -> int:
        time.sleep(slow)
        return x

    @xcs.host
    def wait(x: int) -> int:
        time.sleep(quick)
        return x + 1

    graph = xcs.XCSGraph("skewed")
    x = graph.input("x")
    value: Any = x
    for _ in range(5):
        node = graph.add_node(wait)
        graph.connect(value, node.inputs["x"])
        value = node
    long, end = graph.add_node(wait_long), graph.add_node(total)
    graph.connect(x, long.inputs["x"])
    graph.connect(value, end.inputs["a"])
    graph.connect(long, end.inputs["b"])

    @xcs.jit.trace
    def staged(x: jax.Array) -> jax.Array:
        y = x
        for _ in range(5):
            y = wait(y)
        return y + wait_long(x)

    sides = {
        "execute_graph": lambda: int(xcs.execute_graph(graph, {"x": 1})["total"]),
        "jit.trace": lambda: int(staged(1)),
        "critical path": lambda: time.sleep(max(slow, 5 * quick)),
    }
    assert sides["execute_graph"]() == sides["jit.trace"]() == 7
    times = compare(repeats, sides)
    for name in ("execute_graph", "jit.trace"):
        what = f"slow call beside a fast chain, {name}"
        yield ratio_row(what, times, name, "critical path", SKEW_BAR)


def rows(quick: bool = False) -> Iterator[Row]:
    repeats = 3 if quick else 15
    yield from async_calls(repeats)
    yield from blocking_calls(repeats)
    yield from skewed(repeats)
