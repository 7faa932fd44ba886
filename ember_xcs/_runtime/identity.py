"""What a call depends on, as a tree for JSON: its arguments, and the code and state of its operator.

The tree of two calls is equal where their results may be shared, in this process or another. So it
holds no addresses, no hash of Python's, and no order of sets.

- A function is its module, its qualified name, its bytecode with constants and names (not the
  lines they stand on), its defaults, what it closes over, and of the globals that it reads the
  constants and the functions of the same package. Other globals (modules, clients, containers) are
  part of it by name only.
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
import enum
import functools
import hashlib
import inspect
import json
import sys
import threading
import types
import typing
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import jax
import numpy as np

from ember_xcs._core.functions import HostFunction, PureFunction
from ember_xcs._core.operator import HostOperator, Operator
from ember_xcs._core.operator_class import derived, fields_of
from ember_xcs._runtime.encoding import Encoder
from ember_xcs._runtime.encoding_arrays import dtype_tree
from ember_xcs._runtime.encoding_rules import Unstorable

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

    def __init__(self, known: dict[int, Any] | None = None) -> None:
        super().__init__()
        self._known: dict[int, Any] = {} if known is None else known
        self._kept_alive: list[Any] = []

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
        """The name of a thing and a digest of its contents, which within itself is left out."""
        if id(thing) not in self._known:
            self._known[id(thing)] = ["within", *name]
            self._kept_alive.append(thing)
            inner = IdentityEncoder(self._known)
            inner._kept_alive = self._kept_alive
            self._known[id(thing)] = [*name, digest(describe_with(inner, describe))]
        return self._known[id(thing)]

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
        present = ((name, found[name]) for name in facts.globals if name in found)
        package = _package(function.__module__)
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


def describe_with(encoder: IdentityEncoder, describe: Callable[[], Any]) -> Any:
    return describe()


@contextlib.contextmanager
def _about(what: str) -> Iterator[None]:
    """Says in an error what it is about."""
    try:
        yield
    except Unstorable as error:
        raise Unstorable(f"{what} has no stable identity: {error}") from None


def _text(tree: Any) -> str:
    return json.dumps(tree, ensure_ascii=False)
