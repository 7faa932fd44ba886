"""What is computed from the reference once, before any question: its vocabulary and its weights."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from examples.demo import numeric
from examples.demo.corpus import Passage, load_passages
from examples.demo.text import terms, title_terms


@dataclass(frozen=True, eq=False)
class Library:
    """The passages, and the terms in them.

    Attributes:
        passages: All passages.
        columns: Which column of the arrays a term has; a term that is in no passage has the last.
        rarity: How much a term says, ``(terms,)``: its inverse document frequency.
        bm25: The weight of each term in each passage, ``(passages, terms)``.
        titles: Which terms are in the headings over each passage, ``(passages, terms)``.
        lead: How near the beginning of its section each passage is, from 0 to 1, ``(passages,)``.
    """

    passages: tuple[Passage, ...]
    columns: dict[str, int]
    rarity: jax.Array
    bm25: jax.Array
    titles: jax.Array
    lead: jax.Array

    def count(self, found: Iterable[str]) -> np.ndarray:
        """Returns how often each term was found, ``(terms,)``."""
        return _count(found, self.columns)

    @functools.cached_property
    def weights(self) -> dict[str, float]:
        """How much each term says, for host code."""
        rarity = np.asarray(self.rarity).tolist()
        return {term: rarity[column] for term, column in self.columns.items()}

    def coverage(self, wanted: Iterable[str], found: Iterable[str]) -> float:
        """Returns which share of the wanted terms, by what they say, is among the found ones."""
        unknown = max(self.weights.values())
        worth = {term: self.weights.get(term, unknown) for term in wanted}
        total = sum(worth.values())
        return sum(worth[term] for term in worth.keys() & set(found)) / total if total else 0.0


@functools.cache
def load_library() -> Library:
    """Returns the library of the Python language reference."""
    passages = load_passages()
    texts = [terms(f"{passage.heading}\n{passage.text}") for passage in passages]
    columns = {term: k for k, term in enumerate(sorted(set().union(*texts)))}
    counts = jnp.asarray(np.stack([_count(found, columns) for found in texts]))
    titles = np.stack([_count(title_terms(passage.heading), columns) for passage in passages])
    rarity, bm25 = numeric.embed_passages(counts)
    return Library(
        passages, columns, rarity, bm25, jnp.asarray(titles > 0, jnp.float32), _lead(passages)
    )


def _lead(passages: Iterable[Passage]) -> jax.Array:
    before: Counter[str] = Counter()
    lead = []
    for passage in passages:
        lead.append(1 / (1 + before[passage.source]))
        before[passage.source] += 1
    return jnp.array(lead)


def _count(found: Iterable[str], columns: dict[str, int]) -> np.ndarray:
    counts = np.zeros(len(columns) + 1, np.float32)
    for term, times in Counter(found).items():
        counts[columns.get(term, -1)] += times
    return counts
