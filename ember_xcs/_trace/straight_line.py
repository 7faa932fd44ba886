"""Whether code takes the same path for all inputs, told from its syntax.

A run shows the path that was taken. If the code between operator calls has no branches, no loops
whose length depends on values, and calls nothing that could choose among values, then there is no
other path. What cannot be told counts as a choice.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import linecache
import os
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from ember_xcs._core.operator import Operator
from ember_xcs._core.signature import record_fields
from ember_xcs._trace.user_line import frame_line

__all__ = ["Choice", "choice_in_block", "choice_in_function"]

Choice = tuple[str, str]
"""What may choose, and the user's line."""

_PACKAGE = f"{Path(__file__).resolve().parent.parent}{os.sep}"
_NEVER = {
    ast.If: "an `if`",
    ast.IfExp: "an `if` expression",
    ast.BoolOp: "`and` or `or`",
    ast.While: "a `while` loop",
    ast.AsyncFor: "an `async for` loop",
    ast.Match: "a `match`",
    ast.Try: "a `try`",
    ast.Starred: "a `*`, which unpacks as many values as there are",
    ast.Yield: "a `yield`",
    ast.YieldFrom: "a `yield`",
}
_INERT = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.Assert)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_HARMLESS = (print,)
_COUNTING = (range, enumerate, zip, len, reversed)
_UNRESOLVED = object()


def choice_in_block(frame: FrameType, line: int, trusted: Any) -> Choice | None:
    """Returns what may choose in the body of the ``with`` statement at a line, or None.

    Args:
        frame: The frame that runs it, whose names say what is called.
        line: The line on which the statement begins.
        trusted: An object whose methods may be called.
    """
    filename = frame.f_code.co_filename
    blocks = [node for node in ast.walk(_module(filename)) if isinstance(node, ast.With)]
    found = [b for b in blocks if b.lineno <= line <= max(b.lineno, b.body[0].lineno - 1)]
    if not found:
        return "code whose source cannot be found", frame_line(filename, line)
    names = {**frame.f_globals, **frame.f_locals}
    return _Reader(filename, names, trusted, ()).block(found[-1].body)


def choice_in_function(function: Any) -> Choice | str | None:
    """Returns what may choose in the body of a function or bound method, or None."""
    return _Reader("", {}, object(), ()).within(function)


def _module(filename: str) -> ast.Module:
    try:
        return ast.parse("".join(linecache.getlines(filename)))
    except (SyntaxError, ValueError):  # no source, or not what is running
        return ast.Module([], [])


class _Reader:
    """Looks for choices in the code of one function or block."""

    def __init__(
        self, filename: str, names: Mapping[str, Any], trusted: Any, inside: tuple[Any, ...]
    ) -> None:
        self.filename, self.trusted, self.inside = filename, trusted, inside
        self.names = dict(names)
        self.counted: set[str] = set()

    def block(self, statements: Sequence[ast.AST]) -> Choice | None:
        """Returns the first choice among statements."""
        return next((c for s in statements for c in self._choices(s)), None)

    def _choices(self, node: ast.AST) -> Iterator[Choice]:
        if isinstance(node, _INERT) or self._is_declaration(node):
            return
        what = self._choice_at(node)
        if isinstance(what, tuple):
            yield what
        elif what is not None:
            yield what, frame_line(self.filename, getattr(node, "lineno", 0))
        else:
            for child in ast.iter_child_nodes(node):
                yield from self._choices(child)

    def _choice_at(self, node: ast.AST) -> str | Choice | None:
        if isinstance(node, ast.If | ast.IfExp) and self._is_static(node.test):
            return None
        if type(node) in _NEVER and not _is_target(node):
            return _NEVER[type(node)]
        if isinstance(node, ast.For):
            return self._loop([(node.target, node.iter)])
        if isinstance(node, _COMPREHENSIONS):
            filters = [test for g in node.generators for test in g.ifs]
            loop = self._loop([(g.target, g.iter) for g in node.generators])
            return loop or ("a filter" if not all(map(self._is_static, filters)) else None)
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            return None if self._is_static(node.slice) else "an index that is not constant"
        return self._called(node) if isinstance(node, ast.Call) else None

    def _loop(self, loops: Sequence[tuple[ast.expr, ast.expr]]) -> str | None:
        for target, iterable in loops:
            if not self._is_static(iterable):
                return "a loop whose length may depend on a value"
            names = {n.id for n in ast.walk(target) if isinstance(n, ast.Name)}
            self.counted |= names
            for name in names:
                self.names.pop(name, None)
            self._note_operators(target, iterable)
        return None

    def _note_operators(self, target: ast.expr, iterable: ast.expr) -> None:
        """Knows the variable of ``for op in self.operators`` by one of the operators."""
        items = self._value(iterable)
        if isinstance(target, ast.Name) and _are_operators(items):
            self.names[target.id] = items[0]

    def _is_static(self, node: ast.AST) -> bool:
        """Whether an expression is made of literals, fields of operators and counters."""
        if isinstance(node, ast.Constant):
            return True
        if isinstance(node, ast.Name):
            return node.id in self.counted
        if isinstance(node, ast.Attribute):
            return isinstance(self._value(node.value), Operator)
        if isinstance(node, ast.Call):
            counting = _is_one_of(self._value(node.func), _COUNTING)
            return counting and all(map(self._is_static, node.args)) and not node.keywords
        parts = (
            ast.UnaryOp | ast.BinOp | ast.Compare | ast.Tuple | ast.List | ast.Slice | ast.BoolOp
        )
        operators = ast.operator | ast.unaryop | ast.cmpop | ast.boolop | ast.expr_context
        children = [c for c in ast.iter_child_nodes(node) if not isinstance(c, operators)]
        return isinstance(node, parts) and all(map(self._is_static, children))

    def _called(self, call: ast.Call) -> str | Choice | None:
        """What a call may choose: nothing, if it is one of an operator or of such code as this."""
        called = self._value(call.func)
        name = ast.unparse(call.func)
        if isinstance(called, Operator):
            return self.within(called.forward) if called.kind == "composite" else None
        if _is_one_of(called, _HARMLESS):
            return None
        if isinstance(called, type) and record_fields(called) is not None:
            return None
        if isinstance(called, types.FunctionType | types.MethodType):
            return self.within(called)
        if _is_one_of(called, _COUNTING) and self._is_static(call):
            return None
        return f"the call of {name}, which is no operator and may choose among values"

    def _is_declaration(self, node: ast.AST) -> bool:
        """Whether this is a call of the trusted object, which is told the truth."""
        called = self._value(node.func) if isinstance(node, ast.Call) else None
        return getattr(called, "__self__", None) is self.trusted

    def within(self, function: Any) -> str | Choice | None:
        """Returns what the body of a function may choose."""
        plain = inspect.unwrap(getattr(function, "__func__", function))
        code = getattr(plain, "__code__", None)
        if code is None or code in self.inside or code.co_filename.startswith(_PACKAGE):
            return None if code is not None else "a call of code whose source cannot be found"
        found = _definition(code)
        if found is None:
            return f"the call of {code.co_name}, whose source cannot be found"
        names = {**plain.__globals__, **inspect.getclosurevars(plain).nonlocals}
        names = {k: v for k, v in names.items() if k not in code.co_varnames}
        if inspect.ismethod(function):
            names[code.co_varnames[0]] = function.__self__
        reader = _Reader(code.co_filename, names, self.trusted, (*self.inside, code))
        return reader.block(found.body if isinstance(found.body, list) else [found.body])

    def _value(self, node: ast.AST) -> Any:
        """What a name, or an attribute of an operator or a module, stands for."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, getattr(builtins, node.id, _UNRESOLVED))
        if isinstance(node, ast.Attribute):
            owner = self._value(node.value)
            known = isinstance(owner, Operator | types.ModuleType | type) or owner is self.trusted
            return getattr(owner, node.attr, _UNRESOLVED) if known else _UNRESOLVED
        if isinstance(node, ast.Subscript) and self._is_static(node.slice):
            items = self._value(node.value)
            return items[0] if _are_operators(items) else _UNRESOLVED
        return _UNRESOLVED


def _definition(code: Any) -> Any:
    """The syntax tree of the function that a code object comes from, if only one can be meant."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    found = [
        node
        for node in ast.walk(_module(code.co_filename))
        if isinstance(node, kinds)
        and code.co_firstlineno == _first_line(node)
        and code.co_name == getattr(node, "name", "<lambda>")
    ]
    return found[0] if len(found) == 1 else None


def _first_line(node: Any) -> int:
    lines: list[int] = [node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))]
    return min(lines)


def _is_target(node: ast.AST) -> bool:
    return isinstance(getattr(node, "ctx", None), ast.Store)


def _are_operators(items: Any) -> bool:
    """Whether this is a sequence of operators, and not an empty one."""
    is_sequence = isinstance(items, list | tuple) and bool(items)
    return is_sequence and all(isinstance(item, Operator) for item in items)


def _is_one_of(value: Any, known: tuple[Any, ...]) -> bool:
    return any(value is one for one in known)
