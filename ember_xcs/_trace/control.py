"""Loops and branches whose bodies call host operators, as calls of control operators.

An equation of ``scan``, ``while`` or ``cond`` that holds host calls, and a loop written with the
functions of ``xcs``, become one ``operator_call`` whose operator interprets it on the host: it
runs the graphs of its bodies, in which numeric parts are compiled. Batching comes with the
primitive: under ``vmap`` each lane is a call of its own, so that a lane that is done, or on
another branch, pays for no call.

JAX's own batched ``while`` keeps one predicate for each lane; of its body, the calls that depend
on the carry are made for live lanes alone (see ``from_jaxpr``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ember_xcs._core import calls
from ember_xcs._core.operator import HostOperator
from ember_xcs._core.operator_class import derived
from ember_xcs._core.policy import HostPolicy
from ember_xcs._trace.flatten import flat_jaxpr
from ember_xcs._trace.from_jaxpr import GraphProgram, graph_from_jaxpr
from ember_xcs._trace.host_values import is_host_dtype
from ember_xcs._trace.nodes import LIVE
from ember_xcs._trace.primitive import CallSite, operator_call_p
from ember_xcs._trace.staging import contains_host_calls
from ember_xcs._trace.user_line import user_line

__all__ = ["CONTROL_RULES", "Branch", "Loop", "Scan", "bind_control"]


class Body:
    """A jaxpr as a function of run-time values, run by the engine."""

    def __init__(self, closed: Any, name: str, lanes: int = 0) -> None:
        flat = flat_jaxpr(closed, CONTROL_RULES)
        names = [f"x{k}" for k in range(len(flat.jaxpr.invars))]
        self.program: GraphProgram = graph_from_jaxpr(flat, names, name, lanes)
        self.calls_host = contains_host_calls(flat)

    def __call__(self, values: Sequence[Any], **more: Any) -> list[Any]:
        """Returns the results for these values, by position."""
        inputs = dict(zip(self.program.inputs, values, strict=True))
        results = calls.run_graph(self.program.graph, {**inputs, **more})
        return self.program.results(results, inputs)


class ControlOperator(HostOperator):
    """What loops and branches share: operands in, results out, as they are."""

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


class Loop(ControlOperator):
    """``while_loop``: operands are the constants of the condition, of the body, the carry.

    Attributes:
        condition: What says whether to go on: one bool, or one for each lane.
        body: What makes the next carry.
        constants: How many operands are constants of the condition, and of the body.
        lanes: How many leading axes of the carry are lanes.
    """

    condition: Body
    body: Body
    constants: tuple[int, int]
    lanes: int = 0

    @derived
    def name(self) -> str:
        """``"while_loop"``."""
        return "while_loop"

    def forward(self, *operands: Any) -> list[Any]:
        """Returns the last carry."""
        first, second = self.constants
        of_condition, of_body = operands[:first], operands[first : first + second]
        carry = list(operands[first + second :])
        while True:
            live = np.asarray(self.condition([*of_condition, *carry])[0])
            if not live.any():
                return carry
            more = {LIVE: live} if self.lanes else {}
            following = self.body([*of_body, *carry], **more)
            carry = [
                _chosen(live, new, old) if self.lanes else new
                for new, old in zip(following, carry, strict=True)
            ]


def _chosen(live: np.ndarray[Any, Any], new: Any, old: Any) -> Any:
    """The new values of the live lanes, the old ones of the others."""
    if live.all():
        return new
    new, old = np.asarray(new), np.asarray(old)
    mask = live.reshape(live.shape + (1,) * (new.ndim - live.ndim))
    return np.where(mask, new, old)


class Branch(ControlOperator):
    """``cond`` and ``switch``: the first operand is the number of the branch."""

    branches: tuple[Body, ...]

    @derived
    def name(self) -> str:
        """``"cond"``, or ``"switch"`` where there are more than two branches."""
        return "cond" if len(self.branches) == 2 else "switch"

    def forward(self, index: Any, *operands: Any) -> list[Any]:
        """Returns the results of one branch; the others are not run."""
        number = min(max(int(index), 0), len(self.branches) - 1)
        return self.branches[number](operands)


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

    def forward(self, *operands: Any) -> list[Any]:
        """Returns the last carry, then the results of the steps."""
        constants = operands[: self.constants]
        carry = list(operands[self.constants : self.constants + self.carried])
        scanned = [np.asarray(x) if not isinstance(x, np.ndarray) else x
                   for x in operands[self.constants + self.carried :]]  # fmt: skip
        collected: list[list[Any]] = [[] for _ in self.slices]
        steps = range(self.length)
        for step in reversed(steps) if self.reverse else steps:
            results = self.body([*constants, *carry, *(x[step] for x in scanned)])
            carry = results[: self.carried]
            for column, value in zip(collected, results[self.carried :], strict=True):
                column.append(value)
        if self.reverse:
            collected = [column[::-1] for column in collected]
        return carry + [
            _stack(column, aval) for column, aval in zip(collected, self.slices, strict=True)
        ]


def _stack(values: Sequence[Any], aval: Any) -> np.ndarray[Any, Any]:
    shape = (len(values), *aval.shape)
    whole: np.ndarray[Any, Any]
    whole = np.empty(shape, object) if is_host_dtype(aval.dtype) else np.empty(shape, aval.dtype)
    for k, value in enumerate(values):
        whole[k] = value
    return whole


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
    return operator_call_p.bind(*operands, site=site, batch=(), mapped=((),) * count)  # type: ignore[no-any-return]


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
    """How many variables of a scan lose their first axis inside: its names differ by JAX version."""
    pairs = zip(outside, inside, strict=True)
    return sum(len(variable.aval.shape) > len(aval.shape) for variable, aval in pairs)


def _while_rule(equation: Any, operands: Sequence[Any]) -> list[Any]:
    params = equation.params
    condition, body = params["cond_jaxpr"], params["body_jaxpr"]
    lanes = len(condition.out_avals[0].shape)
    constants = params["cond_nconsts"], params["body_nconsts"]
    operator = Loop(
        Body(condition, "condition"),
        Body(body, "loop_body", lanes),
        constants,
        lanes,
    )
    return bind_control(operator, operands, [v.aval for v in equation.outvars])


def _cond_rule(equation: Any, operands: Sequence[Any]) -> list[Any]:
    branches = equation.params["branches"]
    bodies = tuple(Body(branch, f"branch_{k}") for k, branch in enumerate(branches))
    return bind_control(Branch(bodies), operands, [v.aval for v in equation.outvars])


CONTROL_RULES = {"scan": _scan_rule, "while": _while_rule, "cond": _cond_rule}
