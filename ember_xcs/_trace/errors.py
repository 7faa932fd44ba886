"""JAX's tracing errors, with the user's line and a remedy."""

from __future__ import annotations

import traceback

from ember_xcs._trace.user_line import frame_line, is_foreign
from ember_xcs.errors import TracingError

__all__ = ["as_tracing_error", "line_of", "mixed_handles_error"]


def line_of(error: BaseException) -> str | None:
    """Returns the innermost line of the user's code in the traceback of an error."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not is_foreign(frame.filename)]
    return frame_line(own[-1].filename, own[-1].lineno or 0) if own else None


def as_tracing_error(error: Exception, name: str) -> TracingError:
    """Returns the error that says why a function cannot be staged."""
    what = type(error).__name__
    first = str(error).strip().splitlines()[0]
    return TracingError(
        f"{name!r} cannot be staged: while it was run with abstract values, JAX raised {what}: "
        f"{first} Python control flow cannot depend on values then: use xcs.cond, "
        "xcs.while_loop or jnp.where, declare the argument static (static_argnames), or take the "
        "code into a @host operator.",
        line_of(error),
    )


def mixed_handles_error(error: TypeError, name: str) -> TracingError:
    """Returns the error that says why a loop of JAX does not take host values as they are."""
    return TracingError(
        f"{name!r} cannot be staged: {str(error).strip()}\n"
        "Functions of jax.numpy (stack, where, ...) return host values as bare arrays, and "
        "operators return them as xcs.HostValue. Use the loop or branch of xcs, which takes both, "
        "or wrap the array: xcs.HostValue(jnp.stack(texts)).",
        line_of(error),
    )
