"""Laying out tasks: their order, the slots of their values, who waits for whom, how urgently."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ember_xcs._lower.node_calls import ConstantSource, Source
from ember_xcs._lower.plan import ALL_INPUTS, Executor, Fan, Plan, Task, TaskKind

__all__ = ["Draft", "assemble"]

_CALL_LENGTH = 1.0
_REGION_LENGTH = 1e-3
_GLUE_LENGTH = 1e-6


@dataclasses.dataclass(frozen=True, slots=True)
class Draft:
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
    found = _parents(drafts)
    order = _topological(found)
    drafts = [drafts[k] for k in order]
    place = {old: new for new, old in enumerate(order)}
    parents = [sorted(place[p] for p in found[k]) for k in order]
    slots = _Slots(inputs)
    for draft in drafts:
        slots.add_task(draft)
    outputs = {name: slots.of[source] for name, source in results.items()}
    tasks = _tasks(drafts, parents, slots)
    return Plan(
        name=name,
        tasks=tuple(tasks),
        slot_count=slots.count,
        inputs=tuple(slots.input_names),
        constants=tuple(slots.constants),
        outputs=outputs,
        node_slots={
            str(source[0]): slots.of[source]
            for draft in drafts
            for source in draft.outputs
            if source[1] is None
        },
        reader_counts=tuple(_reader_counts(tasks, slots.count)),
        roots=tuple(task.index for task in tasks if not task.parent_count),
        warmups=tuple(d.warm for d, p in zip(drafts, parents, strict=True) if d.warm and p),
    )


class _Slots:
    """Which slot holds which value."""

    def __init__(self, inputs: Sequence[str]) -> None:
        self.input_names = list(inputs)
        self.of: dict[Any, int] = {
            (None, None if name == ALL_INPUTS else name): k for k, name in enumerate(inputs)
        }
        self.constants: list[tuple[int, Any]] = []
        self.count = len(inputs)

    def add_task(self, draft: Draft) -> None:
        """Gives slots to what a task writes."""
        for source in draft.outputs:
            self._add(source)

    def reads(self, draft: Draft) -> tuple[int, ...]:
        """The slots that a task reads."""
        return tuple(map(self._slot, draft.sources))

    def _slot(self, source: Source | ConstantSource) -> int:
        if isinstance(source, ConstantSource):
            self._add(source)
            self.constants.append((self.of[source], source.value))
        return self.of[source]

    def _add(self, key: Any) -> None:
        self.of[key] = self.count
        self.count += 1


def _parents(drafts: Sequence[Draft]) -> list[set[int]]:
    """For each task, those whose values it reads, and the side effects that come before its own."""
    writer = {source: k for k, draft in enumerate(drafts) for source in draft.outputs}
    parents: list[set[int]] = []
    previous: int | None = None
    for k, draft in enumerate(drafts):
        found = {writer[source] for source in draft.sources if source in writer}
        if draft.side_effects:
            if previous is not None:
                found.add(previous)
            previous = k
        parents.append(found)
    return parents


def _topological(parents: Sequence[set[int]]) -> list[int]:
    """An order in which parents come first; among the ready ones, the first of the drafts."""
    children: list[list[int]] = [[] for _ in parents]
    for k, found in enumerate(parents):
        for parent in found:
            children[parent].append(k)
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


def _tasks(drafts: Sequence[Draft], parents: Sequence[list[int]], slots: _Slots) -> list[Task]:
    children: list[list[int]] = [[] for _ in drafts]
    for k, found in enumerate(parents):
        for parent in found:
            children[parent].append(k)
    priorities = _priorities(drafts, children)
    return [
        Task(
            index=k,
            kind=draft.kind,
            node_ids=draft.node_ids,
            operator=draft.operator,
            run=draft.run,
            reads=slots.reads(draft),
            writes=tuple(slots.of[source] for source in draft.outputs),
            unpack=draft.unpack,
            successors=tuple(children[k]),
            parent_count=len(parents[k]),
            priority=priorities[k],
            executor=draft.executor,
            fan=draft.fan,
            timeout_seconds=draft.timeout_seconds,
        )
        for k, draft in enumerate(drafts)
    ]


def _priorities(drafts: Sequence[Draft], children: Sequence[list[int]]) -> list[float]:
    """The length of the longest path from each task to a result, in calls."""
    lengths = {
        TaskKind.CALL: _CALL_LENGTH,
        TaskKind.REGION: _REGION_LENGTH,
        TaskKind.GLUE: _GLUE_LENGTH,
    }
    found = [0.0] * len(drafts)
    for k in range(len(drafts) - 1, -1, -1):
        below = max((found[child] for child in children[k]), default=0.0)
        found[k] = lengths[drafts[k].kind] + below
    return found


def _reader_counts(tasks: Sequence[Task], slot_count: int) -> list[int]:
    counts = [0] * slot_count
    for task in tasks:
        for slot in set(task.reads):
            counts[slot] += 1
    return counts
