"""Pydantic models, told apart without loading pydantic.

Whoever hands over a model has loaded pydantic to define it. So it is looked up among the loaded
modules, and ``import ember_xcs`` does not pay for it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pydantic

__all__ = ["is_model", "is_model_class", "validation_errors"]


def is_model_class(value: Any) -> bool:
    """Whether a value is a class of pydantic models."""
    base = _loaded("pydantic.main", "BaseModel")
    return base is not None and isinstance(value, type) and issubclass(value, base)


def is_model(value: Any) -> bool:
    """Whether a value is a pydantic model."""
    return is_model_class(type(value))


def validation_errors() -> tuple[type[pydantic.ValidationError], ...]:
    """Returns what pydantic raises for an invalid value, for an ``except``; nothing if not loaded.

    Example:
        >>> try:
        ...     int("three")
        ... except validation_errors():
        ...     print("a model was invalid")
        ... except ValueError:
        ...     print("no model")
        no model
    """
    error = _loaded("pydantic_core", "ValidationError")
    return () if error is None else (error,)


def _loaded(module: str, name: str) -> Any:
    """A name of a module; None if it is not loaded, or not so far yet in another thread."""
    return getattr(sys.modules.get(module), name, None)
