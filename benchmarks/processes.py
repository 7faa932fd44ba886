"""CPU-bound Python on several cores: ``executor="process"`` against one process.

A pool of processes by hand shows how much the machine has to give just now.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator

import jax
import jax.numpy as jnp

import ember_xcs as xcs
from benchmarks.harness import Row, compare, ratio_row

CALLS, STEPS, CORES = 8, 1_000_000, 2
BAR = 1.7


def work(number: int) -> int:
    """Pure Python that holds the interpreter."""
    value = number + 1
    for _ in range(STEPS):
        value = (value * 1_103_515_245 + 12_345) % 2_147_483_648
    return value


in_process = xcs.host(executor="process")(work)


def one_process() -> list[int]:
    return [work(k) for k in range(CALLS)]


def fan() -> xcs.XCSGraph:
    graph = xcs.XCSGraph("fan")
    for k in range(CALLS):
        graph.add_node(in_process, f"n{k}", constants={"number": k})
    return graph


@xcs.jit.trace
def mapped(numbers: jax.Array) -> jax.Array:
    return jax.vmap(in_process)(numbers)


def rows(quick: bool = False) -> Iterator[Row]:
    graph, numbers = fan(), jnp.arange(CALLS)
    expected = one_process()
    assert list(xcs.execute_graph(graph).values()) == expected
    assert mapped(numbers).tolist() == expected
    against = f"pool of {CORES} processes by hand"
    with multiprocessing.get_context("spawn").Pool(CORES) as pool:
        sides = {
            "execute_graph": lambda: xcs.execute_graph(graph),
            "jit.trace of vmap": lambda: mapped(numbers),
            against: lambda: pool.map(work, range(CALLS), chunksize=1),
            "one process": one_process,
        }
        times = compare(3 if quick else 11, sides)
    what = f"{CALLS} CPU-bound calls"
    for name in ("execute_graph", "jit.trace of vmap"):
        which = f"{what}, executor='process', {name}"
        yield ratio_row(which, times, name, "one process", BAR, faster=True)
        yield ratio_row(which, times, name, against)
    yield ratio_row(f"{what}, {against}", times, against, "one process", faster=True)
