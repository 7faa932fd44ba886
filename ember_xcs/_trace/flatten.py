"""A jaxpr with the calls around host calls opened up, so that host calls stand at its top.

Nested ``jax.jit``, ``checkpoint`` and custom derivative rules are opened where a host operator is
called inside them; loops and branches with host calls become calls of control operators; what
is purely numeric stays as JAX made it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.extend.core as jex_core
from jax.extend import source_info_util

from ember_xcs._trace.primitive import operator_call_p
from ember_xcs._trace.staging import contains_host_calls
from ember_xcs.errors import TracingError

__all__ = ["flat_jaxpr", "inlined"]

_CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")
_OPENED = frozenset(
    {"jit", "pjit", "closed_call", "core_call", "remat", "checkpoint", "remat2",
     "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_lin", "eval_jaxpr"}
)  # fmt: skip

ControlRules = Mapping[str, Callable[[Any, Sequence[Any]], Sequence[Any]]]


def flat_jaxpr(closed: Any, control_rules: ControlRules) -> Any:
    """Returns an equal closed jaxpr whose host calls are all at its top level.

    Args:
        closed: A closed jaxpr.
        control_rules: For each primitive of control flow, what stages an equation of it whose
            bodies call host operators.
    """
    if not _has_nested_calls(closed.jaxpr):
        return closed

    def run(*inputs: Any) -> list[Any]:
        return inlined(closed, inputs, control_rules)

    return jax.make_jaxpr(run)(*[_struct(v.aval) for v in closed.jaxpr.invars])


def inlined(closed: Any, inputs: Sequence[Any], control_rules: ControlRules) -> list[Any]:
    """Returns the results of a closed jaxpr, made part of what is being traced."""
    return _evaluate(closed.jaxpr, closed.consts, inputs, control_rules)


def _struct(aval: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=getattr(aval, "weak_type", False))


def _has_nested_calls(jaxpr: Any) -> bool:
    return any(e.primitive is not operator_call_p and _calls_host(e) for e in jaxpr.eqns)


def _calls_host(equation: Any) -> bool:
    return any(contains_host_calls(j) for j in jex_core.jaxprs_in_params(equation.params))


def _evaluate(
    jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Any], rules: ControlRules
) -> list[Any]:
    """Runs a jaxpr under the current trace, opening what holds host calls."""
    values: dict[Any, Any] = dict(
        itertools.chain(
            zip(jaxpr.constvars, consts, strict=True), zip(jaxpr.invars, inputs, strict=True)
        )
    )

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, jex_core.Literal) else values[atom]

    for equation in jaxpr.eqns:
        arguments = [read(atom) for atom in equation.invars]
        info = equation.source_info
        stack = source_info_util.current_name_stack() + info.name_stack
        with source_info_util.user_context(info.traceback, name_stack=stack):
            results = _apply(equation, arguments, rules)
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _apply(equation: Any, arguments: Sequence[Any], rules: ControlRules) -> Sequence[Any]:
    primitive = equation.primitive
    if primitive is operator_call_p or not _calls_host(equation):
        with equation.ctx.manager:
            results = primitive.bind(*arguments, **primitive.get_bind_params(equation.params))
        return results if primitive.multiple_results else [results]
    if primitive.name in rules:
        return rules[primitive.name](equation, arguments)
    if primitive.name in _OPENED:
        inner = next(equation.params[name] for name in _CALLS if name in equation.params)
        return _evaluate(
            getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), arguments, rules
        )
    raise TracingError(
        f"a host operator is called inside `{primitive.name}`, which cannot be run on the host. "
        "Host calls may stand in jit, checkpoint, custom derivative rules, scan, while_loop and "
        "cond; take the call out of it.",
        source_info_util.summarize(equation.source_info),
    )
