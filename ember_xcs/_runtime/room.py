"""How many host calls of a dispatch may be in flight, and which have to wait for room.

All of it happens under the lock of the dispatch.

================  =====================================================================
limit             the most in flight; None for any number. A controller may set it anew
parked            a heap of the ranks that are ready, and wait for a call in flight to end
processes_parked  the same of calls in processes, of which there are as many as processors
in_flight         how many have begun and not ended; exact only where it is bounded
================  =====================================================================
"""

from __future__ import annotations

import os
import time
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from ember_xcs._runtime.batches import Batch
from ember_xcs._runtime.layout import FAN, KIND, PROCESS, THREAD

if TYPE_CHECKING:
    from ember_xcs._runtime.adaptive import Controller
    from ember_xcs._runtime.dispatch import Dispatch, Place, Unit

__all__ = ["Room"]


class Room:
    """Counts the host calls of a dispatch, which it is told of, as it must not keep it alive.

    Args:
        limit: The most host calls in flight at once; None for no limit.
        controller: Sets the limit anew whenever a call has ended.
    """

    __slots__ = (
        "_begun", "_process_limit", "_processes", "controller", "in_flight", "limit",
        "parked", "processes_parked",
    )  # fmt: skip

    def __init__(self, limit: int | None, controller: Controller | None) -> None:
        self.limit, self.controller = limit, controller
        self.parked: list[int] = []
        self.processes_parked: list[int] = []
        self.in_flight = self._processes = 0
        self._process_limit = os.cpu_count() or 1
        self._begun: dict[Unit, float] = {}

    def clear(self) -> None:
        """Forgets what waits."""
        self.parked.clear()
        self.processes_parked.clear()

    def take(self, dispatch: Dispatch, rank: int, kind: int) -> Unit | None:
        """Takes a host call that is ready if another may begin."""
        fan = dispatch.fans.get(rank)
        if fan is not None and not fan.may_begin:  # a call of it has failed meanwhile
            fan.queued = False
            self.unpark(dispatch, kind)
            return None
        if self.limit is None and kind != PROCESS:
            self.in_flight += 1
        elif not self.admit(dispatch, rank, kind):
            return None
        if fan is None:
            return rank, None
        element = fan.begin()
        if fan.queued:
            heappush(dispatch.queue, rank)
        return rank, element

    def admit(self, dispatch: Dispatch, rank: int, kind: int) -> bool:
        """Whether another host call may begin; parks the task if it may not yet."""
        if self.limit is not None and self.in_flight >= self.limit:
            heappush(self.parked, rank)
            return False
        if kind == PROCESS:
            if self._processes >= self._process_limit:
                heappush(self.processes_parked, rank)
                self.unpark(dispatch, THREAD)
                return False
            self._processes += 1
        self.in_flight += 1
        return True

    def unpark(self, dispatch: Dispatch, kind: int) -> None:
        """Queues a task that was waiting for a call to end."""
        queue = dispatch.queue
        if kind == PROCESS and self.processes_parked:
            heappush(queue, heappop(self.processes_parked))
        if self.parked:
            heappush(queue, heappop(self.parked))

    def note_beginning(self, rank: int, element: Place) -> None:
        """Notes when a call begins, for the controller."""
        self._begun[rank, element] = time.perf_counter()

    def leave(self, dispatch: Dispatch, rank: int, element: Place) -> None:
        """Counts a host call as ended, and queues what may begin because of that."""
        mode = dispatch.modes[rank]
        kind = mode & KIND
        if isinstance(element, Batch):
            _leave_together(dispatch, element)
        elif mode & FAN:
            if element is None or kind < THREAD:
                return
            _leave_fan(dispatch, rank)
        if kind < THREAD:
            return
        self.in_flight -= 1
        if kind == PROCESS:
            self._processes -= 1
        if self.controller is not None:
            self._adapt(dispatch, self.controller, rank, element)
        if not dispatch.stopped:
            self.unpark(dispatch, kind)

    def _adapt(self, dispatch: Dispatch, controller: Controller, rank: int, element: Place) -> None:
        """Has the controller set the limit anew."""
        seconds = time.perf_counter() - self._begun.pop((rank, element))
        operator = dispatch.run.layout.tasks[rank].operator
        if isinstance(element, Batch):  # takes longer than one of its calls would
            operator = f"forward_batch of {operator}"
        self.limit = controller.ended(operator, seconds, self.in_flight + 1)
        for _ in range(min(len(self.parked), self.limit - self.in_flight - 1)):
            self.unpark(dispatch, THREAD)


def _leave_together(dispatch: Dispatch, batch: Batch) -> None:
    for rank, element in batch.units:
        if element is not None:
            _leave_fan(dispatch, rank)
    assert dispatch.batches is not None
    if not dispatch.stopped:
        dispatch.batches.ended(batch)


def _leave_fan(dispatch: Dispatch, rank: int) -> None:
    fan = dispatch.fans[rank]
    if fan.end() and not dispatch.stopped:
        heappush(dispatch.queue, rank)
    if fan.error is not None and fan.in_flight == 0:
        settled, ready = dispatch.fail(rank, fan.error)
        dispatch.done += settled
        dispatch.enqueue(ready)
