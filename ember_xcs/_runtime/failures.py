"""The errors of a run, put into words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ember_xcs._core.arguments import summary
from ember_xcs._lower.plan import TaskKind
from ember_xcs.errors import ExecutionTimeout, NodeExecutionError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from ember_xcs._lower.plan import Task
    from ember_xcs._runtime.layout import Layout

__all__ = ["call_timeout", "fallout", "node_error", "shortened"]


def fallout(layout: Layout, rank: int, skipped: Collection[int]) -> tuple[list[int], list[int]]:
    """Returns what a failed task keeps from running, and what only had to come after that.

    Side effects wait for those before them in the program, whose values they do not read: such a
    wait ends when the one before has failed or is skipped.

    Args:
        layout: The plan.
        rank: The task that failed.
        skipped: What is skipped already.

    Returns:
        The ranks that need a value that will not be; and, once for each wait that ends, the ranks
        that need none.
    """
    lost, later = [rank], []
    kept_from_running = {rank, *skipped}
    for other in lost:  # grows meanwhile
        *_, followers, joins = layout.links[other]
        values = set(layout.tasks[other].writes)
        for successor in (*followers, *joins):
            if values.isdisjoint(layout.tasks[successor].reads):
                later.append(successor)
            elif successor not in kept_from_running:
                kept_from_running.add(successor)
                lost.append(successor)
    return lost[1:], [successor for successor in later if successor not in kept_from_running]


def node_error(
    task: Task, error: BaseException, arguments: Sequence[Any], where: str = ""
) -> NodeExecutionError:
    """Returns the error of a failed task, with the original as its cause.

    Args:
        task: The task that failed.
        error: What it raised.
        arguments: The values that it read.
        where: Which call of a fan it was, as in ``" at element 3"``, and with how many others it
            was made; empty for a task of one call.
    """
    if task.kind is TaskKind.REGION and isinstance(error, NodeExecutionError):
        return error  # it names the node of the region that failed
    names = ", ".join(repr(node_id) for node_id in task.node_ids) or repr(task.operator)
    nodes = f"node {names}" if len(task.node_ids) < 2 else f"the region of nodes {names}"
    inputs = ", ".join(map(_input_summary, arguments))
    failure = NodeExecutionError(
        f"{nodes} (operator {task.operator}) failed{where}: "
        f"{type(error).__name__}: {error}\n  its inputs: {inputs or 'none'}",
        task.node_ids[0] if task.node_ids else "",
        task.operator,
        inputs,
    )
    failure.__cause__ = error
    return failure


def call_timeout(task: Task, abandoned: str = "") -> ExecutionTimeout:
    """Returns the error of a call that took too long.

    Args:
        task: The task of the call.
        abandoned: The name of the thread that could not be stopped, if any.
    """
    note = f"; thread {abandoned!r} cannot be stopped and was abandoned" if abandoned else ""
    return ExecutionTimeout(
        f"a call of {task.operator} took longer than its {task.timeout_seconds:g} s{note}"
    )


def _input_summary(value: Any) -> str:
    """What a call was given: bound calls of a fan say it themselves."""
    described = getattr(value, "input_summary", None)
    return str(described()) if described is not None else summary(value)


def shortened(names: Iterable[str], limit: int = 5) -> str:
    """Returns a list of names for a message, cut off after some."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
