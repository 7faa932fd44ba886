"""What ``jit`` has done: calls, compilations, hits and misses."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

__all__ = ["JITStats", "StrategyStats"]


@dataclasses.dataclass
class StrategyStats:
    """What one strategy has done.

    Attributes:
        tries: How often it was asked to compile.
        failures: How often it could not.
        compile_seconds: How long that took altogether.
    """

    tries: int = 0
    failures: int = 0
    compile_seconds: float = 0.0


class JITStats:
    """Statistics of one function, or of all."""

    def __init__(self) -> None:
        self.calls = 0
        self.execution_seconds = 0.0
        self.hits = 0
        self.misses = 0
        self.strategies: dict[str, StrategyStats] = {}
        self._lock = threading.Lock()

    def tried(self, strategy: str, seconds: float, *, failed: bool) -> None:
        """Counts one compilation."""
        with self._lock:
            entry = self.strategies.setdefault(strategy, StrategyStats())
            entry.tries += 1
            entry.failures += failed
            entry.compile_seconds += seconds

    def looked_up(self, *, hit: bool) -> None:
        """Counts one look into the cache."""
        with self._lock:
            if hit:
                self.hits += 1
            else:
                self.misses += 1

    def called(self, seconds: float) -> None:
        """Counts one call."""
        with self._lock:
            self.calls += 1
            self.execution_seconds += seconds

    def as_dict(self, size: int, evictions: int) -> dict[str, Any]:
        """Returns all figures by name."""
        return {
            "calls": self.calls,
            "execution_seconds": self.execution_seconds,
            "hits": self.hits,
            "misses": self.misses,
            "size": size,
            "evictions": evictions,
            "strategies": {k: dataclasses.asdict(v) for k, v in self.strategies.items()},
        }
