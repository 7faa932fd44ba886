"""A server of OpenAI's chat protocol over models that run here.

    python -m ember_xcs.models.serve --port 8000

It answers ``POST /v1/chat/completions`` and ``GET /v1/models``. Requests that arrive together are
one batch of the model. With ``stream`` an answer is sent in pieces once it is complete, since a
batch is one program that runs to its end. It listens on this machine alone unless it is told
otherwise, and asks for no key. It needs ``pip install 'ember_xcs[local,openai]'``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ember_xcs.errors import InvalidRequest, ModelError, RateLimited, ServiceUnavailable
from ember_xcs.models._api import ModelAPI, ModelRequest, ModelResponse
from ember_xcs.models._registry import found
from ember_xcs.models._smollm2 import SmolLM2

__all__ = ["application", "main"]

_PIECE: Final = 16  # characters
_NOT_FOR_THE_MODEL: Final = frozenset({"model", "messages", "stream", "stream_options", "user"})
_OF_NO_EFFECT: Final[Mapping[str, Any]] = {
    "n": 1,
    "logprobs": False,
    "frequency_penalty": 0,
    "presence_penalty": 0,
}


def _web() -> Any:
    try:
        from aiohttp import web  # noqa: PLC0415  (an extra)
    except ModuleNotFoundError:
        raise ImportError(
            "ember_xcs.models.serve needs aiohttp, which is not installed. "
            "Install it with: pip install 'ember_xcs[openai]'"
        ) from None
    return web


class _Refused(Exception):
    """Raised when a request is not answered: with what the protocol says of it."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str = "") -> None:
        super().__init__(message)
        kind = "invalid_request_error" if status < 500 else "server_error"
        error = {"message": message, "type": kind, "param": param, "code": code or None}
        self.status, self.body = status, {"error": error}


def application(models: Mapping[str, ModelAPI]) -> Any:
    """Returns an ``aiohttp.web.Application`` that answers for models.

    Args:
        models: The models, by the names that clients call them.

    Raises:
        ImportError: The extra ``serve`` is not installed.
    """
    web = _web()
    served = _Served(models, web)

    async def refusing(request: Any, handler: Any) -> Any:
        return await served.refusing(request, handler)

    # It marks functions, and cannot mark a method.
    app = web.Application(middlewares=[web.middleware(refusing)])
    app.router.add_post("/v1/chat/completions", served.chat)
    app.router.add_get("/v1/models", served.list)
    return app


class _Served:
    """The models, and how requests for them are answered."""

    def __init__(self, models: Mapping[str, ModelAPI], web: Any) -> None:
        self._models, self._web = dict(models), web
        self._since = int(time.time())

    async def refusing(self, request: Any, handler: Any) -> Any:
        """Returns what a handler returns, and refusals in the form of the protocol."""
        try:
            return await handler(request)
        except _Refused as error:
            return self._refused(error)
        except ModelError as error:
            return self._refused(_refusal(error), error.retry_after)
        except self._web.HTTPException as error:
            return self._refused(_Refused(error.status, error.reason))

    def _refused(self, refused: _Refused, pause: float | None = None) -> Any:
        headers = {} if pause is None else {"Retry-After": f"{pause:g}"}
        return self._web.json_response(refused.body, status=refused.status, headers=headers)

    async def list(self, _request: Any) -> Any:
        """Returns the names of the models."""
        about = {"object": "model", "created": self._since, "owned_by": "ember_xcs"}
        models = [{"id": name, **about} for name in self._models]
        return self._web.json_response({"object": "list", "data": models})

    async def chat(self, request: Any) -> Any:
        """Returns the answer to a chat."""
        body = _body(await request.read())
        model = self._models.get(body["model"])
        if model is None:
            raise _Refused(
                404,
                f"there is no model {body['model']!r} here; there are "
                f"{', '.join(map(repr, self._models))}. Ask for one of these.",
                "model",
                "model_not_found",
            )
        response = await _answer(model, _request(body))
        if body.get("stream"):
            return await self._streamed(request, body, response)
        return self._web.json_response(_completion(body["model"], response))

    async def _streamed(self, request: Any, body: Mapping[str, Any], response: Any) -> Any:
        stream = self._web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        for chunk in _chunks(body["model"], response, with_usage=with_usage):
            await stream.write(f"data: {json.dumps(chunk)}\n\n".encode())
        await stream.write(b"data: [DONE]\n\n")
        await stream.write_eof()
        return stream


def _body(data: bytes) -> dict[str, Any]:
    """The JSON of a request, with a model and messages."""
    try:
        body = json.loads(data)
    except ValueError:
        raise _Refused(400, "the body is to be JSON, and it cannot be read as that.") from None
    if not isinstance(body, dict):
        raise _Refused(400, f"the body is to be a JSON object, and is a {type(body).__name__}.")
    for name, kind in (("model", str), ("messages", list)):
        if not isinstance(body.get(name), kind):
            raise _Refused(400, f"{name} is to be given, as a {kind.__name__}.", name)
    for name, only in _OF_NO_EFFECT.items():
        if body.get(name) not in (None, only):
            raise _Refused(400, f"{name}={body[name]!r} is not served here; leave it out.", name)
    if not isinstance(body.get("stream_options") or {}, dict):
        raise _Refused(400, "stream_options is to be a JSON object.", "stream_options")
    return body


def _request(body: Mapping[str, Any]) -> ModelRequest:
    """The request of a model that a body is."""
    left_out = _NOT_FOR_THE_MODEL | _OF_NO_EFFECT.keys()
    params = {k: v for k, v in body.items() if k not in left_out and v is not None}
    try:
        return ModelRequest(messages=tuple(body["messages"]), params=params)
    except ValueError as error:
        raise _Refused(
            400, f"messages is to be a list of objects with role and content: {error}", "messages"
        ) from None


async def _answer(model: ModelAPI, request: ModelRequest) -> ModelResponse:
    if hasattr(model, "agenerate"):
        return await model.agenerate(request)
    return await asyncio.to_thread(model.generate, request)


def _refusal(error: ModelError) -> _Refused:
    if isinstance(error, InvalidRequest):
        return _Refused(400, str(error))
    if isinstance(error, RateLimited):
        return _Refused(429, str(error), code="rate_limit_exceeded")
    return _Refused(503 if isinstance(error, ServiceUnavailable) else 502, str(error))


def _head(kind: str, model: str) -> dict[str, Any]:
    name = f"chatcmpl-{uuid.uuid4().hex}"
    return {"id": name, "object": kind, "created": int(time.time()), "model": model}


def _completion(model: str, response: ModelResponse) -> dict[str, Any]:
    message = {"role": "assistant", "content": response.text}
    choice = {"index": 0, "message": message, "finish_reason": response.finish_reason or "stop"}
    return {**_head("chat.completion", model), "choices": [choice], **_usage(response)}


def _usage(response: ModelResponse) -> dict[str, Any]:
    if response.usage is None:
        return {}
    counts = response.usage.model_dump()
    return {"usage": {**counts, "total_tokens": response.usage.tokens}}


def _chunks(model: str, response: ModelResponse, *, with_usage: bool) -> list[dict[str, Any]]:
    """A streamed answer: who speaks, the text in pieces, why it ends, and what was used."""
    head, text = _head("chat.completion.chunk", model), response.text
    pieces = [text[begin : begin + _PIECE] for begin in range(0, len(text), _PIECE)]
    deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": piece} for piece in pieces]
    reasons = [None] * len(deltas) + [response.finish_reason or "stop"]
    chunks = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        for delta, reason in zip([*deltas, {}], reasons, strict=True)
    ]
    return [*chunks, {**head, "choices": [], **_usage(response)}] if with_usage else chunks


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until it is interrupted.

    Args:
        arguments: Those of the command line; None for those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m ember_xcs.models.serve", description="Serves models that run here."
    )
    parser.add_argument("--host", default="127.0.0.1", help="where it listens")
    parser.add_argument("--port", type=int, default=8000, help="0 for any that is free")
    parser.add_argument("--model", action="append", help="a registered name (smollm2)")
    parser.add_argument("--file", help="a GGUF file of a SmolLM2 that is served as smollm2")
    options = parser.parse_args(arguments)
    _web()  # here, and not after the weights
    names = options.model or ["smollm2"]
    models = {
        name: SmolLM2(options.file) if options.file and name == "smollm2" else found(name)
        for name in names
    }
    try:
        asyncio.run(_serve(models, options.host, options.port))
    except OSError as error:  # such as a port that is taken
        parser.exit(1, f"{parser.prog}: cannot listen at {options.host}:{options.port}: {error}\n")


async def _serve(models: Mapping[str, ModelAPI], host: str, port: int) -> None:
    over = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    web = _web()
    # Who goes away before the turn of the request is not answered.
    runner = web.AppRunner(application(models), handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        address, bound = runner.addresses[0][:2]
        sys.stdout.write(f"{', '.join(models)} at http://{address}:{bound}/v1\n")
        sys.stdout.flush()
        await over.wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    main()
