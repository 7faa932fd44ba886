"""``grad`` and ``value_and_grad``: gradients through numeric code, and around host calls."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.extend.core as jex_core

from ember_xcs._core.arguments import summary
from ember_xcs._jit.programs import NumericRunner
from ember_xcs._trace.control_flow import lifted
from ember_xcs._trace.host_values import HostValue
from ember_xcs._trace.primitive import operator_call_p
from ember_xcs._trace.staging import is_numeric, noting_host_calls
from ember_xcs._transforms.mapping import refuse_coroutine
from ember_xcs._transforms.staged import StagedBody
from ember_xcs._transforms.transformed import Transformed, explanation
from ember_xcs.errors import TracingError, TransformError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ember_xcs._jit.selection import JITExplanation

__all__ = ["GradFunction", "grad", "value_and_grad"]


class GradFunction(Transformed):
    """A function differentiated by ``grad`` or ``value_and_grad``."""

    def __init__(
        self,
        transformation: str,
        function: Any,
        argnums: int | Sequence[int],
        has_aux: bool,
        settings: Mapping[str, Any],
    ) -> None:
        super().__init__(transformation, function)
        self._argnums: Any = argnums if isinstance(argnums, int) else tuple(argnums)
        self._has_aux, self._with_value = has_aux, transformation == "value_and_grad"
        self._settings = dict(settings)
        self._is_numeric = self.nature != "host"
        self._direct = self._jax_gradient()
        self._body = StagedBody(self._differentiated, self.name, self.parameters, is_declared=False)

    def _differentiated(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The gradient, as JAX computes it; it may be tracing."""
        reached: list[bool] = []
        result = self._jax_gradient(reached)(*args, **kwargs)
        if not reached:
            self._refuse_cut_gradient(args, kwargs)
        return result

    def _jax_gradient(self, reached: list[bool] | None = None) -> Callable[..., Any]:
        """JAX's function; it adds to ``reached`` where a derivative reaches the result."""
        watched = _watched(self.name, self._function, reached, has_aux=self._has_aux)
        transform = jax.value_and_grad if self._with_value else jax.grad
        return transform(watched, argnums=self._argnums, has_aux=self._has_aux, **self._settings)

    def _refuse_cut_gradient(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raises if it is host calls that no gradient comes through."""
        names = _cutting_calls(self._function, args, kwargs, self._positions)
        if not names:  # the result does not depend on the arguments: JAX's zeros are right
            return
        given = ", ".join(map(self._label, self._positions))
        raise TransformError(
            f"the gradient of {self.name} with respect to {given} is cut by host calls: "
            f"{', '.join(map(repr, dict.fromkeys(names)))}. All that the result depends on goes "
            "through them, and a host call has no derivative. Declare one (vjp= of @xcs.host or of "
            "a HostOperator), or let the result depend on the argument in another way, too."
        )

    def _check_arguments(self, args: tuple[Any, ...]) -> None:
        for k in self._positions:
            leaves = jax.tree.leaves(args[k]) if -len(args) <= k < len(args) else []
            for leaf in leaves:
                if not is_numeric(leaf):
                    raise TransformError(
                        f"{self.name} is with respect to {self._label(k)}, which is "
                        f"{summary(args[k])}: there is a gradient with respect to numbers and "
                        "arrays alone. Say with argnums which arguments these are."
                    )

    @property
    def _positions(self) -> tuple[int, ...]:
        return (self._argnums,) if isinstance(self._argnums, int) else tuple(self._argnums)

    def _label(self, position: int) -> str:
        names = self.positional_names
        fits = -len(names) <= position < len(names)
        return names[position] if fits else f"argument {position}"

    def _inside(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        self._check_arguments(args)
        return self._differentiated(*lifted((args, dict(kwargs))))

    def _outside(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        self._check_arguments(args)
        if self._is_numeric and all(map(is_numeric, jax.tree.leaves((args, kwargs)))):
            with noting_host_calls() as seen:
                try:
                    return self._direct(*args, **kwargs)  # a host call would raise: none cuts it
                except TracingError:
                    if not seen:
                        raise
            self._is_numeric = False
        return self._staged(args, kwargs).run()

    def _staged(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        call = self._body.call(args, dict(kwargs))
        if call.program is None:
            raise TransformError(
                f"{self.name} needs the function staged, so that JAX sees its numeric parts, and "
                f"it cannot be: {call.reason}"
            )
        return call

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what a call returns, without blocking the event loop."""
        return await self._staged(args, kwargs).arun()

    def explain(self, *args: Any, **kwargs: Any) -> JITExplanation:
        """Returns how such a call is run, and why; nothing is run."""
        if isinstance(self._staged(args, kwargs).program, NumericRunner):
            return explanation(self.name, "jax.grad", "it is numeric")
        return explanation(self.name, "trace", "staged: JAX's gradient of the numeric parts")


def _watched(
    name: str, function: Callable[..., Any], reached: list[bool] | None, *, has_aux: bool
) -> Callable[..., Any]:
    """A function that notes, if asked to, whether what it returns has a derivative at all."""

    @functools.wraps(function, updated=())
    def watched(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        refuse_coroutine(result)
        value, aux = result if has_aux else (result, None)
        value = value if reached is None else _noting(name, value, reached)
        return (value, lifted(aux)) if has_aux else value

    return watched


def _noting(name: str, value: Any, reached: list[bool]) -> Any:
    """The value, through a rule that JAX applies only where a tangent comes in."""
    if isinstance(value, HostValue):
        raise TransformError(
            f"{name} needs a number to differentiate, and the function returned a host value. Let "
            "the operator that makes it declare what it returns: `-> float`."
        )
    if not isinstance(value, jax.Array):  # a number of Python has none; JAX checks what else it is
        return value

    @jax.custom_jvp
    def same(x: Any) -> Any:
        return x

    @same.defjvp
    def _rule(primals: Any, tangents: Any) -> Any:
        reached.append(True)
        return primals[0], tangents[0]

    return same(value)


def _cutting_calls(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    positions: Iterable[int],
) -> list[str]:
    """The host calls on the ways from the arguments at these positions to the result."""
    structure: Any
    leaves, structure = jax.tree.flatten((args, dict(kwargs)))
    sources = [
        k
        for k, (path, _) in enumerate(jax.tree_util.tree_flatten_with_path((args, kwargs))[0])
        if path[0].idx == 0 and path[1].idx in {p % len(args) for p in positions}
    ]

    def flat(*leaves: Any) -> Any:
        args, kwargs = structure.unflatten(leaves)
        result = lifted(function(*args, **kwargs))
        return jax.tree.leaves(result)

    jaxpr = jax.make_jaxpr(flat)(*leaves).jaxpr
    after = {jaxpr.invars[k] for k in sources}
    forward = []
    for equation in jaxpr.eqns:
        if any(_is_in(v, after) for v in equation.invars):
            after.update(equation.outvars)
            forward.append(equation)
    before = {v for v in jaxpr.outvars if not isinstance(v, jex_core.Literal)}
    names: list[str] = []
    for equation in reversed(forward):
        if any(v in before for v in equation.outvars):
            before.update(v for v in equation.invars if not isinstance(v, jex_core.Literal))
            names[:0] = _host_calls(equation)
    return names


def _is_in(variable: Any, found: set[Any]) -> bool:
    return not isinstance(variable, jex_core.Literal) and variable in found


def _host_calls(equation: Any) -> list[str]:
    """The names of the host operators without a derivative that an equation calls, or holds."""
    names: list[str] = []
    pending = [equation]
    while pending:
        one = pending.pop(0)
        if one.primitive is operator_call_p and one.params["site"].operator.policy.vjp is None:
            names.append(one.params["site"].operator.name)
        for inner in jex_core.jaxprs_in_params(one.params):
            pending.extend(getattr(inner, "jaxpr", inner).eqns)
    return names


def grad(
    f: Any = None,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
    allow_int: bool = False,
) -> Any:
    """Returns a function that computes the gradient of ``f``, as ``jax.grad`` does.

    Through a host call the gradient is that of its ``vjp``, or zero where it declares none. A
    gradient that is zero because host calls cut it everywhere is an error that names them.

    Args:
        f: A function, operator, graph or transformed function that returns a scalar; without it, a
            decorator is returned.
        argnums: With respect to which arguments, by position.
        has_aux: Whether ``f`` returns a pair: the scalar, and what is returned beside the gradient.
        holomorphic: As in ``jax.grad``.
        allow_int: As in ``jax.grad``.

    Returns:
        A function like ``f`` that returns the gradient.

    Raises:
        TransformError: At a call: the gradient is cut everywhere by host calls, or the function
            cannot be staged.

    Example:
        >>> import jax.numpy as jnp
        >>> from ember_xcs import host
        >>> @host
        ... def rating(x) -> float:
        ...     return 2.0
        >>> print(grad(lambda x: rating(x) * jnp.sum(x * x))(jnp.array([1.0, 3.0])))
        [ 4. 12.]
    """
    settings = {"holomorphic": holomorphic, "allow_int": allow_int}
    if f is None:
        return lambda given: GradFunction("grad", given, argnums, has_aux, settings)
    return GradFunction("grad", f, argnums, has_aux, settings)


def value_and_grad(
    f: Any = None,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
    allow_int: bool = False,
) -> Any:
    """Returns a function that computes ``f`` and its gradient, as ``jax.value_and_grad`` does.

    Args:
        f: As for ``grad``.
        argnums: With respect to which arguments, by position.
        has_aux: Whether ``f`` returns a pair: the scalar, and what is returned beside it.
        holomorphic: As in ``jax.value_and_grad``.
        allow_int: As in ``jax.value_and_grad``.

    Returns:
        A function like ``f`` that returns the value, or the pair, and the gradient.

    Raises:
        TransformError: As for ``grad``.

    Example:
        >>> import jax.numpy as jnp
        >>> value, gradient = value_and_grad(lambda x: jnp.sum(x * x))(jnp.array([1.0, 3.0]))
        >>> print(value, gradient)
        10.0 [2. 6.]
    """
    settings = {"holomorphic": holomorphic, "allow_int": allow_int}
    if f is None:
        return lambda given: GradFunction("value_and_grad", given, argnums, has_aux, settings)
    return GradFunction("value_and_grad", f, argnums, has_aux, settings)
