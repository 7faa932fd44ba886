"""What runs remember of host calls: the journal of those made, the cache of equal ones.

A call is known in the journal by the run, the node, its place in a fan, and what it was called
with: a run that is begun again asks for the same calls in the same places.

In the cache a call is known by what it was called with alone. Of equal calls in flight at the same
time one is made, and the others wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import warnings
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from ember_xcs._core.arguments import summary
from ember_xcs._core.operator import HostOperator
from ember_xcs._lower.node_calls import NodeCall
from ember_xcs._runtime.content import Unstorable, content_key
from ember_xcs._runtime.limits import held
from ember_xcs._runtime.result_cache import samples_are_repeated
from ember_xcs._runtime.run_keys import RunKey, digest, journal_at, place_of, within
from ember_xcs._trace.nodes import StagedCall
from ember_xcs.errors import BudgetExceeded, ExecutionCancelled, OptionsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ember_xcs._core.policy import HostPolicy
    from ember_xcs._lower.plan import Plan, Task
    from ember_xcs._runtime.batched_writes import Written
    from ember_xcs._runtime.journal import Journal
    from ember_xcs._runtime.result_cache import ResultCache

__all__ = ["CallMemory", "Remembered", "journal_at", "note_element", "rows_of"]

_SLICE_SECONDS: Final = 0.1  # how often a wait looks whether its run has ended
_OWN: Final = (BudgetExceeded, ExecutionCancelled, OptionsError)  # the run's errors, not the call's

_flights: dict[tuple[int, str], Future[None]] = {}
_lock = threading.Lock()

Row = tuple[Any, tuple[Any, ...], dict[str, Any]]
"""One call: the operator, its arguments by position and by name."""


def rows_of(task: Task, arguments: tuple[Any, ...]) -> list[Row]:
    """Returns the calls that the arguments of a task stand for."""
    first: Any = arguments[0] if len(arguments) == 1 else None
    if type(first) is list and first and hasattr(first[0], "rows"):
        return [row for call in first for row in call.rows()]
    if hasattr(first, "rows"):
        return list(first.rows())
    if isinstance(task.run, NodeCall):
        return [(task.host, *task.run.arguments(arguments))]
    staged = _staged(task)
    return [(task.host, arguments, {})] if staged is None else [staged.arguments(arguments)]


def _staged(task: Task) -> StagedCall | None:
    """The staged call whose ``forward`` a task calls, which gives leaves, not the result itself."""
    owner = getattr(task.run, "__self__", None)
    return owner if isinstance(owner, StagedCall) else None


def _content_of(task: Task, row: Row) -> str:
    """What a call is known by: what its operator is, and what it receives."""
    operator, args, kwargs = row
    if isinstance(operator, HostOperator):
        args, kwargs = operator.prepared(args, kwargs)  # type: ignore[assignment]
    content = content_key(operator, args, kwargs)
    return content if _staged(task) is None else digest("leaves", content)


class Together(Protocol):
    """Calls of different tasks that are made together."""

    def place(self, position: int) -> tuple[Task, int | None]:
        """Returns the task of one of them, and which call of its fan it is."""
        ...


class _Keys(NamedTuple):
    """What one call is known by; None where it is not kept."""

    journal: str | None
    cache: str | None
    nodes: str = ""


class CallMemory:
    """What one run remembers of its calls.

    Args:
        plan: Its plan.
        values: The values of the inputs of the plan.
        cache: Where results of deterministic operators are shared; None for nowhere.
        journal: Where the run is recorded; None for nowhere.
        count: Counts hits.
        outer: What the run around it remembers.
    """

    def __init__(
        self,
        plan: Plan,
        values: Sequence[Any],
        cache: ResultCache | None,
        journal: Journal | None,
        count: Callable[[str], None],
        outer: CallMemory | None,
    ) -> None:
        self.cache, self.journal = cache, journal
        self._count = count
        self._repeats_samples = samples_are_repeated()
        self._unstorable: set[str] = set()
        if outer is not None:
            self._unstorable = outer._unstorable  # noqa: SLF001  (the same class)
        self._run_key = None if journal is None else RunKey(plan, values, journal)

    def end(self, *, is_complete: bool) -> None:
        """Notes the end of the run: one that is not complete is gone on with by the next.

        Raises:
            XCSError: It could not be recorded that the run was begun.
        """
        if self._run_key is not None:
            self._run_key.end(is_complete=is_complete)

    def recall(
        self,
        task: Task,
        element: int | Together | None,
        arguments: tuple[Any, ...],
        check: Callable[[], None],
    ) -> Remembered:
        """Returns what is known of a call; waits for an equal one that is in flight.

        Args:
            task: The task.
            element: Which call of a fan, or which calls together; None for a task of one.
            arguments: What it is called with.
            check: Called from time to time; what it raises ends the wait.
        """
        while True:
            remembered = self._look_up(task, element, arguments)
            for written in remembered.being_written:
                written.wait()
            flight = remembered.join()
            if flight is None:
                return remembered
            while not wait_for([flight], timeout=_SLICE_SECONDS).done:
                check()
            flight.result()

    async def arecall(
        self, task: Task, element: int | Together | None, arguments: tuple[Any, ...]
    ) -> Remembered:
        """Returns what is known of a call; awaits an equal one that is in flight."""
        while True:
            remembered = self._look_up(task, element, arguments)
            for written in remembered.being_written:
                await written.awaited()
            flight = remembered.join()
            if flight is None:
                return remembered
            waiter = asyncio.wrap_future(flight)
            waiter.add_done_callback(_seen)
            await asyncio.wait([waiter])
            waiter.result()

    def _look_up(
        self, task: Task, element: int | Together | None, arguments: tuple[Any, ...]
    ) -> Remembered:
        remembered = Remembered(self, task, arguments, self._scope_key(task, element))
        if self.cache is not None or self.journal is not None:
            for k, row in enumerate(rows_of(task, arguments)):
                if element is None or isinstance(element, int):
                    keys = self._keys(task, element, k, row)
                else:
                    keys = self._keys(*element.place(k), 0, row)
                remembered.keys.append(keys)
                remembered.found.append(self._find(task, keys, remembered.being_written))
        return remembered

    def place_of(self, operator: str) -> str:
        """Returns what the next call is known by that code here makes itself."""
        return place_of(operator)

    def scope(self, task: Task, element: int | None) -> contextlib.AbstractContextManager[None]:
        """Has runs that are begun within a call be known by it."""
        return within(self._scope_key(task, element))

    def _scope_key(self, task: Task, element: int | Together | None) -> str:
        if self._run_key is None:
            return ""
        return digest(self._run_key.text, *task.node_ids, str(element))

    def _keys(self, task: Task, element: int | None, k: int, row: Row) -> _Keys:
        policy = task.policy
        is_cached = self.cache is not None and policy is not None and self._is_kept(policy)
        if self.journal is None and not is_cached:
            return _Keys(None, None)
        try:
            content = _content_of(task, row)
        except Unstorable as error:
            self._say(task, error)
            return _Keys(None, None)
        place = digest(self._scope_key(task, element), str(k), content)
        return _Keys(
            journal=None if self.journal is None else place,
            cache=content if is_cached else None,
            nodes=", ".join(task.node_ids),
        )

    def _is_kept(self, policy: HostPolicy) -> bool:
        """Whether a result may be given to an equal call."""
        return policy.is_repeatable or (self._repeats_samples and not policy.side_effects)

    def _find(self, task: Task, keys: _Keys, being_written: list[Written]) -> tuple[bool, Any]:
        if self.journal is not None and keys.journal is not None:
            found, value = self.journal.find(keys.journal)
            if found:
                self._count("journal_hits")
                return True, value
        if self.cache is not None and keys.cache is not None:
            found, value = self.cache.get(keys.cache)
            if found:
                self._count("cache_hits")
                being_written += self._record(task, keys, value)
                return True, value
        return False, None

    def _record(self, task: Task, keys: _Keys, value: Any) -> list[Written]:
        """Has a result written into the journal, and returns what to wait for."""
        if self.journal is None or keys.journal is None:
            return []
        try:
            return [self.journal.begin_recording(keys.journal, value, keys.nodes)]
        except Unstorable as error:
            self._say(task, error)
            return []

    def coalesces(self, task: Task) -> bool:
        """Whether equal calls may wait for each other: not if nothing would be there for them.

        A call within one that holds a resource does not wait either: the call that it would wait
        for may stand in line for that resource.
        """
        return task.operator not in self._unstorable and held() is None

    def keep(self, task: Task, keys: _Keys, value: Any) -> list[Written]:
        """Keeps the result of a call; nobody may see it before what is returned is written."""
        if isinstance(value, Exception):
            return []
        being_written = self._record(task, keys, value)
        if (
            self.cache is not None
            and keys.cache is not None
            and not self.cache.put(keys.cache, value)
        ):
            self._say(task, f"the cache refused {summary(value)}")
        return being_written

    def _say(self, task: Task, why: object) -> None:
        """Warns, once for each operator, that its calls are not remembered."""
        with _lock:
            if task.operator in self._unstorable:
                return
            self._unstorable.add(task.operator)
        warnings.warn(
            f"calls of {task.operator!r} are not remembered, and will be made again: {why}",
            RuntimeWarning,
            stacklevel=2,
        )


class Remembered:
    """What is known of one call, or of each call of a batch.

    Entered while what is missing is being made, it tells whoever waits for an equal call.

    Attributes:
        keys: What each call is known by; empty where nothing is remembered.
        found: For each call, whether its result is known, and the result.
        being_written: What was found elsewhere, and is not in the journal yet.
    """

    def __init__(
        self, memory: CallMemory, task: Task, arguments: tuple[Any, ...], scope: str
    ) -> None:
        self._memory, self._task, self._arguments = memory, task, arguments
        self._scope = scope
        self._flight: tuple[tuple[int, str], Future[None]] | None = None
        self._asked: list[int] = []
        self.keys: list[_Keys] = []
        self.found: list[tuple[bool, Any]] = []
        self.being_written: list[Written] = []

    @property
    def is_complete(self) -> bool:
        """Whether no call is left to be made."""
        return bool(self.found) and all(is_known for is_known, _ in self.found)

    @property
    def _is_batch(self) -> bool:
        first = self._arguments[0] if len(self._arguments) == 1 else None
        return (type(first) is list and len(self.keys) > 0 and hasattr(first[0], "rows")) or (
            hasattr(first, "select")
        )

    def value(self) -> Any:
        """Returns the result, or the results of a batch, where all are known."""
        values = [value for _, value in self.found]
        return values if self._is_batch else values[0]

    def missing(self) -> tuple[Any, ...]:
        """Returns the arguments of what is left to be made; of equal calls, those of the first."""
        unknown = [k for k, (is_known, _) in enumerate(self.found) if not is_known]
        firsts = {self.keys[k].cache or k: k for k in reversed(unknown)}
        self._asked = sorted(firsts.values())
        if not self._is_batch or len(self._asked) == len(self.found):
            return self._arguments
        first, left = self._arguments[0], self._asked
        return ([first[k] for k in left] if type(first) is list else first.select(left),)

    def keep(self, value: Any) -> Any:
        """Returns the result of the whole, after keeping what was made of it.

        Args:
            value: The result of the call with the missing arguments.
        """
        for written in self._begin_keeping(value):
            written.wait()
        return self._kept(value)

    async def akeep(self, value: Any) -> Any:
        """The same on an event loop, which goes on meanwhile."""
        for written in self._begin_keeping(value):
            await written.awaited()
        return self._kept(value)

    def _kept(self, value: Any) -> Any:
        return self.value() if self.keys else value

    def _begin_keeping(self, value: Any) -> list[Written]:
        if not self.keys:
            return []
        results = value if self._is_batch else [value]
        return [w for k, result in enumerate(results) for w in self.note(k, result)]

    def note(self, position: int, value: Any) -> list[Written]:
        """Begins to keep the result of one of the missing calls; once, if it is told again.

        Args:
            position: Which of them, by its position among them.
            value: Its result.

        Returns:
            What to wait for before anybody may see the result.
        """
        first = self._asked[position]
        if self.found[first][0]:
            return []
        key, being_written = self.keys[first].cache, []
        for k in range(first, len(self.found)):
            if k == first or (key is not None and self.keys[k].cache == key):
                self.found[k] = (True, value)
                being_written += self._memory.keep(self._task, self.keys[k], value)
        return being_written

    def note_element(self, position: int, value: Any) -> None:
        """Keeps the result of one call of a batch while the others are being made.

        Args:
            position: Which of the missing calls, by its position among them.
            value: Its result.
        """
        if self.keys and self._is_batch:
            for written in self.note(position, value):
                written.wait()

    @contextlib.contextmanager
    def scope(self, attempt: int) -> Iterator[None]:
        """Has runs that are begun within this call be known by it.

        Args:
            attempt: Which attempt it is: another one makes its calls again.
        """
        token = _remembered.set(self)
        try:
            with within(self._scope and digest(self._scope, str(attempt))):
                yield
        finally:
            _remembered.reset(token)

    def join(self) -> Future[None] | None:
        """Returns the equal call in flight to wait for; None if this one is to be made."""
        if len(self.keys) != 1 or self.keys[0].cache is None or self.found[0][0]:
            return None
        key = (id(self._memory.cache), self.keys[0].cache)
        with _lock:
            flight = _flights.get(key)
            if flight is not None:
                return flight if self._memory.coalesces(self._task) else None
            self._flight = (key, _flights.setdefault(key, Future()))
        return None

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _tb: object
    ) -> None:
        if self._flight is None:
            return
        key, flight = self._flight
        with _lock:
            _flights.pop(key, None)
        if isinstance(error, Exception) and not isinstance(error, _OWN):
            flight.set_exception(error)
        else:  # where this run was stopped there is no result: one of those who wait makes the call
            flight.set_result(None)


_remembered: ContextVar[Remembered | None] = ContextVar("ember_xcs_remembered", default=None)


def note_element(position: int, value: Any) -> None:
    """Keeps the result of one element of a chunk, while the chunk is still being worked on.

    Args:
        position: Which element of the chunk.
        value: Its result.
    """
    remembered = _remembered.get()
    if remembered is not None:
        remembered.note_element(position, value)


def _seen(future: asyncio.Future[None]) -> None:
    """Looks at an error that nobody may be left to see, so that asyncio does not complain of it."""
    if not future.cancelled():
        future.exception()


def _after_fork() -> None:
    """A forked child waits for no call of its parent."""
    global _lock  # noqa: PLW0603  (a thread of the parent may have held it)
    _lock = threading.Lock()
    _flights.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
