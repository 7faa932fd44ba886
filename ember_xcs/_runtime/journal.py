"""A record of finished host calls that survives the end of the process, and of the machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from ember_xcs._runtime.batched_writes import BatchedWrites
from ember_xcs._runtime.content import Corrupted, Unstorable, decode, encode
from ember_xcs._runtime.run_claims import RunClaims
from ember_xcs._runtime.stored import check, checksum, open_file

if TYPE_CHECKING:
    import os
    import sqlite3
    from types import TracebackType

    from ember_xcs._runtime.batched_writes import Written
    from ember_xcs._runtime.sqlite_file import SQLiteFile

__all__ = ["Journal", "JournalEntry", "JournalRun"]

_APPLICATION: Final = 0x5843534A  # "XCSJ"
_MOST_BYTES: Final = 999_000_000  # SQLite takes rows of a thousand million

_SCHEMA: Final = """
CREATE TABLE calls (
    number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, node TEXT NOT NULL, time REAL NOT NULL,
    value BLOB NOT NULL, checksum BLOB NOT NULL
);
CREATE TABLE runs (key TEXT PRIMARY KEY, time REAL NOT NULL, begun INTEGER NOT NULL)
"""

_RECORD: Final = """
INSERT INTO calls (key, node, time, value, checksum) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET
    node = excluded.node, time = excluded.time, value = excluded.value, checksum = excluded.checksum
"""

_BEGIN: Final = """
INSERT INTO runs VALUES (?, ?, 1) ON CONFLICT (key) DO UPDATE SET begun = begun + 1
"""

_Statement = tuple[str, tuple[Any, ...]]  # and its parameters


class JournalEntry(NamedTuple):
    """A call in a journal.

    Attributes:
        node: The node that made it.
        time: When it was recorded, in seconds since 1970.
        bytes: How many bytes its result takes.
    """

    node: str
    time: float
    bytes: int


class JournalRun(NamedTuple):
    """A run in a journal.

    Attributes:
        key: What the run is known by.
        time: When it was begun for the first time, in seconds since 1970.
        begun: How many times it was begun.
    """

    key: str
    time: float
    begun: int


class Journal:
    """A record of finished host calls in a file, one call each, by key.

    What ``record`` has returned from is on the disk: a process that is killed at any moment, or a
    machine that loses power, loses none of it. Any number of processes and threads may use the
    file at once. Nothing that is read is unpickled or executed. A damaged entry is dropped, and a
    damaged file moved aside, with a ``RuntimeWarning``: those calls have to be made again.

    Args:
        path: The file; missing directories are made, for the user alone.

    Raises:
        XCSError: The file cannot be opened, or is a database of something else.

    Example:
        >>> import tempfile
        >>> with (
        ...     tempfile.TemporaryDirectory() as directory,
        ...     Journal(f"{directory}/run.db") as journal,
        ... ):
        ...     journal.record("first call", "its result", node="ask")
        ...     journal.find("first call"), journal.find("second call")
        ((True, 'its result'), (False, None))
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file = self._opened()
        self._reading = self._opened()  # so that nobody who looks something up waits for the disk
        self._claims = RunClaims(self.path.with_name(f"{self.path.name}.runs"))
        self._writes: BatchedWrites[_Statement] = BatchedWrites(self._write)

    def _opened(self) -> SQLiteFile:
        return open_file(
            self.path, _SCHEMA, _APPLICATION, synchronous="FULL", contents="the journal"
        )

    def begin(self, run_key: str) -> None:
        """Records that a run was begun, or begun again.

        Raises:
            XCSError: The journal is closed, or its file cannot be written.
        """
        self.begin_noting(run_key).wait()

    def begin_noting(self, run_key: str) -> Written:
        """Returns what to wait for until it is recorded that a run was begun, or begun again."""
        return self._writes.add((_BEGIN, (run_key, time.time())))

    def claim(self, run_key: str) -> bool:
        """Returns whether no other process is running a run, which then is this one's.

        Raises:
            XCSError: The system cannot lock the file that tells.
        """
        return self._claims.claim(run_key)

    def disclaim(self, run_key: str) -> None:
        """Lets other processes have a run."""
        self._claims.disclaim(run_key)

    def find(self, key: str) -> tuple[bool, Any]:
        """Returns whether a call is recorded, and its result.

        Raises:
            XCSError: The journal is closed, or its file cannot be read.
        """
        row = self._reading.use(lambda connection: _row(connection, key))
        if row is None:
            return False, None
        node, data, stored = row
        try:
            check(data, stored, key, node)
            return True, decode(data)
        except Corrupted as error:
            delete = "DELETE FROM calls WHERE key = ? AND checksum IS ?"
            self._file.use(lambda connection: connection.execute(delete, (key, stored)))
            self._file.say(f"a call of {node!r} is damaged ({error}); it was dropped")
        except Unstorable as error:
            self._file.say(f"a call of {node!r} is recorded, and has to be made again: {error}")
        return False, None

    def record(self, key: str, value: Any, node: str) -> None:
        """Records the result of a call; it is on the disk when this returns.

        Args:
            key: What the call is known by; what was recorded under it before is replaced.
            value: The result.
            node: The node that made the call.

        Raises:
            Unstorable: The result cannot be stored.
            XCSError: The journal is closed, or its file cannot be written.
        """
        self.begin_recording(key, value, node).wait()

    def begin_recording(self, key: str, value: Any, node: str) -> Written:
        """Returns what to wait for until a result is on the disk; as it is now, if it is changed.

        Args:
            key: What the call is known by; what was recorded under it before is replaced.
            value: The result.
            node: The node that made the call.

        Raises:
            Unstorable: The result cannot be stored.
        """
        data = encode(value)
        if len(data) > _MOST_BYTES:
            raise Unstorable(
                f"it takes {len(data)} bytes, and a journal takes {_MOST_BYTES} of one call; store "
                "it elsewhere, and return where it is"
            )
        node = node.encode("utf-8", "backslashreplace").decode()
        row = (key, node, time.time(), data, checksum(key, node, data))
        return self._writes.add((_RECORD, row))

    def _write(self, statements: list[_Statement]) -> None:
        self._file.use(lambda connection: self._execute(connection, statements))

    def _execute(self, connection: sqlite3.Connection, statements: list[_Statement]) -> None:
        with self._file.transaction(connection):
            for statement in statements:
                connection.execute(*statement)

    def entries(self) -> list[JournalEntry]:
        """Returns the calls that are recorded, in the order in which they were; no contents."""
        select = "SELECT node, time, length(value) FROM calls ORDER BY number"
        rows = self._reading.use(lambda connection: connection.execute(select).fetchall())
        return [JournalEntry(*row) for row in rows]

    def runs(self) -> list[JournalRun]:
        """Returns the runs that were begun, the first one first."""
        select = "SELECT key, time, begun FROM runs ORDER BY time, key"
        rows = self._reading.use(lambda connection: connection.execute(select).fetchall())
        return [JournalRun(*row) for row in rows]

    def close(self) -> None:
        """Closes the journal; what was recorded stays."""
        self._file.close()
        self._reading.close()
        self._claims.close()

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
        return f"Journal({str(self.path)!r})"


def _row(connection: sqlite3.Connection, key: str) -> Any:
    select = "SELECT node, value, checksum FROM calls WHERE key = ?"
    return connection.execute(select, (key,)).fetchone()
