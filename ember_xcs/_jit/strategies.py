"""The strategies of ``jit``: how each turns a function into a program, and when it cannot.

============== ============================================== ================================
strategy       sees the program by                            cannot
============== ============================================== ================================
``trace``      running it with abstract values, as jax.jit    branch in Python on values; use a
                                                              host result of unknown shape as
                                                              an array
``structural`` running it with symbols, operator by operator  compute between the operators
``enhanced``   running it at each call, calls overlapping     do without the source
``python``     not at all: plain Python                       overlap anything
============== ============================================== ================================
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import jax
import jax.errors

from ember_xcs._core.operator import HostOperator
from ember_xcs._jit.programs import (
    EnhancedRunner,
    GraphRunner,
    NumericRunner,
    Program,
    PythonRunner,
)
from ember_xcs._jit.request import Request, Target
from ember_xcs._lower.constants import with_large_constants_as_arguments
from ember_xcs._lower.pure import compute_pure, is_pure
from ember_xcs._trace.control import CONTROL_RULES
from ember_xcs._trace.errors import as_tracing_error, line_of, mixed_handles_error
from ember_xcs._trace.flatten import flat_jaxpr
from ember_xcs._trace.from_jaxpr import graph_from_jaxpr
from ember_xcs._trace.staging import contains_host_calls, noting_host_calls, stage_function
from ember_xcs._trace.structural import RecordedFunction, record_structure
from ember_xcs.errors import OptionsError, TracingError

if TYPE_CHECKING:
    from ember_xcs._graph import XCSGraph

__all__ = ["Strategy", "register_strategy", "strategies", "strategy_named"]


class Strategy(Protocol):
    """A way to compile a function.

    Attributes:
        name: What it is called in ``mode=``, statistics and explanations.
    """

    name: str

    def unfit(self, request: Request) -> str | None:
        """Returns why automatic selection should not try it; None if it may."""
        ...

    def compile(self, request: Request) -> Program:
        """Returns the compiled function.

        Raises:
            TracingError: The function does not fit the strategy; the message says why.
        """
        ...


class TraceStrategy:
    """Stages a function under JAX."""

    name = "trace"

    def unfit(self, request: Request) -> str | None:
        """Plain functions are staged where all their inputs are numeric."""
        if request.target.operator is None and not request.is_numeric:
            kinds = sorted({type(x).__name__ for x in request.leaves})
            return (
                f"a plain function with inputs that are not all arrays and numbers "
                f"({', '.join(kinds)}) is not staged unless asked to: mode='trace'"
            )
        return None

    def compile(self, request: Request) -> Program:
        """Returns ``jax.jit`` of a numeric function, or the graph of a mixed one.

        A plain function of arrays and numbers without host calls is staged under JAX's own
        contract, and what breaks that is JAX's own error.
        """
        target = request.target
        with noting_host_calls() as seen:
            try:
                return (_numeric(request) if request.is_numeric else None) or _mixed(request)
            except (jax.errors.JAXTypeError, jax.errors.JAXIndexError) as error:
                if target.operator is None and request.is_numeric and not seen:
                    raise
                raise as_tracing_error(error, target.name) from error
            except TypeError as error:
                if "HostValue" not in str(error):
                    raise
                raise mixed_handles_error(error, target.name) from error
            except RecursionError as error:
                if target.operator is None and request.is_numeric and not seen:
                    raise
                raise TracingError(
                    f"{target.name!r} cannot be staged: it calls itself without end, as no value "
                    "is known while it is staged that could end it. Use xcs.while_loop, or run it "
                    "as plain Python.",
                    line_of(error),
                ) from None


def _mixed(request: Request) -> GraphRunner:
    """The graph of a function with host calls in it."""
    target, labels = request.target, request.labels
    staged = stage_function(target.call, request.structure, request.leaves, labels)
    flat = flat_jaxpr(staged.jaxpr, CONTROL_RULES)
    return GraphRunner("trace", graph_from_jaxpr(flat, labels, target.name), staged.result)


def _numeric(request: Request) -> NumericRunner | None:
    """``jax.jit`` of the function, unless it calls host operators or returns host values."""
    target = request.target
    args, kwargs = request.structure.unflatten(request.leaves)
    jitted = target.jitted
    try:
        traced = jitted.trace(*args, **kwargs)
    except TypeError as error:
        if "not a valid JAX type" in str(error):  # a constant in the result, such as a string
            return None
        raise
    if contains_host_calls(traced.jaxpr):
        return None

    def make_graph() -> XCSGraph:
        staged = stage_function(target.call, request.structure, request.leaves, request.labels)
        return graph_from_jaxpr(staged.jaxpr, request.labels, target.name).graph

    donated = target.settings.donate_argnums
    jitted = with_large_constants_as_arguments(jitted, traced, donated)
    return NumericRunner("trace", jitted, make_graph)


class StructuralStrategy:
    """Records the operator calls of a function, run once with symbols."""

    name = "structural"

    def unfit(self, request: Request) -> str | None:
        """Plain functions are not recorded unless asked for."""
        if request.target.operator is None:
            return "a plain function is recorded by its operator calls only with mode='structural'"
        return None

    def compile(self, request: Request) -> Program:
        """Returns the graph of the function; one XLA program where all of it is pure."""
        recorded = _recorded(request)
        graph = recorded.program.graph
        if not request.is_numeric or not is_pure(graph):
            recursive = request.target.settings.recursive
            return GraphRunner(self.name, recorded.program, recorded.result, recursive)
        donated = request.target.settings.donate_argnums
        jitted = jax.jit(_PureStructure(request.target), donate_argnums=donated)
        args, kwargs = request.structure.unflatten(request.leaves)
        traced = jitted.trace(*args, **kwargs)
        jitted = with_large_constants_as_arguments(jitted, traced, donated)
        return NumericRunner(self.name, jitted, lambda: graph)


def _recorded(request: Request) -> RecordedFunction:
    target = request.target
    structure, leaves, labels, static = request.with_statics()
    recorded = record_structure(
        target.given,
        structure,
        leaves,
        labels,
        name=target.name,
        recursive=target.settings.recursive,
        static=static,
    )
    if not len(recorded.program.graph):
        raise TracingError(
            f"{target.name!r} calls no operator, so there is nothing to record; its own code "
            "can be staged with mode='trace'."
        )
    return recorded


class _PureStructure:
    """A function whose recorded graph is pure, as a function for ``jax.jit``."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the function's result, computed by its graph."""
        request = Request(self._target, args, kwargs)
        recorded = _recorded(request)
        program = recorded.program
        inputs = dict(zip(program.inputs, request.leaves, strict=True))
        results = program.results(compute_pure(program.graph, inputs), inputs)
        return recorded.result(results)


class EnhancedStrategy:
    """Runs the Python at each call, its operator calls overlapping."""

    name = "enhanced"

    def unfit(self, request: Request) -> str | None:
        """What has no source that can be rewritten runs as plain Python."""
        from ember_xcs._enhanced.program import why_not  # noqa: PLC0415  (not for everybody)

        target = request.target
        if isinstance(target.operator, HostOperator):
            return "one host operator has no calls that could overlap"
        function = type(target.operator).forward if target.operator else target.given
        reason = why_not(function)
        return None if reason is None else f"{target.name!r} cannot be rewritten: {reason}"

    def compile(self, request: Request) -> Program:
        """Returns the function as a program.

        Raises:
            TracingError: It cannot be rewritten.
        """
        from ember_xcs._enhanced.program import Program as Enhanced  # noqa: PLC0415  (the same)

        target = request.target
        reason = self.unfit(request)
        if reason is not None:
            raise TracingError(f"{reason}. It can run as plain Python.")
        enhanced = Enhanced(target.given, target.name, recursive=target.settings.recursive)
        return EnhancedRunner(self.name, enhanced)


class PythonStrategy:
    """Runs the function as it is."""

    name = "python"

    def unfit(self, request: Request) -> str | None:
        """Anything can be run as plain Python."""
        del request
        return None

    def compile(self, request: Request) -> Program:
        """Returns the function itself."""
        target = request.target
        function: Callable[..., Any] = target.function
        return PythonRunner(self.name, function)


_lock = threading.Lock()
_strategies: list[Strategy] = [
    TraceStrategy(),
    StructuralStrategy(),
    EnhancedStrategy(),
    PythonStrategy(),
]


def strategies() -> tuple[Strategy, ...]:
    """Returns the strategies in the order in which automatic selection tries them."""
    return tuple(_strategies)


def strategy_named(name: str) -> Strategy:
    """Returns a strategy by name.

    Raises:
        OptionsError: There is none of that name.
    """
    for strategy in _strategies:
        if strategy.name == name:
            return strategy
    names = ", ".join(repr(s.name) for s in _strategies)
    raise OptionsError(f"there is no strategy {name!r}; the strategies are {names}.")


def register_strategy(strategy: Strategy, before: str = "python") -> None:
    """Adds a strategy to those that ``jit`` knows.

    Args:
        strategy: An object with ``name``, ``unfit`` and ``compile``.
        before: The strategy that automatic selection is to try after it.

    Raises:
        OptionsError: The name is taken, or ``before`` names no strategy.
    """
    for needed in ("name", "unfit", "compile"):
        if not hasattr(strategy, needed):
            raise OptionsError(f"{strategy!r} has no {needed!r}: see xcs.Strategy.")
    with _lock:
        names = [known.name for known in _strategies]
        if strategy.name in names:
            raise OptionsError(f"a strategy named {strategy.name!r} is registered already.")
        if before not in names:
            raise OptionsError(f"before={before!r} is not one of {', '.join(names)}.")
        _strategies.insert(names.index(before), strategy)
