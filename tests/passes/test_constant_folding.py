"""What needs no input is computed before the run."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pydantic
import pytest

import ember_xcs as xcs
from tests.properties.graphs import plain


def folded(graph: xcs.XCSGraph) -> xcs.XCSGraph:
    return xcs.optimize(graph, ["constant_folding"])


def read_by_host(operator, constants, field=None) -> xcs.XCSGraph:
    """A node of constants, and a host node that returns what it reads of it."""
    graph = xcs.XCSGraph()
    node = graph.add_node(operator, "node", constants=constants)
    reader = graph.add_node(xcs.host(lambda value: value), "reader")
    graph.connect(node if field is None else node.outputs[field], reader.inputs["value"])
    return graph


def both_ways(graph: xcs.XCSGraph):
    """The results with and without folding, which are the same."""
    assert "node" not in folded(graph)
    results = [
        plain(dict(xcs.execute_graph(graph, options={"passes": passes})))
        for passes in ((), ("constant_folding",))
    ]
    assert results[0] == results[1]
    return results[0]["reader"]


@pytest.mark.parametrize(
    ("function", "constants", "expected"),
    [
        (lambda x: x + 1, {"x": 2}, 3),
        (lambda x, *, k: x * k, {"x": 2, "k": 5}, 10),
        (lambda a, b=10, c=20: a + 2 * b + 4 * c, {"a": 1, "b": 1, "c": 3}, 15),
        (lambda n: jnp.arange(n) + 0, {"n": 3}, [0, 1, 2]),
        (lambda x, flag: x if flag else -x, {"x": 2, "flag": False}, -2),
        (lambda x, name: {"sum": x.sum()}[name], {"x": np.ones(3), "name": "sum"}, 3.0),
        (lambda x: {"y": x, "z": [x, x]}, {"x": 1}, {"y": 1, "z": [1, 1]}),
    ],
)
def test_folded_values_are_those_of_the_run(function, constants, expected) -> None:
    assert both_ways(read_by_host(xcs.pure(function), constants)) == expected


class Number(pydantic.BaseModel):
    x: Any


class Increment(xcs.Operator):
    input_spec = Number

    def forward(self, *, inputs):
        return {"y": inputs["x"] + 1}


def test_an_operator_of_the_inputs_style_is_folded() -> None:
    assert both_ways(read_by_host(Increment(), {"x": 3}, "y")) == 4


def test_chains_are_folded_through_fields() -> None:
    graph = xcs.XCSGraph()
    pair = graph.add_node(xcs.pure(lambda x: {"a": x, "b": x + 1}), "pair", constants={"x": 1})
    node = graph.add_node(xcs.pure(lambda y: y * 10), "node")
    graph.connect(pair.outputs["b"], node.inputs["y"])
    reader = graph.add_node(xcs.host(lambda value: value), "reader")
    graph.connect(node, reader.inputs["value"])
    assert list(folded(graph)) == ["reader"]
    assert both_ways(graph) == 20


@pytest.mark.parametrize(
    "function",
    [
        lambda x: {"y": x, "note": "text"},
        lambda x: "text",
        lambda x: None,
        lambda x: jnp.zeros(1 << 20) + x,
    ],
)
def test_what_is_no_small_tree_of_arrays_stays(function) -> None:
    graph = read_by_host(xcs.pure(function), {"x": 1})
    assert list(folded(graph)) == ["node", "reader"]
    xcs.execute_graph(graph)


def test_the_metadata_of_a_node_that_fails_say_why_it_is_not_folded() -> None:
    class OnlyHere(Exception):
        pass

    def fail(x):
        raise OnlyHere("broken")

    graph = read_by_host(xcs.pure(fail), {"x": 1})
    assert folded(graph)["node"].metadata["not_folded"] == "OnlyHere: broken"
    assert "not_folded" not in graph["node"].metadata


def test_an_error_is_left_to_the_run_which_names_the_node() -> None:
    def fail(x):
        raise KeyError("mine")

    graph = read_by_host(xcs.pure(fail), {"x": 1})
    with pytest.raises(xcs.NodeExecutionError, match=r"'node'.*KeyError"):
        xcs.execute_graph(graph)


def test_results_stay() -> None:
    graph = read_by_host(xcs.pure(lambda x: x + 1), {"x": 1})
    graph.set_outputs("node", "reader")
    assert folded(graph) is graph


def test_host_work_is_never_done_beforehand() -> None:
    graph = read_by_host(xcs.host(deterministic=True)(lambda x: x), {"x": 1})
    assert folded(graph) is graph


def test_optional_fields_of_a_node_do_not_take_inputs_of_the_graph() -> None:
    graph = xcs.XCSGraph()
    node = graph.add_node(xcs.pure(lambda x: x + 1), "node", constants={"x": 1})
    reader = graph.add_node(xcs.host(lambda value, scale=1: float(value) * scale), "reader")
    graph.connect(node, reader.inputs["value"])
    graph.add_node(xcs.pure(lambda scale: scale), "other")
    for passes in ((), ("constant_folding",)):
        result = xcs.execute_graph(graph, {"scale": 100}, options={"passes": passes})
        assert result["reader"] == 2.0


def test_an_operator_of_any_fields_does_not_take_inputs_of_the_graph() -> None:
    graph = xcs.XCSGraph()
    node = graph.add_node(xcs.pure(lambda x: x + 1), "node", constants={"x": 1})
    reader = graph.add_node(xcs.host(lambda **fields: sorted(fields)), "reader")
    graph.connect(node, reader.inputs["value"])
    graph.add_node(xcs.pure(lambda scale: scale), "other")
    result = xcs.execute_graph(graph, {"scale": 100})
    assert result["reader"] == ["value"]


def test_what_only_the_run_can_bind_stays() -> None:
    graph = xcs.XCSGraph()
    node = graph.add_node(xcs.pure(lambda x: {"a": x}), "node", constants={"x": 1})
    reader = graph.add_node(xcs.host(lambda a, b=2: float(a) + b), "reader")
    graph.connect(node, reader)
    assert folded(graph) is graph
    assert xcs.execute_graph(graph)["reader"] == 3.0


def test_the_other_edges_of_a_node_keep_their_order() -> None:
    graph = xcs.XCSGraph()
    minus = xcs.host(lambda a, b, c: (float(a), float(b), float(c)))
    one = graph.add_node(xcs.host(_number), "one")
    node = graph.add_node(xcs.pure(_constant), "node", constants={"x": 5})
    reader = graph.add_node(minus, "reader")
    graph.connect(one, reader)
    graph.connect(node, reader)
    graph.connect(one, reader)
    assert "node" not in folded(graph)
    for passes in ((), ("constant_folding",)):
        result = xcs.execute_graph(graph, {"x": 1}, options={"passes": passes})
        assert result["reader"] == (1.0, 5.0, 1.0)


def _number(x: int) -> int:
    return x


def _constant(x) -> int:
    return x
