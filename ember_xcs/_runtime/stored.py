"""What is written beside stored values, so that damage shows, and the file that they are in."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

from ember_xcs._runtime.encoding_rules import Corrupted

if TYPE_CHECKING:
    from pathlib import Path

    from ember_xcs._runtime.sqlite_file import SQLiteFile

__all__ = ["check", "checksum", "open_file"]

_CHECKSUM_BYTES: Final = 16


def open_file(path: Path, schema: str, application: int, **settings: Any) -> SQLiteFile:
    """Returns a ``SQLiteFile``, which has the same parameters; most programs need no SQLite."""
    from ember_xcs._runtime.sqlite_file import SQLiteFile  # noqa: PLC0415  (not for everybody)

    return SQLiteFile(path, schema, application, **settings)


def checksum(*parts: str | bytes) -> bytes:
    """Returns a checksum of a value and what it is stored under."""
    state = hashlib.blake2b(digest_size=_CHECKSUM_BYTES)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.digest()


def check(data: Any, stored: Any, *names: str) -> None:
    """Raises if a value that was read is not what was written under these names.

    Raises:
        Corrupted: It is not.
    """
    if not isinstance(data, bytes) or stored != checksum(*names, data):
        raise Corrupted("its checksum does not fit")
