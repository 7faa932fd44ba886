"""Where in the user's own code something happened."""

from __future__ import annotations

import importlib.util
import linecache
import os
import sys
import sysconfig
from pathlib import Path
from types import FrameType

__all__ = ["frame_line", "is_foreign", "user_line"]

_PACKAGE = str(Path(__file__).resolve().parent.parent)
_SPECS = map(importlib.util.find_spec, ("jax", "numpy", "pydantic"))  # which loads none of them
_LIBRARIES = [Path(s.origin).resolve().parent for s in _SPECS if s is not None and s.origin]
_FOREIGN = ("<frozen", *(f"{path}{os.sep}" for path in (_PACKAGE, *_LIBRARIES)))
_STANDARD_LIBRARY = sysconfig.get_path("stdlib") + os.sep


def user_line() -> str | None:
    """Returns ``"file:line: code"`` of the innermost frame outside ember_xcs and JAX."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  (inspect.stack reads every file)
    while frame is not None and is_foreign(frame.f_code.co_filename):
        frame = frame.f_back
    return frame_line(frame.f_code.co_filename, frame.f_lineno) if frame is not None else None


def frame_line(filename: str, line: int) -> str:
    """Returns ``"file:line: code"``."""
    code = linecache.getline(filename, line).strip()
    return f"{filename}:{line}: {code}" if code else f"{filename}:{line}"


def is_foreign(filename: str) -> bool:
    """Whether a file is not the user's: ours, a library's that we build on, or Python's own."""
    if filename.startswith(_FOREIGN):
        return True
    return filename.startswith(_STANDARD_LIBRARY) and "site-packages" not in filename
