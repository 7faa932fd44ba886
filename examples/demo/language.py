"""What a language model does in the demo: it drafts answers from passages, and judges them.

The model is SmolLM2, which runs here in JAX, or any server that speaks OpenAI's protocol. The local
one is two operators of the same graph: a host operator that writes, whose calls are one batch, and
a numeric one that judges, compiled with the numbers around it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import BaseModel, Field

import ember_xcs as xcs
from ember_xcs import models
from examples.demo.corpus import Passage

WRITING = """Answer the question in one or two sentences, from this text alone.

Text ({source}):
{text}

Question: {question}"""

JUDGING = """Question: {question}

Answer: {answer}

Does the answer say what was asked, and is it plausible? Reply with Yes or No."""

RATING = """Question: {question}

Answer: {answer}

How well does the answer say what was asked, as a number from 0 to 1?"""

READ_CHARACTERS = 900
"""How much of a passage is read: a longer one would be most of the time of the model."""

JUDGED_TOKENS = 192
"""To how much what the local judge reads is padded."""

TOLD_TOKENS = 60
"""How much of a question, and of an answer, it is told."""


class Draft(BaseModel):
    """An answer that was written from one passage.

    Attributes:
        text: The answer.
        source: Where the passage stands.
        confidence: How sure the writer was of its words, from 0 to 1: the geometric mean of the
            probabilities of its tokens. 1 where the model does not tell.
    """

    text: str
    source: str
    confidence: float = 1.0


class Verdict(BaseModel):
    """What a remote judge answers."""

    score: float = Field(ge=0, le=1)


class Language(NamedTuple):
    """The two things that a model is asked for.

    Attributes:
        name: Which model it is.
        write: From a question, a passage and a seed to a ``Draft``.
        judge: From a question and the texts of drafts to numbers from 0 to 1.
    """

    name: str
    write: Any
    judge: Callable[[str, Any], jax.Array]


class Writer(xcs.HostOperator):
    """Drafts an answer from a passage.

    Attributes:
        model: What writes.
        max_tokens: The most tokens of an answer.
        temperature: How different the drafts of one passage are.
    """

    model: Any
    max_tokens: int = 64
    temperature: float = 0.7

    def request(self, question: str, passage: Passage, seed: int) -> models.ModelRequest:
        """Returns what the model is asked."""
        text = passage.text[:READ_CHARACTERS]
        prompt = WRITING.format(source=passage.source, text=text, question=question)
        params = {"max_tokens": self.max_tokens, "temperature": self.temperature, "seed": int(seed)}
        return models.ModelRequest(prompt=prompt, params=params)


def finished(response: models.ModelResponse) -> str:
    """Returns the text of an answer; of one that was cut off, the sentences that are whole."""
    text = response.text.strip()
    whole = re.match(r".*[.!?](?=\s|$)", text, re.DOTALL)
    return whole[0] if whole and response.finish_reason == "length" else text


class LocalWriter(Writer):
    """Drafts by a local model: all that are asked for at once are one batch."""

    def forward(self, question: str, passage: Passage, seed: int) -> Draft:
        """Returns one draft."""
        return self.forward_batch([question], [passage], [seed])[0]

    def forward_batch(
        self, questions: Sequence[str], passages: Sequence[Passage], seeds: Sequence[int]
    ) -> list[Draft]:
        """Returns the drafts of a batch."""
        requests = list(map(self.request, questions, passages, seeds))
        responses = self.model.generate_batch(requests)
        for response in responses:
            xcs.record_usage(tokens=response.usage.tokens)
        return [
            Draft(
                text=finished(response),
                source=passage.source,
                confidence=float(np.exp(np.mean(response.raw["logprobs"]))),
            )
            for passage, response in zip(passages, responses, strict=True)
        ]


class RemoteWriter(Writer):
    """Drafts by a server: all that are asked for at once are in flight together."""

    async def forward(self, question: str, passage: Passage, seed: int) -> Draft:
        """Returns one draft."""
        response = await self.model.agenerate(self.request(question, passage, seed))
        if response.usage is not None:
            xcs.record_usage(tokens=response.usage.tokens, cost=response.cost)
        return Draft(text=finished(response), source=passage.source)


def local_language(model: models.SmolLM2) -> Language:
    """Returns SmolLM2 as writer and judge."""
    yes, no = (int(model.encode_text(word)[0]) for word in ("Yes", "No"))

    @xcs.host(out=jax.ShapeDtypeStruct((JUDGED_TOKENS,), jnp.int32), deterministic=True)
    def judging(question: str, answer: str) -> np.ndarray:
        """The token ids of what the judge is asked."""
        told = [model.decode(model.encode_text(t)[:TOLD_TOKENS]) for t in (question, answer)]
        return model.encode(JUDGING.format(question=told[0], answer=told[1]), JUDGED_TOKENS)

    def judge(question: str, texts: Any) -> jax.Array:
        tokens = jax.vmap(judging, in_axes=(None, 0))(question, texts)
        last = jnp.sum(tokens >= 0, axis=1) - 1
        logits = jnp.take_along_axis(model(tokens), last[:, None, None], axis=1)[:, 0]
        return jax.nn.sigmoid(logits[:, yes] - logits[:, no])

    return Language(repr(model), LocalWriter(model=model), judge)


def remote_language(model: models.ModelAPI) -> Language:
    """Returns a model on a server as writer and judge."""
    rate = models.LLMOperator(model, xcs.Template(RATING), Verdict, name="rate")

    def judge(question: str, texts: Any) -> jax.Array:
        return jax.vmap(lambda text: rate(question=question, answer=text).score)(texts)

    return Language(repr(model), RemoteWriter(model=model), judge)
