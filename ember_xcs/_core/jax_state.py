"""Whether JAX is tracing just now: the one place that asks ``jax.extend`` for it."""

from __future__ import annotations

import threading
from typing import Any

import jax.extend.core as jex_core

__all__ = ["under_jax_trace"]


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
