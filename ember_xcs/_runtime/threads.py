"""The threads of the process: as many as are asked for, each kept a while for reuse.

Whoever has work that may block hands it to an idle thread, or to a new one. The number of
threads is thus that of the calls in flight; runs bound it, the pool does not, so nothing can
wait for a thread that waits for it. All are daemons: an abandoned call cannot hold up exit. Only
what is within JAX then, a compilation for the most part, is awaited: it would abort the process.
"""

from __future__ import annotations

import atexit
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Final

__all__ = ["ThreadPool", "threads"]

Job = Callable[[], None]

_LONGEST_EXIT_SECONDS: Final = 30.0


class ThreadPool:
    """An elastic pool of daemon threads.

    Args:
        idle_seconds: How long a thread without work is kept, in seconds.
        name: What the names of its threads begin with.
    """

    def __init__(self, idle_seconds: float = 5.0, name: str = "ember_xcs-worker") -> None:
        self._idle_seconds = idle_seconds
        self._name = name
        self._numbers = itertools.count(1)
        self._idle: list[_Worker] = []
        self._lock = threading.Lock()
        self._workers: set[_Worker] = set()

    def submit(self, job: Job) -> None:
        """Runs a job, which must not raise, on some thread, soon."""
        try:
            worker = self._idle.pop()  # the one most recently used; atomic
        except IndexError:
            self._spawn(job)
        else:
            worker.inbox.put(job)

    def close(self, timeout_seconds: float = 5.0) -> list[str]:
        """Ends the threads that have no work; the pool can still be used.

        Args:
            timeout_seconds: How long to wait for each thread to end, in seconds.

        Returns:
            The names of the threads that are still busy.
        """
        with self._lock:
            workers = list(self._workers)
        for worker in workers:
            worker.inbox.put(None)
        for worker in workers:
            if worker is not threading.current_thread() and worker.ended.wait(timeout_seconds):
                worker.join()
        return [worker.name for worker in workers if not worker.ended.is_set()]

    @property
    def size(self) -> int:
        """How many threads there are."""
        return len(self._workers)

    def await_jax(self, timeout_seconds: float = _LONGEST_EXIT_SECONDS) -> None:
        """Waits until no thread is within JAX.

        JAX runs without the interpreter's lock. A thread that comes back from it when the
        interpreter has ended is ended by that, which C++ takes for an error: it aborts.

        Args:
            timeout_seconds: How long to wait at most, in seconds.
        """
        end = time.monotonic() + timeout_seconds
        while self._is_in_jax() and time.monotonic() < end:
            time.sleep(0.01)

    def _is_in_jax(self) -> bool:
        frames = sys._current_frames()  # noqa: SLF001  (there is no other way)
        with self._lock:
            workers = list(self._workers)
        return any(_is_in_jax(frames.get(worker.ident or 0)) for worker in workers)

    def _spawn(self, job: Job) -> None:
        with self._lock:
            worker = _Worker(self, job, f"{self._name}-{next(self._numbers)}", self._idle_seconds)
            self._workers.add(worker)
        try:
            worker.start()
        except RuntimeError:  # the system has no more threads; Ctrl-C comes after the start
            self.forget(worker)
            raise

    def forget(self, worker: _Worker) -> None:
        """Takes a thread that ends off the books."""
        with self._lock:
            self._workers.discard(worker)

    def rest(self, worker: _Worker) -> None:
        """Notes that a thread has no work."""
        self._idle.append(worker)

    def leave(self, worker: _Worker) -> bool:
        """Takes an idle thread off the list; False if somebody has just chosen it."""
        try:
            self._idle.remove(worker)
        except ValueError:
            return False
        return True


class _Worker(threading.Thread):
    """A thread that does one job after the other."""

    def __init__(self, pool: ThreadPool, job: Job, name: str, idle_seconds: float) -> None:
        super().__init__(name=name, daemon=True)
        self.inbox: SimpleQueue[Job | None] = SimpleQueue()
        self.ended = threading.Event()
        self._pool = pool
        self._first: Job | None = job
        self._idle_seconds = idle_seconds

    def run(self) -> None:
        """Does jobs until there have been none for a while."""
        job, self._first = self._first, None
        while job is not None:
            job()
            del job  # or the finished run would live as long as the thread idles
            self._pool.rest(self)
            job = self._next_job()
        self._pool.forget(self)
        self.ended.set()

    def _next_job(self) -> Job | None:
        try:
            job = self.inbox.get(timeout=self._idle_seconds)
        except Empty:
            job = None
        if job is None and not self._pool.leave(self):
            while job is None:  # chosen at the last moment: the job is on its way
                job = self.inbox.get()
        return job


def _is_in_jax(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] == "jax":
            return True
        frame = frame.f_back
    return False


threads = ThreadPool()
atexit.register(threads.await_jax)


def _after_fork() -> None:
    threads.__init__()  # type: ignore[misc]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
