"""What stands between a run and the calls that cost something.

A call goes through these, in this order: the journal (was it made before the run was killed?), the
cache (was an equal one made?), the budget (may it be made?), the line before its resource (may it
be made now?), and then it is attempted, as often as its retries allow. What it used is counted on
the way back, and its result is kept where it is to be kept before anybody sees it.

A run without any of these makes its calls directly and never comes here.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from ember_xcs._core.calls import would_be_awaited
from ember_xcs._core.operator import HostOperator
from ember_xcs._core.usage import Meter, current_meter, metering
from ember_xcs._lower.fans import BoundCall
from ember_xcs._lower.plan import Task, TaskKind
from ember_xcs._runtime.batch_policies import await_together, call_together
from ember_xcs._runtime.limits import Admission, Limiter, holding, limiter_of
from ember_xcs._runtime.memory import CallMemory, Remembered, journal_at, rows_of
from ember_xcs.errors import (
    BudgetExceeded,
    ExecutionCancelled,
    GraphError,
    NodeExecutionError,
    OperatorInputError,
    OptionsError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from ember_xcs._core.operator import Operator
    from ember_xcs._core.retry import Retry
    from ember_xcs._runtime.batches import Batch, BatchRow
    from ember_xcs._runtime.layout import Step
    from ember_xcs._runtime.run import Run

__all__ = ["CallPolicies"]

_SLICE_SECONDS: Final = 0.1  # how often a wait looks whether its run has ended
_FINAL: Final = (  # never tried again: the next attempt would end the same way
    BudgetExceeded,
    ExecutionCancelled,
    GraphError,
    OperatorInputError,
    OptionsError,
)


class CallPolicies:
    """The policies of one run.

    Args:
        run: The run.
        values: The values of the inputs of its plan.
        outer: Those of the run that it is part of.
    """

    def __init__(self, run: Run, values: Sequence[Any], outer: CallPolicies | None) -> None:
        options = run.options
        self._ref, self._outer = weakref.ref(run), outer  # the run's own context refers to this
        self._lock = threading.Lock()
        cache = options.cache
        journal = None if options.journal is None else journal_at(options.journal)
        self.retry: Retry | None = options.retry
        self._budget = options.budget
        if outer is not None:  # what a run is given, the runs within it have, too
            self.retry = self.retry or outer.retry
            cache = outer.memory.cache if cache is None else cache  # an empty one is false
            journal = outer.memory.journal if journal is None else journal
        self._calls = 0
        self._counts: Counter[str] = Counter()
        self._wait_seconds = 0.0
        outer_memory = None if outer is None else outer.memory
        self.memory: CallMemory = CallMemory(
            run.plan, values, cache, journal, self.count, outer_memory
        )
        self._meter = Meter(current_meter())
        for resource, limit in (options.limits or {}).items():
            limiter_of(resource).set(limit)

    @property
    def _run(self) -> Run:
        run = self._ref()
        if run is None:
            raise ExecutionCancelled("the run of this call is over")
        return run

    @property
    def steps(self) -> tuple[Step | None, ...]:
        """The steps of the run, in which no call is plain: each comes here."""
        tasks = self._run.layout.tasks
        return tuple(
            None if tasks[rank].kind is TaskKind.CALL else step
            for rank, step in enumerate(self._run.steps)
        )

    @property
    def figures(self) -> dict[str, Any]:
        """What they came to so far: fields of ``ExecutionMetrics``."""
        used = self._meter.usage
        return {
            "attempts": self._calls,
            "retries": self._counts["retries"],
            "tokens": used.tokens,
            "cost": used.cost,
            "cache_hits": self._counts["cache_hits"],
            "journal_hits": self._counts["journal_hits"],
            "wait_seconds": self._wait_seconds,
        }

    def start(self) -> None:
        """Notes the beginning of the run."""

    def end(self, *, is_complete: bool) -> None:
        """Notes the end of the run.

        Raises:
            XCSError: The journal could not be written.
        """
        self.memory.end(is_complete=is_complete)

    def opened(self, calls: int) -> None:
        """Notes how many calls a fan is."""

    def count(self, what: str) -> None:
        """Counts something, here and in the runs around."""
        if self._outer is not None:
            self._outer.count(what)
        with self._lock:
            self._counts[what] += 1

    def call(
        self,
        task: Task,
        element: int | None,
        arguments: tuple[Any, ...],
        attempt: Callable[[tuple[Any, ...]], Any],
    ) -> Any:
        """Returns the result of a call that is made on this thread.

        Args:
            task: The task.
            element: Which call of a fan; None for a task of one.
            arguments: What ``attempt`` is called with.
            attempt: Makes the call once.
        """
        if task.policy is None:
            return self._unpoliced(task, element, arguments, attempt)
        remembered = self.memory.recall(task, element, arguments, self._run.check)
        if remembered.is_complete:
            return remembered.value()
        with remembered:
            number = 1
            while True:
                try:
                    value = self.once(task, remembered.missing(), attempt, remembered, number)
                except Exception as error:
                    pause = self.pause(task, number, error)
                    if pause is None:
                        raise
                else:
                    return remembered.keep(value)
                self.sleep(pause)
                number += 1

    async def acall(
        self,
        task: Task,
        element: int | None,
        arguments: tuple[Any, ...],
        attempt: Callable[[tuple[Any, ...]], Awaitable[Any]],
    ) -> Any:
        """Returns the result of a call that is made on the I/O loop.

        Args:
            task: The task.
            element: Which call of a fan; None for a task of one.
            arguments: What ``attempt`` is called with.
            attempt: Makes the call once.
        """
        if task.policy is None:
            return await self._aunpoliced(task, element, arguments, attempt)
        remembered = await self.memory.arecall(task, element, arguments)
        if remembered.is_complete:
            return remembered.value()
        with remembered:
            number = 1
            while True:
                try:
                    asked = remembered.missing()
                    value = await self.aonce(task, asked, attempt, remembered, number)
                except Exception as error:
                    pause = self.pause(task, number, error)
                    if pause is None:
                        raise
                else:
                    return await remembered.akeep(value)
                await asyncio.sleep(pause)
                number += 1

    def _unpoliced(
        self,
        task: Task,
        element: int | None,
        arguments: tuple[Any, ...],
        attempt: Callable[[tuple[Any, ...]], Any],
    ) -> Any:
        """The result of what is no call of an operator: a loop, or a function that says nothing.

        The calls in it have policies of their own; what a function gave is in the journal, too.
        """
        if task.host is None or self.memory.journal is None:
            with self.memory.scope(task, element):
                return attempt(arguments)
        remembered = self.memory.recall(task, element, arguments, self._run.check)
        if remembered.is_complete:
            return remembered.value()
        with remembered, remembered.scope(1):
            return remembered.keep(attempt(remembered.missing()))

    async def _aunpoliced(
        self,
        task: Task,
        element: int | None,
        arguments: tuple[Any, ...],
        attempt: Callable[[tuple[Any, ...]], Awaitable[Any]],
    ) -> Any:
        if task.host is None or self.memory.journal is None:
            with self.memory.scope(task, element):
                return await attempt(arguments)
        remembered = await self.memory.arecall(task, element, arguments)
        if remembered.is_complete:
            return remembered.value()
        with remembered, remembered.scope(1):
            return await remembered.akeep(await attempt(remembered.missing()))

    def direct(self, operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Returns the result of a call that code within the run makes itself.

        Args:
            operator: What is called.
            args: By position.
            kwargs: By name.
        """
        assert isinstance(operator, HostOperator)
        task = Task(
            index=0,
            kind=TaskKind.CALL,
            node_ids=(self.memory.place_of(operator.name),),
            operator=operator.name,
            run=_run,
            reads=(),
            writes=(),
            host=operator,
            policy=operator.policy,
        )
        call = BoundCall(operator, args, dict(kwargs))
        if operator.is_async and would_be_awaited():
            return self.acall(task, None, (call,), _start_later)
        return self.call(task, None, (call,), _run)

    # Calls that go to a batch end point together

    @property
    def check(self) -> Callable[[], None]:
        """What raises the error that ended the run, if it has ended."""
        return self._run.check

    def call_batch(
        self,
        batch: Batch,
        rows: Sequence[BatchRow],
        attempt: Callable[[tuple[Any, ...]], Any],
    ) -> list[Any]:
        """Returns the results of calls that are made together on this thread.

        Args:
            batch: The batch.
            rows: Its calls.
            attempt: Asks the batch end point once, for the list that it is given.
        """
        return call_together(self, batch, rows, attempt)

    async def acall_batch(
        self,
        batch: Batch,
        rows: Sequence[BatchRow],
        attempt: Callable[[tuple[Any, ...]], Awaitable[Any]],
    ) -> list[Any]:
        """Returns the results of calls that are made together on the I/O loop.

        Args:
            batch: The batch.
            rows: Its calls.
            attempt: Asks the batch end point once, for the list that it is given.
        """
        return await await_together(self, batch, rows, attempt)

    # One attempt

    def once(
        self,
        task: Task,
        arguments: tuple[Any, ...],
        attempt: Callable[[tuple[Any, ...]], Any],
        remembered: Remembered,
        number: int,
        calls: int = 1,
    ) -> Any:
        """Returns what an attempt gives, which waits in line and is counted.

        Args:
            task: The task.
            arguments: What ``attempt`` is called with.
            attempt: Makes the call, or several together.
            remembered: What is known of it.
            number: Which attempt it is.
            calls: How many calls it is.
        """
        limiter, begun, admission = _limiter(task), time.monotonic(), None
        if limiter is not None:
            admission = limiter.acquire(_expected(task, arguments), self._run.check)
        attempted = _Attempt(self, begun, admission, calls)
        with attempted as meter, metering(meter), holding(admission), remembered.scope(number):
            return attempt(arguments)

    async def aonce(
        self,
        task: Task,
        arguments: tuple[Any, ...],
        attempt: Callable[[tuple[Any, ...]], Awaitable[Any]],
        remembered: Remembered,
        number: int,
        calls: int = 1,
    ) -> Any:
        """The same on the I/O loop."""
        limiter, begun, admission = _limiter(task), time.monotonic(), None
        if limiter is not None:
            admission = await limiter.aacquire(_expected(task, arguments))
        attempted = _Attempt(self, begun, admission, calls)
        with attempted as meter, metering(meter), holding(admission), remembered.scope(number):
            return await attempt(arguments)

    def begin(self, waited: float, calls: int) -> Meter:
        """Counts an attempt, here and in the runs around, and returns what it reports to.

        Args:
            waited: How long it waited in line, in seconds.
            calls: How many calls it is.

        Raises:
            BudgetExceeded: It may not be made; the run whose budget that is has been stopped.
        """
        self.reserve(calls)
        self._wait(waited)
        return Meter(self._meter)

    def _wait(self, seconds: float) -> None:
        """Counts time in line, here and in the runs around."""
        if self._outer is not None:
            self._outer._wait(seconds)  # noqa: SLF001  (the same class)
        with self._lock:
            self._wait_seconds += seconds

    def reserve(self, calls: int) -> None:
        """Counts calls, here and in the runs around.

        Args:
            calls: How many are made together.

        Raises:
            BudgetExceeded: They may not be made; the run whose budget that is has been stopped.
        """
        with self._lock:
            used = self._meter.usage
            why = self._budget and self._budget.exceeded_by(self._calls, used, calls)
            if why is None:
                self._calls += calls
        if why is None:
            self._reserve_around(calls)
            return
        error = BudgetExceeded(
            f"run {self._run.plan.name!r} was to make another host call, and {why}. Raise its "
            "budget, or take what it has: the error's partial_results, or "
            "return_partial_results=True.",
            self._run.partial_results(),
        )
        self._run.abort(error)
        raise error

    def _reserve_around(self, calls: int) -> None:
        """Counts calls in the runs around, and takes them back here if one refuses them."""
        if self._outer is None:
            return
        try:
            self._outer.reserve(calls)
        except BudgetExceeded:
            with self._lock:
                self._calls -= calls
            raise

    # Further attempts

    def pause(self, task: Task, number: int, error: Exception) -> float | None:
        """How long to wait before another attempt; None if there is to be none."""
        own = None if task.policy is None else task.policy.retry
        retry = own if own is not None else self.retry
        if retry is None or isinstance(error, _FINAL) or self._run.stopped:
            return None
        if own is None and (_has_side_effects(task) or isinstance(error, NodeExecutionError)):
            return None  # the calls of a run within it were tried again in that run
        pause = retry.pause(number, error)
        if pause is not None:
            self.count("retries")
        return pause

    def sleep(self, seconds: float) -> None:
        """Waits, as long as the run goes on."""
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            self._run.check()
            time.sleep(min(left, _SLICE_SECONDS))
        self._run.check()


class _Attempt:
    """An attempt from its admission to its end."""

    __slots__ = ("_admission", "_begun", "_calls", "_meter", "_policies")

    def __init__(
        self, policies: CallPolicies, begun: float, admission: Admission | None, calls: int
    ) -> None:
        self._policies, self._begun, self._admission = policies, begun, admission
        self._calls = calls
        self._meter: Meter | None = None

    def __enter__(self) -> Meter:
        try:
            self._meter = self._policies.begin(time.monotonic() - self._begun, self._calls)
        except BaseException:
            if self._admission is not None:
                self._admission.cancel()
            raise
        return self._meter

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._meter is not None
        if self._admission is not None:
            used = self._meter.usage.tokens if self._meter.reported else None
            self._admission.release(used, failed=kind is not None)


def _has_side_effects(task: Task) -> bool:
    return task.policy is not None and task.policy.side_effects


def _run(arguments: tuple[Any, ...]) -> Any:
    (call,) = arguments
    return call.operator.run(call.args, call.kwargs)


async def _start_later(arguments: tuple[Any, ...]) -> Any:
    (call,) = arguments
    return await call.operator.start(call.args, call.kwargs)


def _limiter(task: Task) -> Limiter | None:
    resource = None if task.policy is None else task.policy.resource
    return None if resource is None else limiter_of(resource)


def _expected(task: Task, arguments: tuple[Any, ...]) -> float | None:
    """How many tokens an operator says that a call will use."""
    expects = getattr(task.host, "expected_tokens", None)
    if expects is None:
        return None
    found = [expects(*args, **kwargs) for _, args, kwargs in rows_of(task, arguments)]
    return float(sum(found))
