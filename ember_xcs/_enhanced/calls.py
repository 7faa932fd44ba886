"""How a call is made: where it runs, and what stands between the program and the operator.

========== ======================================================================================
lift       an expression: on whichever thread finds its operands there
pure       an operator of arrays, jitted: the same, but never on the I/O loop
inline     a cheap host operator: the same
thread     a host operator that may block: on a pool thread, or on the thread of the program if
           that has to wait for it anyway before a pool thread has come
timed      one with a time limit: on a pool thread
process    in a process, for which a pool thread waits
async      on the I/O loop
========== ======================================================================================
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from ember_xcs._core.jax_state import call_under
from ember_xcs._enhanced.containers import fill
from ember_xcs._lower.fans import BoundCall, start_call
from ember_xcs._lower.plan import Executor, Task, TaskKind
from ember_xcs._runtime.io_loop import io_loop
from ember_xcs._runtime.launch import awaited_within, within_seconds
from ember_xcs._runtime.processes import processes
from ember_xcs._runtime.threads import threads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ember_xcs._core.operator import HostOperator
    from ember_xcs._enhanced.flow import Flow
    from ember_xcs._enhanced.pending import Pending

__all__ = ["ASYNC", "HEAVY", "LIGHT", "THREAD", "cancel", "compute", "in_pool", "kind_of", "launch"]

THREAD: Final = "thread"
ASYNC: Final = "async"
LIGHT: Final = frozenset({"pure", "inline"})
HEAVY: Final = frozenset({"thread", "timed", "process", "async"})


def no_work(*_args: Any, **_kwargs: Any) -> None:
    """What is left of a call that is over."""


def kind_of(operator: HostOperator) -> str:
    """Returns where the calls of a host operator are made."""
    policy = operator.policy
    if operator.is_async:
        return ASYNC
    if policy.executor == "thread" and policy.timeout_seconds is not None:
        return "timed"
    return policy.executor


def prepare(flow: Flow, node: Pending) -> None:
    """Gives a call of an operator the task that its policies know it by, if there are any.

    The place of a call in the journal is that of the call in the program, so it is taken now.
    """
    operator, policies = node.operator, flow.run.policies
    if policies is None and node.kind not in ("timed", "process") and node.kind != ASYNC:
        return
    name = operator.name
    place = name if policies is None else policies.memory.place_of(name)
    node.task = Task(
        index=0,
        kind=TaskKind.CALL,
        node_ids=(place,),
        operator=name,
        run=start_call,
        reads=(),
        writes=(),
        executor=Executor(operator.policy.executor),
        timeout_seconds=operator.policy.timeout_seconds,
        host=operator,
        policy=operator.policy,
    )


def compute(node: Pending) -> Any:
    """Returns the value of a call or an expression, computed on this thread."""
    fill(node)
    work, args, kwargs = node.work, node.args, node.kwargs
    if node.context is None:
        return with_originals(node, work(*args, **kwargs))
    value = call_under(node.settings, node.context.run, work, *args, **kwargs)
    return with_originals(node, value)


def with_originals(node: Pending, value: Any) -> Any:
    """Returns a result with the program's own containers in place of copies of them."""
    originals = node.originals
    if not originals:
        return value
    if id(value) in originals:
        node.copied = value, originals
        return originals[id(value)][1]
    if type(value) in (list, tuple):
        if any(id(item) in originals for item in value):
            node.copied = value, originals
            return type(value)(originals[id(i)][1] if id(i) in originals else i for i in value)
    elif type(value) is dict and any(id(item) in originals for item in value.values()):
        node.copied = value, originals
        return {k: originals[id(i)][1] if id(i) in originals else i for k, i in value.items()}
    return value


def must_leave(node: Pending) -> bool:
    """Whether this is the I/O loop, which is not to be held up."""
    return io_loop.is_current()


def launch(flow: Flow, node: Pending) -> None:
    """Starts a call that reports when it ends."""
    if node.kind == ASYNC:
        if io_loop.is_current():
            _take_off(flow, node)
        else:
            io_loop.call(_take_off, flow, node)
    else:
        in_pool(flow, node)


def in_pool(flow: Flow, node: Pending) -> None:
    """Has a pool thread make a call, unless somebody else takes it before."""
    if node.kind in LIGHT:
        threads.submit(functools.partial(_evaluate, flow, node))
    else:
        threads.submit(functools.partial(_serve, flow, node))


def _evaluate(flow: Flow, node: Pending) -> None:
    try:
        value = compute(node)
    except BaseException as error:  # noqa: BLE001  (user code may raise anything)
        flow.complete(node, None, error)
    else:
        flow.complete(node, value, None)


def _serve(flow: Flow, node: Pending) -> None:
    if not flow.claim(node):
        return
    name = threading.current_thread().name
    flow.run.seats[name] = [0]
    try:
        perform(flow, node)
    finally:
        flow.run.seats.pop(name, None)


def perform(flow: Flow, node: Pending) -> None:
    """Makes a call on this thread, and reports its outcome."""
    start = time.perf_counter()
    try:
        value = _performed(flow, node)
    except BaseException as error:
        node.seconds = start, time.perf_counter()
        flow.record.ended(node)
        flow.complete(node, None, error)
        if isinstance(error, KeyboardInterrupt):
            raise
    else:
        node.seconds = start, time.perf_counter()
        flow.record.ended(node)
        flow.complete(node, value, None)


def _performed(flow: Flow, node: Pending) -> Any:
    if node.task is None:
        return compute(node)
    fill(node)
    run, task = flow.run, node.task
    call = BoundCall(node.operator, tuple(node.args), node.kwargs)
    attempt = functools.partial(_attempt, flow, task)
    if run.policies is None:
        make = functools.partial(attempt, (call,))
    else:
        make = functools.partial(run.policies.call, task, None, (call,), attempt)
    return with_originals(node, call_under(node.settings, node.context.run, make))


def _attempt(flow: Flow, task: Task, arguments: tuple[Any, ...]) -> Any:
    """Makes a call once, in the context that its policies have set, for as long as it may take."""
    if task.executor is Executor.PROCESS:
        return processes.call(flow.run, task, arguments)
    if task.timeout_seconds is None:
        return task.run(*arguments)
    copied: Callable[..., Any] = contextvars.copy_context().run
    return within_seconds(flow.run, task, functools.partial(copied, task.run, *arguments))


# Coroutines, on the I/O loop


def _take_off(flow: Flow, node: Pending) -> None:
    if not flow.claim(node):
        return
    loop = asyncio.get_running_loop()
    flight = loop.create_task(_fly(flow, node), context=node.context)
    flight.add_done_callback(flow.run.land)
    flow.run.take_off(flight)
    flow.airborne(node, flight)


async def _fly(flow: Flow, node: Pending) -> None:
    start = time.perf_counter()
    error: BaseException | None = None
    value = None
    try:
        value = await _flown(flow, node)
    except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001  (user code may raise anything)
        error = raised
    node.seconds = start, time.perf_counter()
    flow.record.ended(node)
    flow.complete(node, value, error)


async def _flown(flow: Flow, node: Pending) -> Any:
    fill(node)
    task, policies = node.task, flow.run.policies
    call = BoundCall(node.operator, tuple(node.args), node.kwargs)
    if policies is None:
        value = await awaited_within(start_call(call), task)
    else:
        value = await policies.acall(
            task, None, (call,), lambda given: awaited_within(start_call(*given), task)
        )
    return with_originals(node, value)


def cancel(flights: Sequence[Any]) -> None:
    """Cancels coroutines in flight."""
    known = [flight for flight in flights if flight is not None]
    if known:
        io_loop.call(_cancel, known)


def _cancel(flights: Sequence[Any]) -> None:
    for flight in flights:
        flight.cancel()
