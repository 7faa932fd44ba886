"""Who answers the call of an operator: the operator, or something that records it.

A call is answered, in this order, by the recorder of the context (structural tracing,
``autograph``, ``TracerContext``), by the stager if a JAX trace is under way and the operator
is host work, or by the operator itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import types
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ember_xcs._core.operator import Operator

__all__ = [
    "Recorder",
    "Stager",
    "await_or_return",
    "call_plain_code",
    "current_recorder",
    "in_event_loop",
    "is_coroutine_callable",
    "policies_in_force",
    "recording",
    "register_coroutine_runner",
    "register_graph_runner",
    "register_stager",
    "run_graph",
    "stager",
    "would_be_awaited",
]


class Recorder(Protocol):
    """Answers operator calls in place of the operators."""

    def __call__(
        self, operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any], /
    ) -> Any:
        """Returns what the caller gets for this call."""
        ...


Stager = Recorder


class Policies(Protocol):
    """Stands between the calls of a run and their operators."""

    def direct(
        self, operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any], /
    ) -> Any:
        """Returns the result of a call that code within the run makes itself."""
        ...


policies_in_force: ContextVar[Policies | None] = ContextVar("ember_xcs_policies", default=None)
"""What host calls go through that are made here; set within runs that have policies."""

_recorder: ContextVar[Recorder | None] = ContextVar("ember_xcs_recorder", default=None)
_stagers: list[Stager] = []

current_recorder = _recorder.get
_running_loop = asyncio._get_running_loop  # noqa: SLF001  (documented; None if there is none)


@contextlib.contextmanager
def recording(recorder: Recorder | None) -> Iterator[None]:
    """Sends the operator calls of this context to ``recorder``; None sends them home."""
    token = _recorder.set(recorder)
    try:
        yield
    finally:
        _recorder.reset(token)


def register_stager(stage: Stager) -> None:
    """Sets what turns a host call into an equation while JAX is tracing."""
    _stagers[:] = [stage]


def stager() -> Stager:
    """Returns the registered stager."""
    return _stagers[0]


_plain_code_in: ContextVar[Any] = ContextVar("ember_xcs_plain_code_in", default=None)
"""The task or loop in which the plain ``forward`` of an operator runs, which cannot await."""

_runners: list[Callable[[Coroutine[Any, Any, Any]], Any]] = []
_runs_here: list[Callable[[], bool]] = [lambda: True]


def is_coroutine_callable(function: Callable[..., Any]) -> bool:
    """Whether calls of a function, method or callable object give coroutines."""
    if type(function) is types.FunctionType and function.__code__.co_flags & inspect.CO_COROUTINE:
        return True
    if type(function) is types.FunctionType and not function.__dict__:
        return False
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  (asked for what it is, not whether)
    )


def register_coroutine_runner(
    run: Callable[[Coroutine[Any, Any, Any]], Any], runs_here: Callable[[], bool] = lambda: True
) -> None:
    """Sets what runs the coroutine of an ``async def`` operator that plain code calls.

    Args:
        run: Runs a coroutine to its end while the calling thread waits.
        runs_here: Whether the loop that ``run`` uses is the one running on the calling thread,
            which then must not wait for it. Asked only inside a running event loop.
    """
    _runners[:], _runs_here[:] = [run], [runs_here]


def await_or_return(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Returns the result of a coroutine, or the coroutine where the caller can await it.

    Inside a running event loop an ``async def`` operator is awaited like any coroutine function;
    elsewhere, and in the plain ``forward`` of another operator, it runs to its end on the I/O loop.
    """
    if would_be_awaited():
        return coroutine
    loop = _running_loop()
    may_wait = loop is None or not _runs_here[0]()
    return _runners[0](coroutine) if _runners and may_wait else _run_in_thread(coroutine)


def would_be_awaited() -> bool:
    """Whether the caller awaits what an ``async def`` operator gives: it is async code itself."""
    loop = _running_loop()
    return loop is not None and _plain_code_in.get() is not _task_of(loop)


def in_event_loop() -> bool:
    """Whether an event loop is running on this thread."""
    return _running_loop() is not None


def call_plain_code(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """Calls a plain function inside a running event loop; what it calls is not for it to await."""
    token = _plain_code_in.set(_task_of(asyncio.get_running_loop()))
    try:
        return function(*args, **kwargs)
    finally:
        _plain_code_in.reset(token)


def _task_of(loop: asyncio.AbstractEventLoop) -> Any:
    return asyncio.current_task(loop) or loop


def _run_in_thread(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Runs a coroutine in an event loop of its own, on a thread of its own where it must be."""
    if not in_event_loop():
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(contextvars.copy_context().run, asyncio.run, coroutine).result()


GraphRunner = Callable[[Any, Mapping[str, Any]], Mapping[str, Any]]
_graph_runners: list[GraphRunner] = []


def register_graph_runner(run: GraphRunner) -> None:
    """Sets what runs the graphs of loop bodies and branches."""
    _graph_runners[:] = [run]


def run_graph(graph: Any, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the outputs of a graph by name, for its inputs by name."""
    return _graph_runners[0](graph, inputs)
