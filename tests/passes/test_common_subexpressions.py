"""Equal nodes are merged: the same operator, fed from the same places."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import ember_xcs as xcs
from ember_xcs._core.plumbing import Form, Pack
from tests.properties.graphs import Calls, plain


def text_of(x):
    return repr(x)


def merged(graph: xcs.XCSGraph) -> xcs.XCSGraph:
    return xcs.optimize(graph, ["common_subexpressions"])


def twice(operator, **settings) -> xcs.XCSGraph:
    graph = xcs.XCSGraph()
    for node_id in ("first", "second"):
        graph.add_node(operator, node_id, **settings)
    return graph


def counting(calls, **settings):
    def work(x):
        calls.note("work")
        return x * 2

    return xcs.host(**settings)(work)


@pytest.mark.parametrize(("deterministic", "count"), [(True, 1), (False, 2)])
def test_only_deterministic_calls_are_merged(deterministic, count) -> None:
    calls = Calls()
    graph = twice(counting(calls, deterministic=deterministic))
    assert dict(xcs.execute_graph(graph, {"x": 4})) == {"first": 8, "second": 8}
    assert calls.counts["work"] == count


def test_calls_with_side_effects_are_not_merged() -> None:
    calls = Calls()
    graph = twice(counting(calls, deterministic=True, side_effects=True))
    xcs.execute_graph(graph, {"x": 4})
    assert calls.counts["work"] == 2


def test_merged_nodes_keep_their_names_in_results() -> None:
    graph = twice(xcs.pure(lambda x: {"y": x + 1}))
    graph.set_outputs("first", "second", field=graph["second"].outputs["y"])
    found = merged(graph)
    assert list(found) == ["first"]
    assert plain(dict(xcs.execute_graph(found, {"x": 1}))) == {
        "first": {"y": 2},
        "second": {"y": 2},
        "field": 2,
    }


def test_what_reads_merged_nodes_is_merged_too() -> None:
    graph = twice(xcs.pure(lambda x: x + 1))
    other = xcs.pure(lambda x: x * 5)
    for source in ("first", "second"):
        graph.connect(source, graph.add_node(other, f"after_{source}"))
    assert list(merged(graph)) == ["first", "after_first"]


def test_a_node_that_reads_two_merged_ones_reads_one_twice() -> None:
    graph = twice(xcs.pure(lambda x: x + 1))
    node = graph.add_node(xcs.host(lambda a, b: (float(a), float(b))), "both")
    graph.connect("first", node)
    graph.connect("second", node)
    found = merged(graph)
    assert len(found) == 2
    assert xcs.execute_graph(found, {"x": 1})["both"] == (2.0, 2.0)


@xcs.host(deterministic=True)
def minus(a: int, b: int) -> int:
    return a - b


def test_unmapped_edges_in_another_order_are_another_call() -> None:
    graph = xcs.XCSGraph()
    one = graph.add_node(xcs.host(lambda x: x), "one")
    two = graph.add_node(xcs.host(lambda x: x * 10), "two")
    for node_id, sources in {"ab": (one, two), "ba": (two, one), "again": (one, two)}.items():
        node = graph.add_node(minus, node_id)
        for source in sources:
            graph.connect(source, node)
    found = merged(graph)
    assert "again" not in found
    assert "ba" in found
    result = xcs.execute_graph(graph, {"x": 1})
    assert dict(result) == {"ab": -9, "ba": 9, "again": -9}


def test_spreads_tell_nodes_apart() -> None:
    graph = xcs.XCSGraph()
    fields = graph.add_node(xcs.host(lambda x: {"a": x, "b": 1}), "fields")
    other = graph.add_node(xcs.host(lambda x: {"a": 1, "b": x}), "other")
    for node_id, source in {"one": fields, "same": fields, "another": other}.items():
        graph.connect(source, graph.add_node(minus, node_id))
    assert set(graph) - set(merged(graph)) == {"same"}
    assert dict(xcs.execute_graph(graph, {"x": 5})) == {"one": 4, "same": 4, "another": -4}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, True),
        (0.0, -0.0),
        ([1], (1,)),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (np.array([2], np.int32), np.array([2], np.float32)),
        (np.array(2.0), np.array([2.0])),
        (jnp.ones(1), jnp.ones((1, 1))),
        ([np.array([2])], [np.array([2.0])]),
    ],
)
def test_constants_that_are_merely_equal_are_not_the_same(one, other) -> None:
    graph = xcs.XCSGraph()
    kind = xcs.host(deterministic=True)(text_of)
    graph.add_node(kind, "one", constants={"x": one})
    graph.add_node(kind, "other", constants={"x": other})
    assert merged(graph) is graph


@pytest.mark.parametrize("value", [1, "text", (1, "a"), [1, 2], {"a": [1]}, None])
def test_equal_constants_are_the_same(value) -> None:
    copy = eval(repr(value))
    graph = xcs.XCSGraph()
    kind = xcs.host(deterministic=True)(lambda x: x)
    graph.add_node(kind, "one", constants={"x": value})
    graph.add_node(kind, "other", constants={"x": copy})
    assert list(merged(graph)) == ["one"]


class Scale(xcs.Operator):
    factor: object

    def forward(self, x):
        return self.factor * x


def test_operators_are_the_same_if_their_arrays_are() -> None:
    factor = jnp.ones(2)
    graph = xcs.XCSGraph()
    graph.add_node(Scale(factor), "one")
    graph.add_node(Scale(factor), "same")
    graph.add_node(Scale(jnp.ones(2)), "equal")
    assert list(merged(graph)) == ["one", "equal"]


def test_operators_with_other_static_fields_are_others() -> None:
    graph = xcs.XCSGraph()
    graph.add_node(Scale(2), "one")
    graph.add_node(Scale(2.0), "other")
    graph.add_node(Scale(2), "same")
    assert list(merged(graph)) == ["one", "other"]


def test_plumbing_is_merged() -> None:
    graph = xcs.XCSGraph()
    x = graph.input("x")
    for node_id in ("one", "same"):
        pack = graph.add_node(Pack(Form("list", children=(Form("part"),))), node_id)
        graph.connect(x, pack.inputs["item0"])
    assert list(merged(graph)) == ["one"]


def test_inputs_of_the_graph_tell_nodes_apart() -> None:
    graph = xcs.XCSGraph()
    operator = xcs.pure(lambda x: x)
    for name in ("p", "q"):
        graph.connect(graph.input(name), graph.add_node(operator, f"of_{name}"))
    assert merged(graph) is graph


def test_a_staged_deterministic_call_is_made_once() -> None:
    calls = Calls()

    @xcs.host(deterministic=True)
    def length(text: str) -> int:
        calls.note("length")
        return len(text)

    @xcs.jit.trace
    def program(text):
        return length(text) + length(text)

    assert int(program("four")) == 8
    assert calls.counts["length"] == 1
