"""Makes an ``async def`` of a random program, which awaits the operators that it calls itself."""

from __future__ import annotations

import ast

__all__ = ["as_coroutine_function"]


class _Awaiting(ast.NodeTransformer):
    """Awaits ``aask(...)`` in place of ``ask(...)``, but not in functions within the function."""

    def __init__(self, awaited: frozenset[str]) -> None:
        self._awaited = awaited

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        return node

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> ast.AST:
        """A generator that awaits would be an asynchronous one, which nothing here consumes."""
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id in self._awaited:
            node.func.id = "a" + node.func.id
            return ast.Await(node)
        return node


def as_coroutine_function(source: str, awaited: frozenset[str]) -> str:
    """Returns the source of a function as that of a coroutine function.

    Args:
        source: A ``def``.
        awaited: The operators whose calls it awaits.
    """
    (function,) = ast.parse(source).body
    assert isinstance(function, ast.FunctionDef)
    body = [_Awaiting(awaited).visit(statement) for statement in function.body]
    coroutine = ast.AsyncFunctionDef(**{**vars(function), "body": body})
    return ast.unparse(ast.fix_missing_locations(coroutine))
