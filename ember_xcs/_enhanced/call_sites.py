"""Where in the user's program a call was made, so that its failure can be shown there.

A call fails when the program has long gone on. What plain Python would have shown are the frames
that were there when the call was made, each at its line; they are noted then, and made a traceback
when they are needed.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from types import CodeType, FrameType, TracebackType

__all__ = ["CallSite", "is_internal", "line_of", "site_here", "traceback_of", "without_internals"]

_LIBRARY: Final = str(Path(__file__).resolve().parent)
_DEPTH: Final = 64  # frames that are noted; of a deeper recursion, the innermost

CallSite = tuple[tuple["FrameType", int], ...]
"""The frames of the program, innermost first, and the instruction at which each was."""


def is_internal(code: CodeType) -> bool:
    """Whether code is part of this machinery, which no traceback need show."""
    return code.co_filename.startswith(_LIBRARY)


def site_here(root: FrameType | None) -> CallSite:
    """Returns where the program is now.

    Args:
        root: The frame that started the program; it and those around it are not part of the site.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  (documented)
    found: list[tuple[FrameType, int]] = []
    while frame is not None and frame is not root and len(found) < _DEPTH:
        if not is_internal(frame.f_code):
            found.append((frame, frame.f_lasti))
        frame = frame.f_back
    return tuple(found)


def line_of(code: CodeType, instruction: int) -> int:
    """Returns the line of an instruction."""
    for k, (line, *_) in enumerate(code.co_positions()):
        if 2 * k >= instruction and line is not None:
            return line
    return code.co_firstlineno


def traceback_of(
    site: CallSite, inner: TracebackType | None, within: FrameType | None = None
) -> TracebackType | None:
    """Returns the traceback of a failure as plain Python would have shown it.

    Args:
        site: Where the call was made.
        inner: What the failure shows of the operator itself.
        within: The frame that catches the failure; those around it are left out.
    """
    made = inner
    for frame, instruction in site:
        line = line_of(frame.f_code, instruction)
        made = types.TracebackType(made, frame, instruction, line)
        if frame is within:
            break
    return made


def without_internals(traceback: TracebackType | None) -> TracebackType | None:
    """Returns a traceback without the frames of this machinery."""
    entries: list[Any] = []
    while traceback is not None:
        if not is_internal(traceback.tb_frame.f_code):
            entries.append(traceback)
        traceback = traceback.tb_next
    made = None
    for entry in reversed(entries):
        made = types.TracebackType(made, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return made
