"""Calls that are taken without the lock of the dispatch hold up no other."""

import threading

import pytest

import ember_xcs as xcs

COUNT = 40


@pytest.mark.parametrize("readers", [1, 3])
def test_calls_that_wait_for_each_other_all_begin_after_calls_that_return_at_once(readers):
    """A layer of instant calls, and behind it calls that end when all of them have begun::

    quick 0   quick 1   ...          readers = 3: each meets three of the quick ones
       |         |
    meet 0    meet 1    ...
    """
    barrier = threading.Barrier(COUNT, timeout=30)
    graph = xcs.XCSGraph()
    quick = [graph.add_node(lambda: 1, f"quick_{k}") for k in range(COUNT)]
    for k in range(COUNT):
        meet = graph.add_node(
            lambda **values: (barrier.wait(), sum(values.values()))[1], f"meet_{k}"
        )
        for offset in range(readers):
            graph.connect(quick[(k + offset) % COUNT], meet.inputs[f"v{offset}"])
    result = xcs.execute_graph(graph, scheduler="parallel")
    assert dict(result) == {f"meet_{k}": readers for k in range(COUNT)}


def test_a_failure_behind_calls_that_return_at_once_leaves_the_others_to_be_done():
    graph = xcs.XCSGraph()
    start = graph.add_node(lambda: 1, "start")
    for k in range(COUNT):
        node = graph.add_node(lambda x, k=k: 1 // (k - 7), f"n{k}")
        graph.connect(start, node.inputs["x"])
    result = xcs.execute_graph(graph, scheduler="parallel", options={"on_error": "continue"})
    assert set(result.errors) == {"n7"}
    assert dict(result) == {f"n{k}": 1 // (k - 7) for k in range(COUNT) if k != 7}
