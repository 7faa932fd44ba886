"""From a function to its rewritten version: its source is found, rewritten and compiled once.

The new code goes into a function with the globals, defaults and closure cells of the old one, so
that it sees the same variables. It exists in two versions: the *inline* one, which rewritten code
calls, and which may return pending values; and, of functions that are defined within rewritten
code, the *exposed* one, which any code may call, and which returns what plain Python would return.
"""

from __future__ import annotations
import __future__

import ast
import functools
import inspect
import linecache
import os
import sysconfig
import types
import weakref
from pathlib import Path
from typing import Any, Final, NamedTuple

from ember_xcs._enhanced.statements import FACTORY, MARK, Unsupported, rewritten_tree

__all__ = [
    "ByCode",
    "definition_of",
    "enabled",
    "inline_version",
    "install",
    "is_nested",
    "is_pure_callback",
    "opened",
    "why_not",
]

_FLAGS: Final = functools.reduce(
    lambda flags, name: flags | getattr(__future__, name).compiler_flag,
    __future__.all_feature_names,
    0,
)
_LIBRARY: Final = str(Path(__file__).resolve().parent.parent) + os.sep
_REWRITTEN_MODULES: Final = frozenset({"ember_xcs._core.composition"})
_SYSTEM: Final = tuple(
    str(Path(sysconfig.get_path(name)).resolve()) + os.sep
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


class _Unit(NamedTuple):
    """The rewritten code of one function, or why there is none."""

    code: types.CodeType | None
    reason: str
    is_foreign: bool = False


class ByCode(dict[int, Any]):
    """What is known of code objects, for as long as they live.

    Code objects compare by what they do, whatever file they come from, so they are no keys.
    """

    def note(self, code: types.CodeType, value: Any) -> None:
        """Notes something of a code object."""
        key = id(code)
        self[key] = value, weakref.ref(code, lambda _: self.pop(key, None))

    def of(self, code: types.CodeType) -> Any:
        """Returns what is known of a code object; None if nothing is."""
        known = self.get(id(code))
        return None if known is None else known[0]


_units = ByCode()
_inline_of = ByCode()
_pure_callbacks = ByCode()
_operations: list[Any] = []


def install(inline: Any, exposed: Any) -> None:
    """Sets what stands in rewritten code for the operations of the two versions."""
    _operations[:] = [inline, exposed]


def enabled() -> bool:
    """Whether the environment allows functions to be rewritten."""
    return os.environ.get("EMBER_XCS_ENHANCED", "1") != "0"


def why_not(function: Any) -> str | None:
    """Returns why a function cannot be rewritten; None if it can."""
    if not enabled():
        return "the environment variable EMBER_XCS_ENHANCED is 0"
    plain, _, _, is_root = opened(function)
    if type(plain) is not types.FunctionType:
        return f"{type(function).__name__!r} objects have no source to be rewritten"
    unit = _unit_of(plain, is_root=is_root)
    return None if unit.code is not None else unit.reason


def opened(function: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any], bool]:
    """Returns the Python that a call of something runs, and what that is called with first.

    Args:
        function: A function, a bound method, an object with a ``__call__``, or
            ``functools.partial`` of one of these.

    Returns:
        The function, or what it is that has no source; its first arguments; those by name;
        whether the user has asked for just this function, wherever it comes from.
    """
    if type(function) is functools.partial:
        plain, bound, named, is_root = opened(function.func)
        return plain, (*bound, *function.args), {**named, **function.keywords}, is_root
    if type(function) is types.MethodType:
        return function.__func__, (function.__self__,), {}, True
    call = getattr(type(function), "__call__", None)  # noqa: B004  (asked for what it is)
    if type(call) is types.FunctionType:
        return call, (function,), {}, False
    return function, (), {}, True


def inline_version(function: Any, *, is_root: bool = False) -> types.FunctionType | None:
    """Returns the version of a function that rewritten code calls; None if there is none.

    Args:
        function: A plain Python function.
        is_root: Whether the user has asked for just this one, wherever it comes from.
    """
    if type(function) is not types.FunctionType:
        return None
    code = function.__code__
    nested = _inline_of.of(code)
    if nested is not None:
        return _with_code(function, nested, function.__closure__)
    new = _unit_of(function, is_root=is_root).code
    if new is None:
        return None
    if new.co_freevars == code.co_freevars:
        return _with_code(function, new, function.__closure__)
    cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
    return _with_code(function, new, tuple(cells[name] for name in new.co_freevars))


def _with_code(
    function: types.FunctionType, code: types.CodeType, closure: Any
) -> types.FunctionType:
    made = types.FunctionType(
        code, function.__globals__, function.__name__, function.__defaults__, closure
    )
    if function.__kwdefaults__:
        made.__kwdefaults__ = function.__kwdefaults__
    if made.__qualname__ != function.__qualname__:
        made.__qualname__ = function.__qualname__
    return made


def definition_of(function: types.FunctionType) -> Definition | None:
    """Returns the definition of a function whose code is that of its source; else None."""
    if is_nested(function) or _foreign(function) is not None:
        return None
    if _unit_of(function, is_root=False).code is None:
        return None
    code = function.__code__
    return _definition(_tree_of(code, function.__globals__), code)


def is_nested(function: types.FunctionType) -> bool:
    """Whether a function was defined by rewritten code."""
    return _inline_of.of(function.__code__) is not None


def is_pure_callback(function: Any) -> bool:
    """Whether a function given as ``key`` and the like calls nothing that is not pure."""
    if isinstance(function, types.BuiltinFunctionType | type):
        return True
    if type(function) is types.FunctionType:
        code = function.__code__
        if _inline_of.of(code) is None:
            _unit_of(function, is_root=False)
        return _pure_callbacks.of(code) is not None
    return type(function).__module__ == "operator"


def _unit_of(function: types.FunctionType, *, is_root: bool) -> _Unit:
    """The rewritten code of a function, made on first use."""
    code = function.__code__
    known: _Unit | None = _units.of(code)
    if known is not None and not (is_root and known.is_foreign):
        return known
    reason = None if is_root else _foreign(function)
    unit = _made(function) if reason is None else _Unit(None, reason, is_foreign=True)
    _units.note(code, unit)
    return unit


def _foreign(function: types.FunctionType) -> str | None:
    """Why a function that a program calls is left as it is; None if it is the user's own."""
    filename = function.__code__.co_filename
    if filename.startswith(_LIBRARY):
        is_known = function.__module__ in _REWRITTEN_MODULES
        return None if is_known else "it is part of ember_xcs"
    if filename.startswith(_SYSTEM) or os.sep + "site-packages" + os.sep in filename:
        return "it is part of an installed library"
    return None


def _made(function: types.FunctionType) -> _Unit:
    code = function.__code__
    if code.co_flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
        return _Unit(None, "it is `async def`, whose calls overlap as its author says")
    try:
        tree = _tree_of(code, function.__globals__)
        node = _definition(tree, code)
        new = _compiled(node, code)
    except Unsupported as error:
        return _Unit(None, str(error))
    return _Unit(new, "")


@functools.lru_cache(maxsize=64)
def _parsed(filename: str, source: str) -> ast.Module:
    return ast.parse(source, filename)


def _tree_of(code: types.CodeType, names: dict[str, Any]) -> ast.Module:
    """The syntax tree of the file in which a function stands."""
    lines = linecache.getlines(code.co_filename, names)
    if not lines:
        raise Unsupported(f"its source cannot be had: {code.co_filename!r} is no file that is here")
    try:
        return _parsed(code.co_filename, "".join(lines))
    except SyntaxError:
        raise Unsupported(f"its source in {code.co_filename!r} is not Python any more") from None


Definition = ast.FunctionDef | ast.Lambda


def _definition(tree: ast.Module, code: types.CodeType) -> Definition:
    """The definition of a function in the tree of its file."""
    if code.co_name == "<lambda>":
        return _lambda(tree, code)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == code.co_name:
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            if first == code.co_firstlineno and _has_parameters(node, code):
                return node
    raise Unsupported(
        f"its definition is not at line {code.co_firstlineno} of {code.co_filename!r}: the file "
        "has changed since it was loaded"
    )


def _has_parameters(node: Definition, code: types.CodeType) -> bool:
    given = node.args
    names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    count = code.co_argcount + code.co_kwonlyargcount
    unmangled = zip(names, code.co_varnames[:count], strict=False)
    return len(names) == count and all(b == a or b.endswith(a) for a, b in unmangled)


def _lambda(tree: ast.Module, code: types.CodeType) -> ast.Lambda:
    """The innermost lambda within whose body all of the code stands."""
    spans = [p for p in code.co_positions() if None not in p and p[2] != p[3]]
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Lambda) and _has_parameters(node, code) and _covers(node, spans)
    ]
    if not spans or not found:
        raise Unsupported(
            "it is a lambda that cannot be told from others at its place; give it a name with `def`"
        )
    return max(found, key=lambda node: (node.body.lineno, node.body.col_offset))


def _covers(node: ast.Lambda, spans: list[Any]) -> bool:
    body = node.body
    begin, end = (body.lineno, body.col_offset), (body.end_lineno, body.end_col_offset)
    return all(begin <= (p[0], p[2]) and (p[1], p[3]) <= end for p in spans)


def _compiled(node: Definition, code: types.CodeType) -> types.CodeType:
    parts = code.co_qualname.split(".")
    owner = parts[-2] if len(parts) > 1 and parts[-2] != "<locals>" else None
    if owner is None and "__class__" in code.co_freevars:
        owner = "_xcs_owner"
    tree, pure, plain, is_simple = rewritten_tree(node, code.co_freevars, owner)
    flags = code.co_flags & _FLAGS
    try:
        module = compile(tree, code.co_filename, "exec", flags=flags, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise Unsupported(f"its rewritten version cannot be compiled: {error}") from error
    found = _innermost(module, 3 if owner else 2)
    if not set(found.co_freevars) <= set(code.co_freevars):
        raise Unsupported("it uses variables of its enclosing function that it did not use before")
    if is_simple:
        _pure_callbacks.note(code, True)
    made = _Filler(found.co_qualname, code.co_qualname, pure, plain).filled(found, _operations[0])
    return made.replace(co_name=code.co_name)


def _innermost(module: types.CodeType, depth: int) -> types.CodeType:
    for _ in range(depth):
        module = next(c for c in module.co_consts if isinstance(c, types.CodeType))
    return module


class _Filler:
    """Puts the operations in place of their mark, and the names of functions as they were.

    Args:
        made: What the function is called within the factory.
        name: What it is to be called.
        pure: The functions in it that only read and compute, by name and line.
        plain: Those that run as they are.
    """

    def __init__(
        self, made: str, name: str, pure: set[tuple[str, int]], plain: set[tuple[str, int]]
    ) -> None:
        self._made, self._name, self._pure, self._plain = made, name, pure, plain

    def filled(self, code: types.CodeType, operations: Any) -> types.CodeType:
        """Returns code with these operations; functions in it are made in both versions."""
        constants = tuple(self._constant(c, operations) for c in code.co_consts)
        return code.replace(co_consts=constants, co_qualname=self._named(code.co_qualname))

    def _constant(self, constant: Any, operations: Any) -> Any:
        if isinstance(constant, types.CodeType):
            return self._nested(constant)
        if type(constant) is not str:
            return constant
        return operations if constant == MARK else self._named(constant)

    def _named(self, text: str) -> str:
        return self._name + text[len(self._made) :] if text.startswith(FACTORY) else text

    def _nested(self, code: types.CodeType) -> types.CodeType:
        inline, exposed = _operations
        made = self.filled(code, exposed)
        if code.co_name.startswith("<") and code.co_name != "<lambda>":
            return made
        if not code.co_flags & inspect.CO_NEWLOCALS:  # the body of a class
            return made
        if (code.co_name, code.co_firstlineno) in self._plain:
            _units.note(made, _Unit(None, "it stands in a class or function that runs as it is"))
        elif not code.co_flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
            _inline_of.note(made, self.filled(code, inline))
        if (code.co_name, code.co_firstlineno) in self._pure:
            _pure_callbacks.note(made, True)
        return made
