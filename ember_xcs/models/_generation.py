"""Answers, token by token: as one program of JAX for a batch of prompts.

A row's draws depend on its seed and on how many it has drawn, not on the rows beside it. Prompts
are padded at their ends; what is generated stands in the slots after the padding, the same for all
rows, so that a step writes its keys to one place. What a row sees is its prompt and its answer.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from ember_xcs.models._decoder import (
    Architecture,
    Cache,
    DecoderWeights,
    hidden_states,
    logits_of,
)

__all__ = ["Continuation", "Prompts", "continuation", "continued", "states_of", "token_logprobs"]


class Prompts(NamedTuple):
    """What is to be continued, and how; each has a leading axis of rows.

    Attributes:
        tokens: ``(rows, length)``, padded at their ends.
        lengths: How many are no padding, ``(rows,)``.
        limits: The most tokens of each answer, ``(rows,)``.
        seeds: What draws depend on, ``(rows,)``, uint32.
        temperatures: What logits are divided by; 0 for the likeliest token, ``(rows,)``.
        top_ps: Of which part of the probability tokens are drawn, ``(rows,)``.
    """

    tokens: jax.Array
    lengths: jax.Array
    limits: jax.Array
    seeds: jax.Array
    temperatures: jax.Array
    top_ps: jax.Array


class Continuation(NamedTuple):
    """What was generated.

    Attributes:
        tokens: ``(rows, max_tokens)``; behind its end a row has zeros.
        counts: How many tokens a row has, with the one that ends it, ``(rows,)``.
        logprobs: The log-probability of each token at temperature 1, ``(rows, max_tokens)``.
    """

    tokens: jax.Array
    counts: jax.Array
    logprobs: jax.Array


_Step: TypeAlias = tuple[jax.Array, jax.Array, Continuation]
"""The last token of each row, which rows go on, and what there is so far."""


def states_of(
    architecture: Architecture, weights: DecoderWeights, tokens: jax.Array
) -> tuple[jax.Array, Cache]:
    """Returns the last states of texts ``(rows, length)``, and their keys and values."""
    rows, length = tokens.shape
    positions = jnp.broadcast_to(jnp.arange(length), (rows, length))
    mask = jnp.tril(jnp.ones((length, length), bool))
    return hidden_states(architecture, weights, tokens, positions, mask[None])


def token_logprobs(
    architecture: Architecture, weights: DecoderWeights, tokens: jax.Array
) -> jax.Array:
    """Returns the log-probability of each token after those before it, ``(rows, length - 1)``.

    The logits of one row at a time are in memory, and are computed again for gradients.
    """
    states, _ = states_of(architecture, weights, tokens)

    @jax.checkpoint
    def of_row(row: tuple[jax.Array, jax.Array]) -> jax.Array:
        logits = logits_of(weights, row[0][:-1])
        chosen = jnp.take_along_axis(logits, row[1][1:, None], 1)[:, 0]
        return chosen - jax.nn.logsumexp(logits, 1)

    found: jax.Array = jax.lax.map(of_row, (states, tokens))
    return found


def continued(
    architecture: Architecture,
    weights: DecoderWeights,
    prompts: Prompts,
    max_tokens: int,
    ends: tuple[int, ...],
) -> Continuation:
    """Returns answers of at most ``max_tokens`` tokens; a step is one token of each row."""
    rows, length = prompts.tokens.shape
    states, cache = states_of(architecture, weights, prompts.tokens)
    last = jnp.take_along_axis(states, prompts.lengths[:, None, None] - 1, 1)[:, 0]
    slots = [(0, 0), (0, 0), (0, max_tokens), (0, 0)]
    cache = jax.tree.map(lambda kept: jnp.pad(kept, slots), cache)
    nothing = _zero_of_rows(prompts, last)
    table = jnp.broadcast_to(nothing[:, None], (rows, max_tokens))
    empty = Continuation(table, nothing, table.astype(jnp.float32))

    def chosen(state: jax.Array, step: jax.Array, alive: jax.Array, found: Continuation) -> _Step:
        token, logprob = _next_token(logits_of(weights, state), prompts, step)
        found = _with_token(found, step, alive, token, logprob)
        alive &= (step + 1 < prompts.limits) & ~jnp.isin(token, jnp.array(ends))
        return token, alive, found

    def goes_on(carry: tuple[jax.Array, _Step, Cache]) -> jax.Array:
        step, (_, alive, _), _ = carry
        return (step < max_tokens) & jnp.any(alive)

    def body(carry: tuple[jax.Array, _Step, Cache]) -> tuple[jax.Array, _Step, Cache]:
        step, (token, alive, found), cache = carry
        before = step - 1  # the place of the token that is read now
        mask = _visible(prompts.lengths, length, max_tokens, before)
        position = prompts.lengths[:, None] + before
        past = cache, length + before
        states, cache = hidden_states(
            architecture, weights, token[:, None], position, mask[:, None], past
        )
        return step + 1, chosen(states[:, 0], step, alive, found), cache

    first = chosen(last, jnp.int32(0), prompts.limits > nothing, empty)
    _, (_, _, found), _ = jax.lax.while_loop(goes_on, body, (jnp.int32(1), first, cache))
    return found


def _zero_of_rows(prompts: Prompts, states: jax.Array) -> jax.Array:
    """Zeros made of what is read: what a loop carries in a mesh has to vary with it."""
    columns = [x[(slice(None), *[0] * (x.ndim - 1))] for x in (*prompts, states)]
    return jnp.stack([jnp.isnan(x.astype(jnp.float32)) for x in columns]).all(0).astype(jnp.int32)


def _with_token(
    found: Continuation, step: jax.Array, alive: jax.Array, token: jax.Array, logprob: jax.Array
) -> Continuation:
    return Continuation(
        found.tokens.at[:, step].set(jnp.where(alive, token, 0)),
        found.counts + alive,
        found.logprobs.at[:, step].set(jnp.where(alive, logprob, 0.0)),
    )


def _visible(lengths: jax.Array, length: int, max_tokens: int, step: jax.Array) -> jax.Array:
    """Which slots a row sees at a step: its prompt, and its answer so far."""
    slots = jnp.arange(length + max_tokens)
    answer = (slots >= length) & (slots <= length + step)
    return (slots < lengths[:, None]) | answer


def _next_token(
    logits: jax.Array, prompts: Prompts, step: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns a token for each row, and its log-probability."""
    likeliest = jnp.argmax(logits, -1).astype(jnp.int32)
    is_drawn = prompts.temperatures > 0
    token = jax.lax.cond(
        jnp.any(is_drawn),
        lambda: jnp.where(is_drawn, _drawn(logits, prompts, step), likeliest),
        lambda: likeliest,
    )
    chosen = jnp.take_along_axis(logits, token[:, None], 1)[:, 0]
    return token, chosen - jax.nn.logsumexp(logits, -1)


def _drawn(logits: jax.Array, prompts: Prompts, step: jax.Array) -> jax.Array:
    """Returns a token for each row, drawn by its own key."""
    scaled = logits / jnp.where(prompts.temperatures > 0, prompts.temperatures, 1.0)[:, None]
    kept = jax.lax.cond(
        jnp.any(prompts.top_ps < 1.0),
        lambda: jnp.where(_nucleus(jax.nn.softmax(scaled), prompts.top_ps), scaled, -jnp.inf),
        lambda: scaled,
    )

    def of_row(seed: jax.Array, row: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(seed), step)
        return jax.random.categorical(key, row).astype(jnp.int32)

    return jax.vmap(of_row)(prompts.seeds, kept)


def _nucleus(probabilities: jax.Array, top_ps: jax.Array) -> jax.Array:
    """Which tokens are among the likeliest that together have at least ``top_p``.

    Holtzman et al. 2020, *The Curious Case of Neural Text Degeneration*. The least probability
    among them is found by bisection of its bits, which are in the order of the numbers: 31 sums
    take a tenth of the time of a sort of the vocabulary.
    """
    bits = jax.lax.bitcast_convert_type(probabilities, jnp.int32)

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        mass = jnp.sum(jnp.where(bits >= middle[:, None], probabilities, 0.0), -1)
        enough = mass >= top_ps
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    high = jnp.max(bits, -1) + 1
    low = high * 0  # made of the bits, since what a loop carries in a mesh has to vary with it
    threshold, _ = jax.lax.fori_loop(0, 31, halve, (low, high))
    at_least = jnp.minimum(threshold, jnp.max(bits, -1))
    return bits >= at_least[:, None]


def continuation(
    architecture: Architecture,
    weights: DecoderWeights,
    prompts: Prompts,
    max_tokens: int,
    ends: tuple[int, ...],
) -> Continuation:
    """Returns what ``continued`` does, and under ``vmap`` one batch of all rows."""

    @jax.custom_batching.custom_vmap
    def batch(weights: DecoderWeights, prompts: Prompts) -> Continuation:
        return continued(architecture, weights, prompts, max_tokens, ends)

    @batch.def_vmap
    def rows_of_lanes(size: int, batched: Any, weights: Any, prompts: Any) -> Any:
        over_weights, over_prompts = batched
        if any(jax.tree.leaves(over_weights)):
            axes = jax.tree.map(lambda lane: 0 if lane else None, batched)
            plain = functools.partial(continued, architecture, max_tokens=max_tokens, ends=ends)
            found = jax.vmap(plain, in_axes=tuple(axes), axis_size=size)(weights, prompts)
        else:
            lanes = jax.tree.map(functools.partial(_lane, size), prompts, over_prompts)
            rows = lanes.lengths.shape[1]
            merged = jax.tree.map(lambda x: x.reshape(size * rows, *x.shape[2:]), lanes)
            found = batch(weights, merged)
            found = jax.tree.map(lambda x: x.reshape(size, rows, *x.shape[1:]), found)
        return found, jax.tree.map(lambda _: True, found)

    found: Continuation = batch(weights, prompts)
    return found


def _lane(size: int, value: jax.Array, is_batched: bool) -> jax.Array:
    return value if is_batched else jnp.broadcast_to(value, (size, *value.shape))
