"""Random graphs of all kinds of operators, and plain Python to compare their runs with.

Numbers are small integers, so that every way to compute them gives the same ones.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypedDict

import jax
import numpy as np
from hypothesis import strategies as st

import ember_xcs as xcs
from ember_xcs._core.composition import Ensemble, Parallel, Sequential
from ember_xcs._core.functions import as_operator
from ember_xcs._core.plumbing import Form, Pack, Pick

INPUTS = {"a": 3, "b": 5}

SCHEDULERS = ("sequential", "topological", "parallel", "wave", "adaptive")
PASSES = ("open_composites", "dead_nodes", "common_subexpressions", "constant_folding", "fusion")


class Verdict(NamedTuple):
    score: int
    why: str


@dataclasses.dataclass
class Report:
    score: int
    why: str


class Row(TypedDict):
    score: int
    why: str


def mixed(*values: Any) -> Any:
    """A number that depends on each value and on their order; the same for arrays."""
    total = 7
    for value in values:
        total = (total * 31 + value) % 10_007
    return total


def plain(value: Any) -> Any:
    """The same value of Python's own types."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(plain, value))
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value))
    if dataclasses.is_dataclass(value):
        return dataclasses.replace(value, score=plain(value.score))
    return value


class Calls:
    """Counts the calls of host operators, from any thread."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def note(self, label: str) -> None:
        with self._lock:
            self.counts[label] += 1


class PureInputs(xcs.Operator):
    def forward(self, *, inputs):
        return {"score": mixed(*(inputs[key] for key in sorted(inputs)))}


class HostInputs(xcs.HostOperator):
    label: str
    calls: Any

    def forward(self, *, inputs):
        self.calls.note(self.label)
        return {"score": mixed(*(int(inputs[key]) for key in sorted(inputs)))}


@dataclasses.dataclass
class Kind:
    """An operator with what a builder must know of it.

    Attributes:
        operator: The operator.
        fields: What it takes; numbers all of them.
        optional: How many of the last of them have a default.
        parts: The fields of its output that are numbers; None where it is a number itself.
        label: Under which it counts; None where it does not.
        merges: Whether equal calls may be one.
    """

    operator: Any
    fields: tuple[str, ...]
    optional: int = 0
    parts: tuple[str, ...] | None = None
    label: str | None = None
    merges: bool = True


def pure_kind(label: str, count: int, form: str) -> Kind:
    names = tuple(f"p{k}" for k in range(count))
    if form == "default":
        function = xcs.pure(lambda p0, p1=4: mixed(p0, p1))
        return Kind(function, ("p0", "p1"), optional=1)
    if form == "keyword":
        return Kind(xcs.pure(lambda p0, *, p1: mixed(p1, p0)), ("p0", "p1"))
    if form == "dict":
        return Kind(xcs.pure(lambda p0: {"score": mixed(p0), "twice": p0 + p0}), ("p0",),
                    parts=("score", "twice"))  # fmt: skip
    if form == "tuple":
        return Kind(xcs.pure(lambda p0: (mixed(p0), mixed(p0, 1))), ("p0",), parts=("0", "1"))
    if form == "noted":
        function = xcs.pure(lambda p0: {"score": mixed(p0), "note": "text", "nothing": None})
        return Kind(function, ("p0",), parts=("score",))
    if form == "inputs":
        return Kind(PureInputs(), ("x", "y"), parts=("score",))
    return Kind(xcs.pure(_with_fields(names, mixed)), names)


def _with_fields(names: tuple[str, ...], function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with parameters of these names."""
    space = {"function": function}
    return eval(f"lambda {', '.join(names)}: function({', '.join(names)})", space)


def host_kind(label: str, count: int, form: str, calls: Calls) -> Kind:
    names = tuple(f"p{k}" for k in range(count))

    def noted(*values: Any) -> int:
        calls.note(label)
        return mixed(*map(int, values))

    if form in RECORDS:
        return Kind(xcs.host(_judge(RECORDS[form], noted)), ("p0",), 0, ("score",), label, False)
    if form == "async":
        return Kind(xcs.host(_later(noted)), ("p0", "p1"), 1, None, label, merges=False)
    if form == "inputs":
        return Kind(HostInputs(label, calls), ("x", "y"), 0, ("score",), label, merges=False)
    if form == "typed":
        return Kind(xcs.host(_annotated(noted)), ("p0",), 0, None, label, merges=False)
    if form == "unknown":
        function = _with_fields(names, lambda *values: {"score": noted(*values)})
        return Kind(function, names, 0, ("score",), label, merges=False)
    function = _with_fields(names, noted)
    if form == "deterministic":
        return Kind(xcs.host(deterministic=True)(function), names, 0, None, label)
    operator = xcs.host(executor="inline")(function) if form == "inline" else function
    return Kind(operator, names, 0, None, label, merges=False)


RECORDS: dict[str, Any] = {"verdict": Verdict, "report": Report, "row": Row}


def _judge(record: Any, noted: Callable[..., int]) -> Callable[..., Any]:
    def judge(p0):
        return record(score=noted(p0), why="so")

    judge.__annotations__["return"] = record
    return judge


def _later(noted: Callable[..., int]) -> Callable[..., Any]:
    async def later(p0, p1=2) -> int:
        await asyncio.sleep(0)
        return noted(p0, p1)

    return later


def _annotated(noted: Callable[..., int]) -> Callable[..., Any]:
    def judge(p0: int) -> int:
        return noted(p0)

    return judge


def composite_kind(label: str, form: str, calls: Calls) -> Kind:
    def noted(p0):
        calls.note(label)
        return mixed(int(p0))

    host = xcs.host(noted)
    pure = xcs.pure(lambda p0: mixed(p0, 2))
    if form == "parallel":
        return Kind(Parallel(score=host, other=pure), ("p0",), 0, ("score", "other"), label, False)
    if form == "sequential":
        return Kind(Sequential(host, pure), ("p0",), 0, None, label, False)
    ensemble = Sequential(Ensemble(host, 1), xcs.host(lambda found: found[0]))
    return Kind(ensemble, ("p0",), 0, None, label, False)


def glue_kind(form: str) -> Kind:
    if form == "pack":
        pack = Pack(Form("dict", None, ("score", "rest"), (Form("part"), Form("part"))))
        return Kind(pack, ("item0", "item1"), parts=("score", "rest"))
    return Kind(Pick(()), ("value",))


PURE = ("plain", "plain", "default", "keyword", "dict", "tuple", "noted", "inputs")
HOST = (
    "plain",
    "plain",
    "async",
    "verdict",
    "report",
    "row",
    "inputs",
    "typed",
    "unknown",
    "deterministic",
    "inline",
)
COMPOSITE = ("parallel", "sequential", "ensemble")


@st.composite
def kinds(draw: st.DrawFn, label: str, calls: Calls) -> Kind:
    count = draw(st.integers(1, 3))
    family = draw(st.sampled_from(["pure", "pure", "host", "host", "glue", "composite"]))
    if family == "pure":
        return pure_kind(label, count, draw(st.sampled_from(PURE)))
    if family == "host":
        return host_kind(label, count, draw(st.sampled_from(HOST)), calls)
    if family == "composite":
        return composite_kind(label, draw(st.sampled_from(COMPOSITE)), calls)
    return glue_kind(draw(st.sampled_from(["pack", "pick"])))


@dataclasses.dataclass
class RandomGraph:
    """A graph, and how often each label is to be counted in a run without passes.

    Attributes:
        graph: The graph.
        calls: The counts.
        expected: Calls by label in plain Python.
        exact: Labels whose calls are made in any case.
    """

    graph: xcs.XCSGraph
    calls: Calls
    expected: Counter[str]
    exact: set[str]


@st.composite
def random_graphs(draw: st.DrawFn, max_nodes: int = 9) -> RandomGraph:
    """Graphs of up to so many nodes, with every way to feed a field."""
    calls, graph = Calls(), xcs.XCSGraph("random")
    numbers: list[Any] = [graph.input("a"), graph.input("b", default=11)]
    whole: list[Any] = []
    used: list[Kind] = []
    expected: Counter[str] = Counter()
    exact: set[str] = set()
    for number in range(draw(st.integers(1, max_nodes))):
        if used and draw(st.integers(0, 3)) == 0:
            kind = draw(st.sampled_from(used))
        else:
            kind = draw(kinds(f"f{number}", calls))
            used.append(kind)
        node = _add(draw, graph, kind, f"n{number}", numbers, whole)
        if kind.label is not None:
            expected[kind.label] += 1
            if not kind.merges:
                exact.add(kind.label)
        if kind.parts is None:
            numbers.append(node)
            whole.append(node)
        else:
            numbers.extend(node.outputs[part] for part in kind.parts)
    if draw(st.booleans()):
        chosen = draw(st.lists(st.sampled_from(list(graph.nodes)), unique=True, min_size=1))
        graph.set_outputs(**{f"result_{k}": node_id for k, node_id in enumerate(chosen)})
    return RandomGraph(graph, calls, expected, exact)


def _add(
    draw: st.DrawFn,
    graph: xcs.XCSGraph,
    kind: Kind,
    node_id: str,
    numbers: list[Any],
    whole: list[Any],
) -> Any:
    fields = kind.fields
    if kind.optional and draw(st.booleans()):
        fields = fields[: -kind.optional]
    operator = as_operator(kind.operator)
    takes_arguments = operator.signature.style == "arguments"
    if whole and takes_arguments and draw(st.integers(0, 4)) == 0:
        return _connect_unmapped(draw, graph, graph.add_node(kind.operator, node_id), whole)
    constants = {f: draw(st.integers(0, 99)) for f in fields if draw(st.integers(0, 3)) == 0}
    if not takes_arguments:  # without edges it takes all inputs of the graph: test_graphs.py
        constants.pop(fields[0], None)
    node = graph.add_node(kind.operator, node_id, constants=constants or None)
    rest = [field for field in fields if field not in constants]
    for field in rest:
        graph.connect(draw(st.sampled_from(numbers)), node.inputs[field])
    return node


def _connect_unmapped(draw: st.DrawFn, graph: xcs.XCSGraph, node: Any, whole: list[Any]) -> Any:
    """Some fields by name, the others by the order of their edges."""
    positional = [f.name for f in node.operator.signature.fields if f.positional or f.required]
    named = {f for f in positional if draw(st.integers(0, 2)) == 0}
    for field in positional:
        source = draw(st.sampled_from(whole))
        graph.connect(source, node.inputs[field] if field in named else node)
    return node


def run_plainly(graph: xcs.XCSGraph, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs of all nodes, as plain Python gives them: one call after another."""
    results: dict[str, Any] = {}
    for node_id in graph.topological_sort():
        fields = graph.prepare_node_inputs(node_id, results, inputs)
        operator = graph[node_id].operator
        if operator.signature.style == "inputs":
            results[node_id] = operator(inputs=fields)
        else:
            results[node_id] = _called(operator, fields)
    return results


def _called(operator: Any, fields: dict[str, Any]) -> Any:
    named = dict(fields)
    args = []
    for field in operator.signature.fields:
        if field.name not in named or not field.positional:
            break
        args.append(named.pop(field.name))
    return operator(*args, **named)


def wanted_outputs(graph: xcs.XCSGraph, everything: Mapping[str, Any]) -> dict[str, Any]:
    """What a run returns, given the outputs of all nodes."""
    return {name: everything[str(port.node_id)] for name, port in graph.outputs.items()}
