"""Plain calls, one after another: the loop that most of a run is spent in.

A worker that has ended a call may take the next without the lock of the dispatch while another
worker is on its way (``waking``), because that one will look into the queue under the lock, and
see what was queued before. The operations of ``heapq`` on integers are atomic. There are two ways:

- *One task became ready.* It is exchanged for the first of the queue, which thus grows no longer:
  whoever was to take care of the queue before still is.
- *None or several.* They are queued, and only then it is asked whether a worker is on its way:
  if it came just before, it has not seen them, and the lock is needed to wake another.

So calls that return at once cost no lock, since the worker on its way does not get hold of the
interpreter; and calls that block find it arrived.
"""

from __future__ import annotations

from heapq import heappop, heappush, heappushpop
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ember_xcs._runtime.layout import EMPTY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ember_xcs._runtime.dispatch import Dispatch

__all__ = ["Performed", "perform_plain"]

_NONE: Final[tuple[int, ...]] = ()


class Performed(NamedTuple):
    """What plain calls came to.

    Attributes:
        rank: The last task that was performed.
        done: How many tasks have ended well.
        ready: The tasks that they made ready, and that are not queued yet.
        error: The error of the last task.
    """

    rank: int
    done: int
    ready: Sequence[int] = _NONE
    error: Exception | None = None


def perform_plain(  # noqa: C901  (the one hot loop)
    dispatch: Dispatch, rank: int, seat: list[Any], *, light: bool
) -> Performed:
    """Performs a plain call and, where that needs no lock, those that come next.

    It is long because every call in it would be paid for by every task.

    Args:
        dispatch: Whose task it is.
        rank: The task.
        seat: Its first item says what is being performed.
        light: Whether this is the I/O loop.
    """
    run, queue = dispatch.run, dispatch.queue
    steps, values, arrivals, readers = dispatch.steps, run.values, run.arrivals, run.readers
    fresh = run.context.copy
    is_free = dispatch.is_free and not (light or dispatch.warms)
    ready: Sequence[int] = _NONE
    done = 0
    try:
        while True:
            seat[0] = rank
            function, own, single, arguments, slot, dead, shared, followers, joins = steps[rank]  # type: ignore[misc]
            if own:
                if single >= 0:
                    value = fresh().run(function, values[single])
                else:
                    value = fresh().run(function, *arguments(values))
            elif single >= 0:
                value = function(values[single])
            else:
                value = function(*arguments(values))
            if dispatch.stopped:
                return Performed(rank, 0)
            if slot >= 0:
                values[slot] = value
            else:
                run.write(rank, value)
            for slot in dead:
                values[slot] = EMPTY
            for slot in shared:
                if readers[slot].pop():  # type: ignore[union-attr]
                    values[slot] = EMPTY
            done += 1
            ready = followers
            if joins:
                ready = (*followers, *[j for j in joins if arrivals[j].pop()])  # type: ignore[index, union-attr]
            if not is_free:
                return Performed(rank, done, ready)
            if len(ready) == 1 and (dispatch.waking or not queue):
                following = heappushpop(queue, ready[0])
            else:
                following = _exchange(dispatch, ready)
            if following < 0:
                return Performed(rank, done)
            if steps[following] is None:
                return Performed(rank, done, (following,))
            rank = following
    except Exception as error:  # noqa: BLE001  (user code may raise anything)
        return Performed(rank, done, error=error)


def _exchange(dispatch: Dispatch, ready: Sequence[int]) -> int:
    """Queues what is ready and takes the first of the queue; -1 if that needs the lock."""
    for rank in ready:
        heappush(dispatch.queue, rank)
    if not dispatch.waking:  # asked after the queueing: see above
        return -1
    try:
        return heappop(dispatch.queue)
    except IndexError:
        return -1
