"""What has been compiled, by callable and abstract signature."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any

from ember_xcs.errors import OptionsError

__all__ = ["JITCache"]


class JITCache:
    """A cache of compiled programs: the least recently used goes first.

    It can be shared by threads and by functions. A program is compiled once though many threads
    ask for it at once; a failed compilation is forgotten, so that the next call tries again.

    Args:
        max_size: The most programs that it holds.

    Example:
        >>> cache = JITCache(max_size=2)
        >>> [cache.get_or_make(key, lambda: key.upper()) for key in ("a", "b", "a", "c")]
        ['A', 'B', 'A', 'C']
        >>> cache.hits, cache.misses, cache.evictions, len(cache)
        (1, 3, 1, 2)
    """

    def __init__(self, max_size: int = 256) -> None:
        if max_size < 1:
            raise OptionsError(f"max_size={max_size!r} must be at least 1.")
        self.max_size = max_size
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        self._entries: OrderedDict[Hashable, Future[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get_or_make(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Returns the program under ``key``, made by ``make`` if it is not there."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                self.misses += 1
                entry = self._entries[key] = Future()
                self._evict()
                is_mine = True
            else:
                self.hits += 1
                self._entries.move_to_end(key)
                is_mine = False
        return self._made(key, entry, make) if is_mine else entry.result()

    def _made(self, key: Hashable, entry: Future[Any], make: Callable[[], Any]) -> Any:
        try:
            program = make()
        except BaseException as error:
            with self._lock:
                if self._entries.get(key) is entry:
                    del self._entries[key]
            entry.set_exception(error)
            raise
        entry.set_result(program)
        return program

    def _evict(self) -> None:
        while len(self._entries) > self.max_size:
            self._entries.popitem(last=False)
            self.evictions += 1

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self) -> list[Any]:
        """Returns the programs that are compiled, the least recently used first."""
        with self._lock:
            done = [e for e in self._entries.values() if e.done()]
        return [entry.result() for entry in done if entry.exception() is None]

    def discard(self, belongs: Callable[[Hashable], bool]) -> None:
        """Forgets the programs whose keys ``belongs`` accepts."""
        with self._lock:
            for key in [key for key in self._entries if belongs(key)]:
                del self._entries[key]

    def clear(self) -> None:
        """Forgets all programs."""
        self.discard(lambda _key: True)
