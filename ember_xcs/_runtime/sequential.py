"""The sequential scheduler: one call at a time, in the order of the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ember_xcs._runtime.layout import EMPTY
from ember_xcs._runtime.scheduler import RunScheduler

if TYPE_CHECKING:
    from ember_xcs._runtime.run import Run

__all__ = ["SequentialScheduler"]


class SequentialScheduler(RunScheduler):
    """Performs one call at a time, in the order of the plan.

    The cheapest where nothing can overlap, and the easiest to debug. No thread is involved, but
    for coroutines, which run on the I/O loop, and calls in processes.
    """

    def execute(self, run: Run) -> None:
        """Performs all tasks of a run.

        Args:
            run: One execution of a plan.
        """
        self._run = run
        if (
            run.layout.is_plain
            and run.policies is None
            and run.options.on_error == "raise"
            and not run.is_watched
        ):
            _perform_plain(run)
        else:
            _perform_any(run)


def _perform_plain(run: Run) -> None:
    """Performs a run of plain calls; what is freed when is known beforehand."""
    values, fresh, rank = run.values, run.context.copy, 0
    steps = run.steps
    try:
        for rank, _, freed in run.layout.sequence:
            function, own, single, arguments, slot, *_ = steps[rank]  # type: ignore[misc]
            if own:
                if single >= 0:
                    value = fresh().run(function, values[single])
                else:
                    value = fresh().run(function, *arguments(values))
            elif single >= 0:
                value = function(values[single])
            else:
                value = function(*arguments(values))
            if slot >= 0:
                values[slot] = value
            else:
                run.write(rank, value)
            for slot in freed:
                values[slot] = EMPTY
            if run.stopped:
                break
    except Exception as error:  # noqa: BLE001  (user code may raise anything)
        run.fail(rank, run.describe(rank, error))
    run.check()


def _perform_any(run: Run) -> None:
    ranks = run.layout.ranks
    for index in range(len(ranks)):
        if ranks[index] not in run.skipped_ranks:
            run.perform(index, concurrency=1)
