"""Texts as tokens and back, by the vocabulary that a file of weights has itself."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ember_xcs.models._weight_files import WeightsInvalid

__all__ = ["ChatTokenizer", "TextTokenizer", "bucket", "checked_text", "padded", "tokenizers"]

Tokens = npt.NDArray[np.int32]

_SYSTEM: Final = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
_BEGIN, _END, _OVER = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
_CONTROL: Final = 3  # a token that stands for no text


def tokenizers() -> Any:
    """Returns the module ``tokenizers``.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import tokenizers  # noqa: PLC0415  (an extra)
    except ModuleNotFoundError:
        raise ImportError(
            "local models need tokenizers, which is not installed. "
            "Install it with: pip install 'ember_xcs[local]'"
        ) from None
    return tokenizers


class ChatTokenizer:
    """The tokenizer of a GGUF file, and the form in which its model is told a chat.

    What users write is text and nothing else: an ``<|im_end|>`` in a message ends no message.

    Args:
        metadata: The metadata of the file.

    Attributes:
        ends: The tokens that end an answer.

    Raises:
        ImportError: The extra ``local`` is not installed.
        WeightsInvalid: The file has no vocabulary, or one that is not known here.
    """

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        kind = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
        if kind != ("gpt2", "smollm"):
            raise WeightsInvalid(
                f"the vocabulary of the file is of the kind {kind}; known here is ('gpt2', "
                "'smollm'). Give a file of a SmolLM2."
            )
        names: list[str] = metadata["tokenizer.ggml.tokens"]
        kinds = metadata["tokenizer.ggml.token_type"]
        special = [n for n, k in zip(names, kinds, strict=True) if k == _CONTROL]
        self._ids = {name: i for i, name in enumerate(names)}
        merges = metadata["tokenizer.ggml.merges"]
        self._bpe = _byte_level(self._ids, merges, special)
        self._of = {key: v for key, v in metadata.items() if key.startswith("tokenizer.")}
        self._digest = hashlib.sha256("\0".join([*names, *merges]).encode()).hexdigest()
        self.ends = tuple(sorted({self._ids[_END], self._ids[_OVER]}))

    def encode(self, text: str) -> list[int]:
        """Returns the tokens of a text, in which nothing is special."""
        ids: list[int] = self._bpe.encode(checked_text(text), add_special_tokens=False).ids
        return ids

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens, without those that stand for none."""
        text: str = self._bpe.decode([int(token) for token in tokens])
        return text

    def chat(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Returns the tokens of a chat up to where the assistant begins to answer."""
        if not messages or messages[0]["role"] != "system":
            messages = [{"role": "system", "content": _SYSTEM}, *messages]
        tokens = []
        for message in messages:
            told = self.encode(f"{message['role']}\n{message.get('content') or ''}")
            tokens += [self._ids[_BEGIN], *told, self._ids[_END], *self._line_end]
        return [*tokens, self._ids[_BEGIN], *self.encode("assistant\n")]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ChatTokenizer) and self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)

    def __reduce__(self) -> Any:
        return ChatTokenizer, (self._of,)

    def __xcs_identity__(self) -> Any:
        """What its results depend on."""
        return self._digest

    def __repr__(self) -> str:
        return f"ChatTokenizer({len(self._ids)} tokens)"

    @functools.cached_property
    def _line_end(self) -> list[int]:
        return self.encode("\n")


class TextTokenizer:
    """The tokenizer of a ``tokenizer.json``.

    Args:
        description: What is in the file.
        longest: The most tokens of a text.

    Raises:
        ImportError: The extra ``local`` is not installed.
    """

    def __init__(self, description: str, longest: int) -> None:
        self._tokenizer = tokenizers().Tokenizer.from_str(description)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._made_of = description, longest

    def encode(self, text: str, longest: int) -> list[int]:
        """Returns the tokens of a text with those that frame it; if they are too many, the first.

        Args:
            text: The text.
            longest: How many there may be, with the two of the frame.
        """
        ids: list[int] = self._tokenizer.encode(checked_text(text)).ids
        longest = min(longest, self._made_of[1])
        return ids if len(ids) <= longest else [*ids[: longest - 1], ids[-1]]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TextTokenizer) and self._made_of == other._made_of

    def __hash__(self) -> int:
        return hash(self._made_of)

    def __reduce__(self) -> Any:
        return TextTokenizer, self._made_of

    def __xcs_identity__(self) -> Any:
        """What its results depend on."""
        return self._made_of

    def __repr__(self) -> str:
        return f"TextTokenizer({self._tokenizer.get_vocab_size()} tokens)"


def _byte_level(ids: Mapping[str, int], merges: Sequence[str], special: Sequence[str]) -> Any:
    """A byte-level tokenizer that takes each digit for itself, as SmolLM2 was trained."""
    library = tokenizers()
    pairs = [tuple(merge.split(" ")) for merge in merges]
    bpe = library.Tokenizer(library.models.BPE(vocab=dict(ids), merges=pairs))
    bpe.pre_tokenizer = library.pre_tokenizers.Sequence(
        [
            library.pre_tokenizers.Digits(individual_digits=True),
            library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    bpe.decoder = library.decoders.ByteLevel()
    bpe.add_special_tokens([library.AddedToken(name, special=True) for name in special])
    bpe.encode_special_tokens = True
    return bpe


def checked_text(text: str) -> str:
    """Returns a text.

    Raises:
        ValueError: It has half of a character that takes two, and so is none.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"a text has {text[error.start]!a} at {error.start}, which is half of a character "
            "that takes two. Replace it: text.encode(errors='replace').decode()."
        ) from None
    return text


def bucket(size: int, sizes: Sequence[int]) -> int:
    """Returns the least of ``sizes`` that is no less than ``size``; the last if there is none.

    >>> bucket(3, (1, 2, 4, 8)), bucket(9, (1, 2, 4, 8))
    (4, 8)
    """
    return next((known for known in sizes if known >= size), sizes[-1])


def padded(rows: Sequence[Sequence[int]], count: int, length: int, filler: int) -> Tokens:
    """Returns rows of tokens as an array ``(count, length)``, filled up at their ends."""
    table = np.full((count, length), filler, np.int32)
    for row, tokens in zip(table, rows, strict=False):
        row[: len(tokens)] = tokens
    return table
