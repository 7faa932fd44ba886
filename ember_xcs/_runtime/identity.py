"""What a call depends on, as a tree for JSON: its arguments, and its operator's code and fields.

The tree of two calls is equal where their results may be shared, in this process or another. So it
holds no addresses, no hash of Python's, and no order of sets.

- A function is its module, its qualified name, its bytecode with constants and names (not the
  lines they stand on), its defaults, what it closes over, and of the globals that it reads the
  constants and the functions of the same package. Other globals (modules, clients, containers) are
  part of it by name only. Of an installed library its version stands for what else it reads.
- A class is its name, the functions in it and in the classes of the same package that it derives
  from, and those class attributes that these functions mention.
- An instance is its class and its fields. A class can say itself what its instances are, by a
  method ``__xcs_identity__()`` that returns a value. Locks have no contents.
- What is none of these has no identity, and there is an error rather than a guess.
"""

from __future__ import annotations

import contextlib
import dataclasses
import dis
import functools
import hashlib
import inspect
import json
import sys
import sysconfig
import threading
import types
import typing
import weakref
from pathlib import Path
from typing import Any, Final

import jax
import numpy as np

from ember_xcs._core.functions import HostFunction, PureFunction
from ember_xcs._core.operator import HostOperator, Operator
from ember_xcs._core.operator_class import derived, fields_of
from ember_xcs._runtime.encoding import Encoder
from ember_xcs._runtime.encoding_arrays import dtype_tree
from ember_xcs._runtime.encoding_rules import Unstorable

if typing.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["IdentityEncoder", "digest"]

_PLAIN: Final = (type(None), bool, int, float, complex, str, bytes)
_LOCKS: Final = (type(threading.Lock()), type(threading.RLock()))
_BUILT_IN: Final = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.ClassMethodDescriptorType,
)
# What they do for every operator is part of the library, not of an operator.
_FRAMEWORK: Final = frozenset({object, Operator, HostOperator, HostFunction, PureFunction})
_DECLARED: Final = frozenset({"input_spec", "output_spec", "out"})


def digest(tree: Any) -> str:
    """Returns the SHA-256 of a tree for JSON, in hexadecimal."""
    text = json.dumps(tree, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class IdentityEncoder(Encoder):
    """Turns what a call depends on into a tree for JSON."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, tuple[Any, Any]] = {}  # with the things, so that no id comes again

    def blob(self, data: bytes) -> Any:
        """Returns a digest in place of raw bytes, so that a tree is complete in itself."""
        return hashlib.sha256(data).hexdigest()

    def entries(self, value: dict[Any, Any]) -> Any:
        """Returns the tree of a dict, in the order of the trees of its keys."""
        keys = sorted(((_text(self.value(key)), key) for key in value), key=lambda pair: pair[0])
        return ["dict", *self.values(part for text, key in keys for part in (text, value[key]))]

    def members(self, tag: str, value: Iterable[Any]) -> Any:
        """Returns the tree of a set, in the order of the trees of its members."""
        return [tag, *sorted(self.values(value), key=_text)]

    def class_reference(self, cls: type) -> Any:
        """Returns the identity of a class."""
        return self._once(cls, [cls.__module__, cls.__qualname__], lambda: self._class(cls))

    def other(self, value: Any) -> Any:
        """Returns the identity of what is no plain value.

        Raises:
            Unstorable: It has none.
        """
        identity = inspect.getattr_static(type(value), "__xcs_identity__", None)
        if identity is not None and not isinstance(value, type):
            return ["own", self.class_reference(type(value)), self.value(value.__xcs_identity__())]
        if isinstance(value, HostFunction | PureFunction):
            declared = getattr(value, "declared_out", None)
            return ["operator", *self.values((value.function, value.owner, declared))]
        if isinstance(value, Operator):
            return self.operator(value)
        for kinds, write in _WRITERS:
            if isinstance(value, kinds):
                return write(self, value)
        if typing.get_origin(value) is not None:
            return ["generic", *self.values((typing.get_origin(value), typing.get_args(value)))]
        if type(value).__module__ == "typing":
            return ["typing", repr(value)]
        if callable(getattr(value, "__wrapped__", None)):  # such as what jax.jit returns
            return ["wrapper", type(value).__qualname__, self.value(value.__wrapped__)]
        return self._instance(value)

    def _instance(self, value: Any) -> Any:
        try:
            return super().other(value)
        except Unstorable as error:
            cls = type(value)
            raise Unstorable(
                f"a {cls.__module__}.{cls.__qualname__} has no content to tell it by: {error}; or "
                "give its class a method __xcs_identity__() that returns what results depend on"
            ) from None

    def operator(self, value: Operator) -> Any:
        """Returns the identity of an operator: its class and its fields."""
        cls = type(value)
        fields = {}
        for name, part in fields_of(value).items():
            with _about(f"the field {name!r} of {cls.__qualname__}"):
                fields[name] = self.value(part)
        return ["operator", self.class_reference(cls), sorted(fields.items())]

    def function(self, function: types.FunctionType) -> Any:
        """Returns the identity of a Python function."""
        name = [function.__module__, function.__qualname__]
        return self._once(function, name, lambda: self._function(function))

    def _once(self, thing: Any, name: list[str], describe: Callable[[], Any]) -> Any:
        """The name of a thing and a digest of its contents; within itself, the name alone."""
        if id(thing) not in self._known:
            self._known[id(thing)] = (thing, ["within", *name])
            described = [*name, digest(self.nested(describe))]
            self._known[id(thing)] = (thing, described)
        return self._known[id(thing)][1]

    def _function(self, function: types.FunctionType) -> Any:
        facts = code_facts(function.__code__)
        closed = {}
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        ):
            with _about(f"{name!r}, which {function.__qualname__} closes over,"):
                closed[name] = self._cell(cell)
        defaults = (function.__defaults__, function.__kwdefaults__)
        with _about(f"a default of {function.__qualname__}"):
            return [facts.digest, closed, self.values(defaults), self._globals(function, facts)]

    def _cell(self, cell: types.CellType) -> Any:
        try:
            contents = cell.cell_contents
        except ValueError:  # nothing has been put there yet
            return ["empty"]
        return self.value(contents)

    def _globals(self, function: types.FunctionType, facts: CodeFacts) -> Any:
        found = function.__globals__
        package = _package(function.__module__)
        if _is_library(package):
            return ["version", str(getattr(sys.modules.get(package), "__version__", None))]
        present = ((name, found[name]) for name in facts.globals if name in found)
        return [
            (name, self.value(value))
            for name, value in present
            if _is_constant(value) or _is_function_of(package, value)
        ]

    def _class(self, cls: type) -> Any:
        package = _package(cls.__module__)
        own = [c for c in cls.__mro__ if _package(c.__module__) == package and c not in _FRAMEWORK]
        bases = [f"{c.__module__}.{c.__qualname__}" for c in cls.__mro__]
        if package in sys.stdlib_module_names:
            return bases
        return [bases, [self._class_body(base) for base in own]]

    def _class_body(self, cls: type) -> Any:
        functions: dict[str, types.FunctionType] = {}
        for name, attribute in sorted(vars(cls).items()):
            function = _function_of(attribute)
            if function is not None and _is_written_in(cls, function):
                functions[name] = function
        mentioned = _DECLARED.union(*(code_facts(f.__code__).names for f in functions.values()))
        data = {}
        for name in sorted(mentioned & vars(cls).keys() - functions.keys()):
            attribute = vars(cls)[name]
            if _is_class_data(cls, name, attribute):
                with _about(f"the class attribute {name!r} of {cls.__qualname__}"):
                    data[name] = self.value(attribute)
        bodies = {name: self.function(function) for name, function in functions.items()}
        return [bodies, data, _annotations(cls)]


@contextlib.contextmanager
def _about(what: str) -> Iterator[None]:
    """Says in an error what it is about."""
    try:
        yield
    except Unstorable as error:
        raise Unstorable(f"{what} has no stable identity: {error}") from None


def _text(tree: Any) -> str:
    return json.dumps(tree, ensure_ascii=False)


def _package(module: str | None) -> str:
    return (module or "").partition(".")[0]


@functools.cache
def _is_library(package: str) -> bool:
    """Whether a package comes with Python, is installed, or is this one, and has versions."""
    if package in sys.stdlib_module_names or package == _package(__name__):
        return True
    file = getattr(sys.modules.get(package), "__file__", None)
    installed = [sysconfig.get_path(name) for name in ("purelib", "platlib")]
    return file is not None and any(Path(file).is_relative_to(place) for place in installed)


def _is_constant(value: Any) -> bool:
    """Whether a value can never change."""
    if isinstance(value, tuple | frozenset):
        return type(value) in (tuple, frozenset) and all(map(_is_constant, value))
    return type(value) in _PLAIN


def _is_function_of(package: str, value: Any) -> bool:
    return isinstance(value, types.FunctionType) and _package(value.__module__) == package


def _function_of(attribute: Any) -> types.FunctionType | None:
    """The function that a class attribute is or is made from."""
    if isinstance(attribute, staticmethod | classmethod):
        attribute = attribute.__func__
    elif isinstance(attribute, property):
        attribute = attribute.fget
    elif isinstance(attribute, functools.cached_property):
        attribute = attribute.func
    elif isinstance(attribute, derived):
        attribute = attribute.compute
    return attribute if isinstance(attribute, types.FunctionType) else None


def _is_written_in(cls: type, function: types.FunctionType) -> bool:
    """Whether somebody wrote a function for a class; dataclasses and others generate some."""
    generated = function.__name__.startswith("__") and function.__code__.co_filename == "<string>"
    return function.__module__ == cls.__module__ and not generated


def _is_class_data(cls: type, name: str, attribute: Any) -> bool:
    """Whether a class attribute is what its instances share, not a default or a slot of theirs."""
    if name.startswith(("__", "_xcs_")) or inspect.ismemberdescriptor(attribute):
        return False
    fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
    return _function_of(attribute) is None and name not in {field.name for field in fields}


def _annotations(cls: type) -> list[tuple[str, str]]:
    """The fields that a class declares: of a pydantic model they decide what it accepts."""
    return [(name, _type_text(hint)) for name, hint in inspect.get_annotations(cls).items()]


def _type_text(hint: Any) -> str:
    if isinstance(hint, str):
        return hint
    if typing.get_origin(hint) is not None:
        parts = ", ".join(map(_type_text, typing.get_args(hint)))
        return f"{_type_text(typing.get_origin(hint))}[{parts}]"
    return str(getattr(hint, "__qualname__", None) or type(hint).__qualname__)


@dataclasses.dataclass(frozen=True, slots=True)
class CodeFacts:
    """What is known of compiled code.

    Attributes:
        digest: The SHA-256 of what it does.
        globals: The globals that it reads and does not write, in order.
        names: All names of attributes and globals in it.
    """

    digest: str
    globals: tuple[str, ...]
    names: frozenset[str]


_facts: weakref.WeakKeyDictionary[types.CodeType, CodeFacts] = weakref.WeakKeyDictionary()


def code_facts(code: types.CodeType) -> CodeFacts:
    """Returns what is known of compiled code; it is found out once."""
    facts = _facts.get(code)
    if facts is None:
        facts = _facts[code] = _find_facts(code)
    return facts


def _find_facts(code: types.CodeType) -> CodeFacts:
    parts = list(_codes(code))
    steps = [(step.opname, step.argval) for part in parts for step in dis.get_instructions(part)]
    read = {name for opname, name in steps if opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    written = {name for opname, name in steps if opname in ("STORE_GLOBAL", "DELETE_GLOBAL")}
    names = frozenset(name for part in parts for name in part.co_names)
    return CodeFacts(_code_digest(code), tuple(sorted(read - written)), names)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yields code and all code within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _code_digest(code: types.CodeType) -> str:
    numbers = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    names = (code.co_name, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    steps = (code.co_code, code.co_exceptiontable)
    constants = [
        _code_digest(c) if isinstance(c, types.CodeType) else IdentityEncoder().value(c)
        for c in code.co_consts
    ]
    return digest([IdentityEncoder().value((numbers, names, steps)), constants])


def _write_class(encoder: IdentityEncoder, value: type) -> Any:
    return ["class", encoder.class_reference(value)]


def _write_method(encoder: IdentityEncoder, value: types.MethodType) -> Any:
    return ["method", *encoder.values((value.__func__, value.__self__))]


def _write_partial(encoder: IdentityEncoder, value: functools.partial[Any]) -> Any:
    return ["partial", *encoder.values((value.func, value.args, value.keywords))]


def _write_built_in(encoder: IdentityEncoder, value: Any) -> Any:
    owner = getattr(value, "__self__", None)
    module = getattr(value, "__module__", None)
    return ["built in", module, value.__qualname__, encoder.value(owner)]


def _write_shape(encoder: IdentityEncoder, value: jax.ShapeDtypeStruct) -> Any:
    weak = bool(getattr(value, "weak_type", False))
    return ["shape", *encoder.values((value.shape, str(value.dtype), weak))]


# The first kind that a value is an instance of counts.
_WRITERS: tuple[tuple[type | tuple[type, ...], Callable[[Any, Any], Any]], ...] = (
    (types.FunctionType, lambda encoder, value: ["function", encoder.function(value)]),
    (type, _write_class),
    (types.MethodType, _write_method),
    (functools.partial, _write_partial),
    (_BUILT_IN, _write_built_in),
    (types.ModuleType, lambda _, value: ["module", value.__name__]),
    (types.CodeType, lambda _, value: ["code", code_facts(value).digest]),
    (np.ufunc, lambda _, value: ["ufunc", value.__name__]),
    (np.dtype, lambda _, value: ["dtype", dtype_tree(value)]),
    (jax.ShapeDtypeStruct, _write_shape),
    (_LOCKS, lambda _, value: ["lock", type(value).__name__]),
    (type(...), lambda _, value: ["..."]),
    (slice, lambda e, value: ["slice", *e.values((value.start, value.stop, value.step))]),
    (range, lambda e, value: ["range", *e.values((value.start, value.stop, value.step))]),
)
