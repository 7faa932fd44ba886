"""``OpenAICompatible``: the models of any server that speaks OpenAI's chat protocol.

Nothing that leaves this module but a response holds a key or a prompt. The errors of the transport
do, and so do the local variables on the way from it. So failures are
returned as ours up to the outermost function, which raises them with nothing else at hand.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import time
import urllib.parse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ember_xcs.errors import AuthenticationFailed, InvalidRequest, ModelError, ServiceUnavailable
from ember_xcs.models._api import Ask, ModelRequest, ModelResponse, Price, request_of
from ember_xcs.models._connections import Connection, connection, transport
from ember_xcs.models._io import on_io_loop, wait_for
from ember_xcs.models._provider_errors import not_json, not_sendable, refusal, unreachable
from ember_xcs.models._responses import Malformed, response_from
from ember_xcs.models._retrying import retries_itself

if TYPE_CHECKING:
    from ember_xcs._core.retry import Retry

__all__ = ["OpenAICompatible"]

_OPENAI: Final = "https://api.openai.com/v1"
_KEY_VARIABLE: Final = "OPENAI_API_KEY"
_RESERVED: Final = frozenset({"messages", "model", "stream"})


class OpenAICompatible:
    """A model on a server that answers ``POST {base_url}/chat/completions``.

    It can be used from any thread and event loop: its requests are all made on the I/O loop of the
    process, over one client. It can be pickled, without its key.

    Args:
        model: What the server calls the model.
        base_url: Where the server is, as in ``"http://localhost:8000/v1"``; None for OpenAI.
        api_key: The key; None for what ``OPENAI_API_KEY`` says at the time of a call. Without
            either, a server other than OpenAI is asked without a key.
        timeout_seconds: How long one attempt may take, in seconds, until its answer is complete.
        retry: How failed requests are tried again. In a graph the run does that, so that its
            metrics, limits and budget count each attempt; elsewhere the model does.
        price: What a million tokens cost, of prompts and of answers; None if that is not known.
        concurrency: The most requests in flight in this process, of all models of this server that
            have the same number here.
        name: What the model and its resource are called here; default ``model``.

    Raises:
        ImportError: The extra ``openai`` is not installed.
        ValueError: An argument is not of its kind.

    Example:
        >>> model = OpenAICompatible("small", "http://localhost:8000/v1", api_key="secret")
        >>> model
        OpenAICompatible('small', 'http://localhost:8000/v1')
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout_seconds: float = 120.0,
        retry: Retry | None = None,
        price: tuple[float, float] | None = None,
        *,
        concurrency: int = 128,
        name: str | None = None,
    ) -> None:
        if not timeout_seconds > 0:
            raise ValueError(f"OpenAICompatible: timeout_seconds={timeout_seconds!r} is to be > 0.")
        if type(concurrency) is not int or concurrency < 1:
            raise ValueError(f"OpenAICompatible: concurrency={concurrency!r} is to be an int >= 1.")
        transport()  # here, and not at the first call, which would hold up the I/O loop
        self.model = model
        self.base_url = _checked_url(base_url or _OPENAI)
        self.timeout_seconds = timeout_seconds
        self.retry = retry
        self.price = None if price is None else Price(*price)
        self.concurrency = concurrency
        self.name = name or model
        self._key = _Secret(api_key)

    def generate(self, request: Ask) -> ModelResponse:
        """Returns the answer, while the calling thread waits.

        Raises:
            ModelError: There is none, or not in the form of the protocol.
            XCSError: This is the I/O loop, where there is ``agenerate``.
        """
        work = functools.partial(self._outcome, request_of(request), self._own_retry())
        del request
        return _raised_or_returned(wait_for(work))

    async def agenerate(self, request: Ask) -> ModelResponse:
        """Returns the answer.

        Raises:
            ModelError: There is none, or not in the form of the protocol.
        """
        work = functools.partial(self._outcome, request_of(request), self._own_retry())
        del request
        return _raised_or_returned(await on_io_loop(work))

    def _own_retry(self) -> Retry | None:
        return self.retry if retries_itself() else None

    async def _outcome(
        self, request: ModelRequest, retry: Retry | None
    ) -> ModelResponse | ModelError:
        """Returns the answer or the failure of the last attempt."""
        attempt = 1
        while True:
            outcome = await self._attempt(request)
            if isinstance(outcome, ModelResponse) or retry is None:
                return outcome
            pause = retry.pause(attempt, outcome)
            if pause is None:
                return outcome
            await asyncio.sleep(pause)
            attempt += 1

    async def _attempt(self, request: ModelRequest) -> ModelResponse | ModelError:
        reserved = sorted(_RESERVED & request.params.keys())
        if reserved:
            return InvalidRequest(
                f"model {self.name!r} was given the parameter {reserved[0]!r}, which is not one of "
                "a request here. Leave it out.",
                self.name,
            )
        if self._key.current() is None and self.base_url == _OPENAI:
            return AuthenticationFailed(
                f"model {self.name!r} has no key: give api_key=, or set {_KEY_VARIABLE}.", self.name
            )
        try:
            body = _written({"model": self.model, "messages": request.chat, **request.params})
            headers = self._key.headers()
        except (TypeError, ValueError) as error:
            return not_sendable(error, self.name)
        to = connection(self.base_url, self.concurrency)
        async with to.line:
            return await self._post(to, body, headers)

    async def _post(
        self, to: Connection, body: bytes, headers: dict[str, str]
    ) -> ModelResponse | ModelError:
        begun = time.perf_counter()
        try:
            async with asyncio.timeout(self.timeout_seconds):
                answer = await _answer(to, f"{self.base_url}/chat/completions", body, headers)
        except TimeoutError:
            return self._took_too_long()
        except (transport().ClientError, OSError):
            return unreachable(self.name)
        except ValueError as error:
            return not_sendable(error, self.name)
        return self._read(answer, time.perf_counter() - begun)

    def _read(self, answer: _Answer, seconds: float) -> ModelResponse | ModelError:
        if not 200 <= answer.status < 300:
            key = self._key.current()
            return refusal(answer.status, answer.headers, answer.body, self.name, key)
        try:
            said = json.loads(answer.body)
        except ValueError:
            if "json" in answer.headers.get("Content-Type", ""):
                return not_json(self.name)
            said = None
        try:
            return response_from(said, self, seconds)
        except Malformed as error:
            return error.for_model(self.name)

    def _took_too_long(self) -> ServiceUnavailable:
        return ServiceUnavailable(
            f"model {self.name!r} did not answer within {self.timeout_seconds:g} s. Try again, or "
            "raise timeout_seconds.",
            self.name,
        )

    def __xcs_identity__(self) -> Any:
        """What its answers depend on."""
        return self.model, self.base_url

    def __repr__(self) -> str:
        return f"OpenAICompatible({self.model!r}, {self.base_url!r})"


def _raised_or_returned(outcome: ModelResponse | ModelError) -> ModelResponse:
    if isinstance(outcome, ModelError):
        raise outcome
    return outcome


class _Answer(NamedTuple):
    """What a server sent."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def _answer(to: Connection, url: str, body: bytes, headers: dict[str, str]) -> _Answer:
    async with to.session.post(url, data=body, headers=headers, proxy=to.proxy) as response:
        return _Answer(response.status, response.headers, await response.read())


def _written(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()


class _Secret:
    """A key that nothing shows, and that no pickle holds."""

    __slots__ = ("_value",)

    def __init__(self, value: str | None = None) -> None:
        self._value = value or None

    def current(self) -> str | None:
        """Returns the key; where none was given, that of the environment at this time."""
        return self._value or os.environ.get(_KEY_VARIABLE) or None

    def headers(self) -> dict[str, str]:
        """Returns the headers that show the key to the server.

        Raises:
            ValueError: The key is no text that a header can have.
        """
        key = self.current()
        if key is None:
            return {}
        if not (key.isascii() and key.isprintable()):
            raise ValueError("a key is printable ASCII")
        return {"Authorization": f"Bearer {key}"}

    def __reduce__(self) -> Any:
        return (_Secret, ())

    def __repr__(self) -> str:
        return "..."


def _checked_url(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            "OpenAICompatible: base_url is to be an http or https URL, such as "
            "'http://localhost:8000/v1'."
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(
            "OpenAICompatible: base_url has a user, a password or a query, and it is shown in "
            "messages. Give the key as api_key=."
        )
    return url.rstrip("/")
