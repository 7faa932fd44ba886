"""What is asked of a model, and what it answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self, TypeAlias, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

__all__ = [
    "Ask",
    "ModelAPI",
    "ModelRequest",
    "ModelResponse",
    "ModelUsage",
    "Price",
    "model_name",
    "request_of",
]

Message: TypeAlias = dict[str, JsonValue]


class ModelRequest(BaseModel):
    """What a model is asked: a prompt or the messages of a chat, and parameters.

    What is asked is not shown where it is printed, since that may be a log.

    Attributes:
        prompt: One text of the user; None where there are messages.
        messages: A chat as ``{"role": ..., "content": ...}``; None where there is a prompt.
        params: What else the model is told, such as ``temperature``.

    Example:
        >>> request = ModelRequest(prompt="Why?", params={"temperature": 0.7})
        >>> request.chat
        [{'role': 'user', 'content': 'Why?'}]
    """

    # What is asked is nobody's business but the model's: an error does not show it.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    prompt: str | None = None
    messages: tuple[Message, ...] | None = None
    params: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("a request has either a prompt or messages; give one of the two")
        if self.messages is not None and not all("role" in message for message in self.messages):
            raise ValueError("each message is a dict with a role, as in {'role': 'user', ...}")
        return self

    @property
    def chat(self) -> list[Message]:
        """The messages; of a prompt, the one that it is."""
        if self.messages is not None:
            return list(self.messages)
        return [{"role": "user", "content": self.prompt}]

    @property
    def user_texts(self) -> list[str]:
        """What the user says, message by message."""
        return [str(m.get("content", "")) for m in self.chat if m["role"] == "user"]

    def binding(self, params: Mapping[str, Any]) -> ModelRequest:
        """Returns the request with these parameters where it does not have its own."""
        return self if not params else self._changed(params={**params, **self.params})

    def followed_by(self, *messages: Message) -> ModelRequest:
        """Returns the chat with more messages."""
        return self._changed(prompt=None, messages=(*self.chat, *messages))

    def preceded_by(self, message: Message) -> ModelRequest:
        """Returns the chat with a message before all others."""
        return self._changed(prompt=None, messages=(message, *self.chat))

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Yields what is shown of it: parameters, and how much is asked, but not what."""
        if self.messages is not None:
            yield None, f"{len(self.messages)} messages"
        else:
            yield None, f"a prompt of {len(self.prompt or '')} characters"
        yield "params", self.params

    def _changed(self, **fields: Any) -> ModelRequest:
        given = {name: getattr(self, name) for name in type(self).model_fields}
        return ModelRequest(**{**given, **fields})


class ModelUsage(BaseModel):
    """How many tokens a call used.

    Attributes:
        prompt_tokens: Those of what was asked.
        completion_tokens: Those of the answer.

    Example:
        >>> ModelUsage(prompt_tokens=12, completion_tokens=3).tokens
        15
    """

    model_config = ConfigDict(frozen=True)

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.prompt_tokens + self.completion_tokens


class ModelResponse(BaseModel):
    """What a model answered; ``str()`` gives the text.

    Attributes:
        text: The answer.
        model: The name of the model, as it gives it itself.
        usage: The tokens that were used; None if the model does not say.
        cost: What it cost, in the currency of the prices; None if that is not known.
        latency_seconds: How long it took, in seconds.
        finish_reason: Why the answer ends, in the words of the model; None if it does not say.
        raw: All that the model sent.

    Example:
        >>> print(ModelResponse(text="Because.", model="mock"))
        Because.
    """

    model_config = ConfigDict(frozen=True)

    text: str
    model: str
    usage: ModelUsage | None = None
    cost: float | None = None
    latency_seconds: float = 0.0
    finish_reason: str | None = None
    raw: Any = Field(default=None, repr=False)

    def __str__(self) -> str:
        return self.text


Ask: TypeAlias = str | ModelRequest | Sequence[Mapping[str, Any]]
"""A prompt, a request, or the messages of a chat."""


@runtime_checkable
class ModelAPI(Protocol):
    """What a model can do. Any object with these methods is a model; none has to derive from it.

    A model may have a ``name``, which is also that of its resource for limits; a
    ``generate_batch(requests)``, plain or ``async def``, that returns a response for each request;
    and a ``retry``, an ``xcs.Retry`` by which a run tries its calls again.
    """

    def generate(self, request: Ask) -> ModelResponse:
        """Returns the answer, while the calling thread waits."""
        ...

    async def agenerate(self, request: Ask) -> ModelResponse:
        """Returns the answer."""
        ...


class Price(NamedTuple):
    """What a million tokens cost.

    Attributes:
        prompt: Those of what is asked.
        completion: Those of the answer.

    Example:
        >>> Price(0.5, 2.0).cost(ModelUsage(prompt_tokens=1000, completion_tokens=500))
        0.0015
    """

    prompt: float
    completion: float

    def cost(self, usage: ModelUsage) -> float:
        """Returns what a call cost."""
        used = usage.prompt_tokens * self.prompt + usage.completion_tokens * self.completion
        return used / 1e6


def request_of(ask: Ask) -> ModelRequest:
    """Returns a prompt, a request or a chat as a request.

    Raises:
        TypeError: It is none of these.
    """
    if isinstance(ask, ModelRequest):
        return ask
    if isinstance(ask, str):
        return ModelRequest(prompt=ask)
    if isinstance(ask, list | tuple):
        return ModelRequest(messages=tuple(ask))
    raise TypeError(
        f"a model was asked a {type(ask).__name__}; it takes a str, a ModelRequest, or a list of "
        "messages. Convert it with str(...) or a Template."
    )


def model_name(model: Any) -> str:
    """Returns what a model is called: its ``name``, or its class."""
    return str(getattr(model, "name", None) or type(model).__name__)
