"""Which variables a piece of a function assigns, and whose they are."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

__all__ = ["Scope", "assigned_names", "bound_names", "contains_yield", "mangled", "own_nodes"]

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def own_nodes(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yields the nodes of a piece of code, without those of the functions defined in it."""
    for node in nodes:
        yield node
        if not isinstance(node, _FUNCTIONS):
            yield from own_nodes(ast.iter_child_nodes(node))


def assigned_names(nodes: Iterable[ast.AST]) -> set[str]:
    """Returns the variables that a piece of code assigns, those of comprehensions left out."""
    found: set[str] = set()
    for node in nodes:
        found |= _assigned(node)
    return found


def _assigned(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Name):
        return set() if isinstance(node.ctx, ast.Load) else {node.id}
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Lambda):
        return set()
    if isinstance(node, ast.alias):
        return {(node.asname or node.name).partition(".")[0]}
    if isinstance(node, ast.comprehension):
        return assigned_names([node.iter, *node.ifs])
    found = assigned_names(ast.iter_child_nodes(node))
    if isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
        found.add(node.name)
    if isinstance(node, ast.MatchMapping) and node.rest:
        found.add(node.rest)
    return found


def bound_names(args: ast.arguments, body: Iterable[ast.AST]) -> set[str]:
    """Returns the parameters and variables of a function."""
    given = [*args.posonlyargs, *args.args, *args.kwonlyargs]
    given += [a for a in (args.vararg, args.kwarg) if a is not None]
    return {a.arg for a in given} | assigned_names(body)


def contains_yield(nodes: Iterable[ast.AST]) -> bool:
    """Whether a piece of code yields."""
    return any(isinstance(node, ast.Yield | ast.YieldFrom) for node in own_nodes(nodes))


def mangled(name: str, owner: str | None) -> str:
    """Returns an attribute's name as Python has it within a class."""
    if owner is None or not name.startswith("__") or name.endswith("__") or "." in name:
        return name
    stripped = owner.lstrip("_")
    return f"_{stripped}{name}" if stripped else name


class Scope:
    """A function whose body is being rewritten.

    Attributes:
        bound: Its parameters and variables.
        shared: Variables that it assigns and other code can see: globals, and those of functions
            outside the program.
        owned: Variables that it assigns of an enclosing function of the program.
        is_generator: Whether it yields.
        blocks: What the statement is in that is being rewritten, innermost last: ``"loop"``,
            ``"settle"`` for what ends with a wait, or the variable of a region.
    """

    def __init__(
        self, args: ast.arguments, body: list[ast.stmt], enclosing: Iterable[Scope] = ()
    ) -> None:
        declared = list(own_nodes(body))
        names = {n for d in declared if isinstance(d, ast.Global) for n in d.names}
        outer = {n for d in declared if isinstance(d, ast.Nonlocal) for n in d.names}
        around = set().union(*(scope.bound for scope in enclosing))
        self.bound: set[str] = bound_names(args, body) - names - outer
        self.shared = names | (outer - around)
        self.owned = outer & around
        self.is_generator = contains_yield(body)
        self.blocks: list[str] = []

    @property
    def region(self) -> str | None:
        """The variable of the innermost region; None outside all."""
        for block in reversed(self.blocks):
            if block not in ("loop", "settle"):
                return block
        return None
