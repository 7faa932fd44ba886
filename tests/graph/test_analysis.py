"""Order, waves, paths and components, against networkx."""

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ember_xcs._core.functions import as_operator
from ember_xcs._graph import DependencyAnalyzer, XCSGraph
from ember_xcs.errors import CycleError, GraphError, UnknownNodeError

OPERATOR = as_operator(lambda **fields: fields)


def build(count, edges):
    graph = XCSGraph()
    for index in range(count):
        graph.add_node(OPERATOR, str(index))
    for source, target in edges:
        graph.add_edge(str(source), str(target))
    oracle = nx.DiGraph()
    oracle.add_nodes_from(graph)
    oracle.add_edges_from((str(a), str(b)) for a, b in edges)
    return graph, oracle


@st.composite
def edge_lists(draw, acyclic=True):
    """A number of nodes, in any order, and edges between them."""
    count = draw(st.integers(1, 12))
    number = st.integers(0, count - 1)
    pairs = draw(st.lists(st.tuples(number, number), max_size=30, unique=True))
    if not acyclic:
        return count, pairs
    rank = draw(st.permutations(range(count)))
    return count, [(a, b) for a, b in pairs if rank[a] < rank[b]]


@given(edge_lists())
def test_sort_is_the_first_order_by_insertion(case):
    graph, oracle = build(*case)
    assert graph.topological_sort() == list(nx.lexicographical_topological_sort(oracle, key=int))


@given(edge_lists(acyclic=False))
def test_a_cycle_is_found_where_there_is_one_and_is_one(case):
    graph, oracle = build(*case)
    if nx.is_directed_acyclic_graph(oracle):
        assert set(graph.topological_sort()) == set(oracle)
        return
    with pytest.raises(CycleError) as caught:
        graph.topological_sort()
    cycle = caught.value.node_ids
    assert len(set(cycle)) == len(cycle)
    assert all(oracle.has_edge(a, b) for a, b in zip(cycle, (*cycle[1:], cycle[0]), strict=True))
    assert cycle[0] == min(cycle, key=int)


@given(edge_lists())
def test_waves_are_the_topological_generations(case):
    graph, oracle = build(*case)
    expected = [sorted(wave, key=int) for wave in nx.topological_generations(oracle)]
    waves = DependencyAnalyzer(graph).waves()
    assert [sorted(wave, key=int) for wave in waves] == expected


@given(edge_lists(), st.data())
def test_the_critical_path_takes_longest(case, data):
    graph, oracle = build(*case)
    seconds = {n: data.draw(st.integers(0, 9)) for n in oracle}
    for source, target in oracle.edges:
        oracle.edges[source, target]["weight"] = seconds[source]
    oracle.add_node("end")
    oracle.add_edges_from((n, "end", {"weight": seconds[n]}) for n in seconds)
    path = DependencyAnalyzer(graph).critical_path(seconds)
    assert nx.is_path(oracle, path)
    assert sum(seconds[n] for n in path) == nx.dag_longest_path_length(oracle)


@given(edge_lists())
def test_components_and_dependencies_are_those_of_networkx(case):
    graph, oracle = build(*case)
    analyzer = DependencyAnalyzer(graph)
    parts = analyzer.components()
    assert {frozenset(p) for p in parts} == set(
        map(frozenset, nx.weakly_connected_components(oracle))
    )
    assert sum(map(len, parts)) == len(oracle)
    for node in oracle:
        assert analyzer.dependencies(node) == set(oracle.predecessors(node))
        assert analyzer.dependents(node) == set(oracle.successors(node))
        assert analyzer.transitive_dependencies(node) == nx.ancestors(oracle, node)
        assert analyzer.transitive_dependents(node) == nx.descendants(oracle, node)


def test_a_cycle_is_printed_as_a_path():
    graph, _ = build(4, [(0, 1), (1, 2), (2, 3), (3, 1)])
    with pytest.raises(CycleError) as caught:
        graph.validate()
    assert "1 -> 2 -> 3 -> 1" in str(caught.value)
    assert "graph.remove_edge('3', '1')" in str(caught.value)
    assert caught.value.node_ids == ("1", "2", "3")


def test_a_long_cycle_is_shortened_in_the_message_only():
    graph, _ = build(50, [(i, (i + 1) % 50) for i in range(50)])
    with pytest.raises(CycleError, match=r"0 -> 1 .* more \.\.\. -> .* -> 49 -> 0") as caught:
        graph.topological_sort()
    assert len(caught.value.node_ids) == 50


def test_nodes_without_a_duration_count_as_one_second():
    graph, _ = build(4, [(0, 1), (1, 2), (0, 3)])
    analyzer = DependencyAnalyzer(graph)
    assert analyzer.critical_path() == ["0", "1", "2"]
    assert analyzer.critical_path({"3": 2.5}) == ["0", "3"]


def test_an_empty_graph_has_empty_answers():
    analyzer = DependencyAnalyzer(XCSGraph())
    assert (analyzer.waves(), analyzer.critical_path(), analyzer.components()) == ([], [], [])


def test_a_duration_of_no_node_is_refused():
    with pytest.raises(UnknownNodeError, match="'x', which is no node"):
        DependencyAnalyzer(XCSGraph()).critical_path({"x": 1})


@pytest.mark.parametrize("duration", [-1.0, float("nan")])
def test_a_duration_that_is_none_is_refused(duration):
    graph, _ = build(1, [])
    with pytest.raises(GraphError, match="number of seconds that is not negative"):
        DependencyAnalyzer(graph).critical_path({"0": duration})
