"""Programs that are killed and run again: a main script. It counts its calls in a file.

Arguments: the journal, the file of counts.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

import ember_xcs as xcs

COUNTS = sys.argv[2] if len(sys.argv) > 2 else ""


def count(what: object) -> None:
    """Says that a call is about to return; what is killed after that was as good as finished."""
    file = os.open(COUNTS, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(file, f"{what}\n".encode())
    os.close(file)


@xcs.host
def step(x: int) -> int:
    time.sleep(0.004)  # what the call takes, so that there is something to be killed
    count(f"step {x}")
    return int(x) + 1


@xcs.host
async def astep(x: int) -> int:
    await asyncio.sleep(0.004)
    count(f"astep {x}")
    return int(x) + 1


class Batch(xcs.HostOperator):
    """Adds one to several at once."""

    max_batch_size = 2

    def forward(self, x: int) -> int:
        raise AssertionError("one by one")

    def forward_batch(self, xs: list[int]) -> list[int]:
        time.sleep(0.006)
        count("\n".join(f"batch {int(x)}" for x in xs))
        return [int(x) + 1 for x in xs]


batch = Batch()


def chain_of(operator: object, length: int) -> xcs.XCSGraph:
    graph = xcs.XCSGraph(f"chain of {length}")
    before = None
    for k in range(length):
        node = graph.add_node(operator, node_id=f"n{k}")
        if before is not None:
            graph.connect(before, node.inputs["x"])
        before = node
    return graph


def graph() -> object:
    return [xcs.execute_graph(chain_of(f, 12), {"x": 0})["n11"] for f in (step, astep)]


def mapped() -> object:
    program = xcs.jit.trace(jax.vmap(lambda x: astep(step(x))))
    return np.asarray(program(jnp.arange(12))).tolist()


def batched() -> object:
    return np.asarray(xcs.jit.trace(jax.vmap(batch))(jnp.arange(24))).tolist()


def loop() -> object:
    program = xcs.jit.trace(lambda x: xcs.while_loop(lambda c: c < 16, step, x))
    return int(program(jnp.array(0)))


def pmapped() -> object:
    doubled = xcs.pmap(plain, executor="thread", num_workers=2, chunk_size=2)
    return np.asarray(doubled(np.arange(20))).tolist()


def plain(x: object) -> object:
    time.sleep(0.004)
    count(f"plain {int(x)}")
    return int(x) + 1


@xcs.host
def around(x: int) -> int:
    value = xcs.execute_graph(chain_of(step, 8), {"x": 100 * int(x)})["n7"]
    count(f"around {x}")
    return value


def nested() -> object:
    return np.asarray(xcs.jit.trace(jax.vmap(around))(jnp.arange(3))).tolist()


def repeated() -> object:
    return [xcs.execute_graph(chain_of(step, 6), {"x": 0})["n5"] for _ in range(3)]


PROGRAMS = [graph, mapped, batched, loop, pmapped, nested, repeated]

if __name__ == "__main__":
    with xcs.execution_options(journal=sys.argv[1]):
        print("begun", flush=True)
        print([program() for program in PROGRAMS], flush=True)
