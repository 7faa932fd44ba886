"""Nodes, edges, ports, inputs and outputs."""

import pickle
from typing import Any, NamedTuple

import pytest

from ember_xcs._core.functions import host
from ember_xcs._graph import MISSING, Edge, XCSGraph
from ember_xcs.errors import (
    DuplicateNodeError,
    FieldConflictError,
    GraphError,
    UnknownFieldError,
    UnknownNodeError,
)


class Verdict(NamedTuple):
    score: float
    why: str


@host
def judge(question: str, answer: str) -> Verdict: ...


def search(query: str) -> list[str]: ...


def report(score: float, doc_why: str = "") -> str: ...


def anything(x: Any) -> Any: ...


def test_ids_are_readable_and_numbered_from_the_second():
    graph = XCSGraph()
    assert [graph.add_node(judge).id for _ in range(3)] == ["judge", "judge_2", "judge_3"]


def test_class_names_become_snake_case():
    def LLMJudge(x): ...

    assert XCSGraph().add_node(LLMJudge).id == "llm_judge"


def test_a_fresh_id_avoids_one_that_was_given():
    graph = XCSGraph()
    graph.add_node(search, "judge_2")
    assert [graph.add_node(judge).id for _ in range(2)] == ["judge", "judge_3"]


def test_an_id_is_not_used_again_after_removal():
    graph = XCSGraph()
    graph.add_node(judge)
    graph.remove_node("judge")
    assert graph.add_node(judge).id == "judge_2"


def test_a_duplicate_id_is_refused_and_named():
    graph = XCSGraph()
    graph.add_node(judge, "a")
    with pytest.raises(
        DuplicateNodeError, match=r"has a node 'a' already.*unique.*Choose"
    ) as caught:
        graph.add_node(search, "a")
    assert caught.value.node_ids == ("a",)


def test_an_empty_id_is_refused():
    with pytest.raises(GraphError, match="not empty"):
        XCSGraph().add_node(judge, "")


def test_one_bare_function_is_one_operator():
    graph = XCSGraph()
    assert graph.add_node(search).operator is graph.add_node(search).operator
    assert graph["search"].operator.kind == "host"


def test_what_is_not_callable_is_refused():
    with pytest.raises(TypeError, match="not an operator"):
        XCSGraph().add_node(3)


def test_a_node_has_name_metadata_and_constants():
    node = XCSGraph().add_node(judge, "j", "The judge", {"team": 1}, {"answer": "yes"})
    assert (node.name, dict(node.metadata), dict(node.constants)) == (
        "The judge",
        {"team": 1},
        {"answer": "yes"},
    )
    assert XCSGraph().add_node(judge).name == "judge"


def test_metadata_and_constants_are_read_only_copies():
    given = {"a": 1}
    node = XCSGraph().add_node(judge, metadata=given, constants={"answer": ""})
    given["a"] = 2
    assert node.metadata["a"] == 1
    with pytest.raises(TypeError):
        node.constants["answer"] = "no"


def test_a_node_does_not_change():
    node = XCSGraph().add_node(judge)
    with pytest.raises(AttributeError):
        node.id = "other"


def test_edges_join_ports():
    graph = XCSGraph()
    a, b = graph.add_node(judge), graph.add_node(report)
    edge = graph.connect(a.outputs["why"], b.inputs["doc_why"])
    assert edge == Edge("judge", "why", "report", "doc_why")
    assert graph.edges == (edge,)


def test_edges_join_nodes_or_ids_with_mappings():
    graph = XCSGraph()
    a, b = graph.add_node(judge), graph.add_node(report)
    by_node = graph.add_edge(a, b, field_mappings={"score": "score", "why": "doc_why"})
    graph.remove_edge(a, b)
    by_id = graph.add_edge("judge", "report", {"score": "score", "why": "doc_why"})
    assert by_node == by_id == graph.in_edges(b)


def test_edges_keep_the_ids_of_their_nodes_and_no_copies():
    graph = XCSGraph()
    for node_id in ("a", "b"):
        graph.add_node(judge, f"node_{node_id}")
    (edge,) = graph.add_edge("".join(["node", "_a"]), "".join(["node", "_b"]))
    assert edge.source is graph["node_a"].id
    assert edge.target is graph["node_b"].id


def test_connect_matching_maps_fields_of_one_name():
    graph = XCSGraph()
    a, b = graph.add_node(judge), graph.add_node(report)
    assert graph.connect_matching(a, b) == (Edge("judge", "score", "report", "score"),)


def test_connect_prefixed_puts_the_prefix_before_the_input_field():
    graph = XCSGraph()
    a, b = graph.add_node(judge), graph.add_node(report)
    assert graph.connect_prefixed(a, b, prefix="doc_") == (
        Edge("judge", "why", "report", "doc_why"),
    )


def test_matching_needs_declared_output_fields():
    graph = XCSGraph()
    a, b = graph.add_node(search), graph.add_node(report)
    with pytest.raises(UnknownFieldError, match=r"does not declare.*Annotate it with a record"):
        graph.connect_matching(a, b)


def test_matching_nothing_is_refused():
    graph = XCSGraph()
    a, b = graph.add_node(judge), graph.add_node(search)
    with pytest.raises(UnknownFieldError, match=r"'score', 'why' against 'query'"):
        graph.connect_matching(a, b)


def test_a_port_of_a_field_that_is_not_there_is_refused_with_the_nearest():
    node = XCSGraph().add_node(judge)
    with pytest.raises(UnknownFieldError, match=r"'questions' \(did you mean 'question'\?\)"):
        node.inputs["questions"]
    with pytest.raises(UnknownFieldError, match=r"'scores' \(did you mean 'score'\?\)"):
        node.outputs["scores"]


def test_ports_list_the_declared_fields():
    node = XCSGraph().add_node(judge)
    assert list(node.inputs) == ["question", "answer"]
    assert list(node.outputs) == ["score", "why"]
    assert (len(node.inputs), len(node.outputs)) == (2, 2)
    assert "question" in repr(node.inputs)
    assert "why" in repr(node.outputs)


def test_a_field_of_a_named_tuple_may_be_a_position():
    assert XCSGraph().add_node(judge).outputs["1"].field == "1"


def test_an_unknown_node_is_refused_with_the_nearest():
    graph = XCSGraph()
    graph.add_node(judge)
    with pytest.raises(
        UnknownNodeError, match=r"no node 'juge' \(did you mean 'judge'\?\)"
    ) as caught:
        graph.add_edge("juge", "judge")
    assert caught.value.node_ids == ("juge",)


def test_what_is_no_node_is_refused():
    with pytest.raises(UnknownNodeError, match="3 is no node"):
        XCSGraph().add_edge(3, 4)


def test_a_namesake_of_another_graph_is_refused():
    graph, other = XCSGraph(), XCSGraph()
    mine, theirs = graph.add_node(judge), other.add_node(judge)
    with pytest.raises(UnknownNodeError, match=r"belongs to another graph.*graph\['judge'\]"):
        graph.add_edge(theirs, mine)


def test_an_input_of_another_graph_is_refused():
    graph = XCSGraph()
    node = graph.add_node(search)
    with pytest.raises(GraphError, match="declares no input 'query'"):
        graph.connect(XCSGraph().input("query"), node)


def test_ports_and_mappings_exclude_each_other():
    graph = XCSGraph()
    a, b = graph.add_node(judge), graph.add_node(report)
    with pytest.raises(GraphError, match="A port names its field already"):
        graph.add_edge(a.outputs["why"], b, {"why": "score"})


def test_empty_mappings_are_refused():
    graph = XCSGraph()
    a, b = graph.add_node(judge), graph.add_node(report)
    with pytest.raises(GraphError, match="field_mappings is empty"):
        graph.add_edge(a, b, {})
    assert graph.edges == ()


def test_removing_a_node_removes_its_edges():
    graph = XCSGraph()
    for name in "abc":
        graph.add_node(anything, name)
    graph.add_edge("a", "b")
    graph.add_edge("b", "c")
    graph.remove_node("b")
    assert (list(graph), graph.edges, graph.successors("a")) == (["a", "c"], (), ())


def test_removing_a_node_with_an_edge_to_itself():
    graph = XCSGraph()
    graph.add_node(anything, "a")
    graph.add_edge("a", "a")
    graph.remove_node("a")
    assert len(graph) == 0


def test_removing_an_edge_by_port_keeps_the_others():
    graph = XCSGraph()
    a, b = graph.add_node(judge), graph.add_node(report)
    graph.add_edge(a, b, {"score": "score", "why": "doc_why"})
    graph.remove_edge(a.outputs["score"], b)
    assert graph.edges == (Edge("judge", "why", "report", "doc_why"),)
    assert graph.successors(a) == ("report",)
    graph.remove_edge(a, b.inputs["doc_why"])
    assert graph.successors(a) == ()


def test_removing_an_edge_that_is_not_there_is_refused():
    graph = XCSGraph()
    a, b = graph.add_node(judge), graph.add_node(report)
    with pytest.raises(GraphError, match="no edge from 'judge' to 'report'"):
        graph.remove_edge(a, b)
    with pytest.raises(GraphError, match="no edge from the graph input 'x' to 'report'"):
        graph.remove_edge(graph.input("x"), b)


def test_inputs_are_implied_by_nodes_without_edges():
    graph = XCSGraph()
    graph.add_node(report, constants={})
    graph.add_node(search)
    assert {k: v.required for k, v in graph.inputs.items()} == {
        "score": True,
        "doc_why": False,
        "query": True,
    }


def test_a_node_that_loses_its_last_edge_implies_inputs_again():
    graph = XCSGraph()
    a, b = graph.add_node(judge, "a"), graph.add_node(judge, "b")
    before = set(graph.inputs)
    graph.connect(graph.input("given"), a.inputs["answer"])
    graph.connect(a.outputs["why"], b.inputs["answer"])
    assert set(graph.inputs) == {"given"}
    graph.remove_edge(a, b)
    assert set(graph.inputs) == {"given"} | before


def test_an_input_is_required_if_one_of_its_readers_requires_it():
    graph = XCSGraph()
    graph.add_node(lambda x=1: x, "a")
    graph.add_node(lambda x: x, "b")
    graph.add_node(lambda x=1: x, "c")
    assert graph.inputs["x"].required


def test_constants_are_no_inputs():
    graph = XCSGraph()
    graph.add_node(judge, constants={"answer": "yes"})
    assert list(graph.inputs) == ["question"]


def test_a_declared_input_comes_first_and_may_have_a_default():
    graph = XCSGraph()
    graph.add_node(search)
    graph.input("k", default=None)
    assert list(graph.inputs) == ["k", "query"]
    assert (graph.inputs["k"].required, graph.inputs["k"].default) == (False, None)
    assert graph.inputs["query"].default is MISSING


def test_a_declared_default_serves_the_nodes_that_take_the_input_by_name():
    graph = XCSGraph()
    graph.add_node(search)
    graph.input("query", default="jax")
    assert not graph.inputs["query"].required
    assert graph.prepare_node_inputs("search", {}) == {"query": "jax"}


def test_an_input_may_be_declared_again_but_not_with_another_default():
    graph = XCSGraph()
    graph.input("k")
    graph.input("k", default=1)
    assert graph.input("k").field == "k"
    with pytest.raises(GraphError, match="declared with the default 1 before"):
        graph.input("k", default=2)


def test_outputs_are_the_nodes_without_successors():
    graph = XCSGraph()
    a, b = graph.add_node(judge), graph.add_node(report)
    graph.add_node(search)
    graph.connect_matching(a, b)
    assert list(graph.outputs) == ["report", "search"]


def test_outputs_can_be_set_by_node_port_and_name():
    graph = XCSGraph()
    a, b = graph.add_node(judge), graph.add_node(search)
    graph.set_outputs(a.outputs["why"], "search", verdict=a, question=graph.input("q"))
    described = {k: (port.node_id, port.field) for k, port in graph.outputs.items()}
    assert described == {
        "judge.why": ("judge", "why"),
        "search": ("search", None),
        "verdict": ("judge", None),
        "question": (None, "q"),
    }
    graph.set_outputs()
    assert list(graph.outputs) == [a.id, b.id]


def test_two_outputs_of_one_name_are_refused():
    graph = XCSGraph()
    a, b = graph.add_node(judge), graph.add_node(search)
    with pytest.raises(FieldConflictError, match="Two outputs are called 'judge'"):
        graph.set_outputs(a, judge=b)


def test_removing_the_last_named_output_brings_the_default_back():
    graph = XCSGraph()
    a, b = graph.add_node(judge), graph.add_node(search)
    graph.set_outputs(a)
    graph.remove_node(a)
    assert list(graph.outputs) == [b.id]


@pytest.mark.parametrize(
    "change",
    [
        lambda g: g.add_node(judge),
        lambda g: g.add_edge("a", "b"),
        lambda g: g.remove_edge("a", "c"),
        lambda g: g.remove_node("a"),
        lambda g: g.input("x"),
        lambda g: g.set_outputs("a"),
        lambda g: g.merge(XCSGraph(), "n") or g.add_node(judge),
    ],
)
def test_every_change_grows_the_version(change):
    graph = XCSGraph()
    for name in "abc":
        graph.add_node(anything, name)
    graph.add_edge("a", "c")
    before = graph.version
    change(graph)
    assert graph.version > before


def test_questions_do_not_change_the_version():
    graph = XCSGraph()
    graph.add_node(search)
    before = graph.version
    graph.validate()
    graph.describe()
    graph.to_svg()
    assert graph.version == before


def test_derived_answers_follow_changes():
    graph = XCSGraph()
    a, b = graph.add_node(anything, "a"), graph.add_node(anything, "b")
    assert (graph.topological_sort(), list(graph.outputs)) == (["a", "b"], ["a", "b"])
    graph.connect(b, a)
    assert (graph.topological_sort(), list(graph.outputs)) == (["b", "a"], ["a"])


def test_a_graph_is_a_collection_of_ids():
    graph = XCSGraph("g")
    node = graph.add_node(search)
    assert (len(graph), list(graph), graph["search"]) == (1, ["search"], node)
    assert "search" in graph
    assert node in graph
    assert XCSGraph().add_node(search) not in graph
    assert repr(graph) == "XCSGraph('g', 1 nodes, 0 edges)"
    assert repr(node) == "XCSNode('search', host search)"
    assert bool(XCSGraph())


def test_a_graph_survives_pickling():
    graph = XCSGraph()
    graph.add_node(judge, constants={"answer": "yes"})
    graph.add_node(report)
    graph.connect_matching("judge", "report")
    again = pickle.loads(pickle.dumps(graph))
    assert again.edges == graph.edges
    assert dict(again["judge"].constants) == {"answer": "yes"}
