"""What stands between a run and a batch end point: the same as for single calls, for each call.

Journal and cache are asked for each call of a batch, and what they know does not go to the end
point. The budget counts calls, and allows all of a batch or none; the line before a resource counts
what is sent there: one request. A call that fails is tried again with the others that did.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ember_xcs._lower.fans import CallFailure
from ember_xcs.errors import BudgetExceeded, ExecutionCancelled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ember_xcs._lower.plan import Task
    from ember_xcs._runtime.batched_writes import Written
    from ember_xcs._runtime.batches import Batch, BatchRow
    from ember_xcs._runtime.memory import Remembered
    from ember_xcs._runtime.policies import CallPolicies

__all__ = ["await_together", "call_together"]


class _Calls:
    """The calls that are left to be made, and what came of the others."""

    def __init__(self, policies: CallPolicies, task: Task, rows: Sequence[BatchRow]) -> None:
        self._policies, self._task, self._rows = policies, task, rows
        self._left = list(range(len(rows)))
        self.results: list[Any] = [None] * len(rows)
        self.number = 1

    @property
    def left(self) -> list[BatchRow]:
        """Those that are to be made now."""
        return [self._rows[k] for k in self._left]

    def take(self, made: Sequence[Any]) -> float:
        """Takes what an attempt gave, and returns how long to wait before the next."""
        again, pauses = [], [0.0]
        for k, result in zip(self._left, made, strict=True):
            self.results[k] = result
            if isinstance(result, CallFailure):
                pause = self._policies.pause(self._task, self.number, result.error)
                if pause is not None:
                    again.append(k)
                    pauses.append(pause)
        self._left = again
        self.number += 1
        return max(pauses)

    def being_kept(self, remembered: Remembered) -> list[Written]:
        """Begins to keep what is there, since the rest may never be; returns what to wait for."""
        if not remembered.keys:
            return []
        good = [k for k, r in enumerate(self.results) if not isinstance(r, CallFailure)]
        return [written for k in good for written in remembered.note(k, self.results[k])]


def call_together(
    policies: CallPolicies,
    batch: Batch,
    rows: Sequence[BatchRow],
    attempt: Callable[[tuple[Any, ...]], Any],
) -> list[Any]:
    """Returns the results of calls that go to a batch end point from this thread.

    Args:
        policies: Those of the run.
        batch: The batch.
        rows: Its calls.
        attempt: Asks the end point once, for the list that it is given.

    Raises:
        BudgetExceeded: The calls may not be made.
        ExecutionCancelled: The run was stopped.
    """
    task, whole = batch.task, (list(rows),)
    remembered = policies.memory.recall(task, batch, whole, policies.check)
    if remembered.is_complete:
        return list(remembered.value())
    with remembered:
        (asked,) = remembered.missing()
        calls = _Calls(policies, task, asked)
        while left := calls.left:
            given = ([row.call for row in left],)
            try:
                found = policies.once(
                    task, given, batch.counted(attempt), remembered, calls.number, len(left)
                )
                made = batch.finished(left, found)
            except (BudgetExceeded, ExecutionCancelled):
                raise
            except Exception as error:  # noqa: BLE001  (user code may raise anything)
                made = [CallFailure(error)] * len(left)
            pause = calls.take(made)
            if calls.left:
                for written in calls.being_kept(remembered):
                    written.wait()
                policies.sleep(pause)
        return list(remembered.keep(calls.results))


async def await_together(
    policies: CallPolicies,
    batch: Batch,
    rows: Sequence[BatchRow],
    attempt: Callable[[tuple[Any, ...]], Awaitable[Any]],
) -> list[Any]:
    """Returns the same where the batch end point is awaited on the I/O loop."""
    task, whole = batch.task, (list(rows),)
    remembered = await policies.memory.arecall(task, batch, whole)
    if remembered.is_complete:
        return list(remembered.value())
    with remembered:
        (asked,) = remembered.missing()
        calls = _Calls(policies, task, asked)
        while left := calls.left:
            given = ([row.call for row in left],)
            try:
                found = await policies.aonce(
                    task, given, batch.counted(attempt), remembered, calls.number, len(left)
                )
                made = batch.finished(left, found)
            except (BudgetExceeded, ExecutionCancelled):
                raise
            except Exception as error:  # noqa: BLE001  (user code may raise anything)
                made = [CallFailure(error)] * len(left)
            pause = calls.take(made)
            if calls.left:
                for written in calls.being_kept(remembered):
                    await written.awaited()
                await asyncio.sleep(pause)
        return list(await remembered.akeep(calls.results))
