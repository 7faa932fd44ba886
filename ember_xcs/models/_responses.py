"""Answers of the chat protocol as responses."""

from __future__ import annotations

from typing import Any, Protocol

from ember_xcs.errors import ResponseInvalid
from ember_xcs.models._api import ModelResponse, ModelUsage, Price

__all__ = ["Malformed", "response_from"]


class Malformed(ValueError):
    """Raised when an answer is not what the protocol says; says what is missing."""

    def for_model(self, name: str) -> ResponseInvalid:
        """Returns the error of a model."""
        return ResponseInvalid(
            f"the server of model {name!r} sent an answer that is no chat completion: {self}. "
            "Check that base_url leads to a server of that protocol.",
            name,
            200,
        )


class Asked(Protocol):
    """What was asked."""

    name: str
    price: Price | None


def response_from(answer: Any, asked: Asked, seconds: float) -> ModelResponse:
    """Returns a response from the JSON of a chat completion.

    Args:
        answer: The JSON.
        asked: The model.
        seconds: How long it took, in seconds.

    Raises:
        Malformed: It is not a chat completion.
    """
    choices = _part(answer, "choices", list)
    if not choices:
        raise Malformed("choices is empty")
    message = _part(choices[0], "message", dict)
    usage = _usage(answer)
    finish_reason = choices[0].get("finish_reason")
    return ModelResponse(
        text=_text(message),
        model=str(answer.get("model") or asked.name),
        usage=usage,
        cost=None if asked.price is None or usage is None else asked.price.cost(usage),
        latency_seconds=seconds,
        finish_reason=finish_reason if isinstance(finish_reason, str) else None,
        raw=answer,
    )


def _part(whole: Any, name: str, kind: type) -> Any:
    part = whole.get(name) if isinstance(whole, dict) else None
    if not isinstance(part, kind):
        raise Malformed(f"it has no {name}, or not as a {kind.__name__}")
    return part


def _text(message: dict[str, Any]) -> str:
    """The text of a message; empty where it calls tools instead."""
    if message.get("content") is None and message.get("tool_calls"):
        return ""
    text: str = _part(message, "content", str)
    return text


def _usage(answer: dict[str, Any]) -> ModelUsage | None:
    counts = answer.get("usage")
    if counts is None:
        return None
    if not isinstance(counts, dict):
        raise Malformed("its usage is not a dict")
    tokens = {name: counts.get(name) or 0 for name in ("prompt_tokens", "completion_tokens")}
    if not all(type(count) is int and count >= 0 for count in tokens.values()):
        raise Malformed("its usage has counts that are not integers")
    return ModelUsage(**tokens)
