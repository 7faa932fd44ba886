"""An operator with a batch end point, and graphs of it whose calls are ready together."""

from __future__ import annotations

import asyncio

import ember_xcs as xcs
from tests.counting import Calls


class Double(xcs.HostOperator):
    """Doubles, and notes what it was asked for: a number alone, a list together."""

    calls: Calls

    def forward(self, x: int) -> int:
        self.calls.add(int(x))
        return 2 * int(x)

    def forward_batch(self, x):
        self.calls.add([int(value) for value in x])
        return [2 * int(value) for value in x]


class DoubleLater(Double):
    """The same, awaited."""

    async def forward(self, x: int) -> int:
        return Double.forward(self, x)

    async def forward_batch(self, x):
        await asyncio.sleep(0)
        return Double.forward_batch(self, x)


inline = xcs.host(executor="inline")


def fed(operator, *values: int) -> xcs.XCSGraph:
    """Nodes n4, n5, ... that one node makes ready with these values."""
    graph = xcs.XCSGraph("fed")
    source = graph.add_node(xcs.host(lambda: {f"v{v}": v for v in values}), node_id="source")
    for value in values:
        node = graph.add_node(operator, node_id=f"n{value}")
        graph.connect(source.outputs[f"v{value}"], node.inputs["x"])
    return graph


def roots(operator, count: int = 4) -> xcs.XCSGraph:
    """Nodes n0, n1, ... that take the graph's input, and are ready from the beginning."""
    graph = xcs.XCSGraph("roots")
    for k in range(count):
        graph.add_node(operator, node_id=f"n{k}")
    return graph


def run(graph, **options):
    """Runs a graph as it is: equal nodes stay apart."""
    inputs = {"x": 3} if graph.inputs else {}
    return xcs.execute_graph(graph, inputs, outputs="all", options={"passes": (), **options})
