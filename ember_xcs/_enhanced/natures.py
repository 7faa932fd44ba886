"""Which objects besides operators a program may call at the same time as others.

It is apart from what calls them, since types are made known when the library is imported, and the
rest of the strategy is loaded when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["nature_of", "register_concurrent"]

_concurrent: list[tuple[type, Callable[[Any], Any]]] = []


def register_concurrent(kind: type, nature: Callable[[Any], Any]) -> None:
    """Has calls of objects of a type overlap as those of operators do.

    Args:
        kind: The type.
        nature: Tells what a call of such an object is: ``"host"`` (operator calls alone),
            ``"pure"``, ``"unknown"``, or a plain function that it stands for.
    """
    _concurrent.append((kind, nature))


def nature_of(kind: type) -> Callable[[Any], Any] | None:
    """Returns what tells the nature of objects of a type; None if it is not known."""
    return next((nature for known, nature in _concurrent if issubclass(kind, known)), None)
