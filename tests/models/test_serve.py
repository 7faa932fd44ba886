"""The server over a local model, asked over real HTTP by our own client and by others."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading

import aiohttp
import openai
import pytest
from aiohttp import web

from ember_xcs import models
from ember_xcs.errors import InvalidRequest, RateLimited
from ember_xcs.models import MockModel, OpenAICompatible, SmolLM2
from ember_xcs.models._coalescing import Coalescing
from ember_xcs.models.serve import application
from tests.models.small_gguf import write_small_gguf

PARAMS = {"max_tokens": 6, "temperature": 1.5, "top_p": 0.9}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_small_gguf(tmp_path_factory.mktemp("weights") / "small.gguf")


@pytest.fixture(scope="module")
def small(file):
    return SmolLM2(file, window_seconds=0.5)


class Busy:
    """A model that asks its callers to wait."""

    async def agenerate(self, request):
        raise RateLimited("later", "busy", retry_after=7.0)


@pytest.fixture(scope="module")
def url(small):
    """Where a server in a thread of its own listens."""
    ready, over, found = threading.Event(), asyncio.Event(), {}

    async def run():
        app = application({"small": small, "mock": MockModel(), "busy": Busy()})
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found["port"], found["loop"] = runner.addresses[0][1], asyncio.get_running_loop()
        ready.set()
        await over.wait()
        await runner.cleanup()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    assert ready.wait(10)
    yield f"http://127.0.0.1:{found['port']}/v1"
    found["loop"].call_soon_threadsafe(over.set)
    thread.join(30)
    assert not thread.is_alive()


def posted(url, body):
    """The status, headers and text of the answer to a body."""

    async def post():
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        where = f"{url}/chat/completions"
        async with aiohttp.ClientSession() as session, session.post(where, data=data) as answer:
            return answer.status, answer.headers, await answer.text()

    return asyncio.run(post())


def chat(**parts):
    return {"model": "small", "messages": [{"role": "user", "content": "Why?"}], **parts}


@pytest.mark.parametrize("params", [{**PARAMS, "seed": 3}, {"max_tokens": 4}, {"stop": ["a", "e"]}])
def test_a_served_answer_is_the_direct_one(url, small, params):
    served = OpenAICompatible("small", url).generate(
        models.ModelRequest(prompt="Why?", params={"max_tokens": 9, **params})
    )
    direct = small.generate("Why?", **{"max_tokens": 9, **params})
    same = ("text", "usage", "finish_reason")
    assert [getattr(served, name) for name in same] == [getattr(direct, name) for name in same]


def test_requests_that_arrive_together_are_one_batch(url, small, monkeypatch):
    sizes = []
    batch = Coalescing._batch

    def count(this):
        found = batch(this)
        sizes.append(len(found))
        return found

    monkeypatch.setattr(Coalescing, "_batch", count)
    client = OpenAICompatible("small", url)

    async def ask():
        requests = [
            models.ModelRequest(prompt=f"{k}", params={**PARAMS, "seed": k}) for k in range(6)
        ]
        return await asyncio.gather(*map(client.agenerate, requests))

    together = [answer.text for answer in asyncio.run(ask())]
    assert sum(sizes) == 6
    assert max(sizes) > 1
    assert together == [small.generate(f"{k}", seed=k, **PARAMS).text for k in range(6)]


def test_a_stream_is_the_answer_in_pieces(url, small):
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
    with client:
        stream = client.chat.completions.create(
            model="small",
            messages=[{"role": "user", "content": "Why?"}],
            max_tokens=40,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
    direct = small.generate("Why?", max_tokens=40)
    texts = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(texts) == direct.text
    assert chunks[-2].choices[0].finish_reason == direct.finish_reason
    assert chunks[-1].usage.total_tokens == direct.usage.tokens


def test_models_are_listed(url):
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["small", "mock", "busy"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the body is to be JSON"),
        (b"[]", "is to be a JSON object, and is a list"),
        ({"model": "small"}, "messages is to be given"),
        (chat(model=3), "model is to be given"),
        (chat(messages=["Why?"]), "a list of objects with role"),
        (chat(messages=[{"content": "Why?"}]), "a dict with a role"),
        (chat(messages=[{"role": "user"}]), "whose role or content is no text"),
        (chat(n=2), "n=2 is not served here"),
        (chat(temperature=-1), "temperature=-1"),
        (chat(unknown=1), "the parameter 'unknown'"),
        (chat(stream=True, stream_options=3), "stream_options is to be"),
    ],
)
def test_a_bad_request_is_refused_in_the_form_of_the_protocol(url, body, message):
    status, _, text = posted(url, body)
    error = json.loads(text)["error"]
    assert status == 400
    assert message in error["message"]
    assert error["type"] == "invalid_request_error"


def test_our_client_is_told_that_a_request_is_invalid(url):
    with pytest.raises(InvalidRequest):
        OpenAICompatible("small", url).generate(
            models.ModelRequest(prompt="a", params={"seed": 0.5})
        )


def test_an_unknown_model_is_not_found(url):
    status, _, text = posted(url, chat(model="large"))
    assert status == 404
    assert json.loads(text)["error"]["code"] == "model_not_found"


def test_an_unknown_place_is_not_found_in_the_form_of_the_protocol(url):
    status, _, text = posted(f"{url}/elsewhere", chat())
    assert status == 404
    assert json.loads(text)["error"]["message"] == "Not Found"


def test_a_model_that_is_busy_says_when_to_come_back(url):
    status, headers, text = posted(url, chat(model="busy"))
    assert (status, headers["Retry-After"]) == (429, "7")
    assert json.loads(text)["error"]["code"] == "rate_limit_exceeded"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_told_to_end(file, small, number):
    command = [sys.executable, "-m", "ember_xcs.models.serve", "--port", "0", "--file", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        try:
            client = OpenAICompatible("smollm2", line.split(" at ")[1].strip())
            text = client.generate(models.ModelRequest(prompt="a", params={"max_tokens": 3})).text
        finally:
            process.send_signal(number)
    assert text == small.generate("a", max_tokens=3).text
    assert process.returncode == 0


def test_half_a_character_is_a_bad_request(url):
    status, _, text = posted(url, chat(messages=[{"role": "user", "content": "a\ud800b"}]))
    assert status == 400
    assert "half of a character" in json.loads(text)["error"]["message"]


@pytest.mark.slow
def test_the_command_says_that_a_port_is_taken(file):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "ember_xcs.models.serve", "--port", port]
        found = subprocess.run(
            [*command, "--file", str(file)], capture_output=True, text=True, check=False
        )
    assert found.returncode == 1
    assert found.stderr.splitlines()[-1].startswith(
        f"python -m ember_xcs.models.serve: cannot listen at 127.0.0.1:{port}: "
    )
    assert "Traceback" not in found.stderr
