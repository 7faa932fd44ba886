"""Loops and branches written with the functions of ``xcs``, while a function is being staged.

JAX traces the loop by itself first, so that its rules for carries, dtypes and structures hold and
its messages are JAX's own. What it made is then put into the function being staged: purely
numeric loops as they are, those with host calls as control operators, before any batching, so
that under ``vmap`` each lane runs on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from ember_xcs._core.operator import HostOperator
from ember_xcs._core.operator_class import derived
from ember_xcs._core.plumbing import Glue
from ember_xcs._trace.control import CONTROL_RULES
from ember_xcs._trace.flatten import inlined
from ember_xcs._trace.host_values import HostValue, wrap
from ember_xcs._trace.staging import check_handles, check_known, is_numeric, stage_call

__all__ = ["Constant", "lifted", "lifting", "staged_control"]


class Constant(Glue, HostOperator):
    """A value known while staging, as a host value."""

    value: Any

    def forward(self) -> Any:
        """Returns the value."""
        return self.value

    @derived
    def name(self) -> str:
        """``"constant"``."""
        return "constant"


def lifted(tree: Any) -> Any:
    """Returns a tree with what JAX does not compute with made host values.

    So are the bare arrays of handles that functions of ``jax.numpy`` return.
    """
    return jax.tree.map(_lifted_leaf, tree, is_leaf=_is_host_value)


def lifting(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function whose results are lifted."""
    return lambda *args: lifted(function(*args))


def _is_host_value(value: Any) -> bool:
    return isinstance(value, HostValue)


def _lifted_leaf(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array):
        return wrap(leaf)
    if is_numeric(leaf) or isinstance(leaf, HostValue):
        return leaf
    check_known(leaf, "a result")
    return stage_call(Constant(leaf), (), _NOTHING)


_NOTHING: Mapping[str, Any] = {}


def staged_control(function: Callable[..., Any], *operands: Any) -> Any:
    """Returns what ``function``, a call of ``jax.lax``, gives for these operands.

    Args:
        function: Calls one function of ``jax.lax`` with the operands.
        operands: Trees of arrays, numbers, host values and objects.
    """
    leaves: list[Any]
    structure: Any
    leaves, structure = jax.tree.flatten(lifted(operands))
    results: list[Any] = []

    def flat(*inner: Any) -> Sequence[Any]:
        out_leaves, out_structure = jax.tree.flatten(function(*structure.unflatten(inner)))
        results.append(out_structure)
        return out_leaves

    closed = jax.make_jaxpr(flat)(*leaves)
    check_handles(closed)
    values = inlined(closed, leaves, CONTROL_RULES)
    return results[-1].unflatten(values)
