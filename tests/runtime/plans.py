"""Plans made by hand, and their oracle: the same functions in a plain loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ember_xcs._lower.plan import Executor, Fan, Plan, Task, TaskKind


@dataclass
class Node:
    """A node of a plan to be: it reads inputs and other nodes by name."""

    run: Callable[..., Any]
    reads: Sequence[str] = ()
    executor: Executor = Executor.THREAD
    kind: TaskKind = TaskKind.CALL
    settings: dict[str, Any] = field(default_factory=dict)


def node(
    run: Callable[..., Any],
    *reads: str,
    executor: Executor = Executor.THREAD,
    kind: TaskKind = TaskKind.CALL,
    **settings: Any,
) -> Node:
    """Returns a node; the settings are those of ``Task``."""
    return Node(run, reads, executor, kind, settings)


def make_plan(
    nodes: Mapping[str, Node],
    inputs: Sequence[str] = (),
    outputs: Sequence[str] | None = None,
    warmups: Sequence[Callable[[], None]] = (),
) -> Plan:
    """Returns the plan of nodes given in a topological order; by default all are outputs."""
    slots = {name: slot for slot, name in enumerate([*inputs, *nodes])}
    index = {name: i for i, name in enumerate(nodes)}
    parents = {
        name: list(dict.fromkeys(read for read in n.reads if read in index))
        for name, n in nodes.items()
    }
    successors: dict[str, list[int]] = {name: [] for name in nodes}
    for name, its_parents in parents.items():
        for parent in its_parents:
            successors[parent].append(index[name])
    depth: dict[str, float] = {}
    names = list(nodes)
    for name in reversed(names):
        depth[name] = 1 + max((depth[names[i]] for i in successors[name]), default=0)
    counts = [0] * len(slots)
    for n in nodes.values():
        for read in set(n.reads):
            counts[slots[read]] += 1
    tasks = tuple(
        Task(
            index=index[name],
            kind=n.kind,
            node_ids=(name,),
            operator=f"op_{name}",
            run=n.run,
            reads=tuple(slots[read] for read in n.reads),
            writes=(slots[name],),
            successors=tuple(successors[name]),
            parent_count=len(parents[name]),
            priority=depth[name],
            executor=n.executor,
            **n.settings,
        )
        for name, n in nodes.items()
    )
    wanted = names if outputs is None else outputs
    return Plan(
        name="test",
        tasks=tasks,
        slot_count=len(slots),
        inputs=tuple(inputs),
        constants=(),
        outputs={name: slots[name] for name in wanted},
        node_slots={name: slots[name] for name in names},
        reader_counts=tuple(counts),
        roots=tuple(task.index for task in tasks if task.parent_count == 0),
        warmups=tuple(warmups),
    )


class Each(Fan):
    """A fan over the items of its first argument; the others are the same for all."""

    def split(self, values: tuple[Any, ...]) -> Sequence[tuple[Any, ...]]:
        return [(item, *values[1:]) for item in values[0]]

    def join(self, values: tuple[Any, ...], results: Sequence[Any]) -> Any:
        return list(results)

    def describe(self, values: tuple[Any, ...], index: int) -> str:
        return f"element {index}"
