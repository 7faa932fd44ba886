"""The program: from a question to an answer, as one staged function.

::

    question -> embed_question -> relevance -> shortlist -> fetch (x 12) -> focus (x 12) -> rerank
                                                                                              |
    answer <- judge <- embed_draft (x 24) <- Quote, Define, ... (six readers, x 4 each) <- shortlist

``vmap`` makes one call for each passage and each draft; indexing host values by ``argsort`` and
``argmax`` chooses among them; and what lies between the host calls is compiled by JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import ember_xcs as xcs
from examples.demo import numeric
from examples.demo.corpus import Passage
from examples.demo.library import Library
from examples.demo.readers import READERS, Draft
from examples.demo.text import paragraphs, question_terms, sentences, terms

CANDIDATES = 12
"""How many passages are fetched."""

READ = 4
"""How many of them are read."""


class Answer(NamedTuple):
    """What the program returns.

    Attributes:
        draft: The draft that was chosen.
        reader: The position in ``READERS`` of the reader that made it.
        score: What the judge gave it, from 0 to 1.
        share: How much of the judge's belief it got, among all drafts.
    """

    draft: Draft
    reader: jax.Array
    score: jax.Array
    share: jax.Array


@dataclass(frozen=True)
class Program:
    """One program in three forms, which give the same answers.

    Attributes:
        one: Staged: from a question to an answer.
        batch: Staged, under ``vmap``: from a list of questions to a batch of answers.
        plain: Plain Python that calls the same operators, one after another.
    """

    one: Any
    batch: Any
    plain: Callable[[str], Answer]


def ask(program: Program, questions: Sequence[str]) -> list[Answer]:
    """Returns the answers to questions; several are one batch."""
    if len(questions) == 1:
        return [program.one(questions[0])]
    batch = program.batch(list(questions))
    fields = zip(*vars(batch.draft).values(), strict=True)
    drafts = [Draft(**dict(zip(vars(batch.draft), values, strict=True))) for values in fields]
    return [
        Answer(*answer)
        for answer in zip(drafts, batch.reader, batch.score, batch.share, strict=True)
    ]


def make_program(library: Library, latency_seconds: float = 0.0) -> Program:
    """Returns the program over a library.

    Args:
        library: What the answers are from.
        latency_seconds: How long each call of a reader waits, in seconds.
    """
    host = host_operators(library)
    readers = [reader(library, latency_seconds) for reader in READERS]

    def answer(question: str) -> Answer:
        query = host.embed_question(question)
        scores = relevance(library, query)
        candidates = numeric.shortlist(scores, CANDIDATES)
        passages = jax.vmap(host.fetch)(candidates)
        focus = jax.vmap(host.focus, in_axes=(None, 0))(question, passages)
        fit = numeric.rerank(scores[candidates], focus)
        best = numeric.shortlist(fit, READ)
        chosen = jax.tree.map(lambda field: field[best], passages)  # host values, by numbers

        drafted = [jax.vmap(reader, in_axes=(None, 0))(question, chosen) for reader in readers]
        drafts = jax.tree.map(lambda *parts: jnp.concatenate(parts), *drafted)
        said = jax.vmap(host.embed_draft)(drafts.text, drafts.source)
        fits = jnp.tile(fit[best], len(readers))
        score, share = numeric.judge(library.rarity, query, said, drafts.confidence, fits)
        winner = jnp.argmax(score)
        draft = jax.tree.map(lambda field: field[winner], drafts)
        return Answer(draft, winner // READ, score[winner], share[winner])

    def answers(questions: Sequence[str]) -> Answer:
        return jax.vmap(answer)(jnp.stack(questions))

    def answer_sequentially(question: str) -> Answer:
        query = host.embed_question(question)
        scores = relevance(library, query)
        candidates = numeric.shortlist(scores, CANDIDATES)
        passages = [host.fetch(int(index)) for index in candidates]
        focus = jnp.array([host.focus(question, passage) for passage in passages])
        fit = numeric.rerank(scores[candidates], focus)
        best = numeric.shortlist(fit, READ)
        chosen = [passages[int(position)] for position in best]

        drafts = [reader(question, passage) for reader in readers for passage in chosen]
        said = jnp.stack([host.embed_draft(draft.text, draft.source) for draft in drafts])
        confidence = jnp.array([draft.confidence for draft in drafts])
        fits = jnp.tile(fit[best], len(readers))
        score, share = numeric.judge(library.rarity, query, said, confidence, fits)
        winner = jnp.argmax(score)
        return Answer(drafts[int(winner)], winner // READ, score[winner], share[winner])

    return Program(xcs.jit.trace(answer), xcs.jit.trace(answers), answer_sequentially)


class HostOperators(NamedTuple):
    """What looks things up in a library.

    Attributes:
        embed_question: The terms of a question, as a vector.
        embed_draft: The terms of a text and of its source, as a vector.
        fetch: From a position to the passage.
        focus: How much of a question one sentence of a passage covers, from 0 to 1.
    """

    embed_question: Any
    embed_draft: Any
    fetch: Any
    focus: Any


def host_operators(library: Library) -> HostOperators:
    """Returns the host operators that look things up in a library."""
    vector = jax.ShapeDtypeStruct(library.rarity.shape, jnp.float32)

    @xcs.host(out=vector, deterministic=True)
    def embed_question(question: str) -> np.ndarray:
        return library.count(question_terms(question))

    @xcs.host(out=vector, deterministic=True)
    def embed_draft(text: str, source: str) -> np.ndarray:
        return library.count(terms(f"{source}\n{text}"))

    @xcs.host(deterministic=True)
    def fetch(index: int) -> Passage:
        return library.passages[index]

    @xcs.host(deterministic=True)
    def focus(question: str, passage: Passage) -> float:
        """How much of the question one sentence of a passage covers, from 0 to 1."""
        asked, above = question_terms(question), terms(passage.heading)
        lines = [terms(s) for p in paragraphs(passage.text) for s in sentences(p)]
        alone = max((library.coverage(asked, line) for line in lines), default=0.0)
        headed = max((library.coverage(asked, line + above) for line in lines), default=0.0)
        return (alone + headed) / 2

    return HostOperators(embed_question, embed_draft, fetch, focus)


def relevance(library: Library, query: jax.Array) -> Any:
    """Returns how well each passage of a library fits the terms of a question."""
    return numeric.relevance(library.bm25, library.titles, library.lead, library.rarity, query)
