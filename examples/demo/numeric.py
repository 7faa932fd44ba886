"""The numbers of the program, in JAX: scores of passages, and scores of drafts."""

from __future__ import annotations

import jax
import jax.numpy as jnp

import ember_xcs as xcs

TITLE_BOOST = 6.0
"""What a term of the question is worth in a heading, against the rarity of the term."""

LEAD_BOOST = 0.25
"""What it is worth to be the first passage of a section: it says what the section is about."""


@jax.jit
def embed_passages(
    counts: jax.Array, k1: float = 1.2, b: float = 0.75
) -> tuple[jax.Array, jax.Array]:
    """Returns the rarity of each term, and the BM25 weight of each term in each passage.

    Robertson and Zaragoza (2009), "The Probabilistic Relevance Framework: BM25 and Beyond".

    Args:
        counts: How often each term is in each passage, ``(passages, terms)``.
        k1: How soon more of the same term adds nothing.
        b: How much a long passage is held against it, from 0 to 1.
    """
    total = counts.shape[0]
    containing = (counts > 0).sum(axis=0)
    rarity = jnp.log1p((total - containing + 0.5) / (containing + 0.5))
    length = counts.sum(axis=1, keepdims=True)
    norm = k1 * (1 - b + b * length / length.mean())
    return rarity, rarity * counts * (k1 + 1) / (counts + norm)


@xcs.pure
def relevance(
    bm25: jax.Array, titles: jax.Array, lead: jax.Array, rarity: jax.Array, query: jax.Array
) -> jax.Array:
    """Returns how well each passage fits the question, ``(passages,)``, from 0 upwards.

    Args:
        bm25: The weight of each term in each passage, ``(passages, terms)``.
        titles: Which terms are in the headings over each passage, ``(passages, terms)``.
        lead: How near the beginning of its section each passage is, ``(passages,)``.
        rarity: How much each term says, ``(terms,)``.
        query: How often each term is in the question, ``(terms,)``.
    """
    asked = jnp.minimum(query, 1.0)
    worth = asked * rarity
    title_length = jnp.sqrt(titles @ rarity + 1.0)
    score = bm25 @ asked + TITLE_BOOST * (titles @ worth) / title_length
    return score * (1 + LEAD_BOOST * lead) / (worth.sum() + 1e-6)


@xcs.pure
def shortlist(scores: jax.Array, count: int) -> jax.Array:
    """Returns the positions of the best scores, the best first, ``(count,)``."""
    return jnp.argsort(-scores)[:count]


@xcs.pure
def rerank(scores: jax.Array, focus: jax.Array) -> jax.Array:
    """Returns scores of passages raised where one sentence says what was asked for."""
    return scores * (0.4 + focus)


@xcs.pure
def judge(
    rarity: jax.Array,
    query: jax.Array,
    drafts: jax.Array,
    confidence: jax.Array,
    fit: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Returns which draft to answer with, and the share of the belief that each one gets.

    Args:
        rarity: How much each term says, ``(terms,)``.
        query: The terms of the question, ``(terms,)``.
        drafts: The terms of each draft and of the headings over it, ``(drafts, terms)``.
        confidence: What each reader thinks of its draft, from 0 to 1, ``(drafts,)``.
        fit: How well the passage of each draft fits the question, ``(drafts,)``.
    """
    worth = jnp.minimum(query, 1.0) * rarity
    coverage = jnp.minimum(drafts, 1.0) @ worth / (worth.sum() + 1e-6)
    standing = jnp.sqrt(fit / (fit.max() + 1e-6))
    score = confidence * (0.25 + 0.75 * coverage) * (0.6 + 0.4 * standing)
    return score, jax.nn.softmax(16.0 * score)
