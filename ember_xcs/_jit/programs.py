"""What a strategy makes of a function: something that runs on the leaves of the arguments."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ember_xcs._core.options import resolve_options
from ember_xcs._lower.lower import lower
from ember_xcs._passes import DEFAULT_PASSES
from ember_xcs._runtime.supervise import aexecute_plan, execute_plan
from ember_xcs.errors import ExecutionTimeout, XCSError

if TYPE_CHECKING:
    from ember_xcs._core.options import ExecutionOptions
    from ember_xcs._enhanced.program import Program as Enhanced
    from ember_xcs._enhanced.report import RunReport
    from ember_xcs._graph import XCSGraph
    from ember_xcs._jit.request import Request
    from ember_xcs._lower.plan import Plan
    from ember_xcs._runtime.run import Run
    from ember_xcs._trace.from_jaxpr import GraphProgram

__all__ = [
    "EnhancedRunner",
    "GraphRunner",
    "NumericRunner",
    "Program",
    "PythonRunner",
    "results_of",
]

Options: TypeAlias = "ExecutionOptions | Mapping[str, Any] | None"


class Program(Protocol):
    """A compiled function.

    Attributes:
        strategy: The name of the strategy that made it.
    """

    strategy: str

    @property
    def graph(self) -> XCSGraph | None:
        """What it computes; None for plain Python."""
        ...

    def run(self, request: Request, options: Options) -> Any:
        """Returns the function's result."""
        ...

    async def arun(self, request: Request, options: Options) -> Any:
        """Returns the function's result without blocking the event loop."""
        ...


@dataclasses.dataclass(eq=False)
class GraphRunner:
    """A function as a graph: runs it through the engine."""

    strategy: str
    program: GraphProgram
    result: Callable[[Sequence[Any]], Any]
    recursive: bool = True

    @property
    def graph(self) -> XCSGraph:
        """The graph."""
        return self.program.graph

    def plan(self, options: Options) -> Plan:
        """Returns the plan of the graph under these options."""
        resolved = resolve_options(options)
        if not self.recursive:  # composite operators stay what they are
            passes = DEFAULT_PASSES if resolved.passes is None else resolved.passes
            kept = tuple(name for name in passes if name != "open_composites")
            resolved = resolved.replace(passes=kept)
        return lower(self.graph, resolved)

    def run(self, request: Request, options: Options) -> Any:
        """Returns the function's result."""
        plan = self.plan(options)
        inputs = dict(zip(self.program.inputs, request.leaves, strict=True))
        run = execute_plan(plan, [inputs[name] for name in plan.inputs], options)
        return self._finished(run, inputs)

    async def arun(self, request: Request, options: Options) -> Any:
        """Returns the function's result without blocking the event loop."""
        plan = self.plan(options)
        inputs = dict(zip(self.program.inputs, request.leaves, strict=True))
        run = await aexecute_plan(plan, [inputs[name] for name in plan.inputs], options)
        return self._finished(run, inputs)

    def _finished(self, run: Run, inputs: Mapping[str, Any]) -> Any:
        """The function's result: a function has no part of one, so what is missing is an error."""
        results = results_of(run, self.graph.name)
        return self.result(self.program.results(results, inputs))


def results_of(run: Run, name: str) -> Mapping[str, Any]:
    """Returns the results of a run of a function, which has all of them or none.

    Args:
        run: The run.
        name: What the function is called in messages.

    Raises:
        XCSError: A result is missing: a call failed, the run was at its deadline or had spent its
            budget, or its scheduler ran nothing.
    """
    results = run.results
    if run.plan.outputs.keys() <= results.keys():
        return results
    if run.errors:
        raise next(iter(run.errors.values()))
    if run.fatal is not None:
        raise run.fatal
    if not run.timed_out:
        reasons = ", ".join(dict.fromkeys(run.skipped.values())) or "not all of it was run"
        raise XCSError(
            f"{name!r} has no result: {reasons}. A function has no partial results to return; "
            "use a scheduler that runs it, or xcs.execute_graph on its graph."
        )
    raise ExecutionTimeout(
        f"{name!r} was at its deadline before its result was there. A compiled "
        "function has no partial results to return; xcs.execute_graph on f.graph(...) has.",
        run.partial_results(),
    )


@dataclasses.dataclass(eq=False)
class NumericRunner:
    """A purely numeric function: ``jax.jit`` of it."""

    strategy: str
    jitted: Any
    make_graph: Callable[[], XCSGraph]

    @property
    def graph(self) -> XCSGraph:
        """The function as one numeric node, made when asked for."""
        return self.make_graph()

    def run(self, request: Request, options: Options) -> Any:
        """Returns the function's result."""
        del options  # they are about host work
        args, kwargs = request.structure.unflatten(request.leaves)
        return self.jitted(*args, **kwargs)

    async def arun(self, request: Request, options: Options) -> Any:
        """Returns the function's result; JAX computes it asynchronously of itself."""
        return self.run(request, options)


@dataclasses.dataclass(eq=False)
class EnhancedRunner:
    """A function as a program whose operator calls overlap."""

    strategy: str
    program: Enhanced
    graph: None = None

    @property
    def report(self) -> RunReport | None:
        """What its last run did; None before the first."""
        return self.program.last

    def run(self, request: Request, options: Options) -> Any:
        """Returns what the function returns."""
        run = self.program.run(request.args, request.kwargs, options)
        return self._result(run, request, options)

    async def arun(self, request: Request, options: Options) -> Any:
        """Returns what the function returns, without blocking the event loop."""
        run = await self.program.arun(request.args, request.kwargs, options)
        return self._result(run, request, options)

    def _result(self, run: Run, request: Request, options: Options) -> Any:
        result = results_of(run, request.target.name)["result"]
        if not self.program.is_generator:
            return result
        from ember_xcs._enhanced.plain_runs import stepwise  # noqa: PLC0415  (not for everybody)

        # Its calls are made by its steps, when the run is over.
        return stepwise(result, request.target.name, options)


@dataclasses.dataclass(eq=False)
class PythonRunner:
    """A function that no strategy could take: run as plain Python."""

    strategy: str
    function: Callable[..., Any]
    graph: None = None

    def run(self, request: Request, options: Options) -> Any:
        """Returns what the function returns; its calls go through the options."""
        from ember_xcs._enhanced.plain_runs import run_plainly  # noqa: PLC0415  (not for everybody)

        name = request.target.name
        return run_plainly(self.function, name, request.args, request.kwargs, options)

    async def arun(self, request: Request, options: Options) -> Any:
        """Returns what the function returns, awaited if it is a coroutine."""
        result = self.run(request, options)
        return await result if hasattr(result, "__await__") else result
