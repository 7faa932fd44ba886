"""What is asked of a graph as a whole."""

import ember_xcs as xcs


def double(x: int) -> int:
    return 2 * x


def add(a: int, b: int) -> int:
    return a + b


def diamond() -> xcs.XCSGraph:
    graph = xcs.XCSGraph()
    left, right, end = graph.add_node(double), graph.add_node(double), graph.add_node(add)
    graph.connect(left, end)
    graph.connect(right, end)
    return graph


def test_operators_are_named_once_in_the_order_of_their_first_use():
    assert [operator.name for operator in diamond().operators] == ["double", "add"]


def test_operators_follow_a_change_of_the_graph():
    graph = diamond()
    assert len(graph.operators) == 2
    graph.remove_node("add")
    assert [operator.name for operator in graph.operators] == ["double"]


def test_all_bindings_are_the_bindings_of_each_node():
    graph = diamond()
    known = graph.copy().all_bindings()
    assert known == {node_id: graph.bindings(node_id) for node_id in graph}
    assert {f: b.source for f, b in known["add"].fields.items()} == {"a": "double", "b": "double_2"}
