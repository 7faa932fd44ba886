"""From the call of a host operator to an equation, and from a function to a jaxpr.

``stage_call`` answers the calls of host operators while JAX traces. ``stage_function`` runs a
user's function once with abstract values and returns what it computes as a flat jaxpr, with what
is needed to call it: which leaves of the arguments are operands and which leaves of the
result are constants.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import jax
import jax.extend.core as jex_core
import jax.numpy as jnp
import numpy as np
from jax.extend import source_info_util

from ember_xcs._core import calls
from ember_xcs._core.arguments import bind_arguments
from ember_xcs._core.operator import HostOperator, Operator
from ember_xcs._core.outputs import HOST
from ember_xcs._trace.dict_order import keeping_order
from ember_xcs._trace.host_values import (
    HOST_DTYPE,
    MARK,
    HostBatch,
    HostValue,
    is_host_dtype,
    wrap,
)
from ember_xcs._trace.primitive import CallSite, bind_call, calling, operator_call_p
from ember_xcs._trace.rebuild import rebuild_by_parameter
from ember_xcs._trace.user_line import user_line
from ember_xcs.errors import TracingError

__all__ = [
    "StagedFunction",
    "check_handles",
    "check_known",
    "contains_host_calls",
    "is_numeric",
    "limiting_calls",
    "noting_host_calls",
    "placing_results",
    "stage_call",
    "stage_function",
]


_seen: ContextVar[list[str] | None] = ContextVar("ember_xcs_staged_calls", default=None)


@contextlib.contextmanager
def noting_host_calls() -> Iterator[list[str]]:
    """Gives a list to which the names of host operators are added as they are staged."""
    seen: list[str] = []
    token = _seen.set(seen)
    try:
        yield seen
    finally:
        _seen.reset(token)


_place: ContextVar[Callable[[Any], Any] | None] = ContextVar("ember_xcs_place", default=None)


@contextlib.contextmanager
def placing_results(place: Callable[[Any], Any]) -> Iterator[None]:
    """Has ``place`` say where the arrays are to lie that host calls give, as they are staged."""
    token = _place.set(place)
    try:
        yield
    finally:
        _place.reset(token)


_most_calls: ContextVar[int | None] = ContextVar("ember_xcs_most_calls", default=None)


@contextlib.contextmanager
def limiting_calls(count: int | None) -> Iterator[None]:
    """Has no more than ``count`` calls of a batched host call be in flight; None sets no limit."""
    token = _most_calls.set(_most_calls.get() if count is None else count)
    try:
        yield
    finally:
        _most_calls.reset(token)


def _placed(result: Any) -> Any:
    place = _place.get()
    return result if place is None or is_host_dtype(result.dtype) else place(result)


def is_numeric(leaf: Any) -> bool:
    """Whether a leaf is something that JAX computes with."""
    if isinstance(leaf, np.ndarray | np.generic):
        return jnp.issubdtype(leaf.dtype, jnp.number) or leaf.dtype == np.bool_
    return isinstance(leaf, jax.Array | bool | int | float | complex)


def stage_call(operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Returns the abstract results of a host call, after making an equation of it."""
    assert isinstance(operator, HostOperator)
    seen = _seen.get()
    if seen is not None:
        seen.append(operator.name)
    bound = bind_arguments(operator, args, kwargs)
    site, operands = call_site(operator, dict(bound.arguments), bound.signature)
    vjp = operator.policy.vjp
    bind = bind_call if vjp is None else _with_vjp(bind_call, vjp)
    with calling():
        results = bind(site, operands)
    return operator.output_type.structure.unflatten([wrap(_placed(r)) for r in results])


def call_site(
    operator: HostOperator, arguments: dict[str, Any], parameters: inspect.Signature
) -> tuple[CallSite, list[Any]]:
    """Returns the description of a call, and its operands."""
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(operator))
    ordered = {name: keeping_order(value) for name, value in arguments.items()}
    tree = (operator if traced else None, ordered)
    paths, structure = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_operand)
    operands: list[Any] = []
    positions: list[int | None] = []
    constants: list[Any] = []
    labels: list[str] = []
    for path, leaf in paths:
        if isinstance(leaf, HostValue):
            leaf = leaf.array  # noqa: PLW2901
        if not isinstance(leaf, jax.Array):
            _check_no_tracer_text(operator, path, leaf)
            positions.append(None)
            constants.append(leaf.copy() if isinstance(leaf, np.ndarray) else leaf)
            continue
        positions.append(len(operands))
        operands.append(leaf)
        labels.append(_label(path))
    kinds = operator.output_type.leaves
    output_paths, _ = jax.tree_util.tree_flatten_with_path(
        operator.output_type.structure.unflatten(kinds)
    )
    site = CallSite(
        operator,
        structure,
        tuple(positions),
        tuple(constants),
        tuple(labels),
        outputs=tuple(_output_aval(kind) for kind in kinds),
        output_labels=tuple(_output_label(path) for path, _ in output_paths),
        line=user_line(),
        parameters=parameters,
        traced_operator=traced,
        host_batches=tuple(is_host_dtype(x.dtype) and x.ndim > 0 for x in operands),
        concurrency=_most_calls.get(),
    )
    return site, operands


def _is_operand(value: Any) -> bool:
    return value is None or isinstance(value, HostValue)


def _output_aval(kind: Any) -> jax.core.ShapedArray:
    if kind is HOST:
        return jax.core.ShapedArray((), HOST_DTYPE)
    return jax.core.ShapedArray(kind.struct.shape, kind.struct.dtype)


_TRACER_TEXT = re.compile(rf"{MARK}|\w*Tracer(?:<[^>]*>)?\((?:aval=)?~?[a-z]\w*(?:<[^>]*>)?\[")
"""What JAX's abstract values look like when text is made of them."""


def _check_no_tracer_text(operator: Operator, path: Any, leaf: Any) -> None:
    if isinstance(leaf, str) and _TRACER_TEXT.search(leaf):
        raise TracingError(
            f"argument {_label(path)!r} of operator {operator.name!r} is text made of a value "
            "that is not known while staging (it would read 'JitTracer(...)'). Build the text with "
            "xcs.Template or in a @host function.",
            user_line(),
        )


def check_known(leaf: Any, what: str) -> None:
    """Checks that text is not made of values that are not known while staging.

    Raises:
        TracingError: It is; ``what`` says where.
    """
    if isinstance(leaf, str) and _TRACER_TEXT.search(leaf):
        raise TracingError(
            f"{what} has text made of a value that is not known while staging (it would read "
            "'JitTracer(...)'). Build the text with xcs.Template or in a @host function.",
            user_line(),
        )


def _label(path: tuple[Any, ...]) -> str:
    """The path of a leaf of ``(operator, arguments)``: ``query``, ``drafts[0]``."""
    if path[0].idx == 0:
        return "self" + jax.tree_util.keystr(path[1:])
    name = str(path[1].key)
    return name + jax.tree_util.keystr(path[2:])


def _output_label(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".") or "output"


def _with_vjp(bind: Callable[..., Any], vjp: Callable[..., Any]) -> Callable[..., Any]:
    """Puts the cotangents that an operator declares around its call."""

    def bind_with_vjp(site: CallSite, operands: Sequence[Any]) -> list[Any]:
        @jax.custom_vjp
        def call(*operands: Any) -> list[Any]:
            return list(bind(site, operands))

        def forward(*operands: Any) -> tuple[list[Any], Any]:
            results = list(bind(site, operands))
            return results, (operands, results)

        def backward(residuals: Any, cotangents: list[Any]) -> tuple[Any, ...]:
            operands, results = residuals
            return _cotangents(site, vjp, operands, results, cotangents)

        call.defvjp(forward, backward)
        return list(call(*operands))

    return bind_with_vjp


def _cotangents(
    site: CallSite, vjp: Callable[..., Any], operands: Any, results: Any, cotangents: Any
) -> tuple[Any, ...]:
    """Returns the cotangent of each operand, from those the operator gives by parameter."""
    rebuild: Callable[..., Any] = site.operator.output_type.structure.unflatten
    _, arguments = rebuild_by_parameter(site, [wrap(x) for x in operands])
    given = vjp(arguments, rebuild([wrap(r) for r in results]), rebuild(list(cotangents)))
    if not isinstance(given, Mapping) or given.keys() - arguments.keys():
        raise TracingError(
            f"the vjp of operator {site.operator.name!r} returns a dict of cotangents by "
            f"parameter ({', '.join(arguments)}), and it returned {given!r}.",
            site.line,
        )
    by_label: dict[str, Any] = {}
    for name, value in given.items():
        for path, leaf in jax.tree_util.tree_flatten_with_path(keeping_order(value))[0]:
            by_label[name + jax.tree_util.keystr(path)] = leaf
    unknown = by_label.keys() - set(_argument_labels(arguments))
    if unknown:
        raise TracingError(
            f"the vjp of operator {site.operator.name!r} returned a cotangent for "
            f"{min(unknown)!r}, which is not one of its arguments "
            f"({', '.join(_argument_labels(arguments))}). Return trees like the arguments.",
            site.line,
        )
    return tuple(
        _cotangent(site, label, by_label.get(label), operand)
        for label, operand in zip(site.labels, operands, strict=True)
    )


def _argument_labels(arguments: Mapping[str, Any]) -> list[str]:
    ordered = {name: keeping_order(value) for name, value in arguments.items()}
    paths, _ = jax.tree_util.tree_flatten_with_path(ordered, is_leaf=_is_operand)
    return [str(path[0].key) + jax.tree_util.keystr(path[1:]) for path, _ in paths]


def _cotangent(site: CallSite, label: str, value: Any, operand: Any) -> Any:
    """Returns one cotangent as JAX wants it; None where it is zero."""
    if value is None:
        return None
    tangent = jax.typeof(operand).to_tangent_aval()
    if tangent.dtype == jax.dtypes.float0:  # integers and host values have no gradient
        return None
    shape = jnp.shape(value)
    if shape != tangent.shape or jnp.result_type(value, tangent.dtype) != tangent.dtype:
        raise TracingError(
            f"the vjp of operator {site.operator.name!r} returned "
            f"{jnp.result_type(value)}{list(shape)} for "
            f"{label!r}, whose cotangent is {tangent.dtype}{list(tangent.shape)}. Return that.",
            site.line,
        )
    return jnp.asarray(value, tangent.dtype)


@dataclasses.dataclass(frozen=True)
class StagedFunction:
    """What a function computes, for one signature of its arguments.

    Attributes:
        jaxpr: A closed jaxpr whose inputs are the leaves of the arguments.
        result_structure: The tree of the result.
        result_positions: For each leaf of the result, the output that it is; None for constants.
        result_constants: The leaves of the result that are no outputs.
        input_labels: What each input is called.
    """

    jaxpr: Any
    result_structure: Any
    result_positions: tuple[int | None, ...]
    result_constants: tuple[Any, ...]
    input_labels: tuple[str, ...]

    def result(self, outputs: Sequence[Any]) -> Any:
        """Returns the function's result from the outputs of its graph.

        Arrays are JAX arrays, host values the objects that they are, batches of them nested lists.
        """
        constants = iter(self.result_constants)
        outward = [
            _outward(value, aval) for value, aval in zip(outputs, self.jaxpr.out_avals, strict=True)
        ]
        leaves = [
            next(constants) if position is None else outward[position]
            for position in self.result_positions
        ]
        return self.result_structure.unflatten(leaves)


def _outward(value: Any, aval: Any) -> Any:
    if not is_host_dtype(aval.dtype):
        return jnp.asarray(value)
    return value.tolist() if aval.shape else value


def stage_function(
    function: Callable[..., Any], structure: Any, leaves: Sequence[Any], labels: Sequence[str]
) -> StagedFunction:
    """Returns what ``function`` computes for arguments like these.

    Args:
        function: The user's function.
        structure: The tree of ``(args, kwargs)``.
        leaves: Its leaves: arrays and numbers are staged by shape and dtype, other values as
            host values.
        labels: What each leaf is called.

    Raises:
        TracingError: The function cannot be staged; the message has the user's line.
    """
    found: list[tuple[Any, list[int | None], list[Any]]] = []

    def flat(*tracers: Any) -> list[Any]:
        args, kwargs = structure.unflatten([_argument(t) for t in tracers])
        result = keeping_order(function(*args, **kwargs))
        result_leaves, result_structure = jax.tree.flatten(result, is_leaf=_is_host_value)
        outputs: list[Any] = []
        positions: list[int | None] = []
        constants: list[Any] = []
        for leaf in result_leaves:
            if isinstance(leaf, HostValue | jax.Array | np.ndarray):
                positions.append(len(outputs))
                outputs.append(leaf.array if isinstance(leaf, HostValue) else leaf)
            else:
                check_known(leaf, "the result")
                positions.append(None)
                constants.append(leaf)
        check_known(str(result_structure), "the result")
        found.append((result_structure, positions, constants))
        return outputs

    with calls.recording(None):
        jaxpr = jax.make_jaxpr(flat)(*map(_abstract_leaf, leaves))
    check_handles(jaxpr)
    result_structure, positions, constants = found[-1]
    return StagedFunction(
        jaxpr, result_structure, tuple(positions), tuple(constants), tuple(labels)
    )


def _is_host_value(value: Any) -> bool:
    return isinstance(value, HostValue)


def _argument(tracer: Any) -> Any:
    return HostValue(tracer) if is_host_dtype(tracer.dtype) else tracer


def _abstract_leaf(leaf: Any) -> Any:
    if is_numeric(leaf):
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape if isinstance(leaf, HostBatch) else (), HOST_DTYPE)


def contains_host_calls(jaxpr: Any) -> bool:
    """Whether a jaxpr, or one inside it, calls a host operator."""
    pending = [getattr(jaxpr, "jaxpr", jaxpr)]
    while pending:
        for equation in pending.pop().eqns:
            if equation.primitive is operator_call_p:
                return True
            pending.extend(jex_core.jaxprs_in_params(equation.params))
    return False


_ON_KEYS = frozenset({"sort", "random_bits", "random_fold_in", "random_split"})
"""What JAX makes of random keys and gives something of the same type."""


def check_handles(jaxpr: Any) -> None:
    """Checks that nothing is computed on handles of host values: they are moved about, no more.

    Raises:
        TracingError: An equation compares them, sorts them, or takes them for random keys.
    """
    pending = [getattr(jaxpr, "jaxpr", jaxpr)]
    while pending:
        for equation in pending.pop().eqns:
            inner = list(jex_core.jaxprs_in_params(equation.params))
            pending.extend(getattr(j, "jaxpr", j) for j in inner)
            if not inner and equation.primitive is not operator_call_p and _computes(equation):
                raise TracingError(
                    f"`{equation.primitive.name}` was asked of host values, which are not known "
                    "while a function is being staged. They can be indexed, stacked and chosen "
                    "among; what needs the values themselves is for a @host function.",
                    source_info_util.summarize(equation.source_info),
                )


def _computes(equation: Any) -> bool:
    if not any(_is_host(v) for v in equation.invars):
        return False
    return equation.primitive.name in _ON_KEYS or not any(map(_is_host, equation.outvars))


def _is_host(variable: Any) -> bool:
    return is_host_dtype(getattr(variable.aval, "dtype", None))


calls.register_stager(stage_call)
