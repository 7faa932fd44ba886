"""What the earlier stages ask of the runtime: to run a coroutine, to run the graph of a loop body.

They know the runtime only as functions that are registered here, so that imports go one way.
"""

from __future__ import annotations

import asyncio
import contextvars
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from ember_xcs._core.calls import register_coroutine_runner, register_graph_runner
from ember_xcs._core.options import resolve_options
from ember_xcs._lower.lower import lower
from ember_xcs._runtime.io_loop import io_loop
from ember_xcs._runtime.supervise import execute_plan

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from ember_xcs._graph import XCSGraph

__all__ = ["run_coroutine", "run_graph"]


def run_coroutine(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Returns the result of a coroutine, run on the I/O loop; the calling thread waits."""
    done: Future[Any] = Future()
    context = contextvars.copy_context()

    async def finish() -> None:
        try:
            done.set_result(await coroutine)
        except BaseException as error:
            done.set_exception(error)
            if not isinstance(error, Exception):
                raise

    def begin() -> None:
        running.append(asyncio.get_running_loop().create_task(finish(), context=context))

    running: list[asyncio.Task[None]] = []
    io_loop.call(begin)
    try:
        return done.result()
    except KeyboardInterrupt:
        io_loop.call(lambda: [task.cancel() for task in running])
        raise


def run_graph(graph: XCSGraph, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the outputs of a graph by name, run under the options of the context."""
    options = resolve_options()
    plan = lower(graph, options)
    return execute_plan(plan, [inputs[name] for name in plan.inputs], options).results


register_coroutine_runner(run_coroutine, io_loop.is_current)
register_graph_runner(run_graph)
