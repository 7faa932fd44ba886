"""The result cache as runs use it: which calls are answered from it, and which are made."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ember_xcs as xcs
from ember_xcs._runtime import memory
from tests.counting import Calls

SCHEDULERS = ["sequential", "parallel", "wave", "topological", "adaptive"]


def graph_of(operator, copies: int = 1):
    graph = xcs.XCSGraph("cached")
    for k in range(copies):
        graph.add_node(operator, node_id=f"n{k}")
    return graph


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_deterministic_call_is_made_once(scheduler, on_disk, tmp_path) -> None:
    calls = Calls()
    graph = graph_of(calls.host(lambda x: [x], deterministic=True))
    with xcs.ResultCache(tmp_path / "cache" if on_disk else None) as cache:
        options = {"cache": cache, "scheduler": scheduler}
        results = [xcs.execute_graph(graph, {"x": 3}, options=options) for _ in range(3)]
        assert [result["n0"] for result in results] == [[3]] * 3
        assert [result.metrics.cache_hits for result in results] == [0, 1, 1]
        xcs.execute_graph(graph, {"x": 4}, options=options)
    assert calls.seen == [3, 4]


@pytest.mark.parametrize("settings", [{}, {"deterministic": True, "side_effects": True}])
def test_other_calls_are_made_each_time(settings) -> None:
    calls = Calls()
    graph = graph_of(calls.host(lambda x: x, **settings))
    cache = xcs.ResultCache()
    for _ in range(2):
        xcs.execute_graph(graph, {"x": 3}, options={"cache": cache})
    assert calls.seen == [3, 3]


@dataclasses.dataclass
class Point:
    x: int
    y: np.ndarray


ARGUMENTS = [
    (np.arange(6.0).reshape(2, 3), np.arange(6.0).reshape(3, 2)),
    (jnp.arange(3, dtype=jnp.bfloat16), jnp.arange(3, dtype=jnp.float32)),
    (Point(1, np.zeros(2)), Point(1, np.ones(2))),
    ({"a": [1, (2, 3)]}, {"a": [1, [2, 3]]}),
    (1, 1.0),
]


@pytest.mark.parametrize(("one", "other"), ARGUMENTS)
def test_arguments_are_told_apart_by_their_content(one, other) -> None:
    calls = Calls()
    graph = graph_of(calls.host(lambda x: 1, deterministic=True))
    cache = xcs.ResultCache()
    for value in (one, other, jax.tree.map(lambda leaf: leaf, one)):
        xcs.execute_graph(graph, {"x": value}, options={"cache": cache})
    assert len(calls) == 2


def test_a_changed_result_is_not_seen_by_the_next() -> None:
    graph = graph_of(xcs.host(deterministic=True)(lambda x: {"list": [x], "array": np.ones(2)}))
    cache = xcs.ResultCache()
    for _ in range(3):
        result = xcs.execute_graph(graph, {"x": 3}, options={"cache": cache})["n0"]
        assert result["list"] == [3]
        assert result["array"].tolist() == [1, 1]
        result["list"].append(4)
        if result["array"].flags.writeable:
            result["array"][0] = 9


class Told(threading.Event):
    """An event that operators may close over: no result depends on it."""

    def __xcs_identity__(self) -> str:
        return "told"


class Shared:
    """A call that waits until so many equal ones wait for it."""

    def __init__(self, monkeypatch, followers: int) -> None:
        self.calls, self.everybody = Calls(), Told()
        self._left, lock = [followers], threading.Lock()
        join = memory.Remembered.join

        def counted(remembered):
            flight = join(remembered)
            if flight is not None:
                with lock:
                    self._left[0] -= 1
                if self._left[0] <= 0:
                    self.everybody.set()
            return flight

        monkeypatch.setattr(memory.Remembered, "join", counted)

    def __xcs_identity__(self) -> str:
        return "shared"

    def operator(self, function, *, is_async: bool):
        def call(x: int) -> int:
            self.calls.add(x)
            assert self.everybody.wait(30)
            return function(x)

        async def acall(x: int) -> int:
            self.calls.add(x)
            while not self.everybody.is_set():  # noqa: ASYNC110  (told by threads)
                await asyncio.sleep(0.001)
            return function(x)

        return xcs.host(deterministic=True)(acall if is_async else call)


@pytest.mark.parametrize("is_async", [False, True])
def test_equal_calls_at_the_same_time_are_made_once(is_async, monkeypatch) -> None:
    shared = Shared(monkeypatch, followers=4)
    operator = shared.operator(lambda x: int(x) + 1, is_async=is_async)
    program = xcs.jit.trace(jax.vmap(operator))
    with xcs.execution_options(cache=xcs.ResultCache()):
        assert list(program(jnp.zeros(5, int))) == [1] * 5
    assert len(shared.calls) == 1


@pytest.mark.parametrize("is_async", [False, True])
def test_errors_are_shared_and_not_kept(is_async, monkeypatch) -> None:
    shared = Shared(monkeypatch, followers=2)

    def fail(x: int) -> int:
        raise ValueError("no")

    graph = graph_of(shared.operator(fail, is_async=is_async), copies=3)
    options = {
        "cache": xcs.ResultCache(),
        "on_error": "continue",
        "scheduler": "parallel",
        "passes": (),
    }
    result = xcs.execute_graph(graph, {"x": 3}, options=options)
    assert {type(error.__cause__) for error in result.errors.values()} == {ValueError}
    assert len(result.errors) == 3
    assert len(shared.calls) == 1
    xcs.execute_graph(graph_of(graph.nodes["n0"].operator), {"x": 3}, options=options)
    assert len(shared.calls) == 2


def test_a_cancelled_call_does_not_take_those_with_it_that_wait_for_it(monkeypatch) -> None:
    calls, entered = Calls(), Told()
    shared = Shared(monkeypatch, followers=1)

    @xcs.host(deterministic=True)
    async def hang_once(x: int) -> int:
        calls.add(x)
        if len(calls) == 1:
            entered.set()
            await asyncio.Event().wait()
        return x + 1

    graph, options = graph_of(hang_once), {"cache": xcs.ResultCache()}

    async def play() -> int:
        leader = asyncio.create_task(xcs.aexecute_graph(graph, {"x": 1}, options=options))
        await asyncio.to_thread(entered.wait, 30)
        follower = asyncio.create_task(xcs.aexecute_graph(graph, {"x": 1}, options=options))
        await asyncio.to_thread(shared.everybody.wait, 30)
        leader.cancel()
        return (await asyncio.wait_for(follower, 30))["n0"]

    assert asyncio.run(play()) == 2
    assert len(calls) == 2


def test_a_leader_without_budget_does_not_take_those_with_it_that_wait(monkeypatch) -> None:
    shared = Shared(monkeypatch, followers=1)
    calls = Calls()

    @xcs.host(deterministic=True, retry=xcs.Retry(initial_seconds=0.0))
    def fail_once(x: int) -> int:
        calls.add(x)
        if len(calls) == 1:
            assert shared.everybody.wait(30)
            raise ConnectionError("lost")
        return x + 1

    graph, cache = graph_of(fail_once), xcs.ResultCache()
    errors: list[BaseException] = []

    def lead() -> None:
        try:
            xcs.execute_graph(
                graph, {"x": 1}, options={"cache": cache, "budget": xcs.Budget(calls=1)}
            )
        except xcs.BudgetExceeded as error:
            errors.append(error)

    leader = threading.Thread(target=lead)
    leader.start()
    while not len(calls):
        leader.join(0.001)
    assert xcs.execute_graph(graph, {"x": 1}, options={"cache": cache})["n0"] == 2
    leader.join(30)
    assert len(errors) == 1
    assert len(calls) == 2


def test_results_that_cannot_be_stored_are_said_once_and_made_each_time() -> None:
    calls = Calls()
    graph = graph_of(calls.host(lambda x: threading.Lock(), deterministic=True), copies=3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        xcs.execute_graph(graph, {"x": 3}, options={"cache": xcs.ResultCache(), "passes": ()})
    assert len(calls) == 3
    assert len(caught) == 1


def test_only_the_rows_of_a_batch_that_are_not_known_are_asked_for() -> None:
    batches = Calls()

    class Double(xcs.HostOperator):
        deterministic = True

        def forward(self, x: int) -> int:
            return 2 * x

        def forward_batch(self, xs):
            batches.add([int(x) for x in xs])
            return [2 * int(x) for x in xs]

    double = Double()
    program = xcs.jit.trace(jax.vmap(double))
    with xcs.execution_options(cache=xcs.ResultCache()):
        assert list(program(jnp.array([1, 3]))) == [2, 6]
        assert list(program(jnp.array([0, 1, 2, 3]))) == [0, 2, 4, 6]
    assert batches.seen == [[1, 3], [0, 2]]


def test_a_call_answered_from_the_cache_spends_nothing() -> None:
    graph, cache = graph_of(xcs.host(deterministic=True)(lambda x: x)), xcs.ResultCache()
    xcs.execute_graph(graph, {"x": 3}, options={"cache": cache})
    options = {"cache": cache, "budget": xcs.Budget(calls=0)}
    assert xcs.execute_graph(graph, {"x": 3}, options=options)["n0"] == 3


def test_a_run_within_a_call_has_its_own_cache_where_it_is_given_one() -> None:
    outer, inner = xcs.ResultCache(), xcs.ResultCache()

    @xcs.host(deterministic=True)
    def double(x: float) -> float:
        return 2 * x

    @xcs.host
    def nested(x: float) -> float:
        within = xcs.jit(lambda y: double(y), options={"cache": inner})  # noqa: PLW0108
        return float(within(x))

    with xcs.execution_options(cache=outer):
        assert xcs.jit(lambda x: nested(x))(3.0) == 6.0  # noqa: PLW0108
    assert (len(inner), len(outer)) == (1, 0)
