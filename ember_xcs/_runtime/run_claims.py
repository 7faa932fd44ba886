"""Which runs of a journal belong to a process: locks in a file beside it.

Each run has a byte, far beyond the end of the file, and the process that runs it holds the lock
of that byte. The system lets go of the locks of a process that dies, however it does. Such locks
belong to a process and are all lost when it closes the file once, so there is one descriptor for
each file in a process, shared by all who have it open.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from ember_xcs.errors import XCSError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["RunClaims"]

# Windows has none: there, two processes that run the same at once count as one run.
_fcntl: Any = importlib.import_module("fcntl") if importlib.util.find_spec("fcntl") else None

_DIGITS: Final = 15  # of a key in hexadecimal: the largest number of a byte has 63 bits


class RunClaims:
    """The runs of one journal that this process is running.

    Args:
        path: The file of the locks; it is made when it is needed, for the user alone.
    """

    def __init__(self, path: Path) -> None:
        self._name = os.fspath(path.absolute())
        self._is_open = False

    def claim(self, key: str) -> bool:
        """Returns whether no other process is running a run, which then is this one's.

        Raises:
            XCSError: The system cannot lock the file.
        """
        if _fcntl is None:
            return True
        try:
            _fcntl.lockf(self._descriptor(), _fcntl.LOCK_EX | _fcntl.LOCK_NB, 1, _byte(key))
        except (BlockingIOError, PermissionError):  # POSIX allows for either
            return False
        except OSError as error:
            raise XCSError(
                f"the runs of the journal cannot be told apart by locks in {self._name}: {error}; "
                "see that the directory is on a local disk and can be written to"
            ) from error
        return True

    def disclaim(self, key: str) -> None:
        """Lets other processes have a run."""
        if _fcntl is not None and self._is_open:
            _fcntl.lockf(self._descriptor(), _fcntl.LOCK_UN, 1, _byte(key))

    def close(self) -> None:
        """Lets go of the file."""
        with _lock:
            if not self._is_open:
                return
            self._is_open = False
            _users[self._name] -= 1
            if not _users[self._name]:
                os.close(_descriptors.pop(self._name))

    def _descriptor(self) -> int:
        with _lock:
            if self._name not in _descriptors:
                _descriptors[self._name] = os.open(self._name, os.O_CREAT | os.O_RDWR, 0o600)
            if not self._is_open:
                self._is_open = True
                _users[self._name] += 1
            return _descriptors[self._name]


def _byte(key: str) -> int:
    return int(key[:_DIGITS], 16)


_descriptors: dict[str, int] = {}
_users: Counter[str] = Counter()
_lock = threading.Lock()


def _after_fork() -> None:
    global _lock  # noqa: PLW0603  (a thread of the parent may have held it)
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
