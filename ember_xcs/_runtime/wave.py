"""The wave scheduler: level by level, each wave at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ember_xcs._runtime.scheduler import RunScheduler

if TYPE_CHECKING:
    from ember_xcs._runtime.run import Run

__all__ = ["WaveScheduler"]


class WaveScheduler(RunScheduler):
    """Performs all tasks that are ready at the same time, waits for them, and goes on.

    Predictable, and slower than the parallel scheduler where durations differ: each wave takes
    as long as its slowest call.

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
        wave = run.ready
        while wave:
            wave = run.perform_all(wave, concurrency=self._max_workers)
