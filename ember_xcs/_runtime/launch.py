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
from ember_xcs._runtime.failures import call_timeout
from ember_xcs._runtime.io_loop import io_loop
from ember_xcs._runtime.processes import processes
from ember_xcs._runtime.threads import threads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ember_xcs._runtime.dispatch import Dispatch, Unit
    from ember_xcs._runtime.run import Run

__all__ = ["Launcher"]

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

    def call(self, rank: int, element: int | None) -> Any:
        """Makes a call on this thread, or waits here for a process that makes it."""
        run = self._run
        task = run.layout.tasks[rank]
        arguments = self._dispatch.arguments(rank, element)
        start = time.perf_counter()
        is_process = task.executor is Executor.PROCESS
        worker = "process" if is_process else threading.current_thread().name
        try:
            if run.policies is not None and task.kind is TaskKind.CALL:
                attempt = functools.partial(self._attempt, task)
                within = run.context.copy().run  # the thread that asked for the run is outside it
                return within(run.policies.call, task, element, arguments, attempt)
            if is_process:
                return processes.call(run, task, arguments)
            if task.kind is TaskKind.CALL:
                copied = run.context.copy().run
                return call_under(run.jax_settings, copied, task.run, *arguments)
            return task.run(*arguments)
        finally:
            run.record(rank, element, worker, start)

    def _attempt(self, task: Task, arguments: tuple[Any, ...]) -> Any:
        """Makes a call once, in the context that its policies have set, for as long as it may."""
        run = self._run
        if task.executor is Executor.PROCESS:
            return processes.call(run, task, arguments)
        copied = contextvars.copy_context().run
        if task.timeout_seconds is None:
            return call_under(run.jax_settings, copied, task.run, *arguments)
        return _within_seconds(run, task, functools.partial(copied, task.run, *arguments))

    def launch(self, units: Sequence[Unit]) -> None:
        """Starts calls that report when they end."""
        tasks = self._run.layout.tasks
        flights = [unit for unit in units if tasks[unit[0]].executor is Executor.ASYNC]
        for unit in units:
            if tasks[unit[0]].executor is not Executor.ASYNC:
                self._start_timed(unit, tasks[unit[0]])
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

    async def _fly(self, rank: int, element: int | None) -> None:
        run, dispatch = self._run, self._dispatch
        start = time.perf_counter()
        try:
            task = run.layout.tasks[rank]
            arguments = dispatch.arguments(rank, element)
            if run.policies is None:
                value = await _within(task.run(*arguments), task)
            else:
                value = await run.policies.acall(
                    task, element, arguments, lambda given: _within(task.run(*given), task)
                )
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  (user code may raise anything)
            run.record(rank, element, "io", start)
            unit = dispatch.failed(rank, element, error, light=True)
            dispatch.go_on(unit, light=True)
        except BaseException as error:  # noqa: BLE001  (user code may raise anything)
            run.abort(error)
        else:
            run.record(rank, element, "io", start)
            dispatch.ended(rank, element, value, light=True)

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


def _expire(dispatch: weakref.ref[Dispatch], unit: Unit, timed: _Timed) -> None:
    alive = dispatch()
    if alive is not None:
        Launcher(alive).expire(unit, timed)


def _within_seconds(run: Run, task: Task, call: Callable[[], Any]) -> Any:
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


async def _within(call: Any, task: Task) -> Any:
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
