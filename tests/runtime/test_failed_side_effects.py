"""What ``on_error="continue"`` does with side effects after one that failed."""

from __future__ import annotations

import pytest

import ember_xcs as xcs

SCHEDULERS = ["sequential", "topological", "parallel", "wave", "adaptive"]


def noting(log, name, *, fails=False):
    def note(value):
        if fails:
            raise ValueError("boom")
        log.append(name)
        return name

    return xcs.host(side_effects=True, name=name)(note)


def run(graph, scheduler):
    return xcs.execute_graph(graph, {"value": 1}, "all", {"on_error": "continue"}, scheduler)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_failed_side_effect_does_not_keep_later_ones_from_running(scheduler) -> None:
    log: list[str] = []
    graph = xcs.XCSGraph()
    graph.add_node(noting(log, "first", fails=True))
    graph.add_node(noting(log, "second"))
    graph.add_node(noting(log, "third"))
    result = run(graph, scheduler)
    assert log == ["second", "third"]
    assert dict(result) == {"second": "second", "third": "third"}
    assert not result.skipped


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_what_reads_a_failed_side_effect_is_skipped_and_the_side_effects_after_it_run(
    scheduler,
) -> None:
    log: list[str] = []
    graph = xcs.XCSGraph()
    first = graph.add_node(noting(log, "first", fails=True))
    reader = graph.add_node(noting(log, "reader"))
    graph.connect(first, reader)
    graph.add_node(noting(log, "last"))
    result = run(graph, scheduler)
    assert log == ["last"]
    assert set(result.skipped) == {"reader"}
    assert set(result.errors) == {"first"}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_later_side_effects_still_wait_for_all_else_that_they_need(scheduler) -> None:
    log: list[str] = []
    graph = xcs.XCSGraph()
    graph.add_node(noting(log, "first", fails=True))
    value = graph.add_node(xcs.host(lambda value: log.append("value") or 7, name="value"))
    last = graph.add_node(noting(log, "last"))
    graph.connect(value, last)
    result = run(graph, scheduler)
    assert log == ["value", "last"]
    assert not result.skipped


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_failed_batch_of_side_effects_does_not_keep_later_ones_from_running(scheduler) -> None:
    import jax

    log: list[str] = []

    @xcs.host(side_effects=True)
    def failing(value) -> float:
        raise ValueError("boom")

    second = noting(log, "second")

    @xcs.jit.trace
    def program(values):
        return jax.vmap(failing)(values), second(values)

    graph = program.graph(jax.numpy.arange(3.0))
    inputs = dict.fromkeys(graph.inputs, jax.numpy.arange(3.0))
    result = xcs.execute_graph(graph, inputs, None, {"on_error": "continue"}, scheduler)
    assert log == ["second"]
    assert len(result.errors) == 1


def test_a_run_that_ends_at_the_first_error_runs_no_later_side_effect() -> None:
    log: list[str] = []
    graph = xcs.XCSGraph()
    graph.add_node(noting(log, "first", fails=True))
    graph.add_node(noting(log, "second"))
    with pytest.raises(xcs.NodeExecutionError):
        xcs.execute_graph(graph, {"value": 1})
    assert log == []
