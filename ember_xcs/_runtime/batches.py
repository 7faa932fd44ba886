"""Calls that are ready, gathered for batch end points.

Calls of one operator gather in a group. A group with calls has one *token* in the queue of the
dispatch, the rank of one of its tasks; whoever takes the token takes what has gathered by then, up
to the size of a batch. So calls that are ready at the same moment go together, and nothing waits:
but what is ready while no further call may begin gathers until one may.

With a window the token is held back, and the first call that is ready waits for others. It goes

- when the window is over, or the batch is full;
- when none of the other tasks of the group could become ready without its result;
- when nothing else is at work in the dispatch, which would otherwise wait for a clock.

Calls whose arrays are still being computed do not hold up the others: they go afterwards.

All of it happens under the lock of the dispatch, but for what a ``Batch`` does once it is taken.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from ember_xcs._lower.fans import BoundCall, CallFailure, arun_rows, run_rows
from ember_xcs._lower.plan import Executor, Task
from ember_xcs._runtime.batch_groups import BatchGroup, staged_call
from ember_xcs._runtime.layout import FAN, KIND
from ember_xcs._runtime.memory import rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ember_xcs._runtime.dispatch import Dispatch
    from ember_xcs._runtime.fan import OpenFan
    from ember_xcs._runtime.layout import Step
    from ember_xcs._runtime.run import Run

__all__ = ["Batch", "BatchRow", "Batches", "Window"]


class BatchRow(NamedTuple):
    """One call of a batch.

    Attributes:
        position: Its place in the batch.
        call: The operator and the arguments.
    """

    position: int
    call: BoundCall

    def rows(self) -> list[tuple[Any, tuple[Any, ...], dict[str, Any]]]:
        """Returns the call that it is."""
        return self.call.rows()

    def input_summary(self) -> str:
        """Returns the types and shapes of the arguments, for messages."""
        return self.call.input_summary()


class Batch:
    """Calls that have been taken together; stands where the number of a call of a fan would.

    Attributes:
        units: The calls: a rank, and which call of its fan, or None.
        task: A task that is all of them; its ``run`` takes the list of the calls.
        kind: How it is started, as in the layout.
    """

    __slots__ = ("_run", "gathered", "kind", "task", "units")

    def __init__(self, run: Run, gathered: _Gathered, units: list[tuple[int, int | None]]) -> None:
        tasks = run.layout.tasks
        first, executor = tasks[units[0][0]], gathered.group.executor
        self._run, self.gathered, self.units = run, gathered, units
        self.kind = run.layout.modes[units[0][0]] & KIND
        self.task: Task = first._replace(
            node_ids=tuple(dict.fromkeys(n for rank, _ in units for n in tasks[rank].node_ids)),
            run=arun_rows if executor is Executor.ASYNC else run_rows,
            fan=None,
            executor=executor,
        )

    def __str__(self) -> str:
        """What it is known by in the journal."""
        return repr(self.units)

    def place(self, position: int) -> tuple[Task, int | None]:
        """Returns the task of one of the calls, and which call of its fan it is."""
        rank, element = self.units[position]
        return self._run.layout.tasks[rank], element

    def rows(self, dispatch: Dispatch) -> tuple[list[BatchRow], dict[int, Any]]:
        """Returns the calls, and by position the failures of those that cannot be made."""
        rows: list[BatchRow] = []
        failures: dict[int, Any] = {}
        for position, (rank, element) in enumerate(self.units):
            try:
                arguments = dispatch.arguments(rank, element)
                call = self._call(rank, arguments)
            except Exception as error:  # noqa: BLE001  (user code may raise anything)
                failures[position] = CallFailure(error)
            else:
                rows.append(BatchRow(position, call))
        return rows, failures

    def _call(self, rank: int, arguments: tuple[Any, ...]) -> BoundCall:
        if len(arguments) == 1 and isinstance(arguments[0], BoundCall):
            return arguments[0]
        (row,) = rows_of(self._run.layout.tasks[rank], arguments)
        return BoundCall(*row)

    def counted(
        self, attempt: Callable[[tuple[Any, ...]], Any]
    ) -> Callable[[tuple[Any, ...]], Any]:
        """Returns what asks the end point, so that the run counts it."""

        def asked(given: tuple[Any, ...]) -> Any:
            self._run.count_batch(len(given[0]))
            return attempt(given)

        return asked

    def finished(self, rows: Sequence[BatchRow], results: Sequence[Any]) -> list[Any]:
        """Returns the results of some of the calls as the plan has them."""
        return [
            self._finished(row.position, result) for row, result in zip(rows, results, strict=True)
        ]

    def _finished(self, position: int, result: Any) -> Any:
        rank, element = self.units[position]
        if element is not None or isinstance(result, CallFailure):
            return result
        staged = staged_call(self._run.layout.tasks[rank])
        if staged is None:
            return result
        try:
            return staged.results(result)
        except Exception as error:  # noqa: BLE001  (user code may raise anything)
            return CallFailure(error)

    def all_results(
        self, rows: Sequence[BatchRow], results: Sequence[Any], failures: dict[int, Any]
    ) -> list[Any]:
        """Returns the results of all calls, in the order of ``units``."""
        found = failures | {row.position: value for row, value in zip(rows, results, strict=True)}
        return [found[position] for position in range(len(self.units))]


class Window(NamedTuple):
    """A time for which calls gather.

    Attributes:
        seconds: How long.
        group: Whose calls.
        number: Which window of the group it is.
    """

    seconds: float
    group: Any
    number: int


class _Gathered:
    """The calls of a group that are ready and have not begun.

    Attributes:
        group: The group.
        size: The most calls in a batch; None for any number.
        seconds: The window; 0 for none.
        to_come: The tasks that have not become ready yet.
        waiting: A heap of the ranks that have calls to begin; each is in it once.
        count: How many calls these are.
        opening: Fans that are being split, which takes no time to speak of.
        has_token: Whether its token is in the queue, or waits for a call in flight to end.
        in_flight: How many calls of the end point have begun and not ended.
        behind: What needs a result of the calls that wait, and will not become ready before.
        window: The number of the window.
        is_open: Whether calls wait for the window to end.
        is_over: Whether it has ended.
    """

    __slots__ = (
        "behind", "count", "group", "has_token", "in_flight", "is_open", "is_over", "opening",
        "seconds", "size", "to_come", "waiting", "window",
    )  # fmt: skip

    def __init__(self, group: BatchGroup, run: Run, ranks: Iterable[int]) -> None:
        options, policy = run.options, group.policy
        sizes = [n for n in (policy.max_batch_size, options.max_batch_size) if n is not None]
        own = policy.batch_window_seconds
        self.group = group
        self.size = min(sizes, default=None)
        window = options.batch_window_seconds if own is None else own
        self.seconds = 0.0 if run.blocks_io_loop else window or 0.0  # the clock is on the I/O loop
        self.to_come = set(ranks)
        self.waiting: list[int] = []
        self.opening: set[int] = set()
        self.count = self.in_flight = self.window = 0
        self.has_token = self.is_open = self.is_over = False
        self.behind: set[int] = set()

    @property
    def may_go(self) -> bool:
        """Whether a call of the end point may begin, as far as the group is concerned."""
        most = self.group.concurrency
        return bool(self.waiting) and not self.opening and (most is None or self.in_flight < most)

    def is_due(self, run: Run) -> bool:
        """Whether waiting longer is of no use."""
        if not self.seconds or self.is_over or (self.size is not None and self.count >= self.size):
            return True
        return all(rank in self.behind or rank in run.skipped_ranks for rank in self.to_come)

    def add(self, rank: int, count: int, run: Run) -> None:
        """Adds the calls of a task."""
        self.to_come.discard(rank)
        if not count:
            return
        heappush(self.waiting, rank)
        self.count += count
        if self.seconds:
            self._note_behind(rank, run)

    def _note_behind(self, rank: int, run: Run) -> None:
        links, found = run.layout.links, [rank]
        for other in found:  # grows meanwhile
            *_, followers, joins = links[other]
            new = [r for r in (*followers, *joins) if r not in self.behind]
            self.behind.update(new)
            found.extend(new)

    def close_window(self) -> None:
        """Forgets the window once nothing waits any more."""
        if not self.waiting:
            self.window += 1
            self.is_open = self.is_over = False
            self.behind.clear()


class Batches:
    """The groups of a dispatch.

    Args:
        run: The run.
        queue: The queue of the dispatch.
        fans: Its open fans.
        ranks: The tasks that are ready.
        follow: Whether it goes on with what becomes ready.

    Attributes:
        busy: How many units have been taken and have not been reported.
        windows: Windows that have yet to be given to a clock.
    """

    def __init__(
        self,
        run: Run,
        queue: list[int],
        fans: dict[int, OpenFan],
        ranks: Sequence[int],
        *,
        follow: bool,
    ) -> None:
        self._run, self._queue, self._fans = run, queue, fans
        self._modes = run.layout.modes
        self.busy = 0
        self.windows: list[Window] = []
        self._by_rank: dict[int, _Gathered] = {}
        performed = set(run.layout.groups) - run.skipped_ranks if follow else set(ranks)
        known: dict[BatchGroup, _Gathered] = {}
        for rank, group in run.layout.groups.items():
            if rank in performed:
                if group not in known:
                    known[group] = _Gathered(group, run, group.ranks & performed)
                self._by_rank[rank] = known[group]
        self._all = list(known.values())

    def steps(self, steps: Sequence[Step | None]) -> tuple[Step | None, ...]:
        """Returns steps in which no call of a group is plain."""
        return tuple(None if r in self._by_rank else step for r, step in enumerate(steps))

    def arrive(self, ranks: Iterable[int]) -> None:
        """Queues tasks that are ready; calls gather."""
        touched: dict[_Gathered, None] = {}
        for rank in ranks:
            mode = self._modes[rank]
            gathered = self._by_rank.get(rank)
            if gathered is None:
                heappush(self._queue, rank)
                continue
            touched[gathered] = None
            if mode & FAN:
                if self._is_there(rank):
                    gathered.opening.add(rank)
                heappush(self._queue, rank)
            else:
                gathered.add(rank, 1, self._run)
        for gathered in touched:
            self._consider(gathered)

    def opened(self, rank: int, count: int) -> None:
        """Takes the calls of a fan."""
        gathered = self._by_rank[rank]
        gathered.opening.discard(rank)
        gathered.add(rank, count, self._run)
        self._consider(gathered)

    def redeem(self, rank: int) -> bool:
        """Whether there are calls to take for a token."""
        gathered = self._by_rank[rank]
        self._prune(gathered)
        if not gathered.may_go:
            gathered.has_token = False
            gathered.close_window()
        return gathered.has_token

    def take(self, rank: int) -> tuple[int, int | Batch | None]:
        """Takes calls for a token that was redeemed: one, or a batch."""
        gathered = self._by_rank[rank]
        gathered.has_token = False
        units = self._units(gathered)
        gathered.count -= len(units)
        self._prune(gathered)
        gathered.close_window()
        gathered.in_flight += 1
        self._consider(gathered)
        if len(units) == 1 and units[0][1] is None and not gathered.group.is_mixed:
            gathered.in_flight -= 1  # it is no call of the end point
            return units[0]
        return units[0][0], Batch(self._run, gathered, units)

    def _units(self, gathered: _Gathered) -> list[tuple[int, int | None]]:
        """Takes the calls that go next, longest path first: those whose arrays are there."""
        size, waiting, fans = gathered.size, gathered.waiting, self._fans
        units: list[tuple[int, int | None]] = []
        late: list[tuple[int, int | None]] = []
        while waiting and (size is None or len(units) < size):
            rank = waiting[0]
            fan = fans.get(rank)
            if fan is not None and fan.may_begin:
                units += [(rank, k) for k in fan.begin_some(size and size - len(units))]
                continue
            heappop(waiting)
            if fan is None:
                (units if self._is_there(rank) else late).append((rank, None))
            else:
                gathered.count -= fan.left  # none; or a call of it has failed meanwhile
        if not units:
            units, late = late[:size], late[len(late[:size]) :]
        for rank, _ in late:
            heappush(waiting, rank)
        return units

    def _prune(self, gathered: _Gathered) -> None:
        """Drops fans of which no call may begin any more."""
        fans = self._fans
        while gathered.waiting:
            fan = fans.get(gathered.waiting[0])
            if fan is None or fan.may_begin:
                return
            gathered.count -= fan.left
            heappop(gathered.waiting)

    def ended(self, batch: Batch) -> None:
        """Notes that a call of an end point has ended."""
        batch.gathered.in_flight -= 1
        self._consider(batch.gathered)

    def reconsider(self, *, is_idle: bool) -> None:
        """Lets calls go that need not wait for their window any more.

        Args:
            is_idle: Whether nothing is at work or ready.
        """
        for gathered in self._all:
            if gathered.is_open and not gathered.has_token:
                gathered.is_over |= is_idle
                self._consider(gathered)

    def expire(self, window: Window) -> None:
        """Ends a window."""
        gathered = window.group
        if gathered.window == window.number:
            gathered.is_over = True
            self._consider(gathered)

    def _consider(self, gathered: _Gathered) -> None:
        """Gives a group its token, or begins its window."""
        if gathered.has_token or not gathered.may_go:
            return
        if gathered.is_due(self._run):
            gathered.has_token = True
            heappush(self._queue, gathered.waiting[0])
        elif not gathered.is_open:
            gathered.is_open = True
            self.windows.append(Window(gathered.seconds, gathered, gathered.window))

    def _is_there(self, rank: int) -> bool:
        """Whether what a task reads has been computed; JAX returns arrays before they are."""
        values = self._run.values
        return all(
            not isinstance(value := values[slot], jax.Array) or value.is_ready()  # type: ignore[attr-defined]
            for slot in self._run.layout.tasks[rank].reads
        )
