"""Calls that are counted in a file, by any number of processes, whatever becomes of them."""

from __future__ import annotations

import os


def count(path: str, what: object) -> None:
    """Says that a call is about to return; what is killed after that was as good as finished."""
    file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(file, f"{what}\n".encode())
    os.close(file)
