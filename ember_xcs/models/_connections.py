"""Clients of OpenAI-compatible servers, one for each server and I/O loop.

The transport is aiohttp: the other one looks through all of its connections for each request. For
the same reason a semaphore bounds the requests in flight, and not the client's own pool. A
client is closed when its loop ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import ModuleType
from typing import Any, NamedTuple

__all__ = ["Connection", "connection", "sdk"]


class Connection(NamedTuple):
    """The way to a server, on the I/O loop.

    Attributes:
        client: The client.
        line: What those wait for who would be too many.
        keeper: What closes the client when the loop ends.
    """

    client: Any
    line: asyncio.Semaphore
    keeper: asyncio.Task[None]


_connections: dict[asyncio.AbstractEventLoop, dict[tuple[str, int], Connection]] = {}


def sdk() -> ModuleType:
    """Returns the module ``openai``.

    Raises:
        ImportError: It is not installed, or lacks its aiohttp transport.
    """
    try:
        import aiohttp  # noqa: F401, PLC0415  (an extra)
        import openai  # noqa: PLC0415  (an extra)
    except ModuleNotFoundError as error:
        missing = error.name
    else:
        return openai
    raise ImportError(
        f"models.OpenAICompatible needs {missing}, which is not installed. "
        "Install it with: pip install ember_xcs[openai]"
    )


def connection(base_url: str, concurrency: int) -> Connection:
    """Returns the way to a server; to be called on the I/O loop."""
    known = _connections.setdefault(asyncio.get_running_loop(), {})
    key = base_url, concurrency
    if key not in known:
        known[key] = _connect(base_url, concurrency)
    return known[key]


def _connect(base_url: str, concurrency: int) -> Connection:
    openai = sdk()
    client = openai.AsyncOpenAI(
        api_key="unused",  # each request brings its own
        base_url=base_url,
        max_retries=0,
        timeout=None,  # each request has one for all of it
        http_client=openai.DefaultAioHttpClient(timeout=None, limits=_limits(concurrency)),
    )
    keeper = asyncio.get_running_loop().create_task(_keep(client))
    return Connection(client, asyncio.Semaphore(concurrency), keeper)


def _limits(concurrency: int) -> Any:
    """As many connections as requests; without a number, aiohttp would have 100."""
    import httpx2  # noqa: PLC0415  (an extra)

    return httpx2.Limits(max_connections=concurrency)


async def _keep(client: Any) -> None:
    """Waits for the end of the loop, which cancels all of its tasks, and closes a client."""
    loop = asyncio.get_running_loop()
    try:
        await loop.create_future()
    finally:
        _connections.pop(loop, None)
        with contextlib.suppress(OSError):
            await client.close()
