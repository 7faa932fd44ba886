"""From an XCSGraph to a Plan.

The graph is rewritten by the passes, its pure nodes are grouped into regions, and what is left is
laid out flat: tasks in a topological order, values in slots, each slot with the number of its
readers, each task with the length of the longest path from it to a result.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ember_xcs._core.collector import uncollected
from ember_xcs._core.jax_state import JaxSettings, jax_settings
from ember_xcs._core.operator import HostOperator, Operator
from ember_xcs._core.plumbing import Pack, Pick
from ember_xcs._core.policy import HostPolicy
from ember_xcs._graph import XCSGraph, pick_field
from ember_xcs._graph.fusion import fusion_groups
from ember_xcs._lower.assemble import Draft, assemble
from ember_xcs._lower.fans import fan_of
from ember_xcs._lower.node_calls import (
    ConstantSource,
    NodeCall,
    PlainCall,
    Source,
    node_call,
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

_GLUE: Final = TaskKind.GLUE


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
    drafts = _drafts(optimized, order, groups, set(results.values()))
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
    graph: XCSGraph, order: Sequence[str], groups: dict[str, int], results: set[Source]
) -> list[Draft]:
    """One draft of a task for each region and each other node, in the order of the nodes."""
    node_of, bindings = graph.nodes, graph.all_bindings()
    calls = {n: NodeCall(node_of[n].operator, bindings[n]) for n in order}
    wanted = _wanted_outside(calls, groups, results)
    nodes = _NodeDrafts(calls, groups)
    if not groups:
        return [nodes.draft(n, calls[n], wanted.get(n)) for n in order]
    members: dict[Any, list[str]] = {}
    for node_id in order:
        members.setdefault(groups.get(node_id, node_id), []).append(node_id)
    return [
        _region_draft(node_ids, calls, wanted)
        if isinstance(key, int)
        else nodes.draft(key, calls[key], wanted.get(key))
        for key, node_ids in members.items()
    ]


def _wanted_outside(
    calls: dict[str, NodeCall], groups: dict[str, int], results: set[Source]
) -> dict[str, dict[Source, None]]:
    """For each node, which of its outputs somebody outside its region reads."""
    wanted: dict[str, dict[Source, None]] = {}
    for node_id, call in calls.items():
        for source in call.sources:
            node = source[0]
            if node is not None and (node not in groups or groups[node] != groups.get(node_id)):
                known = wanted.get(node)
                if known is None:
                    wanted[node] = {source: None}
                else:
                    known[source] = None
    for source in sorted(results, key=str):
        if source[0] is not None:
            wanted.setdefault(source[0], {})[source] = None
    return wanted


def _region_draft(
    node_ids: Sequence[str], calls: dict[str, NodeCall], wanted: Mapping[str, Iterable[Source]]
) -> Draft:
    outputs = [source for node_id in node_ids for source in wanted.get(node_id, ())]
    region = Region([RegionStep(n, calls[n]) for n in node_ids], outputs)
    names = dict.fromkeys(calls[n].operator.name for n in node_ids)
    return Draft(
        TaskKind.REGION,
        tuple(node_ids),
        " + ".join(names),
        region,
        region.sources,
        tuple(outputs),
        unpack=None if len(outputs) == 1 else tuple,
        warm=region.warm if region.can_warm else None,
    )


class _NodeDrafts:
    """Makes the drafts of nodes; what depends on the operator alone is found once for each."""

    def __init__(self, calls: Mapping[str, NodeCall], groups: Mapping[str, int]) -> None:
        self._fixed: dict[Operator, _Fixed] = {}
        glue = {n for n, call in calls.items() if self._fixed_of(call.operator).kind is _GLUE}
        self._converted = {None, *groups, *glue}

    def draft(self, node_id: str, call: NodeCall, wanted: Iterable[Source] | None) -> Draft:
        """Returns the draft of one node."""
        operator = call.operator
        fixed = self._fixed[operator]
        kind, executor, fan, concurrency = fixed.kind, fixed.executor, None, None
        sources: Sequence[Source | ConstantSource]
        if isinstance(operator, StagedCall):
            run, fan = fan_of(operator)
            concurrency = operator.site.concurrency
            sources = staged_sources(call.bindings, operator)
            if fan is not None:  # glue that is batched is many calls
                kind, executor = TaskKind.CALL, Executor(operator.policy.executor)
        else:
            run, sources = node_call(call, fixed.plain, self._converted)
        outputs: tuple[Any, ...] = ((node_id, None),) if wanted is None else tuple(wanted)
        return Draft(
            kind,
            (node_id,),
            fixed.name,
            run,
            tuple(sources),
            outputs,
            _unpack(outputs),
            executor,
            fan,
            fixed.timeout_seconds,
            fixed.side_effects,
            None,
            fixed.host,
            fixed.policy,
            concurrency,
        )

    def _fixed_of(self, operator: Operator) -> _Fixed:
        found = self._fixed.get(operator)
        if found is None:
            found = self._fixed[operator] = _fixed(operator)
        return found


class _Fixed(NamedTuple):
    """What of a draft the operator alone decides."""

    kind: TaskKind
    name: str
    executor: Executor
    timeout_seconds: float | None
    side_effects: bool
    plain: PlainCall | None
    host: HostOperator | None
    policy: HostPolicy | None


def _fixed(operator: Operator) -> _Fixed:
    policy = operator.policy if isinstance(operator, HostOperator) else HostPolicy()
    is_glue = operator.kind == "glue"
    host = _host_of(operator)
    return _Fixed(
        _GLUE if is_glue else TaskKind.CALL,
        operator.name,
        Executor.INLINE if is_glue else Executor(policy.executor),
        policy.timeout_seconds,
        policy.side_effects,
        plain_call(operator),
        host,
        None if host is None else host.policy,
    )


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
