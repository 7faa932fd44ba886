"""The memory of a chain of 100 arrays of 10 MB: what is read by nobody any more is freed.

Live arrays are counted where each is made, through weak references; the peak of the process is
measured as well, in a process of its own for each way to run the chain. There malloc gives large
blocks back to the system at once: what it would keep of freed ones for later is not ours.

The last chain is many short ones, one after the other: an array that host code has loaded is
reduced by a slow program. What programs that have not run yet read is in memory, too.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ember_xcs as xcs
from benchmarks.harness import Row

LENGTH, MEGABYTES = 100, 10
BAR = 3.5
ELEMENTS = MEGABYTES * 1_000_000 // 4
REDUCTIONS, REDUCTIONS_BAR = 20, 6
RUNS = 3
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}  # of glibc; others do not read it


class Living:
    """How many of the arrays that were made are alive, and the most there ever were."""

    def __init__(self) -> None:
        self.now = self.peak = 0
        self._lock = threading.Lock()

    def made(self, array: Any) -> Any:
        with self._lock:
            self.now += 1
            self.peak = max(self.peak, self.now)
        weakref.finalize(array, self.freed)
        return array

    def freed(self) -> None:
        with self._lock:
            self.now -= 1


def host_chain(living: Living) -> tuple[xcs.XCSGraph, dict[str, Any]]:
    """Operators of plain numpy on the host."""

    def first() -> np.ndarray:
        return living.made(np.zeros(ELEMENTS, np.float32))

    def follow(x: np.ndarray) -> np.ndarray:
        return living.made(x + 1)

    return chain(first, follow), {}


def jax_chain(living: Living) -> tuple[xcs.XCSGraph, dict[str, Any]]:
    """Pure operators, each a region of its own, as nothing is fused."""

    @xcs.pure
    def first() -> jax.Array:
        return jnp.zeros(ELEMENTS, jnp.float32)

    @xcs.pure
    def follow(x: jax.Array) -> jax.Array:
        return x + 1

    return chain(first, follow), {"passes": ()}


def reductions() -> xcs.XCSGraph:
    """Arrays of host code, each of which a slow program makes a number."""

    @xcs.host
    def load() -> np.ndarray:
        return np.zeros(ELEMENTS, np.float32)

    @xcs.pure
    def reduced(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, 5, lambda _, total: total + jnp.sin(x + total).sum(), 0.0)

    graph = xcs.XCSGraph("reductions")
    for k in range(REDUCTIONS):
        graph.connect(
            graph.add_node(load, f"load{k}"), graph.add_node(reduced, f"n{k}").inputs["x"]
        )
    return graph


def chain(first: Any, follow: Any) -> xcs.XCSGraph:
    graph = xcs.XCSGraph("chain")
    node = graph.add_node(first, "n0")
    for k in range(1, LENGTH):
        following = graph.add_node(follow, f"n{k}")
        graph.connect(node, following.inputs["x"])
        node = following
    return graph


def jax_loop() -> jax.Array:
    """The same by hand: each step jitted alone."""
    first = jax.jit(lambda: jnp.zeros(ELEMENTS, jnp.float32))
    follow = jax.jit(lambda x: x + 1)
    x = first()
    for _ in range(1, LENGTH):
        x = follow(x)
    return x


def resident() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


class Watch:
    """Looks at the memory of the process, again and again, until told to stop."""

    def __init__(self) -> None:
        self.peak = self.base = resident()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.001):
            self.peak = max(self.peak, resident())

    @property
    def arrays(self) -> float:
        """How many arrays would fill what was added to the memory."""
        return (self.peak - self.base) / (MEGABYTES * 1_000_000)


def peak(kind: str, scheduler: str) -> tuple[float, float]:
    """Returns the most arrays alive at once (0: not counted), and the peak of the process.

    The peak is the median of several runs: what is freed when depends on other processes, too.
    """
    living = Living()
    graph, options = (host_chain if kind == "host" else jax_chain)(living)

    def run() -> Any:
        if scheduler == "by hand":
            return jax_loop()
        result = xcs.execute_graph(graph, options=options, scheduler=scheduler)
        return result[f"n{LENGTH - 1}"]

    if kind == "jax":
        jax.block_until_ready(run())  # compiles
    peaks = []
    for _ in range(RUNS):
        time.sleep(0.1)
        with Watch() as watch:
            last = jax.block_until_ready(run())
        assert float(last[0]) == LENGTH - 1
        del last
        peaks.append(watch.arrays)
    return living.peak, statistics.median(peaks)


def peak_of_reductions(scheduler: str) -> tuple[float, float]:
    """Returns 0, as nothing is counted, and the peak of the process."""
    graph = reductions()

    def run() -> None:
        result = xcs.execute_graph(graph, options={"passes": ()}, scheduler=scheduler)
        jax.block_until_ready(list(result.values()))

    run()  # compiles
    time.sleep(0.1)
    with Watch() as watch:
        run()
    return 0, watch.arrays


def in_new_process(call: str) -> tuple[float, float]:
    command = f"from benchmarks import memory; print(*memory.{call})"
    ran = subprocess.run(
        [sys.executable, "-c", command],
        capture_output=True,
        check=True,
        text=True,
        env=os.environ | MALLOC,
    )
    alive, arrays = map(float, ran.stdout.split())
    return alive, arrays


def rows(quick: bool = False) -> Iterator[Row]:
    del quick
    for kind, schedulers in (
        ("host", ("sequential", "parallel")),
        ("jax", ("sequential", "parallel", "by hand")),
    ):
        for scheduler in schedulers:
            alive, arrays = in_new_process(f"peak({kind!r}, {scheduler!r})")
            what = f"chain of {LENGTH} arrays of {MEGABYTES} MB, {kind} operators, {scheduler}"
            detail = f"alive at once: {alive:.0f}" if alive else ""
            bar = None if scheduler == "by hand" else BAR
            yield Row(f"{what}: peak", arrays, bar, unit="arrays", detail=detail)
    _, arrays = in_new_process("peak_of_reductions('sequential')")
    what = f"{REDUCTIONS} loaded arrays of {MEGABYTES} MB, each reduced, sequential"
    yield Row(f"{what}: peak", arrays, REDUCTIONS_BAR, unit="arrays")
