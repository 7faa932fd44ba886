"""What processes are given to do that fails at first: an importable function."""

from __future__ import annotations

from pathlib import Path

import ember_xcs as xcs


def flaky_in_process(path: str) -> int:
    """Fails twice, and then returns how often it was called; the file counts."""
    xcs.record_usage(tokens=10)
    with Path(path).open("a+") as file:
        file.write(".")
        file.seek(0)
        count = len(file.read())
    if count < 3:
        raise ConnectionError("lost")
    return count
