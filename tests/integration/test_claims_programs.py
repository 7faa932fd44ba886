"""Whole programs: a staged function gives what plain Python gives, with its calls at once.

Each program is written once, with operators that can be called anywhere; the oracle is the same
code run one element after the other.
"""

from __future__ import annotations

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ember_xcs as xcs
from tests.counting import Calls

WAIT = 20.0  # seconds


class Verdict(pydantic.BaseModel):
    score: float
    why: str


@xcs.host
def draft(question: str, sample: int) -> str:
    return f"{question} ({sample})"


@xcs.host
def judge(answer: str) -> Verdict:
    return Verdict(score=float(sum(map(ord, answer)) % 17), why=f"because {answer}")


@xcs.host(out=jax.ShapeDtypeStruct((4,), jnp.float32))
def embed(text: str):
    return np.array([len(text), text.count("a"), ord(text[-1]), 1], np.float32)


@xcs.host
def improve(text: str) -> str:
    return text + "+"


@xcs.host
def is_good(text: str) -> bool:
    return len(text) >= 8


def best_of(question, samples):
    answers = jax.vmap(lambda k: draft(question, k))(samples)
    verdicts = jax.vmap(judge)(answers)
    best = jnp.argmax(verdicts.score)
    return {"answer": answers[best], "why": verdicts.why[best], "scores": verdicts.score}


def best_of_in_python(question, samples):
    answers = [draft(question, int(k)) for k in samples]
    verdicts = [judge(a) for a in answers]
    scores = [v.score for v in verdicts]
    best = scores.index(max(scores))
    return {"answer": answers[best], "why": verdicts[best].why, "scores": scores}


@given(
    question=st.text(min_size=1, max_size=8),
    samples=st.lists(st.integers(0, 99), min_size=1, max_size=5),
)
def test_best_of_n_is_that_of_plain_python(question, samples):
    result = xcs.jit.trace(best_of)(question, jnp.array(samples))
    result["scores"] = result["scores"].tolist()
    assert result == best_of_in_python(question, samples)


def test_best_of_n_for_a_batch_of_questions():
    questions = ["Why?", "How?", "When?"]

    @xcs.jit.trace
    def f(questions, samples):
        return jax.vmap(best_of, in_axes=(0, None))(jnp.stack(questions), samples)

    samples = [3, 5, 7, 9]
    batch = f(questions, jnp.array(samples))
    for k, question in enumerate(questions):
        alone = best_of_in_python(question, samples)
        assert batch["answer"][k] == alone["answer"]
        assert batch["why"][k] == alone["why"]
        assert batch["scores"][k].tolist() == alone["scores"]


def test_all_calls_of_a_batch_of_questions_run_at_once():
    together = threading.Barrier(24, timeout=WAIT)

    @xcs.host
    def meet(question: str, k: int) -> str:
        together.wait()  # passes only when all 24 calls are in it
        return f"{question}{k}"

    @xcs.jit.trace
    def f(questions):
        one = lambda q: jax.vmap(lambda k: meet(q, k))(jnp.arange(8))  # noqa: E731
        return jax.vmap(one)(jnp.stack(questions))

    assert f(["a", "b", "c"]) == [[f"{q}{k}" for k in range(8)] for q in "abc"]


def test_at_most_max_workers_calls_run_at_once():
    lock, now, peak = threading.Lock(), [0], [0]
    full = threading.Barrier(4, timeout=WAIT)

    @xcs.host
    def work(k: int) -> int:
        with lock:
            now[0] += 1
            peak[0] = max(peak[0], now[0])
        full.wait()  # four at a time come through
        with lock:
            now[0] -= 1
        return k

    f = xcs.jit.trace(jax.vmap(work), options={"max_workers": 4})
    assert f(jnp.arange(16)).tolist() == list(range(16))
    assert peak[0] == 4


def rerank(weights, query, documents):
    q, d = embed(query), jax.vmap(embed)(documents)
    scores = jax.nn.softmax(d @ (weights * q))
    order = jnp.argsort(-scores)
    return documents[order], scores


def test_documents_are_ranked_by_numbers_as_in_plain_python():
    documents = ["banana", "tea", "algebra", "z"]

    @xcs.jit.trace
    def f(weights, query, documents):
        return rerank(weights, query, jnp.stack(documents))

    weights = jnp.array([0.1, 1.0, 0.01, 0.5])
    ranked, scores = f(weights, "a banana", documents)
    vectors = np.stack([embed(d) for d in documents])
    expected = np.asarray(jax.nn.softmax(vectors @ np.asarray(weights * embed("a banana"))))
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert ranked == [documents[k] for k in np.argsort(-expected, kind="stable")]


def test_the_weights_of_a_reranker_are_trained_through_its_host_calls():
    documents = ["banana", "tea", "algebra", "z"]

    def loss(weights, query, documents):
        _, scores = rerank(weights, query, jnp.stack(documents))
        return -jnp.log(scores[2])

    step = xcs.jit.trace(jax.value_and_grad(loss))
    weights, losses = jnp.zeros(4), []
    for _ in range(20):
        value, gradient = step(weights, "a banana", documents)
        weights = weights - 1e-4 * gradient
        losses.append(float(value))
    assert losses[-1] < losses[0] * 0.9

    q, d = embed("a banana"), np.stack([embed(t) for t in documents])

    def numeric(weights):  # the same loss, with the answers of the host calls as constants
        return -jnp.log(jax.nn.softmax(d @ (weights * q))[2])

    expected = jax.grad(numeric)(jnp.ones(4) * 0.01)
    gradient = step(jnp.ones(4) * 0.01, "a banana", documents)[1]
    np.testing.assert_allclose(gradient, expected, rtol=1e-4)


@pytest.mark.parametrize("loop", [jax.lax.while_loop, xcs.while_loop])
def test_a_batch_of_agents_each_stops_when_it_is_done(loop):
    calls = Calls()
    better = calls.host(improve.function)

    @xcs.jit.trace
    def f(texts):
        step = lambda t: loop(lambda t: jnp.logical_not(is_good(t)), better, t)  # noqa: E731
        return jax.vmap(step)(xcs.HostValue(jnp.stack(texts)))

    texts = ["abc", "long enough", "abcdef"]
    assert f(texts) == [t.ljust(8, "+") for t in texts]
    assert len(calls) == sum(max(8 - len(t), 0) for t in texts)


@pytest.mark.parametrize("loop", [jax.lax.while_loop, xcs.while_loop])
def test_an_agent_with_a_budget_a_history_and_a_tool(loop):
    asked = Calls()

    @asked.host
    def tool(text: str) -> str:
        return f"<{len(text)}>"

    @xcs.host
    def join(a: str, b: str) -> str:
        return a + b

    def agent(text, budget):
        def go_on(state):
            return (state["used"] < budget) & (state["score"] < 9.0)

        def turn(state):
            text = join(
                state["text"], xcs.cond(state["used"] % 2 == 0, tool, improve, state["text"])
            )
            score = judge(text).score
            return {"text": text, "used": state["used"] + 1, "score": score}

        return loop(go_on, turn, {"text": text, "used": 0, "score": 0.0})

    def in_python(text, budget):
        used, score = 0, 0.0
        while used < budget and score < 9.0:
            text = text + (tool.function(text) if used % 2 == 0 else improve(text))
            score, used = judge(text).score, used + 1
        return text, used, score

    @xcs.jit.trace
    def f(texts, budget):
        return jax.vmap(agent, in_axes=(0, None))(xcs.HostValue(jnp.stack(texts)), budget)

    texts = ["alpha", "b", "gamma ray"]
    asked.clear()
    states = f(texts, 5)
    made = len(asked)
    asked.clear()
    for k, text in enumerate(texts):
        expected = in_python(text, 5)
        found = (states["text"][k], int(states["used"][k]), float(states["score"][k]))
        assert found == expected
    assert made == len(asked)


def test_all_schedulers_give_the_same_result():
    samples = jnp.arange(6)
    expected = best_of_in_python("Why?", samples)
    for scheduler in ("sequential", "topological", "parallel", "wave", "adaptive"):
        result = xcs.jit.trace(best_of, options={"scheduler": scheduler})("Why?", samples)
        assert (result["answer"], result["why"]) == (expected["answer"], expected["why"])
