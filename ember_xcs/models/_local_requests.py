"""Requests as a local model takes them, with their parameters checked, and its responses."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ember_xcs._core.options import suggestion
from ember_xcs.errors import InvalidRequest
from ember_xcs.models._api import ModelRequest, ModelResponse, ModelUsage

if TYPE_CHECKING:
    from ember_xcs.models._tokenizing import ChatTokenizer

__all__ = ["LocalRequest", "local_request", "response_of"]

_MAX_TOKENS: Final = 256
_SYNONYM: Final = "max_completion_tokens"


class LocalRequest(NamedTuple):
    """What a local model is asked.

    Attributes:
        tokens: The chat, up to where the answer begins.
        max_tokens: The most tokens of the answer.
        temperature: What logits are divided by; 0 for the likeliest tokens.
        top_p: Of which part of the probability tokens are drawn.
        seed: What draws depend on.
        stop: Texts before which the answer ends.
    """

    tokens: list[int]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    stop: tuple[str, ...]


class _Rule(NamedTuple):
    types: tuple[type, ...]
    least: float
    most: float
    text: str


_NUMBERS: Final[Mapping[str, _Rule]] = {
    "max_tokens": _Rule((int,), 1, 2**31 - 1, "an int of at least 1"),
    "temperature": _Rule((int, float), 0.0, 100.0, "a number from 0 to 100"),
    "top_p": _Rule((int, float), 1e-6, 1.0, "a number from 0.000001 to 1"),
    "seed": _Rule((int,), -(2**63), 2**63 - 1, "an int of 64 bits"),
}
_NAMES: Final = (*_NUMBERS, _SYNONYM, "stop")


def local_request(
    request: ModelRequest, tokenizer: ChatTokenizer, context: int, name: str
) -> LocalRequest:
    """Returns a request with its chat as tokens.

    A seed that is not given is drawn. An answer is no longer than what the prompt leaves of the
    context.

    Raises:
        InvalidRequest: A parameter is not known or not of its kind, a message has no text, or the
            chat is too long.
    """
    params = _checked(request.params, name)
    try:
        tokens = tokenizer.chat(_texts(request, name))
    except ValueError as error:
        raise InvalidRequest(f"model {name!r} cannot read its prompt: {error}", name) from None
    room = context - len(tokens)
    if room < 1:
        raise InvalidRequest(
            f"model {name!r} was given a prompt of {len(tokens)} tokens; it reads and writes at "
            f"most {context} together. Shorten the prompt.",
            name,
        )
    seed = params.get("seed")
    return LocalRequest(
        tokens,
        min(params.get("max_tokens", _MAX_TOKENS), room),
        float(params.get("temperature", 0.0)),
        float(params.get("top_p", 1.0)),
        secrets.randbits(32) if seed is None else _folded(seed),
        params.get("stop", ()),
    )


def _folded(seed: int) -> int:
    """A seed of 64 bits as one of 32; small ones stay what they are."""
    return (seed ^ (seed >> 32)) & 0xFFFFFFFF


def _checked(params: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The parameters that were given, under their names here."""
    given = {key: value for key, value in params.items() if value is not None}
    for key in given:
        if key not in _NAMES:
            raise InvalidRequest(
                f"model {name!r} was given the parameter {key!r}{suggestion(key, _NAMES)}; a local "
                f"model has {', '.join(_NAMES)}. Leave it out.",
                name,
            )
    if _SYNONYM in given:
        given.setdefault("max_tokens", given.pop(_SYNONYM))
    for key, rule in _NUMBERS.items():
        if key in given:
            _check_number(key, given[key], rule, name)
    if "stop" in given:
        given["stop"] = _stops(given["stop"], name)
    return given


def _check_number(key: str, value: Any, rule: _Rule, name: str) -> None:
    if type(value) not in rule.types or not rule.least <= value <= rule.most:
        raise InvalidRequest(
            f"model {name!r} was given {key}={value!r}, which is to be {rule.text}.", name
        )


def _stops(value: Any, name: str) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list | tuple) or not all(isinstance(s, str) and s for s in stops):
        raise InvalidRequest(
            f"model {name!r} was given a stop of the type {type(value).__name__}, which is to be a "
            "text that is not empty, or a list of such texts.",
            name,
        )
    return tuple(stops)


def _texts(request: ModelRequest, name: str) -> Sequence[Mapping[str, Any]]:
    for message in request.chat:
        if not isinstance(message["role"], str) or not isinstance(message.get("content"), str):
            raise InvalidRequest(
                f"model {name!r} was given a message whose role or content is no text; it reads "
                "texts alone. Give each message a str as its role, and one as its content.",
                name,
            )
    return request.chat


def response_of(
    request: LocalRequest,
    tokens: Sequence[int],
    logprobs: Sequence[float],
    tokenizer: ChatTokenizer,
    name: str,
) -> ModelResponse:
    """Returns the response that generated tokens are.

    Args:
        request: What was asked.
        tokens: What was generated, with the token that ends it, if there is one.
        logprobs: The log-probability of each of them.
        tokenizer: What makes text of them.
        name: The name of the model.
    """
    ended = bool(tokens) and tokens[-1] in tokenizer.ends
    used = len(tokens)
    text = tokenizer.decode(tokens[: used - ended])
    if any(stop in text for stop in request.stop):
        used, text = _stopped(request, tokens, tokenizer)
        ended = True
    return ModelResponse(
        text=text,
        model=name,
        usage=ModelUsage(prompt_tokens=len(request.tokens), completion_tokens=used),
        cost=0.0,
        finish_reason="stop" if ended else "length",
        raw={"tokens": list(tokens[:used]), "logprobs": list(logprobs[:used])},
    )


def _stopped(
    request: LocalRequest, tokens: Sequence[int], tokenizer: ChatTokenizer
) -> tuple[int, str]:
    """How many tokens it takes until a stop is in the text, and the text before that."""
    for used in range(1, len(tokens) + 1):
        text = tokenizer.decode(tokens[:used])
        found = [text.index(stop) for stop in request.stop if stop in text]
        if found:
            return used, text[: min(found)]
    raise AssertionError("the whole text has a stop in it")
