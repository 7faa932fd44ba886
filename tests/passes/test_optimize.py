"""Passes by name."""

from __future__ import annotations

import pytest

import ember_xcs as xcs
from ember_xcs._passes import DEFAULT_PASSES


def test_an_unknown_pass_is_refused_with_the_list_of_passes() -> None:
    with pytest.raises(xcs.OptionsError, match="'dead_node'") as caught:
        xcs.optimize(xcs.XCSGraph(), ["dead_node"])
    assert all(name in str(caught.value) for name in DEFAULT_PASSES)


def test_nothing_runs_where_a_pass_is_unknown() -> None:
    ran = []
    graph = xcs.XCSGraph()
    graph.add_node(lambda x: ran.append(x + 1), "node")
    with pytest.raises(xcs.OptionsError, match="fusion"):
        xcs.execute_graph(graph, {"x": 1}, options={"passes": ("fusion", "dead_node")})
    assert ran == []


def test_an_unknown_pass_is_found_before_any_pass_runs() -> None:
    traced = []
    graph = xcs.XCSGraph()
    node = graph.add_node(xcs.pure(lambda x: traced.append(x + 1)), "node", constants={"x": 1})
    graph.connect(node, graph.add_node(xcs.host(lambda x: x), "reader").inputs["x"])
    with pytest.raises(xcs.OptionsError):
        xcs.optimize(graph, ["constant_folding", "dead_node"])
    assert traced == []
    xcs.optimize(graph, ["constant_folding"])
    assert traced


def test_a_graph_with_nothing_to_do_is_returned_itself() -> None:
    graph = xcs.XCSGraph()
    graph.add_node(lambda x: x, "node")
    assert xcs.optimize(graph) is graph
    assert xcs.optimize(graph, []) is graph


def test_passes_run_in_the_order_in_which_they_are_given() -> None:
    """Two dead branches keep their common part apart only until it is merged."""
    graph = xcs.XCSGraph()
    operator = xcs.pure(lambda x: x)
    for node_id in ("kept", "same"):
        graph.add_node(operator, node_id)
    graph.set_outputs("kept")
    assert list(xcs.optimize(graph, ["dead_nodes"])) == ["kept"]
    assert list(xcs.optimize(graph, ["common_subexpressions"])) == ["kept"]
    assert xcs.optimize(graph, ["fusion"]) is graph


def test_an_optimized_graph_runs_on_its_own() -> None:
    graph = xcs.XCSGraph("whole")
    x = graph.input("x")
    a = graph.add_node(xcs.pure(lambda x: x + 1), "a")
    b = graph.add_node(xcs.pure(lambda x, k: x * k), "b", constants={"k": 3})
    graph.connect(x, a.inputs["x"])
    graph.connect(a, b.inputs["x"])
    found = xcs.optimize(graph)
    assert found.name == "whole"
    assert int(xcs.execute_graph(found, {"x": 1})["b"]) == 6
