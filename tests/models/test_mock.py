"""MockModel: what it answers follows from its seed and the prompt, or is given."""

import asyncio
import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import ember_xcs as xcs
from ember_xcs import models
from ember_xcs.models import MockModel, ModelRequest


def test_equal_seeds_and_prompts_give_equal_answers():
    assert MockModel(seed=3).generate("Why?") == MockModel(seed=3).generate("Why?")


@pytest.mark.parametrize(
    ("model", "prompt"), [(MockModel(seed=4), "Why?"), (MockModel(seed=3), "How?")]
)
def test_another_seed_or_prompt_gives_another_answer(model, prompt):
    assert model.generate(prompt).text != MockModel(seed=3).generate("Why?").text


def test_it_remembers_what_it_was_asked():
    model = MockModel()
    model.generate("first")
    asyncio.run(model.agenerate(ModelRequest(prompt="second", params={"top_p": 0.5})))
    assert [(r.prompt, r.params) for r in model.calls] == [
        ("first", {}),
        ("second", {"top_p": 0.5}),
    ]


def test_a_chat_is_a_request():
    model = MockModel(responses=str.upper)
    chat = [{"role": "system", "content": "Shout."}, {"role": "user", "content": "yes"}]
    assert model.generate(chat).text == "YES"


def test_a_list_is_given_in_turn_and_then_there_is_an_error():
    model = MockModel(responses=["one", "two"])
    assert [model.generate("a").text, model.generate("b").text] == ["one", "two"]
    with pytest.raises(xcs.InvalidRequest, match="has 2 responses, and was asked once more"):
        model.generate("c")


def test_a_dict_is_by_prompt():
    model = MockModel(responses={"a": "one", "b": ["two", "three"]})
    assert [model.generate(p).text for p in "bab"] == ["two", "one", "three"]


def test_a_prompt_that_the_dict_lacks_is_an_error_that_does_not_show_it():
    with pytest.raises(xcs.InvalidRequest) as caught:
        MockModel(responses={"a": "one"}).generate("my secret")
    assert "responses for 1 prompts" in str(caught.value)
    assert "my secret" not in repr(caught.value)


def test_an_exception_among_the_responses_is_raised():
    model = MockModel(responses=[xcs.RateLimited("slow down", "mock", 429, 0.5), "ok"])
    with pytest.raises(xcs.RateLimited) as caught:
        model.generate("a")
    assert (caught.value.status, caught.value.retry_after) == (429, 0.5)
    assert model.generate("a").text == "ok"


def test_failures_are_the_same_each_time_and_near_the_rate():
    def failed(seed):
        model, found = MockModel(seed=seed, failure_rate=0.3), []
        for k in range(1000):
            try:
                model.generate(f"prompt {k}")
            except xcs.ServiceUnavailable:
                found.append(k)
        return found

    first = failed(1)
    assert first == failed(1)
    assert first != failed(2)
    assert 250 < len(first) < 350


def test_another_attempt_of_a_prompt_may_succeed():
    model = MockModel(failure_rate=0.5)
    outcomes = []
    for _ in range(20):
        try:
            outcomes.append(model.generate("a").text)
        except xcs.ServiceUnavailable:
            outcomes.append(None)
    assert None in outcomes
    assert len(set(outcomes)) == 2


def test_tokens_are_words_and_cost_what_the_price_says():
    model = MockModel(responses=["one two three"], price=(1e6, 2e6))
    response = model.generate("a b c d")
    assert (response.usage.prompt_tokens, response.usage.completion_tokens) == (4, 3)
    assert response.cost == 4 * 1 + 3 * 2


def test_threads_share_a_list_without_loss():
    model = MockModel(responses=[str(k) for k in range(500)])
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda k: model.generate(str(k)).text, range(500)))
    assert sorted(answers, key=int) == [str(k) for k in range(500)]


def test_its_latency_is_waited_for():
    model = MockModel(latency_seconds=0.05)
    begun = time.monotonic()
    assert model.generate("a").latency_seconds == 0.05
    assert time.monotonic() - begun >= 0.05


def test_it_survives_a_pickle():
    model = pickle.loads(pickle.dumps(MockModel(seed=7)))
    assert model.generate("a") == MockModel(seed=7).generate("a")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"failure_rate": 1.5}, "failure_rate=1.5"),
        ({"latency_seconds": -1}, "latency_seconds=-1"),
        ({"responses": "text"}, "responses is a list"),
    ],
)
def test_bad_arguments_are_refused(wrong, message):
    with pytest.raises((TypeError, ValueError), match=message):
        MockModel(**wrong)


def test_it_is_a_model():
    assert isinstance(MockModel(), models.ModelAPI)
