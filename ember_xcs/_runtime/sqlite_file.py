"""One SQLite file that several processes and threads read and write at once.

Invariants:

- A process has one connection, used by one thread at a time. It is closed before a fork: SQLite
  keeps locks in memory that a child would take for its own, and parent and child open new ones.
- Before and after each use the file at the path is compared with the one that is open. If another
  process has moved a damaged file aside and begun a new one, the work is done (again) on that.
- Creating, checking and moving aside happen under a lock beside the file, so that two processes
  that find the same damage do not move each other's new file away.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import warnings
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from ember_xcs.errors import XCSError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["SQLiteFile"]

_BUSY_SECONDS: Final = 30.0
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_COMPANIONS: Final = ("", "-wal", "-shm")

T = TypeVar("T")


class SQLiteFile:
    """A SQLite database in WAL mode at a path; damage is moved aside and said.

    Args:
        path: The file; missing directories are made, for the user alone.
        schema: What makes its tables in a new file.
        application: A number that tells a file with this schema from other databases.
        synchronous: ``"NORMAL"`` survives the end of a process, ``"FULL"`` of the machine too.
        contents: What the file holds, for messages.

    Raises:
        XCSError: The file cannot be opened.
    """

    def __init__(
        self, path: Path, schema: str, application: int, *, synchronous: str, contents: str
    ) -> None:
        self.path = path.absolute()
        self.moved_aside = 0
        self._schema = schema
        self._application = application
        self._synchronous = synchronous
        self._contents = contents
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None
        self._closed = False
        with _fork_lock:
            _files.add(self)
        self.use(lambda _connection: None)

    def use(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Returns what ``work`` returns for a connection in autocommit mode.

        Where the file turns out to be damaged, ``work`` is done again on a new one.

        Raises:
            XCSError: The file was closed, or SQLite cannot read or write it.
        """
        with self._lock:
            if self._closed:
                raise XCSError(f"{self._contents} {self.path} is closed; open it again to use it")
            try:
                return self._work(work)
            except (sqlite3.Error, OSError) as error:
                raise XCSError(
                    f"{self._contents} {self.path} cannot be used: {error}; see that the directory "
                    "is on a local disk with free space and can be written to"
                ) from error

    def _work(self, work: Callable[[sqlite3.Connection], T]) -> T:
        while True:
            try:
                result = work(self._current())
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._replace_damaged(str(error))
                continue
            if self._opened == _identity(self.path):
                return result

    @contextlib.contextmanager
    def transaction(self, connection: sqlite3.Connection) -> Iterator[None]:
        """Makes what is done within it happen wholly or not at all."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Closes the file; what was written stays."""
        with self._lock:
            self._closed = True
            self._disconnect()

    def say(self, what: str) -> None:
        """Warns about the file."""
        warnings.warn(f"{self._contents} {self.path}: {what}", RuntimeWarning, stacklevel=2)

    def before_fork(self) -> None:
        """Closes the connection, and keeps threads from opening another."""
        self._lock.acquire()
        self._disconnect()

    def after_fork(self) -> None:
        """Lets threads open connections again."""
        self._lock.release()

    def _current(self) -> sqlite3.Connection:
        """The connection to the file that is at the path now."""
        if self._connection is not None and self._opened == _identity(self.path):
            return self._connection
        self._disconnect()
        self._make_directory()
        with _exclusively(self.path):
            try:
                self._connection = self._connect()
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._move_aside(str(error))
                self._connection = self._connect()
            self._opened = _identity(self.path)
        return self._connection

    def _make_directory(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _connect(self) -> sqlite3.Connection:
        """Opens the file, and sees that it is a whole database with our tables."""
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = sqlite3.connect(
            self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            connection.text_factory = _readable
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA synchronous={self._synchronous}")
            connection.execute("PRAGMA trusted_schema=OFF")
            self._make_tables(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _make_tables(self, connection: sqlite3.Connection) -> None:
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        found = connection.execute("PRAGMA application_id").fetchone()[0]
        if tables and found != self._application:
            raise XCSError(
                f"{self.path} is a SQLite database, and not {self._contents} of this version of "
                "ember_xcs; name another file"
            )
        if not tables:
            connection.executescript(
                f"BEGIN; {self._schema}; PRAGMA application_id={self._application}; COMMIT;"
            )

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _replace_damaged(self, reason: str) -> None:
        """Moves the file aside, unless another process has done so."""
        self._disconnect_damaged()
        with _exclusively(self.path):
            if self._opened == _identity(self.path):
                self._move_aside(reason)

    def _disconnect_damaged(self) -> None:
        with contextlib.suppress(sqlite3.DatabaseError):  # what closing would write is damaged too
            self._disconnect()

    def _move_aside(self, reason: str) -> None:
        mark = f".{time.time_ns()}.corrupt"
        for companion in _COMPANIONS:
            part = Path(f"{self.path}{companion}")
            if part.exists():
                part.rename(f"{self.path}{mark}{companion}")
        self.moved_aside += 1
        self.say(
            f"it is damaged ({reason}); it was moved to {self.path.name}{mark}, and a new one begun"
        )


def _readable(text: bytes) -> str:
    """A text of the database, whatever has happened to it: its checksum tells."""
    return text.decode("utf-8", "replace")


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file is at a path, if any."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _is_damage(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)  # errors of Python's own module have none
    return code == sqlite3.SQLITE_IOERR_SHORT_READ or code & 0xFF in _DAMAGED


@contextlib.contextmanager
def _exclusively(path: Path) -> Iterator[None]:
    """Keeps other processes out, by an empty SQLite file: its locks work on every system."""
    lock = sqlite3.connect(f"{path}.lock", timeout=_BUSY_SECONDS, isolation_level=None)
    try:
        lock.execute("BEGIN EXCLUSIVE")
        yield
    finally:
        lock.close()


_files: weakref.WeakSet[SQLiteFile] = weakref.WeakSet()
_forking: list[SQLiteFile] = []
_fork_lock = threading.Lock()


def _before_fork() -> None:
    _fork_lock.acquire()
    for file in list(_files):
        file.before_fork()
        _forking.append(file)


def _after_fork() -> None:
    while _forking:
        _forking.pop().after_fork()
    _fork_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
