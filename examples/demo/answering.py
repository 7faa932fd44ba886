"""The program: from a question to the best of many drafts, as one staged function.

::

    question -> embed_question -> relevance -> shortlist (24) -> MiniLM -> shortlist -> fetch (x 2)
                                                                                             |
    answer <- argmax of confidence, judge, nearness <- drafts (x 8, one batch of the model) <+

Each passage is read four times, with seeds of its own. The drafts are scored by how sure the model
was of its words, by a judge, and by how near they are to the question; all of that is numbers,
compiled with what chooses by them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import ember_xcs as xcs
from ember_xcs import models
from examples.demo import numeric
from examples.demo.language import Draft, Language
from examples.demo.library import Library
from examples.demo.program import host_operators, relevance

CANDIDATES = 24
"""How many passages are compared with the question by what they mean."""

READ = 2
"""How many of them are read."""

EMBEDDED_TOKENS = 128
"""How much of a passage or a draft is embedded."""


class Answer(NamedTuple):
    """What the program returns.

    Attributes:
        drafts: All drafts, ``(n,)``.
        scores: Their scores, from 0 to 1, ``(n,)``.
        best: The draft with the highest.
    """

    drafts: Draft
    scores: jax.Array
    best: Draft


Search = Callable[[str], Any]
"""From a question to positions of passages, ``(READ,)``."""

Nearness = Callable[[str, Any], jax.Array]
"""From a question and texts to how near they are, from 0 to 1, ``(n,)``."""


def make_answering(
    library: Library, language: Language, embedder: models.MiniLM | None, samples: int = 4
) -> Any:
    """Returns the staged program.

    Args:
        library: What the answers are from.
        language: What writes and judges.
        embedder: What compares texts by what they mean; None for their words.
        samples: How many drafts are written from each passage.
    """
    search, nearness = _by_words(library) if embedder is None else _by_meaning(library, embedder)
    fetch = host_operators(library).fetch

    def answer(question: str, seed: int) -> Answer:
        passages = jax.vmap(fetch)(search(question))
        each_passage = jnp.repeat(jnp.arange(READ), samples)
        read = jax.tree.map(lambda field: field[each_passage], passages)
        seeds = seed + jnp.arange(READ * samples)
        drafts = jax.vmap(language.write, in_axes=(None, 0, 0))(question, read, seeds)
        judged = language.judge(question, drafts.text)
        scores = jnp.cbrt(drafts.confidence * judged * nearness(question, drafts.text))
        winner = jnp.argmax(scores)
        return Answer(drafts, scores, jax.tree.map(lambda field: field[winner], drafts))

    return xcs.jit.trace(answer)


def _by_words(library: Library) -> tuple[Search, Nearness]:
    host = host_operators(library)

    def search(question: str) -> jax.Array:
        return numeric.shortlist(relevance(library, host.embed_question(question)), READ)

    def nearness(question: str, texts: Any) -> jax.Array:
        worth = jnp.minimum(host.embed_question(question), 1.0) * library.rarity
        said = jax.vmap(host.embed_draft, in_axes=(0, None))(texts, "")
        return jnp.minimum(said, 1.0) @ worth / (worth.sum() + 1e-6)

    return search, nearness


def _by_meaning(library: Library, embedder: models.MiniLM) -> tuple[Search, Nearness]:
    host = host_operators(library)
    ids = jax.ShapeDtypeStruct((EMBEDDED_TOKENS,), jnp.int32)

    @xcs.host(out=ids, deterministic=True)
    def tokens(text: str) -> np.ndarray:
        return embedder.encode(text, EMBEDDED_TOKENS)

    texts = [f"{passage.heading}\n{passage.text}" for passage in library.passages]
    passages = jnp.asarray(np.stack([embedder.encode(t, EMBEDDED_TOKENS) for t in texts]))

    def search(question: str) -> jax.Array:
        found = relevance(library, host.embed_question(question))
        candidates = numeric.shortlist(found, CANDIDATES)
        near = embedder(passages[candidates]) @ embedder(tokens(question))
        return candidates[numeric.shortlist(near, READ)]

    def nearness(question: str, texts: Any) -> jax.Array:
        said = embedder(jax.vmap(tokens)(texts))
        return (1 + said @ embedder(tokens(question))) / 2

    return search, nearness
