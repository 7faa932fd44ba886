"""Requests that are there at the same time, answered together.

Whoever asks stands in line with the rest, and then takes turns: who has the turn answers as many as
fit into a batch, oldest first, until its own are among them. Those who cannot wait, since they are
in an event loop, share a thread that lives until the line is empty.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from ember_xcs._core.jax_state import call_under, jax_settings

__all__ = ["Coalescing"]

A = TypeVar("A")
R = TypeVar("R")


class Coalescing(Generic[A, R]):
    """A line of requests before a function that answers several at once.

    Args:
        answer: Returns as many answers as it is given requests.
        size: The most requests of a batch.
        window_seconds: How long a batch that is not full waits for more, in seconds.
    """

    def __init__(
        self, answer: Callable[[Sequence[A]], Sequence[R]], size: int, window_seconds: float
    ) -> None:
        self._answer, self._size, self._window = answer, size, window_seconds
        self._line: deque[tuple[A, Future[R]]] = deque()
        self._turn = threading.Lock()
        self._starting = threading.Lock()
        self._is_draining = False

    def submitted(self, requests: Sequence[A]) -> list[Future[R]]:
        """Returns what the answers will be in, once they are settled or the line is drained."""
        futures: list[Future[R]] = [Future() for _ in requests]
        self._line.extend(zip(requests, futures, strict=True))
        return futures

    def settle(self, futures: Sequence[Future[R]]) -> None:
        """Returns when all of these are done, others of the line perhaps as well.

        What ``answer`` raises is in the futures of its batch, and not raised here.
        """
        try:
            while not all(future.done() for future in futures):
                with self._turn:
                    if not all(future.done() for future in futures):
                        self._serve()
        except BaseException:  # an interrupt: nobody waits for these any more
            for future in futures:
                future.cancel()
            raise

    def drain(self) -> None:
        """Has all that are in line answered by another thread."""
        with self._starting:
            if not self._is_draining:
                work = jax_settings(), self._serve_all
                threading.Thread(target=call_under, args=work, name="model batches").start()
                self._is_draining = True

    def _serve_all(self) -> None:
        while self._goes_on():
            with self._turn:
                self._serve()

    def _goes_on(self) -> bool:
        with self._starting:
            self._is_draining = bool(self._line)
            return self._is_draining

    def _serve(self) -> None:
        """Answers one batch; what fails is in its futures, for those who wait for them."""
        if len(self._line) < self._size:
            time.sleep(self._window)
        batch = self._batch()
        if not batch:  # all that were there have been cancelled
            return
        try:
            answers = self._answer([request for request, _ in batch])
            answered = list(zip(batch, answers, strict=True))
        except BaseException as error:
            for _, future in batch:
                future.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        for (_, future), answer in answered:
            future.set_result(answer)

    def _batch(self) -> list[tuple[A, Future[R]]]:
        batch: list[tuple[A, Future[R]]] = []
        while self._line and len(batch) < self._size:
            request, future = self._line.popleft()
            if future.set_running_or_notify_cancel():
                batch.append((request, future))
        return batch
