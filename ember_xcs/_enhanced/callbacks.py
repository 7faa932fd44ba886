"""Functions that do nothing but read and compute, such as most that are given as ``key=``."""

from __future__ import annotations

import ast
from collections.abc import Container
from typing import Final

__all__ = ["is_simple"]

_FUNCTIONS: Final = frozenset({"len", "abs", "int", "float", "str", "round", "min", "max", "sum"})
_METHODS: Final = frozenset(n for n in dir(str) if not n.startswith("_")) | {
    "get",
    "count",
    "index",
}
_NODES: Final = (
    ast.Name, ast.Constant, ast.Attribute, ast.Subscript, ast.BinOp, ast.UnaryOp, ast.Compare,
    ast.BoolOp, ast.IfExp, ast.Tuple, ast.Slice, ast.expr_context, ast.operator, ast.unaryop,
    ast.cmpop, ast.boolop, ast.JoinedStr, ast.FormattedValue,
)  # fmt: skip


def is_simple(args: ast.arguments, body: ast.expr, outside: Container[str]) -> bool:
    """Whether a function of one expression calls nothing but what is known to be pure.

    Args:
        args: Its parameters.
        body: The expression.
        outside: The variables of the functions around it, which may be pending.
    """
    if args.defaults or args.kw_defaults or args.vararg or args.kwarg:
        return False
    own = {a.arg for a in (*args.posonlyargs, *args.args, *args.kwonlyargs)}
    return all(_is_allowed(node, own, outside) for node in ast.walk(body))


def _is_allowed(node: ast.AST, own: set[str], outside: Container[str]) -> bool:
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name):
            return node.func.id in _FUNCTIONS and node.func.id not in outside
        return isinstance(node.func, ast.Attribute) and node.func.attr in _METHODS
    if isinstance(node, ast.Name):
        return node.id in own or node.id not in outside
    return isinstance(node, _NODES)
