"""The no-op scheduler: plans and reports, runs nothing."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ember_xcs._runtime.scheduler import RunScheduler

if TYPE_CHECKING:
    from ember_xcs._lower.plan import Plan
    from ember_xcs._runtime.run import Run

__all__ = ["NoOpScheduler"]


class NoOpScheduler(RunScheduler):
    """Says what a run would do. Every node of the result is skipped.

    Attributes:
        report: The plan in words; empty before the first ``prepare``.
    """

    def __init__(self) -> None:
        self.report = ""

    def prepare(self, plan: Plan) -> None:
        """Writes the report.

        Args:
            plan: The plan to report on.
        """
        self.report = "\n".join([_headline(plan), *_waves(plan)])

    def execute(self, run: Run) -> None:
        """Runs nothing.

        Args:
            run: One execution of a plan.
        """
        self._run = run
        run.skip_everything("not run: the no-op scheduler only plans")


def _headline(plan: Plan) -> str:
    kinds = Counter(task.kind.value for task in plan.tasks)
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return f"plan {plan.name!r}: {len(plan.tasks)} tasks ({counts})"


def _waves(plan: Plan) -> list[str]:
    """One line for each set of tasks that are ready at the same time."""
    depths = [0] * len(plan.tasks)
    waves: dict[int, list[str]] = {}
    for task in plan.tasks:
        name = "+".join(task.node_ids) or task.operator
        waves.setdefault(depths[task.index], []).append(f"{name} ({task.executor.value})")
        for successor in task.successors:
            depths[successor] = max(depths[successor], depths[task.index] + 1)
    return [f"  wave {depth + 1}: {', '.join(names)}" for depth, names in sorted(waves.items())]
