"""The Llama architecture in JAX: attention with fewer keys than queries, rotary positions, SwiGLU.

Touvron et al. 2023, *LLaMA: Open and Efficient Foundation Language Models*; Ainslie et al. 2023,
*GQA*; Su et al. 2021, *RoFormer*. All functions take batches ``(rows, length)``.

The layers are written out one after another: a scan over stacked weights copies those of a layer
at each step, and takes twice as long on a CPU. Norms, attention weights and logits are float32,
whatever the dtype of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

__all__ = ["Architecture", "Cache", "DecoderWeights", "Layer", "hidden_states", "logits_of"]

Cache: TypeAlias = tuple[tuple[jax.Array, jax.Array], ...]
"""Keys and values of each layer, ``(rows, key heads, slots, head width)``."""


@dataclass(frozen=True)
class Architecture:
    """The sizes of a decoder.

    Attributes:
        heads: Queries of a position.
        key_heads: Keys of a position; each serves ``heads / key_heads`` queries.
        rotary_base: The base of the wavelengths of positions.
        epsilon: What keeps norms from dividing by zero.
        context: The most tokens of a text.
    """

    heads: int
    key_heads: int
    rotary_base: float
    epsilon: float
    context: int


class Layer(NamedTuple):
    """The weights of a layer; of products ``(in, out)``, which is quicker than as files have them.

    Attributes:
        attention_norm: ``(width,)``.
        query_key_value: Of all three, one after another.
        attention_out: ``(width, width)``.
        mlp_norm: ``(width,)``.
        gate_up: Of both, one after another.
        down: ``(inner, width)``.
    """

    attention_norm: jax.Array
    query_key_value: jax.Array
    attention_out: jax.Array
    mlp_norm: jax.Array
    gate_up: jax.Array
    down: jax.Array


class DecoderWeights(NamedTuple):
    """All weights of a decoder.

    Attributes:
        embedding: ``(vocabulary, width)``; also what makes logits of states.
        layers: From the first to the last.
        norm: Of the last states, ``(width,)``.
    """

    embedding: jax.Array
    layers: tuple[Layer, ...]
    norm: jax.Array


def hidden_states(
    architecture: Architecture,
    weights: DecoderWeights,
    tokens: jax.Array,
    positions: jax.Array,
    mask: jax.Array,
    past: tuple[Cache, jax.Array] | None = None,
) -> tuple[jax.Array, Cache]:
    """Returns the last states ``(rows, length, width)``, and keys and values.

    Args:
        architecture: The sizes.
        weights: The weights.
        tokens: ``(rows, length)``.
        positions: Where each token stands in its text, ``(rows, length)``.
        mask: Which slots each token sees, ``(rows, length, slots)``; without a past, a slot is a
            token.
        past: Keys and values so far, and the slot where those of these tokens are put; the same
            slot for all rows.
    """
    x = weights.embedding[tokens]
    rotation = _rotation(architecture, positions, x.shape[-1] // architecture.heads)
    cache = []
    for k, layer in enumerate(weights.layers):
        slots = None if past is None else (past[0][k], past[1])
        normed = _rms(x, layer.attention_norm, architecture.epsilon)
        attended, kept = _attention(architecture, layer, normed, rotation, mask, slots)
        x = x + attended
        x = x + _mlp(layer, _rms(x, layer.mlp_norm, architecture.epsilon))
        cache.append(kept)
    return _rms(x, weights.norm, architecture.epsilon), tuple(cache)


def logits_of(weights: DecoderWeights, states: jax.Array) -> jax.Array:
    """Returns the logits of the next tokens, ``(..., vocabulary)``, float32."""
    return jnp.einsum(
        "...d,vd->...v", states, weights.embedding, preferred_element_type=jnp.float32
    )


def _rms(x: jax.Array, weight: jax.Array, epsilon: float) -> jax.Array:
    wide = x.astype(jnp.float32)
    scale = jax.lax.rsqrt(jnp.mean(wide * wide, -1, keepdims=True) + epsilon)
    return (wide * scale).astype(x.dtype) * weight


def _product(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Of ``(rows, length, in)`` and ``(in, out)``: one of matrices, which is the quickest."""
    rows, length, width = x.shape
    return (x.reshape(rows * length, width) @ weight).reshape(rows, length, weight.shape[-1])


def _mlp(layer: Layer, x: jax.Array) -> jax.Array:
    gate, up = jnp.split(_product(x, layer.gate_up), 2, axis=-1)
    return _product(jax.nn.silu(gate) * up, layer.down)


def _rotation(
    architecture: Architecture, positions: jax.Array, width: int
) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines of the angles, ``(rows, 1, length, width / 2)``."""
    exponents = jnp.arange(0, width, 2, dtype=jnp.float32) / width
    angles = positions[:, None, :, None] / architecture.rotary_base**exponents
    return jnp.cos(angles), jnp.sin(angles)


def _rotated(x: jax.Array, rotation: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Turns each pair of numbers, one of the first half and one of the second."""
    cos, sin = rotation
    one, other = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([one * cos - other * sin, other * cos + one * sin], -1)
    return turned.astype(x.dtype)


def _attention(
    architecture: Architecture,
    layer: Layer,
    x: jax.Array,
    rotation: tuple[jax.Array, jax.Array],
    mask: jax.Array,
    past: tuple[tuple[jax.Array, jax.Array], jax.Array] | None,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    rows, length, width = x.shape
    heads, key_heads = architecture.heads, architecture.key_heads
    merged = _product(x, layer.query_key_value)
    each = merged.shape[-1] // (heads + 2 * key_heads)
    merged = merged.reshape(rows, length, heads + 2 * key_heads, each).swapaxes(1, 2)
    query, key, value = jnp.split(merged, (heads, heads + key_heads), axis=1)
    query, key = _rotated(query, rotation), _rotated(key, rotation)
    if past is not None:
        (keys, values), slot = past
        key = jax.lax.dynamic_update_slice_in_dim(keys, key, slot, 2)
        value = jax.lax.dynamic_update_slice_in_dim(values, value, slot, 2)
    query = query.reshape(rows, key_heads, heads // key_heads, length, each)
    scores = jnp.einsum("bkgtd,bksd->bkgts", query, key, preferred_element_type=jnp.float32)
    scores = jnp.where(mask[:, None, None], scores / query.shape[-1] ** 0.5, -jnp.inf)
    weights = jax.nn.softmax(scores, -1).astype(x.dtype)
    mixed = jnp.einsum("bkgts,bksd->bkgtd", weights, value)
    mixed = mixed.reshape(rows, heads, length, each).swapaxes(1, 2).reshape(rows, length, width)
    return _product(mixed, layer.attention_out), (key, value)
