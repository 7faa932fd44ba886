"""Settings for each argument of a call, given for the whole, by position, by name or as a tree.

``in_axes`` and ``in_specs`` are written in the same way; this takes a call apart by either.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from ember_xcs._core.arguments import summary
from ember_xcs._trace.dict_order import keeping_order
from ember_xcs.errors import TransformError

__all__ = ["CallStructure", "Leaf", "SettingKind", "take_apart"]


class Leaf(NamedTuple):
    """A leaf of the arguments of a call.

    Attributes:
        label: What it is called: ``documents``, ``settings['k']``.
        value: It.
        setting: What was given for it.
    """

    label: str
    value: Any
    setting: Any


@dataclasses.dataclass(frozen=True)
class SettingKind:
    """What a setting of arguments is like.

    Attributes:
        name: ``"in_axes"``.
        default: For arguments that none was given for.
        is_leaf: Whether a value is one setting, not a tree of them.
        what: ``"an int or None"``, for messages.
        stops: For a setting, what says whether a container is one leaf of the arguments.
    """

    name: str
    default: Any
    is_leaf: Callable[[Any], bool]
    what: str
    stops: Callable[[Any], Callable[[Any], bool] | None]


def take_apart(
    function: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    parameters: Sequence[str],
    setting: Any,
    kind: SettingKind,
) -> tuple[list[Leaf], CallStructure]:
    """Returns the leaves of a call, each with its setting, and the structure of the call.

    Args:
        function: What is called, for messages.
        args: By position.
        kwargs: By name.
        parameters: The names of the parameters, in order.
        setting: One for all positional arguments, a tuple by position, or a dict by name; each may
            be a tree.
        kind: What the setting is.

    Raises:
        TransformError: The setting does not fit the call.
    """
    labels = [parameters[k] if k < len(parameters) else f"argument {k}" for k in range(len(args))]
    setting_of = _by_label(function, setting, labels, kwargs, kind)
    found: list[Leaf] = []
    trees: list[Any] = []
    for label, value in (*zip(labels, args, strict=True), *kwargs.items()):
        leaves, tree = _flattened(label, value, setting_of(label), kind)
        found.extend(leaves)
        trees.append(tree)
    return found, CallStructure(len(args), tuple(kwargs), trees)


class CallStructure:
    """The tree of ``(args, kwargs)``."""

    def __init__(self, positional: int, names: tuple[str, ...], trees: Sequence[Any]) -> None:
        self._positional, self._names, self._trees = positional, names, trees

    def unflatten(self, leaves: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns ``(args, kwargs)`` with these leaves."""
        values = _unflattened(self._trees, leaves)
        named = zip(self._names, values[self._positional :], strict=True)
        return tuple(values[: self._positional]), dict(named)


class _Composed:
    """A tree whose leaves are trees."""

    def __init__(self, outer: Any, inner: Sequence[Any]) -> None:
        self._outer, self._inner = outer, inner
        self.num_leaves = sum(tree.num_leaves for tree in inner)

    def unflatten(self, leaves: Sequence[Any]) -> Any:
        return self._outer.unflatten(_unflattened(self._inner, leaves))


def _unflattened(trees: Sequence[Any], leaves: Sequence[Any]) -> list[Any]:
    remaining = iter(leaves)
    return [tree.unflatten([next(remaining) for _ in range(tree.num_leaves)]) for tree in trees]


_LEAF = jax.tree.structure(0)


def _by_label(
    function: str,
    setting: Any,
    labels: Sequence[str],
    kwargs: Mapping[str, Any],
    kind: SettingKind,
) -> Callable[[str], Any]:
    """A function from the label of an argument to its setting."""
    if kind.is_leaf(setting):
        return lambda label: kind.default if label in kwargs else setting
    if isinstance(setting, dict):
        return _by_name(function, setting, labels, kwargs, kind)
    if not isinstance(setting, tuple | list) or len(setting) != len(labels):
        raise TransformError(
            f"{kind.name}={setting!r} does not fit the call of {function}, which has {len(labels)} "
            f"positional arguments ({', '.join(labels) or 'none'}). It is {kind.what}, a tuple "
            "with one entry for each positional argument, or a dict by name."
        )
    table = dict(zip(labels, setting, strict=True))
    return lambda label: table.get(label, kind.default)


def _by_name(
    function: str,
    setting: dict[str, Any],
    labels: Sequence[str],
    kwargs: Mapping[str, Any],
    kind: SettingKind,
) -> Callable[[str], Any]:
    fields = kwargs.get("inputs")
    by_field = isinstance(fields, Mapping) and "inputs" not in setting
    known = {*labels, *kwargs, *(fields if by_field and fields else ())}
    unknown = setting.keys() - known
    if unknown:
        raise TransformError(
            f"{kind.name} has {min(unknown)!r}, which is no argument of this call of {function}; "
            f"it was given {', '.join(sorted(known))}."
        )

    def setting_of(label: str) -> Any:
        if by_field and fields is not None and label == "inputs":
            return {field: setting.get(field, kind.default) for field in fields}
        return setting.get(label, kind.default)

    return setting_of


def _flattened(label: str, value: Any, setting: Any, kind: SettingKind) -> tuple[list[Leaf], Any]:
    """The leaves of one argument, and its tree."""
    spec: Any
    settings, spec = jax.tree.flatten(setting, is_leaf=kind.is_leaf)
    for one in settings:
        if not kind.is_leaf(one):
            raise TransformError(
                f"{kind.name} has {one!r} for {label}; what it may have is {kind.what}."
            )
    try:
        parts = spec.flatten_up_to(value)
    except ValueError as error:
        raise TransformError(
            f"{kind.name} has {setting!r} for {label}, which is {summary(value)}: {error}"
        ) from None
    found: list[Leaf] = []
    trees = []
    for part, one in zip(parts, settings, strict=True):
        stops = kind.stops(one)
        ordered = keeping_order(part, stops)
        paths, tree = jax.tree_util.tree_flatten_with_path(ordered, is_leaf=stops)
        trees.append(tree)
        found.extend(Leaf(label + jax.tree_util.keystr(path), leaf, one) for path, leaf in paths)
    return found, trees[0] if spec == _LEAF else _Composed(spec, trees)
