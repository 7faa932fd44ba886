"""How one host call is made: at once, on the I/O loop, on a timed thread, or in a process."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ember_xcs._core.jax_state import call_under
from ember_xcs._lower.plan import Executor, Task, TaskKind
from ember_xcs._runtime.failures import call_timeout
from ember_xcs._runtime.io_loop import io_loop
from ember_xcs._runtime.processes import processes
from ember_xcs._runtime.threads import threads

if TYPE_CHECKING:
    from ember_xcs._runtime.dispatch import Dispatch, Unit

__all__ = ["Launcher"]


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
        worker = threading.current_thread().name
        try:
            if task.executor is Executor.PROCESS:
                worker = "process"
                return processes.call(run, task, arguments)
            if task.kind is TaskKind.CALL:
                copied = run.context.copy().run
                return call_under(run.jax_settings, copied, task.run, *arguments)
            return task.run(*arguments)
        finally:
            run.record(rank, element, worker, start)

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
            call = run.layout.tasks[rank].run(*dispatch.arguments(rank, element))
            value = await _within(call, run.layout.tasks[rank])
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
