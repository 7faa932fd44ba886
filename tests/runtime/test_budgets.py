"""What runs may spend, and what they end with when it is spent."""

from __future__ import annotations

import asyncio
import threading

import jax
import jax.numpy as jnp
import pytest

import ember_xcs as xcs
from tests.counting import Calls

SCHEDULERS = ["sequential", "parallel", "wave", "topological", "adaptive"]


def chain(calls: Calls, length: int = 5, tokens: int = 0, cost: float | None = 0.0, **settings):
    """A chain of nodes that each add one, and say what they used."""

    @calls.host(**settings)
    def add(x: int) -> int:
        xcs.record_usage(tokens=tokens, cost=cost)
        return x + 1

    graph = xcs.XCSGraph("chain")
    before = None
    for k in range(length):
        node = graph.add_node(add, node_id=f"n{k}")
        if before is not None:
            graph.connect(before, node.inputs["x"])
        before = node
    return graph


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_no_call_beyond_the_budget_is_made(scheduler) -> None:
    calls = Calls()
    options = {"budget": xcs.Budget(calls=3), "scheduler": scheduler}
    with pytest.raises(xcs.BudgetExceeded, match=r"3 calls were made, and it allows 3.*Raise") as e:
        xcs.execute_graph(chain(calls), {"x": 0}, outputs="all", options=options)
    assert len(calls) == 3
    assert e.value.partial_results == {"n0": 1, "n1": 2, "n2": 3}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_partial_results_are_returned_where_wanted(scheduler) -> None:
    result = xcs.execute_graph(
        chain(Calls()),
        {"x": 0},
        outputs="all",
        options={
            "budget": xcs.Budget(calls=3),
            "scheduler": scheduler,
            "return_partial_results": True,
        },
    )
    assert dict(result) == {"n0": 1, "n1": 2, "n2": 3}
    assert not result.complete
    assert result.metrics.attempts == 3


def test_a_run_that_needs_no_more_than_its_budget_ends_well() -> None:
    result = xcs.execute_graph(chain(Calls()), {"x": 0}, options={"budget": xcs.Budget(calls=5)})
    assert result.complete


@pytest.mark.parametrize("budget", [xcs.Budget(tokens=25), xcs.Budget(cost=0.25)])
def test_no_call_is_made_once_tokens_or_money_are_spent(budget) -> None:
    calls = Calls()
    with pytest.raises(xcs.BudgetExceeded):
        xcs.execute_graph(chain(calls, tokens=10, cost=0.1), {"x": 0}, options={"budget": budget})
    assert len(calls) == 3


def test_coroutines_report_and_are_bounded_like_other_calls() -> None:
    made = Calls()

    @xcs.host
    async def ask(x: int) -> int:
        made.add(int(x))
        await asyncio.sleep(0)
        xcs.record_usage(tokens=10)
        return x

    program = xcs.jit.trace(jax.vmap(ask))
    options = {"budget": xcs.Budget(tokens=25), "max_workers": 1}
    with xcs.execution_options(**options), pytest.raises(xcs.BudgetExceeded):
        program(jnp.arange(6))
    assert len(made) == 3


def test_the_budget_of_seconds_is_a_deadline_with_its_own_error() -> None:
    released = threading.Event()
    graph = xcs.XCSGraph("slow")
    graph.add_node(xcs.host(lambda x: x), node_id="fast")
    slow = graph.add_node(xcs.host(lambda y: released.wait(30)), node_id="slow")
    graph.connect("fast", slow.inputs["y"])
    try:
        with pytest.raises(xcs.BudgetExceeded, match=r"0\.2 s") as caught:
            xcs.execute_graph(
                graph, {"x": 7}, outputs="all", options={"budget": xcs.Budget(seconds=0.2)}
            )
    finally:
        released.set()
    assert caught.value.partial_results == {"fast": 7}


def nested(calls: Calls, **inner_options):
    inner = chain(calls, tokens=10)

    @xcs.host
    def outer(x: int) -> int:
        return xcs.execute_graph(inner, {"x": x}, options=inner_options)["n4"]

    graph = xcs.XCSGraph("outer")
    graph.add_node(outer, node_id="outer")
    return graph


@pytest.mark.parametrize(("budget", "made"), [({"calls": 3}, 2), ({"tokens": 25}, 3)])
@pytest.mark.parametrize("on_error", ["raise", "continue"])
def test_runs_within_a_run_spend_from_its_budget(budget, made, on_error) -> None:
    calls = Calls()
    options = {"budget": xcs.Budget(**budget), "on_error": on_error}
    with pytest.raises(xcs.BudgetExceeded, match="'outer'"):
        xcs.execute_graph(nested(calls), {"x": 0}, options=options)
    assert len(calls) == made


def test_the_budget_of_a_run_within_fails_the_call_that_began_it() -> None:
    calls = Calls()
    with pytest.raises(xcs.NodeExecutionError) as caught:
        xcs.execute_graph(
            nested(calls, budget=xcs.Budget(calls=2)),
            {"x": 0},
            options={"retry": xcs.Retry(initial_seconds=0.0)},
        )
    assert isinstance(caught.value.__cause__, xcs.BudgetExceeded)
    assert len(calls) == 2


def test_what_runs_within_used_is_in_the_metrics_of_the_run_around() -> None:
    metrics = xcs.execute_graph(
        nested(Calls()), {"x": 0}, options={"collect_metrics": True}
    ).metrics
    assert (metrics.attempts, metrics.tokens) == (6, 50)


def test_going_on_after_errors_does_not_swallow_a_spent_budget() -> None:
    with pytest.raises(xcs.BudgetExceeded):
        xcs.execute_graph(
            chain(Calls()),
            {"x": 0},
            options={"budget": xcs.Budget(calls=2), "on_error": "continue"},
        )


def test_further_attempts_are_calls() -> None:
    calls = Calls()

    @calls.host(retry=xcs.Retry(attempts=9, initial_seconds=0.0))
    def fail(x: int) -> int:
        raise ConnectionError("lost")

    graph = xcs.XCSGraph("failing")
    graph.add_node(fail, node_id="fail")
    with pytest.raises(xcs.BudgetExceeded):
        xcs.execute_graph(graph, {"x": 0}, options={"budget": xcs.Budget(calls=4)})
    assert len(calls) == 4


def test_a_price_that_is_not_known_makes_the_cost_unknown() -> None:
    result = xcs.execute_graph(
        chain(Calls(), tokens=1, cost=None), {"x": 0}, options={"collect_metrics": True}
    )
    assert result.metrics.tokens == 5
    assert result.metrics.cost is None


def test_the_async_twin_has_the_same_budget() -> None:
    calls = Calls()
    with pytest.raises(xcs.BudgetExceeded):
        asyncio.run(
            xcs.aexecute_graph(chain(calls), {"x": 0}, options={"budget": xcs.Budget(calls=3)})
        )
    assert len(calls) == 3


@pytest.mark.parametrize(
    "settings", [{"calls": -1}, {"calls": 1.5}, {"tokens": True}, {"cost": float("nan")}]
)
def test_settings_that_cannot_be_are_refused(settings) -> None:
    with pytest.raises(xcs.OptionsError, match=next(iter(settings))):
        xcs.Budget(**settings)
