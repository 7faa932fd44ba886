"""A program that shares a journal and a cache with others like it: a main script.

Arguments: the journal, the directory of the cache, the file of counts, and a name. Programs with
different names ask for different samples, and for the same facts.
"""

from __future__ import annotations

import asyncio
import sys
import time

import ember_xcs as xcs
from tests.runtime.counts import count

JOURNAL, CACHE, COUNTS, NAME = sys.argv[1:] if len(sys.argv) == 5 else ("", "", "", "")
LENGTH = 24


@xcs.host
def sample(name: str, x: int) -> int:
    time.sleep(0.004)  # what the call takes, so that there is something to be killed
    count(COUNTS, f"sample {name} {x}")
    return x + 1


@xcs.host
async def asample(name: str, x: int) -> int:
    await asyncio.sleep(0.004)
    count(COUNTS, f"asample {name} {x}")
    return x + 1


@xcs.host(deterministic=True)
def fact(x: int) -> int:
    time.sleep(0.004)
    count(COUNTS, f"fact {x}")
    return x + 2


def program() -> xcs.XCSGraph:
    """Three chains beside each other: samples of both kinds, and facts."""
    graph = xcs.XCSGraph("sharing")
    for operator in (sample, asample, fact):
        before = None
        for k in range(LENGTH):
            node = graph.add_node(operator, node_id=f"{operator.name}{k}")
            if before is not None:
                graph.connect(before, node.inputs["x"])
                if operator is not fact:
                    graph.connect(graph.input("name"), node.inputs["name"])
            before = node
    return graph


if __name__ == "__main__":
    with xcs.execution_options(journal=JOURNAL, cache=xcs.ResultCache(CACHE)):
        print("begun", flush=True)
        sys.stdin.readline()  # until all are there
        result = xcs.execute_graph(program(), {"name": NAME, "x": 0})
        print([result[f"{kind}{LENGTH - 1}"] for kind in ("sample", "asample", "fact")], flush=True)
