"""Neither keys nor prompts are in what is raised, shown, pickled, logged or written."""

import asyncio
import json
import logging
import pickle
import traceback

import pytest

import ember_xcs as xcs
from ember_xcs.models import LLMOperator, OpenAICompatible
from tests.models import server as servers

KEY = "sk_live_0123456789abcdef"
PROMPT = "the patient's diagnosis"
FAILURES = {
    "400": servers.failing(400),
    "401": servers.failing(401),
    "429": servers.failing(429),
    "500": servers.failing(500),
    "key as a name": servers.raw(json.dumps({"error": {"code": KEY, "type": KEY}}), status=400),
    "dropped": servers.dropping(),
    "malformed": servers.raw("{" + PROMPT + KEY),
    "wrong": servers.raw(json.dumps({"error": PROMPT + KEY})),
    "slow": servers.never,
}
failures = pytest.mark.parametrize("behaviour", FAILURES.values(), ids=FAILURES)


@pytest.fixture
def model(server):
    return OpenAICompatible("small", server.url, KEY, timeout_seconds=0.3)


def chain(error):
    """An error and all that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def shown(error):
    """All that a report of an error could show, but for the arguments of the user's own call."""
    parts = []
    for each in chain(error):
        parts += [str(each), repr(each), repr(each.args), repr(vars(each))]
        parts += ["".join(traceback.format_exception(each)), *map(str, _notes(each))]
    return "\n".join(parts)


def _notes(error):
    return getattr(error, "__notes__", ())


def local_variables(error):
    """The local variables of our own frames on the way of an error, as a reporter shows them."""
    parts = []
    for each in chain(error):
        for frame, _ in traceback.walk_tb(each.__traceback__):
            if "ember_xcs" in frame.f_code.co_filename:
                parts += [f"{name}={value!r}" for name, value in frame.f_locals.items()]
    return "\n".join(parts)


def ways(model):
    async def awaited():
        return await model.agenerate(PROMPT)

    return {"generate": lambda: model.generate(PROMPT), "awaited": lambda: asyncio.run(awaited())}


@failures
@pytest.mark.parametrize("way", ["generate", "awaited"])
def test_an_error_holds_neither_the_key_nor_the_prompt(server, model, behaviour, way):
    server.behaviour = behaviour
    with pytest.raises(xcs.ModelError) as caught:
        ways(model)[way]()
    error = caught.value
    everything = shown(error) + local_variables(error) + repr(pickle.dumps(error))
    assert "small" in everything
    assert KEY not in everything
    assert PROMPT not in everything
    assert list(chain(error)) == [error]


@failures
def test_an_error_of_a_run_holds_neither(server, model, behaviour):
    server.behaviour = behaviour
    graph = xcs.XCSGraph("ask")
    graph.add_node(LLMOperator(model, "{q}"), "ask")
    with pytest.raises(xcs.NodeExecutionError) as caught:
        xcs.execute_graph(graph, {"q": PROMPT})
    everything = shown(caught.value)
    assert "small" in everything
    assert KEY not in everything + local_variables(caught.value)
    assert PROMPT not in everything


@failures
def test_nothing_is_logged_that_holds_the_key(server, model, behaviour, caplog):
    server.behaviour = behaviour
    with caplog.at_level(logging.DEBUG), pytest.raises(xcs.ModelError):
        model.generate("hello")
    assert KEY not in caplog.text
    assert KEY not in repr([record.args for record in caplog.records])


def test_nothing_that_a_run_leaves_holds_the_key(server, model, tmp_path, capfd):
    graph = xcs.XCSGraph("ask")
    graph.add_node(LLMOperator(model, "{q}", deterministic=True), "ask")
    with xcs.execution_options(
        journal=tmp_path / "run.db", cache=xcs.ResultCache(tmp_path / "cache"), trace_execution=True
    ):
        result = xcs.execute_graph(graph, {"q": "hello"})
        print(result, result.metrics, result.timeline, graph.describe(), graph.to_mermaid())
    printed = "".join(capfd.readouterr())
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert server.keys == [f"Bearer {KEY}"]
    assert written
    assert KEY not in printed
    assert not any(KEY.encode() in path.read_bytes() for path in written)


def test_the_timeline_and_the_metrics_do_not_hold_the_prompt(server, model):
    graph = xcs.XCSGraph("ask")
    graph.add_node(LLMOperator(model, "{q}"), "ask")
    result = xcs.execute_graph(graph, {"q": PROMPT}, options={"trace_execution": True})
    assert PROMPT not in f"{result!r} {result.metrics} {result.timeline}"


def test_a_model_does_not_show_its_key(model):
    operator = LLMOperator(model, "{q}")
    everything = f"{model!r} {model} {vars(model)} {operator!r} {vars(operator)}"
    assert "small" in everything
    assert KEY not in everything


def test_a_pickle_of_a_model_does_not_hold_its_key(server, model, monkeypatch):
    data = pickle.dumps(model)
    assert KEY.encode() not in data
    copy = pickle.loads(data)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-worker")
    assert copy.generate("yes").text == "YES"
    assert server.keys == ["Bearer sk-of-the-worker"]


def test_the_key_of_the_environment_is_read_at_the_time_of_a_call(server, monkeypatch):
    model = OpenAICompatible("small", server.url)
    model.generate("a")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-first")
    model.generate("a")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-second")
    model.generate("a")
    assert server.keys == [None, "Bearer sk-first", "Bearer sk-second"]


def test_models_of_one_server_with_keys_of_their_own_do_not_mix_them_up(server):
    for key in ("sk-one", "sk-two", "sk-one"):
        OpenAICompatible("small", server.url, key).generate("a")
    assert server.keys == ["Bearer sk-one", "Bearer sk-two", "Bearer sk-one"]


def test_without_a_key_openai_is_not_asked():
    with pytest.raises(xcs.AuthenticationFailed, match="give api_key=, or set OPENAI_API_KEY"):
        OpenAICompatible("small").generate("a")


def test_a_key_that_is_no_header_is_not_shown(server):
    model = OpenAICompatible("small", server.url, f"{KEY}\nsecond line")
    with pytest.raises(xcs.InvalidRequest) as caught:
        model.generate(PROMPT)
    assert KEY not in shown(caught.value) + local_variables(caught.value)
