"""A server of the chat protocol on loopback that behaves as the test says, and counts."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web


def completion(text: str, model: str = "small", **parts: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "model": model,
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 500},
        **parts,
    }


class ChatServer:
    """Answers ``POST /v1/chat/completions`` with ``behaviour``, in a thread of its own.

    Attributes:
        bodies: The JSON of each request, in the order of arrival.
        keys: The ``Authorization`` header of each request; None where there was none.
        peak: The most requests in progress at once.
    """

    def __init__(self) -> None:
        self.behaviour: Callable[[ChatServer, web.Request], Awaitable[web.StreamResponse]] = echo
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.peak = self.in_progress = 0
        self.crowd: asyncio.Event | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> ChatServer:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        self.crowd = asyncio.Event()
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self._port = runner.addresses[0][1]
        self._ready.set()
        await self._over.wait()
        await site.stop()
        while connections := [c for c in runner.server.connections if c.transport is not None]:
            for connection in connections:  # a transport that is only closed sends what it has left
                connection.transport.abort()
            await asyncio.sleep(0)
        await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        self.keys.append(request.headers.get("Authorization"))
        self.in_progress += 1
        self.peak = max(self.peak, self.in_progress)
        try:
            return await self.behaviour(self, request)
        finally:
            self.in_progress -= 1


async def echo(_server: ChatServer, request: web.Request) -> web.StreamResponse:
    """Answers with the last message in capitals."""
    asked = (await request.json())["messages"][-1]["content"]
    return web.json_response(completion(asked.upper()))


def answering(text: str, **parts: Any) -> Any:
    async def answer(_server: ChatServer, _request: web.Request) -> web.StreamResponse:
        return web.json_response(completion(text, **parts))

    return answer


def raw(body: str, content_type: str = "application/json", status: int = 200) -> Any:
    async def answer(_server: ChatServer, _request: web.Request) -> web.StreamResponse:
        return web.Response(text=body, content_type=content_type, status=status)

    return answer


def failing(status: int, headers: dict[str, str] | None = None, times: int | None = None) -> Any:
    """Fails with a status, repeating in the body what it was sent, key and all."""

    async def answer(server: ChatServer, request: web.Request) -> web.StreamResponse:
        if times is not None and len(server.bodies) > times:
            return await echo(server, request)
        sent = await request.text()
        said = f"{request.headers.get('Authorization')} asked {sent}"
        error = {"message": said, "type": "some_error", "code": "some_code", "param": sent}
        return web.json_response({"error": error}, status=status, headers=headers or {})

    return answer


def dropping(times: int | None = None) -> Any:
    async def drop(server: ChatServer, request: web.Request) -> web.StreamResponse:
        if times is not None and len(server.bodies) > times:
            return await echo(server, request)
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    return drop


async def never(_server: ChatServer, request: web.Request) -> web.StreamResponse:
    """Sends the beginning of an answer and goes on for ever."""
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(ConnectionResetError):  # the client has gone
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.02)
    return response


def gathering(count: int) -> Any:
    """Answers nobody until ``count`` requests are there at once."""

    async def gather(server: ChatServer, request: web.Request) -> web.StreamResponse:
        assert server.crowd is not None
        if server.in_progress >= count:
            server.crowd.set()
        await server.crowd.wait()
        return await echo(server, request)

    return gather
