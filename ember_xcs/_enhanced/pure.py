"""What is known to be pure: builtins, functions of the standard library, methods of builtin types.

Each gives a result that depends on its arguments alone and does nothing else, so that it may be
computed when its arguments are there, whatever else has happened meanwhile.
"""

from __future__ import annotations

import builtins
import json
import math
import operator
import re
import types
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any, Final

__all__ = [
    "EAGER",
    "FRESH_TYPES",
    "IMMUTABLE_RESULTS",
    "ITERATORS",
    "MUTATORS",
    "PURE_FUNCTIONS",
    "SAFE_TYPES",
    "is_pure_function",
    "is_pure_method",
]  # fmt: skip

SAFE_TYPES: Final[frozenset[type]] = frozenset(
    {
        str, bytes, bytearray, int, float, complex, bool, type(None), type(Ellipsis),
        NotImplemented.__class__, list, tuple, dict, set, frozenset, range, slice, Counter, deque,
        OrderedDict, type({}.keys()), type({}.values()), type({}.items()), types.MappingProxyType,
        types.FunctionType, types.BuiltinFunctionType, types.ModuleType, type, re.Match, re.Pattern,
    }
)  # fmt: skip
"""Types whose own operations run no code but theirs; that of their elements they may run."""

FRESH_TYPES: Final = frozenset({list, dict, set})

ITERATORS: Final[frozenset[Any]] = frozenset({zip, enumerate, reversed})
"""Builtins whose result, over containers, is an iterator that runs no other code."""

EAGER: Final[frozenset[Any]] = frozenset({sum, sorted, list, tuple, set, frozenset, dict, min, max})
"""Builtins that consume all of an iterable before they return."""

_BUILTINS: Final[frozenset[Any]] = frozenset(
    {
        abs, all, any, ascii, bin, bool, bytes, callable, chr, complex, dict, divmod, float,
        format, frozenset, hash, hex, int, isinstance, issubclass, len, list, max, min, oct, ord,
        pow, range, repr, round, set, slice, sorted, str, sum, tuple, type,
    }
)  # fmt: skip

IMMUTABLE_RESULTS: Final[frozenset[Any]] = frozenset(
    {
        abs, ascii, bin, bool, bytes, chr, complex, float, format, hash, hex, int, len, oct, ord,
        repr, str, json.dumps,
    }
)  # fmt: skip
"""Functions whose result is a number or a text."""

_MODULES: Final = (math, operator, re)
_IMPURE: Final = frozenset(
    {
        operator.setitem, operator.delitem, operator.call, re.purge,
        *(getattr(operator, n) for n in dir(operator) if n.startswith("i") and n not in
          ("is_", "is_not", "index", "inv", "invert", "indexOf", "itemgetter")),
    }
)  # fmt: skip

PURE_FUNCTIONS: Final[frozenset[Any]] = _BUILTINS | {
    json.loads,
    json.dumps,
    *(
        function
        for module in _MODULES
        for name, function in vars(module).items()
        if not name.startswith("_") and callable(function) and function not in _IMPURE
        and not isinstance(function, type)
    ),
}  # fmt: skip

_PURE_METHODS: Final[dict[type, frozenset[str]]] = {
    list: frozenset({"copy", "index", "count"}),
    dict: frozenset({"get", "keys", "items", "values", "copy"}),
    OrderedDict: frozenset({"get", "keys", "items", "values"}),
    defaultdict: frozenset({"get", "keys", "items", "values"}),
    Counter: frozenset({"get", "keys", "items", "values", "most_common", "elements", "total"}),
    deque: frozenset({"index", "count"}),
    set: frozenset(
        {
            "copy", "union", "intersection", "difference", "symmetric_difference", "issubset",
            "issuperset", "isdisjoint",
        }
    ),
    re.Match: frozenset(
        {"group", "groups", "groupdict", "start", "end", "span", "expand"}
    ),
    re.Pattern: frozenset(
        {"match", "search", "fullmatch", "findall", "split", "sub", "subn"}
    ),
}  # fmt: skip

_IMMUTABLE: Final = (str, bytes, int, float, complex, bool, tuple, frozenset, range)

MUTATORS: Final[dict[type, frozenset[str]]] = {
    list: frozenset(
        {"append", "extend", "insert", "pop", "remove", "clear", "sort", "reverse"}
    ),
    dict: frozenset({"update", "setdefault", "pop", "popitem", "clear"}),
    set: frozenset(
        {
            "add", "discard", "remove", "pop", "clear", "update", "difference_update",
            "intersection_update", "symmetric_difference_update",
        }
    ),
}  # fmt: skip


def is_pure_function(function: Any) -> bool:
    """Whether a function or class is known to be pure."""
    try:
        return function in PURE_FUNCTIONS
    except TypeError:  # an object that cannot be hashed is none of these
        return False


def is_pure_method(receiver: type, name: str) -> bool:
    """Whether a method of a builtin type is known to be pure."""
    if receiver in _IMMUTABLE:
        return True
    return name in _PURE_METHODS.get(receiver, ())


def builtin_named(name: str) -> Any:
    """Returns a builtin by name; None if there is none."""
    return getattr(builtins, name, None)
