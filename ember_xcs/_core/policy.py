"""How the calls of a host operator are to be run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from ember_xcs._core.retry import Retry
from ember_xcs.errors import OptionsError

__all__ = ["EXECUTORS", "HostPolicy"]

EXECUTORS = ("thread", "async", "process", "inline")


@dataclasses.dataclass(frozen=True, slots=True)
class HostPolicy:
    """What a host operator promises and asks of the runtime.

    Attributes:
        executor: ``"thread"``, ``"async"``, ``"process"`` (CPU-bound Python) or ``"inline"``
            (cheap, never blocks).
        deterministic: Whether equal inputs give equal results, so that calls may be merged.
        side_effects: Whether calls must happen even where the result is unused, in program order.
        timeout_seconds: The most that one call may take, in seconds; None for no limit.
        max_batch_size: The most calls that ``forward_batch`` takes at once; None for no limit.
        batch_window_seconds: How long a call that is ready waits for others to go to
            ``forward_batch`` with, at most, in seconds; 0 for not at all; None for what the options
            of a run say.
        resource: The name of what its calls use, for limits; None for nothing that is limited.
        retry: How failed calls are tried again; None for what the options of a run say.
        vjp: ``vjp(inputs, output, cotangent) -> cotangents`` for ``jax.grad``; None: zero.
    """

    executor: str = "thread"
    deterministic: bool = False
    side_effects: bool = False
    timeout_seconds: float | None = None
    max_batch_size: int | None = None
    vjp: Callable[..., Any] | None = None
    resource: str | None = None
    retry: Retry | None = None
    batch_window_seconds: float | None = None

    @property
    def is_repeatable(self) -> bool:
        """Whether a call may be made again where the first was lost."""
        return self.deterministic and not self.side_effects

    def __post_init__(self) -> None:
        """Checks the values."""
        if self.executor not in EXECUTORS:
            raise OptionsError(
                f"executor={self.executor!r} is not one of {', '.join(map(repr, EXECUTORS))}."
            )
        if self.timeout_seconds is not None and not self.timeout_seconds > 0:
            raise OptionsError(f"timeout={self.timeout_seconds!r} must be a number of seconds > 0.")
        if self.max_batch_size is not None and self.max_batch_size < 1:
            raise OptionsError(f"max_batch_size={self.max_batch_size!r} must be at least 1.")
        check_window(self.batch_window_seconds)
        resource: Any = self.resource
        if resource is not None and not (isinstance(resource, str) and resource):
            raise OptionsError(f"resource={self.resource!r} is to be the name of a resource.")
        retry: Any = self.retry
        if retry is not None and not isinstance(retry, Retry):
            raise OptionsError(f"retry={self.retry!r} is to be an xcs.Retry.")


def check_window(seconds: Any) -> None:
    """Raises an error if this is no time for calls to wait for others.

    Raises:
        OptionsError: It is not.
    """
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if seconds is not None and not (is_number and 0 <= seconds < math.inf):
        raise OptionsError(
            f"batch_window_seconds={seconds!r} is to be a number of seconds of at least 0, or None."
        )
