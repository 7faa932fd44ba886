"""What a scheduler is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ember_xcs._lower.plan import Plan
    from ember_xcs._runtime.run import Run

__all__ = ["RunScheduler", "Scheduler"]


@runtime_checkable
class Scheduler(Protocol):
    """Runs plans. Schedulers differ in order and concurrency, never in results.

    Example:
        A scheduler of one's own, which performs the newest ready task first::

            class NewestFirst:
                def prepare(self, plan):
                    pass

                def execute(self, run):
                    self.run, ready = run, run.ready
                    while ready:
                        ready += run.perform(ready.pop())

                def get_partial_results(self):
                    return self.run.partial_results()
    """

    def prepare(self, plan: Plan) -> None:
        """Works out what can be known before a run. Called before each run; may be called alone.

        Args:
            plan: The plan that is about to be run.
        """

    def execute(self, run: Run) -> None:
        """Performs all tasks of a run, or raises what ends it.

        Args:
            run: One execution of a plan; ``run.ready``, ``run.perform`` and their kin.
        """

    def get_partial_results(self) -> Mapping[str, Any]:
        """Returns what the latest run has computed so far, by node id and by output name."""


class RunScheduler:
    """What our schedulers share: they remember their latest run."""

    _run: Run | None = None

    def prepare(self, plan: Plan) -> None:
        """Does nothing: the layout of a plan is cached with the plan."""

    def get_partial_results(self) -> Mapping[str, Any]:
        """Returns what the latest run has computed so far, by node id and by output name."""
        return {} if self._run is None else self._run.partial_results()
