"""A compiled function: the way from the user's call to the result."""

from __future__ import annotations

import contextlib
import functools
import time
import weakref
from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING, Any

import jax

from ember_xcs._core import calls
from ember_xcs._core.jax_state import jax_settings, under_jax_trace
from ember_xcs._core.operator import Operator
from ember_xcs._core.options import resolve_options
from ember_xcs._enhanced.natures import register_concurrent
from ember_xcs._jit.cache import JITCache
from ember_xcs._jit.lowered import LoweredFunction
from ember_xcs._jit.method import JitMethod
from ember_xcs._jit.programs import EnhancedRunner, NumericRunner, Program
from ember_xcs._jit.request import Request, Target
from ember_xcs._jit.selection import JITExplanation, select
from ember_xcs._jit.stats import JITStats
from ember_xcs._runtime.result_cache import ResultCache, repeating_samples
from ember_xcs._trace.staging import is_numeric
from ember_xcs.errors import TracingError

if TYPE_CHECKING:
    from ember_xcs._core.options import ExecutionOptions
    from ember_xcs._enhanced.report import RunReport
    from ember_xcs._graph import XCSGraph
    from ember_xcs._jit.settings import JITSettings

__all__ = ["JitFunction", "live_functions"]

_live: weakref.WeakSet[JitFunction] = weakref.WeakSet()


def live_functions() -> list[JitFunction]:
    """Returns the compiled functions that are in use."""
    return list(_live)


class JitFunction:
    """A function or operator compiled by ``jit``; called like it, with the same results.

    A purely numeric function goes straight to ``jax.jit``. Any other call is looked up by its
    abstract signature, compiled by the strategy that fits it, and run by the engine.
    """

    def __init__(self, given: Any, settings: JITSettings, cache: JITCache | None = None) -> None:
        self._target = Target(given, settings)
        self._cache = cache if cache is not None else JITCache()
        self._stats = JITStats()
        self._numeric: Callable[..., Any] | None = None
        self._numeric_calls = 0
        self._samples = None if settings.preserve_stochasticity else ResultCache()
        self._last_strategy: str | None = None
        self._enhanced: EnhancedRunner | None = None
        functools.update_wrapper(self, _described(given), updated=())
        self.__wrapped__ = given
        _live.add(self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what the function returns for these arguments."""
        numeric = self._numeric
        if numeric is not None and calls.current_recorder() is None:
            try:
                result = numeric(*args, **kwargs)
            except (TypeError, TracingError):
                if self._is_for_jax(args, kwargs):
                    raise
            else:
                self._numeric_calls += 1
                return result
        if self._is_inner():
            return self._target.given(*args, **kwargs)
        return self._run(args, kwargs)

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        request = Request(self._target, args, kwargs)
        program, _ = self._program(request)
        start = time.perf_counter()
        try:
            with self._reuse() as options:
                return program.run(request, options)
        finally:
            self._stats.called(time.perf_counter() - start)

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what the function returns, without blocking the event loop."""
        request = Request(self._target, args, kwargs)
        program, _ = self._program(request)
        start = time.perf_counter()
        try:
            with self._reuse() as options:
                return await program.arun(request, options)
        finally:
            self._stats.called(time.perf_counter() - start)

    @contextlib.contextmanager
    def _reuse(self) -> Iterator[ExecutionOptions | None]:
        """Gives the options of a run, whose calls may be answered from a cache if wanted."""
        options = self._target.settings.options
        if self._samples is None:
            yield options
            return
        resolved = resolve_options(options)
        with repeating_samples():
            has_cache = resolved.cache is not None
            yield resolved if has_cache else resolved.replace(cache=self._samples)

    def _is_inner(self) -> bool:
        """Whether something around this call stages or records it, so that it is part of that."""
        return calls.current_recorder() is not None or under_jax_trace()

    def _is_for_jax(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether an error of ``jax.jit`` is the caller's: JAX takes arguments like these.

        It is not where an argument is a host value, or where arguments of this signature lead to
        host calls.
        """
        leaves, _ = jax.tree.flatten(self._target.wrapped(args, kwargs))
        if not all(map(is_numeric, leaves)):
            return False
        if under_jax_trace():
            return True
        program, _ = self._program(Request(self._target, args, kwargs))
        return isinstance(program, NumericRunner)

    def _program(self, request: Request) -> tuple[Program, JITExplanation]:
        """The program for a call, from the cache or compiled now."""
        made = False

        def make() -> tuple[Program, JITExplanation]:
            nonlocal made
            made = True
            return select(request, self._stats)

        if self._target.settings.force_trace:
            found = make()
        else:
            found = self._cache.get_or_make(self._key(request), make)
        self._stats.looked_up(hit=not made)
        program = found[0]
        self._last_strategy = program.strategy
        self._enhanced = program if isinstance(program, EnhancedRunner) else None
        if isinstance(program, NumericRunner) and not self._target.settings.force_trace:
            self._numeric = self._target.direct(program.jitted)
        return found

    def _key(self, request: Request) -> Hashable:
        return self._target.number, request.key, jax_settings()

    def graph(self, *args: Any, **kwargs: Any) -> XCSGraph:
        """Returns the graph of the function for arguments like these; nothing is run.

        Raises:
            TracingError: No strategy could make a graph of it; it is run as plain Python.
        """
        program, explanation = self._program(Request(self._target, args, kwargs))
        if program.graph is None:
            raise TracingError(f"{self._target.name!r} has no graph.\n{explanation}")
        return program.graph

    def lower(self, *args: Any, **kwargs: Any) -> LoweredFunction:
        """Returns the function lowered for arguments like these; nothing is run."""
        request = Request(self._target, args, kwargs)
        return LoweredFunction(request, *self._program(request))

    def selection(self, *args: Any, **kwargs: Any) -> JITExplanation:
        """Returns which strategy compiles such a call, and why; nothing is run."""
        return self._program(Request(self._target, args, kwargs))[1]

    def explain(self, *args: Any, **kwargs: Any) -> JITExplanation | RunReport:
        """Returns which strategy compiles such a call, and why; nothing is run.

        Without arguments, after a run by the strategy ``enhanced``: what that run did, which calls
        overlapped, and where it waited.
        """
        if self._enhanced is not None and self._enhanced.report and not (args or kwargs):
            return self._enhanced.report
        return self.selection(*args, **kwargs)

    def stats(self) -> dict[str, Any]:
        """Returns calls, hits, misses, size, evictions, and the work of each strategy."""
        mine = self._cache.entries()
        figures = self._stats.as_dict(len(mine), self._cache.evictions)
        figures["calls"] += self._numeric_calls
        figures["hits"] += self._numeric_calls
        figures["entries"] = [f"{program.strategy}" for program, _ in mine]
        return figures

    def clear_cache(self) -> None:
        """Forgets all that was compiled."""
        self._numeric = None
        if self._samples is not None:
            self._samples.clear()
        key = self._target.number
        self._cache.discard(lambda entry: isinstance(entry, tuple) and entry[0] == key)
        self._target.jitted.clear_cache()

    @property
    def mode(self) -> str:
        """The strategy that was asked for, or ``"auto"``."""
        return self._target.settings.mode

    @property
    def is_numeric(self) -> bool:
        """Whether calls go straight to ``jax.jit``."""
        return self._numeric is not None

    @property
    def strategy(self) -> str | None:
        """The strategy that compiled the last call; None before the first."""
        return self._last_strategy

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Binds like a function, so that methods can be compiled."""
        if instance is None or isinstance(self._target.given, Operator):
            return self
        return JitMethod(self, instance)

    def __repr__(self) -> str:
        return f"xcs.jit({self._target.name})"


def _described(given: Any) -> Any:
    return getattr(given, "function", type(given)) if isinstance(given, Operator) else given


def _nature(compiled: JitFunction) -> Any:
    """What a call of a compiled function is to a program that calls it."""
    if compiled.mode in ("trace", "structural"):
        return "host"
    return "pure" if compiled.is_numeric else compiled.__wrapped__


register_concurrent(JitFunction, _nature)
