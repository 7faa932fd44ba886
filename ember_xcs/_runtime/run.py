"""One execution of a plan: its values, its counts, and how it ends.

What a run is made of:

================  ==========================================================================
never changes     ``plan``, ``options``, ``layout``, ``context`` (of whoever asked), ``steps``
values            one item per slot; EMPTY before it is written and after it is freed
readers           tokens of a slot; each task that has read it takes one, the last frees it
arrivals          tokens of a task; each parent that ends takes one, the last makes it ready
errors, skipped   by node id; only where the run goes on after an error
failure, fatal    the error that ends the run: of a node; of Python itself (Ctrl-C)
stopped           True once the run is to end before its time; never False again
flights           the coroutines in flight; ``processes``: the processes at work
================  ==========================================================================

Between any two steps: a task is ready exactly if all its parents have ended well; a slot that
no output names is EMPTY once all its readers have ended; what ends after ``stopped`` is
dropped. Tokens are taken by ``list.pop``, which is atomic, so no lock is needed to count.
"""

from __future__ import annotations

import threading
import time
import weakref
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, Protocol

from ember_xcs._core.jax_state import jax_settings
from ember_xcs._runtime import timeline as timelines
from ember_xcs._runtime.batches import Batch
from ember_xcs._runtime.dispatch import Dispatch
from ember_xcs._runtime.failures import fallout, node_error
from ember_xcs._runtime.io_loop import io_loop
from ember_xcs._runtime.layout import EMPTY, Layout, layout_of
from ember_xcs._runtime.observing import observed_steps
from ember_xcs._runtime.partial_fans import partial_fans
from ember_xcs._runtime.watched_policies import policies_of
from ember_xcs.errors import ExecutionCancelled, NodeExecutionError, XCSError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ember_xcs._core.options import ExecutionOptions
    from ember_xcs._lower.plan import Plan
    from ember_xcs._runtime.adaptive import Controller
    from ember_xcs._runtime.dispatch import Place
    from ember_xcs._runtime.fan import OpenFan

__all__ = ["Run", "current_run"]


class Stoppable(Protocol):
    """What a run stops when it is stopped."""

    def stop(self) -> None:
        """Begins nothing more, and cancels what it can. Does not wait."""


# Weak, because the context is kept by the run itself.
current_run: ContextVar[weakref.ref[Run] | None] = ContextVar("ember_xcs_run", default=None)


class Run:
    """One execution of a plan.

    Schedulers call ``perform`` with the indices of ready tasks, beginning with ``ready``, until
    none is left; from any number of threads at once.

    Attributes:
        plan: What is executed.
        options: How.
        errors: The failures, by node id.
        skipped: Why a node was not run, by node id.
        policies: What its host calls go through; None for nothing.
        failure: The error that ended the run.
        stopped: Whether the run was ended before its time.
        timed_out: Whether it passed its deadline.
    """

    __slots__ = (
        "__weakref__", "_attached", "_batches", "_cancelled", "_drained", "_lock",
        "_records", "arrivals", "blocks_io_loop", "context", "ended_at", "errors",
        "failed_warmups", "failure", "fatal", "flights", "is_watched", "jax_settings",
        "layout", "open_fans", "options", "outer", "plan", "policies", "readers", "seats",
        "skipped", "skipped_ranks", "started_at", "steps", "stopped", "timed_out", "values",
    )  # fmt: skip

    def __init__(
        self,
        plan: Plan,
        values: Sequence[Any],
        options: ExecutionOptions,
        kept: frozenset[int] = frozenset(),
        *,
        blocking: bool = True,
    ) -> None:
        self.plan = plan
        self.options = options
        self.layout: Layout = layout_of(plan, kept)
        self.values: list[Any] = self.layout.initial.copy()
        self.values[: len(values)] = values
        self.arrivals: list[list[bool] | None] | None = None
        self.readers: list[list[bool] | None] = []
        self.errors: dict[str, NodeExecutionError] = {}
        self.skipped: dict[str, str] = {}
        self.skipped_ranks: set[int] = set()
        self.failure: NodeExecutionError | None = None
        self.fatal: BaseException | None = None
        self.stopped = self.timed_out = self.is_watched = self._cancelled = False
        self.flights: set[Any] = set()
        self.seats: dict[str, list[Any]] = {}
        self.failed_warmups: list[Exception] = []
        self.open_fans: dict[int, OpenFan] = {}
        self._batches: list[int] = []
        self._attached: set[Stoppable] = set()
        self._drained: threading.Event | None = None
        self._lock = threading.Lock()
        self._records: list[timelines.Record] | None = None
        self.steps = self.layout.steps
        if options.collect_metrics or options.trace_execution:
            self._records, self.steps = [], observed_steps(self)
        outer = current_run.get()
        self.outer: Run | None = outer() if outer is not None else None
        self.blocks_io_loop: bool = (blocking and io_loop.is_current()) or (
            self.outer is not None and self.outer.blocks_io_loop
        )
        self.jax_settings = jax_settings()
        self.context = copy_context()
        self.context.run(current_run.set, weakref.ref(self))
        self.policies = policies_of(self, values)
        if self.policies is not None:
            self.steps = self.policies.steps
        self.ended_at: float | None = None
        self.started_at = time.perf_counter()

    # What schedulers use

    @property
    def ready(self) -> list[int]:
        """The indices of the tasks that can be performed first."""
        return self._indices(self.layout.first)

    def perform(self, index: int, *, concurrency: int | None = None) -> list[int]:
        """Performs one task wholly, and returns the indices of those that it made ready.

        Args:
            index: Which task, by its position in the plan; all tasks it waits for have ended.
            concurrency: The most calls at once, for a task that is many calls.

        Returns:
            The tasks that are ready now because of this one, longest path first. If it failed and
            the run goes on after errors: those that only had to come after it.

        Raises:
            NodeExecutionError: If the task fails and the run ends at the first error.
            ExecutionCancelled: If the run was stopped before.
        """
        rank = self.layout.ranks[index]
        if self.steps[rank] is None:
            return self.perform_all([index], concurrency=concurrency)
        self.check()
        if self.is_watched:
            self.seats[threading.current_thread().name] = [rank]
        try:
            value = self.compute(rank)
        except Exception as error:  # noqa: BLE001  (user code may raise anything)
            self.begin_counting()
            _, ready = self.fail(rank, self.describe(rank, error))
            self.check()
            return self._indices(ready)
        finally:
            if self.is_watched:
                self.seats.pop(threading.current_thread().name, None)
        self.check()
        self.begin_counting()
        return self._indices(self.settle(rank, value))

    def perform_all(self, indices: Iterable[int], *, concurrency: int | None = None) -> list[int]:
        """Performs ready tasks at the same time, and returns those that they made ready.

        Args:
            indices: Which tasks, by their positions in the plan.
            concurrency: The most host calls at once; None for ``max_workers`` of the options.

        Raises:
            NodeExecutionError: If a task fails and the run ends at the first error.
            ExecutionCancelled: If the run was stopped before.
        """
        limit = self.options.max_workers if concurrency is None else concurrency
        ranks = [self.layout.ranks[index] for index in indices]
        made_ready = Dispatch(self, ranks, limit=limit, follow=False).execute()
        return self._indices(sorted(made_ready))

    def perform_everything(
        self, *, concurrency: int | None = None, controller: Controller | None = None
    ) -> None:
        """Performs all tasks as soon as they are ready, longest path first.

        Args:
            concurrency: The most host calls at once; None for ``max_workers`` of the options.
            controller: Sets that limit anew as calls end.

        Raises:
            NodeExecutionError: If a task fails and the run ends at the first error.
            ExecutionCancelled: If the run was stopped before.
        """
        limit = self.options.max_workers if concurrency is None else concurrency
        Dispatch(self, self.layout.first, limit=limit, controller=controller).execute()

    def skip_everything(self, reason: str) -> None:
        """Ends the run with nothing performed.

        Args:
            reason: Why, for the result.
        """
        self.skipped.update((n, reason) for task in self.plan.tasks for n in task.node_ids)

    # What came of it

    @property
    def results(self) -> dict[str, Any]:
        """The results that there are, by output name, in the order of the plan's outputs."""
        values = self.values
        return {
            name: values[slot]
            for name, slot in self.plan.outputs.items()
            if values[slot] is not EMPTY
        }

    def partial_results(self) -> dict[str, Any]:
        """Returns what is computed and not freed, by node id and by output name.

        Of a batch of which some calls have ended there is a list with what each returned, and an
        exception in the place of each of the others.
        """
        values = self.values
        nodes = {
            node_id: values[slot]
            for node_id, slot in self.plan.node_slots.items()
            if values[slot] is not EMPTY
        }
        return partial_fans(self) | nodes | self.results

    @property
    def kept_results(self) -> dict[str, Any]:
        """The results, and the parts that there are of others where these are wanted."""
        results = self.results
        if not (self.stopped and self.options.return_partial_results):
            return results
        known = {k: v for k, v in partial_fans(self).items() if k not in self.errors} | results
        return {name: known[name] for name in self.plan.outputs if name in known}

    @property
    def complete(self) -> bool:
        """Whether every result is there and nothing failed or was skipped."""
        return not (self.stopped or self.errors or self.skipped) and len(self.results) == len(
            self.plan.outputs
        )

    @property
    def timeline(self) -> tuple[timelines.TimelineEntry, ...]:
        """The calls in the order of their starting; empty where they were not recorded."""
        return timelines.entries(self._records or (), self.layout.tasks, self.started_at)

    @property
    def metrics(self) -> timelines.ExecutionMetrics:
        """What the run came to."""
        ended = time.perf_counter() if self.ended_at is None else self.ended_at
        records = None if self._records is None else list(self._records)
        return timelines.metrics(
            records,
            self.layout.tasks,
            failed=len(self.errors),
            skipped=len(self.skipped),
            wall_seconds=ended - self.started_at,
            failed_warmups=len(self.failed_warmups),
            batches=self._batches,
            figures={} if self.policies is None else self.policies.figures,
        )

    # How it ends

    def check(self) -> None:
        """Raises the error that ended the run, if it has ended before its time."""
        if not self.stopped:
            return
        if self.fatal is not None:
            raise self.fatal
        if self.failure is not None:
            raise self.failure
        raise ExecutionCancelled(f"run {self.plan.name!r} was cancelled", self.partial_results())

    def fail(self, rank: int, failure: NodeExecutionError) -> tuple[int, list[int]]:
        """Records the failure of a task, and ends the run or skips what depends on it.

        Returns:
            How many tasks will not run because of it, itself not counted, and the ranks that are
            ready now since they only had to come after these.
        """
        with self._lock:
            if self.stopped:
                return 0, []
            for node_id in self.layout.tasks[rank].node_ids:
                self.errors[node_id] = failure
            if self.options.on_error == "continue":
                return self._skip_dependents(rank, failure)
            self.failure = failure
            self.stopped = True
        self.stop()
        return 0, []

    def describe(
        self,
        rank: int,
        error: BaseException,
        fan: OpenFan | None = None,
        element: int | None = None,
        size: int = 1,
    ) -> NodeExecutionError:
        """Returns the error of a task that failed, or of one of its calls.

        Args:
            rank: The task.
            error: What it raised.
            fan: Its calls, if it is many.
            element: Which of them it was.
            size: How many calls it was made together with, itself included.
        """
        task = self.layout.tasks[rank]
        values, where = self.arguments(rank), ""
        if fan is not None and task.fan is not None and element is not None:
            where = f" at {task.fan.describe(values, element)}"
            values = fan.calls[element]
        if size > 1:
            where += f" in a batch of {size} calls"
        return node_error(task, error, values, where)

    def abort(self, error: BaseException) -> None:
        """Ends the run because of an exception that is not the business of a node."""
        if self.fatal is None:
            self.fatal = error
        self.stop()

    def stop(self) -> None:
        """Ends the run: begins nothing more and cancels what can be cancelled. Does not wait."""
        with self._lock:
            self.stopped = True
            attached = list(self._attached)
            is_first, self._cancelled = not self._cancelled, True
        for part in attached:
            part.stop()
        if is_first and self.layout.has_launches:  # a second time would disturb cleaning up
            io_loop.call(self._cancel_flights)  # there, so that none can be starting meanwhile

    def drain(self, seconds: float) -> None:
        """Waits until cancelled coroutines have ended, for so many seconds at most."""
        with self._lock:
            if not self.flights:
                return
            drained = self._drained = self._drained or threading.Event()
        drained.wait(seconds)

    def abandoned(self) -> list[str]:
        """Returns the threads that still run a call, and the node of each."""
        return [
            f"{name!r} in node {self._label(seat[0])}" for name, seat in list(self.seats.items())
        ]

    # What the parts of the runtime use

    def attach(self, part: Stoppable) -> None:
        """Has a part stopped with this run; at once if the run was stopped before."""
        with self._lock:
            self._attached.add(part)
        if self.stopped:
            part.stop()

    def detach(self, part: Stoppable) -> None:
        """Forgets a part."""
        with self._lock:
            self._attached.discard(part)

    def refuse_blocked_loop(self) -> None:
        """Raises an error if this run holds up the I/O loop that it needs."""
        if self.blocks_io_loop:
            raise XCSError(
                f"run {self.plan.name!r} has asynchronous or timed operators, and was started "
                "from code that the I/O loop is waiting for: it would wait for itself; in an "
                "`async def` operator use the async twin, `await aexecute_graph(...)`"
            )

    def take_off(self, flight: object) -> None:
        """Counts a coroutine as in flight."""
        with self._lock:
            self.flights.add(flight)

    def land(self, flight: object) -> None:
        """Counts a coroutine as ended."""
        with self._lock:
            self.flights.discard(flight)
            if self._drained is not None and not self.flights:
                self._drained.set()

    def begin_counting(self) -> None:
        """Makes the tokens; runs that go by the order of the plan do not need them."""
        if self.arrivals is not None:
            return
        with self._lock:
            if self.arrivals is None:
                self.readers = [tokens and tokens.copy() for tokens in self.layout.readers]
                self.arrivals = [tokens and tokens.copy() for tokens in self.layout.arrivals]

    def compute(self, rank: int) -> Any:
        """Returns the value of a task that is a plain call."""
        step = self.steps[rank]
        assert step is not None
        function, own_context, _, arguments, *_ = step
        if own_context:
            return self.context.copy().run(function, *arguments(self.values))
        return function(*arguments(self.values))

    def write(self, rank: int, value: Any) -> None:
        """Puts the value of a task into its slots."""
        task, values = self.layout.tasks[rank], self.values
        if task.unpack is not None:
            for slot, item in zip(task.writes, task.unpack(value), strict=True):
                values[slot] = item
        elif task.writes:
            (slot,) = task.writes
            values[slot] = value

    def settle(self, rank: int, value: Any) -> Sequence[int]:
        """Writes the value of a task, frees what is dead, and returns the ranks now ready."""
        assert self.arrivals is not None
        self.write(rank, value)
        dead, shared, followers, joins = self.layout.links[rank]
        self._free(dead, shared)
        arrivals = self.arrivals
        if not joins:
            return followers
        return sorted([*followers, *(join for join in joins if arrivals[join].pop())])  # type: ignore[union-attr]

    def arguments(self, rank: int) -> tuple[Any, ...]:
        """Returns the values that a task reads."""
        return tuple(self.values[slot] for slot in self.layout.tasks[rank].reads)

    def record(self, rank: int, element: Place, worker: str, start: float) -> None:
        """Notes a call that has just ended, or those of a batch, where calls are recorded."""
        if self._records is not None:
            end = time.perf_counter()
            units = element.units if isinstance(element, Batch) else [(rank, element)]
            self._records.extend((one, k, worker, start, end) for one, k in units)

    def count_batch(self, size: int) -> None:
        """Notes that so many calls were made together."""
        self._batches.append(size)

    def _cancel_flights(self) -> None:
        for flight in list(self.flights):
            flight.cancel()

    def _free(self, dead: Iterable[int], shared: Iterable[int]) -> None:
        values, readers = self.values, self.readers
        for slot in dead:
            values[slot] = EMPTY
        for slot in shared:
            if readers[slot].pop():  # type: ignore[union-attr]
                values[slot] = EMPTY

    def _skip_dependents(self, rank: int, failure: NodeExecutionError) -> tuple[int, list[int]]:
        """Skips all that depends on a failed task, which can therefore never become ready."""
        cause = type(failure.__cause__).__name__
        reason = f"depends on {failure.node_id!r}, which failed with {cause}"
        found, later = fallout(self.layout, rank, self.skipped_ranks)
        self.skipped_ranks.update(found)
        tasks, arrivals = self.layout.tasks, self.arrivals
        self.skipped.update((n, reason) for other in found for n in tasks[other].node_ids)
        assert arrivals is not None
        ready = [r for r in later if (tokens := arrivals[r]) is None or tokens.pop()]
        return len(found), ready

    def _indices(self, ranks: Iterable[int]) -> list[int]:
        tasks = self.layout.tasks
        return [tasks[rank].index for rank in ranks]

    def _label(self, rank: int) -> str:
        task = self.layout.tasks[rank]
        return repr(task.node_ids[0] if task.node_ids else task.operator)
