"""Rows that are written in batches, by one thread, while those who gave them go on or wait.

Waiting for the disk takes as long for many rows as for one. So one thread of the pool writes, all
that has come in the meantime in one go, until nothing is left: no row waits for a clock, and the
event loop never waits for the disk. A row counts as written once its whole batch is.

============  =====================================================================
``open``      the batch that rows are added to; nobody writes it yet
``writing``   whether a thread is on its way or at work, which will see what is open
============  =====================================================================

Both change only under the lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import threading
import weakref
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ember_xcs._runtime.threads import threads

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BatchedWrites", "Written"]

Row = TypeVar("Row")


class BatchedWrites(Generic[Row]):
    """A queue of rows and whoever writes them.

    Args:
        write: Writes some rows, in their order and wholly or not at all; what it raises reaches
            everyone who waits for one of them.
    """

    def __init__(self, write: Callable[[list[Row]], object]) -> None:
        self._write = write
        self.begin_anew()
        _all.add(self)

    def begin_anew(self) -> None:
        """Forgets what is queued: in a forked child, where nobody waits for it."""
        self._lock = threading.Lock()
        self._open: _Batch[Row] = _Batch()
        self._writing = False

    def add(self, row: Row) -> Written:
        """Has a row written soon, and returns what to wait for."""
        with self._lock:
            batch = self._open
            batch.rows.append(row)
            if not self._writing:
                threads.submit(self._write_all)
                self._writing = True  # last: if Ctrl-C comes before, the next row has it done
        return batch

    def _write_all(self) -> None:
        while (batch := self._taken()) is not None:
            try:
                self._write(batch.rows)
            except BaseException as error:  # noqa: BLE001  (whoever waits for a row raises it)
                batch.done.set_exception(error)
            else:
                batch.done.set_result(None)

    def _taken(self) -> _Batch[Row] | None:
        """The batch to be written now; None where there is nothing to write any more."""
        with self._lock:
            batch = self._open
            self._writing = bool(batch.rows)
            if not self._writing:
                return None
            self._open = _Batch()
        return batch


class Written:
    """The end of the writing of a row.

    Attributes:
        done: When it has ended.
    """

    __slots__ = ("_waiters", "done")

    def __init__(self) -> None:
        self.done: Future[None] = Future()
        self.done.set_running_or_notify_cancel()  # none of those who wait can cancel it
        self._waiters: dict[asyncio.AbstractEventLoop, asyncio.Future[None]] = {}

    def wait(self) -> None:
        """Returns once the row is written; what the writing raised is raised here."""
        self.done.result()

    async def awaited(self) -> None:
        """Returns once the row is written; what the writing raised is raised here."""
        if not self.done.done():
            await asyncio.shield(self._waiter())
        self.done.result()

    def _waiter(self) -> asyncio.Future[None]:
        """One for all who wait on a loop, which is thus woken once."""
        loop = asyncio.get_running_loop()
        if loop not in self._waiters:
            waiter = self._waiters[loop] = loop.create_future()
            self.done.add_done_callback(functools.partial(_wake, loop, waiter))
        return self._waiters[loop]


class _Batch(Written, Generic[Row]):
    """Rows that are written together."""

    __slots__ = ("rows",)

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Row] = []


def _wake(loop: asyncio.AbstractEventLoop, waiter: asyncio.Future[None], _: object) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits
        loop.call_soon_threadsafe(_set, waiter)


def _set(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


_all: weakref.WeakSet[BatchedWrites[Any]] = weakref.WeakSet()


def _after_fork() -> None:
    for writes in list(_all):
        writes.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
