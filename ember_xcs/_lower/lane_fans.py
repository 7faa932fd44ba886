"""Batched loops and branches whose lanes go in step, so that a batch end point is asked once.

Lanes that go in step wait for one another at each call. That is worth it where their calls can be
answered together; where nothing in a loop or branch has a batch end point, each lane goes its own
way (``CallFan``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ember_xcs._trace.control import Body, Branch, Loop
from ember_xcs._trace.nodes import chosen, indexable

if TYPE_CHECKING:
    from ember_xcs._trace.nodes import StagedCall

__all__ = ["BranchFan", "in_step"]


def in_step(call: StagedCall) -> tuple[Callable[..., Any], Any] | None:
    """Returns what runs a batched loop or branch with its lanes in step, and its fan, if any.

    None where they cannot go in step, or nothing is gained by it.
    """
    operator = call.site.operator
    if not call.batch or not operator.has_batch:
        return None
    if isinstance(operator, Branch):
        batched = [any(levels) for levels in call.mapped[1:]]
        bodies = [branch.in_step(call.batch, batched) for branch in operator.branches]
        fan = BranchFan(call, [body for body in bodies if body is not None])
        return (start_body, fan) if len(fan.bodies) == len(bodies) else None
    if isinstance(operator, Loop):
        count = sum(operator.constants)
        loop = operator.in_step(call.batch, [any(levels) for levels in call.mapped[:count]])
        return None if loop is None else (_LoopInStep(call, loop), None)
    return None


def start_body(body: Body, operands: Sequence[Any], live: np.ndarray[Any, Any]) -> list[Any]:
    """Returns the results of a branch for the lanes that are on it."""
    return body(operands, [live])


class BranchFan:
    """A batched ``cond`` or ``switch``: one call for each branch that a lane is on."""

    keeps_errors = False
    goes_together = False
    __slots__ = ("bodies", "call")

    def __init__(self, call: StagedCall, bodies: Sequence[Body]) -> None:
        self.call, self.bodies = call, tuple(bodies)

    def split(self, values: tuple[Any, ...]) -> Sequence[tuple[Any, ...]]:
        """Returns, for each branch, what its body is called with."""
        operands = _operands(self.call, values)[1:]
        return [(self.bodies[k], operands, mask) for k, mask in self._masks(values)]

    def join(self, values: tuple[Any, ...], results: Sequence[Any]) -> Any:
        """Returns the results of all lanes."""
        if not results:
            return self.call.join([], [])
        whole = list(results[0])
        for (_, mask), found in zip(self._masks(values)[1:], results[1:], strict=True):
            whole = [chosen(mask, new, old) for new, old in zip(found, whole, strict=True)]
        return self.call.results(whole)

    def partial(self, values: tuple[Any, ...], results: Sequence[Any]) -> Any:
        """Returns the results of the branches that lanes are on, in their order."""
        return list(results)

    def describe(self, values: tuple[Any, ...], index: int) -> str:
        """Returns ``"branch 1"``."""
        return f"branch {self._masks(values)[index][0]}"

    def _masks(self, values: tuple[Any, ...]) -> list[tuple[int, np.ndarray[Any, Any]]]:
        """The branches that lanes are on, and which lanes these are."""
        index = np.asarray(_broadcast(values[0], self.call.mapped[0], self.call.batch))
        number = np.clip(index.astype(int), 0, len(self.bodies) - 1)
        live = _live(self.call, values)
        masks = [(k, live & (number == k)) for k in range(len(self.bodies))]
        return [(k, mask) for k, mask in masks if mask.any()]


class _LoopInStep:
    """A batched loop of which each round is one run for all lanes."""

    __slots__ = ("_call", "_loop")

    def __init__(self, call: StagedCall, loop: Loop) -> None:
        self._call, self._loop = call, loop

    def __call__(self, *values: Any) -> Any:
        call, count = self._call, sum(self._loop.constants)
        operands = _operands(call, values)
        carry = [
            _broadcast(value, levels, call.batch)
            for value, levels in zip(values[count:], call.mapped[count:], strict=False)
        ]
        results = self._loop.run_in_step([*operands[:count], *carry], _live(call, values))
        return call.results(results)


def _operands(call: StagedCall, values: Sequence[Any]) -> list[Any]:
    """The operands of a call: those that are batched at all, over all of the batch."""
    return [
        _broadcast(value, levels, call.batch) if any(levels) else value
        for value, levels in zip(values, call.mapped, strict=False)
    ]


def _broadcast(value: Any, levels: Sequence[bool], batch: tuple[int, ...]) -> Any:
    """An operand with all axes of the batch in front."""
    array = indexable(value)
    count = sum(levels)
    sizes = [size if is_mapped else 1 for size, is_mapped in zip(batch, levels, strict=True)]
    rest = array.shape[count:]
    library: Any = jnp if isinstance(array, jax.Array) else np
    return library.broadcast_to(array.reshape(*sizes, *rest), (*batch, *rest))


def _live(call: StagedCall, values: Sequence[Any]) -> np.ndarray[Any, Any]:
    """Which lanes run: all, or those that loops around the call leave."""
    live = np.zeros(call.batch, bool)
    for index in call.indices(values):
        live[index] = True
    return live
