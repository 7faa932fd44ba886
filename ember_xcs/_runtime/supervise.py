"""A plan run from beginning to end: deadlines, Ctrl-C, cancellation, and what is raised.

A run without a deadline is performed by the thread that asks. Otherwise a pool thread does it,
and the one that asks only watches the clock, so that it can leave in time whatever the run is
stuck in. Coroutines in flight are then cancelled and given a moment to clean up; calls in
processes are killed; calls on threads, which cannot be stopped, are abandoned and named.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import time
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ember_xcs._core.jax_state import call_under
from ember_xcs._core.options import resolve_options
from ember_xcs._runtime.dispatch import SLICE_SECONDS
from ember_xcs._runtime.failures import shortened
from ember_xcs._runtime.layout import EMPTY
from ember_xcs._runtime.registry import choose_scheduler
from ember_xcs._runtime.run import Run
from ember_xcs._runtime.threads import threads
from ember_xcs.errors import BudgetExceeded, ExecutionTimeout, XCSError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ember_xcs._core.options import ExecutionOptions
    from ember_xcs._lower.plan import Plan
    from ember_xcs._runtime.scheduler import Scheduler

__all__ = ["aexecute_plan", "execute_plan"]

_GRACE_SECONDS: Final = 0.25  # how long cancelled coroutines may take to clean up

OptionsArgument: TypeAlias = "ExecutionOptions | Mapping[str, Any] | None"


def execute_plan(
    plan: Plan,
    values: Sequence[Any],
    options: OptionsArgument = None,
    *,
    scheduler: str | Scheduler | None = None,
    kept: frozenset[int] = frozenset(),
) -> Run:
    """Runs a plan and returns the run, which has the results.

    Args:
        plan: What to run.
        values: The values of its inputs, in order.
        options: How; over those of the context.
        scheduler: Over that of the options.
        kept: Slots that are not to be freed, besides those of the outputs.

    Raises:
        NodeExecutionError: If a task fails, and the run ends at the first error.
        ExecutionTimeout: If the run passes its deadline, unless partial results are wanted.
        ExecutionCancelled: If the run that this one is part of was stopped.
        KeyboardInterrupt: At Ctrl-C, with all that can be cancelled cancelled.
    """
    settings = resolve_options(options)
    _check_inputs(plan, values)
    run = Run(plan, values, settings, kept)
    chosen = choose_scheduler(settings.scheduler if scheduler is None else scheduler, run.layout)
    seconds = _deadline(settings)
    with _within_outer(run), _within_policies(run):
        chosen.prepare(plan)
        if seconds is None:
            _perform(run, chosen)
        else:
            _watch(run, chosen, seconds)
    return _finished(run, chosen)


async def aexecute_plan(
    plan: Plan,
    values: Sequence[Any],
    options: OptionsArgument = None,
    *,
    scheduler: str | Scheduler | None = None,
    kept: frozenset[int] = frozenset(),
) -> Run:
    """Runs a plan without blocking the event loop of the caller.

    The run is cancelled if the task that awaits it is.

    Args:
        plan: What to run.
        values: The values of its inputs, in order.
        options: How; over those of the context.
        scheduler: Over that of the options.
        kept: Slots that are not to be freed, besides those of the outputs.

    Raises:
        NodeExecutionError: If a task fails, and the run ends at the first error.
        ExecutionTimeout: If the run passes its deadline, unless partial results are wanted.
        ExecutionCancelled: If the run that this one is part of was stopped.
    """
    settings = resolve_options(options)
    _check_inputs(plan, values)
    run = Run(plan, values, settings, kept, blocking=False)
    chosen = choose_scheduler(settings.scheduler if scheduler is None else scheduler, run.layout)
    with _within_outer(run), _within_policies(run):
        chosen.prepare(plan)
        await _await(run, chosen, _deadline(settings))
    return _finished(run, chosen)


def _deadline(settings: ExecutionOptions) -> float | None:
    """How long a run may take, in seconds: the less of its deadline and its budget."""
    budget = None if settings.budget is None else settings.budget.seconds
    bounds = [seconds for seconds in (settings.timeout_seconds, budget) if seconds is not None]
    return min(bounds, default=None)


@contextlib.contextmanager
def _within_policies(run: Run) -> Iterator[None]:
    """Has a run whose budget is spent end with what it has, where that is wanted."""
    if run.policies is not None:
        run.policies.start()
    try:
        yield
    except BudgetExceeded as error:
        if error is not run.fatal or not run.options.return_partial_results:
            raise
    finally:
        if run.policies is not None:
            run.policies.end(is_complete=run.complete)


def _perform(run: Run, scheduler: Scheduler) -> None:
    try:
        scheduler.execute(run)
    except BaseException:
        run.stop()
        run.drain(_GRACE_SECONDS)
        raise


def _watch(run: Run, scheduler: Scheduler, seconds: float) -> None:
    """Has a pool thread perform a run, and leaves it at the deadline."""
    over = threading.Event()
    outcome = _Outcome(over.set)
    run.is_watched = True
    run.attach(outcome)
    try:
        threads.submit(functools.partial(outcome.perform, run, scheduler))
        in_time = _wait(over, time.perf_counter() + seconds)
    except BaseException:
        run.stop()
        run.drain(_GRACE_SECONDS)
        raise
    if not in_time:
        _time_out(run)
    if run.stopped:
        run.drain(_GRACE_SECONDS)
    _conclude(run, outcome, seconds)


async def _await(run: Run, scheduler: Scheduler, seconds: float | None) -> None:
    """The same for a caller that must not be blocked."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    outcome = _Outcome(lambda: _resolve(loop, over))
    run.is_watched = True
    run.attach(outcome)
    try:
        threads.submit(functools.partial(outcome.perform, run, scheduler))
        await asyncio.wait([over], timeout=seconds)
    except BaseException:
        run.stop()
        await _adrain(run)
        raise
    if not over.done():
        _time_out(run)
    if run.stopped:
        await _adrain(run)
    _conclude(run, outcome, seconds)


def _wait(over: threading.Event, deadline: float) -> bool:
    """Waits until an event or a deadline, and tells whether it was the event."""
    while True:
        left = deadline - time.perf_counter()
        if over.wait(min(max(left, 0.0), SLICE_SECONDS)):
            return True
        if left <= 0:
            return False


async def _adrain(run: Run) -> None:
    """Gives coroutines in flight a moment to clean up."""
    deadline = time.perf_counter() + _GRACE_SECONDS
    while run.flights and time.perf_counter() < deadline:  # noqa: ASYNC110  (they end on another loop)
        await asyncio.sleep(0.001)


def _conclude(run: Run, outcome: _Outcome, seconds: float | None) -> None:
    """Raises what a run ended with that another thread performed."""
    if run.timed_out:
        _raise_timeout(run, seconds)
    elif outcome.error is not None:
        raise outcome.error
    else:
        run.check()


class _Outcome:
    """How a run ends that another thread performs; reported as soon as it is known."""

    def __init__(self, report: Callable[[], object]) -> None:
        self.error: BaseException | None = None
        self._report = report

    def perform(self, run: Run, scheduler: Scheduler) -> None:
        try:
            call_under(run.jax_settings, run.context.copy().run, _perform, run, scheduler)
        except BaseException as error:  # noqa: BLE001  (user code may raise anything)
            self.error = error
        self._report()

    def stop(self) -> None:
        """The run was stopped: whoever waits need not wait for calls that cannot be."""
        self._report()


def _resolve(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits
        loop.call_soon_threadsafe(_set, future)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _time_out(run: Run) -> None:
    run.timed_out = True
    run.stop()


def _raise_timeout(run: Run, seconds: float | None) -> None:
    """Raises the error of a run that passed its deadline, unless partial results are wanted."""
    if run.options.return_partial_results:
        return
    budget = run.options.budget
    if budget is not None and budget.seconds == seconds:
        raise BudgetExceeded(
            f"run {run.plan.name!r} took the {seconds:g} s that its budget allows",
            run.partial_results(),
        )
    stuck = run.abandoned()
    note = f"; threads that cannot be stopped were abandoned: {shortened(stuck)}" if stuck else ""
    raise ExecutionTimeout(
        f"run {run.plan.name!r} passed its deadline of {seconds:g} s{note}", run.partial_results()
    )


@contextlib.contextmanager
def _within_outer(run: Run) -> Any:
    """Has a run stopped with the run that it is part of."""
    outer = run.outer
    if outer is None:
        yield
        return
    outer.attach(run)
    try:
        yield
    finally:
        outer.detach(run)


def _finished(run: Run, scheduler: Scheduler) -> Run:
    """The run at its end, checked: results or an exception."""
    run.ended_at = time.perf_counter()
    run.steps = run.layout.steps  # those that record refer to the run: a cycle
    if run.timed_out or run.errors or run.skipped or run.fatal is not None:
        return run
    values = run.values
    for name, slot in run.plan.outputs.items():
        if values[slot] is EMPTY:
            raise XCSError(
                f"{type(scheduler).__name__}.execute returned, but {name!r} was not computed; a "
                "scheduler performs every task that becomes ready (run.ready, run.perform)"
            )
    return run


def _check_inputs(plan: Plan, values: Sequence[Any]) -> None:
    if len(values) != len(plan.inputs):
        raise XCSError(
            f"plan {plan.name!r} takes {len(plan.inputs)} inputs {plan.inputs}, given {len(values)}"
        )
