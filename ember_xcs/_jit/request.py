"""One call that is to be compiled: the callable, and what its arguments are like."""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ember_xcs._core.operator import HostOperator, Operator
from ember_xcs._core.records import open_records
from ember_xcs._core.static import Static
from ember_xcs._trace.dict_order import keeping_order
from ember_xcs._trace.host_values import HostBatch
from ember_xcs._trace.staging import is_numeric
from ember_xcs.errors import OptionsError

if TYPE_CHECKING:
    from ember_xcs._jit.settings import JITSettings

__all__ = ["Request", "Target", "leaf_kind"]


class Target:
    """What ``jit`` was given: a function or an operator.

    Attributes:
        given: The function or operator itself.
        operator: The operator, or None.
        function: What is called with the user's arguments.
        name: What it is called in messages.
        number: A number that no other target has, though this one may be gone by then.
    """

    _numbers = itertools.count()

    def __init__(self, given: Any, settings: JITSettings) -> None:
        self.given = given
        self.operator: Operator | None = given if isinstance(given, Operator) else None
        self.function: Callable[..., Any] = _function_of(given)
        self.name = self.operator.name if self.operator else getattr(given, "__name__", repr(given))
        self.settings = settings
        self.number = next(Target._numbers)
        self.parameters = _parameters(given)
        self._static = _static_names(settings, self.parameters, self.name)
        self.jitted: Any = jax.jit(_named(self), donate_argnums=settings.donate_argnums)
        """``jax.jit`` of ``call``: for numeric functions."""

    @property
    def is_host(self) -> bool:
        """Whether it is, or contains, a declared host operator."""
        return self.operator is not None and self.operator.kind != "pure"

    def wrapped(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        """Returns ``(args, kwargs)`` with the static ones moved into the structure."""
        if not self._static:
            return tuple(args), dict(kwargs)
        names = list(self.parameters)
        return (
            tuple(
                _static(v) if k < len(names) and names[k] in self._static else v
                for k, v in enumerate(args)
            ),
            {k: _static(v) if k in self._static else v for k, v in kwargs.items()},
        )

    def direct(self, jitted: Callable[..., Any]) -> Callable[..., Any]:
        """Returns what is called with the user's own arguments, for a function of wrapped ones."""
        if not self._static:
            return jitted

        def call(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = self.wrapped(args, kwargs)
            return jitted(*args, **kwargs)

        return call

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function with arguments as ``wrapped`` returned them."""
        return self.function(
            *(a.value if type(a) is Static else a for a in args),
            **{k: v.value if type(v) is Static else v for k, v in kwargs.items()},
        )


def _static(value: Any) -> Static:
    """A static argument; one that could change after the call is copied."""
    try:
        hash(value)
    except TypeError:
        value = copy.deepcopy(value)
    return Static(value)


def _named(target: Target) -> Callable[..., Any]:
    """Returns ``target.call`` under the name, parameters and place of the user's function."""

    @functools.wraps(target.function, updated=())
    def call(*args: Any, **kwargs: Any) -> Any:
        return target.call(*args, **kwargs)

    return call


def _function_of(given: Any) -> Callable[..., Any]:
    if isinstance(given, Operator) and not isinstance(given, HostOperator):

        @functools.wraps(given.forward)
        def run(*args: Any, **kwargs: Any) -> Any:
            return given.run(args, kwargs)

        return run
    return given  # type: ignore[no-any-return]


def _parameters(given: Any) -> Mapping[str, inspect.Parameter]:
    function = given
    if isinstance(given, Operator):
        function = getattr(given, "function", given.forward)
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # some builtins have no signature
        return {}


def _static_names(
    settings: JITSettings, parameters: Mapping[str, inspect.Parameter], function: str
) -> frozenset[str]:
    names = list(parameters)
    kinds = {parameter.kind for parameter in parameters.values()}
    for kind, positions in settings.positions.items():
        is_open = kind == "donate_argnums" and inspect.Parameter.VAR_POSITIONAL in kinds
        for k in positions if parameters and not is_open else ():
            if not -len(names) <= k < len(names):
                raise OptionsError(
                    f"{kind} has {k}, and {function!r} has {len(names)} parameters: "
                    f"{', '.join(names)}."
                )
    unknown = set(settings.static_argnames) - set(names)
    if unknown and parameters and inspect.Parameter.VAR_KEYWORD not in kinds:
        raise OptionsError(
            f"static_argnames has {min(unknown)!r}, which is no parameter of {function!r}; "
            f"its parameters are {', '.join(names)}."
        )
    return frozenset(
        {*settings.static_argnames, *(names[k] for k in settings.static_argnums if names)}
    )


class Request:
    """The arguments of one call, taken apart.

    Attributes:
        target: What is called.
        structure: The tree of ``(args, kwargs)``, static arguments inside.
        leaves: Its leaves.
        args: What the user gave by position.
        kwargs: What the user gave by name.
    """

    __slots__ = ("args", "kwargs", "leaves", "structure", "target")

    def __init__(self, target: Target, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self.target, self.args, self.kwargs = target, args, kwargs
        self.leaves: list[Any]
        self.structure: Any
        arguments = _in_order(*target.wrapped(args, kwargs))
        self.leaves, self.structure = jax.tree.flatten(arguments)
        while open_records(self.leaves):
            self.leaves, self.structure = jax.tree.flatten(arguments)

    @property
    def key(self) -> Hashable:
        """The abstract signature: structure, shapes, dtypes, types of host values."""
        return self.structure, tuple(map(leaf_kind, self.leaves))

    @property
    def is_numeric(self) -> bool:
        """Whether JAX computes with all the leaves."""
        return all(map(is_numeric, self.leaves))

    @property
    def labels(self) -> tuple[str, ...]:
        """What each leaf is called: ``question``, ``documents[0]``."""
        return self._labels_of(self.structure, len(self.leaves))

    def with_statics(self) -> tuple[Any, list[Any], tuple[str, ...], set[int]]:
        """Returns structure, leaves and labels with static arguments as leaves, and which are."""
        tree = _in_order(*self.structure.unflatten(self.leaves))
        leaves, structure = jax.tree.flatten(tree, is_leaf=lambda node: type(node) is Static)
        static = {k for k, leaf in enumerate(leaves) if type(leaf) is Static}
        values = [leaf.value if k in static else leaf for k, leaf in enumerate(leaves)]
        return structure, values, self._labels_of(structure, len(leaves)), static

    def _labels_of(self, structure: Any, count: int) -> tuple[str, ...]:
        tree = _in_order(*structure.unflatten(range(count)))
        paths, _ = jax.tree_util.tree_flatten_with_path(tree)
        names = list(self.target.parameters)
        return tuple(_label(path, names) for path, _ in paths)


def _in_order(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Arguments whose dicts keep their order; that of the keywords themselves does not matter."""
    return keeping_order(args), {name: keeping_order(value) for name, value in kwargs.items()}


def _label(path: Sequence[Any], names: Sequence[str]) -> str:
    where, key, *rest = path
    if where.idx == 1:
        name = str(key.key)
    else:
        name = names[key.idx] if key.idx < len(names) else f"argument_{key.idx}"
    return name + jax.tree_util.keystr(tuple(rest))


def leaf_kind(leaf: Any) -> Hashable:
    """Returns what of a leaf decides how a function is staged."""
    if isinstance(leaf, HostBatch):
        return leaf.shape, HostBatch
    if isinstance(leaf, jax.Array | np.ndarray | np.generic):
        return leaf.shape, leaf.dtype, getattr(leaf, "weak_type", False)
    return type(leaf).__mro__  # a class is hashable, but not to mypy
