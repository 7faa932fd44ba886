"""Bodies within a program that are not rewritten: classes, coroutines, some generators.

They run as they are, but may read variables of the program that are pending: each is waited for
where it is read.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import TypeVar

__all__ = ["with_values"]

Node = TypeVar("Node", bound=ast.AST)


def with_values(node: Node, value: Callable[[ast.expr], ast.expr]) -> Node:
    """Returns a definition in which each variable is read through ``value``."""
    made: Node = _Reader(value).visit(node)
    return made


class _Reader(ast.NodeTransformer):
    def __init__(self, value: Callable[[ast.expr], ast.expr]) -> None:
        self._value = value

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """A variable."""
        return self._value(node) if isinstance(node.ctx, ast.Load) else node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """``super()`` has to be written just so."""
        if isinstance(node.func, ast.Name) and node.func.id in ("super", "locals"):
            return node
        return self.generic_visit(node)  # type: ignore[return-value]

    def visit_arg(self, node: ast.arg) -> ast.arg:
        """Annotations of parameters stay as they are."""
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AnnAssign:
        """Annotations of variables, too."""
        node.target = self.visit(node.target)
        if node.value is not None:
            node.value = self.visit(node.value)
        return node

    def visit_match_case(self, node: ast.match_case) -> ast.match_case:
        """Patterns name classes and constants, not variables."""
        if node.guard is not None:
            node.guard = self.visit(node.guard)
        node.body = [self.visit(statement) for statement in node.body]
        return node
