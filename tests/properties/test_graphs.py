"""A graph gives the results of plain Python, however it is scheduled, rewritten and asked."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

import ember_xcs as xcs
from tests.properties.graphs import (
    INPUTS,
    PASSES,
    SCHEDULERS,
    RandomGraph,
    plain,
    random_graphs,
    run_plainly,
    wanted_outputs,
)

pass_sets = st.one_of(
    st.none(),
    st.just(()),
    st.lists(st.sampled_from(PASSES), unique=True).map(tuple),
)


def expected_of(case: RandomGraph) -> tuple[dict[str, Any], dict[str, Any]]:
    """The outputs of all nodes, and of the graph."""
    everything = run_plainly(case.graph, INPUTS)
    assert case.calls.counts == case.expected
    case.calls.counts.clear()
    return plain(everything), plain(wanted_outputs(case.graph, everything))


def check_calls(case: RandomGraph, passes: tuple[str, ...] | None) -> None:
    """Stochastic calls are made exactly once; others at most that often, and no passes: exactly."""
    counts = case.calls.counts
    for label, count in case.expected.items():
        if label in case.exact or passes == ():
            assert counts[label] == count, label
        else:
            assert counts[label] <= count, label
    counts.clear()


@given(random_graphs(), pass_sets)
def test_every_scheduler_gives_what_plain_python_gives(case, passes) -> None:
    _, expected = expected_of(case)
    options = {"passes": passes, "timeout_seconds": 60}
    for scheduler in SCHEDULERS:
        result = xcs.execute_graph(case.graph, INPUTS, options=options, scheduler=scheduler)
        assert plain(dict(result)) == expected
        assert result.complete
        check_calls(case, passes)


@given(random_graphs(), pass_sets, st.data())
def test_the_outputs_that_are_asked_for_change_no_value(case, passes, data) -> None:
    everything, _ = expected_of(case)
    options = {"passes": passes}
    result = xcs.execute_graph(case.graph, INPUTS, outputs="all", options=options)
    assert plain(dict(result)) == everything
    check_calls(case, passes)
    some = data.draw(st.lists(st.sampled_from(list(case.graph.nodes)), unique=True, min_size=1))
    result = xcs.execute_graph(case.graph, INPUTS, outputs=some, options=options)
    assert plain(dict(result)) == {node_id: everything[node_id] for node_id in some}
    check_calls(case, passes)


@given(random_graphs(), pass_sets)
def test_async_code_gets_the_same_results(case, passes) -> None:
    _, expected = expected_of(case)
    for scheduler in ("sequential", "parallel"):
        run = xcs.aexecute_graph(
            case.graph, INPUTS, options={"passes": passes}, scheduler=scheduler
        )
        assert plain(dict(asyncio.run(run))) == expected
        check_calls(case, passes)


@given(random_graphs(max_nodes=6), pass_sets)
def test_inputs_that_are_left_out_are_left_to_their_defaults(case, passes) -> None:
    given_inputs = {"a": INPUTS["a"]}
    expected = plain(wanted_outputs(case.graph, run_plainly(case.graph, given_inputs)))
    result = xcs.execute_graph(case.graph, given_inputs, options={"passes": passes})
    assert plain(dict(result)) == expected


def test_a_node_that_takes_all_inputs_takes_their_defaults_too() -> None:
    graph = xcs.XCSGraph()
    graph.input("b", default=11)
    graph.add_node(lambda **fields: sorted(fields.items()), "n")
    expected = run_plainly(graph, {"a": 1})
    assert expected == {"n": [("a", 1), ("b", 11)]}
    assert dict(xcs.execute_graph(graph, {"a": 1})) == expected


@given(random_graphs(), st.lists(st.sampled_from(PASSES[:-1]), unique=True, min_size=1))
def test_a_rewritten_graph_means_the_same_to_plain_python(case, passes) -> None:
    _, expected = expected_of(case)
    before = case.graph.describe(), case.graph.version
    rewritten = xcs.optimize(case.graph, passes)
    rewritten.validate()
    assert (case.graph.describe(), case.graph.version) == before
    assert plain(wanted_outputs(rewritten, run_plainly(rewritten, INPUTS))) == expected
    assert set(rewritten.inputs) <= set(case.graph.inputs)


@given(random_graphs(), st.sampled_from(PASSES[:-1]))
def test_a_pass_finds_nothing_to_do_in_its_own_result(case, name) -> None:
    rewritten = xcs.optimize(case.graph, [name])
    assert xcs.optimize(rewritten, [name]) is rewritten
