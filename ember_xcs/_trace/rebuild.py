"""From the operands of a staged call back to the arguments that the user's code passed."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ember_xcs._core.operator import HostOperator
    from ember_xcs._trace.primitive import CallSite

__all__ = ["rebuild_arguments", "rebuild_by_parameter"]


def rebuild_by_parameter(
    site: CallSite, operands: Sequence[Any]
) -> tuple[HostOperator, dict[str, Any]]:
    """Returns the operator and its arguments by parameter."""
    constants = iter(site.constants)
    leaves = [
        next(constants) if position is None else _operand(site, operands, position)
        for position in site.operand_positions
    ]
    operator, arguments = site.structure.unflatten(leaves)
    return (operator if site.traced_operator else site.operator), arguments


def _operand(site: CallSite, operands: Sequence[Any], position: int) -> Any:
    value = operands[position]
    is_batch = site.host_batches[position] and isinstance(value, np.ndarray)
    return value.tolist() if is_batch else value


def rebuild_arguments(
    site: CallSite, operands: Sequence[Any]
) -> tuple[HostOperator, tuple[Any, ...], dict[str, Any]]:
    """Returns the operator, its positional and its keyword arguments."""
    if site.raw:
        return site.operator, tuple(operands), {}
    if site.in_order is not None:
        return site.operator, tuple([_operand(site, operands, k) for k in site.in_order]), {}
    operator, arguments = rebuild_by_parameter(site, operands)
    bound = inspect.BoundArguments(site.parameters, arguments)
    return operator, bound.args, bound.kwargs
