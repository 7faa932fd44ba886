"""Makes a program that shows a fault as small as it can be made without losing the fault."""

from __future__ import annotations

import ast
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["reduced"]

Fails = Callable[[str], bool]
SMALL: tuple[ast.expr, ...] = (ast.Constant("a"), ast.Constant(1), ast.List([], ast.Load()))


def reduced(source: str, fails: Fails, seconds: float) -> str:
    """Returns a smaller program for which ``fails`` still holds.

    Statements are left out or replaced by their bodies, and expressions by their parts, one at a
    time, until nothing more can go (Zeller and Hildebrandt 2002, *Simplifying and Isolating
    Failure-Inducing Input*, with the tree in place of the text).

    Args:
        source: The program.
        fails: Whether a program shows the fault.
        seconds: How long to go on, in seconds.
    """
    search = _Search(ast.parse(source), fails, time.monotonic() + seconds)
    before = ""
    while before != (text := ast.unparse(search.tree)) and search.has_time():
        before = text
        search.shrink_statements()
        search.shrink_expressions()
    return text


class _Search:
    """A tree that is changed in place, and put back where a change loses the fault."""

    def __init__(self, tree: ast.Module, fails: Fails, end: float) -> None:
        self.tree, self.fails, self.end = tree, fails, end

    def has_time(self) -> bool:
        return time.monotonic() < self.end

    def holds(self) -> bool:
        """Whether the tree as it is now is a program that shows the fault."""
        try:
            source = ast.unparse(ast.fix_missing_locations(self.tree))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)
                compile(source, "reduced", "exec")
        except (SyntaxError, ValueError):
            return False
        return self.fails(source)

    def shrink_statements(self) -> None:
        for statements in list(_statement_lists(self.tree)):
            for size in (8, 4, 2, 1):
                self._shorten(statements, size)
            for place in range(len(statements) - 1, -1, -1):
                self._unwrap(statements, place)

    def _shorten(self, statements: list[ast.stmt], size: int) -> None:
        place = len(statements) - size
        while place >= 0 and self.has_time():
            self._try_instead(statements, place, size, [])
            place -= size

    def _unwrap(self, statements: list[ast.stmt], place: int) -> None:
        statement = statements[place] if place < len(statements) else None
        if statement is None or isinstance(statement, ast.FunctionDef | ast.ClassDef):
            return
        for field in ("body", "orelse", "finalbody"):
            inner = getattr(statement, field, None)
            if isinstance(inner, list) and self._try_instead(statements, place, 1, inner):
                return

    def _try_instead(
        self, statements: list[ast.stmt], place: int, size: int, new: list[ast.stmt]
    ) -> bool:
        before = list(statements)
        if before == new or not self.has_time():
            return False
        statements[place : place + size] = new
        if not statements:
            statements.append(ast.Pass())
        differs = ast.dump(ast.Module(before, [])) != ast.dump(ast.Module(statements, []))
        if differs and self.holds():
            return True
        statements[:] = before
        return False

    def shrink_expressions(self) -> None:
        for parent in list(ast.walk(self.tree)):
            for field, value in list(ast.iter_fields(parent)):
                if isinstance(value, ast.expr):
                    self._simplify(lambda new, p=parent, f=field: setattr(p, f, new), value)
                elif isinstance(value, list) and all(isinstance(v, ast.expr) for v in value):
                    self._simplify_list(value)

    def _simplify_list(self, values: list[ast.expr]) -> None:
        for place in range(len(values) - 1, -1, -1):
            before = list(values)
            del values[place]
            if self.has_time() and self.holds():
                continue
            values[:] = before

            def put(new: ast.expr, place: int = place) -> None:
                values[place] = new

            self._simplify(put, values[place])

    def _simplify(self, put: Callable[[ast.expr], None], value: ast.expr) -> None:
        """Puts a part of an expression, or a constant, in its place where that keeps the fault."""
        if isinstance(value, ast.Constant | ast.Name) or not self.has_time():
            return
        for smaller in (*SMALL, *_parts(value)):
            if ast.dump(smaller) == ast.dump(value):
                continue
            put(smaller)
            if self.holds():
                return
            put(value)


def _parts(value: ast.expr) -> Iterator[ast.expr]:
    for child in ast.iter_child_nodes(value):
        if isinstance(child, ast.expr):
            yield child


def _statement_lists(tree: ast.AST) -> Iterator[list[Any]]:
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody", "handlers"):
            found = getattr(node, field, None)
            if isinstance(found, list) and found:
                yield found
