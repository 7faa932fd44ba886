"""Laying out tasks: their order, the slots of their values, who waits for whom, how urgently."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ember_xcs._lower.node_calls import ConstantSource, Source
from ember_xcs._lower.plan import ALL_INPUTS, Executor, Fan, Plan, Task, TaskKind

if TYPE_CHECKING:
    from ember_xcs._core.operator import HostOperator
    from ember_xcs._core.policy import HostPolicy

__all__ = ["Draft", "assemble"]

_CALL_LENGTH = 1.0
_REGION_LENGTH = 1e-3
_GLUE_LENGTH = 1e-6


class Draft(NamedTuple):
    """A task whose values still have names: see ``plan.Task``."""

    kind: TaskKind
    node_ids: tuple[str, ...]
    operator: str
    run: Callable[..., Any]
    sources: tuple[Source | ConstantSource, ...]
    outputs: tuple[Source, ...]
    unpack: Callable[[Any], Sequence[Any]] | None = None
    executor: Executor = Executor.INLINE
    fan: Fan | None = None
    timeout_seconds: float | None = None
    side_effects: bool = False
    warm: Callable[[], None] | None = None
    host: HostOperator | None = None
    policy: HostPolicy | None = None
    concurrency: int | None = None


def assemble(
    name: str, drafts: Sequence[Draft], results: Mapping[str, Source], inputs: Sequence[str]
) -> Plan:
    """Returns the plan of these tasks.

    Args:
        name: The name of the graph.
        drafts: The tasks, in any order in which side effects are in program order.
        results: The values that are wanted, by name.
        inputs: The names of the graph's inputs.
    """
    drafts, parents = _ordered(drafts, _parents(drafts))
    slots = _Slots(inputs, drafts)
    tasks = _tasks(drafts, parents, slots)
    return Plan(
        name=name,
        tasks=tuple(tasks),
        slot_count=slots.count,
        inputs=tuple(slots.input_names),
        constants=tuple(slots.constants),
        outputs={name: slots.of[source] for name, source in results.items()},
        node_slots=slots.whole_outputs(),
        reader_counts=tuple(_reader_counts(tasks, slots.count)),
        roots=tuple(k for k, found in enumerate(parents) if not found),
        warmups=tuple(d.warm for d, p in zip(drafts, parents, strict=True) if d.warm and p),
    )


class _Slots:
    """Which slot holds which value: the inputs first, then what the tasks write, then constants."""

    def __init__(self, inputs: Sequence[str], drafts: Sequence[Draft]) -> None:
        self.input_names = list(inputs)
        names = (None if name == ALL_INPUTS else name for name in inputs)
        keys: list[Source] = [(None, name) for name in names]
        keys += [source for draft in drafts for source in draft.outputs]
        self.of: dict[Any, int] = dict(zip(keys, range(len(keys)), strict=True))
        self.constants: list[tuple[int, Any]] = []
        self.count = len(keys)

    def reads(self, draft: Draft) -> tuple[int, ...]:
        """The slots that a task reads."""
        sources = draft.sources
        if len(sources) == 1:
            return (self._slot(sources[0]),)
        return tuple([self._slot(source) for source in sources])

    def whole_outputs(self) -> dict[str, int]:
        """The slots of the whole outputs of nodes, by the id of the node."""
        return {
            source[0]: slot
            for source, slot in self.of.items()
            if type(source) is tuple and source[1] is None and source[0] is not None
        }

    def _slot(self, source: Source | ConstantSource) -> int:
        slot = self.of.get(source)
        if slot is None:
            assert isinstance(source, ConstantSource)
            slot = self.of[source] = self.count
            self.constants.append((slot, source.value))
            self.count += 1
        return slot


def _parents(drafts: Sequence[Draft]) -> list[list[int]]:
    """For each task, those whose values it reads, and the side effects that come before its own."""
    writer = {source: k for k, draft in enumerate(drafts) for source in draft.outputs}
    parents: list[list[int]] = []
    previous: int | None = None
    for k, draft in enumerate(drafts):
        sources = draft.sources
        found = [writer[source] for source in sources if source in writer]
        if draft.side_effects:
            if previous is not None:
                found.append(previous)
            previous = k
        parents.append(found if len(found) < 2 else sorted(set(found)))
    return parents


def _ordered(
    drafts: Sequence[Draft], parents: Sequence[list[int]]
) -> tuple[Sequence[Draft], Sequence[list[int]]]:
    """The drafts in a topological order, and the parents of each by their places in it."""
    if all(not found or found[-1] < k for k, found in enumerate(parents)):
        return drafts, parents  # the order that is found below, as nearly always
    order = _topological(parents)
    place = {old: new for new, old in enumerate(order)}
    return [drafts[k] for k in order], [sorted([place[p] for p in parents[k]]) for k in order]


def _topological(parents: Sequence[Sequence[int]]) -> list[int]:
    """An order in which parents come first; among the ready ones, the first of the drafts."""
    children = _children(parents)
    waiting = [len(found) for found in parents]
    ready = [k for k, count in enumerate(waiting) if not count]
    order = []
    while ready:
        k = heapq.heappop(ready)
        order.append(k)
        for child in children[k]:
            waiting[child] -= 1
            if not waiting[child]:
                heapq.heappush(ready, child)
    return order


def _children(parents: Sequence[Sequence[int]]) -> list[list[int]]:
    children: list[list[int]] = [[] for _ in parents]
    for k, found in enumerate(parents):
        for parent in found:
            children[parent].append(k)
    return children


def _tasks(drafts: Sequence[Draft], parents: Sequence[list[int]], slots: _Slots) -> list[Task]:
    """The tasks. They are made by position, which takes half the time of keywords."""
    children = _children(parents)
    priorities = _priorities(drafts, children)
    tasks, slot_of = [], slots.of
    for k, draft in enumerate(drafts):
        kind, node_ids, operator, run, _, outputs, unpack, executor, fan, timeout, *_ = draft
        single = len(outputs) == 1
        tasks.append(
            Task(
                k,
                kind,
                node_ids,
                operator,
                run,
                slots.reads(draft),
                (slot_of[outputs[0]],) if single else tuple([slot_of[s] for s in outputs]),
                unpack,
                tuple(children[k]),
                len(parents[k]),
                priorities[k],
                executor,
                fan,
                timeout,
                draft.concurrency,
                draft.host,
                draft.policy,
            )
        )
    return tasks


def _priorities(drafts: Sequence[Draft], children: Sequence[list[int]]) -> list[float]:
    """The length of the longest path from each task to a result, in calls."""
    lengths = {
        TaskKind.CALL: _CALL_LENGTH,
        TaskKind.REGION: _REGION_LENGTH,
        TaskKind.GLUE: _GLUE_LENGTH,
    }
    found = [0.0] * len(drafts)
    for k in range(len(drafts) - 1, -1, -1):
        length = lengths[drafts[k].kind]
        below = children[k]
        if below:
            length += found[below[0]] if len(below) == 1 else max([found[c] for c in below])
        found[k] = length
    return found


def _reader_counts(tasks: Sequence[Task], slot_count: int) -> list[int]:
    counts = [0] * slot_count
    for task in tasks:
        reads = task.reads
        for slot in reads if len(reads) < 2 else set(reads):
            counts[slot] += 1
    return counts
