"""Operators that remember what they were asked, for tests that count calls."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import ember_xcs as xcs


class Calls:
    """A list of what operators were called with; ``calls.host(f)`` makes one that fills it."""

    def __init__(self) -> None:
        self._seen: list[Any] = []
        self._lock = threading.Lock()

    def add(self, value: Any) -> None:
        with self._lock:
            self._seen.append(value)

    @property
    def seen(self) -> list[Any]:
        with self._lock:
            return list(self._seen)

    @property
    def sorted(self) -> list[Any]:
        return sorted(self.seen)

    def __xcs_identity__(self) -> str:
        """What results depend on, for caches and journals: not on who counts."""
        return "calls"

    def __len__(self) -> int:
        return len(self.seen)

    def clear(self) -> None:
        with self._lock:
            self._seen.clear()

    def host(self, function: Callable[..., Any] | None = None, /, **settings: Any) -> Any:
        """``xcs.host``, with the first argument of each call remembered."""
        if function is None:
            return lambda f: self.host(f, **settings)
        calls = self

        def counted(*args: Any, **kwargs: Any) -> Any:
            calls.add((args or tuple(kwargs.values()) or (None,))[0])
            return function(*args, **kwargs)

        counted.__name__ = function.__name__
        counted.__wrapped__ = function  # type: ignore[attr-defined]
        counted.__annotations__ = function.__annotations__
        return xcs.host(**settings)(counted)
