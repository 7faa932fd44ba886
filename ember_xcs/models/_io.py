"""Coroutines of models on the I/O loop, from wherever they are asked for.

A client of an asynchronous protocol belongs to the event loop in which it was made. So all of
them live on the I/O loop, and whoever is elsewhere has the work done there.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from ember_xcs._runtime.io_loop import io_loop
from ember_xcs._runtime.services import run_coroutine
from ember_xcs.errors import XCSError

__all__ = ["on_io_loop", "wait_for"]

T = TypeVar("T")
Work = Callable[[], Coroutine[Any, Any, T]]


async def on_io_loop(work: Work[T]) -> T:
    """Returns the result of a coroutine that runs on the I/O loop, and is cancelled with this."""
    if io_loop.is_current():
        return await work()
    answer: Future[T] = Future()
    io_loop.call(_begin, work, answer)
    return await asyncio.wrap_future(answer)


def wait_for(work: Work[T]) -> T:
    """Returns the result of a coroutine that runs on the I/O loop, while this thread waits.

    Raises:
        XCSError: This is the I/O loop, which would wait for itself.
    """
    if io_loop.is_current():
        raise XCSError(
            "generate() was called by code that the I/O loop is waiting for: it would wait for "
            "itself. In an `async def` operator write `await model.agenerate(...)`."
        )
    result: T = run_coroutine(work())
    return result


def _begin(work: Work[T], answer: Future[T]) -> None:
    loop = asyncio.get_running_loop()
    task = loop.create_task(work())
    task.add_done_callback(functools.partial(_settle, answer))
    answer.add_done_callback(lambda _: loop.call_soon_threadsafe(_stop, task, answer))


def _stop(task: asyncio.Task[T], answer: Future[T]) -> None:
    if answer.cancelled():
        task.cancel()


def _settle(answer: Future[T], task: asyncio.Task[T]) -> None:
    error = None if task.cancelled() else task.exception()
    if task.cancelled():
        answer.cancel()
    elif answer.set_running_or_notify_cancel():
        if error is None:
            answer.set_result(task.result())
        else:
            answer.set_exception(error)
