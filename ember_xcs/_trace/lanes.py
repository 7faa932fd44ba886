"""Which calls in the body of a batched loop are made for its live lanes alone.

JAX's batched ``while`` has a predicate with one entry for each lane, and its carry has the axes of
the lanes in front. A host call in the body has batch axes, too, the outermost first: those of the
lanes, those of another ``vmap`` around the loop that does not reach the predicate, and those of a
``vmap`` inside the body. Which are the lanes follows from three facts:

- Axes of a ``vmap`` right around the call (``inner``) are never lanes.
- What depends on the carry is batched over all lanes: the lanes are among its axes, in order.
- Another ``vmap`` around the loop leaves its axis in the carry, behind those of the lanes.

Where that leaves a doubt, no call of the body is masked: then more calls are made, and the results
are the same, as the loop keeps the carry of the lanes that are done.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection
from typing import Any

import jax.extend.core as jex_core

from ember_xcs._trace.primitive import operator_call_p

__all__ = ["Lanes", "lane_axes", "lanes_of_calls", "reached"]

Axes = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Lanes:
    """The lanes of a batched loop, as the jaxpr of something inside it sees them.

    Attributes:
        shape: The shape of the loop's predicate.
        inputs: The positions of the inputs that are batched over the lanes.
        others: The sizes of the axes of the loop's carry that are not lanes.
        has_all: Whether the other inputs do not depend on the carry, and are known to be alike for
            all lanes or batched over them: true in the body itself, not in what is nested in it.
    """

    shape: tuple[int, ...]
    inputs: frozenset[int]
    others: frozenset[int] = frozenset()
    has_all: bool = False


def reached(jaxpr: Any, positions: Collection[int]) -> frozenset[Any]:
    """Returns the variables of a jaxpr that depend on its inputs at these positions."""
    found = {jaxpr.invars[k] for k in positions}
    for equation in jaxpr.eqns:
        if _reads_any(equation, found):
            found.update(equation.outvars)
    return frozenset(found)


def lane_axes(batch: tuple[int, ...], shape: tuple[int, ...]) -> Axes | None:
    """Returns which of the axes around a call are the lanes; None where that is not certain.

    Args:
        batch: The sizes of the axes among which are all lanes, in order.
        shape: The sizes of the lanes.
    """
    if len(batch) == len(shape):
        return tuple(range(len(batch)))
    fitting = [
        axes
        for axes in itertools.combinations(range(len(batch)), len(shape))
        if tuple(batch[k] for k in axes) == shape
    ]
    return fitting[0] if len(fitting) == 1 else None


def lanes_of_calls(jaxpr: Any, lanes: Lanes) -> dict[int, Any]:
    """Returns, by the number of its equation, how each call that is to be masked is masked.

    That is the axes of its batch that are the lanes; for a loop or branch that is not batched
    itself, the lanes as its own bodies see them. It is empty where there is a doubt.
    """
    dependent = reached(jaxpr, lanes.inputs)
    found: dict[int, Any] = {}
    for number, equation in enumerate(jaxpr.eqns):
        if equation.primitive is operator_call_p and _reads_any(equation, dependent):
            place = _place(equation, dependent, lanes)
            if place is None:
                return {}
            found[number] = place
    return {**found, **_of_constants(jaxpr, dependent, lanes)}


def _place(equation: Any, dependent: Collection[Any], lanes: Lanes) -> Axes | Lanes | None:
    site, batch = equation.params["site"], equation.params["batch"]
    if not site.raw or batch:
        return lane_axes(batch[: len(batch) - equation.params["inner"]], lanes.shape)
    positions = frozenset(k for k, v in enumerate(equation.invars) if _is_in(v, dependent))
    inside = Lanes(lanes.shape, positions)
    return inside if site.operator.can_be_within(inside) else None


def _of_constants(jaxpr: Any, dependent: Collection[Any], lanes: Lanes) -> dict[int, Any]:
    """How calls are masked that depend on nothing but the constants of the loop."""
    if not lanes.has_all:
        return {}
    found: dict[int, Any] = {}
    inputs = reached(jaxpr, range(len(jaxpr.invars)))
    for number, equation in enumerate(jaxpr.eqns):
        if equation.primitive is not operator_call_p:
            continue
        batch = equation.params["batch"]
        if equation.params["site"].raw and not batch:  # what its bodies would read is not known
            return {}
        outer = batch[: len(batch) - equation.params["inner"]]
        if not outer or _reads_any(equation, dependent) or not _reads_any(equation, inputs):
            continue
        if outer != lanes.shape or lanes.others.intersection(outer):
            return {}
        found[number] = tuple(range(len(outer)))
    return found


def _reads_any(equation: Any, variables: Collection[Any]) -> bool:
    return any(_is_in(v, variables) for v in equation.invars)


def _is_in(atom: Any, variables: Collection[Any]) -> bool:
    return not isinstance(atom, jex_core.Literal) and atom in variables
