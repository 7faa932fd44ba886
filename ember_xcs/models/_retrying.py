"""Who tries a failed call of a model again: the model itself, or the run that it is part of."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

__all__ = ["retries_itself", "retrying"]

_itself: ContextVar[bool] = ContextVar("ember_xcs_model_retries_itself", default=True)
retries_itself = _itself.get


@contextlib.contextmanager
def retrying(*, itself: bool) -> Iterator[None]:
    """Says for a block whether models are to try their failed calls again themselves."""
    token = _itself.set(itself)
    try:
        yield
    finally:
        _itself.reset(token)
