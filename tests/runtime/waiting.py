"""Calls in a chain, each of which waits for a word on stdin: a main script; takes the journal."""

from __future__ import annotations

import sys

import ember_xcs as xcs


@xcs.host
def step(x: int) -> int:
    print(f"step {x}", flush=True)
    sys.stdin.readline()
    return x + 1


if __name__ == "__main__":
    graph, before = xcs.XCSGraph("waiting"), None
    for k in range(3):
        node = graph.add_node(step, node_id=f"n{k}")
        if before is not None:
            graph.connect(before, node.inputs["x"])
        before = node
    result = xcs.execute_graph(graph, {"x": 0}, options={"journal": sys.argv[1]})["n2"]
    print("result", result, flush=True)
