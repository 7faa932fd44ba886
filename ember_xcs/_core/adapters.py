"""Modules of Flax and Equinox as pure operators.

A module is taken apart once, when it is adapted: its arrays become leaves of the operator, so that
``jax.jit``, ``jax.vmap``, ``jax.grad`` and optax see its weights, and the rest becomes part of the
operator's structure, which JAX compares. What happens to the module afterwards does not change
the operator. The libraries themselves are not imported here before one of their modules is seen.

State that is not a parameter (running averages, counters, random streams) is read, never changed,
and gets no gradient.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import jax
import jax.numpy as jnp

from ember_xcs._core.layout import is_array
from ember_xcs._core.operator import Operator
from ember_xcs._core.operator_class import derived, kept
from ember_xcs._core.signature import Signature, callable_signature
from ember_xcs.errors import OperatorOutputError

__all__ = ["EquinoxModule", "LinenModule", "NnxModule", "from_equinox", "from_flax"]


def from_flax(module: Any, variables: Any = None) -> Operator:
    """Returns a Flax module as a pure operator, called as the module is.

    A linen module passes ``rngs``, ``mutable`` and ``method`` on to ``module.apply``. An nnx module
    must not change its state in a call; put it into evaluation mode first (``module.eval()``).

    Args:
        module: An ``nnx.Module``, or a linen ``nn.Module`` that is not bound.
        variables: For linen, what ``module.init`` returned: ``{"params": ...}``.

    Raises:
        ImportError: Flax is not installed.
        TypeError: ``module`` is not a Flax module, or ``variables`` are missing or too many.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> layer = from_flax(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
        >>> layer(jnp.ones((4, 2))).shape
        (4, 3)
    """
    if _is_instance(module, "flax.nnx", "Module"):
        return _from_nnx(module, variables)
    if _is_instance(module, "flax.linen", "Module"):
        return _from_linen(module, variables)
    raise _not_a_module(module, "flax", "from_flax", "an nnx.Module or a linen nn.Module")


def from_equinox(module: Any) -> Operator:
    """Returns an Equinox module as a pure operator, called as the module is.

    Args:
        module: An ``equinox.Module`` with a ``__call__``.

    Raises:
        ImportError: Equinox is not installed.
        TypeError: ``module`` is not an Equinox module, or cannot be called.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> layer = from_equinox(eqx.nn.Linear(2, 3, key=jax.random.key(0)))
        >>> layer(jnp.ones(2)).shape
        (3,)
    """
    if not _is_instance(module, "equinox", "Module"):
        raise _not_a_module(module, "equinox", "from_equinox", "an equinox.Module")
    _check_callable(module)
    return EquinoxModule(module)


class _Module(Operator):
    """What the operators made of modules have in common."""

    @derived
    def module_class(self) -> type:
        """The class of the module."""
        raise NotImplementedError

    @derived
    def name(self) -> str:
        """The name of the module's class."""
        return self.module_class.__name__

    @derived
    def signature(self) -> Signature:
        """The signature of the module's ``__call__``."""
        call: Any = self.module_class.__call__
        return kept(self, "_xcs_signature", lambda: callable_signature(call, skip_first=True))


class EquinoxModule(_Module):
    """An Equinox module as an operator; what ``from_equinox`` makes.

    Attributes:
        module: The module. Its arrays are leaves; its other leaves, such as activation functions,
            are part of the structure.

    Example:
        >>> import equinox as eqx, jax
        >>> operator = EquinoxModule(eqx.nn.Linear(2, 3, key=jax.random.key(0)))
        >>> [leaf.shape for leaf in jax.tree.leaves(operator)]
        [(3, 2), (3,)]
    """

    module: Any

    @derived
    def module_class(self) -> type:
        """The class of the module."""
        return type(self.module)

    def forward(self, /, *args: Any, **kwargs: Any) -> Any:
        """Returns what the module returns."""
        return self.module(*args, **kwargs)


class LinenModule(_Module):
    """A linen module with its variables as an operator; what ``from_flax`` makes.

    Attributes:
        module: The module, which is part of the structure.
        variables: Its variables by collection; those in ``params`` get gradients.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> dense = nn.Dense(3)
        >>> operator = LinenModule(dense, dense.init(jax.random.key(0), jnp.ones(2)))
        >>> operator(jnp.ones(2)).shape
        (3,)
    """

    module: Any
    variables: Any

    @derived
    def module_class(self) -> type:
        """The class of the module."""
        return type(self.module)

    @derived
    def signature(self) -> Signature:
        """The signature of ``__call__``; ``apply`` takes more, such as ``rngs``."""
        fields = callable_signature(self.module_class.__call__, skip_first=True).fields
        return kept(self, "_xcs_signature", lambda: Signature(fields, open=True))

    def forward(self, /, *args: Any, **kwargs: Any) -> Any:
        """Returns what ``module.apply`` returns."""
        variables = {
            collection: values if collection == "params" else jax.lax.stop_gradient(values)
            for collection, values in self.variables.items()
        }
        return self.module.apply(variables, *args, **kwargs)


class NnxModule(_Module):
    """An nnx module as an operator; what ``from_flax`` makes.

    Attributes:
        module_class: The class of the module.
        graph: The module without its arrays, an ``nnx.GraphDef``.
        params: Its parameters, an ``nnx.State``.
        state: Its other variables, an ``nnx.State``; arrays that are not of floating point, such
            as counters and random keys, are held fast there and are no leaves.

    Example:
        >>> from flax import nnx
        >>> operator = NnxModule(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
        >>> sorted(leaf.shape for leaf in jax.tree.leaves(operator))
        [(2, 3), (3,)]
    """

    module_class: type
    graph: Any
    params: Any
    state: Any

    def __init__(self, module: Any) -> None:
        from flax import nnx  # noqa: PLC0415  (an extra)

        self.module_class = type(module)
        split: Any = nnx.split
        self.graph, params, state = split(module, nnx.Param, ...)
        self.params = _copied(params)  # a state of nnx shares its variables with the module
        self.state = jax.tree.map(_held_fast, state)

    def _module(self) -> Any:
        from flax import nnx  # noqa: PLC0415  (an extra)

        state = jax.tree.map(_released, self.state, is_leaf=_is_held)
        return nnx.merge(self.graph, _copied(self.params), state)

    def forward(self, /, *args: Any, **kwargs: Any) -> Any:
        """Returns what the module returns.

        Raises:
            OperatorOutputError: The module changed its state.
        """
        module = self._module()
        before = _variables(module)
        result = module(*args, **kwargs)
        _check_unchanged(before, _variables(module), self.name)
        return result


class _Held:
    """An array that is part of an operator's structure, as the one object that it is."""

    __slots__ = ("array",)

    def __init__(self, array: Any) -> None:
        self.array = array

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and self.array is other.array

    def __hash__(self) -> int:
        return id(self.array)


def _copied(state: Any) -> Any:
    """Returns the same arrays in variables of their own."""
    return jax.tree.map(lambda array: array, state)


def _held_fast(value: Any) -> Any:
    floating = is_array(value) and jnp.issubdtype(value.dtype, jnp.inexact)
    return value if floating or not is_array(value) else _Held(value)


def _is_held(value: Any) -> bool:
    return isinstance(value, _Held)


def _released(value: Any) -> Any:
    return value.array if isinstance(value, _Held) else jax.lax.stop_gradient(value)


def _variables(module: Any) -> dict[str, Any]:
    """Returns the arrays of an nnx module by path."""
    from flax import nnx  # noqa: PLC0415  (an extra)

    leaves, _ = jax.tree_util.tree_flatten_with_path(nnx.state(module))
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _check_unchanged(before: dict[str, Any], after: dict[str, Any], name: str) -> None:
    paths = before.keys() | after.keys()
    changed = sorted(p for p in paths if before.get(p) is not after.get(p))
    if changed:
        raise OperatorOutputError(
            f"operator {name!r} is an nnx module that changed its own state in a call: "
            f"{', '.join(changed[:4])}{', ...' if len(changed) > 4 else ''}. An operator is pure, "
            "and the change would be lost. Call module.eval() before from_flax, pass random "
            "streams as an argument (rngs=nnx.Rngs(key)), or write a @pure function that merges "
            "the module and returns its new state."
        )


def _from_nnx(module: Any, variables: Any) -> Operator:
    if variables is not None:
        raise TypeError(
            "from_flax(module, variables) is for linen modules; an nnx.Module holds its own "
            "variables: from_flax(module)."
        )
    _check_callable(module)
    return NnxModule(module)


def _from_linen(module: Any, variables: Any) -> Operator:
    if variables is None:
        raise TypeError(
            f"{type(module).__name__} is a linen module, whose variables are kept apart; give "
            "both: from_flax(module, module.init(key, example))."
        )
    _check_callable(module)
    return LinenModule(module, variables)


def _check_callable(module: Any) -> None:
    if not callable(module):
        raise TypeError(
            f"{type(module).__name__} has no __call__ method, so an operator made of it would "
            "compute nothing. Add one, or put the module into a field of an Operator of your own."
        )


def _is_instance(value: Any, library: str, name: str) -> bool:
    """Whether a value is of a library's class; if the library is not loaded, it is not."""
    loaded = sys.modules.get(library)
    return loaded is not None and isinstance(value, getattr(loaded, name))


def _not_a_module(value: Any, library: str, adapter: str, wanted: str) -> Exception:
    if importlib.util.find_spec(library) is None:
        return ImportError(
            f"{adapter} needs {library}, which is not installed. "
            f"Install it with: pip install ember-xcs[{library}]"
        )
    return TypeError(
        f"{adapter} takes {wanted}, and was given "
        + (
            f"the class {value.__name__}; make an instance of it."
            if isinstance(value, type)
            else f"a {type(value).__name__}."
        )
    )
