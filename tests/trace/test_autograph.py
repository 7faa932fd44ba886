"""Graphs written as calls: ``with autograph() as graph:``."""

from typing import NamedTuple

import pytest

from ember_xcs._core import calls
from ember_xcs._core.functions import host
from ember_xcs._core.operator import Operator
from ember_xcs._trace.autograph import autograph
from ember_xcs.errors import TracingError
from tests.trace.reference import run_graph


class Verdict(NamedTuple):
    score: float
    why: str


ran = []


@host
def draft(topic: str) -> str:
    ran.append(topic)
    return f"text on {topic}"


@host
def judge(text: str, scale=1) -> Verdict:
    return Verdict(float(len(text)) * scale, f"about {text}")


@host
def gather(parts):
    return parts


def test_calls_are_recorded_and_not_run():
    ran.clear()
    with autograph() as graph:
        judge(draft(graph.input("topic")))
    assert ran == []
    assert list(graph) == ["draft", "judge"]


def test_the_graph_does_what_python_does():
    with autograph() as graph:
        verdict = judge(draft(graph.input("topic")), scale=2)
    graph.set_outputs(why=verdict.why, verdict=verdict)
    expected = judge(draft("bees"), scale=2)
    assert run_graph(graph, {"topic": "bees"}) == {"why": expected.why, "verdict": expected}


def test_the_outputs_are_by_default_the_last_nodes():
    with autograph() as graph:
        draft(draft("ants"))
    assert run_graph(graph, {}) == {"draft_2": "text on text on ants"}


def test_nodes_and_ports_can_be_passed():
    with autograph() as graph:
        node = graph.add_node(judge, constants={"text": "abc"})
        out = gather([node, node.outputs["why"], graph.input("x"), 1])
    graph.set_outputs(out=out)
    verdict = judge("abc")
    assert run_graph(graph, {"x": "y"}) == {"out": [verdict, verdict.why, "y", 1]}


def test_a_symbol_stands_for_its_node():
    with autograph() as graph:
        text = draft(graph.input("topic"))
        late = graph.add_node(draft, "late")
        graph.connect(text, late.inputs["topic"])
    assert graph[text].id == "draft"
    assert run_graph(graph, {"topic": "a"}) == {"late": "text on text on a"}


def test_outputs_can_be_picked_after_the_block():
    with autograph() as graph:
        packed = gather({"k": [draft("a")]})
    graph.set_outputs(part=packed["k"][0])
    assert run_graph(graph, {}) == {"part": "text on a"}


class Twice(Operator):
    op: Operator

    def forward(self, text):
        return self.op(self.op(text))


@pytest.mark.parametrize(("recursive", "count"), [(True, 2), (False, 1)])
def test_composite_operators_are_opened_if_wanted(recursive, count):
    with autograph(recursive=recursive) as graph:
        Twice(draft)("a")
    assert len(graph) == count


def test_a_value_cannot_be_computed_with():
    with pytest.raises(TracingError, match="To mend it") as caught, autograph():
        draft("a") + "b"
    assert 'draft("a") + "b"' in caught.value.user_line


def test_the_recording_ends_with_the_block():
    with autograph():
        pass
    assert calls.current_recorder() is None
    assert draft("a") == "text on a"


def test_a_symbol_of_another_graph_is_refused():
    with autograph():
        text = draft("a")
    with pytest.raises(TracingError, match="another recording"), autograph():
        draft(text)


def test_a_copy_is_a_graph_of_its_own():
    with autograph() as graph:
        draft(graph.input("topic"))
    assert run_graph(graph.copy(), {"topic": "a"}) == run_graph(graph, {"topic": "a"})
