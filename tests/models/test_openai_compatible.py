"""OpenAICompatible against a real server on loopback: answers, failures, loops and threads."""

import asyncio
import datetime
import email.utils
import json
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import pytest
from pydantic import BaseModel

import ember_xcs as xcs
from ember_xcs import models
from ember_xcs._runtime.content import content_key
from ember_xcs.models import LLMOperator, OpenAICompatible
from tests.models import server as servers
from tests.models.server import completion

QUICK = xcs.Retry(attempts=3, initial_seconds=0.001)


@pytest.fixture
def model(server):
    return OpenAICompatible("small", server.url, "sk-key", price=(1.0, 2.0), timeout_seconds=20)


def run(model, question, **options):
    graph = xcs.XCSGraph("ask")
    graph.add_node(LLMOperator(model, "{q}"), "ask")
    return xcs.execute_graph(graph, {"q": question}, options={"collect_metrics": True, **options})


# Answers


def test_the_answer_has_text_usage_cost_and_all_that_was_sent(server, model):
    response = model.generate("yes")
    assert (response.text, response.model, response.finish_reason) == ("YES", "small", "stop")
    assert (response.usage.tokens, response.cost) == (1500, 0.002)
    assert response.raw == completion("YES")
    assert response.latency_seconds > 0


def test_the_server_gets_the_model_the_messages_and_the_parameters(server, model):
    models.instance(model, temperature=0.5)("yes", seed=3)
    assert server.bodies == [
        {
            "model": "small",
            "messages": [{"role": "user", "content": "yes"}],
            "temperature": 0.5,
            "seed": 3,
        }
    ]
    assert server.keys == ["Bearer sk-key"]


def test_without_price_or_usage_the_cost_is_not_known(server, model):
    assert OpenAICompatible("small", server.url).generate("a").cost is None
    server.behaviour = servers.answering("b", usage=None)
    response = model.generate("a")
    assert (response.usage, response.cost) == (None, None)


def test_a_call_of_tools_has_no_text(server, model):
    message = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    server.behaviour = servers.answering("", choices=[{"message": message}])
    response = model.generate("a")
    assert response.text == ""
    assert response.raw["choices"][0]["message"]["tool_calls"] == [{"id": "1"}]


def test_tokens_and_cost_are_in_the_metrics_of_a_run(server, model):
    metrics = run(model, "a").metrics
    assert (metrics.attempts, metrics.tokens, metrics.cost) == (1, 1500, 0.002)


def test_a_record_feeds_numeric_code(server, model):
    class Verdict(BaseModel):
        score: float

    async def judge(_chat, request):
        text = (await request.json())["messages"][-1]["content"]
        return servers.web.json_response(completion(json.dumps({"score": len(text)})))

    server.behaviour = judge
    ask = LLMOperator(model, "{text}", Verdict)
    best = xcs.jit.trace(lambda texts: jnp.argmax(jax.vmap(ask)(texts).score))
    assert best(jnp.array([1, 100, 10])) == 1


# Failures


@pytest.mark.parametrize(
    ("behaviour", "kind", "status"),
    [
        (servers.failing(400), xcs.InvalidRequest, 400),
        (servers.failing(401), xcs.AuthenticationFailed, 401),
        (servers.failing(403), xcs.AuthenticationFailed, 403),
        (servers.failing(404), xcs.InvalidRequest, 404),
        (servers.failing(408), xcs.ServiceUnavailable, 408),
        (servers.failing(422), xcs.InvalidRequest, 422),
        (servers.failing(429), xcs.RateLimited, 429),
        (servers.failing(500), xcs.ServiceUnavailable, 500),
        (servers.failing(503), xcs.ServiceUnavailable, 503),
        (servers.dropping(), xcs.ServiceUnavailable, None),
        (servers.raw("{nope"), xcs.ResponseInvalid, None),
        (servers.raw(""), xcs.ResponseInvalid, None),
        (servers.raw("<html>hello</html>", "text/html"), xcs.ResponseInvalid, 200),
        (servers.raw("[]"), xcs.ResponseInvalid, 200),
        (servers.raw('{"choices": []}'), xcs.ResponseInvalid, 200),
        (servers.raw('{"choices": [3]}'), xcs.ResponseInvalid, 200),
        (servers.raw('{"choices": [{"message": {"content": 3}}]}'), xcs.ResponseInvalid, 200),
        (servers.answering("a", usage={"prompt_tokens": "many"}), xcs.ResponseInvalid, 200),
        (servers.answering("a", usage=3), xcs.ResponseInvalid, 200),
    ],
)
def test_a_failure_has_its_kind_and_status_and_is_not_tried_again(
    server, model, behaviour, kind, status
):
    server.behaviour = behaviour
    with pytest.raises(kind) as caught:
        model.generate("a")
    assert (type(caught.value), caught.value.status, caught.value.model) == (kind, status, "small")
    assert len(server.bodies) == 1
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_refusal_names_the_kind_of_error(server, model):
    server.behaviour = servers.failing(400)
    with pytest.raises(xcs.InvalidRequest, match=r"\(HTTP 400, type some_error, code some_code\)"):
        model.generate("a")


def test_a_server_that_is_not_there_is_unavailable():
    model = OpenAICompatible("small", "http://127.0.0.1:9/v1")
    with pytest.raises(xcs.ServiceUnavailable, match="could not be reached"):
        model.generate("a")


def test_an_answer_that_takes_too_long_is_given_up(server):
    server.behaviour = servers.never
    model = OpenAICompatible("small", server.url, timeout_seconds=0.2)
    with pytest.raises(xcs.ServiceUnavailable, match=r"did not answer within 0\.2 s"):
        model.generate("a")


def test_a_run_that_ends_takes_its_requests_with_it(server, model):
    server.behaviour = servers.never
    with pytest.raises(xcs.ExecutionTimeout):
        run(model, "a", timeout_seconds=0.2)
    deadline = time.monotonic() + 10
    while server.in_progress and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.in_progress == 0


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"Retry-After": "7"}, 7, 7),
        ({"Retry-After": "0.5"}, 0.5, 0.5),
        ({"retry-after-ms": "250", "Retry-After": "7"}, 0.25, 0.25),
        (
            {
                "Retry-After": email.utils.format_datetime(
                    datetime.datetime(2999, 1, 1, tzinfo=datetime.UTC), usegmt=True
                )
            },
            1e9,
            1e11,
        ),
        ({"Retry-After": "Mon, 01 Jan 2001 00:00:00 GMT"}, 0, 0),
    ],
)
def test_what_the_server_asks_for_is_in_the_error(server, model, headers, least, most):
    server.behaviour = servers.failing(429, headers)
    with pytest.raises(xcs.RateLimited) as caught:
        model.generate("a")
    assert least <= caught.value.retry_after <= most


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "soon"}, {"Retry-After": "nan"}])
def test_a_server_that_does_not_ask_leaves_it_open(server, model, headers):
    server.behaviour = servers.failing(503, headers)
    with pytest.raises(xcs.ServiceUnavailable) as caught:
        model.generate("a")
    assert caught.value.retry_after is None


@pytest.mark.parametrize("name", ["stream", "model", "messages"])
def test_a_parameter_that_is_no_parameter_is_refused(server, model, name):
    with pytest.raises(xcs.InvalidRequest, match=f"was given the parameter '{name}'"):
        models.instance(model, **{name: True})("a")
    assert server.bodies == []


def test_what_cannot_be_sent_is_an_error(server, model):
    with pytest.raises(xcs.InvalidRequest, match="could not be sent"):
        models.instance(model, top_p=float("nan"))("a")


# Further attempts


@pytest.mark.parametrize(
    "behaviour",
    [
        servers.failing(500, times=2),
        servers.failing(429, {"Retry-After": "0.01"}, times=2),
        servers.dropping(times=2),
    ],
)
def test_a_run_tries_again_and_counts_it(server, model, behaviour):
    server.behaviour = behaviour
    result = run(model, "yes", retry=QUICK)
    assert result["ask"] == "YES"
    assert (result.metrics.attempts, result.metrics.retries, len(server.bodies)) == (3, 2, 3)


def test_the_retries_of_a_model_are_those_of_the_run_that_it_is_in(server, model):
    server.behaviour = servers.failing(500, times=2)
    model.retry = QUICK
    result = run(model, "yes")
    assert result["ask"] == "YES"
    assert (result.metrics.attempts, result.metrics.retries, len(server.bodies)) == (3, 2, 3)


@pytest.mark.parametrize("how", ["generate", "operator", "package", "awaited"])
def test_outside_a_run_the_model_tries_again_itself(server, model, how):
    server.behaviour = servers.failing(500, times=2)
    model.retry = QUICK
    calls = {
        "generate": lambda: model.generate("yes").text,
        "operator": lambda: LLMOperator(model, "{q}")("yes"),
        "package": lambda: models(model, "yes").text,
        "awaited": lambda: asyncio.run(model.agenerate("yes")).text,
    }
    assert calls[how]() == "YES"
    assert len(server.bodies) == 3


def test_what_fails_for_good_fails_after_all_attempts_and_no_more(server, model):
    server.behaviour = servers.failing(500)
    model.retry = QUICK
    with pytest.raises(xcs.ServiceUnavailable):
        LLMOperator(model, "{q}")("a")
    assert len(server.bodies) == 3


def test_retry_after_is_waited_for(server, model):
    server.behaviour = servers.failing(429, {"Retry-After": "0.3"}, times=1)
    model.retry = QUICK
    begun = time.monotonic()
    assert model.generate("yes").text == "YES"
    assert time.monotonic() - begun >= 0.3


# Threads, loops and many calls


def test_by_default_the_calls_of_a_batch_are_at_the_server_at_once(server, model):
    server.behaviour = servers.gathering(128)
    ask = LLMOperator(model, "{k}")
    assert xcs.jit.trace(jax.vmap(ask))(jnp.arange(128)) == [str(k) for k in range(128)]
    assert server.peak == 128


def test_no_more_than_its_concurrency_are_at_the_server(server):
    model = OpenAICompatible("small", server.url, concurrency=3)

    async def main():
        return await asyncio.gather(*(model.agenerate(str(k)) for k in range(30)))

    assert [r.text for r in asyncio.run(main())] == [str(k) for k in range(30)]
    assert server.peak <= 3


def test_it_serves_one_loop_after_another(server, model):
    async def ask(k):
        return (await model.agenerate(f"a{k}")).text

    assert [asyncio.run(ask(k)) for k in range(4)] == [f"A{k}" for k in range(4)]


def test_it_serves_threads_and_loops_at_once(server, model):
    async def ask_all(t):
        return [r.text for r in await asyncio.gather(*(model.agenerate(f"{t}") for _ in range(5)))]

    def work(t):
        return [model.generate(f"{t}").text, *asyncio.run(ask_all(t))]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [[str(t)] * 6 for t in range(8)]


def test_it_goes_on_after_the_pools_were_shut_down(server, model):
    assert model.generate("a").text == "A"
    assert xcs.shutdown_pools() == []
    assert model.generate("b").text == "B"


def test_inside_a_running_loop_a_plain_call_waits(server, model):
    async def main():
        return model.generate("yes").text

    assert asyncio.run(main()) == "YES"


def test_a_plain_call_on_the_io_loop_is_refused(server, model):
    @xcs.host
    async def wrong(q):
        return model.generate(q).text

    with pytest.raises(xcs.XCSError, match="it would wait for itself"):
        wrong("a")


def test_an_await_that_is_cancelled_takes_its_request_with_it(server, model):
    server.behaviour = servers.never

    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(model.agenerate("a"), 0.2)

    asyncio.run(main())
    deadline = time.monotonic() + 10
    while server.in_progress and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (len(server.bodies), server.in_progress) == (1, 0)


def test_a_process_that_ends_says_nothing(server):
    code = (
        "from ember_xcs import models; "
        f"print(models.OpenAICompatible('small', {server.url!r}).generate('yes').text)"
    )
    command = [sys.executable, "-X", "dev", "-W", "ignore:::setuptools", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("YES\n", 0)
    assert "nclosed" not in done.stderr


def test_a_proxy_of_the_environment_is_asked_unless_the_server_is_excepted(server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/v1"))
    monkeypatch.setenv("no_proxy", "excepted.invalid")
    assert OpenAICompatible("small", "http://behind.invalid/v1").generate("a").text == "A"
    with pytest.raises(xcs.ServiceUnavailable):
        OpenAICompatible("small", "http://excepted.invalid/v1").generate("a")
    assert len(server.bodies) == 1


# Being made


def test_a_missing_extra_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(ImportError, match=r"Install it with: pip install ember_xcs\[openai\]"):
        OpenAICompatible("small")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"timeout_seconds": 0}, "timeout_seconds=0"),
        ({"concurrency": 0}, "concurrency=0"),
        ({"base_url": "localhost:8000"}, "is to be an http or https URL"),
        ({"base_url": "http://me:secret@host/v1"}, "has a user, a password or a query"),
        ({"base_url": "http://host/v1?key=secret"}, "has a user, a password or a query"),
    ],
)
def test_bad_arguments_are_refused_without_showing_secrets(wrong, message):
    with pytest.raises(ValueError, match=message) as caught:
        OpenAICompatible("small", **wrong)
    assert "secret" not in str(caught.value)


def test_the_content_of_a_call_is_the_model_and_the_server_but_not_the_key():
    def key(model, server, secret):
        ask = LLMOperator(OpenAICompatible(model, f"http://{server}/v1", secret), "{q}")
        return content_key(ask, ("a",), {})

    same = key("small", "one", "k1")
    assert key("small", "one", "k2") == same
    assert len({same, key("large", "one", "k1"), key("small", "two", "k1")}) == 3
