"""Models by name, requests and responses, and what the package costs to import."""

import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pydantic
import pytest

import ember_xcs as xcs
from ember_xcs import models
from ember_xcs._core.usage import Meter, metering


@pytest.fixture
def registered(monkeypatch):
    """A model that is registered as "one" for this test."""
    monkeypatch.setattr("ember_xcs.models._registry._entries", {})
    model = models.MockModel(responses=str.upper, price=(1e6, 1e6))
    models.register("one", lambda: model)
    return model


def test_the_package_is_called_with_a_name_and_a_prompt(registered):
    response = models("one", "yes", temperature=0.5)
    assert (response.text, str(response)) == ("YES", "YES")
    assert registered.calls[0].params == {"temperature": 0.5}


def test_it_is_an_attribute_of_the_facade():
    assert xcs.models is models


def test_importing_the_library_loads_neither_models_nor_pydantic_nor_a_client():
    code = (
        "import sys, ember_xcs; print(*[m for m in ('ember_xcs.models', 'pydantic', 'openai', "
        "'aiohttp') if m in sys.modules]); ember_xcs.models.MockModel(); "
        "print(*[m for m in ('openai', 'aiohttp') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_a_call_reports_what_was_used_once(registered):
    with metering(Meter()) as meter:
        models("one", "a b")
        models.instance(registered).generate("not counted: whoever generates, reports")
    assert (meter.usage.tokens, meter.usage.cost) == (4, 4.0)


def test_bound_parameters_yield_to_those_of_the_call_and_the_request(registered):
    poet = models.instance("one", temperature=0.7, top_p=1)
    poet("a", temperature=0.1)
    poet.generate(models.ModelRequest(prompt="b", params={"top_p": 0}))
    assert [call.params for call in registered.calls] == [
        {"temperature": 0.1, "top_p": 1},
        {"temperature": 0.7, "top_p": 0},
    ]


def test_available_names_are_sorted(registered):
    models.register("another", lambda: registered)
    assert models.available() == ("another", "one")


def test_an_unknown_name_is_an_error_with_a_suggestion(registered):
    with pytest.raises(xcs.OptionsError, match="no model is registered as 'onee'; did you mean"):
        models("onee", "Why?")


def test_a_factory_is_called_once_though_many_threads_ask(registered):
    made, together = [], threading.Barrier(8)

    def factory():
        made.append(1)
        return registered

    models.register("late", factory)

    def ask(_):
        together.wait()
        return models("late", "a").text

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {"A"}
    assert made == [1]


def test_a_name_can_be_given_anew(registered):
    models.register("one", lambda: models.MockModel(responses=["other"]))
    assert models("one", "a").text == "other"


@pytest.mark.parametrize("wrong", [models.MockModel(), None])
def test_what_is_no_factory_is_refused(wrong):
    with pytest.raises(TypeError, match="takes a function that returns the model"):
        models.register("x", wrong)


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match="object is not a model"):
        models.instance(object())


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"prompt": "my secret", "messages": [{"role": "user", "content": "my secret"}]},
        {"messages": [{"content": "my secret"}]},
        {"prompt": "my secret", "unknown": {}},
        {"prompt": "my secret", "params": {"stop": object()}},
    ],
)
def test_a_malformed_request_is_an_error_that_does_not_show_it(fields):
    with pytest.raises(pydantic.ValidationError) as caught:
        models.ModelRequest(**fields)
    assert "my secret" not in str(caught.value)


def test_a_request_does_not_show_what_is_asked():
    prompt = models.ModelRequest(prompt="my secret", params={"seed": 1})
    chat = models.ModelRequest(messages=[{"role": "user", "content": "my secret"}])
    assert repr(prompt) == "ModelRequest('a prompt of 9 characters', params={'seed': 1})"
    assert "my secret" not in repr(chat)


def test_a_number_is_not_a_request():
    with pytest.raises(TypeError, match="was asked a int; it takes a str"):
        models.MockModel().generate(3)


@pytest.mark.parametrize(
    "kind",
    [
        xcs.ModelError,
        xcs.RateLimited,
        xcs.AuthenticationFailed,
        xcs.InvalidRequest,
        xcs.ServiceUnavailable,
        xcs.ResponseInvalid,
    ],
)
def test_an_error_survives_a_pickle(kind):
    error = pickle.loads(pickle.dumps(kind("it said no", "small", 418, 2.5)))
    assert type(error) is kind
    assert (str(error), error.model, error.status, error.retry_after) == (
        "it said no",
        "small",
        418,
        2.5,
    )
    assert isinstance(error, xcs.XCSError)


def test_retry_gives_up_at_once_where_it_is_useless():
    retry = xcs.Retry(attempts=5, jitter=False)
    assert retry.pause(1, xcs.AuthenticationFailed("no")) is None
    assert retry.pause(1, xcs.InvalidRequest("no")) is None
    assert retry.pause(1, xcs.ServiceUnavailable("no")) == 0.5
    assert retry.pause(1, xcs.RateLimited("no", retry_after=7.0)) == 7.0
