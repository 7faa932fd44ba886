"""``OpenAICompatible``: the models of any server that speaks OpenAI's chat protocol.

Nothing that leaves this module but a response holds a key or a prompt. The errors of the client do,
in their requests and messages, and so do the local variables on the way from it. So failures are
returned as ours up to the outermost function, which raises them with nothing else at hand.
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
import urllib.parse
from typing import TYPE_CHECKING, Any, Final

from ember_xcs.errors import AuthenticationFailed, InvalidRequest, ModelError, ServiceUnavailable
from ember_xcs.models._api import Ask, ModelRequest, ModelResponse, Price, request_of
from ember_xcs.models._connections import connection, sdk
from ember_xcs.models._io import on_io_loop, wait_for
from ember_xcs.models._provider_errors import translated
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
        sdk()  # here, and not at the first call, which would hold up the I/O loop
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
        client, line, _ = connection(self.base_url, self.concurrency)
        async with line:
            return await self._post(client, request)

    async def _post(self, client: Any, request: ModelRequest) -> ModelResponse | ModelError:
        openai = sdk()
        begun = time.perf_counter()
        scope = asyncio.timeout(self.timeout_seconds)
        try:
            async with scope:  # the client's own methods cost as much again as the rest
                answer = await client.post(
                    "/chat/completions",
                    cast_to=object,
                    body={"model": self.model, "messages": request.chat, **request.params},
                    options={"headers": self._key.headers(openai)},
                )
        except TimeoutError:
            return self._took_too_long()
        except (openai.OpenAIError, ValueError) as error:
            return translated(error, self.name, self._key.current())
        try:
            return response_from(answer, self, time.perf_counter() - begun)
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


class _Secret:
    """A key that nothing shows, and that no pickle holds."""

    __slots__ = ("_value",)

    def __init__(self, value: str | None = None) -> None:
        self._value = value or None

    def current(self) -> str | None:
        """Returns the key; where none was given, that of the environment at this time."""
        return self._value or os.environ.get(_KEY_VARIABLE) or None

    def headers(self, openai: Any) -> dict[str, Any]:
        """Returns the headers that show the key to the server."""
        key = self.current()
        return {"Authorization": openai.omit if key is None else f"Bearer {key}"}

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
