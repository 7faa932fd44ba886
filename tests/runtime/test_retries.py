"""Failed host calls that are tried again, wherever they run."""

from __future__ import annotations

import asyncio
import threading

import jax
import jax.numpy as jnp
import pytest

import ember_xcs as xcs
from ember_xcs._runtime.execute import GraphExecutor
from tests.counting import Calls
from tests.runtime.flaky import flaky_in_process

SOON = xcs.Retry(attempts=3, initial_seconds=0.0)
SCHEDULERS = ["sequential", "parallel", "wave", "topological", "adaptive"]


class Flaky:
    """Fails so many times for each argument, and then returns it doubled."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.calls = Calls()
        self._failures, self._error = failures, error or ConnectionError("lost")

    def __call__(self, x: int) -> int:
        self.calls.add(x)
        if self.calls.seen.count(x) <= self._failures:
            raise self._error
        return 2 * x


def graph_of(operator):
    graph = xcs.XCSGraph("flaky")
    graph.add_node(operator, node_id="call")
    return graph


def run(operator, x=3, **options):
    return xcs.execute_graph(graph_of(operator), {"x": x}, options=options)


def host(flaky, *, is_async=False, **settings):
    async def acall(x: int) -> int:
        return flaky(x)

    def call(x: int) -> int:
        return flaky(x)

    return xcs.host(**settings)(acall if is_async else call)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("executor", ["thread", "inline", "async"])
def test_a_failed_call_is_tried_again_until_it_succeeds(executor, scheduler) -> None:
    flaky = Flaky(2)
    operator = host(flaky, is_async=executor == "async", executor=executor)
    result = run(operator, retry=SOON, scheduler=scheduler)
    assert result["call"] == 6
    assert len(flaky.calls) == 3
    assert (result.metrics.attempts, result.metrics.retries) == (3, 2)


def test_a_call_in_a_process_is_tried_again_and_reports_what_it_used(tmp_path) -> None:
    operator = xcs.host(executor="process")(flaky_in_process)
    result = xcs.execute_graph(
        graph_of(operator), {"path": str(tmp_path / "calls")}, options={"retry": SOON}
    )
    assert result["call"] == 3
    assert result.metrics.retries == 2
    assert result.metrics.tokens == 30


@pytest.mark.parametrize("is_async", [False, True])
def test_only_the_elements_of_a_fan_that_failed_are_tried_again(is_async) -> None:
    calls = Calls()

    def odd_ones_fail_once(x: int) -> int:
        calls.add(x)
        if x % 2 and calls.seen.count(x) == 1:
            raise ConnectionError("lost")
        return 2 * x

    async def aodd(x: int) -> int:
        return odd_ones_fail_once(x)

    operator = xcs.host(aodd if is_async else odd_ones_fail_once)
    with xcs.execution_options(retry=SOON):
        doubled = xcs.jit.trace(jax.vmap(operator))(jnp.arange(4))
    assert list(doubled) == [0, 2, 4, 6]
    assert calls.sorted == [0, 1, 1, 2, 3, 3]


def test_a_batch_end_point_is_tried_again_as_a_whole() -> None:
    batches = Calls()

    class Double(xcs.HostOperator):
        retry = SOON

        def forward(self, x: int) -> int:
            raise AssertionError("one by one")

        def forward_batch(self, xs):
            batches.add(len(xs))
            if len(batches) == 1:
                raise ConnectionError("lost")
            return [2 * int(x) for x in xs]

    double = Double()
    assert list(xcs.jit.trace(jax.vmap(double))(jnp.arange(3))) == [0, 2, 4]
    assert batches.seen == [3, 3]


def test_the_last_error_is_the_cause_when_the_attempts_are_used_up() -> None:
    flaky = Flaky(9)
    with pytest.raises(xcs.NodeExecutionError) as caught:
        run(host(flaky), retry=SOON)
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert len(flaky.calls) == 3


def test_errors_of_other_classes_are_not_tried_again() -> None:
    flaky = Flaky(1, KeyError("k"))
    with pytest.raises(xcs.NodeExecutionError):
        run(host(flaky), retry=xcs.Retry(initial_seconds=0.0, retry_on=ConnectionError))
    assert len(flaky.calls) == 1


def test_the_retry_of_the_operator_comes_before_that_of_the_options() -> None:
    flaky = Flaky(1)
    with pytest.raises(xcs.NodeExecutionError):
        run(host(flaky, retry=xcs.Retry(attempts=1)), retry=SOON)
    assert len(flaky.calls) == 1


def test_side_effects_are_tried_again_only_where_the_operator_says_so() -> None:
    flaky = Flaky(1)
    with pytest.raises(xcs.NodeExecutionError):
        run(host(flaky, side_effects=True), retry=SOON)
    assert len(flaky.calls) == 1
    assert run(host(Flaky(1), side_effects=True, retry=SOON))["call"] == 6


def test_a_side_effect_in_a_run_within_is_not_repeated_by_the_call_around_it() -> None:
    flaky = Flaky(1)
    inner = graph_of(host(flaky, side_effects=True))

    @xcs.host
    def outer(x: int) -> int:
        return xcs.execute_graph(inner, {"x": x})["call"]

    with pytest.raises(xcs.NodeExecutionError):
        run(outer, retry=SOON)
    assert len(flaky.calls) == 1


def test_calls_in_a_run_within_are_tried_again_there_and_counted_by_the_run_around() -> None:
    inner = graph_of(host(Flaky(2)))

    @xcs.host
    def outer(x: int) -> int:
        return xcs.execute_graph(inner, {"x": x})["call"]

    result = run(outer, retry=SOON)
    assert result["call"] == 6
    assert (result.metrics.attempts, result.metrics.retries) == (4, 2)


def test_inputs_that_are_not_valid_are_not_tried_again() -> None:
    from pydantic import BaseModel

    class Whole(BaseModel):
        x: int

    class Strict(xcs.HostOperator):
        input_spec = Whole

        def forward(self, x: int) -> int:
            return x

    result = xcs.execute_graph(
        graph_of(Strict()), {"x": "seven"}, options={"retry": SOON, "on_error": "continue"}
    )
    assert isinstance(result.errors["call"].__cause__, xcs.OperatorInputError)
    assert result.metrics.attempts == 1


class Throttled(Exception):
    def __init__(self, retry_after: float) -> None:
        super().__init__("slow down")
        self.retry_after = retry_after


def test_what_a_server_asks_for_is_waited_for() -> None:
    retry = xcs.Retry(attempts=3, initial_seconds=600.0, max_seconds=600.0)
    assert retry.pause(1, Throttled(7.5)) == 7.5
    flaky = Flaky(1, Throttled(0.0))  # a pause of its own would take ten minutes
    assert run(host(flaky), retry=retry)["call"] == 6


def test_a_server_that_asks_for_more_than_the_longest_pause_ends_the_attempts() -> None:
    flaky = Flaky(1, Throttled(31.0))
    with pytest.raises(xcs.NodeExecutionError):
        run(host(flaky), retry=SOON)
    assert len(flaky.calls) == 1


@pytest.mark.parametrize("is_async", [False, True])
def test_no_attempt_begins_after_the_deadline(is_async) -> None:
    flaky = Flaky(9)
    slow = xcs.Retry(attempts=9, initial_seconds=600.0, max_seconds=600.0)
    with pytest.raises(xcs.ExecutionTimeout):
        run(host(flaky, is_async=is_async), retry=slow, timeout_seconds=0.2)
    assert len(flaky.calls) == 1


@pytest.mark.parametrize("is_async", [False, True])
def test_a_cancelled_run_makes_no_further_attempt(is_async) -> None:
    flaky, failed = Flaky(9), threading.Event()

    class Told(Flaky):
        def __call__(self, x: int) -> int:
            failed.set()
            return flaky(x)

    slow = xcs.Retry(attempts=9, initial_seconds=600.0, max_seconds=600.0)
    executor = GraphExecutor(graph_of(host(Told(9), is_async=is_async)), {"retry": slow})

    async def cancel() -> None:
        task = asyncio.create_task(executor.aexecute({"x": 3}))
        await asyncio.to_thread(failed.wait, 30)
        task.cancel()
        await asyncio.wait([task], timeout=30)
        assert task.cancelled()

    asyncio.run(cancel())
    assert len(flaky.calls) == 1


@pytest.mark.parametrize("executor", ["thread", "inline", "async"])
def test_each_attempt_has_the_time_of_its_operator(executor) -> None:
    calls, released = Calls(), threading.Event()

    async def aslow_once(x: int) -> int:
        calls.add(x)
        if len(calls) == 1:
            await asyncio.Event().wait()
        return 2 * x

    def slow_once(x: int) -> int:
        calls.add(x)
        if len(calls) == 1:
            released.wait(30)
        return 2 * x

    function = aslow_once if executor == "async" else slow_once
    operator = xcs.host(executor=executor, timeout=0.2)(function)
    try:
        result = run(operator, retry=SOON)
    finally:
        released.set()
    assert result["call"] == 6
    assert result.metrics.retries == 1


def test_a_call_that_always_takes_too_long_fails_with_its_timeout() -> None:
    released = threading.Event()
    operator = xcs.host(timeout=0.1, retry=xcs.Retry(attempts=2, initial_seconds=0.0))(
        lambda x: released.wait(30)
    )
    try:
        with pytest.raises(xcs.NodeExecutionError) as caught:
            run(operator)
    finally:
        released.set()
    assert isinstance(caught.value.__cause__, xcs.ExecutionTimeout)


def test_what_failed_attempts_used_is_counted() -> None:
    flaky = Flaky(1)

    @xcs.host
    def call(x: int) -> int:
        xcs.record_usage(tokens=10, cost=0.5)
        return flaky(x)

    metrics = run(call, retry=SOON).metrics
    assert (metrics.tokens, metrics.cost) == (20, 1.0)


@pytest.mark.parametrize(
    "settings",
    [
        {"attempts": 0},
        {"attempts": True},
        {"initial_seconds": -1},
        {"multiplier": 0.5},
        {"max_seconds": float("nan")},
        {"retry_on": KeyboardInterrupt},
        {"retry_on": "all"},
    ],
)
def test_settings_that_cannot_be_are_refused(settings) -> None:
    with pytest.raises(xcs.OptionsError, match=next(iter(settings))):
        xcs.Retry(**settings)
