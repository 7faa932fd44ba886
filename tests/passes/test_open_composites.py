"""Composite operators as nodes: the calls in them overlap with all others."""

from __future__ import annotations

import random
import threading
from random import randint

import pydantic
import pytest

import ember_xcs as xcs
from ember_xcs._core.composition import Ensemble, Parallel, Sequential
from tests.properties.graphs import Calls, plain


def opened(graph: xcs.XCSGraph) -> xcs.XCSGraph:
    return xcs.optimize(graph, ["open_composites"])


def meeting(parties: int):
    """A host function whose calls end only once so many are under way."""
    barrier = threading.Barrier(parties)

    @xcs.host
    def meet(text: str) -> str:
        barrier.wait(timeout=20)
        return text + "!"

    return meet


@xcs.host
def shout(text: str) -> str:
    return text.upper()


@xcs.host
def whisper(text: str) -> str:
    return text.lower()


def number(x):
    return float(x)


@xcs.pure
def double(x):
    return 2 * x


def one_node(operator, node_id="node") -> xcs.XCSGraph:
    graph = xcs.XCSGraph()
    graph.add_node(operator, node_id)
    return graph


def test_the_calls_of_a_parallel_overlap() -> None:
    meet = meeting(3)
    result = xcs.execute_graph(one_node(Parallel(a=meet, b=meet, c=meet)), {"text": "hi"})
    assert result["node"] == {"a": "hi!", "b": "hi!", "c": "hi!"}


def test_the_samples_of_an_ensemble_overlap() -> None:
    result = xcs.execute_graph(one_node(Ensemble(meeting(4), 4)), {"text": "hi"})
    assert result["node"] == ["hi!"] * 4


def test_calls_of_several_composites_overlap() -> None:
    meet = meeting(4)
    graph = one_node(
        Sequential(Parallel(meet, meet), xcs.host(lambda pair: f"{pair[0]}+{pair[1]}"))
    )
    graph.add_node(Parallel(meet, meet), "other")
    result = xcs.execute_graph(graph, {"text": "hi"})
    assert dict(result) == {"node": "hi!+hi!", "other": ("hi!", "hi!")}


def test_without_the_pass_a_composite_is_one_call() -> None:
    graph = one_node(Parallel(shout, whisper))
    options = {"passes": (), "collect_metrics": True}
    result = xcs.execute_graph(graph, {"text": "Hi"}, options=options)
    assert [entry.node_id for entry in result.timeline] == ["node"]
    assert result["node"] == ("HI", "hi")


def test_the_calls_are_named_after_the_composite() -> None:
    assert list(opened(one_node(Parallel(shout, whisper), "both"))) == [
        "both/shout",
        "both/whisper",
        "both",
    ]


def test_ids_that_are_taken_are_numbered() -> None:
    graph = one_node(Parallel(shout, shout), "both")
    graph.add_node(shout, "both/shout")
    found = opened(graph)
    assert list(found) == ["both/shout_2", "both/shout_2_2", "both", "both/shout"]
    assert dict(xcs.execute_graph(graph, {"text": "a"})) == {"both": ("A", "A"), "both/shout": "A"}


def test_results_by_id_and_by_field_stay_available() -> None:
    graph = one_node(Parallel(loud=shout, soft=whisper), "both")
    reader = graph.add_node(xcs.host(lambda text: f"<{text}>"), "reader")
    graph.connect(graph["both"].outputs["loud"], reader.inputs["text"])
    graph.set_outputs("both", reader, soft=graph["both"].outputs["soft"])
    assert dict(xcs.execute_graph(graph, {"text": "Hi"})) == {
        "both": {"loud": "HI", "soft": "hi"},
        "reader": "<HI>",
        "soft": "hi",
    }
    every = xcs.execute_graph(graph, {"text": "Hi"}, outputs="all")
    assert dict(every) == {"both": {"loud": "HI", "soft": "hi"}, "reader": "<HI>"}


def test_unmapped_edges_carry_the_same_fields() -> None:
    graph = one_node(Parallel(loud=shout, soft=whisper), "both")
    graph.connect("both", graph.add_node(xcs.host(lambda soft, loud: soft + loud), "reader"))
    assert xcs.execute_graph(graph, {"text": "Hi"})["reader"] == "hiHI"


def test_constants_inputs_and_outputs_of_others_reach_the_calls() -> None:
    @xcs.host
    def join(a, b, c):
        return f"{a}{b}{c}"

    graph = xcs.XCSGraph()
    source = graph.add_node(xcs.host(lambda q: {"text": q * 2}), "source")
    both = graph.add_node(Parallel(join, join), "both", constants={"c": ["k"]})
    graph.connect(source.outputs["text"], both.inputs["a"])
    graph.connect(graph.input("extra", default="d"), both.inputs["b"])
    graph.connect(graph.input("q"), source.inputs["q"])
    expected = ("xxd['k']", "xxd['k']")
    assert "both/join" in opened(graph)
    assert xcs.execute_graph(graph, {"q": "x"})["both"] == expected


def test_numeric_parts_are_compiled() -> None:
    graph = one_node(Sequential(double, xcs.host(number), double))
    kinds = {node.operator.kind for node in opened(graph).nodes.values()}
    assert kinds == {"pure", "host", "glue"}
    assert float(xcs.execute_graph(graph, {"x": 2.0})["node"]) == 8.0


class Plan(xcs.Operator):
    first: xcs.Operator
    second: xcs.Operator

    def forward(self, text):
        drafts = [self.first(text) for _ in range(2)]
        return {"drafts": drafts, "best": self.second(drafts[0]), "of": "two"}


def test_a_composite_of_the_user_is_opened() -> None:
    graph = one_node(Plan(meeting(2), shout))
    assert len(opened(graph)) == 4
    assert xcs.execute_graph(graph, {"text": "hi"})["node"] == {
        "drafts": ["hi!", "hi!"],
        "best": "HI!",
        "of": "two",
    }


class Chooses(Plan):
    def forward(self, text, hint=None):
        return self.first(text) if hint is None else self.second(text)


class Draws(Plan):
    def forward(self, text):
        return random.choice([self.first, self.second])(text)


class Repeats(Plan):
    def forward(self, text):
        return [self.first(text), self.second(text)][randint(0, 0)]


class Formats(Plan):
    def forward(self, text):
        return self.first(f"{text}?")


class Computes(Plan):
    def forward(self, text):
        return self.first(text) + "?"


class Asks(Plan):
    def forward(self, text):
        return self.first(text) if isinstance(text, str) else self.second(text)


@pytest.mark.parametrize("cls", [Chooses, Draws, Repeats, Formats, Computes, Asks])
def test_what_does_more_than_plumbing_stays_one_node(cls) -> None:
    graph = one_node(cls(shout, whisper))
    assert list(opened(graph)) == ["node"]
    holder = one_node(Sequential(cls(shout, whisper), shout))
    assert list(opened(holder)) == ["node"]
    random.seed(0)
    assert xcs.execute_graph(graph, {"text": "Hi"})["node"].rstrip("?") in ("HI", "hi")


def test_a_hint_that_a_node_gives_is_looked_at_in_each_run() -> None:
    graph = one_node(Chooses(shout, whisper))
    hint = graph.add_node(xcs.host(lambda wanted: wanted), "hint")
    graph.connect(graph.input("wanted"), hint.inputs["wanted"])
    graph.connect(graph.input("text"), graph["node"].inputs["text"])
    graph.connect(hint, graph["node"].inputs["hint"])
    for wanted, expected in ((None, "HI"), ("x", "hi"), (None, "HI")):
        assert xcs.execute_graph(graph, {"text": "Hi", "wanted": wanted})["node"] == expected


class Numbers(Plan):
    def forward(self, text):
        return self.first(text), randint(1, 10**9)


def test_what_is_drawn_in_a_composite_is_drawn_in_each_run() -> None:
    graph = one_node(Numbers(shout, whisper))
    assert opened(graph) is graph
    assert len({xcs.execute_graph(graph, {"text": "Hi"})["node"] for _ in range(4)}) > 1


def test_arguments_that_only_the_run_knows_keep_a_composite_whole() -> None:
    graph = one_node(Parallel(shout, shout))
    source = graph.add_node(xcs.host(lambda q: {"text": q}), "source")
    graph.connect(source, "node")
    assert opened(graph) is graph
    assert xcs.execute_graph(graph, {"q": "a"})["node"] == ("A", "A")


def test_an_optional_input_keeps_a_composite_whole() -> None:
    graph = one_node(Parallel(xcs.host(lambda x, y=3: x + y), xcs.host(lambda x, y=4: x * y)))
    assert opened(graph) is graph
    assert xcs.execute_graph(graph, {"x": 1})["node"] == (4, 4)
    assert xcs.execute_graph(graph, {"x": 1, "y": 2})["node"] == (3, 2)


def test_stochastic_calls_in_a_composite_are_made_once_each() -> None:
    calls = Calls()

    @xcs.host
    def work(x):
        calls.note("work")
        return calls.counts["work"]

    result = xcs.execute_graph(one_node(Ensemble(work, 5)), {"x": 1})
    assert sorted(result["node"]) == [1, 2, 3, 4, 5]


def test_an_error_names_the_call_inside() -> None:
    @xcs.host
    def fail(text):
        raise ValueError("no")

    with pytest.raises(xcs.NodeExecutionError, match="'node/fail'") as caught:
        xcs.execute_graph(one_node(Parallel(shout, fail)), {"text": "a"})
    assert isinstance(caught.value.__cause__, ValueError)


class Query(pydantic.BaseModel):
    text: str


class Answer(pydantic.BaseModel):
    text: str
    score: float


class Checked(xcs.Operator):
    inner: xcs.Operator

    def forward(self, query: Query) -> Answer:
        return self.inner(query)


def test_inputs_and_outputs_are_validated_as_before() -> None:
    good = Checked(xcs.host(lambda query: {"text": query.text, "score": "1.5"}))
    bad = Checked(xcs.host(lambda query: {"text": query.text}))
    for passes in ((), None):
        options = {"passes": passes}
        result = xcs.execute_graph(one_node(good), {"query": {"text": "a"}}, options=options)
        assert result["node"] == Answer(text="a", score=1.5)
        with pytest.raises(xcs.NodeExecutionError, match="score"):
            xcs.execute_graph(one_node(bad), {"query": {"text": "a"}}, options=options)
        with pytest.raises(xcs.NodeExecutionError, match="text"):
            xcs.execute_graph(one_node(good), {"query": {}}, options=options)


class Fields(xcs.Operator):
    inner: xcs.Operator

    def forward(self, *, inputs):
        return {"found": self.inner(inputs["text"])}


def test_a_composite_of_the_inputs_style_is_opened() -> None:
    graph = one_node(Fields(shout))
    graph.connect(graph.input("text"), graph["node"].inputs["text"])
    assert "node/shout" in opened(graph)
    assert xcs.execute_graph(graph, {"text": "a"})["node"] == {"found": "A"}


def test_composites_in_composites_are_opened() -> None:
    meet = meeting(4)
    graph = one_node(Parallel(a=Parallel(meet, meet), b=Ensemble(meet, 2)))
    assert plain(dict(xcs.execute_graph(graph, {"text": "x"}))) == {
        "node": {"a": ("x!", "x!"), "b": ["x!", "x!"]}
    }


def test_the_graph_is_not_changed() -> None:
    graph = one_node(Parallel(shout, whisper))
    before = graph.describe(), graph.version
    assert opened(graph) is not graph
    assert (graph.describe(), graph.version) == before


@pytest.mark.parametrize(("cls", "reason"), [(Formats, "TracingError: "), (Computes, "`+`")])
def test_the_metadata_of_a_composite_say_why_it_is_not_opened(cls, reason) -> None:
    graph = one_node(cls(shout, whisper))
    assert reason in opened(graph)["node"].metadata["not_opened"]
    assert not graph["node"].metadata
