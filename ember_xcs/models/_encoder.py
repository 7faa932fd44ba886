"""BERT in JAX: attention of all tokens of a text to one another.

Devlin et al. 2018, *BERT: Pre-training of Deep Bidirectional Transformers*. Norms, attention
weights and the mean are float32, whatever the dtype of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Affine", "EncoderLayer", "EncoderWeights", "embeddings_of", "encoder_weights"]

_EPSILON = 1e-12


class Affine(NamedTuple):
    """A product and a sum, or a norm with its scale and shift.

    Attributes:
        weight: ``(in, out)``; of a norm, ``(width,)``.
        bias: ``(out,)``.
    """

    weight: jax.Array
    bias: jax.Array


class EncoderLayer(NamedTuple):
    """The weights of a layer.

    Attributes:
        query_key_value: Of all three, one after another.
        attention_out: Of what was attended to.
        attention_norm: After the attention.
        up: Into the inner width.
        down: Out of it.
        norm: After the layer.
    """

    query_key_value: Affine
    attention_out: Affine
    attention_norm: Affine
    up: Affine
    down: Affine
    norm: Affine


class EncoderWeights(NamedTuple):
    """All weights of an encoder.

    Attributes:
        words: ``(vocabulary, width)``.
        positions: ``(longest text, width)``.
        norm: Of their sum.
        layers: From the first to the last.
    """

    words: jax.Array
    positions: jax.Array
    norm: Affine
    layers: tuple[EncoderLayer, ...]


def embeddings_of(weights: EncoderWeights, heads: int, tokens: jax.Array) -> jax.Array:
    """Returns the mean of the last states of each text, of length 1: ``(rows, width)``, float32.

    Args:
        weights: The weights.
        heads: Into how many parts attention divides the width.
        tokens: ``(rows, length)``; padding is negative.
    """
    is_token = tokens >= 0
    x = weights.words[jnp.maximum(tokens, 0)] + weights.positions[: tokens.shape[1]]
    x = _normed(x, weights.norm)
    for layer in weights.layers:
        x = _normed(x + _attended(layer, heads, x, is_token), layer.attention_norm)
        inner = jax.nn.gelu(_affine(x, layer.up), approximate=False)
        x = _normed(x + _affine(inner, layer.down), layer.norm)
    counted = is_token[..., None].astype(jnp.float32)
    mean = (x.astype(jnp.float32) * counted).sum(1) / jnp.maximum(counted.sum(1), 1.0)
    length = jnp.sqrt(jnp.maximum(jnp.sum(mean * mean, -1, keepdims=True), _EPSILON**2))
    return mean / length


def _affine(x: jax.Array, layer: Affine) -> jax.Array:
    rows, length, width = x.shape
    flat = x.reshape(rows * length, width) @ layer.weight + layer.bias
    return flat.reshape(rows, length, layer.weight.shape[-1])


def _normed(x: jax.Array, norm: Affine) -> jax.Array:
    wide = x.astype(jnp.float32)
    centred = wide - wide.mean(-1, keepdims=True)
    scale = jax.lax.rsqrt(jnp.mean(centred * centred, -1, keepdims=True) + _EPSILON)
    return (centred * scale).astype(x.dtype) * norm.weight + norm.bias


def _attended(layer: EncoderLayer, heads: int, x: jax.Array, is_token: jax.Array) -> jax.Array:
    rows, length, width = x.shape
    merged = _affine(x, layer.query_key_value).reshape(rows, length, 3, heads, width // heads)
    query, key, value = (merged[:, :, k].swapaxes(1, 2) for k in range(3))
    scores = jnp.einsum("bhtd,bhsd->bhts", query, key, preferred_element_type=jnp.float32)
    # Not minus infinity: a row without any token, which fills up a batch, would be nan.
    scores = jnp.where(is_token[:, None, None], scores / query.shape[-1] ** 0.5, -1e30)
    shares = jax.nn.softmax(scores, -1).astype(x.dtype)
    mixed = jnp.einsum("bhts,bhsd->bhtd", shares, value)
    return _affine(mixed.swapaxes(1, 2).reshape(rows, length, width), layer.attention_out)


def encoder_weights(arrays: Mapping[str, Any], dtype: Any) -> EncoderWeights:
    """Returns the weights from arrays by the names that Hugging Face's BERT has.

    Raises:
        KeyError: One is missing.
    """

    def put(array: Any) -> jax.Array:
        return jnp.asarray(np.asarray(array).astype(dtype))

    def product(*names: str) -> Affine:
        weights = np.concatenate([arrays[f"{name}.weight"] for name in names])
        biases = np.concatenate([arrays[f"{name}.bias"] for name in names])
        return Affine(put(np.ascontiguousarray(weights.T)), put(biases))

    def norm(name: str) -> Affine:
        return Affine(put(arrays[f"{name}.weight"]), put(arrays[f"{name}.bias"]))

    def layer(name: str) -> EncoderLayer:
        own = f"{name}.attention.self"
        return EncoderLayer(
            product(f"{own}.query", f"{own}.key", f"{own}.value"),
            product(f"{name}.attention.output.dense"),
            norm(f"{name}.attention.output.LayerNorm"),
            product(f"{name}.intermediate.dense"),
            product(f"{name}.output.dense"),
            norm(f"{name}.output.LayerNorm"),
        )

    count = len({name.split(".")[2] for name in arrays if name.startswith("encoder.layer.")})
    # Texts are of one kind here, so that the embedding of kinds is part of the positions.
    positions = arrays["embeddings.position_embeddings.weight"]
    kinds = arrays["embeddings.token_type_embeddings.weight"]
    return EncoderWeights(
        put(arrays["embeddings.word_embeddings.weight"]),
        put(positions + kinds[0]),
        norm("embeddings.LayerNorm"),
        tuple(layer(f"encoder.layer.{k}") for k in range(count)),
    )
