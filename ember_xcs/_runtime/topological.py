"""The topological scheduler: one task at a time, longest path first."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from ember_xcs._runtime.scheduler import RunScheduler

if TYPE_CHECKING:
    from ember_xcs._runtime.run import Run

__all__ = ["TopologicalScheduler"]


class TopologicalScheduler(RunScheduler):
    """Performs one task at a time, among those that are ready the one with the longest path.

    The calls of a task that is many calls overlap.
    """

    def execute(self, run: Run) -> None:
        """Performs all tasks of a run.

        Args:
            run: One execution of a plan.
        """
        self._run = run
        ranks = run.layout.ranks
        ready = [(ranks[index], index) for index in run.ready]
        while ready:
            _, index = heapq.heappop(ready)
            for successor in run.perform(index):
                heapq.heappush(ready, (ranks[successor], successor))
