"""The parallel scheduler: every task as soon as it is ready.

The policy, and its reasons:

1. *A task is begun as soon as what it needs is there*, not when a whole level is done: a chain
   of fast calls beside a slow one is not held up by it.
2. *Longest path first.* Among tasks that are ready, the one with the longest way to a result
   goes first, because the run cannot end before that way is walked. This matters where fewer
   calls may be in flight than are ready.
3. *As many calls at once as there are*, up to ``max_workers``. Host calls wait for other
   machines, so the number of processors of this one says nothing about how many to make.
   Only processes are as many as processors.
4. *The calling thread works too*, so a run within an operator of another never waits for a
   worker that waits for it, and small plans need no other thread.
5. *A worker goes on with a successor* of what it has done: its values are at hand, and no
   other thread has to be woken.

How this is done is told in the module of the dispatch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ember_xcs._runtime.scheduler import RunScheduler

if TYPE_CHECKING:
    from ember_xcs._runtime.run import Run

__all__ = ["ParallelScheduler"]


class ParallelScheduler(RunScheduler):
    """Performs every task as soon as it is ready, longest path first.

    Args:
        max_workers: The most host calls in flight at once; None for ``max_workers`` of the
            options.
    """

    def __init__(self, max_workers: int | None = None) -> None:
        self._max_workers = max_workers

    def execute(self, run: Run) -> None:
        """Performs all tasks of a run.

        Args:
            run: One execution of a plan.
        """
        self._run = run
        run.perform_everything(concurrency=self._max_workers)
