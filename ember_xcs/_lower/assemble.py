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

__all__ = ["Draft", "TaskForm", "assemble"]

_CALL_LENGTH = 1.0
_REGION_LENGTH = 1e-3
_GLUE_LENGTH = 1e-6


class TaskForm(NamedTuple):
    """What of a task does not depend on its place in the graph: see ``plan.Task``.

    Nodes of one operator share it.
    """

    kind: TaskKind
    operator: str
    executor: Executor = Executor.INLINE
    fan: Fan | None = None
    timeout_seconds: float | None = None
    side_effects: bool = False
    concurrency: int | None = None
    host: HostOperator | None = None
    policy: HostPolicy | None = None


class Draft(NamedTuple):
    """A task whose values still have names: see ``plan.Task``."""

    form: TaskForm
    node_ids: tuple[str, ...]
    run: Callable[..., Any]
    sources: Sequence[Source | ConstantSource]
    outputs: Sequence[Source]
    unpack: Callable[[Any], Sequence[Any]] | None = None
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
    slots = _Slots(inputs, drafts)
    parents = _parents(drafts, slots)
    if any(found and found[-1] > k for k, found in enumerate(parents)):  # hardly ever
        drafts = [drafts[k] for k in _topological(parents)]
        slots = _Slots(inputs, drafts)
        parents = _parents(drafts, slots)
    return Plan(
        name=name,
        tasks=tuple(_tasks(drafts, parents, slots)),
        slot_count=slots.count,
        inputs=tuple(inputs),
        constants=tuple(slots.constants),
        outputs={name: slots.of[source] for name, source in results.items()},
        node_slots=slots.whole_outputs(),
        reader_counts=tuple(slots.reader_counts()),
        roots=tuple([k for k, found in enumerate(parents) if not found]),
        warmups=tuple([d.warm for d, p in zip(drafts, parents, strict=True) if d.warm and p]),
    )


class _Slots:
    """Which slot holds which value: the inputs first, then what the tasks write, then constants.

    Attributes:
        of: The slot of each value but the constants.
        writers: The task that writes each slot; None for inputs and constants.
        constants: The slots of the constants, and their values.
        reads: The slots that each task reads.
        writes: The slots that each task writes.
        count: How many slots there are.
    """

    def __init__(self, inputs: Sequence[str], drafts: Sequence[Draft]) -> None:
        keys: list[Source] = [(None, None if name == ALL_INPUTS else name) for name in inputs]
        self.writers: list[int | None] = [None] * len(keys)
        self.writes: list[tuple[int, ...]] = []
        for k, draft in enumerate(drafts):
            start, outputs = len(keys), draft.outputs
            keys += outputs
            self.writers += [k] * len(outputs)
            self.writes.append((start,) if len(outputs) == 1 else tuple(range(start, len(keys))))
        self.of = dict(zip(keys, range(len(keys)), strict=True))
        self.constants: list[tuple[int, Any]] = []
        self.count = len(keys)
        self.reads = [self._read(draft.sources) for draft in drafts]
        self.writers += [None] * len(self.constants)

    def _read(self, sources: Sequence[Source | ConstantSource]) -> tuple[int, ...]:
        of = self.of
        return tuple(
            [self._constant(s) if isinstance(s, ConstantSource) else of[s] for s in sources]
        )

    def _constant(self, source: ConstantSource) -> int:
        slot = self.count
        self.constants.append((slot, source.value))
        self.count += 1
        return slot

    def whole_outputs(self) -> dict[str, int]:
        """The slots of the whole outputs of nodes, by the id of the node."""
        return {n: slot for (n, field), slot in self.of.items() if field is None and n is not None}

    def reader_counts(self) -> list[int]:
        """How many tasks read each slot."""
        counts = [0] * self.count
        for reads in self.reads:
            for slot in reads if len(reads) < 2 else set(reads):
                counts[slot] += 1
        return counts


def _parents(drafts: Sequence[Draft], slots: _Slots) -> list[list[int]]:
    """For each task, those whose values it reads, and the side effects that come before its own."""
    writers = slots.writers
    parents: list[list[int]] = []
    previous: int | None = None
    for k, reads in enumerate(slots.reads):
        found = [p for slot in reads if (p := writers[slot]) is not None]
        if drafts[k].form.side_effects:
            if previous is not None:
                found.append(previous)
            previous = k
        parents.append(found if len(found) < 2 else sorted(set(found)))
    return parents


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
    tasks = []
    for k, (form, node_ids, run, _, _, unpack, _) in enumerate(drafts):
        kind, operator, executor, fan, timeout_seconds, _, concurrency, host, policy = form
        tasks.append(
            Task(
                k,
                kind,
                node_ids,
                operator,
                run,
                slots.reads[k],
                slots.writes[k],
                unpack,
                tuple(children[k]),
                len(parents[k]),
                priorities[k],
                executor,
                fan,
                timeout_seconds,
                concurrency,
                host,
                policy,
            )
        )
    return tasks


def _priorities(drafts: Sequence[Draft], children: Sequence[list[int]]) -> list[float]:
    """The length of the longest path from each task to a result, in calls."""
    call, region = TaskKind.CALL, TaskKind.REGION
    found = [0.0] * len(drafts)
    for k in range(len(drafts) - 1, -1, -1):
        kind = drafts[k].form.kind
        length = (
            _CALL_LENGTH if kind is call else _REGION_LENGTH if kind is region else _GLUE_LENGTH
        )
        below = children[k]
        if below:
            length += found[below[0]] if len(below) == 1 else max([found[c] for c in below])
        found[k] = length
    return found
