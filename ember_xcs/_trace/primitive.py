"""``operator_call``: a call of a host operator as a JAX primitive.

Its rules, one for each transformation:

============== ==================================================================================
abstract       what the operator declares, with the batch axes in front
batching       one more batch axis; an operand that is not batched is not fanned out
jvp            a zero tangent (a declared ``vjp`` is put around the call when it is staged)
checkpoint     its results are kept for the backward pass: a call is not made again for it
dead code      stays: whether an unused call is made is not for JAX to say
lowering       an error: inside a plain ``jax.jit`` there is nobody to run host code
============== ==================================================================================
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn

import jax
import jax.extend.core as jex_core
import jax.numpy as jnp
from jax.interpreters import ad, batching, mlir, partial_eval

from ember_xcs._trace.host_values import host_aval, is_host_dtype
from ember_xcs.errors import TracingError

if TYPE_CHECKING:
    from ember_xcs._core.operator import HostOperator

__all__ = ["CallSite", "bind_call", "calling", "operator_call_p"]


_NO_PARAMETERS = inspect.Signature()
_BY_POSITION = {
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
}


@dataclasses.dataclass(frozen=True, eq=False)
class CallSite:
    """One call of a host operator in the code of a user, as staging saw it.

    Attributes:
        operator: What is called; its arrays are among the operands where they are traced.
        structure: The tree of ``(operator or None, arguments by parameter)``.
        operand_positions: For each leaf of the tree, the operand that it is; None for constants.
        constants: The leaves that are no operands, by position.
        labels: What each operand is called: the path of its leaf.
        outputs: The abstract values of the results, without batch axes.
        output_labels: What each result is called.
        line: The user's line.
        parameters: The signature of the operator's ``forward``.
        raw: Whether the operator takes and returns its operands as they are: control flow.
        traced_operator: Whether the operator's own arrays are among the operands.
        host_batches: For each operand, whether it is a batch of host values, which an operator
            receives as a list.
        concurrency: The most calls at once, where it is batched; None for no limit of its own.
    """

    operator: HostOperator
    structure: Any
    operand_positions: tuple[int | None, ...]
    constants: tuple[Any, ...]
    labels: tuple[str, ...]
    outputs: tuple[Any, ...]
    output_labels: tuple[str, ...]
    line: str | None = None
    parameters: inspect.Signature = _NO_PARAMETERS
    raw: bool = False
    traced_operator: bool = False
    host_batches: tuple[bool, ...] = ()
    concurrency: int | None = None

    @functools.cached_property
    def in_order(self) -> tuple[int, ...] | None:
        """The operands that are the arguments by position; None where there is more to it."""
        if self.raw or self.traced_operator:
            return None
        _, arguments = self.structure.unflatten(self.operand_positions)
        names = list(self.parameters.parameters)[: len(arguments)]
        kinds = {self.parameters.parameters[name].kind for name in names}
        positions = [arguments.get(name) for name in names]
        is_plain = kinds <= _BY_POSITION and all(type(k) is int for k in positions)
        return tuple(positions) if is_plain else None

    @functools.cached_property
    def operator_operands(self) -> tuple[int, ...]:
        """The operands that are arrays of the operator itself."""
        if not self.traced_operator:
            return ()
        operator, _ = self.structure.unflatten(self.operand_positions)
        return tuple(jax.tree.leaves(operator))

    def __repr__(self) -> str:
        return self.operator.name


operator_call_p = jex_core.Primitive("operator_call")
operator_call_p.multiple_results = True

_calling: ContextVar[bool] = ContextVar("ember_xcs_calling", default=False)


@contextlib.contextmanager
def calling() -> Iterator[None]:
    """Marks the time in which the user's code makes a call.

    Axes that batching adds then are of a ``vmap`` right around the call. Those that it adds later
    are of a ``vmap`` around something that holds the call: a loop, or a nested ``jax.jit``.
    """
    token = _calling.set(True)
    try:
        yield
    finally:
        _calling.reset(token)


def bind_call(site: CallSite, operands: Sequence[Any]) -> list[Any]:
    """Makes an equation of a call, without batch axes, and returns its results."""
    unmapped: tuple[tuple[bool, ...], ...] = ((),) * len(operands)
    return operator_call_p.bind(*operands, site=site, batch=(), mapped=unmapped, inner=0)  # type: ignore[no-any-return]


def _abstract(
    *_operands: Any, site: CallSite, batch: tuple[int, ...], **_params: Any
) -> list[jax.core.ShapedArray]:
    return [_batched_aval(aval, batch) for aval in site.outputs]


def _batched_aval(aval: Any, batch: tuple[int, ...]) -> jax.core.ShapedArray:
    shape = (*batch, *aval.shape)
    if is_host_dtype(aval.dtype):
        return host_aval(shape)
    return jax.core.ShapedArray(shape, aval.dtype)


def _run_without_graph(*_operands: Any, site: CallSite, **_params: Any) -> NoReturn:
    raise TracingError(
        f"host operator {site.operator.name!r} was called under a JAX transformation "
        "(jax.vmap, jax.grad, ...) that nothing stages, so nobody can run it. Put xcs.jit around "
        "the transformed function, or use xcs.vmap.",
        site.line,
    )


def _batch(
    operands: Sequence[Any],
    dims: Sequence[int | None],
    *,
    site: CallSite,
    batch: tuple[int, ...],
    mapped: tuple[tuple[bool, ...], ...],
    inner: int,
) -> tuple[list[Any], list[int]]:
    size = next(x.shape[d] for x, d in zip(operands, dims, strict=True) if d is not None)
    moved = [x if d is None else jnp.moveaxis(x, d, 0) for x, d in zip(operands, dims, strict=True)]
    levels = tuple((d is not None, *old) for d, old in zip(dims, mapped, strict=True))
    results = operator_call_p.bind(
        *moved, site=site, batch=(size, *batch), mapped=levels, inner=inner + _calling.get()
    )
    return results, [0] * len(results)


def _jvp(
    primals: Sequence[Any], tangents: Sequence[Any], *, site: CallSite, **params: Any
) -> tuple[list[Any], list[Any]]:
    refuse = getattr(site.operator, "refuse_gradient", None)
    if refuse is not None:
        _refuse_if_differentiated(tangents, refuse, site)
    results = operator_call_p.bind(*primals, site=site, **params)
    zeros = [ad.Zero(jax.typeof(r).to_tangent_aval()) for r in results]
    return results, zeros


def _refuse_if_differentiated(tangents: Sequence[Any], message: str, site: CallSite) -> None:
    if any(type(t) is not ad.Zero for t in tangents):
        raise TracingError(message, site.line)


def _keep_for_backward_pass(
    _saveable: Any, unknown: Sequence[bool], is_instantiated: Sequence[bool], equation: Any
) -> tuple[Any, Any, list[bool], list[bool], list[Any]]:
    """Splits a ``checkpoint``: the call is in the forward pass alone, whatever the policy saves."""
    count = len(equation.outvars)
    if not any(unknown):
        return equation, None, [False] * count, [False] * count, []
    needed = [
        atom
        for atom, there in zip(equation.invars, is_instantiated, strict=True)
        if not there and not isinstance(atom, jex_core.Literal)
    ]
    return None, equation, [True] * count, [True] * count, needed


def _keep_though_unused(*arguments: Any) -> tuple[list[bool], Any]:
    equation = arguments[-1]  # what comes before it differs between versions of JAX
    return [True] * len(equation.invars), equation


def _lower(_context: Any, *_operands: Any, site: CallSite, **_params: Any) -> NoReturn:
    raise TracingError(
        f"host operator {site.operator.name!r} was called inside jax.jit (or in an operator "
        "declared pure), where only JAX code can run. Use xcs.jit in place of jax.jit; an "
        "operator that calls host operators holds them in its fields, or is itself @host.",
        site.line,
    )


operator_call_p.def_abstract_eval(_abstract)
operator_call_p.def_impl(_run_without_graph)
batching.primitive_batchers[operator_call_p] = _batch
ad.primitive_jvps[operator_call_p] = _jvp
partial_eval.partial_eval_jaxpr_custom_rules[operator_call_p] = _keep_for_backward_pass
partial_eval.dce_rules[operator_call_p] = _keep_though_unused
mlir.register_lowering(operator_call_p, _lower)
