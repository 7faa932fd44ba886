"""What a piece of code needs to be a *leaf*: code that calls nothing that could be an operator.

A leaf calls only what it names, and methods of plain data; if all it reads is plain data, then so
is all that it computes, and it may run as it was written. What the names stand for, and what the
data is, is for ``leaves`` to see at each run.
"""

from __future__ import annotations

import ast
import re
from collections import Counter, deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from ember_xcs._enhanced.names import assigned_names, bound_names
from ember_xcs._enhanced.pure import MUTATORS

__all__ = ["LAZY", "MAKERS", "LeafRules", "rules_of_function"]

LAZY: Final = frozenset({"map", "filter", "zip", "enumerate", "reversed", "iter"})
"""Builtins that give iterators, which must not outlive the statement that they are in."""

MAKERS: Final = frozenset(
    {
        "abs", "bool", "bytes", "chr", "dict", "divmod", "float", "frozenset", "hash", "int", "len",
        "list", "ord", "pow", "range", "repr", "round", "set", "sorted", "str", "tuple",
    }
)  # fmt: skip
"""Builtins whose results are new, or cannot change."""

_TAKERS: Final = LAZY | {
    "sum", "sorted", "list", "tuple", "set", "frozenset", "dict", "min", "max", "any", "all", "next"
}  # fmt: skip
_TEXT: Final = frozenset(n for n in dir(str) if not n.startswith("_"))
_NEW_BY_METHOD: Final = _TEXT | {"copy"}
_METHODS: Final = frozenset(
    name
    for kind in (str, bytes, list, dict, set, frozenset, tuple, int, float, complex, range,
                 re.Match, re.Pattern, Counter, deque, BaseException)
    for name in dir(kind)
    if not name.startswith("_")
)  # fmt: skip
_CHANGING: Final = frozenset().union(*MUTATORS.values()) | {
    "appendleft", "extendleft", "popleft", "rotate", "subtract",
}  # fmt: skip
_STATEMENTS: Final = (
    ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Expr, ast.If, ast.For, ast.While, ast.Pass,
    ast.Break, ast.Continue, ast.Assert, ast.Delete, ast.Return, ast.Raise, ast.Try,
)  # fmt: skip
_REFUSED: Final = (ast.Yield, ast.YieldFrom, ast.Await, ast.NamedExpr)
_COMPREHENSIONS: Final = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_NEW: Final = (
    ast.Constant, ast.JoinedStr, ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp,
    ast.SetComp, ast.Tuple, ast.BinOp, ast.UnaryOp, ast.Compare,
)  # fmt: skip


class LeafRules(NamedTuple):
    """What has to hold when a leaf is run.

    Attributes:
        reads: The names that it reads and does not bind in comprehensions of its own.
        bound: Those of its names that are variables of the function.
        attributes: The attributes of names that it reads.
        makers: The builtins that have to be those of Python if their names are used.
        changed: Variables from outside whose values it may change.
        changes_any: Whether it may change what it finds in them, too.
    """

    reads: tuple[str, ...]
    bound: tuple[str, ...]
    attributes: tuple[tuple[str, str], ...]
    makers: tuple[str, ...]
    changed: tuple[str, ...]
    changes_any: bool


class _Unfit(Exception):
    """Raised when a piece of code is no leaf."""


def rules_of_function(node: ast.FunctionDef | ast.Lambda) -> LeafRules | None:
    """Returns the rules of a function; None if it is no leaf."""
    if not isinstance(node, ast.FunctionDef):
        return None
    bound = bound_names(node.args, node.body)
    outside = bound_names(node.args, ())
    body = node.body
    reader = _Reader(bound)
    try:
        for statement in body:
            reader.visit(statement)
    except _Unfit:
        return None
    reads = _free(body)
    aliens = _aliens(body, outside, reads - bound)
    changed = {n for n in reader.changed if n in outside or n not in bound}
    is_any = reader.changes_any or not aliens.isdisjoint(reader.changed)
    return LeafRules(
        tuple(sorted(reads)),
        tuple(sorted(bound & reads)),
        tuple(sorted(reader.attributes)),
        tuple(sorted((reads - bound) & (MAKERS | _TAKERS))),
        tuple(sorted(changed)),
        is_any,
    )


class _Reader(ast.NodeVisitor):
    """Reads a piece of code; raises `_Unfit` where it finds what a leaf must not have."""

    def __init__(self, bound: set[str]) -> None:
        self._bound = set(bound)
        self._passing: set[int] = set()
        self.attributes: set[tuple[str, str]] = set()
        self.changed: set[str] = set()
        self.changes_any = False

    def visit(self, node: ast.AST) -> None:
        """Reads one node and what is in it."""
        if isinstance(node, _REFUSED) or (
            isinstance(node, ast.stmt) and not isinstance(node, _STATEMENTS)
        ):
            raise _Unfit
        super().visit(node)

    def _changes(self, container: ast.expr) -> None:
        if isinstance(container, ast.Name):
            self.changed.add(container.id)
        elif not isinstance(container, _NEW):
            self.changes_any = True

    def visit_Call(self, node: ast.Call) -> None:
        """A call of a name that is no variable, or of a method."""
        function = node.func
        if isinstance(function, ast.Name):
            self._named_call(function.id, node)
        elif isinstance(function, ast.Attribute):
            if function.attr in _CHANGING:
                self._changes(function.value)
            if function.attr == "join":
                self._passing.update(map(id, node.args))
            self.visit(function)
        else:
            raise _Unfit
        for keyword in node.keywords:
            if keyword.arg == "key":
                self._callback(keyword.value)
        for part in (*node.args, *node.keywords):
            self.visit(part)

    def _named_call(self, name: str, node: ast.Call) -> None:
        if name in self._bound or name.startswith("__"):
            raise _Unfit
        if name in LAZY and id(node) not in self._passing:
            raise _Unfit
        if name in _TAKERS:
            self._passing.update(map(id, node.args))
        if name in ("map", "filter") and node.args:
            self._callback(node.args[0])

    def visit_Name(self, node: ast.Name) -> None:
        """A value; those that make iterators are only called."""
        if (node.id in LAZY and node.id not in self._bound) or node.id.startswith("__"):
            raise _Unfit

    def _callback(self, node: ast.expr) -> None:
        if isinstance(node, ast.Lambda):
            self._passing.add(id(node))
        elif not isinstance(node, ast.Name | ast.Attribute) or (
            isinstance(node, ast.Name) and node.id in self._bound
        ):
            raise _Unfit

    def visit_Lambda(self, node: ast.Lambda) -> None:
        """Only as a callback."""
        if id(node) not in self._passing or node.args.defaults or node.args.kw_defaults:
            raise _Unfit
        self._within(bound_names(node.args, ()), node.body)

    def _within(self, names: set[str], *nodes: ast.AST) -> None:
        """Reads what has variables of its own, which are data as the others are."""
        before, self._bound = self._bound, self._bound | names
        for node in nodes:
            self.visit(node)
        self._bound = before

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """A method of data, or part of a module."""
        if not isinstance(node.ctx, ast.Load) or node.attr.startswith("_"):
            raise _Unfit
        if isinstance(node.value, ast.Name) and node.value.id not in self._bound:
            self.attributes.add((node.value.id, node.attr))
        elif node.attr not in _METHODS:
            raise _Unfit
        self.visit(node.value)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        """An item: a change if it is set or deleted."""
        if not isinstance(node.ctx, ast.Load):
            self._changes(node.value)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """A change of what a variable, or an item, stands for."""
        if isinstance(node.target, ast.Name):
            self.changed.add(node.target.id)
        else:
            self.changes_any = self.changes_any or not _is_step(node)
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        """What it goes through ends with it."""
        self._passing.add(id(node.iter))
        self.generic_visit(node)

    def _comprehension(self, node: ast.expr) -> None:
        generators: list[ast.comprehension] = node.generators  # type: ignore[attr-defined]
        if any(g.is_async for g in generators):
            raise _Unfit
        self._passing.update(id(g.iter) for g in generators)
        names = {n for g in generators for n in assigned_names([g.target])}
        before, self._bound = self._bound, self._bound | names
        self.generic_visit(node)
        self._bound = before

    visit_ListComp = visit_SetComp = visit_DictComp = _comprehension

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        """Only where all of it is taken at once."""
        if id(node) not in self._passing:
            raise _Unfit
        self._comprehension(node)


def _is_step(node: ast.AugAssign) -> bool:
    """Whether it adds a number: no container can be changed by that."""
    value = node.value
    is_number = isinstance(value, ast.Constant) and isinstance(value.value, int | float)
    return is_number and isinstance(node.op, ast.Add | ast.Sub)


def _free(nodes: Iterable[ast.AST]) -> set[str]:
    """The names that are read, those left out that comprehensions and lambdas bind."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Load):
                found.add(node.id)
        elif isinstance(node, _COMPREHENSIONS):
            first = node.generators[0]
            own = {n for g in node.generators for n in assigned_names([g.target])}
            found |= (_free(ast.iter_child_nodes(node)) - own) | _free([first.iter])
        elif isinstance(node, ast.Lambda):
            found |= _free([node.body]) - bound_names(node.args, ())
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            found |= {node.target.id} | _free([node.value])
        elif isinstance(node, ast.AnnAssign):
            found |= _free([n for n in (node.target, node.value) if n is not None])
        else:
            found |= _free(ast.iter_child_nodes(node))
    return found


def _aliens(body: list[ast.stmt], outside: set[str], unbound: set[str]) -> set[str]:
    """Variables that are assigned what may have come from elsewhere."""
    bindings = [b for node in body for inner in ast.walk(node) for b in _bindings(inner)]
    aliens = {name for name, value in bindings if value is None}
    known = outside | unbound
    while True:
        more = {n for n, v in bindings if v is not None and not _is_new(v, aliens | known)}
        if more <= aliens:
            return aliens
        aliens |= more


def _bindings(node: ast.AST) -> list[tuple[str, ast.expr | None]]:
    """The variables that a node itself assigns, each with its value; None for one unknown."""
    if isinstance(node, ast.Assign):
        found: list[tuple[str, ast.expr | None]] = []
        for target in node.targets:
            found += _paired(target, node.value)
        return found
    if isinstance(node, ast.AnnAssign):
        return _paired(node.target, node.value) if node.value is not None else []
    if isinstance(node, ast.For | ast.comprehension):
        return [(name, None) for name in assigned_names([node.target])]
    if isinstance(node, ast.ExceptHandler) and node.name:
        return [(node.name, None)]
    return []


def _paired(target: ast.expr, value: ast.expr) -> list[tuple[str, ast.expr | None]]:
    if isinstance(target, ast.Name):
        return [(target.id, value)]
    if (
        isinstance(target, ast.Tuple)
        and isinstance(value, ast.Tuple)
        and len(target.elts) == len(value.elts)
        and not any(isinstance(e, ast.Starred) for e in (*target.elts, *value.elts))
    ):
        pairs = zip(target.elts, value.elts, strict=True)
        return [pair for part, item in pairs for pair in _paired(part, item)]
    return [(name, None) for name in assigned_names([target])]


def _is_new(value: ast.expr, others: set[str]) -> bool:
    """Whether a value is new, or cannot change."""
    if isinstance(value, _NEW):
        return True
    if isinstance(value, ast.Name):
        return value.id not in others
    if isinstance(value, ast.IfExp):
        return _is_new(value.body, others) and _is_new(value.orelse, others)
    if isinstance(value, ast.Call):
        if isinstance(value.func, ast.Name):
            return value.func.id in MAKERS
        return isinstance(value.func, ast.Attribute) and value.func.attr in _NEW_BY_METHOD
    return False
