"""Copies, merges and parts of graphs."""

from typing import Any, TypedDict

import pytest

from ember_xcs._graph import DependencyAnalyzer, Edge, XCSGraph
from ember_xcs.errors import DuplicateNodeError, GraphError


class Page(TypedDict):
    text: str
    url: str


def fetch(query: str) -> Page: ...


def anything(query) -> Any: ...


def read(text: str) -> str: ...


def write(text: str, url: str) -> str: ...


def pipeline():
    """``fetch -> write <- read <- fetch``, with an input for ``fetch``."""
    graph = XCSGraph("pipeline")
    a, b, c = graph.add_node(fetch), graph.add_node(read), graph.add_node(write)
    graph.connect(graph.input("query", default="jax"), a.inputs["query"])
    graph.connect(a, b)
    graph.connect(a.outputs["url"], c.inputs["url"])
    graph.connect(b, c.inputs["text"])
    return graph


def test_a_copy_is_equal_and_of_its_own():
    graph = pipeline()
    graph.set_outputs(final="write")
    copy = graph.copy()
    assert (copy.edges, copy.inputs, copy.outputs) == (graph.edges, graph.inputs, graph.outputs)
    copy.remove_node("write")
    assert ("write" in graph, len(graph.edges)) == (True, 4)


def test_a_copy_shares_nodes_so_they_can_be_used_with_either():
    graph = pipeline()
    node = graph["write"]
    copy = graph.copy()
    copy.connect(node, copy.add_node(read))
    assert copy.successors(node) == ("read_2",)
    assert graph.successors(node) == ()


def test_merge_puts_the_namespace_before_ids():
    graph, other = pipeline(), pipeline()
    added = graph.merge(other, namespace="retrieval")
    assert list(graph) == ["fetch", "read", "write"] + [f"retrieval/{n}" for n in other]
    assert added["fetch"] is graph["retrieval/fetch"]
    assert Edge("retrieval/fetch", "url", "retrieval/write", "url") in graph.edges
    assert list(graph.inputs) == ["query"]
    graph.validate()


def test_merge_with_itself_doubles_the_graph():
    graph = pipeline()
    graph.merge(graph, namespace="again")
    assert (len(graph), len(graph.edges)) == (6, 8)


def test_merge_of_graphs_with_one_id_is_refused_and_changes_nothing():
    graph = pipeline()
    before = graph.version
    with pytest.raises(
        DuplicateNodeError, match=r"Both graphs have a node 'fetch'.*namespace"
    ) as caught:
        graph.merge(pipeline())
    assert graph.version == before
    assert caught.value.node_ids == ("fetch", "read", "write")


def test_merge_without_namespace_keeps_ids():
    graph, other = XCSGraph(), pipeline()
    graph.merge(other)
    assert graph.edges == other.edges


def test_merge_keeps_the_outputs_that_were_set():
    graph = XCSGraph()
    graph.set_outputs(graph.add_node(read, "mine"))
    graph.merge(pipeline())
    assert list(graph.outputs) == ["mine"]


def test_merge_of_inputs_with_different_defaults_is_refused_and_changes_nothing():
    graph = XCSGraph()
    graph.input("query", default="numpy")
    before = graph.version
    with pytest.raises(GraphError, match="declare the input 'query', with different defaults"):
        graph.merge(pipeline())
    assert (graph.version, len(graph)) == (before, 0)


def test_a_part_takes_what_it_read_from_the_others_as_inputs():
    part = pipeline().subgraph(["write"])
    assert list(part.inputs) == ["fetch.url", "read"]
    received = part.prepare_node_inputs("write", {}, {"fetch.url": "u", "read": "t"})
    assert received == {"url": "u", "text": "t"}


def test_a_part_keeps_the_edges_and_inputs_within_it():
    graph = pipeline()
    part = graph.subgraph(["fetch", graph["read"]], name="part")
    assert (part.name, list(part), len(part.edges)) == ("part", ["fetch", "read"], 2)
    assert part.inputs["query"].default == "jax"
    assert list(part.outputs) == ["read"]


def test_a_part_drops_inputs_that_it_does_not_read():
    assert "query" not in pipeline().subgraph(["read"]).inputs


def test_a_value_that_several_nodes_read_becomes_one_input():
    graph = XCSGraph()
    a, b, c = graph.add_node(read, "a"), graph.add_node(read, "b"), graph.add_node(read, "c")
    graph.connect(a, b)
    graph.connect(a, c)
    assert list(graph.subgraph(["b", "c"]).inputs) == ["a"]


def test_a_cut_record_still_goes_by_field_names():
    part = pipeline().subgraph(["read"])
    assert part.prepare_node_inputs("read", {}, {"fetch.text": "t"}) == {"text": "t"}


@pytest.mark.parametrize("value", ["t", {"text": "t"}])
def test_a_cut_unknown_output_is_still_decided_by_its_value(value):
    graph = XCSGraph()
    graph.connect(graph.add_node(anything, "text"), graph.add_node(read, "r"))
    part = graph.subgraph(["r"])
    assert list(part.inputs) == ["text_2"]
    assert part.prepare_node_inputs("r", {}, {"text_2": value}) == {"text": "t"}


def test_a_part_keeps_the_named_outputs_that_are_left():
    graph = pipeline()
    graph.set_outputs(first="read", last="write")
    assert list(graph.subgraph(["fetch", "read"]).outputs) == ["first"]


def test_the_parts_of_a_graph_are_together_the_graph():
    graph = pipeline()
    graph.merge(pipeline(), "other")
    parts = [graph.subgraph(part) for part in DependencyAnalyzer(graph).components()]
    assert [len(part.edges) for part in parts] == [4, 4]


def test_a_cut_keeps_the_graph_inputs_of_the_nodes_it_cuts_off():
    graph = XCSGraph()
    page, node = graph.add_node(fetch), graph.add_node(write)
    graph.connect(page.outputs["text"], node)
    graph.connect(graph.input("link"), node.inputs["url"])
    part = graph.subgraph([node])
    assert list(part.inputs) == ["link", "fetch.text"]
    received = part.prepare_node_inputs(node, {}, {"link": "u", "fetch.text": "t"})
    assert received == {"url": "u", "text": "t"}
