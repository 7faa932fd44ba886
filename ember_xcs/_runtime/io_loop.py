"""The I/O loop: one asyncio event loop for the process, in a thread of its own.

All coroutines run there, whichever thread or loop their run was started from. It is started
on first use.
"""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["IoLoop", "io_loop"]


class IoLoop:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def is_current(self) -> bool:
        """Whether the caller is on the loop's thread."""
        thread = self._thread
        return thread is not None and threading.get_ident() == thread.ident

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """Calls a function on the loop, soon."""
        loop = self._loop
        if loop is None:
            loop = self._start()
        loop.call_soon_threadsafe(function, *args)

    def close(self, timeout_seconds: float = 5.0) -> list[str]:
        """Cancels what runs on the loop and ends its thread; the next use starts another.

        Args:
            timeout_seconds: How long to wait for the thread to end, in seconds.

        Returns:
            The name of the thread if it is still busy.
        """
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return []
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout_seconds)
        return [thread.name] if thread.is_alive() else []

    def _start(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_serve, args=(loop,), name="ember_xcs-io", daemon=True
                )
                self._thread.start()
                self._loop = loop
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        _cancel_all(loop)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))


io_loop = IoLoop()


def _after_fork() -> None:
    io_loop.__init__()  # type: ignore[misc]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
