"""How a fan is split into its calls, which then gather, wait in the queue, or are made in turn."""

from __future__ import annotations

from heapq import heappush
from typing import TYPE_CHECKING, Final

from ember_xcs._runtime.fan import OpenFan
from ember_xcs._runtime.launch import Launcher
from ember_xcs._runtime.layout import BATCHED, INLINE, KIND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ember_xcs._runtime.dispatch import Dispatch

__all__ = ["open_fan"]

_NONE: Final[tuple[int, ...]] = ()


def open_fan(dispatch: Dispatch, rank: int) -> Sequence[int]:
    """Splits a fan into its calls, and returns what is ready if they have ended already."""
    if dispatch.modes[rank] & BATCHED:
        return _open_batched(dispatch, rank)
    fan = _split(dispatch, rank)
    if not fan.calls:
        return dispatch.join(rank, fan)
    if dispatch.modes[rank] & KIND <= INLINE:
        _call_in_turn(dispatch, rank, fan)
        return dispatch.join(rank, fan)
    with dispatch.lock:
        if not dispatch.stopped:
            heappush(dispatch.queue, rank)
    return _NONE


def _split(dispatch: Dispatch, rank: int) -> OpenFan:
    run = dispatch.run
    task = run.layout.tasks[rank]
    assert task.fan is not None
    values = run.arguments(rank)
    fan = OpenFan(task, values, task.fan.split(values))
    dispatch.fans[rank] = run.open_fans[rank] = fan
    if run.policies is not None and task.host is not None:
        run.policies.opened(len(fan.calls))
    return fan


def _open_batched(dispatch: Dispatch, rank: int) -> Sequence[int]:
    """Splits a fan whose calls go to a batch end point, and has them gather."""
    assert dispatch.batches is not None
    count = 0
    try:
        fan = _split(dispatch, rank)
        fan.limit = count = len(fan.calls)  # what bounds them is counted in batches
    finally:  # others may be waiting for them
        with dispatch.lock:
            if not dispatch.stopped:
                dispatch.batches.opened(rank, count)
    return _NONE if count else dispatch.join(rank, fan)


def _call_in_turn(dispatch: Dispatch, rank: int, fan: OpenFan) -> None:
    """Makes the calls of a fan on this thread, one after another."""
    launcher = Launcher(dispatch)
    for element in range(len(fan.calls)):
        fan.at = element
        try:
            fan.results[element] = launcher.call(rank, element)
        except Exception as error:
            if not fan.keeps(element, error):
                raise
            fan.results[element] = error
    fan.at = None
