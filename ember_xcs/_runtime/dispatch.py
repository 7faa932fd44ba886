"""The dispatch: ready tasks are performed as soon as somebody is free to.

Ready tasks wait in one queue, longest path first. Whoever asks for the dispatch works on it,
and so do pool threads, which come and go:

- A worker that has ended a task goes on with what that made ready, else with the queue.
- A worker that takes a task, and leaves others behind in the queue, first wakes one more
  worker, unless one is on its way already. Calls that block thus spread over as many threads
  as there are calls, each waking the next, while calls that return at once are drained by one
  thread, since no other gets hold of the interpreter before they are done.
- Calls for batch end points gather on the way: see the module of the batches.
- Coroutines are handed to the I/O loop by whoever finds them, all that are ready in one go.
  When one ends, the I/O loop itself starts what follows, if that is a coroutine or glue.

============  ================================================================================
never changes ``run``, ``follow``, ``total``
queue         a heap of the ranks that are ready; a fan is in it while calls of it may begin
room          how many host calls may begin, and which have to wait for one to end
batches       calls that gather for batch end points; None where there are none
fans          the open fans, by rank
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

import threading
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ember_xcs._core.jax_state import call_under
from ember_xcs._lower.fans import CallFailure
from ember_xcs._runtime.batches import Batch, Batches
from ember_xcs._runtime.fan_opening import open_fan
from ember_xcs._runtime.launch import Launcher
from ember_xcs._runtime.layout import BATCHED, FAN, GLUE, KIND, LAUNCHED, THREAD
from ember_xcs._runtime.plain import perform_plain
from ember_xcs._runtime.room import Room
from ember_xcs._runtime.threads import threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ember_xcs._runtime.adaptive import Controller
    from ember_xcs._runtime.batches import Window
    from ember_xcs._runtime.fan import OpenFan
    from ember_xcs._runtime.layout import Step
    from ember_xcs._runtime.run import Run
    from ember_xcs.errors import NodeExecutionError

__all__ = ["SLICE_SECONDS", "Dispatch"]

Place: TypeAlias = int | Batch | None  # which call of an open fan, or which calls together
Unit: TypeAlias = tuple[int, Place]  # a rank, and what of it

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
        self.follow = follow
        self.warms = bool(run.layout.warmups)
        self.queue: list[int] = []
        self.fans: dict[int, OpenFan] = {}
        self.launches: list[Unit] = []
        self.made_ready: list[int] = []
        self.total = len(run.layout.tasks) if follow else len(ranks)
        self.done = 0
        self.stopped = self.waiting = self.waking = False
        self._counted = limit is not None or run.layout.has_processes
        self.modes = run.layout.modes
        self.lock = threading.Lock()
        self._signal = threading.Lock()
        self._signal.acquire()
        self.room = Room(limit, controller)
        self.is_free = limit is None and follow and not run.layout.groups
        self.steps: Sequence[Step | None] = run.steps
        self.batches: Batches | None = None
        if not run.layout.groups:
            self.queue.extend(sorted(ranks))
            return
        self.batches = Batches(run, self.queue, self.fans, ranks, follow=follow)
        self.steps = self.batches.steps(run.steps)
        self.batches.arrive(ranks)

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
        with self.lock:
            self.stopped = True
            self.queue.clear()
            self.room.clear()
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
        steps = self.steps
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

    def _perform_special(self, rank: int, element: Place) -> Sequence[int]:
        """Performs what is not one plain call; returns what that made ready."""
        if self.modes[rank] & FAN and element is None:
            return open_fan(self, rank)
        return self.arrived(rank, element, Launcher(self).call(rank, element))

    def arguments(self, rank: int, element: int | None) -> tuple[Any, ...]:
        """Returns the arguments of a unit."""
        return self.run.arguments(rank) if element is None else self.fans[rank].calls[element]

    def join(self, rank: int, fan: OpenFan) -> Sequence[int]:
        """Ends a fan whose calls have ended, and returns what that made ready."""
        task = self.run.layout.tasks[rank]
        assert task.fan is not None
        return self._settle(rank, task.fan.join(self.run.arguments(rank), fan.results))

    def _settle(self, rank: int, value: Any) -> Sequence[int]:
        if self.stopped:
            return _NONE
        fan = self.run.open_fans.pop(rank, None)
        if fan is not None:
            fan.values = None
        ready = self.run.settle(rank, value)
        with self.lock:
            self.done += 1
        return ready

    # Reports of what was launched; also of special units

    def arrived(self, rank: int, element: Place, value: Any) -> Sequence[int]:
        """Takes the value of a unit, and returns what that made ready."""
        if element is None:
            return self._settle(rank, value)
        if isinstance(element, Batch):
            return self._arrived_together(element, value)
        fan = self.fans[rank]
        fan.results[element] = value
        with self.lock:
            fan.ended += 1
            is_last = fan.ended == len(fan.calls)
        return self.join(rank, fan) if is_last and not self.stopped else _NONE

    def _arrived_together(self, batch: Batch, results: Sequence[Any]) -> Sequence[int]:
        """Takes the results of the calls of a batch, each for itself."""
        ready: list[int] = []
        for (rank, element), value in zip(batch.units, results, strict=True):
            error = value.error if isinstance(value, CallFailure) else None
            if error is None:
                try:
                    ready.extend(self.arrived(rank, element, value))
                except Exception as raised:  # noqa: BLE001  (user code may raise anything)
                    error = raised
            if error is not None and not self.stopped:
                done, made_ready = self._take_failure(rank, element, error, batch)
                ready.extend(made_ready)
                with self.lock:
                    self.done += done
        return ready

    def ended(self, rank: int, element: Place, value: Any, *, light: bool) -> None:
        """Takes the value of a launched unit, and goes on with what follows."""
        if self.stopped:
            if element is not None:  # it is a part of the partial results
                self.arrived(rank, element, value)
            return
        try:
            unit = self._next(rank, element, self.arrived(rank, element, value), 0, light)
        except Exception as error:  # noqa: BLE001  (user code may raise anything)
            unit = self.failed(rank, element, error, light=light)
        self.go_on(unit, light=light)

    def failed(
        self, rank: int, element: Place, error: BaseException, done: int = 0, *, light: bool
    ) -> Unit | None:
        """Takes the failure of a unit, and returns the unit to go on with."""
        if self.stopped:
            return None
        calls = element.units if isinstance(element, Batch) else [(rank, element)]
        ready: list[int] = []
        for one, k in calls:
            settled, made_ready = self._take_failure(one, k, error, element)
            done += settled
            ready.extend(made_ready)
            if self.run.stopped:  # at the first of them
                break
        return self._next(rank, element, ready, done, light)

    def _take_failure(
        self, rank: int, element: int | None, error: BaseException, place: Place
    ) -> tuple[int, Sequence[int]]:
        """Takes the failure of a call; returns how many tasks that settles, and what is ready."""
        fan = self.fans.get(rank)
        if fan is not None and fan.keeps(element, error):
            return 0, self.arrived(rank, element, error)
        at = fan.at if fan is not None and element is None else element
        if fan is not None and at is not None:
            fan.failures[at] = error
        size = len(place.units) if isinstance(place, Batch) else 1
        failure = self.run.describe(rank, error, fan, at, size)
        if fan is None or element is None or self.run.options.on_error == "raise":
            return self.fail(rank, failure)
        with self.lock:  # the node has failed once the last call in flight has ended
            fan.error = fan.error or failure
        return 0, _NONE

    def fail(self, rank: int, failure: NodeExecutionError) -> tuple[int, Sequence[int]]:
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
        element: Place = None,
        ready: Sequence[int] = _NONE,
        done: int = 0,
        light: bool = False,
        arriving: bool = False,
    ) -> Unit | None:
        """Reports what was done and takes the next unit; launches and wakes on the way."""
        launches = None
        with self.lock:
            if arriving:
                self.waking = False
            self.done += done
            if rank >= 0 and (self._counted or element is not None):
                self.room.leave(self, rank, element)
            if ready:
                self.enqueue(ready)
            if self.batches is None:
                unit = self._take(light)
            else:
                unit = self._take_or_gather(self.batches, light, has_ended=rank >= 0)
            wake = bool(self.queue) and not self.waking and (unit is None or self._blocks(unit))
            if wake:
                self.waking = not self._release_caller()
                wake = self.waking
            if self.launches:
                launches, self.launches = self.launches, []
            warm = self.warms and self._hides_warmups(launches, unit)
            if self.done >= self.total:
                self._release_caller()
        if launches or wake or warm:
            self._send_off(launches, wake, warm)
        return unit

    def _send_off(self, launches: list[Unit] | None, wake: bool, warm: bool) -> None:
        """Launches calls, and has others come to work."""
        if launches:
            Launcher(self).launch(launches)
        if wake:
            threads.submit(self._join_in)
        if warm:
            threads.submit(self._warm_up)

    def _hides_warmups(self, launches: list[Unit] | bool | None, unit: Unit | None) -> bool:
        """Whether all host calls that are ready have begun, and there are some; once."""
        if unit:  # a fan that has yet to be opened is no call
            mode, is_opened = self.modes[unit[0]], unit[1] is not None
            launches = launches or (mode & KIND >= THREAD and (is_opened or not mode & FAN))
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
        return self.modes[unit[0]] != GLUE

    def _take_or_gather(self, batches: Batches, light: bool, has_ended: bool) -> Unit | None:
        """Takes the first unit; where nothing is at work, calls need not wait for others."""
        batches.busy -= has_ended
        batches.reconsider(is_idle=False)
        unit = self._take(light)
        if unit is None and not (self.launches or self.queue or batches.busy):
            batches.reconsider(is_idle=True)
            unit = self._take(light)
        batches.busy += (unit is not None) + len(self.launches)
        if batches.windows:
            windows, batches.windows = batches.windows, []
            Launcher(self).watch(windows)
        return unit

    def end_window(self, window: Window) -> None:
        """Lets the calls go that a window held back; called on the I/O loop."""
        if self.batches is None or self.stopped:
            return
        with self.lock:
            self.batches.expire(window)
        self.go_on(self._next(light=True), light=True)

    def enqueue(self, ready: Iterable[int]) -> None:
        """Queues what has become ready; under the lock."""
        if not self.follow:
            self.made_ready.extend(ready)
        elif self.stopped:
            return
        elif self.batches is not None:
            self.batches.arrive(ready)
        else:
            queue = self.queue
            for rank in ready:
                heappush(queue, rank)

    def _take(self, light: bool) -> Unit | None:
        """Takes the first unit that may begin, and sets aside what is to be launched."""
        queue, modes = self.queue, self.modes
        while queue and not self.stopped:
            rank = heappop(queue)
            mode = modes[rank]
            kind = mode & KIND
            if light and kind != GLUE and kind != LAUNCHED:
                heappush(queue, rank)
                return None
            if mode & FAN and rank not in self.fans:
                return rank, None
            if mode & BATCHED:
                unit = self._take_together(rank, kind)
            elif kind < THREAD:
                return rank, None
            else:
                unit = self.room.take(self, rank, kind)
            if unit is None:
                continue
            if self.room.controller is not None and kind >= THREAD:
                self.room.note_beginning(*unit)
            if kind != LAUNCHED:
                return unit
            self.launches.append(unit)
        return None

    def _take_together(self, token: int, kind: int) -> Unit | None:
        """Takes the calls that a token stands for, if there are any and another may begin."""
        assert self.batches is not None
        if not self.batches.redeem(token):
            self.room.unpark(self, kind)
            return None
        if kind >= THREAD and not self.room.admit(self, token, kind):
            return None
        return self.batches.take(token)

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
        with self.lock:
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
