"""What the arguments of a call are spelled as, where that proves that they are constants.

A literal in the brackets of a call has the same value whenever that line runs. A variable, or
anything that is computed, proves nothing.
"""

from __future__ import annotations

import ast
import itertools
import linecache
from types import FrameType
from typing import Any

__all__ = ["Spelling", "child_spellings", "is_constant", "spelled_arguments"]

Spelling = ast.expr | None


def spelled_arguments(frame: FrameType) -> tuple[list[Spelling], dict[str, Spelling]]:
    """Returns the source of the arguments of the call that a frame is in, as far as it is known."""
    call = _call(frame)
    if call is None or any(isinstance(arg, ast.Starred) for arg in call.args):
        return [], {}
    return list(call.args), {k.arg: k.value for k in call.keywords if k.arg is not None}


def _call(frame: FrameType) -> ast.Call | None:
    code = frame.f_code
    where = next(itertools.islice(code.co_positions(), frame.f_lasti // 2, None), None)
    if where is None or None in where:
        return None
    first, last, begin, end = where
    lines = linecache.getlines(code.co_filename, frame.f_globals)[first - 1 : last]  # type: ignore[operator]
    if not lines:
        return None
    encoded = [line.encode() for line in lines]
    encoded[-1] = encoded[-1][:end]
    encoded[0] = encoded[0][begin:]
    try:
        found = ast.parse(b"(" + b"".join(encoded) + b")", mode="eval").body
    except (SyntaxError, ValueError):  # the file has changed, or the positions are no expression
        return None
    return found if isinstance(found, ast.Call) else None


def is_constant(spelling: Spelling, value: Any, frame: FrameType, holder: Any, tracer: Any) -> bool:
    """Whether an argument is spelled as a literal, a field of an operator or a declared constant.

    Args:
        spelling: The source of the argument.
        value: What was passed.
        frame: The frame that makes the call.
        holder: The operator whose ``forward`` makes the call, which does not change; or None.
        tracer: The object whose method ``constant`` declares constants.
    """
    if spelling is None:
        return False
    if isinstance(spelling, ast.Call):
        declaring = spelling.func
        is_declared = isinstance(declaring, ast.Attribute) and declaring.attr == "constant"
        return is_declared and _owner(declaring, frame) is tracer
    if isinstance(spelling, ast.Attribute):
        owner = _owner(spelling, frame)
        known = vars(owner) if owner is not None and owner is holder else {}
        return spelling.attr in known and known[spelling.attr] is value
    try:
        literal = ast.literal_eval(spelling)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return type(literal) is type(value) and repr(literal) == repr(value)


def _owner(spelling: ast.expr, frame: FrameType) -> Any:
    """The object whose attribute is meant, where it is a variable."""
    if not isinstance(spelling, ast.Attribute) or not isinstance(spelling.value, ast.Name):
        return None
    name = spelling.value.id
    return frame.f_locals.get(name, frame.f_globals.get(name))


def child_spellings(spelling: Spelling, kind: str, count: int) -> list[Spelling]:
    """Returns the source of each item of a container that is spelled out, None for the others."""
    children: list[Any] = [None]
    if isinstance(spelling, ast.List | ast.Tuple) and kind in ("list", "tuple"):
        children = list(spelling.elts)
    elif isinstance(spelling, ast.Dict) and kind == "dict" and None not in spelling.keys:
        children = list(spelling.values)
    exact = len(children) == count and not any(isinstance(c, ast.Starred) for c in children)
    return children if exact else [None] * count
