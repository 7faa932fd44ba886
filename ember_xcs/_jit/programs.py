"""What a strategy makes of a function: something that runs on the leaves of the arguments."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ember_xcs._core.options import ExecutionOptions, resolve_options
from ember_xcs._lower.lower import lower
from ember_xcs._runtime.supervise import aexecute_plan, execute_plan

if TYPE_CHECKING:
    from ember_xcs._graph import XCSGraph
    from ember_xcs._jit.request import Request
    from ember_xcs._lower.plan import Plan
    from ember_xcs._trace.from_jaxpr import GraphProgram

__all__ = ["GraphRunner", "NumericRunner", "Program", "PythonRunner"]

Options = ExecutionOptions | Mapping[str, Any] | None


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

    @property
    def graph(self) -> XCSGraph:
        """The graph."""
        return self.program.graph

    def plan(self, options: Options) -> Plan:
        """Returns the plan of the graph under these options."""
        return lower(self.graph, resolve_options(options))

    def run(self, request: Request, options: Options) -> Any:
        """Returns the function's result."""
        plan = self.plan(options)
        inputs = dict(zip(self.program.inputs, request.leaves, strict=True))
        run = execute_plan(plan, [inputs[name] for name in plan.inputs], options)
        return self._finished(run.results, inputs)

    async def arun(self, request: Request, options: Options) -> Any:
        """Returns the function's result without blocking the event loop."""
        plan = self.plan(options)
        inputs = dict(zip(self.program.inputs, request.leaves, strict=True))
        run = await aexecute_plan(plan, [inputs[name] for name in plan.inputs], options)
        return self._finished(run.results, inputs)

    def _finished(self, results: Mapping[str, Any], inputs: Mapping[str, Any]) -> Any:
        return self.result(self.program.results(results, inputs))


@dataclasses.dataclass(eq=False)
class NumericRunner:
    """A purely numeric function: ``jax.jit`` of it."""

    strategy: str
    jitted: Callable[..., Any]
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
class PythonRunner:
    """A function that no strategy could take: run as plain Python."""

    strategy: str
    function: Callable[..., Any]
    graph: None = None

    def run(self, request: Request, options: Options) -> Any:
        """Returns what the function returns."""
        del options
        args, kwargs = request.structure.unflatten(request.leaves)
        return self.function(*args, **kwargs)

    async def arun(self, request: Request, options: Options) -> Any:
        """Returns what the function returns, awaited if it is a coroutine."""
        result = self.run(request, options)
        return await result if hasattr(result, "__await__") else result
