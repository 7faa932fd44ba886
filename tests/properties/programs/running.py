"""Runs a program's source once, and tells what can be seen of it: the picture of the run."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import itertools
import linecache
import sys
import time
import traceback
import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from tests.properties.programs.world import Note, World

__all__ = ["Endless", "Picture", "Program", "difference"]

MAX_LINES, MAX_SECONDS = 3_000, 0.5
_numbers = itertools.count()

Run = Callable[[Callable[..., Any]], Callable[..., Any]]


class Endless(BaseException):
    """Raised when a program takes too many steps to be compared."""


@dataclasses.dataclass
class Picture:
    """What can be seen of a run.

    Attributes:
        outcome: What was returned, or raised and where, and what became of all the objects:
            values, types, and which of them are one.
        effects: What had side effects, in order.
        calls: The calls of operators.
        raised: Whether anything was raised on the way.
        late: The calls that began after the end.
    """

    outcome: Any
    effects: list[str]
    calls: Counter[str]
    raised: bool
    late: list[str]


class Program:
    """The source of a module with a function ``program``, in a file of its own.

    Args:
        source: The source.
        folder: Where the file is to be.
    """

    def __init__(self, source: str, folder: Path) -> None:
        self.source = source
        self.path = folder / f"program_{next(_numbers)}.py"
        self.path.write_text(source)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            self.code = compile(source, str(self.path), "exec")

    def forget(self) -> None:
        """Removes the file."""
        self.path.unlink()
        linecache.cache.pop(str(self.path), None)

    def run(self, how: Run, world: World, *, watched: bool = False) -> Picture:
        """Returns what is seen of a run.

        Args:
            how: Makes of the function what is called.
            world: What it runs in.
            watched: Whether to notice exceptions that the program catches, and endless loops.
        """
        module = types.ModuleType(self.path.stem)
        module.__file__ = str(self.path)
        module.__dict__.update(world.names(awaiting="async def program" in self.source))
        given = ["a x", 2, ["a", "bc"], {"a": 1}]
        sys.modules[module.__name__] = module
        raised = [False]
        try:
            exec(self.code, module.__dict__)
            with self._watching(raised) if watched else _unwatched():
                outcome = self._outcome(how(module.program), given)
        finally:
            world.end()
            del sys.modules[module.__name__]
        seen = picture([outcome, given, _state(module)])
        any_raised = raised[0] or world.failed or outcome[0] == "raised"
        return Picture(seen, list(world.effects), Counter(world.calls), any_raised, world.late)

    def _outcome(self, function: Callable[..., Any], given: list[Any]) -> tuple[Any, ...]:
        try:
            result = function(*given)
            return "returned", asyncio.run(result) if inspect.iscoroutine(result) else result
        except Exception as error:  # noqa: BLE001  (whatever the program raises is what is compared)
            return "raised", *self._error(error)

    def _error(self, error: BaseException) -> Iterator[Any]:
        """What is seen of an exception: itself, the program's line that it is from, its cause."""
        yield from (type(error).__name__, str(error), [repr(arg) for arg in error.args])
        lines = list(self._lines(error))
        # Python 3.11 tells the line before for a variable without a value, where it joins the two.
        yield lines[-1] if lines and not isinstance(error, UnboundLocalError) else None
        yield list(self._error(error.__cause__)) if error.__cause__ else None
        yield self._handled(error)
        yield error.__suppress_context__

    def _handled(self, error: BaseException) -> list[str]:
        """The exceptions of the program during whose handling an exception was raised."""
        found = []
        while (error := error.__context__) is not None:  # type: ignore[assignment]
            if any(True for _ in self._lines(error)):
                found.append(f"{type(error).__name__}: {error}")
        return found

    def _lines(self, error: BaseException) -> Iterator[int]:
        for frame, line in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename == str(self.path):
                yield line

    @contextmanager
    def _watching(self, raised: list[bool]) -> Iterator[None]:
        lines = itertools.count()
        end = time.perf_counter() + MAX_SECONDS

        def watch(frame: Any, event: str, arg: Any) -> Any:
            if frame.f_code.co_filename != str(self.path):
                return None
            if event == "line" and (next(lines) > MAX_LINES or time.perf_counter() > end):
                raise Endless
            if event == "exception" and arg[0] is not StopIteration:
                raised[0] = True
            return watch

        before = sys.gettrace()
        sys.settrace(watch)
        try:
            yield
        finally:
            sys.settrace(before)


@contextmanager
def _unwatched() -> Iterator[None]:
    yield


def _state(module: types.ModuleType) -> list[Any]:
    """What the module holds when the program has ended, and what its closures do."""
    state = module.__dict__.get("state")
    helpers = [
        value.__defaults__
        for name, value in sorted(module.__dict__.items())
        if name.startswith("h") and isinstance(value, types.FunctionType)
    ]
    return [
        module.TOTAL,
        module.SEEN,
        module.TABLE,
        module.Agent.made,
        state() if state else None,
        helpers,
    ]


def picture(value: Any, seen: dict[int, int] | None = None) -> Any:
    """A value as types and contents, where an object that was seen before is named as that one."""
    seen = {} if seen is None else seen
    if value is None or isinstance(value, bool | int | float | str):
        return type(value).__name__, repr(value)
    if isinstance(value, jax.Array):
        return "array", str(value.dtype), value.tolist()
    if isinstance(value, tuple):
        return ("tuple", *(picture(item, seen) for item in value))
    if id(value) in seen:
        return "again", seen[id(value)]
    seen[id(value)] = len(seen)
    name = type(value).__name__
    if isinstance(value, list):
        return (name, *(picture(item, seen) for item in value))
    if isinstance(value, dict):
        return (name, *((picture(k, seen), picture(item, seen)) for k, item in value.items()))
    if isinstance(value, set):
        return name, sorted(map(repr, value))
    if isinstance(value, Note):
        return name, picture(vars(value), seen)
    return "object", name


def difference(plain: Picture, other: Picture) -> str | None:
    """Returns how a run differs from that of plain Python; None if it does not."""
    if plain.outcome != other.outcome:
        return f"outcome:\n{_apart(plain.outcome, other.outcome)}"
    if plain.effects != other.effects:
        return f"effects:\n  plain {plain.effects}\n  other {other.effects}"
    missing, more = plain.calls - other.calls, other.calls - plain.calls
    if missing or (more and not plain.raised):
        return f"calls: missing {dict(missing)}, more {dict(more)}"
    if other.late:
        return f"calls began after the end: {other.late}"
    return None


PARTS = ("outcome", "arguments", "state of the module")
RAISED = ("how", "type", "text", "args", "line", "cause", "context", "suppresses")


def _apart(plain: Any, other: Any) -> str:
    """The parts of two outcomes that differ, one a line."""
    lines = []
    for what, ours, theirs in zip(PARTS, plain[1:], other[1:], strict=True):
        if ours == theirs:
            continue
        if ours[1] == theirs[1] == ("str", "'raised'"):
            for name, one, two in zip(RAISED, ours[1:], theirs[1:], strict=True):
                if one != two:
                    lines.append(f"  {name}:\n    plain {one}\n    other {two}")
        else:
            lines.append(f"  {what}:\n    plain {ours}\n    other {theirs}")
    return "\n".join(lines)
