"""The dispatch: ready tasks are performed as soon as somebody is free to.

Ready tasks wait in one queue, longest path first. Whoever asks for the dispatch works on it,
and so do pool threads, which come and go:

- A worker that has ended a task goes on with what that made ready, else with the queue.
- A worker that takes a task, and leaves others behind in the queue, first wakes one more
  worker, unless one is on its way already. Calls that block thus spread over as many threads
  as there are calls, each waking the next, while calls that return at once are drained by one
  thread, since no other gets hold of the interpreter before they are done.
- Coroutines are handed to the I/O loop by whoever finds them, all that are ready in one go.
  When one ends, the I/O loop itself starts what follows, if that is a coroutine or glue.

============  ================================================================================
never changes ``run``, ``limit`` (but for adaptive ones), ``follow``, ``total``
queue         a heap of the ranks that are ready; a fan is in it while calls of it may begin
parked        a heap of ranks that are ready but have to wait for a call in flight to end
fans          the open fans, by rank
in_flight     how many host calls have begun and not ended; only counted where it is bounded
done          how many tasks have ended; workers add what they did when they come for more
waking        whether a worker has been called and has not come yet
waiting       whether the thread that asked is waiting for ``signal``
============  ================================================================================

Between any two changes, which happen under ``lock``: if the queue is not empty, a worker is
at work or on its way; if ``done`` equals ``total``, the queue is empty and the caller is not
waiting. The lock is never held while a task runs. Plain calls leave it alone where they can: see
the module of the plain calls.
"""

from __future__ import annotations

import os
import threading
import time
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ember_xcs._core.jax_state import call_under
from ember_xcs._runtime.fan import OpenFan
from ember_xcs._runtime.launch import Launcher
from ember_xcs._runtime.layout import FAN, GLUE, INLINE, LAUNCHED, PROCESS, THREAD
from ember_xcs._runtime.plain import perform_plain
from ember_xcs._runtime.threads import threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ember_xcs._runtime.adaptive import Controller
    from ember_xcs._runtime.run import Run
    from ember_xcs.errors import NodeExecutionError

__all__ = ["SLICE_SECONDS", "Dispatch"]

Unit: TypeAlias = tuple[int, int | None]  # a rank, and the number of a call for an open fan

_NONE: Final[tuple[int, ...]] = ()

# A signal that comes just before a wait begins does not interrupt it, so waits are in slices.
SLICE_SECONDS: Final = 0.25


class Dispatch:
    """Performs some tasks of a run at the same time.

    Args:
        run: The run.
        ranks: The ranks that are ready.
        limit: The most host calls in flight at once; None for no limit.
        controller: Sets the limit anew whenever a call has ended.
        follow: Whether to go on with what becomes ready, until the run is complete.
    """

    def __init__(
        self,
        run: Run,
        ranks: Sequence[int],
        *,
        limit: int | None = None,
        controller: Controller | None = None,
        follow: bool = True,
    ) -> None:
        run.begin_counting()
        self.run = run
        self.limit = limit
        self.follow = follow
        self._controller = controller
        self._begun: dict[Unit, float] = {}
        self.warms = bool(run.layout.warmups)
        self.queue = sorted(ranks)
        self.parked: list[int] = []
        self.processes_parked: list[int] = []
        self.fans: dict[int, OpenFan] = {}
        self.launches: list[Unit] = []
        self.made_ready: list[int] = []
        self.total = len(run.layout.tasks) if follow else len(ranks)
        self.done = self.in_flight = self._processes = 0
        self.stopped = self.waiting = self.waking = False
        self._process_limit = os.cpu_count() or 1
        self._counted = limit is not None or run.layout.has_processes
        self._modes = run.layout.modes
        self._lock = threading.Lock()
        self._signal = threading.Lock()
        self._signal.acquire()

    def execute(self) -> list[int]:
        """Performs the tasks, and returns the ranks that became ready and were not followed.

        The calling thread works too. Ctrl-C in it ends the run at once.

        Raises:
            NodeExecutionError: If a task fails and the run ends at the first error.
            ExecutionCancelled: If the run is stopped.
            XCSError: If called on the I/O loop for tasks that need the I/O loop.
        """
        run = self.run
        if run.layout.has_launches:
            run.refuse_blocked_loop()
        run.attach(self)
        try:
            self._work(self._next(), light=False)
            while self._wait():
                self._work(self._arrive(), light=False)
        except BaseException as error:
            if not run.stopped:
                run.abort(error)
            raise
        finally:
            run.detach(self)
        run.check()
        return self.made_ready

    def stop(self) -> None:
        """Begins nothing more, and lets the caller go."""
        with self._lock:
            self.stopped = True
            self.queue.clear()
            self.parked.clear()
            self.processes_parked.clear()
            self._release_caller()

    # Working

    def _work(self, unit: Unit | None, *, light: bool) -> None:
        """Performs a unit and what follows, until there is nothing more to take."""
        if unit is None:
            return
        if light:
            self._perform_from(unit, [None], light=True)
            return
        name = threading.current_thread().name
        self.run.seats[name] = seat = [unit[0]]
        try:
            self._perform_from(unit, seat, light=False)
        finally:
            self.run.seats.pop(name, None)

    def _perform_from(self, unit: Unit | None, seat: list[Any], *, light: bool) -> None:
        """Performs a unit and what follows; ``seat`` says what is being performed."""
        steps = self.run.steps
        while unit is not None:
            rank, element = unit
            seat[0] = rank
            done = 0
            ready: Sequence[int]
            try:
                if steps[rank] is None:
                    ready = self._perform_special(rank, element)
                else:
                    rank, done, ready, error = perform_plain(self, rank, seat, light=light)
                    if error is not None:
                        unit = self.failed(rank, element, error, done, light=light)
                        continue
                unit = self._next(rank, element, ready, done, light)
            except Exception as error:  # noqa: BLE001  (user code may raise anything)
                unit = self.failed(rank, element, error, light=light)

    def _perform_special(self, rank: int, element: int | None) -> Sequence[int]:
        """Performs what is not one plain call; returns what that made ready."""
        if self._modes[rank] & FAN and element is None:
            return self._open_fan(rank)
        return self.arrived(rank, element, Launcher(self).call(rank, element))

    def arguments(self, rank: int, element: int | None) -> tuple[Any, ...]:
        """Returns the arguments of a unit."""
        return self.run.arguments(rank) if element is None else self.fans[rank].calls[element]

    def _open_fan(self, rank: int) -> Sequence[int]:
        """Splits a fan into its calls and queues them."""
        run = self.run
        task = run.layout.tasks[rank]
        assert task.fan is not None
        fan = OpenFan(task, task.fan.split(run.arguments(rank)))
        self.fans[rank] = fan
        if not fan.calls:
            return self._join(rank, fan)
        if self._modes[rank] & ~FAN <= INLINE:
            self._call_in_turn(rank, fan)
            return self._join(rank, fan)
        with self._lock:
            if not self.stopped:
                heappush(self.queue, rank)
        return _NONE

    def _call_in_turn(self, rank: int, fan: OpenFan) -> None:
        """Makes the calls of a fan on this thread, one after another."""
        launcher = Launcher(self)
        for element in range(len(fan.calls)):
            fan.at = element
            try:
                fan.results[element] = launcher.call(rank, element)
            except Exception as error:
                if not fan.keeps(element, error):
                    raise
                fan.results[element] = error
        fan.at = None

    def _join(self, rank: int, fan: OpenFan) -> Sequence[int]:
        task = self.run.layout.tasks[rank]
        assert task.fan is not None
        return self._settle(rank, task.fan.join(self.run.arguments(rank), fan.results))

    def _settle(self, rank: int, value: Any) -> Sequence[int]:
        if self.stopped:
            return _NONE
        ready = self.run.settle(rank, value)
        with self._lock:
            self.done += 1
        return ready

    # Reports of what was launched; also of special units

    def arrived(self, rank: int, element: int | None, value: Any) -> Sequence[int]:
        """Takes the value of a unit, and returns what that made ready."""
        if element is None:
            return self._settle(rank, value)
        fan = self.fans[rank]
        fan.results[element] = value
        with self._lock:
            fan.ended += 1
            is_last = fan.ended == len(fan.calls)
        return self._join(rank, fan) if is_last else _NONE

    def ended(self, rank: int, element: int | None, value: Any, *, light: bool) -> None:
        """Takes the value of a launched unit, and goes on with what follows."""
        if self.stopped:
            return
        try:
            unit = self._next(rank, element, self.arrived(rank, element, value), 0, light)
        except Exception as error:  # noqa: BLE001  (user code may raise anything)
            unit = self.failed(rank, element, error, light=light)
        self.go_on(unit, light=light)

    def failed(
        self, rank: int, element: int | None, error: BaseException, done: int = 0, *, light: bool
    ) -> Unit | None:
        """Takes the failure of a unit, and returns the unit to go on with."""
        if self.stopped:
            return None
        fan = self.fans.get(rank)
        ready: Sequence[int] = _NONE
        if fan is not None and fan.keeps(element, error):
            ready = self.arrived(rank, element, error)
            return self._next(rank, element, ready, done, light)
        at = fan.at if fan is not None and element is None else element
        failure = self.run.describe(rank, error, fan, at)
        if fan is None or element is None or self.run.options.on_error == "raise":
            settled, ready = self._fail(rank, failure)
            done += settled
        else:  # the node has failed once the last call in flight has ended
            with self._lock:
                fan.error = fan.error or failure
        return self._next(rank, element, ready, done, light)

    def _fail(self, rank: int, failure: NodeExecutionError) -> tuple[int, Sequence[int]]:
        """Fails a task; returns how many tasks of this dispatch that settles, and what is ready."""
        skipped, ready = self.run.fail(rank, failure)
        return (1 + skipped if self.follow else 1), ready

    def go_on(self, unit: Unit | None, *, light: bool) -> None:
        """Performs a unit and what follows, in the context of the run."""
        if unit is not None:
            self._in_context(self._work, unit, light=light)

    def _in_context(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Calls a function as whoever asked for the run would have called it."""
        run = self.run
        call_under(run.jax_settings, run.context.copy().run, function, *args, **kwargs)

    # Taking what is ready

    def _next(
        self,
        rank: int = -1,
        element: int | None = None,
        ready: Sequence[int] = _NONE,
        done: int = 0,
        light: bool = False,
        arriving: bool = False,
    ) -> Unit | None:
        """Reports what was done and takes the next unit; launches and wakes on the way."""
        launches = None
        with self._lock:
            if arriving:
                self.waking = False
            self.done += done
            if rank >= 0 and (self._counted or element is not None):
                self._leave(rank, element)
            if ready:
                self._enqueue(ready)
            unit = self._take(light)
            wake = bool(self.queue) and not self.waking and (unit is None or self._blocks(unit))
            if wake:
                self.waking = not self._release_caller()
                wake = self.waking
            if self.launches:
                launches, self.launches = self.launches, []
            warm = self.warms and self._hides_warmups(launches, unit)
            if self.done >= self.total:
                self._release_caller()
        if launches:
            Launcher(self).launch(launches)
        if wake:
            threads.submit(self._join_in)
        if warm:
            threads.submit(self._warm_up)
        return unit

    def _hides_warmups(self, launches: list[Unit] | bool | None, unit: Unit | None) -> bool:
        """Whether all host calls that are ready have begun, and there are some; once."""
        if unit:  # a fan that has yet to be opened is no call
            mode, is_opened = self._modes[unit[0]], unit[1] is not None
            launches = launches or (mode & ~FAN >= THREAD and (is_opened or not mode & FAN))
        self.warms = bool(self.queue or not launches)
        return not self.warms

    def _warm_up(self) -> None:
        """Compiles ahead of time what no run of the plan has compiled yet."""
        pending = self.run.layout.warmups
        while pending and not self.stopped:
            try:
                self._in_context(pending.pop(0))
            except IndexError:  # another run of the plan took the last
                return
            except Exception as error:  # noqa: BLE001  (user code may raise anything)
                self.run.failed_warmups.append(error)

    def _blocks(self, unit: Unit) -> bool:
        return self._modes[unit[0]] != GLUE

    def _enqueue(self, ready: Iterable[int]) -> None:
        if not self.follow:
            self.made_ready.extend(ready)
        elif not self.stopped:
            queue = self.queue
            for rank in ready:
                heappush(queue, rank)

    def _take(self, light: bool) -> Unit | None:
        """Takes the first unit that may begin, and sets aside what is to be launched."""
        queue, modes = self.queue, self._modes
        while queue and not self.stopped:
            rank = heappop(queue)
            mode = modes[rank]
            kind = mode & ~FAN
            if light and kind != GLUE and kind != LAUNCHED:
                heappush(queue, rank)
                return None
            if kind < THREAD or (mode & FAN and rank not in self.fans):
                return rank, None
            if not self._admit(rank, kind):
                continue
            element = None
            if mode & FAN:
                fan = self.fans[rank]
                element = fan.begin()
                if fan.queued:
                    heappush(queue, rank)
            if self._controller is not None:
                self._begun[rank, element] = time.perf_counter()
            if kind != LAUNCHED:
                return rank, element
            self.launches.append((rank, element))
        return None

    def _admit(self, rank: int, kind: int) -> bool:
        """Whether another host call may begin; parks the task if it may not yet."""
        fan = self.fans.get(rank)
        if fan is not None and not fan.may_begin:  # a call of it has failed meanwhile
            fan.queued = False
            self._unpark(kind)
            return False
        if self.limit is not None and self.in_flight >= self.limit:
            heappush(self.parked, rank)
            return False
        if kind == PROCESS:
            if self._processes >= self._process_limit:
                heappush(self.processes_parked, rank)
                self._unpark(THREAD)
                return False
            self._processes += 1
        self.in_flight += 1
        return True

    def _unpark(self, kind: int) -> None:
        """Queues a task that was waiting for a call to end."""
        if kind == PROCESS and self.processes_parked:
            heappush(self.queue, heappop(self.processes_parked))
        if self.parked:
            heappush(self.queue, heappop(self.parked))

    def _leave(self, rank: int, element: int | None) -> None:
        """Counts a host call as ended, and queues what may begin because of that."""
        mode = self._modes[rank]
        kind = mode & ~FAN
        if kind < THREAD or (mode & FAN and element is None):
            return
        if mode & FAN:
            self._leave_fan(rank)
        self.in_flight -= 1
        if kind == PROCESS:
            self._processes -= 1
        if self._controller is not None:
            self._adapt(rank, element)
        if not self.stopped:
            self._unpark(kind)

    def _leave_fan(self, rank: int) -> None:
        fan = self.fans[rank]
        if fan.end() and not self.stopped:
            heappush(self.queue, rank)
        if fan.error is not None and fan.in_flight == 0:
            settled, ready = self._fail(rank, fan.error)
            self.done += settled
            self._enqueue(ready)

    def _adapt(self, rank: int, element: int | None) -> None:
        """Has the controller set the limit anew."""
        assert self._controller is not None
        seconds = time.perf_counter() - self._begun.pop((rank, element))
        operator = self.run.layout.tasks[rank].operator
        self.limit = self._controller.ended(operator, seconds, self.in_flight + 1)
        for _ in range(min(len(self.parked), self.limit - self.in_flight - 1)):
            self._unpark(THREAD)

    # Coming, waiting and going

    def _arrive(self) -> Unit | None:
        return self._next(arriving=True)

    def _join_in(self) -> None:
        """What a worker does that was called."""
        if self.stopped:
            return
        self._in_context(self._serve)

    def _serve(self) -> None:
        try:
            self._work(self._arrive(), light=False)
        except BaseException as error:  # noqa: BLE001  (user code may raise anything)
            self.run.abort(error)

    def _wait(self) -> bool:
        """Waits until there is something to take; False once all is done or stopped."""
        with self._lock:
            if self.stopped or self.done >= self.total:
                return False
            if self.queue:
                return True
            self.waiting = True
        while not self._signal.acquire(timeout=SLICE_SECONDS):
            pass
        return True

    def _release_caller(self) -> bool:
        """Lets the caller go on if it is waiting."""
        if not self.waiting:
            return False
        self.waiting = False
        self._signal.release()
        return True
