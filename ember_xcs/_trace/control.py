"""Loops and branches whose bodies call host operators, as calls of control operators.

An equation of ``scan``, ``while`` or ``cond`` that holds host calls, and a loop written with the
functions of ``xcs``, become one ``operator_call`` whose operator interprets it on the host: it
runs the graphs of its bodies, in which numeric parts are compiled. Batching comes with the
primitive: under ``vmap`` each lane is a call of its own, so that a lane that is done, or on
another branch, pays for no call.

JAX's own batched ``while`` keeps one predicate for each lane. Its lanes go in step, so that their
calls can go to a batch end point together; those of its condition and body, and of the loops and
branches in these, are made for live lanes alone (see ``lanes``). The lanes of other loops and
branches go in step, too, where there is a batch end point in them; else none waits for another.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Self

import jax
import jax.extend.core as jex_core
import numpy as np

from ember_xcs._core import calls
from ember_xcs._core.operator import HostOperator
from ember_xcs._core.operator_class import derived
from ember_xcs._core.policy import HostPolicy
from ember_xcs._trace.flatten import flat_jaxpr
from ember_xcs._trace.from_jaxpr import GraphProgram, graph_from_jaxpr
from ember_xcs._trace.lanes import Lanes, lane_axes, lanes_of_calls, reached
from ember_xcs._trace.nodes import chosen, indexable, live_input, stacked
from ember_xcs._trace.primitive import CallSite, bind_call, operator_call_p
from ember_xcs._trace.user_line import user_line

__all__ = ["CONTROL_RULES", "Branch", "Loop", "Scan", "bind_control"]


class Body:
    """A jaxpr as a function of run-time values, run by the engine.

    Attributes:
        closed: The jaxpr, flat.
        lanes: The lanes of the batched loops around it.
    """

    def __init__(self, closed: Any, name: str, lanes: Sequence[Lanes] = ()) -> None:
        self.closed, self.name, self.lanes = flat_jaxpr(closed, CONTROL_RULES), name, tuple(lanes)
        self._live = [live_input(level) for level in range(len(self.lanes))]

    @functools.cached_property
    def program(self) -> GraphProgram:
        """The graph."""
        names = [f"x{k}" for k in range(len(self.closed.jaxpr.invars))]
        return graph_from_jaxpr(self.closed, names, self.name, self.lanes)

    def __call__(self, values: Sequence[Any], live: Sequence[Any] = ()) -> list[Any]:
        """Returns the results for these values, by position.

        Args:
            values: The inputs.
            live: For each of the batched loops around it, which lanes still run.
        """
        inputs = dict(zip(self.program.inputs, values, strict=True))
        masks = dict(zip(self._live, live, strict=True))
        results = calls.run_graph(self.program.graph, {**inputs, **masks})
        return self.program.results(results, inputs)

    @functools.cached_property
    def has_batch(self) -> bool:
        """Whether a host operator in it has a batch end point."""
        sites = [e.params["site"] for e in self.closed.jaxpr.eqns if e.primitive is operator_call_p]
        return any(site.operator.has_batch for site in sites)

    def in_step(self, batch: tuple[int, ...], batched: Sequence[bool]) -> Body | None:
        """Returns the same for all lanes of a batch at once; None where calls cannot be masked.

        Args:
            batch: The sizes of the axes of the lanes.
            batched: For each input, whether it has these axes in front.
        """
        if self.lanes:
            return None
        function = jex_core.jaxpr_as_fun(self.closed)
        for size in reversed(batch):
            axes = tuple(0 if is_batched else None for is_batched in batched)
            function = jax.vmap(function, in_axes=axes, axis_size=size)
        inputs = [
            jax.ShapeDtypeStruct((*batch, *aval.shape) if is_batched else aval.shape, aval.dtype)
            for aval, is_batched in zip(self.closed.in_avals, batched, strict=True)
        ]
        lanes = Lanes(batch, frozenset(k for k, is_batched in enumerate(batched) if is_batched))
        body = Body(jax.make_jaxpr(function)(*inputs), self.name, [lanes])
        return body if body.masks_all(lanes) else None

    def within(self, lanes: Sequence[Lanes]) -> Body:
        """Returns the same inside batched loops, outside those that it is in already."""
        return Body(self.closed, self.name, (*lanes, *self.lanes)) if lanes else self

    def masks_all(self, lanes: Lanes) -> bool:
        """Whether every call that depends on batched inputs can be masked."""
        jaxpr = self.closed.jaxpr
        return bool(lanes_of_calls(jaxpr, lanes)) or not _calls_that_read(jaxpr, lanes)

    def reached(self, positions: Collection[int]) -> frozenset[int]:
        """Returns the positions of the results that depend on the inputs at these positions."""
        found = reached(self.closed.jaxpr, positions)
        results = enumerate(self.closed.jaxpr.outvars)
        return frozenset(
            k for k, v in results if not isinstance(v, jex_core.Literal) and v in found
        )


def _calls_that_read(jaxpr: Any, lanes: Lanes) -> bool:
    found = reached(jaxpr, lanes.inputs)
    host_calls = (e for e in jaxpr.eqns if e.primitive is operator_call_p)
    return any(not found.isdisjoint(e.outvars) for e in host_calls)


class ControlOperator(HostOperator):
    """What loops and branches share: operands in, results out, as they are.

    Inside the body of a batched loop it is given, after its own operands, which lanes still run.
    """

    refuse_gradient = (
        "the gradient of a loop or branch of xcs with host calls in it is not defined. Use "
        "xcs.scan, whose numeric parts are differentiated, or take the loop apart in Python."
    )

    @derived
    def policy(self) -> HostPolicy:
        """It may block, and what it calls may be stochastic."""
        return HostPolicy(executor="thread", side_effects=True)

    def start(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Returns the results, a list."""
        return self.forward(*args, **kwargs)

    def can_be_within(self, lanes: Lanes) -> bool:
        """Whether the calls in it can be made for the live lanes of a loop around it alone.

        Args:
            lanes: The lanes; their inputs are operands.
        """
        raise NotImplementedError

    def within(self, lanes: Sequence[Lanes]) -> Self:
        """Returns the same inside batched loops, each with the lanes as its operands have them."""
        raise NotImplementedError


class Loop(ControlOperator):
    """``while_loop``: operands are the constants of the condition, of the body, the carry.

    Attributes:
        condition: What says whether to go on: one bool, or one for each lane.
        body: What makes the next carry.
        constants: How many operands are constants of the condition, and of the body.
        lanes: The sizes of the leading axes of the carry that are lanes.
        outer: For each batched loop around it, which axes of the lanes are the lanes of that; None
            where how often it runs does not depend on them.
    """

    condition: Body
    body: Body
    constants: tuple[int, int]
    lanes: tuple[int, ...] = ()
    outer: tuple[tuple[int, ...] | None, ...] = ()

    @derived
    def name(self) -> str:
        """``"while_loop"``."""
        return "while_loop"

    def forward(self, *operands: Any) -> list[Any]:
        """Returns the last carry."""
        count = len(operands) - len(self.outer)
        return self._repeated(operands[:count], operands[count:], None)

    def run_in_step(self, operands: Sequence[Any], live: np.ndarray[Any, Any]) -> list[Any]:
        """Returns the last carry of all lanes, of which some do not run at all.

        Args:
            operands: All that are batched have the axes of the lanes in front.
            live: Which lanes run.
        """
        return self._repeated(operands, (), live)

    def _repeated(self, operands: Sequence[Any], around: Sequence[Any], live: Any) -> list[Any]:
        first, second = self.constants
        of_condition, of_body = operands[:first], operands[first : first + second]
        carry = list(operands[first + second :])
        live = self._live_at_first(around) if live is None else live
        while True:
            masks = (*around, live) if self.lanes else around
            live = live & np.asarray(self.condition([*of_condition, *carry], masks)[0])
            if not live.any():
                return carry
            masks = (*around, live) if self.lanes else around
            following = self.body([*of_body, *carry], masks)
            if live.all():  # also where there are no lanes
                carry = following
            else:
                carry = [chosen(live, new, old) for new, old in zip(following, carry, strict=True)]

    def _live_at_first(self, around: Sequence[Any]) -> np.ndarray[Any, Any]:
        """The lanes that run in all loops around this one."""
        live = np.ones(self.lanes, bool)
        for mask, axes in zip(around, self.outer, strict=True):
            if axes is not None:
                others = tuple(k for k in range(len(self.lanes)) if k not in axes)
                live &= np.expand_dims(np.asarray(mask), others)
        return live

    @derived
    def has_batch(self) -> bool:
        """Whether a host operator in it has a batch end point."""
        return self.condition.has_batch or self.body.has_batch

    def in_step(self, batch: tuple[int, ...], batched: Sequence[bool]) -> Loop | None:
        """Returns the same for all lanes of a batch at once; None where calls cannot be masked.

        Args:
            batch: The sizes of the axes of the lanes.
            batched: For each constant, whether it has these axes in front; the carry has them.
        """
        first, second = self.constants
        carry = (True,) * len(self.body.closed.jaxpr.outvars)
        condition = self.condition.in_step(batch, (*batched[:first], *carry))
        body = self.body.in_step(batch, (*batched[first : first + second], *carry))
        if condition is None or body is None or self.lanes or self.outer:
            return None
        return self.replace(condition=condition, body=body, lanes=batch)

    def can_be_within(self, lanes: Lanes) -> bool:
        """Whether the calls in it can be made for the live lanes of a loop around it alone."""
        of_condition, of_body, axes, decides = self._inside(lanes)
        masked = self.condition.masks_all(of_condition) and self.body.masks_all(of_body)
        return masked and (axes is not None or not decides)

    def within(self, lanes: Sequence[Lanes]) -> Self:
        """Returns the same inside batched loops, each with the lanes as its operands have them."""
        if not lanes:
            return self
        inside = [self._inside(of_loop) for of_loop in lanes]
        return self.replace(
            condition=self.condition.within([found[0] for found in inside]),
            body=self.body.within([found[1] for found in inside]),
            outer=tuple(found[2] for found in inside),
        )

    def _inside(self, lanes: Lanes) -> tuple[Lanes, Lanes, tuple[int, ...] | None, bool]:
        """The lanes of a loop around it as condition and body see them, and as its own lanes.

        The last says whether how often it runs depends on them.
        """
        first, second = self.constants
        of_condition = {k for k in lanes.inputs if k < first}
        of_body = {k - first for k in lanes.inputs if first <= k < first + second}
        carry = {k - first - second for k in lanes.inputs if k >= first + second}
        count = len(self.body.closed.jaxpr.outvars)
        while True:
            inputs = of_body | {second + k for k in carry}
            decides = bool(self.condition.reached(of_condition | {first + k for k in carry}))
            following = set(range(count)) if decides else carry | self.body.reached(inputs)
            if following == carry:
                break
            carry = following
        axes = lane_axes(self.lanes, lanes.shape) if decides else None
        found = frozenset(of_condition | {first + k for k in carry})
        return Lanes(lanes.shape, found), Lanes(lanes.shape, frozenset(inputs)), axes, decides


class Branch(ControlOperator):
    """``cond`` and ``switch``: the first operand is the number of the branch."""

    branches: tuple[Body, ...]

    @derived
    def name(self) -> str:
        """``"cond"``, or ``"switch"`` where there are more than two branches."""
        return "cond" if len(self.branches) == 2 else "switch"

    @derived
    def has_batch(self) -> bool:
        """Whether a host operator in it has a batch end point."""
        return any(branch.has_batch for branch in self.branches)

    def forward(self, index: Any, *operands: Any) -> list[Any]:
        """Returns the results of one branch; the others are not run."""
        number = min(max(int(index), 0), len(self.branches) - 1)
        branch = self.branches[number]
        count = len(operands) - len(branch.lanes)
        return branch(operands[:count], operands[count:])

    def can_be_within(self, lanes: Lanes) -> bool:
        """Whether the calls in it can be made for the live lanes of a loop around it alone."""
        return all(branch.masks_all(_shifted(lanes, 1)) for branch in self.branches)

    def within(self, lanes: Sequence[Lanes]) -> Self:
        """Returns the same inside batched loops, each with the lanes as its operands have them."""
        inside = [_shifted(of_loop, 1) for of_loop in lanes]
        return self.replace(branches=tuple(b.within(inside) for b in self.branches))


def _shifted(lanes: Lanes, count: int) -> Lanes:
    """Lanes by operand, as what is given all operands but the first sees them."""
    return Lanes(lanes.shape, frozenset(k - count for k in lanes.inputs if k >= count))


class Scan(ControlOperator):
    """``scan``: operands are constants, the carry, and what is scanned.

    Attributes:
        body: Takes constants, carry and one slice; returns the next carry and a slice of results.
        constants: How many operands are constants.
        carried: How many are the carry.
        length: How many steps there are.
        reverse: Whether the last slice comes first.
        slices: The abstract value of each scanned result, without its first axis.
    """

    body: Body
    constants: int
    carried: int
    length: int
    reverse: bool
    slices: tuple[Any, ...]

    @derived
    def name(self) -> str:
        """``"scan"``."""
        return "scan"

    @derived
    def has_batch(self) -> bool:
        """Whether a host operator in it has a batch end point."""
        return self.body.has_batch

    def forward(self, *operands: Any) -> list[Any]:
        """Returns the last carry, then the results of the steps."""
        count = len(operands) - len(self.body.lanes)
        constants = operands[: self.constants]
        carry = list(operands[self.constants : self.constants + self.carried])
        scanned = [indexable(x) for x in operands[self.constants + self.carried : count]]
        collected: list[list[Any]] = [[] for _ in self.slices]
        steps = range(self.length)
        for step in reversed(steps) if self.reverse else steps:
            inputs = [*constants, *carry, *(x[step] for x in scanned)]
            results = self.body(inputs, operands[count:])
            carry = results[: self.carried]
            for column, value in zip(collected, results[self.carried :], strict=True):
                column.append(value)
        if self.reverse:
            collected = [column[::-1] for column in collected]
        return carry + [
            stacked(aval, (self.length,), list(np.ndindex(self.length)), column)
            for column, aval in zip(collected, self.slices, strict=True)
        ]

    def can_be_within(self, lanes: Lanes) -> bool:
        """Whether the calls in it can be made for the live lanes of a loop around it alone."""
        return self.body.masks_all(self._inside(lanes))

    def within(self, lanes: Sequence[Lanes]) -> Self:
        """Returns the same inside batched loops, each with the lanes as its operands have them."""
        return self.replace(body=self.body.within([self._inside(of_loop) for of_loop in lanes]))

    def _inside(self, lanes: Lanes) -> Lanes:
        """The lanes of a loop around it as its body sees them."""
        carry = range(self.constants, self.constants + self.carried)
        found = lanes.inputs
        while True:
            reached = self.body.reached(found)
            following = found | {k for k in carry if k - self.constants in reached}
            if following == found:
                return Lanes(lanes.shape, found)
            found = following


def bind_control(
    operator: ControlOperator, operands: Sequence[Any], outputs: Sequence[Any]
) -> list[Any]:
    """Makes an equation of a loop or branch, and returns its results."""
    count = len(operands)
    site = CallSite(
        operator,
        structure=None,
        operand_positions=tuple(range(count)),
        constants=(),
        labels=tuple(f"x{k}" for k in range(count)),
        outputs=tuple(jax.core.ShapedArray(a.shape, a.dtype) for a in outputs),
        output_labels=tuple(map(str, range(len(outputs)))),
        line=user_line(),
        raw=True,
    )
    return bind_call(site, operands)


def _scan_rule(equation: Any, operands: Sequence[Any]) -> list[Any]:
    params = equation.params
    closed = params["jaxpr"]
    scanned = _count_scanned(equation.invars, closed.in_avals)
    results = _count_scanned(equation.outvars, closed.out_avals)
    carried = len(equation.outvars) - results
    operator = Scan(
        Body(closed, "scan_body"),
        len(equation.invars) - carried - scanned,
        carried,
        params["length"],
        params["reverse"],
        tuple(closed.out_avals[carried:]),
    )
    return bind_control(operator, operands, [v.aval for v in equation.outvars])


def _count_scanned(outside: Sequence[Any], inside: Sequence[Any]) -> int:
    """How many variables of a scan lose an axis inside: its parameters differ between JAX's."""
    pairs = zip(outside, inside, strict=True)
    return sum(len(variable.aval.shape) > len(aval.shape) for variable, aval in pairs)


def _while_rule(equation: Any, operands: Sequence[Any]) -> list[Any]:
    params = equation.params
    condition, body = params["cond_jaxpr"], params["body_jaxpr"]
    constants = params["cond_nconsts"], params["body_nconsts"]
    carry = [v.aval for v in equation.outvars]
    shape = condition.out_avals[0].shape
    others = frozenset(size for aval in carry for size in aval.shape[len(shape) :])

    def lanes(count: int) -> list[Lanes]:
        inputs = frozenset(range(count, count + len(carry)))
        return [Lanes(shape, inputs, others, has_all=True)] if shape else []

    operator = Loop(
        Body(condition, "condition", lanes(constants[0])),
        Body(body, "loop_body", lanes(constants[1])),
        constants,
        shape,
    )
    return bind_control(operator, operands, carry)


def _cond_rule(equation: Any, operands: Sequence[Any]) -> list[Any]:
    branches = equation.params["branches"]
    bodies = tuple(Body(branch, f"branch_{k}") for k, branch in enumerate(branches))
    return bind_control(Branch(bodies), operands, [v.aval for v in equation.outvars])


CONTROL_RULES = {"scan": _scan_rule, "while": _while_rule, "cond": _cond_rule}
