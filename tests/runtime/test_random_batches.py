"""Graphs at random: whatever goes together, results are those of one call after another."""

from __future__ import annotations

import asyncio
import random

import pytest

import ember_xcs as xcs
from tests.counting import Calls


class Mix(xcs.HostOperator):
    calls: Calls
    base: int

    def forward(self, a: int, b: int = 0) -> int:
        self.calls.add(1)
        return (3 * a + b + self.base) % 1009

    def forward_batch(self, a, b=None):
        self.calls.add(len(a))
        rows = zip(a, b or [0] * len(a), strict=True)
        return [(3 * x + y + self.base) % 1009 for x, y in rows]


class MixLater(Mix):
    async def forward(self, a: int, b: int = 0) -> int:
        await asyncio.sleep(0)
        return Mix.forward(self, a, b)

    async def forward_batch(self, a, b=None):
        await asyncio.sleep(0)
        return Mix.forward_batch(self, a, b)


def random_graph(chance: random.Random, operators) -> xcs.XCSGraph:
    """A graph whose nodes take the graph's input or what earlier nodes give."""
    graph, ids = xcs.XCSGraph("random"), []
    for k in range(chance.randrange(2, 60)):
        node = graph.add_node(chance.choice(operators), node_id=f"n{k}")
        if ids and chance.random() < 0.85:
            graph.connect(chance.choice(ids[-12:]), node.inputs["a"])
            if chance.random() < 0.5:
                graph.connect(chance.choice(ids), node.inputs["b"])
        ids.append(f"n{k}")
    return graph


def random_options(chance: random.Random) -> dict[str, object]:
    """Options; a window is never waited for to its end where nothing can come of it."""
    return {
        "passes": (),
        "scheduler": chance.choice(["parallel", "adaptive", "wave"]),
        "max_workers": chance.choice([None, 1, 2, 5]),
        "batch_window_seconds": chance.choice([None, 0.0005, 0.005, 1000.0]),
        "max_batch_size": chance.choice([None, 1, 2, 3, 10]),
        "collect_metrics": chance.choice([True, False]),
        "on_error": chance.choice(["raise", "continue"]),
    }


@pytest.mark.parametrize("seed", range(40))
def test_results_are_those_of_one_call_after_another(seed) -> None:
    chance = random.Random(seed)
    calls = Calls()
    operators = [Mix(calls, 1), MixLater(calls, 2), Mix(calls, 5), xcs.host(lambda a, b=0: a + b)]
    graph = random_graph(chance, operators)
    inputs, in_order = dict.fromkeys(graph.inputs, 7), {"scheduler": "sequential", "passes": ()}
    expected = dict(xcs.execute_graph(graph, inputs, outputs="all", options=in_order))
    count = sum(calls.seen)
    calls.clear()
    options = random_options(chance)
    result = xcs.execute_graph(graph, inputs, outputs="all", options=options)
    assert dict(result) == expected
    assert sum(calls.seen) == count
    together = options["max_batch_size"]
    assert together is None or max(calls.seen, default=0) <= together
