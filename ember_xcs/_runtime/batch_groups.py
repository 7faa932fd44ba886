"""Which tasks of a plan have calls that may go to a batch end point together.

They are those that call the same operator: the same object, so that fields, policy and resource are
the same. Side effects keep their order and are made one by one, but for those of one ``vmap``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from ember_xcs._core.operator import HostOperator
from ember_xcs._lower.fans import CallFan, batch_is_async
from ember_xcs._lower.plan import Executor, Task, TaskKind
from ember_xcs._trace.nodes import StagedCall

if TYPE_CHECKING:
    from ember_xcs._core.policy import HostPolicy

__all__ = ["BatchGroup", "batch_groups", "staged_call"]

_Key: TypeAlias = tuple[int, int]  # the operator; the rank of a task that stays by itself, or -1


@dataclass(frozen=True, slots=True, eq=False)
class BatchGroup:
    """Tasks whose calls may go to a batch end point together.

    Attributes:
        ranks: The tasks.
        policy: The policy of the operator.
        executor: Where the batch end point runs.
        is_mixed: Whether single calls run elsewhere; then they go to the end point, too.
        concurrency: The most calls of the end point at once; None for no limit of its own.
    """

    ranks: frozenset[int]
    policy: HostPolicy
    executor: Executor
    is_mixed: bool
    concurrency: int | None


def batch_groups(tasks: Sequence[Task]) -> dict[int, BatchGroup]:
    """Returns the group of each task that has one, by rank.

    Args:
        tasks: All tasks, by rank.
    """
    has_batch: dict[int, bool] = {}
    members: dict[_Key, list[int]] = {}
    for rank, task in enumerate(tasks):
        host = task.host
        if not isinstance(host, HostOperator) or task.kind is not TaskKind.CALL:
            continue
        if id(host) not in has_batch:
            has_batch[id(host)] = host.has_batch
        key = _key(rank, task, host) if has_batch[id(host)] else None
        if key is not None:
            members.setdefault(key, []).append(rank)
    groups = [
        _group(tasks, ranks)
        for ranks in members.values()
        if len(ranks) > 1 or tasks[ranks[0]].fan is not None
    ]
    return {rank: group for group in groups for rank in group.ranks}


def staged_call(task: Task) -> StagedCall | None:
    """Returns the staged call that a task makes, or fans out; None if it is no staged call."""
    if task.fan is not None:
        return task.fan.call if isinstance(task.fan, CallFan) else None
    owner = getattr(task.run, "__self__", None)
    return owner if isinstance(owner, StagedCall) else None


def _key(rank: int, task: Task, host: HostOperator) -> _Key | None:
    """What the tasks of a group have in common; None for a task that is in none."""
    staged = staged_call(task)
    if task.fan is not None and not task.fan.goes_together:
        return None
    has_own_operator = staged is not None and staged.site.traced_operator
    if host.policy.side_effects or has_own_operator or task.concurrency is not None:
        return (id(host), rank) if task.fan is not None else None
    return id(host), -1


def _group(tasks: Sequence[Task], ranks: Sequence[int]) -> BatchGroup:
    first = tasks[ranks[0]]
    assert isinstance(first.host, HostOperator)
    policy, own = first.host.policy, Executor(first.host.policy.executor)
    executor = own
    if batch_is_async(first.host):
        executor = Executor.ASYNC
    elif own is Executor.ASYNC:
        executor = Executor.THREAD
    return BatchGroup(frozenset(ranks), policy, executor, executor is not own, first.concurrency)
