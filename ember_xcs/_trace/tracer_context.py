"""Graphs from real runs: ``TracerContext`` lets operators run, and notes what flowed where.

A run shows one path through the program, with the values of one input. ``to_graph`` keeps a value
as a constant only where it provably is one, and follows it only where its origin is proven (see
``provenance``); anything else it refuses, naming the operator and the argument.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import sys
import threading
import time
from collections.abc import Mapping
from contextvars import ContextVar, Token
from types import FrameType
from typing import Any, Self

from ember_xcs._core import calls
from ember_xcs._core.jax_state import under_jax_trace
from ember_xcs._core.operator import Operator
from ember_xcs._core.plumbing import Form, Step, opened_container, path_text, split_form
from ember_xcs._graph import XCSGraph
from ember_xcs._trace.call_site import Spelling, child_spellings, is_constant, spelled_arguments
from ember_xcs._trace.provenance import (
    Provenance,
    Tracked,
    children_of,
    has_identity,
    made_anew,
)
from ember_xcs._trace.recorder import GraphRecorder
from ember_xcs._trace.straight_line import Choice, choice_in_block
from ember_xcs._trace.symbols import Symbol, origin_of
from ember_xcs._trace.user_line import user_line
from ember_xcs.errors import TracingError

__all__ = ["TraceRecord", "TracerContext"]


@dataclasses.dataclass(slots=True, eq=False)
class TraceRecord:
    """One operator call of a traced run.

    Attributes:
        index: Its position in ``TracerContext.records``: calls are in the order in which they
            began.
        operator: What was called.
        args: The positional arguments.
        kwargs: The keyword arguments.
        output: What it returned; None until it has.
        error: What it raised; None if it returned.
        started: When it began, in seconds since the context was entered.
        ended: When it ended, in seconds since the context was entered; None until it has.
        parents: The records whose outputs, or parts of them, are among its arguments.
        caller: The record of the operator that made the call; None for calls made outside any.
        depth: How many operators the call was made inside of.
        line: The user's line.
    """

    index: int
    operator: Operator
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    started: float
    parents: tuple[int, ...]
    caller: int | None
    depth: int
    line: str | None
    output: Any = None
    error: BaseException | None = None
    ended: float | None = None

    @property
    def seconds(self) -> float | None:
        """How long it took, in seconds; None until it has ended."""
        return None if self.ended is None else self.ended - self.started


@dataclasses.dataclass(frozen=True, slots=True)
class _Value:
    """A value that a graph can follow: a part of an input or of a call's output."""

    source: int | str
    path: tuple[Step, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class _Unknown:
    """A value that a graph cannot follow, and why."""

    where: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class _Call:
    """A call that becomes a node, with its arguments as a graph knows them."""

    record: TraceRecord
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class _Enclosing:
    """The operator in whose ``forward`` the code of a context runs."""

    record: TraceRecord
    is_node: bool


_FROM_CODE = (
    "it is neither an output of a recorded call, nor a declared input, nor spelled as a literal in "
    "the call: it came from code between the operators, which a graph cannot repeat"
)
_REMEDY = (
    "compute it in an operator; if it is a constant of the program, declare it with "
    "tracer.constant(value) or write it into the call as a literal; if it is given from outside, "
    "declare it with tracer.input(name, value) and pass what that returns"
)
_NO_IDENTITY = (
    "a small integer, boolean, None or string of one character is the same object wherever it "
    "occurs, so that its origin cannot be told"
)
_AMBIGUOUS = (
    "others have the same object, or a property may have chosen it, so that its origin cannot be "
    "told"
)
_CHANGED = "it was changed in place after an operator returned it or it was declared"


class TracerContext:
    """Records a real run: operators run as ever, and each call leaves a ``TraceRecord``.

    ``to_graph`` turns the run into a graph in which the outermost calls of operators that are not
    composite are nodes. Operators see and return what they would anyway, but for identity: built-in
    containers, strings and numbers that they return are handed on as equal new objects.

    A run shows only the path that was taken. ``to_graph`` therefore refuses code with branches or
    calls that may choose among values, unless it is told to keep to the path of this run.

    Example:
        >>> from ember_xcs._core.functions import host
        >>> draft = host(lambda topic: f"an essay on {topic}", name="draft")
        >>> shorten = host(lambda text, words: text[:words], name="shorten")
        >>> with TracerContext() as tracer:
        ...     topic = tracer.input("topic", "bees")
        ...     essay = shorten(draft(topic), words=8)
        >>> essay, [(r.operator.name, r.parents) for r in tracer.records]
        ('an essay', [('draft', ()), ('shorten', (0,))])
        >>> graph = tracer.to_graph(essay=essay)
        >>> list(graph.inputs), graph.topological_sort(), list(graph.outputs)
        (['topic'], ['draft', 'shorten'], ['essay'])
    """

    def __init__(self) -> None:
        self._records: list[TraceRecord] = []
        self._calls: dict[int, _Call] = {}
        self._inputs: list[str] = []
        self._constants: dict[int, Any] = {}
        self._provenance = Provenance()
        self._makers: dict[int, tuple[int, Any]] = {}
        self._lock = threading.Lock()
        self._enclosing: ContextVar[_Enclosing | None] = ContextVar("enclosing", default=None)
        self._began = 0.0
        self._line = 0
        self._choice: Choice | None = None
        self._is_open = False
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Begins to record the operator calls of this context."""
        self._began = time.perf_counter()
        self._line = sys._getframe(1).f_lineno  # noqa: SLF001  (inspect.stack reads every file)
        self._is_open = True
        self._exit.enter_context(calls.recording(self._call))
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Ends the recording."""
        self._exit.close()
        self._is_open = False
        frame = sys._getframe(1)  # noqa: SLF001  (inspect.stack reads every file)
        self._choice = choice_in_block(frame, self._line, self)

    @property
    def records(self) -> tuple[TraceRecord, ...]:
        """The calls, in the order in which they began."""
        return tuple(self._records)

    def input(self, name: str, value: Any) -> Any:
        """Declares an input of the graph and returns its value, to be used in place of ``value``.

        Args:
            name: What the graph calls it.
            value: Its value in this run.

        Returns:
            An equal value, with strings, numbers, arrays and built-in containers made anew, so that
            it can be told from any other.

        Raises:
            TracingError: An input of this name was declared before.
        """
        if name in self._inputs:
            raise TracingError(
                f"the input {name!r} was declared before. Each input of a traced run has a name of "
                "its own. To mend it: choose another name.",
                user_line(),
            )
        self._inputs.append(name)
        fresh, shared = made_anew([value], copies_arrays=True)
        self._provenance.add(fresh, name, shared - {id(fresh)})
        return fresh

    def constant(self, value: Any) -> Any:
        """Declares a value to be a constant of the program, and returns it.

        Args:
            value: The same in every run; a graph made from the trace holds it.

        Returns:
            An equal value, to be used in its place, as with ``input``.
        """
        fresh, _ = made_anew([value], copies_arrays=True)
        self._provenance.add(fresh, _CONSTANT, frozenset())
        return fresh

    # Recording

    def _call(self, operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Answers an operator call: runs it, and notes it."""
        if under_jax_trace():
            with calls.recording(None):
                return operator(*args, **kwargs)
        caller = sys._getframe(1)  # noqa: SLF001  (inspect.stack reads every file)
        frame = caller.f_back if caller.f_code is Operator.__call__.__code__ else None
        record, is_node = self._begin(operator, args, kwargs, frame)
        token = self._enclosing.set(_Enclosing(record, is_node or self._is_inside_node()))
        try:
            holder = [operator.run(args, kwargs)]
        except BaseException as error:
            self._end(record, error=error)
            raise
        finally:
            self._leave(token)
        if inspect.iscoroutine(holder[0]):
            return self._finish_later(holder.pop(), record, is_node)
        return self._finish(holder, record, is_node)

    def _leave(self, token: Token[_Enclosing | None]) -> None:
        self._enclosing.reset(token)

    def _is_inside_node(self) -> bool:
        enclosing = self._enclosing.get()
        return enclosing is not None and enclosing.is_node

    def _begin(
        self,
        operator: Operator,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        frame: FrameType | None,
    ) -> tuple[TraceRecord, bool]:
        """Adds the record of a call, and says whether the call becomes a node."""
        enclosing = self._enclosing.get()
        is_node = operator.kind != "composite" and not self._is_inside_node()
        seen = self._as_seen(operator, args, kwargs, frame) if is_node else None
        parents = tuple(sorted({*self._parents([args, dict(kwargs)])}))
        with self._lock:
            record = TraceRecord(
                index=len(self._records),
                operator=operator,
                args=args,
                kwargs=dict(kwargs),
                started=time.perf_counter() - self._began,
                parents=parents,
                caller=enclosing.record.index if enclosing else None,
                depth=enclosing.record.depth + 1 if enclosing else 0,
                line=user_line(),
            )
            self._records.append(record)
            if seen is not None:
                self._calls[record.index] = _Call(record, *seen)
        return record, is_node

    async def _finish_later(self, coroutine: Any, record: TraceRecord, is_node: bool) -> Any:
        token = self._enclosing.set(_Enclosing(record, is_node or self._is_inside_node()))
        try:
            holder = [await coroutine]
        except BaseException as error:
            self._end(record, error=error)
            raise
        finally:
            self._leave(token)
        return self._finish(holder, record, is_node)

    def _finish(self, holder: list[Any], record: TraceRecord, is_node: bool) -> Any:
        if is_node:
            output, shared = made_anew(holder)
            self._provenance.add(output, record.index, shared)
        else:
            output = holder[0]
        self._end(record, output=output)
        return output

    def _end(
        self, record: TraceRecord, output: Any = None, error: BaseException | None = None
    ) -> None:
        record.ended = time.perf_counter() - self._began
        record.output, record.error = output, error
        if error is None:
            self._note_maker(output, record)

    def _note_maker(self, value: Any, record: TraceRecord) -> None:
        """Remembers who made an object; what a composite hands through keeps its first maker."""
        pending = [value]
        while pending:
            part = pending.pop()
            with self._lock:
                self._makers.setdefault(id(part), (record.index, part))
            pending.extend(child for _, child in children_of(part) or ())

    def _parents(self, value: Any) -> set[int]:
        found: set[int] = set()
        pending = [value]
        while pending:
            part = pending.pop()
            maker = self._makers.get(id(part))
            if maker is not None and has_identity(part):
                found.add(maker[0])
            else:
                pending.extend(child for _, child in children_of(part) or ())
        return found

    # What a graph knows of the arguments

    def _as_seen(
        self,
        operator: Operator,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        frame: FrameType | None,
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns the arguments with what a graph knows in place of the values."""
        positional, named = spelled_arguments(frame) if frame is not None else ([], {})
        enclosing = self._enclosing.get()
        holder = enclosing.record.operator if enclosing else None
        view = _View(self._provenance, frame, holder, self)
        names = operator.signature.names
        spelled = positional if len(positional) == len(args) else [None] * len(args)
        labels = [*names, *(f"argument {k}" for k in range(len(names), len(args)))]
        seen = tuple(map(view.of, args, spelled, labels))
        return seen, {k: view.of(v, named.get(k), k) for k, v in kwargs.items()}

    # From the run to a graph

    def to_graph(
        self, name: str = "trace", /, *, follow_path: bool = False, **outputs: Any
    ) -> XCSGraph:
        """Returns the graph of the run.

        Args:
            name: The name of the graph.
            follow_path: Whether to keep to the path of this run where the code has others: the
                graph then repeats its choices, whatever its inputs.
            **outputs: The results of the program, as the run returned them, each under the name
                that the graph is to give it. Without any, they are the nodes without successors.

        Raises:
            TracingError: A value came from code between the operators, or its origin cannot be
                proven; or a call failed or has not ended. The message names the operator, the
                argument and the reason.
        """
        self._check_path(follow_path)
        recorder = GraphRecorder(XCSGraph(name), recursive=False)
        symbols: dict[int | str, Any] = {name: recorder.input(name) for name in self._inputs}
        for index, call in sorted(self._calls.items()):
            _check_ended(call.record)
            args, kwargs = _filled((call.args, dict(call.kwargs)), symbols, call.record)
            recorder.line = call.record.line
            symbols[index] = recorder(call.record.operator, args, kwargs)
        view = _View(self._provenance, None, None, self)
        for key, value in outputs.items():
            outputs[key] = _filled(view.of(value, None, key), symbols, None)
        recorder.line = None
        recorder.graph.set_outputs(**{k: recorder.gathered(v) for k, v in outputs.items()})
        return recorder.graph

    def _check_path(self, follow_path: bool) -> None:
        if self._is_open:
            raise TracingError(
                "the traced run has not ended. A graph is made of a run that is over. To mend it: "
                "call to_graph() after the `with` block.",
                user_line(),
            )
        if self._choice is not None and not follow_path:
            what, line = self._choice
            raise TracingError(
                f"the code between the operators contains {what}. A run shows only the path that "
                "was taken, and on other inputs the code might take another. To mend it: put the "
                "choice into an operator, record with xcs.autograph or mode='structural', or keep "
                "to the path of this run with to_graph(follow_path=True).",
                line,
            )


_CONSTANT = -1
"""The source of declared constants."""


class _View:
    """What a graph knows of values: where they come from, or that it cannot be told."""

    def __init__(
        self, provenance: Provenance, frame: FrameType | None, holder: Any, tracer: TracerContext
    ) -> None:
        self.provenance, self.frame = provenance, frame
        self.holder, self.tracer = holder, tracer

    def of(self, value: Any, spelling: Spelling, where: str) -> Any:
        """Returns a value with ``_Value`` or ``_Unknown`` in place of what is no constant."""
        known = (self.holder, self.tracer)
        if self.frame is not None and is_constant(spelling, value, self.frame, *known):
            return value
        tracked = self.provenance.find(value)
        if tracked is not None:
            return self._tracked(tracked, value, where)
        opened = opened_container(value)
        if opened is None or opened[0] == "tree":
            return _Unknown(where, _FROM_CODE if has_identity(value) else _NO_IDENTITY)
        kind, about, keys, items = opened
        steps = [step for step, _ in children_of(value) or ()]
        spellings = child_spellings(spelling, kind, len(items))
        parts = [
            Form("constant", self.of(item, spelled, where + path_text([step])))
            for item, spelled, step in zip(items, spellings, steps, strict=True)
        ]
        return Form(kind, about, keys, tuple(parts)).build(())

    def _tracked(self, tracked: Tracked, value: Any, where: str) -> Any:
        if not tracked.unchanged():
            return _Unknown(where, _CHANGED)
        if tracked.source == _CONSTANT:
            return value
        if tracked.ambiguous:
            return _Unknown(where, _AMBIGUOUS)
        return _Value(tracked.source, tracked.path)


def _check_ended(record: TraceRecord) -> None:
    if record.error is not None:
        raise TracingError(
            f"operator {record.operator.name!r} raised {type(record.error).__name__} in the traced "
            "run, and the run went on. A graph ends when a node fails. To mend it: handle the "
            "error inside the operator, or in a HostOperator around it.",
            record.line,
        )
    if record.ended is None:
        raise TracingError(
            f"operator {record.operator.name!r} has not ended yet. A graph is made of a run that "
            "is over. To mend it: await the call, or join its thread, before to_graph().",
            record.line,
        )


def _filled(tree: Any, symbols: Mapping[int | str, Any], record: TraceRecord | None) -> Any:
    """Returns a tree with symbols in place of the values that a graph can follow."""
    form, parts = split_form(tree, lambda node: isinstance(node, _Value | _Unknown))
    for part in parts:
        if isinstance(part, _Unknown):
            raise _refused(part.where, part.reason, record)
    return form.build(_part_of(symbols[part.source], part.path) for part in parts)


def _part_of(symbol: Symbol, path: tuple[Step, ...]) -> Symbol:
    for step in path:
        symbol = origin_of(symbol).step(step)
    return symbol


def _refused(where: str, reason: str, record: TraceRecord | None) -> TracingError:
    if record is None:
        given = f"the output {where!r} cannot be made part of a graph: {reason}"
    else:
        given = (
            f"argument {where!r} of operator {record.operator.name!r} cannot be made part of a "
            f"graph: {reason}"
        )
    return TracingError(f"{given}. To mend it: {_REMEDY}.", record.line if record else user_line())
