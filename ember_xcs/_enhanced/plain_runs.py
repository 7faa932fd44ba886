"""Plain Python under the options of a run: what cannot be rewritten, coroutines and generators.

No call of it overlaps another, but each goes through the run's limits, budget, retries, cache and
journal. A plain function is left at its deadline, whatever it does; a coroutine is cancelled; a
generator, which runs on its caller's thread, ends at the first step after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import time
import weakref
from typing import TYPE_CHECKING, Any

from ember_xcs._core.calls import is_coroutine_callable, policies_in_force
from ember_xcs._core.options import resolve_options
from ember_xcs._enhanced.program import plan_of_program
from ember_xcs._runtime.run import Run, current_run
from ember_xcs._runtime.supervise import execute_plan
from ember_xcs.errors import BudgetExceeded, ExecutionTimeout, XCSError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping, Sequence

    from ember_xcs._core.options import ExecutionOptions
    from ember_xcs._lower.plan import Plan

__all__ = ["run_plainly", "stepwise"]


def run_plainly(
    function: Callable[..., Any],
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: Any,
) -> Any:
    """Returns what a function returns whose calls go through the options of a run.

    Args:
        function: Any callable.
        name: What it is called in messages.
        args: Its arguments by position.
        kwargs: Its arguments by name.
        options: Those of the run, over those of the context.

    Raises:
        ExecutionTimeout: It was at its deadline before it returned.
    """
    settings = resolve_options(options)
    if not _is_asked_for(settings):
        return function(*args, **kwargs)
    if is_coroutine_callable(function):
        return _awaited(function(*args, **kwargs), name, settings)
    if inspect.isgeneratorfunction(function):
        return stepwise(function(*args, **kwargs), name, settings)
    call = _PlainCall(functools.partial(function, *args, **kwargs))
    run = execute_plan(plan_of_program(name), (), settings, scheduler=call)
    if "result" not in run.results:
        raise _overdue(name, run) if run.fatal is None else run.fatal
    return run.results["result"]


def stepwise(generator: Any, name: str, options: Any) -> Any:
    """Returns a generator whose steps go through the options of a run, if there are any.

    Args:
        generator: Gives the steps.
        name: What it is called in messages.
        options: Those of the run, over those of the context.
    """
    settings = resolve_options(options)
    return _steps(generator, name, settings) if _is_asked_for(settings) else generator


def _is_asked_for(settings: ExecutionOptions) -> bool:
    """Whether options say anything about the calls of plain Python."""
    given = (
        settings.retry,
        settings.limits,
        settings.budget,
        settings.cache,
        settings.journal,
        settings.timeout_seconds,
    )
    return bool(settings.progress) or any(option is not None for option in given)


class _PlainCall:
    """Performs a run: what a scheduler is to the plan of a graph."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call

    def prepare(self, plan: Plan) -> None:
        """Nothing is to be prepared."""

    def get_partial_results(self) -> dict[str, Any]:
        """A plain function has none."""
        return {}

    def execute(self, run: Run) -> None:
        """Calls the function on this thread."""
        with _in_force(run):
            run.values[0] = self._call()


@contextlib.contextmanager
def _in_force(run: Run) -> Iterator[None]:
    """Has the calls of a block go through the policies of a run."""
    policies = policies_in_force.set(run.policies)
    here = current_run.set(weakref.ref(run))
    try:
        yield
    finally:
        current_run.reset(here)
        policies_in_force.reset(policies)


@contextlib.contextmanager
def _counted(run: Run) -> Iterator[None]:
    """Begins and ends the policies of a run that no scheduler performs."""
    is_complete = False
    if run.policies is not None:
        run.policies.start()
    try:
        yield
        is_complete = True
    finally:
        if run.policies is not None:
            run.policies.end(is_complete=is_complete)


async def _awaited(coroutine: Coroutine[Any, Any, Any], name: str, settings: Any) -> Any:
    """Returns what a coroutine returns that runs on its caller's loop."""
    run = Run(plan_of_program(name), (), settings, blocking=False)
    seconds = _seconds(settings)
    with _counted(run), _in_force(run):
        if seconds is None:
            return await coroutine
        watch = asyncio.timeout(seconds)
        try:
            async with watch:
                return await coroutine
        except TimeoutError as error:
            if not watch.expired():
                raise
            raise _overdue(name, run) from error


def _steps(generator: Any, name: str, settings: Any) -> Generator[Any, Any, Any]:
    run = Run(plan_of_program(name), (), settings)
    seconds = _seconds(settings)
    step = functools.partial(next, generator)
    with contextlib.closing(generator), _counted(run):
        while True:
            if seconds is not None and time.perf_counter() - run.started_at >= seconds:
                raise _overdue(name, run)
            try:
                with _in_force(run):
                    item = step()
            except StopIteration as end:
                return end.value
            try:
                sent = yield item
            except GeneratorExit:  # whoever closes this closes the generator
                raise
            except BaseException as error:  # noqa: BLE001  (thrown in; the generator's to handle)
                step = functools.partial(generator.throw, error)
            else:
                step = functools.partial(generator.send, sent)


def _seconds(settings: ExecutionOptions) -> float | None:
    """How long a run may take: the less of its deadline and its budget."""
    budget = None if settings.budget is None else settings.budget.seconds
    bounds = [seconds for seconds in (settings.timeout_seconds, budget) if seconds is not None]
    return min(bounds, default=None)


def _overdue(name: str, run: Run) -> XCSError:
    """The error of a run that took longer than it may."""
    seconds, budget = _seconds(run.options), run.options.budget
    if budget is not None and budget.seconds == seconds:
        rule = f"{name!r} took the {seconds:g} s that its budget allows"
        return BudgetExceeded(rule, run.partial_results())
    return ExecutionTimeout(
        f"{name!r} passed its deadline of {seconds:g} s before its result was there. Give it more "
        "timeout_seconds, or have it make fewer calls.",
        run.partial_results(),
    )
