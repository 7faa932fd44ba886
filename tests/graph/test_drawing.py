"""Text and pictures."""

import itertools
import re
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import numpy as np
import pytest

from ember_xcs._core.functions import host, pure
from ember_xcs._core.operator import Operator
from ember_xcs._graph import XCSGraph
from ember_xcs._graph.drawing.layout import layered_layout
from ember_xcs._graph.drawing.states import node_states
from ember_xcs.errors import GraphError

SVG = "{http://www.w3.org/2000/svg}"
NASTY = 'a "quoted" <b>&|\\\n{x} ; %% end\x00\x1b'


@host
def search(query: str) -> dict: ...


@pure
def rank(documents, limit=3): ...


class Pipeline(Operator):
    step: Operator

    def forward(self, text): ...


def example():
    graph = XCSGraph("qa")
    a, b, c = graph.add_node(search), graph.add_node(rank), graph.add_node(Pipeline(search))
    graph.connect(graph.input("query"), a.inputs["query"])
    graph.connect(a.outputs["hits"], b.inputs["documents"])
    graph.connect(b, c)
    return graph


def nasty():
    graph = XCSGraph(NASTY)
    a = graph.add_node(search, NASTY, NASTY + "name")
    b = graph.add_node(lambda **fields: fields, NASTY + "2", constants={NASTY: NASTY})
    graph.connect(graph.input(NASTY), a.inputs["query"])
    graph.add_edge(a, b, {NASTY: NASTY + "field"})
    graph.set_outputs(**{NASTY: b})
    return graph


def run(**changes):
    entries = [
        SimpleNamespace(node_id="search", start_seconds=0.0, end_seconds=1.25),
        SimpleNamespace(node_id="rank", start_seconds=2.0, end_seconds=2.004),
    ]
    state = {"errors": {"rank": ValueError()}, "skipped": {"pipeline"}, "timeline": entries}
    return SimpleNamespace(**state | changes)


def texts(svg):
    return [text.text for text in ET.fromstring(svg).iter(f"{SVG}text")]


def test_describe_is_a_table_of_what_feeds_what():
    assert example().describe() == (
        "XCSGraph 'qa': 3 nodes, 2 edges\n".replace("2 edges", "3 edges") + "inputs: query\n"
        "  node      kind       operator  takes\n"
        "  search    host       search    query <- input.query\n"
        "  rank      pure       rank      documents <- search.hits\n"
        "  pipeline  composite  Pipeline  * <- rank\n"
        "outputs: pipeline"
    )


def test_describe_shows_constants_and_implied_inputs():
    graph = XCSGraph()
    graph.add_node(rank, constants={"limit": np.zeros((2, 3))})
    graph.add_node(lambda: 1, "none")
    described = graph.describe()
    assert "documents <- input, limit = float64[2, 3]" in described
    assert "nothing" in described


def test_describe_keeps_a_row_on_one_line():
    assert len(nasty().describe().split("\n")) == 6


def test_describe_shows_an_empty_and_a_broken_graph():
    assert XCSGraph().describe().endswith("inputs: none\noutputs: none")
    graph = example()
    graph.connect("pipeline", "search")
    assert "* <- pipeline" in graph.describe()


def test_mermaid_names_nodes_kinds_and_fields():
    lines = example().to_mermaid().split("\n")
    assert lines[:8] == [
        "flowchart TD",
        '  i0(["query"]):::input',
        '  n0{{"search"}}:::host',
        '  n1("rank"):::pure',
        '  n2[["pipeline"]]:::composite',
        "  i0 --> n0",
        '  n0 -->|"hits \N{RIGHTWARDS ARROW} documents"| n1',
        "  n1 --> n2",
    ]
    assert "  class n2 output" in lines


def test_mermaid_draws_a_graph_without_results():
    graph = XCSGraph()
    graph.set_outputs(echo=graph.input("x"))
    assert graph.to_mermaid().startswith('flowchart TD\n  i0(["x"]):::input\n  classDef')


def test_an_arrow_whose_field_has_the_name_of_the_input_is_not_labelled():
    graph = XCSGraph()
    node = graph.add_node(search)
    graph.connect(graph.input("query"), node.inputs["query"])
    assert " -> n0;" in graph.to_dot()
    graph.remove_edge(graph.input("query"), node)
    graph.connect(graph.input("q"), node.inputs["query"])
    assert 'n0 [label="query"];' in graph.to_dot()


def test_labels_of_two_arrows_do_not_overlap():
    graph = XCSGraph()
    a, b = graph.add_node(search), graph.add_node(lambda documents, queries: 1, "b")
    graph.connect(graph.input("x"), a.inputs["query"])
    graph.connect(a, b.inputs["documents"])
    graph.connect(graph.input("x"), b.inputs["queries"])
    root = ET.fromstring(graph.to_svg())
    placed = {t.text: t.attrib for t in root.findall(f"{SVG}text")}
    one, other = placed["documents"], placed["queries"]
    beside = abs(float(one["x"]) - float(other["x"])) >= 11 * 0.6 * 8
    below = abs(float(one["y"]) - float(other["y"])) >= 11
    assert beside or below


def test_long_times_are_whole_seconds():
    entry = SimpleNamespace(node_id="rank", start_seconds=0, end_seconds=123.4)
    assert node_states(run(errors={}, timeline=[entry]))["rank"].note == "123 s"


def test_mermaid_escapes_labels():
    text = nasty().to_mermaid()
    labels = [label.replace("<br/>", "") for label in re.findall(r'"(.*?)"', text)]
    assert len(labels) == 5
    assert not re.search(r"[<>{}|\\%&]", "".join(labels))
    assert "#34;quoted#34; #60;b#62;" in text


def test_dot_quotes_labels():
    text = nasty().to_dot()
    assert 'label="a \\"quoted\\" <b>&|\\\\\\n{x}' in text
    assert text.count("\n") == len(text.splitlines())
    assert text.startswith("digraph")
    assert text.endswith("}\n")


def test_dot_has_every_node_and_edge():
    text = example().to_dot()
    assert (text.count(" -> "), text.count("shape=")) == (3, 4)
    assert 'n0 -> n1 [label="hits \N{RIGHTWARDS ARROW} documents"];' in text


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("make", [example, nasty, XCSGraph])
def test_svg_is_well_formed(make, dark):
    graph = make()
    root = ET.fromstring(graph.to_svg(dark=dark))
    assert root.tag == f"{SVG}svg"
    assert len(root.findall(f"{SVG}g")) == len(graph) + len(graph.inputs)
    assert len(root.findall(f"{SVG}path")) == len(graph.edges)


def test_svg_shows_names_kinds_and_fields():
    shown = texts(example().to_svg())
    assert shown[:8] == [
        "query",
        "input",
        "search",
        "host",
        "rank",
        "pure",
        "pipeline",
        "composite",
    ]
    assert "hits \N{RIGHTWARDS ARROW} documents" in shown


def test_svg_of_a_run_shows_failures_skips_and_times():
    shown = texts(example().to_svg(run()))
    assert "host \N{MIDDLE DOT} 1.2 s" in shown
    assert "pure \N{MIDDLE DOT} failed 4 ms" in shown
    assert "composite \N{MIDDLE DOT} skipped" in shown


def test_svg_of_a_run_without_a_timeline():
    assert "pure \N{MIDDLE DOT} failed" in texts(example().to_svg(run(timeline=None)))


def test_a_node_that_ran_several_times_shows_the_sum():
    entries = [SimpleNamespace(node_id="a", start_seconds=0, end_seconds=2e-5)] * 2
    states = node_states(run(errors={}, skipped=(), timeline=entries))
    assert states["a"].note == "40 \N{MICRO SIGN}s"


def test_svg_light_and_dark_differ_in_colours_only():
    light, dark = (example().to_svg(dark=dark) for dark in (False, True))
    assert light != dark
    colour = re.compile("#[0-9a-f]{6}")
    assert colour.sub("", light) == colour.sub("", dark)


@pytest.mark.parametrize("name", ["to_svg", "to_dot", "to_mermaid", "describe", "_repr_html_"])
def test_pictures_are_deterministic(name):
    assert getattr(example(), name)() == getattr(example(), name)()


def test_a_wide_graph_is_drawn_sideways():
    graph = XCSGraph()
    first = graph.add_node(search)
    for _ in range(40):
        graph.connect(first, graph.add_node(lambda **fields: fields))
    root = ET.fromstring(graph.to_svg())
    assert float(root.attrib["width"]) < 1000 < float(root.attrib["height"])


def test_svg_of_too_many_nodes_is_refused():
    graph = XCSGraph()
    for _ in range(1001):
        graph.add_node(search)
    with pytest.raises(GraphError, match=r"1001 nodes.*1000 at most.*subgraph"):
        graph.to_svg()
    assert "too large" in graph._repr_html_()


def test_jupyter_gets_a_picture_for_each_theme():
    bundle = example()._repr_mimebundle_()
    assert bundle["text/plain"] == "XCSGraph('qa', 3 nodes, 3 edges)"
    assert bundle["text/html"].count("<svg") == 2


def test_jupyter_gets_the_cycle_of_a_graph_that_has_one():
    graph = XCSGraph()
    graph.add_node(search)
    graph.connect("search", "search")
    assert "search -&gt; search" in graph._repr_html_()


def test_boxes_of_one_layer_do_not_overlap():
    arrows = [(a, b) for a in range(12) for b in range(12, 24) if (a * b) % 5 == 0]
    layout = layered_layout({n: 50.0 + 7 * (n % 5) for n in range(24)}, arrows)
    for depth in range(layout.depth):
        boxes = sorted(
            (b for b in layout.boxes.values() if b.layer == depth), key=lambda b: b.across
        )
        for left, right in itertools.pairwise(boxes):
            assert right.across - left.across >= (left.size + right.size) / 2


def test_every_arrow_leads_down_through_each_layer():
    layout = layered_layout(dict.fromkeys("abc", 50.0), [("a", "b"), ("b", "c"), ("a", "c")])
    assert [box.layer for box in layout.routes["a", "c"]] == [0, 1, 2]
