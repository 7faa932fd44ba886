"""The form of the messages of graph errors: what was given, the rule, the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["did_you_mean", "explain", "listing", "path"]

_SHOWN = 12
_SEARCHED = 2000


def explain(given: str, rule: str, remedy: str) -> str:
    """Returns a message of three sentences: what came in, which rule it breaks, what to do."""
    return f"{given}. {rule}. {remedy}."


def listing(names: Iterable[str]) -> str:
    """Returns names as ``'a', 'b'``, shortened where there are many, or ``none``."""
    known = list(names)
    shown = ", ".join(repr(name) for name in known[:_SHOWN]) or "none"
    return f"{shown} and {len(known) - _SHOWN} more" if len(known) > _SHOWN else shown


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns ``" (did you mean 'x'?)"`` for the closest known name, or nothing."""
    candidates = list(known)
    close = difflib.get_close_matches(name, candidates, 1) if len(candidates) < _SEARCHED else []
    return f" (did you mean {close[0]!r}?)" if close else ""


def path(ids: Iterable[str]) -> str:
    """Returns ids as ``a -> b -> c``, with the middle of a long path left out."""
    steps = list(ids)
    if len(steps) > _SHOWN:
        left_out = f"... {len(steps) - _SHOWN} more ..."
        steps = [*steps[: _SHOWN // 2], left_out, *steps[-_SHOWN // 2 :]]
    return " -> ".join(steps)
