"""How one host call is made: at once, on the I/O loop, on a timed thread, or in a process."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
import time
import weakref
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any, Final

from ember_xcs._core.jax_state import call_under
from ember_xcs._lower.plan import Executor, Task, TaskKind
from ember_xcs._runtime.batches import Batch
from ember_xcs._runtime.failures import call_timeout
from ember_xcs._runtime.io_loop import io_loop
from ember_xcs._runtime.processes import processes
from ember_xcs._runtime.threads import threads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ember_xcs._runtime.batches import Window
    from ember_xcs._runtime.dispatch import Dispatch, Place, Unit
    from ember_xcs._runtime.run import Run

__all__ = ["Launcher", "awaited_within", "within_seconds"]

_SLICE_SECONDS: Final = 0.1  # how often a timed attempt looks whether its run has ended


class Launcher:
    """Makes the calls of a dispatch that are more than calling a function.

    Args:
        dispatch: Whom to report to.
    """

    __slots__ = ("_dispatch", "_run")

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch
        self._run = dispatch.run

    def call(self, rank: int, element: Place) -> Any:
        """Makes a call on this thread, or waits here for a process that makes it."""
        run = self._run
        task = element.task if isinstance(element, Batch) else run.layout.tasks[rank]
        start = time.perf_counter()
        is_process = task.executor is Executor.PROCESS
        worker = "process" if is_process else threading.current_thread().name
        try:
            if isinstance(element, Batch):
                return self._call_together(element)
            arguments = self._dispatch.arguments(rank, element)
            if run.policies is not None and task.kind is TaskKind.CALL:
                attempt = functools.partial(self._attempt, task)
                within = run.context.copy().run  # the thread that asked for the run is outside it
                return within(run.policies.call, task, element, arguments, attempt)
            return self._make(task, arguments)
        finally:
            run.record(rank, element, worker, start)

    def _task(self, rank: int, element: Place) -> Task:
        return element.task if isinstance(element, Batch) else self._run.layout.tasks[rank]

    def _make(self, task: Task, arguments: tuple[Any, ...]) -> Any:
        """Makes a call that goes through no policies."""
        run = self._run
        if task.executor is Executor.PROCESS:
            return processes.call(run, task, arguments)
        if task.kind is TaskKind.CALL:
            copied = run.context.copy().run
            return call_under(run.jax_settings, copied, task.run, *arguments)
        return task.run(*arguments)

    def _call_together(self, batch: Batch) -> list[Any]:
        """Makes the calls of a batch."""
        run = self._run
        rows, failures = batch.rows(self._dispatch)
        if not rows:
            return batch.all_results((), (), failures)
        made: Sequence[Any]
        if run.policies is None:
            calls = [row.call for row in rows]
            make = functools.partial(self._make, batch.task)
            made = batch.finished(rows, batch.counted(make)((calls,)))
        else:
            attempt = functools.partial(self._attempt, batch.task)
            made = run.context.copy().run(run.policies.call_batch, batch, rows, attempt)
        return batch.all_results(rows, made, failures)

    async def _await_together(self, batch: Batch) -> list[Any]:
        """The same on the I/O loop."""
        run, task = self._run, batch.task
        rows, failures = batch.rows(self._dispatch)
        if not rows:
            return batch.all_results((), (), failures)
        made: Sequence[Any]
        if run.policies is None:
            calls = [row.call for row in rows]
            ask = batch.counted(lambda given: awaited_within(task.run(*given), task))
            made = batch.finished(rows, await ask((calls,)))
        else:
            made = await run.policies.acall_batch(
                batch, rows, lambda given: awaited_within(task.run(*given), task)
            )
        return batch.all_results(rows, made, failures)

    def _attempt(self, task: Task, arguments: tuple[Any, ...]) -> Any:
        """Makes a call once, in the context that its policies have set, for as long as it may."""
        run = self._run
        if task.executor is Executor.PROCESS:
            return processes.call(run, task, arguments)
        copied = contextvars.copy_context().run
        if task.timeout_seconds is None:
            return call_under(run.jax_settings, copied, task.run, *arguments)
        return within_seconds(run, task, functools.partial(copied, task.run, *arguments))

    def launch(self, units: Sequence[Unit]) -> None:
        """Starts calls that report when they end."""
        flights = []
        for unit in units:
            task = self._task(*unit)
            if task.executor is Executor.ASYNC:
                flights.append(unit)
            else:
                self._start_timed(unit, task)
        if not flights:
            return
        if io_loop.is_current():
            self._start_flights(flights)
        else:
            io_loop.call(self._start_flights, flights)

    # Coroutines, on the I/O loop

    def _start_flights(self, units: Sequence[Unit]) -> None:
        loop, run = asyncio.get_running_loop(), self._run
        for rank, element in units:
            if self._dispatch.stopped:
                return
            flight = loop.create_task(self._fly(rank, element), context=run.context.copy())
            run.take_off(flight)
            flight.add_done_callback(run.land)

    async def _fly(self, rank: int, element: Place) -> None:
        run, dispatch = self._run, self._dispatch
        start = time.perf_counter()
        try:
            value = await self._await(rank, element)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  (user code may raise anything)
            run.record(rank, element, "io", start)
            unit = dispatch.failed(rank, element, error, light=True)
            dispatch.go_on(unit, light=True)
        except BaseException as error:  # noqa: BLE001  (user code may raise anything)
            run.abort(error)
        else:
            run.record(rank, element, "io", start)
            dispatch.ended(rank, element, value, light=True)

    async def _await(self, rank: int, element: Place) -> Any:
        """Returns the value of a call that is a coroutine."""
        if isinstance(element, Batch):
            return await self._await_together(element)
        policies, task = self._run.policies, self._run.layout.tasks[rank]
        arguments = self._dispatch.arguments(rank, element)
        if policies is None:
            return await awaited_within(task.run(*arguments), task)
        return await policies.acall(
            task, element, arguments, lambda given: awaited_within(task.run(*given), task)
        )

    # The clock of batches

    def watch(self, windows: Sequence[Window]) -> None:
        """Has windows end in time."""
        for window in windows:  # the timer must not keep the run alive
            expire = functools.partial(_end_window, weakref.ref(self._dispatch), window)
            io_loop.call(_set_timer, window.seconds, expire)

    # Calls with a deadline, on threads of their own

    def _start_timed(self, unit: Unit, task: Task) -> None:
        timed = _Timed()
        assert task.timeout_seconds is not None
        if self._run.policies is not None:  # each attempt has that time
            threads.submit(functools.partial(self._perform_timed, unit, timed))
            return
        # The timer outlives most calls, so it must not keep the run alive.
        expire = functools.partial(_expire, weakref.ref(self._dispatch), unit, timed)
        io_loop.call(_set_timer, task.timeout_seconds, expire)
        threads.submit(functools.partial(self._perform_timed, unit, timed))

    def _perform_timed(self, unit: Unit, timed: _Timed) -> None:
        rank, element = unit
        run, dispatch = self._run, self._dispatch
        timed.thread = threading.current_thread().name
        run.seats[timed.thread] = [rank]
        try:
            value = self.call(rank, element)
        except Exception as error:  # noqa: BLE001  (user code may raise anything)
            if timed.claim():
                run.seats.pop(timed.thread, None)
                dispatch.go_on(dispatch.failed(rank, element, error, light=False), light=False)
        except BaseException as error:  # noqa: BLE001  (user code may raise anything)
            run.abort(error)
        else:
            if timed.claim():
                run.seats.pop(timed.thread, None)
                dispatch.ended(rank, element, value, light=False)
        finally:
            run.seats.pop(timed.thread, None)

    def expire(self, unit: Unit, timed: _Timed) -> None:
        """Fails a call that has not ended in time; its thread is left to itself."""
        if timed.claim():
            rank, element = unit
            error = call_timeout(self._run.layout.tasks[rank], timed.thread)
            following = self._dispatch.failed(rank, element, error, light=True)
            self._dispatch.go_on(following, light=True)


class _Timed:
    """Who settles a timed call, its thread or its timer: whoever claims it first."""

    __slots__ = ("_tokens", "thread")

    def __init__(self) -> None:
        self.thread = ""
        self._tokens = [True]

    def claim(self) -> bool:
        try:
            return self._tokens.pop()
        except IndexError:
            return False


def _set_timer(seconds: float, expire: Any) -> None:
    asyncio.get_running_loop().call_later(seconds, expire)


def _end_window(dispatch: weakref.ref[Dispatch], window: Window) -> None:
    alive = dispatch()
    if alive is not None:
        alive.end_window(window)


def _expire(dispatch: weakref.ref[Dispatch], unit: Unit, timed: _Timed) -> None:
    alive = dispatch()
    if alive is not None:
        Launcher(alive).expire(unit, timed)


def within_seconds(run: Run, task: Task, call: Callable[[], Any]) -> Any:
    """Makes a call on another thread, which is left to itself if it takes too long."""
    done: Future[Any] = Future()
    worker = [""]

    def make() -> None:
        worker[0] = threading.current_thread().name
        try:
            done.set_result(call_under(run.jax_settings, call))
        except BaseException as error:  # noqa: BLE001  (user code may raise anything)
            done.set_exception(error)

    assert task.timeout_seconds is not None
    threads.submit(make)
    deadline = time.perf_counter() + task.timeout_seconds
    while True:
        left = deadline - time.perf_counter()
        if wait([done], timeout=max(min(left, _SLICE_SECONDS), 0.0)).done:
            return done.result()
        run.check()
        if left <= 0:
            raise call_timeout(task, worker[0])


async def awaited_within(call: Any, task: Task) -> Any:
    """Awaits a call for as long as it may take."""
    if task.timeout_seconds is None:
        return await call
    scope = asyncio.timeout(task.timeout_seconds)
    try:
        async with scope:
            return await call
    except TimeoutError as error:
        if scope.expired():
            raise call_timeout(task) from error
        raise
