"""The steps of a run whose calls are measured."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax

from ember_xcs._lower.plan import TaskKind

if TYPE_CHECKING:
    from ember_xcs._runtime.layout import Step
    from ember_xcs._runtime.run import Run

__all__ = ["observed_steps"]


def observed_steps(run: Run) -> tuple[Step | None, ...]:
    """Returns the steps of a run's layout, with functions that record their calls in the run."""
    return tuple(
        step and (_recording(run, rank, step[0]), *step[1:])
        for rank, step in enumerate(run.layout.steps)
    )


def _recording(run: Run, rank: int, function: Callable[..., Any]) -> Callable[..., Any]:
    is_region = run.layout.tasks[rank].kind is TaskKind.REGION  # JAX returns before it is done

    def recording(*arguments: Any) -> Any:
        start = time.perf_counter()
        try:
            result = function(*arguments)
            return jax.block_until_ready(result) if is_region else result
        finally:
            run.record(rank, None, threading.current_thread().name, start)

    return recording
