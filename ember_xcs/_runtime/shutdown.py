"""The end of what the runtime keeps running between runs."""

from __future__ import annotations

from ember_xcs._runtime.io_loop import io_loop
from ember_xcs._runtime.limits import close_alarms
from ember_xcs._runtime.processes import processes
from ember_xcs._runtime.threads import threads

__all__ = ["shutdown_pools"]


def shutdown_pools(timeout_seconds: float = 5.0) -> list[str]:
    """Ends the idle threads and processes and the I/O loop; all start again when needed.

    Args:
        timeout_seconds: How long to wait for each, in seconds.

    Returns:
        The names of the threads and processes that are still busy, sorted.
    """
    busy = threads.close(timeout_seconds)
    busy += processes.close(timeout_seconds)
    busy += io_loop.close(timeout_seconds)
    busy += close_alarms(timeout_seconds)
    return sorted(busy)
