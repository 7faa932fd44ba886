"""The layout of a plan: what the schedulers look up, worked out once and kept flat.

Tasks are renumbered by *rank*: the position of a task in the order in which ready tasks are
taken, longest path first. A heap of ranks is then a heap of small integers, and every table
below is indexed by rank.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary

from ember_xcs._lower.plan import Executor, Plan, Task, TaskKind
from ember_xcs._runtime.batch_groups import BatchGroup, batch_groups

__all__ = [
    "BATCHED",
    "EMPTY",
    "FAN",
    "GLUE",
    "INLINE",
    "KIND",
    "LAUNCHED",
    "PROCESS",
    "THREAD",
    "Layout",
    "Step",
    "layout_of",
]


class _Empty:
    """What a slot holds before it is written and after it is freed."""

    def __repr__(self) -> str:
        return "<empty slot>"


EMPTY: Final = _Empty()

# How a task is started. Those from THREAD on are host calls: they may block.
GLUE: Final = 0  # at once, on any thread, the I/O loop's too
INLINE: Final = 1  # on whichever worker takes it
THREAD: Final = 2  # the same, but it may block
PROCESS: Final = 3  # a worker waits while a process computes
LAUNCHED: Final = 4  # started, and reports when it ends: a coroutine, or a timed call
KIND: Final = 7  # the bits of the above
FAN: Final = 8  # added to them: many calls
BATCHED: Final = 16  # added to them: may go to a batch end point with others

Step: TypeAlias = tuple[
    Callable[..., Any],  # function
    bool,  # whether it gets a context of its own
    int,  # the slot that it reads, -1 if not exactly one
    Callable[[Sequence[Any]], tuple[Any, ...]],  # its arguments, from the slots
    int,  # the slot that it writes, -1 if not exactly one
    tuple[int, ...],  # slots that are dead once it has ended
    tuple[int, ...],  # slots that are dead once it and others have ended
    tuple[int, ...],  # ranks that wait for it alone
    tuple[int, ...],  # ranks that wait for it and others
]


class Layout:
    """The tables of a plan.

    Attributes:
        tasks: The tasks by rank.
        ranks: The rank of each task, by its index in the plan.
        modes: How each is started, by rank.
        steps: What is needed to perform a plain call, by rank; None where there is more to it.
        links: The last four items of a step, for every rank.
        first: The ranks of the roots, sorted.
        sequence: For each task in the order of the plan: its rank, its step, and the slots that
            are dead after it in that order.
        arrivals: For ranks that wait for several tasks, tokens of which the last is True.
        readers: For slots that several tasks read, tokens of which the last is True.
        initial: The slots as they are before the first task.
        warmups: Compilations not yet done; emptied by the first run that can hide them.
        overlaps: Whether there is a host call that something else can overlap.
        has_launches: Whether there are tasks for the I/O loop.
        has_processes: Whether there are tasks for processes.
        is_plain: Whether every task is a plain call.
        has_policies: Whether an operator has retries, or a resource that may be limited.
        groups: The tasks whose calls may go to a batch end point together, by rank.
    """

    def __init__(self, plan: Plan, kept: frozenset[int]) -> None:
        order = sorted(plan.tasks, key=lambda task: (-task.priority, task.index))
        self.tasks: tuple[Task, ...] = tuple(order)
        self.ranks = _inverse([task.index for task in order])
        self.groups: dict[int, BatchGroup] = batch_groups(self.tasks)
        self.modes = tuple(_mode(task, self.groups.get(k)) for k, task in enumerate(order))
        self.first = sorted(self.ranks[index] for index in plan.roots)
        counts = _reader_counts(plan, kept)
        parents = [task.parent_count for task in plan.tasks]
        self.links = tuple(_links(task, counts, parents, self.ranks) for task in order)
        self.steps: tuple[Step | None, ...] = tuple(
            _step(task, _mode(task, None), links)
            for task, links in zip(order, self.links, strict=True)
        )
        dead = _dead_in_order(plan, counts)
        self.sequence = tuple(
            (rank, self.steps[rank], freed) for rank, freed in zip(self.ranks, dead, strict=True)
        )
        self.arrivals = tuple(_tokens(task.parent_count) for task in order)
        self.readers = tuple(_tokens(count) for count in counts)
        self.initial = _initial(plan)
        self.warmups = list(plan.warmups)
        self.overlaps = _overlaps(plan)
        self.has_async = any(task.executor is Executor.ASYNC for task in order)
        self.has_launches = any(mode & KIND == LAUNCHED for mode in self.modes)
        self.has_processes = any(mode & KIND == PROCESS for mode in self.modes)
        self.is_plain = all(step is not None for step in self.steps)
        self.has_policies = any(
            task.policy is not None and (task.policy.retry or task.policy.resource)
            for task in order
        )


_layouts: WeakKeyDictionary[Plan, dict[frozenset[int], Layout]] = WeakKeyDictionary()
_lock = threading.Lock()


def layout_of(plan: Plan, kept: frozenset[int] = frozenset()) -> Layout:
    """Returns the layout of a plan, made on first use.

    Args:
        plan: The plan.
        kept: Slots that are not to be freed, besides those of its outputs.
    """
    try:
        return _layouts[plan][kept]
    except KeyError:
        layout = Layout(plan, kept | frozenset(plan.outputs.values()))
    with _lock:
        return _layouts.setdefault(plan, {}).setdefault(kept, layout)


def _inverse(order: Sequence[int]) -> tuple[int, ...]:
    ranks = [0] * len(order)
    for rank, index in enumerate(order):
        ranks[index] = rank
    return tuple(ranks)


def _mode(task: Task, group: BatchGroup | None) -> int:
    flags = (FAN if task.fan is not None else 0) | (BATCHED if group is not None else 0)
    executor = task.executor if group is None else group.executor
    if executor is Executor.PROCESS:
        return PROCESS | flags
    if executor is Executor.ASYNC or task.timeout_seconds is not None:
        return LAUNCHED | flags
    if executor is Executor.THREAD:
        return THREAD | flags
    return (GLUE if task.kind is TaskKind.GLUE else INLINE) | flags


def _reader_counts(plan: Plan, kept: frozenset[int]) -> list[int]:
    """The readers of each slot; -1 for those that are never freed."""
    counts = list(plan.reader_counts)
    for slot in kept:
        counts[slot] = -1
    for slot, _ in plan.constants:  # the plan keeps them alive in any case
        counts[slot] = -1
    return counts


def _links(
    task: Task, counts: Sequence[int], parents: Sequence[int], ranks: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    reads = tuple(dict.fromkeys(task.reads))
    dead = [slot for slot in reads if counts[slot] == 1]
    dead += [slot for slot in task.writes if counts[slot] == 0]
    successors = sorted(task.successors, key=lambda index: ranks[index])
    return (
        tuple(dead),
        tuple(slot for slot in reads if counts[slot] > 1),
        tuple(ranks[index] for index in successors if parents[index] == 1),
        tuple(ranks[index] for index in successors if parents[index] > 1),
    )


def _step(task: Task, mode: int, links: tuple[tuple[int, ...], ...]) -> Step | None:
    if mode > THREAD:
        return None
    single = task.reads[0] if len(task.reads) == 1 else -1
    write = task.writes[0] if task.unpack is None and len(task.writes) == 1 else -1
    own_context = task.kind is TaskKind.CALL
    dead, shared, followers, joins = links
    return (
        task.run,
        own_context,
        single,
        getter(task.reads),
        write,
        dead,
        shared,
        followers,
        joins,
    )


def getter(reads: tuple[int, ...]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """Returns a function that picks these slots, as a tuple."""
    if len(reads) > 1:
        return itemgetter(*reads)
    if not reads:
        return lambda values: ()
    (slot,) = reads
    return lambda values: (values[slot],)


def _dead_in_order(plan: Plan, counts: Sequence[int]) -> list[tuple[int, ...]]:
    """The slots that are dead after each task when tasks run in the order of the plan."""
    last: dict[int, int] = {}
    for task in plan.tasks:
        for slot in (*task.reads, *task.writes):
            if counts[slot] >= 0:
                last[slot] = task.index
    dead: list[list[int]] = [[] for _ in plan.tasks]
    for slot, index in last.items():
        dead[index].append(slot)
    return [tuple(slots) for slots in dead]


def _tokens(count: int) -> list[bool] | None:
    return [True, *[False] * (count - 1)] if count > 1 else None


def _initial(plan: Plan) -> list[Any]:
    values: list[Any] = [EMPTY] * plan.slot_count
    for slot, value in plan.constants:
        values[slot] = value
    return values


def _overlaps(plan: Plan) -> bool:
    """Whether some host call can be in flight while something else runs.

    None can where all tasks but glue lie on one path.
    """
    if any(task.fan is not None for task in plan.tasks):
        return True
    depths = [0] * len(plan.tasks)
    for task in plan.tasks:
        depths[task.index] += task.kind is not TaskKind.GLUE
        for successor in task.successors:
            depths[successor] = max(depths[successor], depths[task.index])
    heavy = sum(task.kind is not TaskKind.GLUE for task in plan.tasks)
    has_host = any(task.executor is not Executor.INLINE for task in plan.tasks)
    return has_host and max(depths, default=0) < heavy
