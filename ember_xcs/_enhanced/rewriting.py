"""The rewritten syntax tree of a function: expressions, and the tree as a whole.

Each call and each operation becomes a call of a method of one object, ``Operations``, which stands
in the constants of the code. Control flow stays what it is; statements that wait are in
``statements``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import Any, Final

from ember_xcs._enhanced.callbacks import is_simple
from ember_xcs._enhanced.names import Scope, mangled

__all__ = ["MARK", "Expressions", "Unsupported", "copied", "is_names", "shape"]

MARK: Final = "\0ember_xcs operations"
"""The constant in whose place the operations are put."""

_BINARY: Final[dict[type[ast.operator], str]] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "truediv",
    ast.FloorDiv: "floordiv",
    ast.Mod: "mod",
    ast.Pow: "pow",
    ast.MatMult: "matmul",
    ast.BitAnd: "and_",
    ast.BitOr: "or_",
    ast.BitXor: "xor",
    ast.LShift: "lshift",
    ast.RShift: "rshift",
}
_COMPARISONS: Final[dict[type[ast.cmpop], str]] = {
    ast.Eq: "eq",
    ast.NotEq: "ne",
    ast.Lt: "lt",
    ast.LtE: "le",
    ast.Gt: "gt",
    ast.GtE: "ge",
    ast.In: "contains",
    ast.NotIn: "lacks",
}
_UNARY: Final[dict[type[ast.unaryop], str]] = {
    ast.USub: "neg",
    ast.UAdd: "pos",
    ast.Invert: "invert",
}
_FRAME_READERS: Final = frozenset({"eval", "exec", "vars", "dir", "globals", "breakpoint"})
"""Builtins that look at the frame of their caller, and so must be called by it."""


class Unsupported(Exception):
    """Raised when a function cannot be rewritten; the message says why."""


class Expressions(ast.NodeTransformer):
    """Rewrites expressions.

    Args:
        owner: The class in whose body the function stands, for names like ``self.__x``.
    """

    def __init__(self, owner: str | None) -> None:
        self.owner = owner
        self.scopes: list[Scope] = []
        self.pure: set[tuple[str, int]] = set()
        self.impure: set[tuple[str, int]] = set()
        self.plain: set[tuple[str, int]] = set()
        self._count = 0
        self._in_iterable = 0

    @property
    def scope(self) -> Scope:
        """The function whose body is being rewritten."""
        return self.scopes[-1]

    def temporary(self) -> str:
        """Returns a new name for a variable of our own."""
        self._count += 1
        return f"_xcs_{self._count}"

    def op(self, name: str, *args: ast.expr, at: ast.AST) -> ast.Call:
        """Returns the call of an operation, at the place of a node."""
        function = ast.Attribute(ast.Constant(MARK), name, ast.Load())
        place: Any = at
        if hasattr(place, "lineno"):  # or Python would tell the line on which it ends
            function.lineno = function.end_lineno = place.lineno
            function.col_offset = function.end_col_offset = place.col_offset
        return ast.copy_location(ast.Call(function, list(args), []), at)

    def _all(self, nodes: Iterable[ast.expr]) -> list[ast.expr]:
        return [self.visit(node) for node in nodes]

    # Calls

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """A call goes to what the dispatcher gives for the function."""
        if isinstance(node.func, ast.Name):
            special = self._by_name(node, node.func.id)
            if special is not None:
                return special
        if node.args and isinstance(node.args[0], ast.GeneratorExp) and not self._binds(node):
            return self._consumed(node)
        if isinstance(node.func, ast.Attribute):
            receiver = self.visit(node.func.value)
            name = ast.Constant(mangled(node.func.attr, self.owner))
            function = self.op("method", receiver, name, at=node.func)
        else:
            function = self.op("target", self.visit(node.func), at=node.func)
        args, keywords = self._arguments(node.args, node.keywords)
        made = ast.copy_location(ast.Call(function, args, keywords), node)
        if isinstance(node.func, ast.Attribute) and node.func.end_lineno is not None:
            made.lineno = node.func.end_lineno  # as Python has it for a method on a line of its own
            if made.lineno != node.lineno:
                made.col_offset = (node.func.end_col_offset or 0) - len(node.func.attr)
        return made

    def _by_name(self, node: ast.Call, name: str) -> ast.expr | None:
        if self._is_variable(name):
            return None
        if name == "super" and not node.args:
            return node
        if name in ("locals", "vars") and not node.args:
            return self.op("locals", node, at=node)
        if name in _FRAME_READERS:
            call = ast.Call(
                node.func,
                [self.op("exposed", self.visit(a), at=a) for a in node.args],
                node.keywords,
            )
            if name in ("eval", "exec") and _is_bare(node):
                call.args += [_builtin("globals"), self.op("seen", _builtin("locals"), at=node)]
            settle = self.op("settle", at=node)
            return ast.copy_location(ast.BoolOp(ast.Or(), [settle, call]), node)
        return None

    def _is_variable(self, name: str) -> bool:
        return any(name in scope.bound for scope in self.scopes)

    def _arguments(
        self, args: Iterable[ast.expr], keywords: Iterable[ast.keyword]
    ) -> tuple[list[ast.expr], list[ast.keyword]]:
        made = [
            ast.keyword(k.arg, self.visit(k.value) if k.arg else self._mapping(k.value))
            for k in keywords
        ]
        return self._all(args), made

    def _mapping(self, node: ast.expr) -> ast.expr:
        return self.op("value", self.visit(node), at=node)

    def _binds(self, node: ast.AST) -> bool:
        """Whether a comprehension cannot become part of a lambda."""
        return any(isinstance(n, ast.NamedExpr | ast.Await) for n in ast.walk(node))

    def _consumed(self, node: ast.Call) -> ast.expr:
        """A call with a generator expression: as a list for a function that needs all of it."""
        generator = node.args[0]
        assert isinstance(generator, ast.GeneratorExp)
        listed = ast.copy_location(ast.ListComp(generator.elt, generator.generators), generator)
        function = self.visit(node.func)
        first, name = generator.generators[0], self.temporary()
        items = self.iterated(first.iter, first.target)
        first.iter = ast.copy_location(ast.Name(name, ast.Load()), first.iter)
        forms = [_of(name, self.visit(copied(part))) for part in (listed, generator)]
        args, keywords = self._arguments(node.args[1:], node.keywords)
        call = self.op("consume", function, items, *forms, *args, at=node)
        call.keywords = keywords
        return call

    # Reading

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        """An attribute that is read; others are the business of statements."""
        name = ast.Constant(mangled(node.attr, self.owner))
        return self.op("attribute", self.visit(node.value), name, at=node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        """An item that is read."""
        return self.op("item", self.visit(node.value), self.visit(node.slice), at=node)

    def visit_Slice(self, node: ast.Slice) -> ast.expr:
        """The bounds of a slice."""
        parts = [
            ast.Constant(None) if part is None else self.visit(part)
            for part in (node.lower, node.upper, node.step)
        ]
        return self.op("slice", *parts, at=node)

    def visit_Starred(self, node: ast.Starred) -> ast.expr:
        """What is spread over a display or a call."""
        spread = self.op("spread", self.visit(node.value), at=node)
        return ast.copy_location(ast.Starred(spread, node.ctx), node)

    # Computing

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        """Arithmetic."""
        left, right = self.visit(node.left), self.visit(node.right)
        return self.op(_BINARY[type(node.op)], left, right, at=node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        """Signs; ``not`` waits."""
        operand = self.visit(node.operand)
        if isinstance(node.operand, ast.Constant):
            return node
        if isinstance(node.op, ast.Not):
            node.operand = self.op("test", operand, at=node.operand)
            return node
        return self.op(_UNARY[type(node.op)], operand, at=node)

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        """``and`` and ``or`` wait for the truth of all but their last operand."""
        *tested, last = self._all(node.values)
        node.values = [*(self.op("test", value, at=value) for value in tested), last]
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        """A choice waits for what decides it."""
        node.test = self.op("test", self.visit(node.test), at=node.test)
        node.body, node.orelse = self.visit(node.body), self.visit(node.orelse)
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        """Comparisons; a chain of them waits for each but the last."""
        left = self.visit(node.left)
        operands = self._all(node.comparators)
        if len(operands) == 1:
            return self._compared(left, node.ops[0], operands[0], node)
        if self._in_iterable:
            raise Unsupported(f"line {node.lineno} has a chained comparison within an iterable")
        parts: list[ast.expr] = []
        for operator, operand in zip(node.ops[:-1], operands[:-1], strict=True):
            name = self.temporary()
            kept = ast.NamedExpr(ast.Name(name, ast.Store()), operand)
            compared = self._compared(left, operator, kept, node)
            parts.append(self.op("test", compared, at=node))
            left = ast.Name(name, ast.Load())
        parts.append(self._compared(left, node.ops[-1], operands[-1], node))
        return ast.copy_location(ast.BoolOp(ast.And(), parts), node)

    def _compared(
        self, left: ast.expr, operator: ast.cmpop, right: ast.expr, at: ast.AST
    ) -> ast.expr:
        if isinstance(operator, ast.Is | ast.IsNot):
            values = [self.op("value", side, at=at) for side in (left, right)]
            return ast.copy_location(ast.Compare(values[0], [operator], [values[1]]), at)
        return self.op(_COMPARISONS[type(operator)], left, right, at=at)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.expr:
        """A text with values in it."""
        if all(isinstance(part, ast.Constant) for part in node.values):
            return node
        parts = [part if isinstance(part, ast.Constant) else self.visit(part)
                 for part in node.values]  # fmt: skip
        return self.op("text", *parts, at=node)

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.expr:
        """A value within a text."""
        spec = ast.Constant("") if node.format_spec is None else self.visit(node.format_spec)
        if isinstance(spec, ast.JoinedStr):
            spec = ast.Constant("".join(str(p.value) for p in spec.values))  # type: ignore[attr-defined]
        return self.op(
            "format", self.visit(node.value), ast.Constant(node.conversion), spec, at=node
        )

    # Making containers

    def visit_Tuple(self, node: ast.Tuple) -> ast.expr:
        """A tuple is pending if an item is."""
        if all(isinstance(item, ast.Constant) for item in node.elts):
            return node
        node.elts = self._all(node.elts)
        return self.op("tuple_of", node, at=node)

    def visit_List(self, node: ast.List) -> ast.expr:
        """A list may have pending items."""
        node.elts = self._all(node.elts)
        return self.op("fresh", node, at=node)

    def visit_Set(self, node: ast.Set) -> ast.expr:
        """The items of a set are hashed, and so waited for."""
        node.elts = [
            self.visit(item)
            if isinstance(item, ast.Starred)
            else self.op("key", self.visit(item), at=item)
            for item in node.elts
        ]
        return self.op("fresh", node, at=node)

    def visit_Dict(self, node: ast.Dict) -> ast.expr:
        """The values of a dict may be pending."""
        keys: list[ast.expr | None] = []
        values: list[ast.expr] = []
        for key, value in zip(node.keys, node.values, strict=True):
            keys.append(None if key is None else self.op("key", self.visit(key), at=key))
            values.append(self._mapping(value) if key is None else self.visit(value))
        node.keys, node.values = keys, values
        return self.op("fresh", node, at=node)

    def visit_ListComp(self, node: ast.ListComp) -> ast.expr:
        """A comprehension is a loop."""
        self._generators(node)
        node.elt = self.visit(node.elt)
        return self.op("fresh", node, at=node)

    def visit_SetComp(self, node: ast.SetComp) -> ast.expr:
        """Its items are waited for."""
        self._generators(node)
        node.elt = self.op("key", self.visit(node.elt), at=node.elt)
        return self.op("fresh", node, at=node)

    def visit_DictComp(self, node: ast.DictComp) -> ast.expr:
        """Its keys are waited for."""
        self._generators(node)
        node.key = self.op("key", self.visit(node.key), at=node.key)
        node.value = self.visit(node.value)
        return self.op("fresh", node, at=node)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> ast.expr:
        """Any code may go through it."""
        self._generators(node)
        node.elt = self.op("exposed", self.visit(node.elt), at=node.elt)
        return node

    def _generators(
        self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
    ) -> None:
        for generator in node.generators:
            if generator.is_async:
                raise Unsupported(f"line {node.lineno} has an `async for`")
            if not is_names(generator.target):
                raise Unsupported(f"line {node.lineno} assigns to an item or attribute in a loop")
            if not _is_own(generator.iter):
                self._in_iterable += 1
                generator.iter = self.iterated(generator.iter, generator.target)
                self._in_iterable -= 1
            generator.ifs = [self.op("test", self.visit(i), at=i) for i in generator.ifs]

    def iterated(self, iterable: ast.expr, target: ast.expr) -> ast.expr:
        """Returns what a loop goes through, for its target."""
        value = self.visit(iterable)
        if isinstance(target, ast.Tuple | ast.List):
            return self.op("iterate_as", value, shape(target), at=iterable)
        return self.op("iterate", value, at=iterable)

    # Functions, and what leaves them

    def visit_Lambda(self, node: ast.Lambda) -> ast.expr:
        """A function of one expression."""
        self._defaults(node.args)
        self.note_purity("<lambda>", node.lineno, node.args, node.body)
        self.scopes.append(Scope(node.args, [ast.Expr(node.body)]))
        in_iterable, self._in_iterable = self._in_iterable, 0
        body = self.op("out", self.visit(node.body), at=node.body)
        node.body = self._with_given(node.args, body)
        self._in_iterable = in_iterable
        self.scopes.pop()
        return node

    def _with_given(self, args: ast.arguments, body: ast.expr) -> ast.expr:
        """The body of a lambda, after ``*args`` and ``**kwargs`` are the program's own."""
        first: list[ast.expr] = []
        for arg, operation in ((args.vararg, "tuple_of"), (args.kwarg, "fresh")):
            if arg is not None:
                given = self.op(operation, ast.Name(arg.arg, ast.Load()), at=body)
                stored = ast.NamedExpr(ast.Name(arg.arg, ast.Store()), given)
                first.append(ast.copy_location(stored, body))
        if not first:
            return body
        both = ast.copy_location(ast.Tuple([*first, body], ast.Load()), body)
        last = ast.Constant(len(first))
        return ast.copy_location(ast.Subscript(both, last, ast.Load()), body)

    def _defaults(self, args: ast.arguments) -> None:
        """Defaults are there: other code finds them in ``__defaults__``."""
        args.defaults = [self.op("default", self.visit(d), at=d) for d in args.defaults]
        args.kw_defaults = [
            None if d is None else self.op("default", self.visit(d), at=d) for d in args.kw_defaults
        ]

    def note_purity(self, name: str, line: int, args: ast.arguments, body: ast.expr | None) -> None:
        outside = set().union(*(scope.bound for scope in self.scopes)) if self.scopes else set()
        is_pure = body is not None and is_simple(args, body, outside)
        (self.pure if is_pure else self.impure).add((name, line))

    def visit_NamedExpr(self, node: ast.NamedExpr) -> ast.expr:
        """A variable that is assigned within an expression."""
        value = self.visit(node.value)
        name = node.target.id
        if name in self.scope.shared:
            value = self.op("exposed", value, at=node)
        elif self.scope.region is not None:
            value = self.op("ready", value, at=node)
        node.value = value
        return node

    def visit_Yield(self, node: ast.Yield) -> ast.expr:
        """What is yielded is there, and so is all that came before."""
        value = ast.Constant(None) if node.value is None else self.visit(node.value)
        node.value = self.op("exposed", value, at=node)
        return node

    def visit_YieldFrom(self, node: ast.YieldFrom) -> ast.expr:
        """The same."""
        node.value = self.op("exposed", self.visit(node.value), at=node)
        return node

    def visit_Await(self, node: ast.Await) -> ast.expr:
        """Only coroutines have it, and they are not rewritten."""
        raise Unsupported(f"line {node.lineno} awaits")


def _is_bare(node: ast.Call) -> bool:
    """Whether a call is given one thing, and so reads the variables of its caller."""
    return len(node.args) == 1 and not node.keywords and not isinstance(node.args[0], ast.Starred)


def _builtin(name: str) -> ast.expr:
    """A call of a builtin without arguments."""
    return ast.Call(ast.Name(name, ast.Load()), [], [])


def _of(name: str, body: ast.expr) -> ast.Lambda:
    """An expression as a function of one variable of our own."""
    args = ast.arguments([], [ast.arg(name)], None, [], [], None, [])
    return ast.copy_location(ast.Lambda(args, body), body)


def copied(node: ast.AST) -> Any:
    """Returns a copy of a tree, as both forms of an expression are rewritten."""
    made = type(node)(**{name: _copied_field(value) for name, value in ast.iter_fields(node)})
    return ast.copy_location(made, node)


def _copied_field(value: Any) -> Any:
    if isinstance(value, list):
        return [_copied_field(item) for item in value]
    return copied(value) if isinstance(value, ast.AST) else value


def _is_own(node: ast.expr) -> bool:
    """Whether an expression is a variable of our own."""
    return isinstance(node, ast.Name) and node.id.startswith("_xcs_")


def is_names(target: ast.expr) -> bool:
    """Whether a target assigns to variables alone."""
    if isinstance(target, ast.Tuple | ast.List):
        return all(map(is_names, target.elts))
    return isinstance(target.value if isinstance(target, ast.Starred) else target, ast.Name)


def shape(target: ast.Tuple | ast.List) -> ast.expr:
    """The form of a target, as a constant: see ``Operations.unpack``."""
    form: Any = _shape_of(target)
    return ast.copy_location(ast.Constant(form), target)


def _shape_of(target: ast.Tuple | ast.List) -> tuple[Any, ...]:
    return tuple(
        _shape_of(item)
        if isinstance(item, ast.Tuple | ast.List)
        else "*"
        if isinstance(item, ast.Starred)
        else None
        for item in target.elts
    )
