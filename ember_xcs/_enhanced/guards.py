"""The rewritten syntax tree of a function: ``try`` and ``with``, whose bodies are regions."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import Any

from ember_xcs._enhanced.names import assigned_names
from ember_xcs._enhanced.rewriting import Expressions

__all__ = ["Guards"]

Statements = list[ast.stmt]


class Guards(Expressions):
    """Rewrites what catches failures, and what leaves it."""

    def block(self, statements: Iterable[ast.stmt]) -> Statements:
        """Returns rewritten statements."""
        raise NotImplementedError

    def store(self, target: ast.expr, value: ast.expr, at: ast.AST) -> Statements:
        """Returns the statements that put a value into a target."""
        raise NotImplementedError

    def _do(self, name: str, *args: ast.expr, at: ast.AST) -> ast.stmt:
        return ast.copy_location(ast.Expr(self.op(name, *args, at=at)), at)

    # Variables of regions

    def noted(self, names: Iterable[str], at: ast.AST) -> Statements:
        """Returns what notes that variables were assigned, where a region wants to know."""
        if self.scope.region is None:
            return []
        own = self.scope.bound
        return [
            self._note(name, ast.Name(name, ast.Load()), at)
            for name in names
            if name in own and not name.startswith("_xcs_")
        ]

    def _note(self, name: str, value: ast.expr, at: ast.AST) -> ast.stmt:
        region = self.scope.region
        assert region is not None
        return self._do("note", ast.Name(region, ast.Load()), ast.Constant(name), value, at=at)

    def exits(self, at: ast.AST, *, all_the_way: bool = False) -> Statements:
        """Returns what is to be done before a statement leaves the blocks that it is in.

        Args:
            at: The statement.
            all_the_way: Whether it leaves the function, and not only a loop.
        """
        made: Statements = []
        for block in reversed(self.scope.blocks):
            if block == "loop":
                if not all_the_way:
                    break
            elif block == "settle":
                made.append(self._do("settle", at=at))
            else:
                made.append(self._do("leave", ast.Name(block, ast.Load()), at=at))
        return made

    # try

    def visit_Try(self, node: ast.Try) -> Statements:
        """The body is a region; handlers find what plain Python would have let them find."""
        before, guarded = self._region(node.body, node)
        node.body = guarded
        for handler in node.handlers:
            handler.body = self._settled(handler.body, handler, is_handler=True)
        node.orelse = self.block(node.orelse)
        if node.finalbody:
            node.finalbody = self._settled(node.finalbody, node.finalbody[0])
        return [*before, node]

    def _settled(
        self, statements: Statements, at: ast.AST, *, is_handler: bool = False
    ) -> Statements:
        """The body of a handler or of ``finally``, all of whose calls end with it."""
        self.scope.blocks.append("settle")
        made = self.block(statements)
        self.scope.blocks.pop()
        first = [self._do("caught", at=statements[0])] if is_handler else []
        if isinstance(statements[-1], ast.Return | ast.Raise | ast.Break | ast.Continue):
            return [*first, *made]
        del at
        return [*first, *made, self._do("settle", at=statements[-1])]

    # with

    def visit_With(self, node: ast.With) -> Statements:
        """Its body is a region, too: the context may swallow what it fails with."""
        if len(node.items) > 1:
            inner = ast.copy_location(ast.With(node.items[1:], node.body), node)
            node.items, node.body = node.items[:1], [inner]
        (item,) = node.items
        item.context_expr = self.op("exposed", self.visit(item.context_expr), at=node)
        first: Statements = []
        if item.optional_vars is not None:
            name = self.temporary()
            target, item.optional_vars = item.optional_vars, ast.Name(name, ast.Store())
            first = self.store(target, ast.Name(name, ast.Load()), node)
        before, guarded = self._region(node.body, node)
        node.body = [*first, *before, *guarded]
        return [node]

    # Both

    def _region(self, body: Statements, at: ast.AST) -> tuple[Statements, Statements]:
        """What is to be done before a region, and the region itself."""
        region, found = self.temporary(), self.temporary()
        scope = self.scope
        names = sorted(assigned_names(body) & scope.bound)
        table: Any = tuple(names)
        entered = [ast.Constant(table), _locals()] if names else []
        before = [
            _assign(region, self.op("enter", *entered, at=at), at),
            _assign(found, ast.Constant(None), at),
        ]
        scope.blocks.append(region)
        made = self.block(body)
        scope.blocks.pop()
        last = body[-1]
        if not isinstance(last, ast.Return | ast.Raise | ast.Break | ast.Continue):
            made.append(self._do("leave", ast.Name(region, ast.Load()), at=last))
        handler = ast.ExceptHandler(None, None, self._failing(region, found, at))
        guard = ast.Try(made, [ast.copy_location(handler, at)], [], [])
        return before, [ast.copy_location(guard, at), self._raising(found, names, at)]

    def _failing(self, region: str, found: str, at: ast.AST) -> Statements:
        failed = self.op("failed", ast.Name(region, ast.Load()), at=at)
        is_own = ast.Compare(ast.Name(found, ast.Load()), [ast.Is()], [ast.Constant(None)])
        reraise = ast.If(is_own, [ast.copy_location(ast.Raise(), at)], [])
        return [_assign(found, failed, at), ast.copy_location(reraise, at)]

    def _raising(self, found: str, names: Iterable[str], at: ast.AST) -> ast.stmt:
        """Raises what an earlier call failed with, the variables as they were when it was made."""
        body: Statements = [self._restored(name, found, at) for name in names]
        error = ast.Attribute(ast.Name(found, ast.Load()), "error", ast.Load())
        body.append(ast.copy_location(ast.Raise(error), at))
        is_there = ast.Compare(ast.Name(found, ast.Load()), [ast.IsNot()], [ast.Constant(None)])
        return ast.copy_location(ast.If(is_there, body, []), at)

    def _restored(self, name: str, found: str, at: ast.AST) -> ast.stmt:
        def within(field: str) -> ast.expr:
            table = ast.Attribute(ast.Name(found, ast.Load()), field, ast.Load())
            return ast.Compare(ast.Constant(name), [ast.In()], [table])

        table = ast.Attribute(ast.Name(found, ast.Load()), "bound", ast.Load())
        value = ast.Subscript(table, ast.Constant(name), ast.Load())
        forget = ast.Delete([ast.Name(name, ast.Del())])
        otherwise = ast.If(within("unbound"), [ast.copy_location(forget, at)], [])
        made = ast.If(
            within("bound"), [_assign(name, value, at)], [ast.copy_location(otherwise, at)]
        )
        return ast.copy_location(made, at)


def _assign(name: str, value: ast.expr, at: ast.AST) -> ast.stmt:
    return ast.copy_location(ast.Assign([ast.Name(name, ast.Store())], value), at)


def _locals() -> ast.expr:
    return ast.Call(ast.Name("locals", ast.Load()), [], [])
