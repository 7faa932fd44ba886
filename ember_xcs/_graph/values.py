"""Values as JSON: what a graph's operators, constants and metadata may be made of.

JSON's own values stand for themselves. Anything else is an object with one key that begins with
``$``: ``$tuple``, ``$float`` (what JSON has no word for), ``$dict`` (keys that are not plain
text), ``$ref`` (an import path: a function, a class or an operator), ``$object`` (a class and its
fields: an operator, a dataclass or a pydantic model). Nothing is pickled.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import math
import sys
import types
from collections.abc import Mapping
from typing import Any

from ember_xcs._core.functions import as_operator
from ember_xcs._core.operator import Operator
from ember_xcs._graph.messages import explain, listing
from ember_xcs.errors import GraphFormatError

__all__ = ["Decoder", "encode"]

_OWN = "ember_xcs"


def encode(value: Any, where: str) -> Any:
    """Returns a value as what ``json`` can write.

    Args:
        value: The value.
        where: Where it stands, for messages.

    Raises:
        GraphFormatError: When it, or a part of it, cannot be written.
    """
    if value is None or isinstance(value, bool | str) or type(value) is int:
        return value if type(value) in (str, bool, type(None), int) else _refuse(value, where)
    if type(value) is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    if type(value) in (list, tuple):
        items = [encode(item, f"item {i} of {where}") for i, item in enumerate(value)]
        return items if type(value) is list else {"$tuple": items}
    if type(value) is dict:
        return _encoded_dict(value, where)
    return _encoded_object(value, where)


def _encoded_dict(value: dict[Any, Any], where: str) -> Any:
    if all(type(key) is str and not key.startswith("$") for key in value):
        return {key: encode(item, f"{key!r} of {where}") for key, item in value.items()}
    pairs = [[encode(k, f"a key of {where}"), encode(v, where)] for k, v in value.items()]
    return {"$dict": pairs}


def _encoded_object(value: Any, where: str) -> Any:
    """An import path where there is one, else a class and its fields."""
    if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        return {"$ref": _import_path(value, where)}
    fields = _fields(value)
    if fields is None:
        return _refuse(value, where)
    function = getattr(value, "__wrapped__", None) if isinstance(value, Operator) else None
    if function is not None and (path := _path_of_decorated(value, function)):
        return {"$ref": path}
    path = _import_path(type(value), f"the class of {where}")
    encoded = {name: encode(item, f"{name!r} of {where}") for name, item in fields.items()}
    _check_constructor(type(value), fields, where)
    return {"$object": path, "fields": encoded}


def _fields(value: Any) -> dict[str, Any] | None:
    """What the class is called with to make an equal value; None where that is not known."""
    if isinstance(value, Operator):
        return {k: v for k, v in vars(value).items() if not k.startswith("_")}
    if dataclasses.is_dataclass(value):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
    models = getattr(type(value), "model_fields", None)
    return {name: getattr(value, name) for name in models} if isinstance(models, dict) else None


def _check_constructor(cls: Any, fields: Mapping[str, Any], where: str) -> None:
    """What could not be loaded is not saved."""
    try:
        inspect.signature(cls.__init__).bind(None, **fields)
    except TypeError as error:
        raise GraphFormatError(
            explain(
                f"{where} is a {cls.__qualname__}, whose __init__ does not take its fields "
                f"{listing(fields)}: {error}",
                "An instance is saved as its fields, and made again by calling its class with them",
                "Give __init__ one parameter for each public field, under its name",
            )
        ) from error


def _path_of_decorated(operator: Operator, function: Any) -> str | None:
    """The path of a decorated function, or of one that as_operator would make the same again."""
    path = f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', '')}"
    found = _found(*path.split(":", 1))
    if found is operator:
        return path
    is_plain = found is function and isinstance(found, types.FunctionType)
    return path if is_plain and _is_alike(as_operator(function), operator) else None


def _is_alike(one: Operator, other: Operator) -> bool:
    """Whether two operators have one class and equal fields."""
    if type(one) is not type(other):
        return False
    mine, theirs = _fields(one) or {}, _fields(other) or {}
    return mine == theirs


def _import_path(value: Any, where: str) -> str:
    module, qualname = value.__module__, value.__qualname__
    found = _found(module or "", qualname)
    if found is value or (isinstance(found, Operator) and _wraps(found, value)):
        return f"{module}:{qualname}"
    raise GraphFormatError(
        explain(
            f"{where} is {module}:{qualname}, which cannot be imported by that name",
            "A graph is saved as import paths, and a lambda or what is defined inside a function "
            "has none",
            "Define it at the top of a module",
        )
    )


def _wraps(operator: Operator, function: Any) -> bool:
    return getattr(operator, "__wrapped__", None) is function


def _found(module: str, qualname: str) -> Any:
    """What an import path leads to among the loaded modules, or None."""
    return functools.reduce(
        lambda holder, name: getattr(holder, name, None),
        qualname.split("."),
        sys.modules.get(module),
    )


def _refuse(value: Any, where: str) -> Any:
    is_array = hasattr(value, "dtype") and hasattr(value, "shape")
    what = f"an array {value.dtype}{list(value.shape)}" if is_array else f"a {type(value).__name__}"
    remedy = (
        "Save arrays apart, and pass them as inputs of the graph"
        if is_array
        else "Use plain values, a dataclass, a pydantic model or an operator, or pass it as an "
        "input of the graph"
    )
    raise GraphFormatError(explain(f"{where} is {what}", "A graph is saved as plain JSON", remedy))


class Decoder:
    """Makes values from JSON again, importing only from allowed modules.

    Args:
        allowed_modules: Modules that may be imported from, with all below them.
    """

    def __init__(self, allowed_modules: tuple[str, ...]) -> None:
        self.allowed = allowed_modules

    def operator(self, item: Any) -> Operator:
        """Returns the operator that an item describes.

        Raises:
            GraphFormatError: When it describes none.
        """
        value = self.decode(item)
        if isinstance(value, Operator | types.FunctionType):
            return as_operator(value)
        raise _malformed(f"{item!r:.80} is no operator")

    def decode(self, item: Any) -> Any:
        """Returns the value that an item describes.

        Raises:
            GraphFormatError: When it describes none.
        """
        if isinstance(item, list):
            return [self.decode(part) for part in item]
        if not isinstance(item, dict):
            return item
        tag = next((key for key in item if key.startswith("$")), None)
        if tag is None:
            return {key: self.decode(part) for key, part in item.items()}
        return self._tagged(tag, item)

    def _tagged(self, tag: str, item: dict[str, Any]) -> Any:
        content = item[tag]
        try:
            if tag == "$tuple":
                return tuple(self.decode(part) for part in content)
            if tag == "$float":
                return float(content)
            if tag == "$dict":
                return {self.decode(key): self.decode(part) for key, part in content}
            if tag == "$ref":
                return self._imported(content)
            if tag == "$object":
                return self._made(content, self.decode(item["fields"]))
        except (TypeError, ValueError, KeyError) as error:
            raise _malformed(f"{item!r:.80} is no value of the kind {tag}: {error}") from error
        raise _malformed(f"There is no kind of value {tag!r:.80}")

    def _made(self, path: Any, fields: Any) -> Any:
        cls = self._imported(path)
        is_data = dataclasses.is_dataclass(cls) or hasattr(cls, "model_fields")
        if not isinstance(cls, type) or not (issubclass(cls, Operator) or is_data):
            raise _malformed(f"{path!r:.80} is no class of operators or records")
        if not isinstance(fields, dict):
            raise _malformed(f"The fields of {path!r:.80} are no object")
        try:
            return cls(**fields)
        except Exception as error:
            raise _malformed(
                f"{path!r:.80} cannot be made of {listing(fields)}: {error}"
            ) from error

    def _imported(self, path: Any) -> Any:
        module, _, qualname = path.partition(":") if isinstance(path, str) else ("", "", "")
        if not module or not qualname:
            raise _malformed(f"{path!r:.80} is no import path")
        own = _is_below(module, _OWN)
        if not own and not self._allows(module):
            raise self._not_allowed(path, module)
        found: Any = _module(module)
        for name in qualname.split("."):
            if not isinstance(found, types.ModuleType if found is sys.modules[module] else type):
                raise _malformed(f"{path!r:.80} leads through what is no class")
            found = vars(found).get(name)
        return self._checked(path, module, found)

    def _checked(self, path: str, module: str, found: Any) -> Any:
        """What is imported was defined where it is allowed, and not merely imported there."""
        if isinstance(found, staticmethod | classmethod):
            found = found.__func__
        if not isinstance(found, type | types.FunctionType | types.BuiltinFunctionType | Operator):
            raise _malformed(f"{path!r:.80} is not there, or is no function, class or operator")
        home = module if isinstance(found, Operator) else found.__module__ or ""
        own_class = isinstance(found, type) and _is_below(home, _OWN)
        own_operator = isinstance(found, Operator) and _is_below(module, _OWN)
        if not (self._allows(home) or own_class or own_operator):
            raise self._not_allowed(path, home)
        return found

    def _allows(self, module: str) -> bool:
        return any(_is_below(module, allowed) for allowed in self.allowed)

    def _not_allowed(self, path: str, module: str) -> GraphFormatError:
        return GraphFormatError(
            explain(
                f"The graph imports {path!r:.80} from {module!r:.80}; allowed: "
                f"{listing(self.allowed)}",
                "A graph is loaded from modules that the caller allows, and from no others",
                f"If you trust it: XCSGraph.from_json(text, allowed_modules=[{module!r:.80}])",
            )
        )


def _is_below(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def _module(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise _malformed(f"The module {name!r:.80} cannot be imported: {error}") from error


def _malformed(given: str) -> GraphFormatError:
    return GraphFormatError(
        explain(
            given,
            "Operators and values are saved as plain JSON, import paths, and classes with fields",
            "Save the graph again with graph.to_json(), where the code that it names is",
        )
    )
