"""LLMOperator: in plain code, in graphs, under jit and vmap, with retries and metrics."""

import asyncio
import threading
import time

import jax
import jax.numpy as jnp
import pytest

import ember_xcs as xcs
from ember_xcs import models
from ember_xcs.models import LLMOperator, MockModel, ModelResponse


class Blocking:
    """A model without a coroutine function."""

    name = "blocking"

    def __init__(self, latency_seconds=0.0):
        self._mock = MockModel(responses=str.upper, latency_seconds=latency_seconds)

    def generate(self, request):
        return self._mock.generate(request)


class Batching(MockModel):
    """A model with a plain batch end point."""

    def __init__(self, **kwargs):
        super().__init__(responses=str.upper, **kwargs)
        self.batches = []

    def generate_batch(self, requests):
        self.batches.append([request.prompt for request in requests])
        return [self.generate(request) for request in requests]


class BatchingLater(Batching):
    """A model with a batch end point that is awaited."""

    async def generate_batch(self, requests):
        return super().generate_batch(requests)


MODELS = [lambda: MockModel(responses=str.upper), Blocking, Batching, BatchingLater]
each_kind = pytest.mark.parametrize("make", MODELS, ids=["async", "blocking", "batch", "abatch"])


@each_kind
def test_a_plain_call_fills_the_template_and_returns_the_text(make):
    ask = LLMOperator(make(), xcs.Template("Q: {q}? {n:03d}"))
    assert ask(q="why", n=7) == ask("why", 7) == "Q: WHY? 007"


@each_kind
def test_its_inputs_are_those_of_the_template(make):
    ask = LLMOperator(make(), "{b} {a} {b}")
    assert ask.signature.names == ("b", "a")
    with pytest.raises(xcs.OperatorInputError, match=r"takes \(b, a\): missing"):
        ask("only b")


def test_without_a_template_the_prompt_is_the_input():
    assert LLMOperator(MockModel(responses=str.upper))("{as it is}") == "{AS IT IS}"


def test_inside_a_running_loop_it_is_awaited():
    ask = LLMOperator(MockModel(responses=str.upper), "{q}")

    async def main():
        return await asyncio.gather(*(ask(q) for q in "abc"))

    assert asyncio.run(main()) == ["A", "B", "C"]


@each_kind
def test_in_a_graph_answers_feed_prompts(make):
    graph = xcs.XCSGraph("talk")
    first = graph.add_node(LLMOperator(make(), "{q}!", name="first"))
    second = graph.add_node(LLMOperator(make(), "({text})", name="second"))
    graph.add_edge(first, second)
    assert xcs.execute_graph(graph, {"q": "yes"})["second"] == "(YES!)"


@each_kind
def test_vmap_over_prompts_gives_an_answer_for_each(make):
    ask = LLMOperator(make(), "{q} {n}")
    answers = xcs.vmap(ask, in_axes=(0, None))(["a", "b", "c"], 5)
    assert answers == ["A 5", "B 5", "C 5"]


@pytest.mark.parametrize("make", [MockModel, Blocking], ids=["async", "blocking"])
def test_calls_of_a_batch_overlap(make):
    ask = LLMOperator(make(latency_seconds=0.1), "{k}")
    batched = xcs.jit.trace(jax.vmap(ask))
    begun = time.monotonic()
    assert len(batched(jnp.arange(20))) == 20
    assert time.monotonic() - begun < 1.0  # one after another they take 2 s


@pytest.mark.parametrize("make", [Batching, BatchingLater])
def test_a_batch_goes_to_the_batch_end_point_together(make):
    model = make()
    ask = LLMOperator(model, "{k}", max_batch_size=4)
    batched = xcs.jit.trace(jax.vmap(ask))
    assert batched(jnp.arange(6)) == ["0", "1", "2", "3", "4", "5"]
    assert sorted(model.batches) == [["0", "1", "2", "3"], ["4", "5"]]


def test_calls_wait_for_one_another_as_long_as_the_operator_says():
    model = Batching()
    ask = LLMOperator(model, "{k}", batch_window_seconds=60.0)

    @xcs.host
    def slow(text: str) -> str:
        early.wait(30)  # the other call is ready, and waits
        return text

    early = threading.Event()
    opened = xcs.host(lambda text: (early.set(), text)[1])
    both = xcs.jit.trace(lambda a, b: (ask(opened(a)), ask(slow(b))))
    assert both("x", "y") == ("X", "Y")
    assert sorted(model.batches[0]) == ["x", "y"]


def test_there_is_no_waiting_without_a_batch_end_point():
    with pytest.raises(xcs.OptionsError, match="'mock' has no generate_batch"):
        LLMOperator(MockModel(), "{k}", batch_window_seconds=1.0)


def test_an_ensemble_makes_a_call_for_each_sample():
    model = MockModel(responses=["x", "y", "z"])
    assert sorted(xcs.Ensemble(LLMOperator(model, "{q}"), 3)("Why?")) == ["x", "y", "z"]
    assert [call.prompt for call in model.calls] == ["Why?"] * 3


def test_samples_of_a_jitted_ensemble_are_not_merged():
    model = MockModel(responses=["x", "y", "z"])
    sample = xcs.jit(xcs.Ensemble(LLMOperator(model, "{q}"), 3))
    assert sorted(sample("Why?")) == ["x", "y", "z"]


@each_kind
def test_tokens_and_cost_are_in_the_metrics(make):
    class Priced:
        name = "priced"

        def __init__(self, inner):
            self.generate_calls, self.inner = 0, inner

        def generate(self, request):
            return self.inner.generate(request).model_copy(update={"cost": 0.25})

    graph = xcs.XCSGraph("two")
    for name in ("one", "two"):
        graph.add_node(LLMOperator(Priced(make()), "a b {q}", name=name), name)
    metrics = xcs.execute_graph(graph, {"q": "c"}, options={"collect_metrics": True}).metrics
    assert (metrics.tokens, metrics.cost, metrics.attempts) == (12, 0.5, 2)


def test_failures_are_tried_again_as_the_options_say():
    answers = [xcs.ServiceUnavailable("down"), xcs.RateLimited("wait", retry_after=0.01), "yes"]
    model = MockModel(responses=answers)
    graph = xcs.XCSGraph("ask")
    graph.add_node(LLMOperator(model, "{q}"), "ask")
    with xcs.execution_options(retry=xcs.Retry(attempts=3, initial_seconds=0.01)):
        result = xcs.execute_graph(graph, {"q": "?"}, options={"collect_metrics": True})
    assert result["ask"] == "yes"
    assert (result.metrics.attempts, result.metrics.retries) == (3, 2)


def test_a_failing_mock_answers_in_the_end():
    ask = LLMOperator(MockModel(failure_rate=0.5, seed=1), "{k}")
    with xcs.execution_options(retry=xcs.Retry(attempts=30, initial_seconds=0.001)):
        answers = xcs.jit.trace(jax.vmap(ask))(jnp.arange(30))
    expected = [MockModel(seed=1).generate(str(k)).text for k in range(30)]
    assert answers == expected


def test_a_refused_key_is_not_tried_again():
    model = MockModel(responses=[xcs.AuthenticationFailed("no key"), "never"])
    graph = xcs.XCSGraph("ask")
    graph.add_node(LLMOperator(model, "{q}", retry=xcs.Retry(5, 0.001)), "ask")
    with pytest.raises(xcs.NodeExecutionError) as caught:
        xcs.execute_graph(graph, {"q": "?"})
    assert isinstance(caught.value.__cause__, xcs.AuthenticationFailed)
    assert len(model.calls) == 1


def test_limits_are_those_of_the_model_by_its_name():
    model = MockModel(latency_seconds=0.05, name="narrow")
    ask = LLMOperator(models.instance(model, top_p=1), "{k}")
    batched = xcs.jit.trace(jax.vmap(ask))
    begun = time.monotonic()
    with xcs.execution_options(limits={"narrow": xcs.Limit(concurrency=2)}):
        batched(jnp.arange(8))
    assert time.monotonic() - begun >= 4 * 0.05
    with xcs.execution_options(limits={"narrow": xcs.Limit()}):  # a resource keeps its limit
        batched(jnp.arange(8))


def test_a_deterministic_call_is_answered_from_the_cache():
    model = MockModel()
    graph = xcs.XCSGraph("ask")
    graph.add_node(LLMOperator(model, "{q}", deterministic=True), "ask")
    with xcs.execution_options(cache=xcs.ResultCache()):
        first, second = (xcs.execute_graph(graph, {"q": "?"})["ask"] for _ in range(2))
    assert first == second
    assert len(model.calls) == 1


def test_a_call_that_is_not_said_to_be_deterministic_is_made_again():
    model = MockModel()
    graph = xcs.XCSGraph("ask")
    graph.add_node(LLMOperator(model, "{q}"), "ask")
    with xcs.execution_options(cache=xcs.ResultCache()):
        for _ in range(2):
            xcs.execute_graph(graph, {"q": "?"})
    assert len(model.calls) == 2


def test_a_registered_name_is_a_model():
    assert LLMOperator("mock", "{q}")("?") == MockModel().generate("?").text


def test_an_error_of_a_run_does_not_show_the_prompt():
    graph = xcs.XCSGraph("ask")
    graph.add_node(LLMOperator(MockModel(failure_rate=1.0), "{q}"), "ask")
    with pytest.raises(xcs.NodeExecutionError) as caught:
        xcs.execute_graph(graph, {"q": "my secret"})
    assert "my secret" not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"


@pytest.mark.parametrize(
    ("answer", "message"),
    [("text", "returned a str"), (ModelResponse(text="a", model="m"), "returned 1 responses")],
)
def test_a_model_that_returns_something_else_is_an_error(answer, message):
    class Odd:
        def generate(self, _request):
            return answer

        def generate_batch(self, _requests):
            return [answer]

    ask = LLMOperator(Odd(), "{q}")
    with pytest.raises(xcs.NodeExecutionError, match=message):
        xcs.jit.trace(jax.vmap(ask))(jnp.arange(3))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"output": dict}, "is to be a pydantic model"),
        ({"answers": 0}, "answers=0"),
        ({"prompt": 3}, "Template takes a text"),
        ({"timeout": -1}, "timeout=-1"),
    ],
)
def test_bad_arguments_are_refused(wrong, message):
    with pytest.raises((TypeError, xcs.OptionsError), match=message):
        LLMOperator(MockModel(), **wrong)


def test_replace_gives_another_prompt_to_the_same_model():
    ask = LLMOperator(MockModel(responses=str.upper), "a {q}")
    assert ask.replace(prompt=xcs.Template("b {q}"))("c") == "B C"
