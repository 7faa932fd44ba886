"""The transformations, warm, against JAX's own on the same work, and against host work by hand.

What runs on several devices runs in a process of its own, where eight CPU devices are simulated.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ember_xcs as xcs
from benchmarks.harness import Row, compare, ratio_row
from benchmarks.processes import CALLS, CORES, work

P = jax.P
BAR, PROCESS_BAR, HOST_BAR = 1.15, 1.7, 1.3
WAITS, WAIT_SECONDS = 1000, 0.05
ROWS, WIDTH = 4096, 64


def body(x: jax.Array) -> jax.Array:
    return jnp.tanh(x) @ jnp.sin(x)


def awaited(function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    return lambda: jax.block_until_ready(function(*args))


def pairs(devices: int) -> dict[str, tuple[Callable[[], Any], str, Callable[[], Any]]]:
    """What is ours, and JAX's own, for each transformation."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), ("x",))
    rows = jax.random.normal(jax.random.key(0), (ROWS, WIDTH))

    def by_shard(f: Callable[..., Any]) -> Callable[..., Any]:
        return jax.jit(jax.shard_map(f, mesh=mesh, in_specs=P("x"), out_specs=P("x")))

    def centred(x: jax.Array) -> jax.Array:
        return x - jax.lax.pmean(x.mean(0), "x")

    mapped = xcs.pmap(body, devices=jax.devices()[:devices])
    sharded = xcs.mesh_sharded(centred, mesh, partition_spec=P("x"))
    found = {
        "pmap": (
            awaited(mapped, rows),
            "jit(shard_map(vmap))",
            awaited(by_shard(jax.vmap(body)), rows),
        ),
        "mesh_sharded": (
            awaited(sharded, rows),
            "jit(shard_map)",
            awaited(by_shard(centred), rows),
        ),
    }
    if devices == 1:
        ours = awaited(xcs.jit(xcs.vmap(body)), rows)
        found["jit(vmap)"] = (ours, "jax.jit(jax.vmap)", awaited(jax.jit(jax.vmap(body)), rows))
    return found


def numeric_rows(devices: int, quick: bool) -> list[Row]:
    found = []
    for name, (ours, other, theirs) in pairs(devices).items():
        np.testing.assert_allclose(ours(), theirs(), rtol=1e-4, atol=1e-4)
        sides = {name: ours, other: theirs}
        times = compare(5 if quick else 41, sides, number=2 if quick else 10, warm=3)
        what = f"{name}, {devices} device{'s' if devices > 1 else ''}"
        found.append(ratio_row(what, times, name, other, BAR))
    return found


def on_eight_devices(quick: bool) -> list[Row]:
    jax.config.update("jax_num_cpu_devices", 8)
    return numeric_rows(8, quick)


def process_rows(quick: bool) -> Iterator[Row]:
    mapped, numbers = xcs.pmap(work, executor="process"), list(range(CALLS))
    against = f"pool of {CORES} processes by hand"
    with get_context("spawn").Pool(CORES) as pool:
        sides: dict[str, Callable[[], Any]] = {
            "pmap": lambda: mapped(numbers),
            against: lambda: pool.map(work, numbers, chunksize=1),
            "one process": lambda: [work(k) for k in numbers],
        }
        assert list(sides["pmap"]()) == sides["one process"]()
        times = compare(3 if quick else 11, sides)
    what = f"{CALLS} CPU-bound calls, pmap(executor='process')"
    yield ratio_row(what, times, "pmap", "one process", PROCESS_BAR, faster=True)
    yield ratio_row(what, times, "pmap", against)


@xcs.host
def wait(text: str) -> str:
    time.sleep(WAIT_SECONDS)
    return text


@xcs.host
async def await_it(text: str) -> str:
    await asyncio.sleep(WAIT_SECONDS)
    return text


def gathered(texts: list[str]) -> list[str]:
    async def one(text: str) -> str:
        await asyncio.sleep(WAIT_SECONDS)
        return text

    async def everything() -> list[str]:
        return await asyncio.gather(*map(one, texts))

    return asyncio.run(everything())


def host_rows(quick: bool) -> Iterator[Row]:
    texts = [f"t{k}" for k in range(WAITS)]
    blocking, asynchronous = xcs.vmap(wait), xcs.vmap(await_it)
    repeats = 3 if quick else 11
    what = f"vmap of {WAITS} host calls of {WAIT_SECONDS * 1e3:g} ms"

    def sleep_and_return(text: str) -> str:
        time.sleep(WAIT_SECONDS)
        return text

    with ThreadPoolExecutor(WAITS) as pool:
        by_hand = {
            "blocking": lambda: blocking(texts),
            "warm threads by hand": lambda: list(pool.map(sleep_and_return, texts)),
        }
        assert all(side() == texts for side in by_hand.values())
        times = compare(repeats, by_hand)
    yield ratio_row(f"{what}, blocking", times, "blocking", "warm threads by hand", HOST_BAR)
    sides = {
        "async": lambda: asynchronous(texts),
        "asyncio.gather by hand": lambda: gathered(texts),
    }
    assert all(side() == texts for side in sides.values())
    times = compare(repeats, sides)
    yield ratio_row(f"{what}, async", times, "async", "asyncio.gather by hand", HOST_BAR)


def rows(quick: bool = False) -> Iterator[Row]:
    os.environ.pop("XLA_FLAGS", None)  # as many devices as each process asks for
    yield from numeric_rows(1, quick)
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        yield from process.submit(on_eight_devices, quick).result()
    yield from process_rows(quick)
    yield from host_rows(quick)
