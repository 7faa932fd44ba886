"""Results of host calls by what they depend on, in memory or in a directory."""

from __future__ import annotations

import collections
import contextlib
import os
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from ember_xcs._runtime.content import Corrupted, Unstorable, decode, encode
from ember_xcs._runtime.stored import check, checksum, open_file
from ember_xcs.errors import OptionsError, XCSError

if TYPE_CHECKING:
    import sqlite3
    from types import TracebackType

__all__ = ["ResultCache", "repeating_samples", "samples_are_repeated"]

_FILE: Final = "results.sqlite"
_APPLICATION: Final = 0x58435331  # "XCS1"
_MOST_TOUCHED: Final = 256

_SCHEMA: Final = """
CREATE TABLE results (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, checksum BLOB NOT NULL,
    size INTEGER NOT NULL, used INTEGER NOT NULL
);
CREATE INDEX results_by_use ON results (used);
CREATE TABLE total (bytes INTEGER NOT NULL, entries INTEGER NOT NULL);
INSERT INTO total VALUES (0, 0);
CREATE TRIGGER results_added AFTER INSERT ON results BEGIN
    UPDATE total SET bytes = bytes + new.size, entries = entries + 1;
END;
CREATE TRIGGER results_removed AFTER DELETE ON results BEGIN
    UPDATE total SET bytes = bytes - old.size, entries = entries - 1;
END
"""


_repeats_samples: ContextVar[bool] = ContextVar("ember_xcs_repeats_samples", default=False)


@contextlib.contextmanager
def repeating_samples() -> Iterator[None]:
    """Has the cache answer calls of stochastic operators, too, in the runs of a block."""
    token = _repeats_samples.set(True)
    try:
        yield
    finally:
        _repeats_samples.reset(token)


samples_are_repeated = _repeats_samples.get


class ResultCache:
    """A store of results of host calls, by the content of the call.

    Values are kept encoded: a result that is changed after it was stored, or after it was got, does
    not change in the cache. In a directory they stay from one run to the next, and any number of
    processes and threads may use it at once. Nothing that is read is unpickled or executed. A
    damaged entry is dropped, and a damaged file moved aside, with a ``RuntimeWarning``.

    Args:
        path: A directory, made for the user alone if it is missing; the results go into the file
            ``results.sqlite`` in it. None keeps them in memory, for this process.
        max_bytes: How many bytes the encoded values may take together; the least recently used go
            first. In a directory, what other processes have got counts as used once they put
            something. None for no limit.

    Raises:
        OptionsError: ``max_bytes`` is no positive number, or ``path`` is a file.
        XCSError: The file cannot be opened.

    Example:
        >>> with ResultCache() as cache:
        ...     cache.put("greeting", ["hello"])
        ...     cache.get("greeting"), cache.get("farewell")
        True
        ((True, ['hello']), (False, None))
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, max_bytes: int | None = None
    ) -> None:
        if max_bytes is not None and max_bytes < 1:
            raise OptionsError(f"max_bytes={max_bytes!r} must be a number of bytes >= 1, or None.")
        self.path = None if path is None else Path(path)
        self.max_bytes = max_bytes
        self._counts: collections.Counter[str] = collections.Counter()
        self._mutex = _Mutex()
        if self.path is None:
            self._store: _Memory | _Directory = _Memory(max_bytes)
        else:
            self._store = _Directory(self.path, max_bytes)

    def get(self, key: str) -> tuple[bool, Any]:
        """Returns whether there is a result for a key, and the result; each time a new copy.

        A result whose class is not loaded here, or has changed, counts as absent and unstorable.

        Raises:
            XCSError: The cache is closed, or its file cannot be read.
        """
        try:
            data = self._store.get(key)
            found = (False, None) if data is None else (True, decode(data))
        except Corrupted as error:
            self._count("corrupted")
            self._store.drop(key, str(error))
            found = (False, None)
        except Unstorable:
            self._count("unstorable")
            found = (False, None)
        self._count("hits" if found[0] else "misses")
        return found

    def put(self, key: str, value: Any) -> bool:
        """Stores a result, and tells whether it could be.

        Returns:
            False, counted as unstorable, if the value cannot be encoded or takes more than
            ``max_bytes``.

        Raises:
            XCSError: The cache is closed, or its file cannot be written.
        """
        try:
            data = encode(value)
        except Unstorable:
            self._count("unstorable")
            return False
        if self.max_bytes is not None and len(data) > self.max_bytes:
            self._count("unstorable")
            return False
        self._count("evictions", self._store.put(key, data))
        self._count("puts")
        return True

    def _count(self, name: str, number: int = 1) -> None:
        with self._mutex.lock:
            self._counts[name] += number

    def __len__(self) -> int:
        return self._store.total().entries

    def clear(self) -> None:
        """Removes all results, of other processes too."""
        self._store.clear()

    def stats(self) -> dict[str, int]:
        """Returns what this object has counted, and what the cache holds.

        ``hits``, ``misses``, ``puts``, ``evictions``, ``unstorable`` and ``corrupted`` were counted
        here since it was made; ``bytes`` and ``entries`` are of the whole cache.
        """
        total = self._store.total()
        names = ("hits", "misses", "puts", "evictions", "unstorable", "corrupted")
        counts = {name: self._counts[name] for name in names}
        counts["corrupted"] += self._store.damaged_files
        return {**counts, "bytes": total.bytes, "entries": total.entries}

    def close(self) -> None:
        """Closes the cache; results in a directory stay."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        place = "in memory" if self.path is None else repr(str(self.path))
        return f"ResultCache({place}, max_bytes={self.max_bytes})"


class _Total(NamedTuple):
    """What a store holds."""

    bytes: int
    entries: int


class _Mutex:
    """A lock that is free in a forked child, though a thread of the parent may have held it."""

    def __init__(self) -> None:
        self._process, self._lock = os.getpid(), threading.Lock()

    @property
    def lock(self) -> threading.Lock:
        if self._process != os.getpid():
            self._process, self._lock = os.getpid(), threading.Lock()
        return self._lock


class _Memory:
    """Encoded values in a dict, the least recently used first."""

    damaged_files = 0

    def __init__(self, max_bytes: int | None) -> None:
        self._max_bytes = max_bytes
        self._entries: collections.OrderedDict[str, bytes] = collections.OrderedDict()
        self._bytes = 0
        self._closed = False
        self._mutex = _Mutex()

    @property
    def _lock(self) -> threading.Lock:
        if self._closed:
            raise XCSError("this ResultCache is closed; make another one")
        return self._mutex.lock

    def get(self, key: str) -> bytes | None:
        with self._lock:
            data = self._entries.get(key)
            if data is not None:
                self._entries.move_to_end(key)
            return data

    def put(self, key: str, data: bytes) -> int:
        with self._lock:
            self._bytes += len(data) - len(self._entries.pop(key, b""))
            self._entries[key] = data
            evicted = 0
            while self._max_bytes is not None and self._bytes > self._max_bytes:
                _, oldest = self._entries.popitem(last=False)
                self._bytes -= len(oldest)
                evicted += 1
            return evicted

    def drop(self, key: str, reason: str) -> None:
        raise AssertionError(f"memory holds what was encoded here, yet {key} is damaged: {reason}")

    def total(self) -> _Total:
        with self._lock:
            return _Total(self._bytes, len(self._entries))

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
            self._bytes = 0

    def close(self) -> None:
        if not self._closed:
            self.clear()
        self._closed = True


class _Directory:
    """Encoded values in the SQLite file of a directory."""

    def __init__(self, directory: Path, max_bytes: int | None) -> None:
        if directory.exists() and not directory.is_dir():
            raise OptionsError(
                f"path={str(directory)!r} is a file, and a ResultCache takes a directory; name "
                "one, which may be new."
            )
        self._max_bytes = max_bytes
        self._touched: dict[str, int] = {}
        self._file = open_file(
            directory / _FILE,
            _SCHEMA,
            _APPLICATION,
            synchronous="NORMAL",
            contents="the result cache",
        )

    @property
    def damaged_files(self) -> int:
        return self._file.moved_aside

    def get(self, key: str) -> bytes | None:
        return self._file.use(lambda connection: self._get(connection, key))

    def _get(self, connection: sqlite3.Connection, key: str) -> bytes | None:
        row = connection.execute(
            "SELECT value, checksum FROM results WHERE key = ?", (key,)
        ).fetchone()
        if row is None:
            return None
        data, stored = row
        check(data, stored, key)
        if self._max_bytes is not None:
            self._touched[key] = time.time_ns()
            if len(self._touched) >= _MOST_TOUCHED:
                with self._file.transaction(connection):
                    self._write_touched(connection)
        return bytes(data)

    def _write_touched(self, connection: sqlite3.Connection) -> None:
        """Says what was used since the last time: at each get it would cost a transaction."""
        touched, self._touched = self._touched, {}
        uses = [(used, key, used) for key, used in touched.items()]
        connection.executemany("UPDATE results SET used = ? WHERE key = ? AND used < ?", uses)

    def put(self, key: str, data: bytes) -> int:
        return self._file.use(lambda connection: self._put(connection, key, data))

    def _put(self, connection: sqlite3.Connection, key: str, data: bytes) -> int:
        row = (key, data, checksum(key, data), len(data), time.time_ns())
        with self._file.transaction(connection):
            self._write_touched(connection)
            connection.execute("DELETE FROM results WHERE key = ?", (key,))
            connection.execute("INSERT INTO results VALUES (?, ?, ?, ?, ?)", row)
            return self._evict(connection)

    def _evict(self, connection: sqlite3.Connection) -> int:
        evicted = 0
        while self._max_bytes is not None and _total(connection).bytes > self._max_bytes:
            oldest = "SELECT key FROM results ORDER BY used, key LIMIT 1"
            connection.execute(f"DELETE FROM results WHERE key = ({oldest})")
            evicted += 1
        return evicted

    def drop(self, key: str, reason: str) -> None:
        """Removes a damaged entry, and says so."""
        self._file.use(lambda c: c.execute("DELETE FROM results WHERE key = ?", (key,)))
        self._file.say(f"the entry {key[:16]} is damaged ({reason}); it was dropped")

    def total(self) -> _Total:
        return self._file.use(_total)

    def clear(self) -> None:
        self._file.use(lambda connection: connection.execute("DELETE FROM results"))

    def close(self) -> None:
        self._file.close()


def _total(connection: sqlite3.Connection) -> _Total:
    return _Total(*connection.execute("SELECT bytes, entries FROM total").fetchone())
