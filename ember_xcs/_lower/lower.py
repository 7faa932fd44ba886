"""From an XCSGraph to a Plan.

The graph is rewritten by the passes, its pure nodes are grouped into regions, and what is left is
laid out flat: tasks in a topological order, values in slots, each slot with the number of its
readers, each task with the length of the longest path from it to a result.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ember_xcs._core.collector import uncollected
from ember_xcs._core.jax_state import JaxSettings, jax_settings
from ember_xcs._core.operator import HostOperator, Operator
from ember_xcs._core.plumbing import Pack, Pick
from ember_xcs._core.policy import HostPolicy
from ember_xcs._graph import (
    NodeBindings,
    OutputBinding,
    SpreadBinding,
    XCSGraph,
    XCSNode,
    pick_field,
)
from ember_xcs._graph.fusion import fusion_groups
from ember_xcs._lower.assemble import Draft, TaskForm, assemble
from ember_xcs._lower.fans import fan_of
from ember_xcs._lower.node_calls import (
    ConstantSource,
    NodeCall,
    PlainCall,
    Source,
    plain_call,
    staged_sources,
)
from ember_xcs._lower.plan import ALL_INPUTS, Executor, Plan, TaskKind
from ember_xcs._lower.region import Region, RegionStep
from ember_xcs._passes import DEFAULT_PASSES, optimize
from ember_xcs._trace.from_jaxpr import HEAVY_WORK
from ember_xcs._trace.nodes import NumericProgram, StagedCall

if TYPE_CHECKING:
    from ember_xcs._core.options import ExecutionOptions

__all__ = ["lower"]


class _Plans:
    """The plans of one graph, by its version, the passes and the settings of JAX."""

    __slots__ = ("known", "lock")

    def __init__(self) -> None:
        self.known: dict[tuple[int, tuple[str, ...], JaxSettings], Plan] = {}
        self.lock = threading.RLock()  # a graph may be run by what a pass of it computes


_plans: weakref.WeakKeyDictionary[XCSGraph, _Plans] = weakref.WeakKeyDictionary()


def lower(graph: XCSGraph, options: ExecutionOptions) -> Plan:
    """Returns the plan of a graph, made once for each version of the graph and set of passes.

    Args:
        graph: A valid graph.
        options: Their ``passes`` say which rewrites are made; None for all.
    """
    passes = DEFAULT_PASSES if options.passes is None else tuple(options.passes)
    plans = _plans.get(graph) or _plans.setdefault(graph, _Plans())
    key = (graph.version, passes, jax_settings())
    plan = plans.known.get(key)
    if plan is None:
        with plans.lock:
            with uncollected(len(graph)):
                plan = plans.known.get(key) or _lowered(graph, passes)
            others = {k: p for k, p in plans.known.items() if k[0] == graph.version}
            plans.known = {**others, key: plan}
    return plan


def _lowered(graph: XCSGraph, passes: tuple[str, ...]) -> Plan:
    optimized = optimize(graph, passes=passes)
    order = optimized.topological_sort()
    results = {name: (port.node_id, port.field) for name, port in optimized.outputs.items()}
    computed = {node for node, _ in results.values() if node is not None}
    groups = _grouped(optimized, order, computed, "fusion" in passes)
    drafts = _drafts(optimized, order, groups, results.values())
    inputs = (*graph.inputs, ALL_INPUTS) if graph.takes_any_input else tuple(graph.inputs)
    return assemble(graph.name, drafts, results, inputs)


def _grouped(
    graph: XCSGraph, order: Sequence[str], results: set[str], fuse: bool
) -> dict[str, int]:
    """The number of the region of each pure node."""
    if all(operator.kind in ("host", "composite") for operator in graph.operators):
        return {}
    operators = [graph[node_id].operator for node_id in order]
    number = {node_id: k for k, node_id in enumerate(order)}
    parents = [
        sorted({number[e.source] for e in graph.in_edges(n) if e.source is not None}) for n in order
    ]
    pure = _fusable(operators, parents, {number[node_id] for node_id in results})
    if not fuse:
        return {node_id: k for k, node_id in enumerate(order) if operators[k].kind == "pure"}
    groups = fusion_groups(parents, pure, {number[n] for n in results}, _work(operators))
    return {n: g for n, g in zip(order, groups, strict=True) if g is not None}


def _work(operators: Sequence[Operator]) -> dict[int, float]:
    """The work of those operators for which it is known, where 1 is heavy; plumbing is none."""
    found: dict[int, float] = {}
    for k, operator in enumerate(operators):
        if isinstance(operator, NumericProgram):
            found[k] = operator.work / HEAVY_WORK
        elif isinstance(operator, Pack | Pick):
            found[k] = 0.0
    return found


def _fusable(
    operators: Sequence[Operator], parents: Sequence[Sequence[int]], results: set[int]
) -> list[bool]:
    """Which nodes may be in regions: pure ones, and plumbing that only they read.

    What is picked from a value of host code is picked before the region: the rest of that value
    may be nothing that JAX knows.
    """
    children: list[list[int]] = [[] for _ in operators]
    for node, reads in enumerate(parents):
        for parent in reads:
            children[parent].append(node)
    fusable = [operator.kind == "pure" for operator in operators]
    for node in range(len(operators) - 1, -1, -1):
        if isinstance(operators[node], Pack | Pick) and node not in results and children[node]:
            fusable[node] = all(fusable[child] for child in children[node])
    for node, operator in enumerate(operators):
        if isinstance(operator, Pick):
            fusable[node] &= bool(parents[node]) and all(fusable[p] for p in parents[node])
    return fusable


def _drafts(
    graph: XCSGraph, order: Sequence[str], groups: dict[str, int], results: Iterable[Source]
) -> list[Draft]:
    """One draft of a task for each region and each other node, in the order of the nodes."""
    node_of, bindings = graph.nodes, graph.all_bindings()
    wanted = _Wanted(bindings, groups, results)
    nodes = _NodeDrafts(wanted, {*groups, *_glue(graph)})
    if not groups:
        return [nodes.draft(node_of[n], bindings[n]) for n in order]
    members: dict[Any, list[str]] = {}
    for node_id in order:
        members.setdefault(groups.get(node_id, node_id), []).append(node_id)
    return [
        _region_draft([_step(node_of[n], bindings[n]) for n in node_ids], wanted)
        if isinstance(key, int)
        else nodes.draft(node_of[key], bindings[key])
        for key, node_ids in members.items()
    ]


def _glue(graph: XCSGraph) -> list[str]:
    """The nodes that are plumbing."""
    if all(operator.kind != "glue" for operator in graph.operators):
        return []
    return [node_id for node_id, node in graph.nodes.items() if node.operator.kind == "glue"]


class _Wanted:
    """What of the output of each node is read outside its region, or is a result.

    Args:
        bindings: What feeds each node, by id.
        groups: The number of the region of each node that is in one.
        results: The values that are wanted.
    """

    def __init__(
        self,
        bindings: Mapping[str, NodeBindings],
        groups: Mapping[str, int],
        results: Iterable[Source],
    ) -> None:
        self._whole: set[str] = set()
        self._fields: dict[str, dict[str, None]] = {}
        for reader, (_, fields, spreads, _) in bindings.items():
            region = groups.get(reader)
            for binding in (*fields.values(), *spreads):
                if type(binding) is OutputBinding or type(binding) is SpreadBinding:
                    node = binding.source
                    if node is not None and (region is None or groups.get(node) != region):
                        self._add(node, binding.source_field)
        for result, field in results:
            if result is not None:
                self._add(result, field)

    def _add(self, node: str, field: str | None) -> None:
        if field is None:
            self._whole.add(node)
        else:
            self._fields.setdefault(node, {})[field] = None

    def of(self, node_id: str) -> list[Source]:
        """Returns the values of a node that are wanted: the whole output first, then fields."""
        found: list[Source] = [(node_id, None)] if node_id in self._whole else []
        if node_id in self._fields:
            found += [(node_id, field) for field in self._fields[node_id]]
        return found


def _step(node: XCSNode, bindings: NodeBindings) -> RegionStep:
    return RegionStep(node.id, NodeCall(node.operator, bindings))


def _region_draft(steps: Sequence[RegionStep], wanted: _Wanted) -> Draft:
    outputs = [source for step in steps for source in wanted.of(step.node_id)]
    region = Region(steps, outputs)
    names = dict.fromkeys(step.call.operator.name for step in steps)
    return Draft(
        TaskForm(TaskKind.REGION, " + ".join(names)),
        tuple([step.node_id for step in steps]),
        region,
        region.sources,
        outputs,
        unpack=None if len(outputs) == 1 else tuple,
        warm=region.warm if region.can_warm else None,
    )


class _NodeDrafts:
    """Makes the drafts of nodes; what depends on the operator alone is found once for each.

    Args:
        wanted: What is read of each node.
        converted: The nodes whose values may have to be converted for host code.
    """

    def __init__(self, wanted: _Wanted, converted: set[str]) -> None:
        self._wanted, self._converted = wanted, converted
        self._fixed: dict[Operator, _Fixed] = {}

    def draft(self, node: XCSNode, bindings: NodeBindings) -> Draft:
        """Returns the draft of one node."""
        node_id, operator = node.id, node.operator
        form, plain, staged = self._fixed.get(operator) or self._fixed_of(operator)
        run: Callable[..., Any]
        sources: Sequence[Source | ConstantSource]
        if staged is not None:
            run, sources = staged, staged_sources(bindings, operator.signature.names)
        elif plain and (found := plain.sources(bindings, self._converted)) is not None:
            run, sources = plain.function, found
        else:
            run = call = NodeCall(operator, bindings)
            sources = call.sources
        outputs = self._wanted.of(node_id) or [(node_id, None)]
        return Draft(form, (node_id,), run, sources, outputs, _unpack(outputs))

    def _fixed_of(self, operator: Operator) -> _Fixed:
        found = self._fixed[operator] = _fixed(operator)
        return found


class _Fixed(NamedTuple):
    """What of a draft the operator alone decides.

    Attributes:
        form: The form of the task.
        plain: How it may be called where its arguments need nothing; None if it may not.
        staged: What runs a call of a staged operator; None for others.
    """

    form: TaskForm
    plain: PlainCall | None
    staged: Callable[..., Any] | None


def _fixed(operator: Operator) -> _Fixed:
    policy = operator.policy if isinstance(operator, HostOperator) else HostPolicy()
    staged = operator if isinstance(operator, StagedCall) else None
    run, fan = (None, None) if staged is None else fan_of(staged)
    is_glue = operator.kind == "glue" and fan is None  # glue that is batched is many calls
    host = _host_of(operator)
    form = TaskForm(
        TaskKind.GLUE if is_glue else TaskKind.CALL,
        operator.name,
        Executor.INLINE if is_glue else Executor(policy.executor),
        fan,
        policy.timeout_seconds,
        policy.side_effects,
        None if staged is None else staged.site.concurrency,
        host,
        None if host is None else host.policy,
    )
    return _Fixed(form, plain_call(operator) if staged is None else None, run)


def _host_of(operator: Operator) -> HostOperator | None:
    """The host operator that a node calls itself; a loop or branch has its body call them."""
    if isinstance(operator, StagedCall):
        return None if operator.site.raw or operator.kind == "glue" else operator.site.operator
    if isinstance(operator, HostOperator) and operator.kind == "host":
        return operator
    return None


def _unpack(outputs: Sequence[Source]) -> Callable[[Any], Sequence[Any]] | None:
    """What takes the value of a node apart into what others read of it."""
    if len(outputs) == 1 and outputs[0][1] is None:
        return None
    fields = [field for _, field in outputs]
    return lambda value: [value if f is None else pick_field(value, f) for f in fields]
