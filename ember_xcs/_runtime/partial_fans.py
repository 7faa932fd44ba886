"""What there is of batches when a run ends before they do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ember_xcs._runtime.layout import EMPTY
from ember_xcs.errors import ExecutionCancelled

if TYPE_CHECKING:
    from ember_xcs._lower.plan import Task
    from ember_xcs._runtime.fan import OpenFan
    from ember_xcs._runtime.run import Run

__all__ = ["partial_fans"]


def partial_fans(run: Run) -> dict[str, Any]:
    """Returns the batches of which some calls have ended, by node id and by output name.

    Each is a list of what its calls returned. In the place of a call that failed is its exception,
    and in that of one that was not made, or did not end, an ``ExecutionCancelled``.

    Args:
        run: A run that may be going on.
    """
    found: dict[str, Any] = {}
    for rank, fan in list(run.open_fans.items()):
        task = run.layout.tasks[rank]
        values, results = fan.values, list(fan.results)
        if values is None or not (fan.failures or any(r is not EMPTY for r in results)):
            continue
        assert task.fan is not None
        whole = [_one(task, fan, values, k, result) for k, result in enumerate(results)]
        partial = task.fan.partial(values, whole)
        found.update((name, partial) for name in _names(run, task))
    return found


def _one(task: Task, fan: OpenFan, values: tuple[Any, ...], k: int, result: Any) -> Any:
    if result is not EMPTY:
        return result
    if k in fan.failures:
        return fan.failures[k]
    assert task.fan is not None
    what = task.fan.describe(values, k)
    return ExecutionCancelled(
        f"{f'{what} of ' if what else ''}node {_node(task)!r} had no result when its run ended; "
        "give the run more time or budget, or a journal, which keeps what is finished for the next"
    )


def _node(task: Task) -> str:
    return task.node_ids[0] if task.node_ids else task.operator


def _names(run: Run, task: Task) -> list[str]:
    """The node, and the outputs that are just its value."""
    if task.unpack is not None:
        return list(task.node_ids)
    outputs = [name for name, slot in run.plan.outputs.items() if slot in task.writes]
    return [*task.node_ids, *outputs]
