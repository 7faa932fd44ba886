"""What batch end points do with the calls they are asked for, and what policies do for these."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ember_xcs as xcs
from tests.counting import Calls
from tests.runtime import work
from tests.runtime.batched import Double, DoubleLater, fed, roots, run

# What is wrong


def outcomes(operator, **options):
    result = run(roots(operator, 3), on_error="continue", **options)
    return dict(result), {k: type(e.__cause__) for k, e in result.errors.items()}


class Fails(Double):
    def forward_batch(self, x):
        raise ValueError("down")


@pytest.mark.parametrize("options", [{}, {"collect_metrics": True}])
def test_a_batch_that_fails_fails_each_of_its_calls(options) -> None:
    result = run(roots(Fails(Calls()), 3), on_error="continue", **options)
    assert set(result.errors) == {"n0", "n1", "n2"}
    for node_id, error in result.errors.items():
        assert error.node_id == node_id
        expected = (
            f"node {node_id!r} (operator Fails) failed in a batch of 3 calls: ValueError: down"
        )
        assert expected in str(error)


def test_the_first_error_ends_the_run_and_names_a_node() -> None:
    with pytest.raises(xcs.NodeExecutionError, match=r"node 'n\d' .*in a batch of 3 calls.*down"):
        run(roots(Fails(Calls()), 3))


class FailsAtFive(Double):
    def forward_batch(self, x):
        return [ValueError("five") if int(v) == 5 else 2 * int(v) for v in x]


@pytest.mark.parametrize("options", [{}, {"collect_metrics": True}])
def test_an_exception_among_the_results_is_the_failure_of_its_call(options) -> None:
    graph, settings = fed(FailsAtFive(Calls()), 4, 5, 6), {"on_error": "continue", **options}
    result = xcs.execute_graph(graph, {}, outputs="all", options=settings)
    assert {k: v for k, v in result.items() if k != "source"} == {"n4": 8, "n6": 12}
    assert str(result.errors["n5"].__cause__) == "five"


def test_an_element_that_fails_is_named() -> None:
    program = xcs.jit.trace(jax.vmap(FailsAtFive(Calls())))
    with pytest.raises(
        xcs.NodeExecutionError, match=r"at element 1 in a batch of 3 calls: ValueError: five"
    ):
        program(jnp.array([4, 5, 6]))


def test_a_result_that_is_not_what_was_declared_fails_its_call_alone() -> None:
    class Lies(Double):
        def forward_batch(self, x):
            return ["two", *[2 * int(v) for v in x[1:]]]

    good, errors = outcomes(Lies(Calls()))
    assert len(good) == 2
    assert [*errors.values()] == [xcs.OperatorOutputError]


@pytest.mark.parametrize("options", [{}, {"collect_metrics": True}])
def test_results_that_are_not_as_many_as_calls_are_an_error_of_each(options) -> None:
    class Short(Double):
        def forward_batch(self, x):
            return x[1:]

    result = run(roots(Short(Calls()), 3), on_error="continue", **options)
    assert set(result.errors) == {"n0", "n1", "n2"}
    assert "was given 3 calls and returned 2 results" in str(result.errors["n1"])


@pytest.mark.parametrize("answer", [None, 5, "abc", {"a": 1}])
def test_what_is_no_list_of_results_is_an_error_of_each(answer) -> None:
    class NoList(Double):
        def forward_batch(self, x):
            return answer

    with pytest.raises(xcs.NodeExecutionError, match=r"forward_batch of .* returned a \w+; it "):
        run(roots(NoList(Calls()), 3))


def test_arguments_that_are_refused_fail_their_call_alone() -> None:
    pydantic = pytest.importorskip("pydantic")

    class Inputs(pydantic.BaseModel):
        x: int = pydantic.Field(lt=5)

    class Checked(Double):
        input_spec = Inputs

    calls = Calls()
    checked = Checked(calls)
    program = jax.vmap(checked)
    with pytest.raises(xcs.NodeExecutionError, match="element 2"):
        xcs.jit.trace(program)(jnp.array([3, 4, 5]))
    assert calls.seen == [[3, 4]]


def test_a_batch_that_takes_too_long_fails_its_calls() -> None:
    class Hangs(DoubleLater):
        timeout = 0.1

        async def forward_batch(self, x):
            await asyncio.Event().wait()

    _, errors = outcomes(Hangs(Calls()))
    assert set(errors.values()) == {xcs.ExecutionTimeout}
    assert len(errors) == 3


def test_the_deadline_of_the_run_cancels_a_batch() -> None:
    cancelled = threading.Event()

    class Hangs(DoubleLater):
        async def forward_batch(self, x):
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

    with pytest.raises(xcs.ExecutionTimeout):
        run(roots(Hangs(Calls())), timeout_seconds=0.1)
    assert cancelled.is_set()


@pytest.mark.parametrize("value", [-1, float("inf"), "soon", True])
def test_a_window_that_is_no_time_is_refused(value) -> None:
    class Bad(Double):
        batch_window_seconds = value

    with pytest.raises(xcs.OptionsError, match="batch_window_seconds"):
        Bad(Calls()).policy  # noqa: B018
    with pytest.raises(xcs.OptionsError, match="batch_window_seconds"):
        xcs.ExecutionOptions(batch_window_seconds=value)


def test_a_window_without_a_batch_end_point_is_refused() -> None:
    class Alone(xcs.HostOperator):
        batch_window_seconds = 0.1

        def forward(self, x: int) -> int:
            return x

    with pytest.raises(xcs.OptionsError, match=r"Alone.*no forward_batch.*leave"):
        run(roots(Alone()))


@pytest.mark.parametrize("value", [0, 1.5, True])
def test_a_size_that_is_none_is_refused(value) -> None:
    with pytest.raises(xcs.OptionsError, match="max_batch_size"):
        xcs.ExecutionOptions(max_batch_size=value)


# Policies


def test_metrics_say_how_many_calls_went_in_how_many_batches() -> None:
    metrics = run(roots(Double(Calls()), 5), max_batch_size=3, max_workers=1).metrics
    assert (metrics.batches, metrics.batched_calls) == (2, 5)


def test_metrics_do_not_count_single_calls_as_batches() -> None:
    metrics = run(roots(Double(Calls()), 4), scheduler="sequential").metrics
    assert (metrics.batches, metrics.batched_calls) == (0, 0)


def test_each_call_of_a_batch_is_in_the_timeline_and_among_the_attempts() -> None:
    result = run(roots(Double(Calls()), 3), collect_metrics=True)
    assert sorted(entry.node_id for entry in result.timeline) == ["n0", "n1", "n2"]
    assert (result.metrics.attempts, result.metrics.calls["call"]) == (3, 3)


def test_the_budget_counts_each_call_of_a_batch() -> None:
    calls = Calls()
    with pytest.raises(xcs.BudgetExceeded, match="0 calls were made, 4 are ready together"):
        run(roots(Double(calls)), budget=xcs.Budget(calls=3))
    assert calls.seen == []
    assert run(roots(Double(calls)), budget=xcs.Budget(calls=4)).complete


def test_what_the_cache_knows_does_not_go_to_the_batch() -> None:
    class Known(Double):
        deterministic = True

    calls = Calls()
    double = Known(calls)
    program = xcs.jit.trace(lambda a, b, c: (double(a), double(b), double(c)))
    with xcs.execution_options(cache=xcs.ResultCache()):
        assert program(1, 2, 3) == (2, 4, 6)
        assert program(2, 5, 4) == (4, 10, 8)
        assert program(5, 1, 2) == (10, 2, 4)
    assert [sorted(batch) for batch in calls.seen] == [[1, 2, 3], [4, 5]]


def test_equal_calls_of_a_batch_are_made_once_where_results_are_cached() -> None:
    class Known(Double):
        deterministic = True

    calls = Calls()
    result = run(roots(Known(calls)), cache=xcs.ResultCache())
    assert dict(result) == dict.fromkeys(["n0", "n1", "n2", "n3"], 6)
    assert calls.seen == [[3]]


def test_only_the_calls_of_a_batch_that_failed_are_tried_again() -> None:
    class Flaky(Double):
        def forward_batch(self, x):
            first = not len(self.calls)
            super().forward_batch(x)
            return [ConnectionError("lost") if first and v > 1 else 2 * int(v) for v in x]

    calls = Calls()
    double = Flaky(calls)
    program = xcs.jit.trace(lambda a, b, c: (double(a), double(b), double(c)))
    with xcs.execution_options(retry=xcs.Retry(initial_seconds=0.0)):
        assert program(1, 2, 3) == (2, 4, 6)
    assert [sorted(batch) for batch in calls.seen] == [[1, 2, 3], [2, 3]]


def test_calls_that_are_in_the_journal_do_not_go_to_the_batch(tmp_path) -> None:
    class Breaks(Double):
        broken: threading.Event

        def forward_batch(self, x):
            super().forward_batch(x)
            bad = [int(v) == 2 and self.broken.is_set() for v in x]
            return [ValueError("two") if b else 2 * int(v) for v, b in zip(x, bad, strict=True)]

        def __xcs_identity__(self):
            return "breaks"

    calls, broken = Calls(), threading.Event()
    broken.set()
    double = Breaks(calls, broken)
    program = xcs.jit.trace(lambda a, b, c: (double(a), double(b), double(c)))
    with xcs.execution_options(journal=tmp_path / "run.db"):
        with pytest.raises(xcs.NodeExecutionError):
            program(1, 2, 3)
        broken.clear()
        assert program(1, 2, 3) == (2, 4, 6)
    assert [sorted(batch) for batch in calls.seen] == [[1, 2, 3], [2]]


def test_a_journal_of_one_scheduler_serves_another(tmp_path) -> None:
    calls = Calls()
    double = Double(calls)
    options = {"journal": tmp_path / "run.db", "retry": None}

    @xcs.host
    def fail_once(x: int) -> int:
        if not failed:
            failed.append(True)
            raise ValueError("once")
        return x

    failed: list[bool] = []

    def program(xs):
        doubled = jax.vmap(double)(xs)
        return doubled, jax.vmap(fail_once)(doubled)

    first = xcs.jit.trace(program, options={**options, "scheduler": "sequential"})
    second = xcs.jit.trace(program, options={**options, "max_batch_size": 2})
    with pytest.raises(xcs.NodeExecutionError):
        first(jnp.arange(3))
    np.testing.assert_array_equal(second(jnp.arange(3))[1], [0, 2, 4])
    assert calls.seen == [[0, 1, 2]]


def test_usage_and_requests_are_counted_once_for_a_batch() -> None:
    class Reports(Double):
        resource = "batched"

        def forward_batch(self, x):
            xcs.record_usage(tokens=10, cost=0.5)
            return super().forward_batch(x)

    calls = Calls()
    options = {"limits": {"batched": xcs.Limit(concurrency=1, requests_per_minute=1)}}
    metrics = run(roots(Reports(calls)), **options).metrics
    assert (metrics.tokens, metrics.cost, metrics.attempts) == (10, 0.5, 4)


def test_watchers_hear_of_each_call_of_a_batch() -> None:
    heard = []
    run(roots(Double(Calls()), 3), progress=heard.append)
    assert (heard[-1].calls_done, heard[-1].calls_known, heard[-1].failed) == (3, 3, 0)


def test_nothing_is_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(roots(DoubleLater(Calls())), collect_metrics=True)


@pytest.mark.parametrize("mapped", [xcs.pmap, xcs.vmap])
def test_elements_that_are_mapped_one_by_one_go_together(mapped) -> None:
    calls = Calls()
    assert list(mapped(Double(calls))([1, 2, 3])) == [2, 4, 6]
    assert calls.seen == [[1, 2, 3]]


def test_failures_that_are_returned_stand_in_the_places_of_their_calls() -> None:
    results = xcs.pmap(FailsAtFive(Calls()), on_error="return")([4, 5, 6])
    assert (results[0], str(results[1]), results[2]) == (8, "five", 12)


def test_a_batch_that_fails_is_returned_in_the_place_of_each_call() -> None:
    results = xcs.pmap(Fails(Calls()), on_error="return")([4, 5, 6])
    assert [str(result) for result in results] == ["down"] * 3


def test_an_executor_of_pmap_has_each_element() -> None:
    calls = Calls()
    assert list(xcs.pmap(Double(calls), executor="thread")([1, 2, 3])) == [2, 4, 6]
    assert calls.sorted == [1, 2, 3]


def test_a_batch_may_be_answered_in_a_process() -> None:
    result = run(fed(work.Squares(), 0, 2, 3), on_error="continue")
    assert [result[node][0] for node in ("n2", "n3")] == [4, 9]
    assert {result[node][2] for node in ("n2", "n3")} == {3}
    assert result["n2"][1] != os.getpid()
    assert str(result.errors["n0"].__cause__) == "none"


def test_a_batch_may_be_answered_in_line() -> None:
    class Cheap(Double):
        executor = "inline"

    calls = Calls()
    assert run(roots(Cheap(calls)), scheduler="parallel")["n3"] == 6
    assert calls.seen == [[3, 3, 3, 3]]


@pytest.mark.parametrize("options", [{}, {"collect_metrics": True}])
def test_a_batch_on_a_thread_that_takes_too_long_fails_its_calls(options) -> None:
    released = threading.Event()

    class Hangs(Double):
        timeout = 0.1

        def forward_batch(self, x):
            released.wait(30)
            return super().forward_batch(x)

    try:
        result = run(roots(Hangs(Calls()), 2), on_error="continue", **options)
    finally:
        released.set()
    assert {type(error.__cause__) for error in result.errors.values()} == {xcs.ExecutionTimeout}
    assert set(result.errors) == {"n0", "n1"}
    assert "abandoned" in str(result.errors["n1"])


def test_the_journal_knows_each_call_by_its_node(tmp_path) -> None:
    path = tmp_path / "run.db"
    run(fed(Double(Calls()), 4, 5), journal=path)
    journal = sqlite3.connect(path)
    try:
        rows = [
            row
            for (sql,) in journal.execute("select name from sqlite_master where type='table'")
            for row in journal.execute(f"select * from {sql}")
        ]
    finally:
        journal.close()
    named = sorted(item for row in rows for item in row if item in ("n4", "n5", "n4, n5"))
    assert named == ["n4", "n5"]
