"""What runs remember of host calls: the journal of those made, the cache of equal ones.

A call is known in the journal by the run, the node, its place in a fan, and what it was called
with: a run that is begun again asks for the same calls in the same places. A run is known by its
plan and its inputs, and by its number among those like it in this process; one that did not end
well leaves its number to the next. A run within a call of another, such as a round of a loop, is
known by that call, the attempt, its plan and inputs, and by how many like it were begun there.

In the cache a call is known by what it was called with alone. Of equal calls in flight at the same
time one is made, and the others wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import heapq
import os
import threading
import warnings
from collections import Counter
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from ember_xcs._core.arguments import summary
from ember_xcs._core.operator import HostOperator
from ember_xcs._lower.node_calls import NodeCall
from ember_xcs._runtime.content import Unstorable, content_key, encode
from ember_xcs._runtime.journal import Journal
from ember_xcs._runtime.limits import held
from ember_xcs._runtime.result_cache import samples_are_repeated
from ember_xcs._trace.nodes import StagedCall
from ember_xcs.errors import BudgetExceeded, ExecutionCancelled, OptionsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ember_xcs._core.policy import HostPolicy
    from ember_xcs._lower.plan import Plan, Task
    from ember_xcs._runtime.result_cache import ResultCache

__all__ = ["CallMemory", "Remembered", "journal_at", "note_element", "rows_of"]

_SLICE_SECONDS: Final = 0.1  # how often a wait looks whether its run has ended
_OWN: Final = (BudgetExceeded, ExecutionCancelled, OptionsError)  # the run's errors, not the call's

Row = tuple[Any, tuple[Any, ...], dict[str, Any]]
"""One call: the operator, its arguments by position and by name."""


class _Scope:
    """What runs begun here are known by."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._counts: Counter[str] = Counter()

    def run_key(self, content: str) -> str:
        """Returns the key of the next run of this content."""
        with _lock:
            number = self._counts[content]
            self._counts[content] += 1
        return _digest(self._key, content, str(number))


class _Numbers:
    """The numbers of equal runs; one that is given back is given out again first."""

    def __init__(self) -> None:
        self._next = 0
        self._free: list[int] = []

    def take(self) -> int:
        if not self._free:
            self._next += 1
        return heapq.heappop(self._free) if self._free else self._next - 1

    def give_back(self, number: int) -> None:
        heapq.heappush(self._free, number)


_scope: ContextVar[_Scope | None] = ContextVar("ember_xcs_journal_scope", default=None)
_journals: dict[str, Journal] = {}
_numbers: WeakKeyDictionary[Journal, dict[str, _Numbers]] = WeakKeyDictionary()
_flights: dict[tuple[int, str], Future[None]] = {}
_lock = threading.Lock()


def journal_at(path: str | os.PathLike[str] | Journal) -> Journal:
    """Returns the journal in a file; one object for each file in a process."""
    if isinstance(path, Journal):
        return path
    name = str(Path(path).resolve())
    with _lock:
        if name not in _journals:
            _journals[name] = Journal(name)
        return _journals[name]


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
    return content if _staged(task) is None else _digest("leaves", content)


class _Keys(NamedTuple):
    """What one call is known by; None where it is not kept."""

    journal: str | None
    cache: str | None


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
        self._key = ""
        self._number: tuple[_Numbers, int] | None = None
        if journal is not None:
            self._begin(plan, values, journal)

    def _begin(self, plan: Plan, values: Sequence[Any], journal: Journal) -> None:
        """Finds out what the run is known by."""
        content = _digest(plan.name, *(_content(value) for value in values))
        scope = _scope.get()
        if scope is not None:
            self._key = scope.run_key(content)
            return
        with _lock:
            numbers = _numbers.setdefault(journal, {}).setdefault(content, _Numbers())
            number = numbers.take()
        self._number = numbers, number
        self._key = _digest(content, str(number))
        journal.begin(self._key)

    def end(self, *, is_complete: bool) -> None:
        """Notes the end of the run: one that is not complete is gone on with by the next."""
        if self._number is not None and not is_complete:
            numbers, number = self._number
            with _lock:
                numbers.give_back(number)
        self._number = None

    def recall(
        self,
        task: Task,
        element: int | None,
        arguments: tuple[Any, ...],
        check: Callable[[], None],
    ) -> Remembered:
        """Returns what is known of a call; waits for an equal one that is in flight.

        Args:
            task: The task.
            element: Which call of a fan; None for a task of one.
            arguments: What it is called with.
            check: Called from time to time; what it raises ends the wait.
        """
        while True:
            remembered = self._look_up(task, element, arguments)
            flight = remembered.join()
            if flight is None:
                return remembered
            while not wait_for([flight], timeout=_SLICE_SECONDS).done:
                check()
            flight.result()

    async def arecall(
        self, task: Task, element: int | None, arguments: tuple[Any, ...]
    ) -> Remembered:
        """Returns what is known of a call; awaits an equal one that is in flight."""
        while True:
            remembered = self._look_up(task, element, arguments)
            flight = remembered.join()
            if flight is None:
                return remembered
            waiter = asyncio.wrap_future(flight)
            waiter.add_done_callback(_seen)
            await asyncio.wait([waiter])
            waiter.result()

    def _look_up(self, task: Task, element: int | None, arguments: tuple[Any, ...]) -> Remembered:
        remembered = Remembered(self, task, arguments, self._scope_key(task, element))
        if self.cache is not None or self.journal is not None:
            for k, row in enumerate(rows_of(task, arguments)):
                keys = self._keys(task, element, k, row)
                remembered.keys.append(keys)
                remembered.found.append(self._find(keys))
        return remembered

    def place_of(self, operator: str) -> str:
        """Returns what the next call is known by that code here makes itself."""
        return operator if (scope := _scope.get()) is None else scope.run_key(operator)

    def scope(self, task: Task, element: int | None) -> contextlib.AbstractContextManager[None]:
        """Has runs that are begun within a call be known by it."""
        return _within(self._scope_key(task, element))

    def _scope_key(self, task: Task, element: int | None) -> str:
        if self.journal is None:
            return ""
        return _digest(self._key, *task.node_ids, str(element))

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
        place = _digest(self._scope_key(task, element), str(k), content)
        return _Keys(
            journal=None if self.journal is None else place,
            cache=content if is_cached else None,
        )

    def _is_kept(self, policy: HostPolicy) -> bool:
        """Whether a result may be given to an equal call."""
        return policy.is_repeatable or (self._repeats_samples and not policy.side_effects)

    def _find(self, keys: _Keys) -> tuple[bool, Any]:
        if self.journal is not None and keys.journal is not None:
            found, value = self.journal.find(keys.journal)
            if found:
                self._count("journal_hits")
                return True, value
        if self.cache is not None and keys.cache is not None:
            found, value = self.cache.get(keys.cache)
            if found:
                self._count("cache_hits")
                if self.journal is not None and keys.journal is not None:
                    self.journal.record(keys.journal, value, "")
                return True, value
        return False, None

    def coalesces(self, task: Task) -> bool:
        """Whether equal calls may wait for each other: not if nothing would be there for them.

        A call within one that holds a resource does not wait either: the call that it would wait
        for may stand in line for that resource.
        """
        return task.operator not in self._unstorable and held() is None

    def keep(self, task: Task, keys: _Keys, value: Any) -> None:
        """Keeps the result of a call, before anybody sees it."""
        if isinstance(value, Exception):
            return
        if self.journal is not None and keys.journal is not None:
            try:
                self.journal.record(keys.journal, value, ", ".join(task.node_ids))
            except Unstorable as error:
                self._say(task, error)
        if (
            self.cache is not None
            and keys.cache is not None
            and not self.cache.put(keys.cache, value)
        ):
            self._say(task, f"the cache refused {summary(value)}")

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
        """Returns the arguments of what is left to be made."""
        self._asked = [k for k, (is_known, _) in enumerate(self.found) if not is_known]
        if not self._is_batch or len(self._asked) == len(self.found):
            return self._arguments
        first, left = self._arguments[0], self._asked
        return ([first[k] for k in left] if type(first) is list else first.select(left),)

    def keep(self, value: Any) -> Any:
        """Returns the result of the whole, after keeping what was made of it.

        Args:
            value: The result of the call with the missing arguments.
        """
        if not self.keys:
            return value
        results = value if self._is_batch else [value]
        for position, result in enumerate(results):
            self.note(position, result)
        return self.value()

    def note(self, position: int, value: Any) -> None:
        """Keeps the result of one of the missing calls; once, if it is told again.

        Args:
            position: Which of them, by its position among the missing.
            value: Its result.
        """
        k = self._asked[position]
        if not self.found[k][0]:
            self._memory.keep(self._task, self.keys[k], value)
            self.found[k] = (True, value)

    def note_element(self, position: int, value: Any) -> None:
        """The same for one call of a batch while the others are being made."""
        if self.keys and self._is_batch:
            self.note(position, value)

    @contextlib.contextmanager
    def scope(self, attempt: int) -> Iterator[None]:
        """Has runs that are begun within this call be known by it.

        Args:
            attempt: Which attempt it is: another one makes its calls again.
        """
        token = _remembered.set(self)
        try:
            with _within(self._scope and _digest(self._scope, str(attempt))):
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


@contextlib.contextmanager
def _within(key: str) -> Iterator[None]:
    if not key:
        yield
        return
    token = _scope.set(_Scope(key))
    try:
        yield
    finally:
        _scope.reset(token)


def _seen(future: asyncio.Future[None]) -> None:
    """Looks at an error that nobody may be left to see, so that asyncio does not complain of it."""
    if not future.cancelled():
        future.exception()


def _content(value: Any) -> str:
    """What an input is known by; the calls that read it are known by what they read, too."""
    try:
        return hashlib.sha256(encode(value)).hexdigest()
    except Unstorable:
        return summary(value)


def _digest(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _after_fork() -> None:
    """A forked child waits for no call of its parent."""
    global _lock  # noqa: PLW0603  (a thread of the parent may have held it)
    _lock = threading.Lock()
    _flights.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
