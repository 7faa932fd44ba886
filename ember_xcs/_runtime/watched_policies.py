"""The policies of a run whose progress somebody watches, and the choice of policies for a run.

A call is counted where it comes through its policies anyway, so a run that nobody watches does not
know of this. A run within a call of a watched one counts for that as well.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ember_xcs._core.calls import policies_in_force
from ember_xcs._lower.fans import CallFailure
from ember_xcs._lower.plan import TaskKind
from ember_xcs._runtime.policies import CallPolicies
from ember_xcs._runtime.progress import Listener, Progress
from ember_xcs._runtime.status_line import status_line

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from ember_xcs._core.operator import Operator
    from ember_xcs._lower.plan import Task
    from ember_xcs._runtime.batches import Batch, BatchRow
    from ember_xcs._runtime.run import Run

__all__ = ["policies_of"]


def policies_of(run: Run, values: Sequence[Any]) -> CallPolicies | None:
    """Returns what the calls of a run go through; None if nothing.

    Args:
        run: The run; its context is told.
        values: The values of the inputs of its plan.
    """
    options, outer = run.options, policies_in_force.get()
    assert outer is None or isinstance(outer, CallPolicies)
    given = (options.retry, options.limits, options.budget, options.cache, options.journal)
    is_asked = options.collect_metrics or any(x is not None for x in given)
    is_watched = bool(options.progress) or isinstance(outer, _WatchedPolicies)
    if not (is_asked or is_watched or run.layout.has_policies or outer is not None):
        return None
    policies = (_WatchedPolicies if is_watched else CallPolicies)(run, values, outer)
    run.context.run(policies_in_force.set, policies)
    return policies


class _Tally:
    """Counts of calls, here and in the run around."""

    def __init__(self, outer: _Tally | None) -> None:
        self._outer, self._lock = outer, threading.Lock()
        self.known = self.done = self.failed = self.in_flight = 0

    def add(self, *, known: int = 0, done: int = 0, failed: int = 0, in_flight: int = 0) -> None:
        """Adds to the counts."""
        with self._lock:
            self.known += known
            self.done += done
            self.failed += failed
            self.in_flight += in_flight
        if self._outer is not None:
            self._outer.add(known=known, done=done, failed=failed, in_flight=in_flight)

    def close(self) -> None:
        """Has the run around know of no more calls than were made: others may be made instead."""
        if self._outer is not None:
            self._outer.add(known=self.done - self.known)

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Counts a call that is made within a block."""
        failed = 1
        try:
            yield
            failed = 0
        finally:
            self.add(done=1, failed=failed)

    @contextlib.contextmanager
    def calls(self, count: int) -> Iterator[list[Any]]:
        """Counts calls that are made together within a block, which fills the list of results."""
        results: list[Any] = []
        try:
            yield results
        finally:
            good = sum(not isinstance(result, CallFailure) for result in results)
            self.add(done=count, failed=count - good)

    @contextlib.contextmanager
    def attempt(self, count: int = 1) -> Iterator[None]:
        """Counts calls as in flight within a block."""
        self.add(in_flight=count)
        try:
            yield
        finally:
            self.add(in_flight=-count)


class _WatchedPolicies(CallPolicies):
    """Policies that count."""

    def __init__(self, run: Run, values: Sequence[Any], outer: CallPolicies | None) -> None:
        super().__init__(run, values, outer)
        around = outer if isinstance(outer, _WatchedPolicies) else None
        self._watcher: Any = run.options.progress or None
        is_told = around is not None and around._watcher is self._watcher  # noqa: SLF001  (same class)
        self._tally: _Tally = _Tally(None if around is None else around._tally)  # noqa: SLF001  (same class)
        self._tally.add(known=sum(_is_one_call(task) for task in run.layout.tasks))
        self._listener: Listener | None = None
        self._is_shown = self._watcher is True and not is_told
        if callable(self._watcher) and not is_told:
            self._listener = Listener(self._watcher, self)
        if self._watcher is None and around is not None:
            self._watcher = around._watcher  # noqa: SLF001  (same class)
        self._name, self._begun = run.plan.name, time.perf_counter()

    def start(self) -> None:
        """Has those who watch told from now on."""
        if self._is_shown:
            status_line.join(self)
        if self._listener is not None:
            self._listener.start()

    def end(self, *, is_complete: bool) -> None:
        """Tells those who watch of the end."""
        try:
            super().end(is_complete=is_complete)
        finally:
            self._tally.close()
            if self._is_shown:
                status_line.leave(self)
            if self._listener is not None:
                self._listener.finish()

    def progress(self, *, is_over: bool = False) -> Progress:
        """Returns how far the run is."""
        figures, tally = self.figures, self._tally
        return Progress(
            run=self._name,
            calls_done=tally.done,
            calls_known=tally.known,
            in_flight=tally.in_flight,
            failed=tally.failed,
            retries=figures["retries"],
            tokens=figures["tokens"],
            cost=figures["cost"],
            seconds=time.perf_counter() - self._begun,
            is_over=is_over,
        )

    def opened(self, calls: int) -> None:
        """Learns how many calls a fan is."""
        self._tally.add(known=calls)

    def call(
        self,
        task: Task,
        element: int | None,
        arguments: tuple[Any, ...],
        attempt: Callable[[tuple[Any, ...]], Any],
    ) -> Any:
        """Returns the result of a call that is made on this thread, and counts it."""
        if task.host is None:
            return super().call(task, element, arguments, attempt)

        def counted(given: tuple[Any, ...]) -> Any:
            with self._tally.attempt():
                return attempt(given)

        with self._tally.call():
            return super().call(task, element, arguments, counted)

    async def acall(
        self,
        task: Task,
        element: int | None,
        arguments: tuple[Any, ...],
        attempt: Callable[[tuple[Any, ...]], Awaitable[Any]],
    ) -> Any:
        """Returns the result of a call that is made on the I/O loop, and counts it."""
        if task.host is None:
            return await super().acall(task, element, arguments, attempt)

        async def counted(given: tuple[Any, ...]) -> Any:
            with self._tally.attempt():
                return await attempt(given)

        with self._tally.call():
            return await super().acall(task, element, arguments, counted)

    def call_batch(
        self,
        batch: Batch,
        rows: Sequence[BatchRow],
        attempt: Callable[[tuple[Any, ...]], Any],
    ) -> list[Any]:
        """Returns the results of calls that are made together, and counts each."""

        def counted(given: tuple[Any, ...]) -> Any:
            with self._tally.attempt(len(given[0])):
                return attempt(given)

        with self._tally.calls(len(rows)) as results:
            results.extend(super().call_batch(batch, rows, counted))
        return results

    async def acall_batch(
        self,
        batch: Batch,
        rows: Sequence[BatchRow],
        attempt: Callable[[tuple[Any, ...]], Awaitable[Any]],
    ) -> list[Any]:
        """Returns the results of calls that are made together on the I/O loop, and counts each."""

        async def counted(given: tuple[Any, ...]) -> Any:
            with self._tally.attempt(len(given[0])):
                return await attempt(given)

        with self._tally.calls(len(rows)) as results:
            results.extend(await super().acall_batch(batch, rows, counted))
        return results

    def direct(self, operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Returns the result of a call that code within the run makes itself, and counts it."""
        self._tally.add(known=1)
        return super().direct(operator, args, kwargs)


def _is_one_call(task: Task) -> bool:
    """Whether a task is one host call; how many a fan is shows when it is opened."""
    return task.kind is TaskKind.CALL and task.host is not None and task.fan is None
