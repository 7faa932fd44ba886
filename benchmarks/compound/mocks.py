"""What the programs' models and tools share: latencies and texts that depend on the question."""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

__all__ = ["awaited", "digest", "pause", "sleep", "text"]

# What latencies are multiplied by: 0 to see what programs give, whatever it takes.
factor = 1.0

WORDS = (
    *("amber", "brisk", "cedar", "delta", "ember", "flint", "grove"),
    *("heron", "iris", "jade", "kelp", "lunar", "maple", "nova"),
)

_threads = ThreadPoolExecutor(64, "by-hand")


def digest(*values: Any) -> int:
    """A number that depends on the values, the same in each process."""
    return zlib.crc32(repr(values).encode())


def text(*values: Any, words: int = 6) -> str:
    """Some words that depend on the values."""
    number = digest(*values)
    return " ".join(WORDS[(number >> 2 * k) % len(WORDS)] for k in range(words))


def _seconds(least: float, values: tuple[Any, ...]) -> float:
    """A latency from ``least`` to twice that, in seconds."""
    return factor * least * (1 + digest("latency", *values) % 100 / 100)


async def pause(least: float, *values: Any) -> None:
    """Waits as a call over the network does, without a thread."""
    await asyncio.sleep(_seconds(least, values))


def sleep(least: float, *values: Any) -> None:
    """Waits as a call does that blocks its thread."""
    time.sleep(_seconds(least, values))


async def awaited(operator: Any, *args: Any, **kwargs: Any) -> Any:
    """The result of an operator's own function, for programs by hand.

    A function that blocks runs in one of enough threads: those of ``asyncio.to_thread`` are few
    on a small machine.
    """
    function = functools.partial(operator.__wrapped__, *args, **kwargs)
    if inspect.iscoroutinefunction(operator.__wrapped__):
        return await function()
    return await asyncio.get_running_loop().run_in_executor(_threads, function)
