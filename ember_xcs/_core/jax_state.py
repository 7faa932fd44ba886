"""What JAX is set to on this thread, and whether it is tracing.

JAX keeps the contexts of its settings (``with jax.enable_x64(True):``) for each thread, so they do
not follow work into other threads by themselves.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import jax
import jax.extend.core as jex_core

__all__ = ["JaxSettings", "call_under", "jax_settings", "under_jax_trace"]

T = TypeVar("T")
JaxSettings: TypeAlias = tuple[Any, Any, Any]
"""Whether numbers have 64 bits, the precision of matrix products, the device of new arrays."""

_CONTEXTS: tuple[Callable[[Any], Any], ...] = (
    jax.enable_x64,
    jax.default_matmul_precision,
    jax.default_device,
)


def _clean_state() -> Any:
    """The state of a thread that traces nothing: asked of a new one, as this one may be tracing."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(jex_core.get_opaque_trace_state()))
    thread.start()
    thread.join()
    return found[0]


_CLEAN = _clean_state()


def under_jax_trace() -> bool:
    """Whether a JAX transformation is tracing on this thread."""
    return bool(jex_core.get_opaque_trace_state() != _CLEAN)


def jax_settings() -> JaxSettings:
    """Returns the settings of JAX on this thread that decide what a program computes."""
    config: Any = jax.config  # its attributes are made at run time
    return (
        config.jax_enable_x64,
        config.jax_default_matmul_precision,
        config.jax_default_device,
    )


def call_under(settings: JaxSettings, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Calls a function under settings of JAX, for work that another thread has asked for."""
    here = jax_settings()
    if here == settings:
        return function(*args, **kwargs)
    with contextlib.ExitStack() as stack:
        for context, wanted, present in zip(_CONTEXTS, settings, here, strict=True):
            if wanted != present:
                stack.enter_context(context(wanted))
        return function(*args, **kwargs)
