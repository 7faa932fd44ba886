"""Graphs run from end to end."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

import ember_xcs as xcs
from ember_xcs._graph.graph import XCSGraph
from ember_xcs._runtime.execute import GraphExecutor, aexecute_graph, execute_graph
from ember_xcs.errors import (
    CycleError,
    NodeExecutionError,
    UnboundInputError,
    UnknownFieldError,
    UnknownNodeError,
)


def shout(text: str) -> str:
    return text.upper()


def double(text: str) -> str:
    return text * 2


def boom(text: str) -> Any:
    raise ValueError("boom")


def pipeline(*functions) -> XCSGraph:
    """A chain of nodes n0, n1, ..."""
    graph = XCSGraph(name="pipeline")
    nodes = [graph.add_node(f, f"n{i}") for i, f in enumerate(functions)]
    for source, target in itertools.pairwise(nodes):
        graph.add_edge(source, target)
    return graph


def test_the_results_are_the_nodes_without_successors_unless_others_are_asked_for() -> None:
    graph = pipeline(shout, double)
    assert dict(execute_graph(graph, {"text": "a"})) == {"n1": "AA"}
    assert dict(execute_graph(graph, {"text": "a"}, outputs="all")) == {"n0": "A", "n1": "AA"}
    assert dict(execute_graph(graph, {"text": "a"}, outputs=["n0"])) == {"n0": "A"}
    assert dict(asyncio.run(aexecute_graph(graph, {"text": "a"}))) == {"n1": "AA"}


def test_asking_for_no_outputs_gives_none_and_runs_side_effects_alone() -> None:
    log = []

    def noting(name, **settings):
        return xcs.host(name=name, **settings)(lambda text: log.append(name) or text)

    graph = XCSGraph()
    graph.add_node(noting("unneeded"))
    needed, effect = graph.add_node(noting("needed")), noting("effect", side_effects=True)
    graph.connect(needed, graph.add_node(effect))
    graph.connect(graph["effect"], graph.add_node(noting("after")))
    graph.set_outputs("after", "unneeded")
    result = execute_graph(graph, {"text": "a"}, outputs=[])
    assert dict(result) == {}
    assert result.complete
    assert log == ["needed", "effect"]
    assert dict(execute_graph(graph, {"text": "a"}, outputs=iter(()))) == {}


def test_a_side_effect_inside_a_composite_operator_is_run_though_no_output_is_asked_for() -> None:
    log = []
    send = xcs.host(side_effects=True)(log.append)

    class Mailer(xcs.Operator):
        send: xcs.Operator

        def forward(self, text):
            return self.send(text)

    graph = XCSGraph()
    graph.add_node(Mailer(send))
    graph.add_node(shout)
    assert dict(execute_graph(graph, {"text": "a"}, outputs=())) == {}
    assert log == ["a"]


def test_a_run_without_outputs_takes_the_inputs_of_the_whole_graph() -> None:
    graph = pipeline(shout, double)
    assert dict(execute_graph(graph, {"text": "a"}, outputs=[])) == {}
    with pytest.raises(UnboundInputError, match="'text'"):
        execute_graph(graph, {}, outputs=[])


def test_a_graph_may_change_between_runs() -> None:
    graph = pipeline(shout)
    executor = GraphExecutor(graph)
    assert dict(executor.execute({"text": "a"}, outputs="all")) == {"n0": "A"}
    graph.add_edge("n0", graph.add_node(double, "n1"))
    assert dict(executor.execute({"text": "a"}, outputs="all")) == {"n0": "A", "n1": "AA"}
    assert dict(executor.execute({"text": "a"}, outputs=["n0"])) == {"n0": "A"}


def test_inputs_and_outputs_that_are_not_there_are_clear_errors() -> None:
    graph = pipeline(shout)
    with pytest.raises(UnboundInputError, match="was not given 'text'"):
        execute_graph(graph, {})
    with pytest.raises(UnknownFieldError, match=r"no input 'txt'; did you mean 'text'\?"):
        execute_graph(graph, {"txt": "a", "text": "b"})
    with pytest.raises(UnknownNodeError, match="'n7'"):
        execute_graph(graph, {"text": "a"}, outputs=["n7"])


def test_nothing_runs_in_a_bad_graph() -> None:
    ran: list[str] = []
    graph = pipeline(shout, ran.append, double)
    graph.add_edge("n2", "n1")
    with pytest.raises(CycleError):
        execute_graph(graph, {"text": "a"})
    assert ran == []


def test_a_missing_result_says_why_it_is_missing() -> None:
    graph = pipeline(boom, double)
    result = execute_graph(graph, {"text": "a"}, outputs="all", options={"on_error": "continue"})
    assert dict(result) == {}
    assert not result.complete
    with pytest.raises(KeyError, match="'n1' was skipped: depends on 'n0'"):
        result["n1"]
    with pytest.raises(KeyError, match="'n0' failed"):
        result["n0"]
    assert repr(result) == "ExecutionResult(empty, 1 failed, 1 skipped)"


def test_the_error_is_that_of_the_node() -> None:
    with pytest.raises(NodeExecutionError, match="'n0'"):
        execute_graph(pipeline(boom), {"text": "a"})
