"""What no result needs is left out, if nobody could tell."""

from __future__ import annotations

import pytest

import ember_xcs as xcs
from tests.properties.graphs import Calls


def graph_with_unused(operator) -> xcs.XCSGraph:
    graph = xcs.XCSGraph()
    graph.add_node(operator, "unused")
    graph.add_node(xcs.pure(lambda x: x + 1), "used")
    graph.set_outputs("used")
    return graph


def host(calls, **settings):
    def work(x):
        calls.note("unused")

    return xcs.host(**settings)(work)


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, 1),
        ({"deterministic": True}, 0),
        ({"side_effects": True}, 1),
        ({"deterministic": True, "side_effects": True}, 1),
    ],
)
def test_host_calls_stay_unless_they_are_deterministic_and_have_no_side_effects(
    settings, count
) -> None:
    calls = Calls()
    graph = graph_with_unused(host(calls, **settings))
    assert xcs.execute_graph(graph, {"x": 1})["used"] == 2
    assert calls.counts["unused"] == count


def test_pure_nodes_that_nobody_reads_are_dropped() -> None:
    def refuse(x):
        raise AssertionError("this is not to be traced")

    graph = graph_with_unused(xcs.pure(refuse))
    assert list(xcs.optimize(graph, ["dead_nodes"])) == ["used"]
    assert xcs.execute_graph(graph, {"x": 1})["used"] == 2


def test_what_a_stochastic_call_reads_stays_with_it() -> None:
    graph = xcs.XCSGraph()
    a = graph.add_node(xcs.pure(lambda x: x + 1), "a")
    b = graph.add_node(lambda x: x, "b")
    graph.connect(a, b)
    graph.add_node(xcs.pure(lambda x: x), "c")
    graph.set_outputs("c")
    assert xcs.optimize(graph, ["dead_nodes"]) is graph


def test_a_chain_of_unused_nodes_goes_as_a_whole() -> None:
    graph = xcs.XCSGraph()
    graph.add_node(xcs.pure(lambda x: x), "c")
    before = "c"
    for k in range(5):
        graph.connect(before, graph.add_node(xcs.pure(lambda x: x), f"n{k}"))
        before = f"n{k}"
    graph.set_outputs("c")
    assert list(xcs.optimize(graph, ["dead_nodes"])) == ["c"]


def test_inputs_metadata_names_and_outputs_stay() -> None:
    graph = xcs.XCSGraph("kept")
    x, y = graph.input("x"), graph.input("y", default=3)
    graph.connect(x, graph.add_node(xcs.pure(lambda x: x), "dead"))
    node = graph.add_node(lambda x, y: x + y, "n", name="adder", metadata={"team": "search"})
    graph.connect(x, node.inputs["x"])
    graph.connect(y, node.inputs["y"])
    graph.set_outputs(total=node, echo=x)
    found = xcs.optimize(graph, ["dead_nodes"])
    assert list(found) == ["n"]
    assert (found["n"].name, found["n"].metadata, found.name) == (
        "adder",
        {"team": "search"},
        "kept",
    )
    assert found.declared_inputs == graph.declared_inputs
    assert dict(xcs.execute_graph(found, {"x": 1})) == {"total": 4, "echo": 1}
