"""The rewritten syntax tree of a function: its statements, and the tree as a whole."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from typing import Final

from ember_xcs._enhanced.guards import Guards
from ember_xcs._enhanced.names import Scope, assigned_names, contains_yield, mangled, own_nodes
from ember_xcs._enhanced.plain_bodies import with_values
from ember_xcs._enhanced.rewriting import MARK, Unsupported, copied, is_names, shape

__all__ = ["FACTORY", "MARK", "Unsupported", "rewritten_tree"]

FACTORY: Final = "_xcs_factory"
_OWN_NAME: Final = "_xcs_function"

_IN_PLACE: Final[dict[type[ast.operator], str]] = {
    ast.Add: "iadd",
    ast.Sub: "isub",
    ast.Mult: "imul",
    ast.Div: "itruediv",
    ast.FloorDiv: "ifloordiv",
    ast.Mod: "imod",
    ast.Pow: "ipow",
    ast.MatMult: "imatmul",
    ast.BitAnd: "iand",
    ast.BitOr: "ior",
    ast.BitXor: "ixor",
    ast.LShift: "ilshift",
    ast.RShift: "irshift",
}

_DEFINED = (ast.FunctionDef, ast.AsyncFunctionDef)

Statements = list[ast.stmt]


class Rewriter(Guards):
    """Rewrites the body of a function, and of those that are defined in it."""

    # Functions

    def function(self, node: ast.FunctionDef, enclosing: Sequence[Scope] = ()) -> None:
        """Rewrites the parameters' handling and the body of a function, in place."""
        scope = Scope(node.args, node.body, enclosing)
        self.scopes.append(scope)
        in_iterable, self._in_iterable = self._in_iterable, 0
        start = 1 if ast.get_docstring(node, clean=False) is not None else 0
        body = [*node.body[:start], *self._given(node.args, node), *self.block(node.body[start:])]
        last = node.body[-1]
        if not isinstance(last, ast.Return | ast.Raise):
            none = ast.Constant(None)
            body += (
                [self._do("settle", at=last)]
                if scope.is_generator
                else [ast.copy_location(ast.Return(self.op("out", none, at=last)), last)]
            )
        node.body = body
        self._in_iterable = in_iterable
        self.scopes.pop()

    def _given(self, args: ast.arguments, at: ast.AST) -> Statements:
        """What makes ``*args`` and ``**kwargs`` containers that the program has made."""
        made: Statements = []
        for arg, operation in ((args.vararg, "tuple_of"), (args.kwarg, "fresh")):
            if arg is not None:
                given = self.op(operation, ast.Name(arg.arg, ast.Load()), at=arg)
                made.append(
                    ast.copy_location(ast.Assign([ast.Name(arg.arg, ast.Store())], given), arg)
                )
        return made

    def block(self, statements: Iterable[ast.stmt]) -> Statements:
        """Returns rewritten statements."""
        made: Statements = []
        for statement in statements:
            found = self.visit(statement)
            made += found if isinstance(found, list) else [found]
        return made

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Statements:
        """A function within the program is part of it."""
        guarded = [
            n
            for n in ast.walk(node)
            if isinstance(n, ast.Try | ast.With) and contains_yield(n.body)
        ]
        if guarded:
            return self._plain(node)
        node.decorator_list = [self.op("exposed", self.visit(d), at=d) for d in node.decorator_list]
        self._defaults(node.args)
        returned = _single_expression(node)
        self.note_purity(node.name, _first_line(node), node.args, returned)
        self.function(node, self.scopes)
        return [node, *self.noted([node.name], node)]

    def _plain(self, node: ast.stmt) -> Statements:
        """A definition whose body runs as it is."""
        self.plain |= {(n.name, _first_line(n)) for n in ast.walk(node) if isinstance(n, _DEFINED)}
        self.plain |= {("<lambda>", n.lineno) for n in ast.walk(node) if isinstance(n, ast.Lambda)}
        made = with_values(node, lambda read: self.op("value", read, at=read))
        names = sorted(assigned_names([node]))
        return [self._do("settle", at=node), made, *self.noted(names, node)]

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> Statements:
        """Coroutines run as they are."""
        return self._plain(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> Statements:
        """Classes are made as they are."""
        return self._plain(node)

    def visit_Import(self, node: ast.Import) -> Statements:
        """An import may run any code."""
        return [
            self._do("settle", at=node),
            node,
            *self.noted(sorted(assigned_names([node])), node),
        ]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> Statements:
        """The same."""
        names = sorted(assigned_names([node]))
        return [self._do("settle", at=node), node, *self.noted(names, node)]

    # Assigning

    def visit_Assign(self, node: ast.Assign) -> Statements:
        """An assignment, to any number of targets."""
        value = self.visit(node.value)
        if len(node.targets) == 1:
            return self.store(node.targets[0], value, node)
        name = self.temporary()
        made = [_assign(name, value, node)]
        for target in node.targets:
            made += self.store(target, ast.Name(name, ast.Load()), node)
        return made

    def store(self, target: ast.expr, value: ast.expr, at: ast.AST) -> Statements:
        """Returns the statements that put a value into a target."""
        if isinstance(target, ast.Name):
            made = ast.copy_location(ast.Assign([target], self._for(target.id, value)), at)
            return [made, *self.noted([target.id], at)]
        if isinstance(target, ast.Attribute):
            name = ast.Constant(mangled(target.attr, self.owner))
            return [self._do("set_attribute", value, self.visit(target.value), name, at=at)]
        if isinstance(target, ast.Subscript):
            container, key = self.visit(target.value), self.visit(target.slice)
            return [self._do("set_item", value, container, key, at=at)]
        assert isinstance(target, ast.Tuple | ast.List)
        return self._unpacked(target, value, at)

    def _for(self, name: str, value: ast.expr) -> ast.expr:
        """A value as the variable may have it that it is for."""
        if name in self.scope.shared:
            return self.op("exposed", value, at=value)
        return self.op("owned", value, at=value) if name in self.scope.owned else value

    def _unpacked(self, target: ast.Tuple | ast.List, value: ast.expr, at: ast.AST) -> Statements:
        unpacked = self.op("unpack", value, shape(target), at=at)
        names = sorted(assigned_names([target]))
        declared = self.scope.shared | self.scope.owned
        if is_names(target) and declared.isdisjoint(names) and not _starred(target):
            made = ast.copy_location(ast.Assign([target], unpacked), at)
            return [made, *self.noted(names, at)]
        return self._by_parts(target, unpacked, at)

    def _by_parts(
        self, target: ast.Tuple | ast.List, unpacked: ast.expr, at: ast.AST
    ) -> Statements:
        """Unpacks into variables of our own, and puts each where it belongs."""
        parts: list[ast.expr] = []
        stores: list[tuple[ast.expr, ast.expr]] = []
        for item in target.elts:
            name = self.temporary()
            stored: ast.expr = ast.Name(name, ast.Store())
            value: ast.expr = ast.Name(name, ast.Load())
            if isinstance(item, ast.Starred):
                stored, value = ast.Starred(stored, ast.Store()), self.op("fresh", value, at=at)
                item = item.value  # noqa: PLW2901  (what is starred)
            parts.append(stored)
            stores.append((item, value))
        whole = ast.Tuple(parts, ast.Store())
        made: Statements = [ast.copy_location(ast.Assign([whole], unpacked), at)]
        for item, value in stores:
            made += self.store(item, value, at)
        return made

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Statements:
        """An assignment with an annotation, which functions do not evaluate."""
        if node.value is None:
            node.annotation = ast.copy_location(ast.Constant(None), node.annotation)
            return [node]
        return self.store(node.target, self.visit(node.value), node)

    def visit_AugAssign(self, node: ast.AugAssign) -> Statements:
        """``+=`` and the like."""
        operation = _IN_PLACE[type(node.op)]
        target = node.target
        if isinstance(target, ast.Name):
            read = ast.copy_location(ast.Name(target.id, ast.Load()), target)
            value = self.op(operation, read, self.visit(node.value), at=node)
            return self.store(target, value, node)
        whole = self.temporary()
        made: Statements = [_assign(whole, self.visit(target.value), node)]
        again = ast.Name(whole, ast.Load())
        if isinstance(target, ast.Attribute):
            name = ast.Constant(mangled(target.attr, self.owner))
            read_attribute = self.op("attribute", again, name, at=target)
            value = self.op(operation, read_attribute, self.visit(node.value), at=node)
            return [*made, self._do("set_attribute", value, again, name, at=node)]
        key = self.temporary()
        made.append(_assign(key, self.visit(target.slice), node))
        read_item = self.op("item", again, ast.Name(key, ast.Load()), at=target)
        value = self.op(operation, read_item, self.visit(node.value), at=node)
        stored = self._do("set_item", value, again, ast.Name(key, ast.Load()), at=node)
        return [*made, stored]

    def visit_Delete(self, node: ast.Delete) -> Statements:
        """``del`` of variables, items and attributes."""
        made: Statements = []
        for target in node.targets:
            made += self._deleted(target, node)
        return made

    def _deleted(self, target: ast.expr, at: ast.AST) -> Statements:
        if isinstance(target, ast.Tuple | ast.List):
            return [s for item in target.elts for s in self._deleted(item, at)]
        if isinstance(target, ast.Attribute):
            name = ast.Constant(mangled(target.attr, self.owner))
            return [self._do("delete_attribute", self.visit(target.value), name, at=at)]
        if isinstance(target, ast.Subscript):
            container, key = self.visit(target.value), self.visit(target.slice)
            return [self._do("delete_item", container, key, at=at)]
        assert isinstance(target, ast.Name)
        made: Statements = [ast.copy_location(ast.Delete([target]), at)]
        if self.scope.region is not None:
            made.append(self._note(target.id, self.op("unbound", at=at), at))
        if self.scope.region is not None or target.id in self.scope.shared:
            made.insert(0, self._do("settle", at=at))
        return made

    # Control flow

    def visit_Return(self, node: ast.Return) -> Statements:
        """What is returned to other code is there."""
        value = ast.Constant(None) if node.value is None else self.visit(node.value)
        operation = "exposed" if self.scope.is_generator else "out"
        exits = self.exits(node, all_the_way=True)
        if not exits:
            node.value = self.op(operation, value, at=node)
            return [node]
        name = self.temporary()
        node.value = self.op(operation, ast.Name(name, ast.Load()), at=node)
        return [_assign(name, value, node), *exits, node]

    def visit_Break(self, node: ast.Break) -> Statements:
        """Leaves what is within the loop."""
        return [*self.exits(node), node]

    def visit_Continue(self, node: ast.Continue) -> Statements:
        """Leaves what is within the loop."""
        return [*self.exits(node), node]

    def visit_If(self, node: ast.If) -> Statements:
        """A branch waits for what decides it."""
        node.test = self.op("test", self.visit(node.test), at=node.test)
        node.body, node.orelse = self.block(node.body), self.block(node.orelse)
        return [node]

    def visit_While(self, node: ast.While) -> Statements:
        """A loop waits for what decides whether it goes on."""
        node.test = self.op("test", self.visit(node.test), at=node.test)
        self.scope.blocks.append("loop")
        node.body = self.block(node.body)
        self.scope.blocks.pop()
        node.orelse = self.block(node.orelse)
        return [node]

    def visit_For(self, node: ast.For) -> Statements:
        """A loop over a pending value waits for it; its items may be pending."""
        node.iter = self.iterated(node.iter, node.target)
        node.target, first = self._target(node.target, node)
        self.scope.blocks.append("loop")
        node.body = [*first, *self.block(node.body)]
        self.scope.blocks.pop()
        node.orelse = self.block(node.orelse)
        return [node]

    def _target(self, target: ast.expr, at: ast.AST) -> tuple[ast.expr, Statements]:
        """A target that Python assigns to, and what is then to be done."""
        names = sorted(assigned_names([target]))
        declared = self.scope.shared | self.scope.owned
        if is_names(target) and declared.isdisjoint(names) and not _starred(target):
            return target, self.noted(names, at)
        name = self.temporary()
        stored = ast.copy_location(ast.Name(name, ast.Store()), target)
        return stored, self.store(target, ast.Name(name, ast.Load()), at)

    def visit_Raise(self, node: ast.Raise) -> Statements:
        """What is raised is there, and so is all that came before."""
        if node.exc is None:
            return [self._do("settle", at=node), node]
        node.exc = self.op("exposed", self.visit(node.exc), at=node)
        if node.cause is not None:
            node.cause = self.op("exposed", self.visit(node.cause), at=node)
        return [node]

    def visit_Assert(self, node: ast.Assert) -> Statements:
        """An assertion waits for its test."""
        node.test = self.op("test", self.visit(node.test), at=node.test)
        if node.msg is not None:
            node.msg = self.op("exposed", self.visit(node.msg), at=node.msg)
        return [node]

    def visit_Match(self, node: ast.Match) -> Statements:
        """A match waits for its subject."""
        node.subject = self.op("exposed", self.visit(node.subject), at=node.subject)
        for case in node.cases:
            if case.guard is not None:
                case.guard = self.op("test", self.visit(case.guard), at=case.guard)
            names = sorted(assigned_names([case.pattern]))
            case.body = [*self.noted(names, case.body[0]), *self.block(case.body)]
        return [node]

    def visit_AsyncFor(self, node: ast.AsyncFor) -> Statements:
        """Only coroutines have it."""
        raise Unsupported(f"line {node.lineno} has an `async for`")

    def visit_AsyncWith(self, node: ast.AsyncWith) -> Statements:
        """Only coroutines have it."""
        raise Unsupported(f"line {node.lineno} has an `async with`")


def _assign(name: str, value: ast.expr, at: ast.AST) -> ast.stmt:
    return ast.copy_location(ast.Assign([ast.Name(name, ast.Store())], value), at)


def _starred(target: ast.expr) -> bool:
    return any(isinstance(node, ast.Starred) for node in ast.walk(target))


def _first_line(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return min([node.lineno, *(d.lineno for d in node.decorator_list)])


def _single_expression(node: ast.FunctionDef) -> ast.expr | None:
    """What a function returns that does nothing else."""
    body = node.body
    if ast.get_docstring(node) is not None:
        body = body[1:]
    if len(body) == 1 and isinstance(body[0], ast.Return):
        return body[0].value
    return None


def rewritten_tree(
    node: ast.FunctionDef | ast.Lambda, free: Sequence[str], owner: str | None
) -> tuple[ast.Module, set[tuple[str, int]], set[tuple[str, int]], bool]:
    """Returns the rewritten function within a function that has its free variables.

    Args:
        node: The definition; it is not changed.
        free: The free variables.
        owner: The class in whose body it stands.

    Returns:
        The module, the functions in it that only read and compute, those that run as they are,
        and whether the function itself only reads and computes.

    Raises:
        Unsupported: It has something that cannot be rewritten.
    """
    rewriter = Rewriter(owner)
    definition: ast.FunctionDef = _as_function(node)
    definition.name = _OWN_NAME  # or its own name in it would mean this definition
    _check(definition)
    returned = _single_expression(definition)
    rewriter.note_purity("", 0, definition.args, returned)
    is_simple = bool(rewriter.pure) and not free
    rewriter.function(definition)
    _without_outside(definition)
    body: Statements = [definition]
    if owner is not None:
        hidden = "_" * 8 + owner  # private names are the same in it
        body = [ast.ClassDef(name=hidden, bases=[], keywords=[], body=body, decorator_list=[])]
    names = [ast.arg(name) for name in free if name != "__class__"]
    parameters = ast.arguments([], names, None, [], [], None, [])
    factory = ast.FunctionDef(name=FACTORY, args=parameters, body=body, decorator_list=[])
    for made in (factory, *body):
        ast.copy_location(made, definition)
        if hasattr(ast, "TypeAlias"):
            made.type_params = []  # type: ignore[attr-defined, unused-ignore]
    module = ast.Module([factory], [])
    ast.fix_missing_locations(module)
    return module, rewriter.pure - rewriter.impure, rewriter.plain, is_simple


def _as_function(node: ast.FunctionDef | ast.Lambda) -> ast.FunctionDef:
    copy = copied(node)
    if isinstance(copy, ast.FunctionDef):
        return copy
    returned = ast.copy_location(ast.Return(copy.body), copy.body)
    made = ast.FunctionDef(name=_OWN_NAME, args=copy.args, body=[returned], decorator_list=[])
    return ast.copy_location(made, node)


def _check(node: ast.FunctionDef) -> None:
    for inner in ast.walk(node):
        if isinstance(inner, ast.TryStar):
            raise Unsupported(f"line {inner.lineno} has an `except*`")
    for inner in _own_guarded(node):
        if contains_yield(inner.body):
            raise Unsupported(f"line {inner.lineno} yields within a `try` or `with`")


def _own_guarded(node: ast.FunctionDef) -> list[ast.Try | ast.With]:
    return [n for n in own_nodes(node.body) if isinstance(n, ast.Try | ast.With)]


def _without_outside(node: ast.FunctionDef) -> None:
    """Takes away what the function has been made with already: only its code is wanted."""
    node.decorator_list, node.returns = [], None
    args = node.args
    for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg):
        if arg is not None:
            arg.annotation = None
    args.defaults = [ast.Constant(None) for _ in args.defaults]
    args.kw_defaults = [None if d is None else ast.Constant(None) for d in args.kw_defaults]
