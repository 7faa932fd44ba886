"""The weights of a decoder from a GGUF file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from ember_xcs.models._decoder import Architecture, DecoderWeights, Layer
from ember_xcs.models._weight_files import WeightsInvalid

if TYPE_CHECKING:
    from ember_xcs.models._gguf import GGUF

__all__ = ["architecture_of", "weights_of"]

Floats = npt.NDArray[np.float32]


def architecture_of(gguf: GGUF) -> Architecture:
    """Returns the sizes that a file says its model has.

    Raises:
        WeightsInvalid: It does not say them, or is of another architecture.
    """
    found = gguf.metadata.get("general.architecture")
    if found != "llama" or "output.weight" in gguf.tensors:
        raise WeightsInvalid(
            f"{gguf.file.name!r} has a model of the architecture {found!r}"
            f"{' with an output of its own' if found == 'llama' else ''}; known here is 'llama' "
            "whose output is its embedding. Give a file of a SmolLM2."
        )
    return Architecture(
        heads=int(_field(gguf, "attention.head_count")),
        key_heads=int(_field(gguf, "attention.head_count_kv")),
        rotary_base=float(_field(gguf, "rope.freq_base")),
        epsilon=float(_field(gguf, "attention.layer_norm_rms_epsilon")),
        context=int(_field(gguf, "context_length")),
    )


def _field(gguf: GGUF, name: str) -> Any:
    try:
        return gguf.metadata[f"llama.{name}"]
    except KeyError:
        raise WeightsInvalid(
            f"{gguf.file.name!r} has no field 'llama.{name}'. Give a file of a SmolLM2."
        ) from None


def weights_of(gguf: GGUF, architecture: Architecture, dtype: Any) -> DecoderWeights:
    """Returns the weights of a file as arrays of a dtype, on JAX's device.

    Raises:
        WeightsInvalid: A tensor is missing, or of a kind that is not known here.
    """

    def put(array: Floats) -> jax.Array:
        return jnp.asarray(array.astype(dtype, copy=False))

    layers = range(int(_field(gguf, "block_count")))
    return DecoderWeights(
        put(gguf.tensor("token_embd.weight")),
        tuple(Layer(*map(put, _layer(gguf, f"blk.{k}", architecture))) for k in layers),
        put(gguf.tensor("output_norm.weight")),
    )


def _layer(gguf: GGUF, prefix: str, architecture: Architecture) -> tuple[Floats, ...]:
    def tensor(name: str) -> Floats:
        return gguf.tensor(f"{prefix}.{name}.weight")

    def product(*parts: Floats) -> Floats:
        return np.ascontiguousarray(np.concatenate(parts).T)

    query = _halves_apart(tensor("attn_q"), architecture.heads)
    key = _halves_apart(tensor("attn_k"), architecture.key_heads)
    return (
        tensor("attn_norm"),
        product(query, key, tensor("attn_v")),
        product(tensor("attn_output")),
        tensor("ffn_norm"),
        product(tensor("ffn_gate"), tensor("ffn_up")),
        product(tensor("ffn_down")),
    )


def _halves_apart(weight: Floats, heads: int) -> Floats:
    """The rows of each head in another order: rotated pairs are side by side in the file."""
    rows, width = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, width)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows, width)
