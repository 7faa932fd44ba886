"""From a flat jaxpr to an XCSGraph: host calls become nodes, equations between them programs.

Equations are grouped by the rule of ``ember_xcs._graph.fusion``, so that a program never delays
a host call; the lowering may fuse the programs further, as other passes change the graph.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import jax.extend.core as jex_core
import numpy as np
from jax.extend import source_info_util

from ember_xcs._graph import XCSGraph, XCSNode
from ember_xcs._graph.fusion import fusion_groups
from ember_xcs._trace.lanes import Lanes, lanes_of_calls
from ember_xcs._trace.nodes import NumericProgram, StagedCall, live_input
from ember_xcs._trace.primitive import operator_call_p

__all__ = ["HEAVY_WORK", "GraphProgram", "graph_from_jaxpr"]

HEAVY_WORK = 1e7
"""Arithmetic operations from which on a program counts as heavy, a few milliseconds of one core."""

_INNERMOST = re.compile(r"^(?:\w+\()*(\w*)\)*$")
"""What a scope is called without the transformations around it: ``vmap(jvp(score))`` is score."""


@dataclasses.dataclass(frozen=True)
class GraphProgram:
    """A graph with what is needed to call it by position.

    Attributes:
        graph: The graph.
        inputs: Its input names, in the order of the arguments.
        outputs: For each result: ``("value", constant)``, ``("input", name)``, or
            ``("output", name)`` for an output of the graph.
    """

    graph: XCSGraph
    inputs: tuple[str, ...]
    outputs: tuple[tuple[str, Any], ...]

    def results(self, values: Any, inputs: Any) -> list[Any]:
        """Returns the results from the graph's outputs and inputs, both by name."""
        sources = {"output": values, "input": inputs}
        return [ref if kind == "value" else sources[kind][ref] for kind, ref in self.outputs]


class _Group:
    """Equations that become one node: all of one program, or one host call."""

    def __init__(self, equations: list[Any]) -> None:
        self.equations = equations
        self.made = {v for e in equations for v in e.outvars}
        self.reads = _distinct(
            v for e in equations for v in e.invars if _is_variable(v) and v not in self.made
        )

    @property
    def call(self) -> Any | None:
        """The equation, if it is a host call."""
        return self.equations[0] if self.equations[0].primitive is operator_call_p else None


def graph_from_jaxpr(
    closed: Any, input_names: Sequence[str], name: str, lanes: Sequence[Lanes] = ()
) -> GraphProgram:
    """Returns the graph of a flat closed jaxpr.

    Args:
        closed: A closed jaxpr whose host calls are all at its top.
        input_names: What its inputs are called in the graph; all different.
        name: The name of the graph.
        lanes: The lanes of the batched loops around it. For each of them the graph has one more
            input (``live_input``), which says which lanes still run; calls that are batched over
            them are made for those alone.
    """
    jaxpr = closed.jaxpr
    groups = _groups(jaxpr)
    builder = _Builder(XCSGraph(name), _masks(jaxpr, lanes))
    for variable, value in zip(jaxpr.constvars, closed.consts, strict=True):
        builder.sources[variable] = ("value", value)
    for variable, label in zip(jaxpr.invars, input_names, strict=True):
        builder.sources[variable] = ("input", label)
        builder.graph.input(label)
    wanted = _used_outside(groups, jaxpr.outvars)
    for group in groups:
        if group.call is not None:
            builder.add_call(group.call)
        else:
            builder.add_program(group, wanted)
    outputs = builder.set_outputs(jaxpr.outvars)
    return GraphProgram(builder.graph, tuple(input_names), outputs)


class _Builder:
    """Adds nodes for groups, remembering where each variable's value comes from."""

    def __init__(self, graph: XCSGraph, masks: dict[int, list[tuple[str, Any]]]) -> None:
        self.graph, self.masks = graph, masks
        self.sources: dict[Any, tuple[str, Any]] = {}

    def add_call(self, equation: Any) -> None:
        """Adds the node of a host call."""
        site, batch = equation.params["site"], equation.params["batch"]
        masks = self.masks.get(id(equation), [])
        names, places = tuple(name for name, _ in masks), tuple(place for _, place in masks)
        if site.raw and not batch:
            site = dataclasses.replace(site, operator=site.operator.within(places))
            places = ()
        operator = StagedCall(site, batch, equation.params["mapped"], names, places)
        node = self._add(operator, zip(site.labels, equation.invars, strict=True))
        for name in names:
            self.graph.connect(self.graph.input(name), node.inputs[name])
        self._record(node, equation.outvars)

    def add_program(self, group: _Group, wanted: set[Any]) -> None:
        """Adds the node of a numeric program; one that nobody reads is left out."""
        outvars = [
            v for v in _distinct(v for e in group.equations for v in e.outvars) if v in wanted
        ]
        if not outvars:
            return
        operator = _program(group, outvars)
        names = (f"x{k}" for k in itertools.count())
        node = self._add(operator, zip(names, group.reads, strict=False))
        self._record(node, outvars)

    def _add(self, operator: Any, inputs: Iterable[tuple[str, Any]]) -> XCSNode:
        constants, edges = {}, []
        for field, atom in inputs:
            kind, ref = self.source(atom)
            if kind == "value":
                constants[field] = ref
            else:
                edges.append((kind, ref, field))
        node = self.graph.add_node(operator, constants=constants or None)
        for kind, ref, field in edges:
            port = self.graph.input(ref) if kind == "input" else ref
            self.graph.connect(port, node.inputs[field])
        return node

    def source(self, atom: Any) -> tuple[str, Any]:
        """Where the value of a variable or literal comes from."""
        if _is_variable(atom):
            return self.sources[atom]
        return "value", np.asarray(
            atom.val, atom.aval.dtype
        )  # JAX's literals have types of their own

    def _record(self, node: XCSNode, outvars: Sequence[Any]) -> None:
        for position, variable in enumerate(outvars):
            source = node if len(outvars) == 1 else node.outputs[str(position)]
            self.sources[variable] = ("node", source)

    def set_outputs(self, outvars: Sequence[Any]) -> tuple[tuple[str, Any], ...]:
        """Names the outputs of the graph, and says where each result is found."""
        named: dict[str, Any] = {}
        refs: list[tuple[str, Any]] = []
        for position, atom in enumerate(outvars):
            kind, ref = self.source(atom)
            if kind == "node":
                named[f"result_{position}"] = ref
                refs.append(("output", f"result_{position}"))
            else:
                refs.append((kind, ref))
        if not named and self.graph.inputs:  # with no outputs at all, those of all nodes are wanted
            named["unchanged"] = self.graph.input(next(iter(self.graph.inputs)))
        self.graph.set_outputs(**named)
        return tuple(refs)


def _groups(jaxpr: Any) -> list[_Group]:
    """The equations by group, in an order in which each reads only from earlier ones."""
    equations = _live_equations(jaxpr)
    maker = {v: k for k, e in enumerate(equations) for v in e.outvars}
    parents = [
        sorted({maker[v] for v in e.invars if _is_variable(v) and v in maker}) for e in equations
    ]
    pure = [e.primitive is not operator_call_p for e in equations]
    results = {maker[v] for v in jaxpr.outvars if _is_variable(v) and v in maker}
    work = {k: work_of(e) / HEAVY_WORK for k, e in enumerate(equations) if pure[k]}
    numbers = fusion_groups(parents, pure, results, work)
    members: dict[Any, list[Any]] = {}
    for k, equation in enumerate(equations):
        key = ("call", k) if numbers[k] is None else numbers[k]
        members.setdefault(key, []).append(equation)
    return _ordered([_Group(equations) for equations in members.values()])


def _live_equations(jaxpr: Any) -> list[Any]:
    """All host calls, and the equations that they or the results need."""
    needed = {v for v in jaxpr.outvars if _is_variable(v)}
    live = []
    for equation in reversed(jaxpr.eqns):
        is_call = equation.primitive is operator_call_p
        if is_call or equation.effects or any(v in needed for v in equation.outvars):
            live.append(equation)
            needed.update(v for v in equation.invars if _is_variable(v))
    return live[::-1]


def _ordered(groups: list[_Group]) -> list[_Group]:
    """Groups in a topological order, the earliest first where there is a choice."""
    maker = {v: k for k, group in enumerate(groups) for v in group.made}
    parents = [{maker[v] for v in group.reads if v in maker} for group in groups]
    children: list[list[int]] = [[] for _ in groups]
    for k, found in enumerate(parents):
        for parent in found:
            children[parent].append(k)
    waiting = [len(found) for found in parents]
    ready = [k for k, count in enumerate(waiting) if not count]  # sorted, so it is a heap
    order = []
    while ready:
        k = heapq.heappop(ready)
        order.append(groups[k])
        for child in children[k]:
            waiting[child] -= 1
            if not waiting[child]:
                heapq.heappush(ready, child)
    return order


def _used_outside(groups: Sequence[_Group], outvars: Sequence[Any]) -> set[Any]:
    used = {v for v in outvars if _is_variable(v)}
    for group in groups:
        used.update(group.reads)
    return used


def _masks(jaxpr: Any, lanes: Sequence[Lanes]) -> dict[int, list[tuple[str, Any]]]:
    """For each call, by the identity of its equation: the input that masks it, and how."""
    found: dict[int, list[tuple[str, Any]]] = {}
    for level, of_loop in enumerate(lanes):
        for number, place in lanes_of_calls(jaxpr, of_loop).items():
            found.setdefault(id(jaxpr.eqns[number]), []).append((live_input(level), place))
    return found


def _program(group: _Group, outvars: Sequence[Any]) -> NumericProgram:
    equations = group.equations
    names = tuple(f"x{k}" for k in range(len(group.reads)))
    results = tuple(f"result[{k}]" for k in range(len(outvars)))
    debug_info = jex_core.DebugInfo("numeric", "ember_xcs", names, results)
    jaxpr = jex_core.Jaxpr([], group.reads, list(outvars), equations, debug_info=debug_info)
    lines = _distinct(source_info_util.summarize(e.source_info) for e in equations)
    work = sum(map(work_of, equations))
    return NumericProgram(jex_core.ClosedJaxpr(jaxpr, []), _label(equations), work, tuple(lines))


def _label(equations: Sequence[Any]) -> str:
    """The pure operators that the equations come from, or what they do."""
    scopes = (str(e.source_info.name_stack).split("/")[0] for e in equations)
    named = _distinct(filter(None, (_INNERMOST.sub(r"\1", scope) for scope in scopes)))
    return "+".join(named[:3]) or "numeric"


def work_of(equation: Any) -> float:
    """Returns an estimate of the arithmetic operations of an equation."""
    sizes = [math.prod(v.aval.shape) for v in equation.outvars if hasattr(v.aval, "shape")]
    work = float(sum(sizes))
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        work *= 2 * math.prod(shape[axis] for axis in contracted)
    inner = sum(work_of(e) for j in jex_core.jaxprs_in_params(equation.params) for e in j.eqns)
    return work + inner * float(equation.params.get("length", 1))


def _is_variable(atom: Any) -> bool:
    return not isinstance(atom, jex_core.Literal)


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))
