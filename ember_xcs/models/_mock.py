"""A model that answers at once, from a seed or from a list: for tests and examples."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from ember_xcs.errors import InvalidRequest, ServiceUnavailable
from ember_xcs.models._api import (
    Ask,
    ModelRequest,
    ModelResponse,
    ModelUsage,
    Price,
    request_of,
)

__all__ = ["MockModel"]

Answer: TypeAlias = str | Exception
Responses: TypeAlias = (
    Sequence[Answer] | Mapping[str, Answer | Sequence[Answer]] | Callable[[str], Answer]
)


class MockModel:
    """A model whose answers follow from its seed and the prompt, or are given.

    Tokens are words. It is safe to use from many threads and event loops at once.

    Args:
        seed: What the answers and the failures depend on, besides the prompt.
        responses: The answers, instead: a list, given one after another; a dict by prompt, of
            answers or lists of them; or a function of the prompt. An exception is raised.
        latency_seconds: How long an answer takes, in seconds.
        failure_rate: The part of the requests that fail with ``ServiceUnavailable``, from 0 to
            1. Each attempt of a prompt is a throw of its own.
        name: What it is called.
        price: What a million tokens cost, of prompts and of answers.

    Attributes:
        calls: What it was asked so far, a list of ``ModelRequest``.

    Example:
        >>> model = MockModel(responses={"Why?": "Because."})
        >>> model.generate("Why?").text
        'Because.'
        >>> [request.prompt for request in model.calls]
        ['Why?']
        >>> MockModel(seed=1).generate("a") == MockModel(seed=1).generate("a")
        True
    """

    def __init__(
        self,
        seed: int = 0,
        responses: Responses | None = None,
        latency_seconds: float = 0.0,
        failure_rate: float = 0.0,
        *,
        name: str = "mock",
        price: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        if not 0.0 <= failure_rate <= 1.0:
            raise ValueError(f"MockModel: failure_rate={failure_rate!r} is to be from 0 to 1.")
        if not latency_seconds >= 0.0:
            raise ValueError(f"MockModel: latency_seconds={latency_seconds!r} is to be 0 or more.")
        if isinstance(responses, str):
            raise TypeError("MockModel: responses is a list, a dict or a function, not a str.")
        self.seed = seed
        self.responses = responses
        self.latency_seconds = latency_seconds
        self.failure_rate = failure_rate
        self.name = name
        self.price = Price(*price)
        self._lock = threading.Lock()
        self._calls: list[ModelRequest] = []
        self._served: Counter[str] = Counter()

    @property
    def calls(self) -> list[ModelRequest]:
        """What it was asked so far."""
        with self._lock:
            return list(self._calls)

    def generate(self, request: Ask) -> ModelResponse:
        """Returns the answer, after its latency."""
        asked, turn = self._begin(request)
        if self.latency_seconds:
            time.sleep(self.latency_seconds)
        return self._answer(asked, turn)

    async def agenerate(self, request: Ask) -> ModelResponse:
        """Returns the answer, after its latency."""
        asked, turn = self._begin(request)
        if self.latency_seconds:
            await asyncio.sleep(self.latency_seconds)
        return self._answer(asked, turn)

    def _begin(self, request: Ask) -> tuple[ModelRequest, int]:
        """Takes note of a request; returns it, and how many came before it in its line."""
        asked = request_of(request)
        in_one_line = isinstance(self.responses, Sequence)
        with self._lock:
            self._calls.append(asked)
            line = "" if in_one_line else self._digest(asked)
            self._served[line] += 1
            return asked, self._served[line] - 1

    def _answer(self, request: ModelRequest, turn: int) -> ModelResponse:
        if self._fails(request, turn):
            raise ServiceUnavailable(
                f"model {self.name!r} fails {self.failure_rate:.0%} of its requests, and this was "
                "one of them. Try again, or lower failure_rate.",
                self.name,
                503,
            )
        answer = self._given(request, turn)
        if isinstance(answer, Exception):
            raise answer
        words = sum(len(text.split()) for text in map(_content, request.chat))
        usage = ModelUsage(prompt_tokens=words, completion_tokens=len(answer.split()))
        return ModelResponse(
            text=answer,
            model=self.name,
            usage=usage,
            cost=self.price.cost(usage),
            latency_seconds=self.latency_seconds,
            finish_reason="stop",
        )

    def _given(self, request: ModelRequest, turn: int) -> Answer:
        if self.responses is None:
            return f"mock answer {self._digest(request)[:8]}"
        if isinstance(self.responses, Mapping):
            return self._by_prompt(self.responses, request, turn)
        if isinstance(self.responses, Sequence):
            return self._in_turn(self.responses, turn)
        return self.responses(request.user_texts[-1])

    def _by_prompt(self, responses: Mapping[str, Any], request: ModelRequest, turn: int) -> Answer:
        """What a dict has for the last text of the user, or for the first if that is a reply."""
        texts = request.user_texts
        for text in texts[-1:] + texts[:1]:
            if text in responses:
                found: Any = responses[text]
                single = isinstance(found, str | Exception)
                return found if single else self._in_turn(found, turn)
        raise InvalidRequest(
            f"model {self.name!r} has responses for {len(responses)} prompts, and was asked "
            "something else; .calls says what. Add it to responses.",
            self.name,
        )

    def _in_turn(self, responses: Sequence[Answer], turn: int) -> Answer:
        if turn < len(responses):
            return responses[turn]
        raise InvalidRequest(
            f"model {self.name!r} has {len(responses)} responses, and was asked once more. Give "
            "it as many responses as it is asked for, or a function.",
            self.name,
        )

    def _fails(self, request: ModelRequest, turn: int) -> bool:
        if not self.failure_rate:
            return False
        thrown = hashlib.sha256(f"{self._digest(request)} {turn}".encode()).digest()
        return int.from_bytes(thrown[:7]) / 2**56 < self.failure_rate

    def _digest(self, request: ModelRequest) -> str:
        content = json.dumps([self.seed, request.chat, request.params], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def __xcs_identity__(self) -> Any:
        """What its answers depend on."""
        return self.name, self.seed, self.responses, self.failure_rate

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def __repr__(self) -> str:
        return f"MockModel(name={self.name!r}, seed={self.seed!r})"


def _content(message: Mapping[str, Any]) -> str:
    return str(message.get("content", ""))
