"""Graphs run from end to end: checked, lowered, run, and their results by node."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ember_xcs._core.options import resolve_options, suggestion
from ember_xcs._graph.ports import MISSING
from ember_xcs._lower.lower import lower
from ember_xcs._lower.plan import ALL_INPUTS
from ember_xcs._passes.dead_nodes import side_effects_alone
from ember_xcs._runtime.result import ExecutionResult
from ember_xcs._runtime.supervise import OptionsArgument, aexecute_plan, execute_plan
from ember_xcs.errors import UnboundInputError, UnknownFieldError, UnknownNodeError

if TYPE_CHECKING:
    from ember_xcs._core.options import ExecutionOptions
    from ember_xcs._graph.graph import XCSGraph
    from ember_xcs._lower.plan import Plan
    from ember_xcs._runtime.scheduler import Scheduler

__all__ = ["GraphExecutor", "aexecute_graph", "execute_graph"]

Outputs: TypeAlias = Literal["all"] | Iterable[str] | None


_views: weakref.WeakKeyDictionary[XCSGraph, dict[tuple[str, ...], tuple[int, XCSGraph]]] = (
    weakref.WeakKeyDictionary()
)
"""For each graph: copies of it with other outputs, so that each is planned and compiled once."""


class GraphExecutor:
    """Runs one graph, any number of times, from any number of threads.

    Args:
        graph: The graph; it may be changed between runs.
        options: How to run it, over the options of the context.
        scheduler: Over that of the options.
    """

    def __init__(
        self,
        graph: XCSGraph,
        options: OptionsArgument = None,
        scheduler: str | Scheduler | None = None,
    ) -> None:
        self.graph = graph
        self._options = options
        self._scheduler = scheduler

    def execute(
        self, inputs: Mapping[str, Any] | None = None, outputs: Outputs = None
    ) -> ExecutionResult:
        """Runs the graph.

        Args:
            inputs: The inputs of the graph, by name.
            outputs: The nodes whose outputs are wanted, by id; ``"all"`` for every node, None
                for the outputs of the graph. With none of them, as in ``[]``, only side effects
                and what they need are run, and the result is empty.

        Raises:
            GraphError: If the graph is not valid, or an input or output is not one of it. Then
                nothing has run.
            NodeExecutionError: If a node fails, and the run ends at the first error.
            ExecutionTimeout: If the run passes its deadline, unless partial results are wanted.
        """
        plan, values, options = self._prepared(inputs or {}, outputs)
        return ExecutionResult(execute_plan(plan, values, options, scheduler=self._scheduler))

    async def aexecute(
        self, inputs: Mapping[str, Any] | None = None, outputs: Outputs = None
    ) -> ExecutionResult:
        """Runs the graph without blocking the event loop; is cancelled with its task.

        Args:
            inputs: The inputs of the graph, by name.
            outputs: The nodes whose outputs are wanted, by id; ``"all"`` for every node, None
                for the outputs of the graph. With none of them, as in ``[]``, only side effects
                and what they need are run, and the result is empty.

        Raises:
            GraphError: If the graph is not valid, or an input or output is not one of it. Then
                nothing has run.
            NodeExecutionError: If a node fails, and the run ends at the first error.
            ExecutionTimeout: If the run passes its deadline, unless partial results are wanted.
        """
        plan, values, options = self._prepared(inputs or {}, outputs)
        run = await aexecute_plan(plan, values, options, scheduler=self._scheduler)
        return ExecutionResult(run)

    def plan(self, outputs: Outputs = None) -> Plan:
        """Returns what would run, without running it: the tasks as schedulers see them.

        Args:
            outputs: As for ``execute``.

        Raises:
            GraphError: If the graph is not valid, or an output is not one of it.
        """
        return self._plan(outputs, resolve_options(self._options))

    def _plan(self, outputs: Outputs, options: ExecutionOptions) -> Plan:
        wanted = self._wanted(outputs)
        self.graph.validate()
        plan = lower(self._view(wanted), options)
        return _without_results(plan) if wanted == () else plan

    def _prepared(
        self, inputs: Mapping[str, Any], outputs: Outputs
    ) -> tuple[Plan, list[Any], ExecutionOptions]:
        options = resolve_options(self._options)
        plan = self._plan(outputs, options)
        return plan, _input_values(self.graph, plan, inputs), options

    def _wanted(self, outputs: Outputs) -> tuple[str, ...] | None:
        """The nodes that are asked for; None for the outputs of the graph."""
        graph = self.graph
        if outputs is None:
            return None
        wanted = tuple(graph.nodes) if outputs == "all" else tuple(outputs)
        for node_id in wanted:
            if node_id not in graph.nodes:
                raise UnknownNodeError(
                    f"outputs name {node_id!r}, which is no node of graph {graph.name!r}"
                    f"{suggestion(node_id, graph.nodes)}",
                    (node_id,),
                )
        return wanted

    def _view(self, wanted: tuple[str, ...] | None) -> XCSGraph:
        """The graph with these nodes as its outputs, so that fusion keeps them apart."""
        graph = self.graph
        if wanted is None:
            return graph
        views = _views.setdefault(graph, {})
        version, view = views.get(wanted, (-1, graph))
        if version != graph.version:
            view = graph.copy() if wanted else side_effects_alone(graph)
            view.set_outputs(*wanted)
            views[wanted] = graph.version, view
        return view


_resultless: weakref.WeakKeyDictionary[Plan, Plan] = weakref.WeakKeyDictionary()


def _without_results(plan: Plan) -> Plan:
    """The same plan, of which nothing is kept; one for each, as schedulers prepare each once."""
    if plan not in _resultless:
        _resultless[plan] = dataclasses.replace(plan, outputs={})
    return _resultless[plan]


def execute_graph(
    graph: XCSGraph,
    inputs: Mapping[str, Any] | None = None,
    outputs: Outputs = None,
    options: OptionsArgument = None,
    scheduler: str | Scheduler | None = None,
) -> ExecutionResult:
    """Runs a graph and returns the outputs of its nodes.

    Args:
        graph: The graph.
        inputs: Its inputs, by name.
        outputs: The nodes whose outputs are wanted, by id; ``"all"`` for every node, None for
            the outputs of the graph. With none of them, as in ``[]``, only side effects and what
            they need are run, and the result is empty.
        options: How to run it, over the options of the context.
        scheduler: Over that of the options.

    Raises:
        GraphError: If the graph is not valid, or an input or output is not one of it. Then
            nothing has run.
        NodeExecutionError: If a node fails, and the run ends at the first error.
        ExecutionTimeout: If the run passes its deadline, unless partial results are wanted.
    """
    return GraphExecutor(graph, options, scheduler).execute(inputs, outputs)


async def aexecute_graph(
    graph: XCSGraph,
    inputs: Mapping[str, Any] | None = None,
    outputs: Outputs = None,
    options: OptionsArgument = None,
    scheduler: str | Scheduler | None = None,
) -> ExecutionResult:
    """Runs a graph without blocking the event loop; the run is cancelled with its task.

    Args:
        graph: The graph.
        inputs: Its inputs, by name.
        outputs: The nodes whose outputs are wanted, by id; ``"all"`` for every node, None for
            the outputs of the graph. With none of them, as in ``[]``, only side effects and what
            they need are run, and the result is empty.
        options: How to run it, over the options of the context.
        scheduler: Over that of the options.

    Raises:
        GraphError: If the graph is not valid, or an input or output is not one of it. Then
            nothing has run.
        NodeExecutionError: If a node fails, and the run ends at the first error.
        ExecutionTimeout: If the run passes its deadline, unless partial results are wanted.
    """
    return await GraphExecutor(graph, options, scheduler).aexecute(inputs, outputs)


def _input_values(graph: XCSGraph, plan: Plan, inputs: Mapping[str, Any]) -> list[Any]:
    """The values of the inputs of a plan, in order; MISSING for what is left to a default."""
    _refuse_extra(graph, inputs)
    declared = graph.inputs
    missing = [name for name, given in declared.items() if given.required and name not in inputs]
    if missing:
        raise UnboundInputError(
            f"graph {graph.name!r} was not given {', '.join(map(repr, missing))}; it takes "
            f"{_listed(declared)}, given were {_listed(inputs)}"
        )
    defaults = {k: v.default for k, v in declared.items() if v.default is not MISSING}
    given = {**defaults, **inputs}
    given[ALL_INPUTS] = dict(given)
    return [given.get(name, MISSING) for name in plan.inputs]


def _refuse_extra(graph: XCSGraph, inputs: Mapping[str, Any]) -> None:
    if graph.takes_any_input:
        return
    for name in inputs:
        if name not in graph.inputs:
            raise UnknownFieldError(
                f"graph {graph.name!r} has no input {name!r}{suggestion(name, graph.inputs)}; it "
                f"takes {_listed(graph.inputs)}"
            )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "nothing"
