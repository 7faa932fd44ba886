"""Ways to servers, one for each server and I/O loop.

The transport is aiohttp itself: a client on top of it took three quarters of the time of a call. A
semaphore bounds the requests in flight, and there are as many connections. A session is
closed when its loop ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import urllib.parse
import urllib.request
from types import ModuleType
from typing import Any, Final, NamedTuple

__all__ = ["Connection", "connection", "transport"]

_HEADERS: Final = {"Accept": "application/json", "Content-Type": "application/json"}


class Connection(NamedTuple):
    """The way to a server, on the I/O loop.

    Attributes:
        session: What posts.
        proxy: The URL of the proxy that the environment names for it; None for none.
        line: What those wait for who would be too many.
        keeper: What closes the session when the loop ends.
    """

    session: Any
    proxy: str | None
    line: asyncio.Semaphore
    keeper: asyncio.Task[None]


_connections: dict[asyncio.AbstractEventLoop, dict[tuple[str, int], Connection]] = {}


def transport() -> ModuleType:
    """Returns the module ``aiohttp``.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import aiohttp  # noqa: PLC0415  (an extra)
    except ModuleNotFoundError as error:
        missing = error.name
    else:
        return aiohttp
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
    aiohttp = transport()
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=concurrency),  # without a number it would have 100
        timeout=aiohttp.ClientTimeout(total=None),  # each request has one for all of it
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=_HEADERS,
    )
    keeper = asyncio.get_running_loop().create_task(_keep(session))
    return Connection(session, _proxy_to(base_url), asyncio.Semaphore(concurrency), keeper)


def _proxy_to(base_url: str) -> str | None:
    """Looked up once, since it takes long; left to aiohttp, it would come with ``~/.netrc``."""
    parts = urllib.parse.urlsplit(base_url)
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    return urllib.request.getproxies().get(parts.scheme)


async def _keep(session: Any) -> None:
    """Waits for the end of the loop, which cancels all of its tasks, and closes a session."""
    loop = asyncio.get_running_loop()
    try:
        await loop.create_future()
    finally:
        _connections.pop(loop, None)
        with contextlib.suppress(OSError):
            await session.close()
