"""One call of an enhanced function, from its arguments to its result."""

from __future__ import annotations

import functools
import inspect
import sys
from typing import TYPE_CHECKING, Any

from ember_xcs._core.arguments import bind_arguments, validated_arguments
from ember_xcs._core.calls import in_event_loop, policies_in_force
from ember_xcs._core.operator import Operator
from ember_xcs._enhanced.call_sites import traceback_of, without_internals
from ember_xcs._enhanced.dispatcher import target
from ember_xcs._enhanced.flow import Failure, Flow
from ember_xcs._enhanced.functions import inline_version, opened, why_not
from ember_xcs._enhanced.leaves import leaf_version
from ember_xcs._enhanced.operations import EXPOSED
from ember_xcs._lower.plan import Plan, Task, TaskKind
from ember_xcs._runtime.io_loop import io_loop
from ember_xcs._runtime.run import current_run
from ember_xcs._runtime.supervise import aexecute_plan, execute_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ember_xcs._enhanced.report import RunReport
    from ember_xcs._runtime.run import Run

__all__ = ["Program", "plan_of_program", "why_not"]


def _program(*_: Any) -> None:
    """Stands in the plan for the program, which is no task that a scheduler could run."""


@functools.lru_cache(maxsize=512)
def plan_of_program(name: str) -> Plan:
    """Returns the plan of a run whose only step is a program."""
    task = Task(
        index=0,
        kind=TaskKind.GLUE,
        node_ids=(name,),
        operator=name,
        run=_program,
        reads=(),
        writes=(0,),
    )
    return Plan(
        name=name,
        tasks=(task,),
        slot_count=1,
        inputs=(),
        constants=(),
        outputs={"result": 0},
        node_slots={},
        reader_counts=(0,),
        roots=(0,),
    )


class Program:
    """A function that runs as a program whose operator calls overlap.

    Args:
        function: A plain Python function, a bound method or an operator.
        name: What it is called.
        recursive: Whether the functions that it calls are part of the program.

    Attributes:
        last: What its last run did; None before the first.
        is_generator: Whether a call gives a generator.
    """

    def __init__(self, function: Any, name: str, *, recursive: bool = True) -> None:
        self._function, self._name = function, name
        self._recursive = recursive
        self.last: RunReport | None = None
        self.is_generator = inspect.isgeneratorfunction(
            type(function).forward if isinstance(function, Operator) else opened(function)[0]
        )

    def run(self, args: Sequence[Any], kwargs: Mapping[str, Any], options: Any) -> Run:
        """Runs the program, and returns the run, which has its result."""
        call = _Call(self, args, kwargs)
        return execute_plan(plan_of_program(self._name), (), options, scheduler=call)

    async def arun(self, args: Sequence[Any], kwargs: Mapping[str, Any], options: Any) -> Run:
        """Runs the program on another thread, and returns the run."""
        call = _Call(self, args, kwargs)
        return await aexecute_plan(plan_of_program(self._name), (), options, scheduler=call)

    def begin(self) -> Callable[..., Any]:
        """Returns what is called to run the program, on the thread of the run."""
        function: Any = self._function
        if isinstance(function, Operator):
            made: Callable[..., Any] = target(function) if in_event_loop() else _root(function)
            return made
        plain, bound, named, is_root = opened(function)
        inline = inline_version(plain, is_root=is_root)
        assert inline is not None, f"{self._name!r} was found to have no source"
        return functools.partial(leaf_version(plain, inline), *bound, **named)


def _root(operator: Operator) -> Callable[..., Any]:
    """What is called to run an operator whose ``forward`` is the program."""
    inline = inline_version(type(operator).forward, is_root=True)
    assert inline is not None, f"{operator.name!r} was found to have no source"

    def run(*args: Any, **kwargs: Any) -> Any:
        output = operator.output_type
        if operator.validates_inputs:
            given, named = validated_arguments(operator, args, kwargs)
        else:
            given, named = args, kwargs
            bind_arguments(operator, args, kwargs)
        result = inline(operator, *given, **named)
        return result if output.is_host else output.validated(EXPOSED.out(result), operator.name)

    return run


class _Call:
    """Performs a run: what a scheduler is to the plan of a graph."""

    def __init__(self, program: Program, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self._program, self._args, self._kwargs = program, args, kwargs

    def prepare(self, plan: Plan) -> None:
        """Nothing is to be prepared."""

    def get_partial_results(self) -> dict[str, Any]:
        """A program has none."""
        return {}

    def execute(self, run: Run) -> None:
        """Runs the program on this thread."""
        in_force = policies_in_force.set(run.policies)
        here = current_run.set(run.context[current_run])
        try:
            run.values[0] = self._performed(run)
        finally:
            current_run.reset(here)
            policies_in_force.reset(in_force)

    def _performed(self, run: Run) -> Any:
        flow = Flow(run, sys._getframe())  # noqa: SLF001  (documented)
        flow.is_recursive = self._program._recursive  # noqa: SLF001  (its other half)
        flow.eager = int(io_loop.is_current() or run.options.scheduler == "sequential")
        error: BaseException | None = None
        with flow:
            try:
                result = self._program.begin()(*self._args, **self._kwargs)
                return EXPOSED.out(result)
            except BaseException as raised:  # noqa: BLE001  (user code may raise anything)
                error = _final(flow, raised)
            finally:
                self._program.last = flow.record.report(run.plan.name)
        raise error


def _final(flow: Flow, error: BaseException) -> BaseException:
    """What a program fails with: the first failure in its order."""
    context = error.__context__
    surfaced = flow.surfaced
    if surfaced is None or surfaced.error is not error:
        surfaced = None
        if not isinstance(error, KeyboardInterrupt) and not flow.run.stopped:
            surfaced = flow.first_failure()
    if surfaced is None:
        error.__traceback__ = without_internals(error.__traceback__)
        error.__context__ = context
        return error
    failure: Failure = surfaced.node.value
    failure.error.__traceback__ = traceback_of(
        surfaced.node.site or (), without_internals(failure.traceback)
    )
    failure.error.__context__ = failure.context
    return failure.error
