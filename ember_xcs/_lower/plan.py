"""The plan: a graph made flat, immutable and integer-indexed, ready to be run.

A plan never changes once built, and one plan serves any number of runs at once: all that
changes while it runs lives in the run. Values live in *slots*. A task reads some slots,
computes one value and writes it to one slot, or to several through ``unpack``. Slots
``0 .. len(inputs) - 1`` hold the inputs of the plan, in order; ``constants`` are there before
the first task begins.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from ember_xcs._core.policy import HostPolicy

__all__ = ["ALL_INPUTS", "Executor", "Fan", "Plan", "Task", "TaskKind"]


ALL_INPUTS = "*"
"""The name of the input that is the mapping of all inputs."""


class TaskKind(enum.Enum):
    """What a task is."""

    REGION = "region"  # pure nodes compiled as one XLA program
    CALL = "call"  # a call of a host operator, one or a batch
    GLUE = "glue"  # plumbing: packing, picking, prompt text; cheap, cannot block


class Executor(enum.Enum):
    """Where a task runs."""

    INLINE = "inline"  # on whichever thread finds it ready
    THREAD = "thread"  # may block: on a worker thread, or on the thread that asked
    ASYNC = "async"  # ``run`` returns a coroutine: on the I/O loop
    PROCESS = "process"  # CPU-bound Python: in a spawned process


class Fan(Protocol):
    """How one task becomes many calls: a host call under ``vmap``."""

    @property
    def keeps_errors(self) -> bool:
        """Whether the exception of a call that fails, or is ended, is its result."""
        return False

    @property
    def goes_together(self) -> bool:
        """Whether its calls may go to the batch end point of their operator together."""
        return False

    def split(self, values: tuple[Any, ...]) -> Sequence[tuple[Any, ...]]:
        """Returns, for each call, the arguments of ``run``."""
        ...

    def join(self, values: tuple[Any, ...], results: Sequence[Any]) -> Any:
        """Returns the task's value from the results of its calls, in their order."""
        ...

    def partial(self, values: tuple[Any, ...], results: Sequence[Any]) -> Any:
        """Returns the results of its calls as they are, where some of them are exceptions."""
        return list(results)

    def describe(self, values: tuple[Any, ...], index: int) -> str:
        """Returns what call number ``index`` is called in errors: ``"element 3"``."""
        ...


class Task(NamedTuple):
    """One step of a plan.

    Attributes:
        index: Its position in ``Plan.tasks``, which are in a topological order.
        kind: What it is.
        node_ids: The graph nodes that it stands for; regions may have many.
        operator: The name of its operator, for messages.
        run: Computes its value from the values of ``reads``, passed by position. For
            ``Executor.ASYNC`` it returns a coroutine; for ``Executor.PROCESS`` it can be pickled.
        reads: The slots that it reads.
        writes: The slots that it writes.
        unpack: Gives the values of ``writes`` from the value of ``run``; None where the value
            itself goes to the only slot in ``writes``.
        successors: The tasks that wait for this one, without duplicates.
        parent_count: How many tasks this one waits for.
        priority: Length of the longest path from here to a result, in calls; larger first.
        executor: Where it runs.
        fan: How it becomes many calls; None for one call.
        timeout_seconds: The most that one call may take.
        concurrency: The most calls of its fan at once; None for no limit of its own.
        host: The host operator that it calls; None for what is no host call of its own, such as a
            region, or a loop whose body calls operators.
        policy: The policy of that operator.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs
    kind: TaskKind
    node_ids: tuple[str, ...]
    operator: str
    run: Callable[..., Any]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    unpack: Callable[[Any], Sequence[Any]] | None = None
    successors: tuple[int, ...] = ()
    parent_count: int = 0
    priority: float = 0.0
    executor: Executor = Executor.INLINE
    fan: Fan | None = None
    timeout_seconds: float | None = None
    concurrency: int | None = None
    host: Callable[..., Any] | None = None
    policy: HostPolicy | None = None

    @property
    def is_repeatable(self) -> bool:
        """Whether a call is made once more if the process that made it died."""
        return self.policy is not None and self.policy.is_repeatable


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Plan:
    """A flat program for the schedulers.

    Attributes:
        name: The name of the graph.
        tasks: All steps, in a topological order.
        slot_count: How many slots a run needs.
        inputs: The names of the inputs; input ``k`` is in slot ``k``.
        constants: Values that are in their slots from the beginning.
        outputs: Where the value of each result is, by name; these slots are never freed.
        node_slots: Where the whole output of each node is, where it is kept in a slot of its own.
        reader_counts: How many tasks read each slot; a slot that no output names is dead once all
            of them have ended.
        roots: Tasks that wait for none.
        warmups: Compilations that need no value; worth doing while a host call is in flight.
    """

    name: str
    tasks: tuple[Task, ...]
    slot_count: int
    inputs: tuple[str, ...]
    constants: tuple[tuple[int, Any], ...]
    outputs: Mapping[str, int]
    node_slots: Mapping[str, int]
    reader_counts: tuple[int, ...]
    roots: tuple[int, ...]
    warmups: tuple[Callable[[], None], ...] = ()
