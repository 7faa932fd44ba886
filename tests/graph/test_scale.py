"""Graphs of 100,000 nodes: everything is linear, and nothing recurses."""

import time

import pytest

from ember_xcs._core.functions import as_operator
from ember_xcs._graph import DependencyAnalyzer, XCSGraph

COUNT = 100_000


def value(x): ...


def chain():
    return [(i, i + 1) for i in range(COUNT - 1)]


def backwards():
    return [(i + 1, i) for i in range(COUNT - 1)]


def fan_out():
    return [(0, i) for i in range(1, COUNT)]


@pytest.mark.stress
@pytest.mark.parametrize("edges", [chain, backwards, fan_out])
def test_a_large_graph_is_built_sorted_checked_and_taken_apart(edges):
    begin = time.perf_counter()
    operator = as_operator(value)
    graph = XCSGraph()
    nodes = [graph.add_node(operator) for _ in range(COUNT)]
    for source, target in edges():
        graph.add_edge(nodes[source], nodes[target])
    graph.validate()
    assert len(graph.topological_sort()) == COUNT
    assert sum(map(len, DependencyAnalyzer(graph).waves())) == COUNT
    assert len(DependencyAnalyzer(graph).components()) == 1
    assert len(DependencyAnalyzer(graph).critical_path()) in (COUNT, 2)
    assert len(graph.copy().edges) == COUNT - 1
    graph.remove_nodes(list(graph)[: COUNT // 2])
    assert len(graph) == COUNT // 2
    assert time.perf_counter() - begin < 40  # quadratic work would take hours


@pytest.mark.stress
def test_the_last_id_of_many_is_found_at_once():
    graph = XCSGraph()
    operator = as_operator(value)
    begin = time.perf_counter()
    for _ in range(COUNT):
        last = graph.add_node(operator)
    assert last.id == f"value_{COUNT}"
    assert time.perf_counter() - begin < 10
