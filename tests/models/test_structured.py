"""Answers as records: read, sent back where they are not valid, and used as numbers."""

import jax
import jax.numpy as jnp
import pytest
from pydantic import BaseModel, Field

import ember_xcs as xcs
from ember_xcs import models
from ember_xcs.models import LLMOperator, MockModel


class Verdict(BaseModel):
    score: float = Field(ge=0)
    why: str


GOOD = '{"score": 0.5, "why": "so"}'


@pytest.mark.parametrize(
    "answer",
    [
        GOOD,
        f"\n {GOOD} \n",
        f"```json\n{GOOD}\n```",
        f"Here it is:\n```\n{GOOD}\n```\nDone.",
        f"```JSON \r\n{GOOD}```",
    ],
)
def test_json_is_read_as_it_is_or_within_a_fence(answer):
    judge = LLMOperator(MockModel(responses=[answer]), "{text}", Verdict)
    assert judge("a") == Verdict(score=0.5, why="so")


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("no json", "Invalid JSON"),
        ('{"score": 1}', "why: Field required"),
        ('{"score": -1, "why": ""}', "score: Input should be greater than or equal to 0"),
        ('{"score": "much", "why": ""}', "score: Input should be a valid number"),
        ("[]", "Input should be an object"),
    ],
)
def test_an_answer_that_is_not_valid_is_sent_back_with_what_is_wrong(bad, problem):
    model = MockModel(responses=[bad, GOOD])
    assert LLMOperator(model, "{text}", Verdict)("a").score == 0.5
    first, second = (call.chat for call in model.calls)
    assert [m["role"] for m in second] == ["system", "user", "assistant", "user"]
    assert second[:2] == first
    assert second[2]["content"] == bad
    assert problem in second[3]["content"]


def test_the_model_is_told_the_schema():
    model = MockModel(responses=[GOOD])
    LLMOperator(model, "{text}", Verdict)("a")
    system, user = model.calls[0].chat
    assert '"score"' in system["content"]
    assert user == {"role": "user", "content": "a"}


def test_after_so_many_answers_there_is_an_error_that_shows_neither_prompt_nor_answer():
    model = MockModel(responses=lambda prompt: "my nonsense")
    judge = LLMOperator(model, "{text}", Verdict, answers=4)
    with pytest.raises(xcs.ResponseInvalid, match=r"none is a valid Verdict: .*Invalid JSON") as e:
        judge("my secret")
    assert len(model.calls) == 4
    shown = f"{e.value!r} {e.value.__cause__!r} {e.value.__context__!r}"
    assert "my nonsense" not in shown
    assert "my secret" not in shown


def test_all_answers_are_counted_also_those_that_were_sent_back():
    model = MockModel(responses=["one two three", GOOD])
    graph = xcs.XCSGraph("judge")
    graph.add_node(LLMOperator(model, "{text}", Verdict), "judge")
    metrics = xcs.execute_graph(graph, {"text": "a"}, options={"collect_metrics": True}).metrics
    separately = MockModel(responses=["one two three", GOOD])
    expected = sum(separately.generate(call).usage.tokens for call in model.calls)
    assert (metrics.attempts, metrics.tokens) == (1, expected)


def test_a_numeric_field_chooses_among_answers():
    draft = LLMOperator(MockModel(responses=lambda p: p[-1] * 2), "{q} {k}", name="draft")
    scores = {"00": 0.1, "11": 0.9, "22": 0.3}
    judge = LLMOperator(
        MockModel(responses=lambda text: f'{{"score": {scores[text]}, "why": "for {text}"}}'),
        "{text}",
        Verdict,
        name="judge",
    )

    @xcs.jit.trace
    def best_of_three(question):
        answers = jax.vmap(lambda k: draft(question, k))(jnp.arange(3))
        verdicts = jax.vmap(judge)(answers)
        best = jnp.argmax(verdicts.score)
        return answers[best], verdicts.why[best], jnp.sum(verdicts.score)

    answer, why, total = best_of_three("Why?")
    assert (answer, why) == ("11", "for 11")
    assert total == pytest.approx(1.3)


def test_fields_of_the_record_are_outputs_of_the_node():
    graph = xcs.XCSGraph("judge")
    judge = graph.add_node(LLMOperator(MockModel(responses=[GOOD]), "{text}", Verdict), "judge")
    double = graph.add_node(xcs.pure(lambda x: 2 * x), "double")
    graph.connect(judge.outputs["score"], double.inputs["x"])
    assert xcs.execute_graph(graph, {"text": "a"})["double"] == 1.0


@pytest.mark.parametrize("is_async", [False, True])
def test_of_a_batch_only_what_is_not_valid_is_asked_again(is_async):
    class Batching(MockModel):
        sizes = ()

        def generate_batch(self, requests):
            self.sizes += (len(requests),)
            return [self.generate(request) for request in requests]

    class BatchingLater(Batching):
        async def generate_batch(self, requests):
            return super().generate_batch(requests)

    responses = {"0": GOOD, "1": ["bad", GOOD], "2": ["bad", "bad", GOOD]}
    model = (BatchingLater if is_async else Batching)(responses=_by_history(responses))
    judge = LLMOperator(model, "{k}", Verdict)
    scores = xcs.jit.trace(lambda ks: jax.vmap(judge)(ks).score)(jnp.arange(3))
    assert scores.tolist() == [0.5] * 3
    assert model.sizes == (3, 2, 1)


def _by_history(responses):
    """The answers by first prompt and how often it was asked; a reply says so itself."""
    asked = []

    def answer(prompt):
        if prompt in responses:
            asked.append(prompt)
            given = responses[prompt]
            return given if isinstance(given, str) else given[0]
        turn = len(asked)  # replies come in the order of the prompts: to 1 and 2, then to 2
        asked.append("reply")
        return {3: GOOD, 4: "bad", 5: GOOD}[turn]

    return answer


def test_parameters_of_an_instance_go_with_each_request():
    model = MockModel(responses=["bad", GOOD])
    LLMOperator(models.instance(model, temperature=0.2), "{text}", Verdict)("a")
    assert [call.params for call in model.calls] == [{"temperature": 0.2}] * 2
