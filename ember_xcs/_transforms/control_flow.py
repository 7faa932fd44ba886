"""Loops and branches with the signatures of ``jax.lax``, for bodies that call host operators.

A purely numeric body goes to ``jax.lax``. A body with host calls is interpreted on the host: such
a loop is an agent loop. Under ``vmap`` a lane that is done, or on another branch, pays for no
call. ``scan`` and ``fori_loop`` with a known number of steps are differentiated through their
numeric parts.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, overload

import jax

from ember_xcs._core import calls
from ember_xcs._core.jax_state import under_jax_trace
from ember_xcs._jit.jit import jit
from ember_xcs._trace.control_flow import lifted, lifting, staged_control
from ember_xcs._trace.host_values import HostBatch, HostValue
from ember_xcs._trace.staging import contains_host_calls, is_numeric
from ember_xcs._trace.user_line import user_line
from ember_xcs._transforms.batches import as_array, is_batch
from ember_xcs._transforms.mapping import staged_value
from ember_xcs.errors import TracingError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["cond", "fori_loop", "scan", "switch", "while_loop"]


def while_loop(
    cond_fun: Callable[[Any], Any], body_fun: Callable[[Any], Any], init_val: Any
) -> Any:
    """Repeats ``body_fun`` while ``cond_fun`` holds, as ``jax.lax.while_loop`` does.

    Args:
        cond_fun: From the carry to a bool; it may call host operators that return ``bool``.
        body_fun: From the carry to the next carry, a tree of the same structure.
        init_val: The first carry: arrays, numbers and host values.

    Example:
        >>> from ember_xcs import host, jit, while_loop
        >>> @host
        ... def improve(text: str) -> str:
        ...     return text + "!"
        >>> @host
        ... def is_poor(text: str) -> bool:
        ...     return len(text) < 5
        >>> jit.trace(lambda text: while_loop(is_poor, improve, text))("go")
        'go!!!'
    """
    _check_functions(cond_fun=cond_fun, body_fun=body_fun)
    return _control(
        lambda carry: jax.lax.while_loop(cond_fun, lifting(body_fun), carry),
        lambda carry: jax.lax.while_loop(cond_fun, body_fun, carry),
        init_val,
    )


def fori_loop(lower: Any, upper: Any, body_fun: Callable[[Any, Any], Any], init_val: Any) -> Any:
    """Repeats ``body_fun(k, carry)`` for ``k`` from ``lower`` to ``upper``, as ``jax.lax`` does.

    Args:
        lower: The first value of the counter.
        upper: The value at which it stops.
        body_fun: From the counter and the carry to the next carry.
        init_val: The first carry.

    Example:
        >>> from ember_xcs import fori_loop, host, jit
        >>> @host
        ... def extend(text: str, k: int) -> str:
        ...     return f"{text}{k}"
        >>> jit.trace(lambda text: fori_loop(0, 3, lambda k, t: extend(t, k), text))("n")
        'n012'
    """
    _check_functions(body_fun=body_fun)
    return _control(
        lambda carry: jax.lax.fori_loop(lower, upper, lifting(body_fun), carry),
        lambda carry: jax.lax.fori_loop(lower, upper, body_fun, carry),
        init_val,
        inline=isinstance(lower, int) and isinstance(upper, int),
    )


def cond(
    pred: Any, true_fun: Callable[..., Any], false_fun: Callable[..., Any], *operands: Any
) -> Any:
    """Returns what one of two functions gives; the other is not run, under ``vmap`` neither.

    Args:
        pred: A bool or number: an array, also the result of a host operator that returns ``bool``.
        true_fun: What is called with the operands where ``pred`` holds.
        false_fun: What is called where it does not; its results have the same structure.
        operands: Trees of arrays, numbers and host values.

    Example:
        >>> from ember_xcs import cond, host, jit
        >>> @host
        ... def shout(text: str) -> str:
        ...     return text.upper()
        >>> jit.trace(lambda loud, text: cond(loud, shout, lambda t: t, text))(True, "hello")
        'HELLO'
    """
    _check_functions(true_fun=true_fun, false_fun=false_fun)
    _check_number(pred, "pred", "bool")
    return _control(
        lambda pred, *ops: jax.lax.cond(pred, lifting(true_fun), lifting(false_fun), *ops),
        lambda pred, *ops: jax.lax.cond(pred, true_fun, false_fun, *ops),
        pred,
        *operands,
    )


def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """Returns what one of several functions gives; the others are not run, under ``vmap`` neither.

    Args:
        index: The number of the branch, an integer; brought into range as ``jax.lax.switch`` does.
        branches: The functions; their results have the same structure.
        operands: Trees of arrays, numbers and host values.

    Example:
        >>> from ember_xcs import host, jit, switch
        >>> @host
        ... def shout(text: str) -> str:
        ...     return text.upper()
        >>> jit.trace(lambda k, t: switch(k, [lambda t: t, shout], t))(1, "hello")
        'HELLO'
    """
    branches = list(branches)
    _check_functions(**{f"branches[{k}]": branch for k, branch in enumerate(branches)})
    _check_number(index, "index", "int")
    return _control(
        lambda index, *ops: jax.lax.switch(index, [lifting(b) for b in branches], *ops),
        lambda index, *ops: jax.lax.switch(index, branches, *ops),
        index,
        *operands,
    )


@overload
def scan(
    f: Callable[..., Any],
    init: Any,
    xs: Any = ...,
    length: int | None = ...,
    *,
    reverse: bool = ...,
    unroll: int | bool = ...,
) -> Any: ...
@overload
def scan(
    f: Callable[..., Any],
    *,
    length: int | None = ...,
    reverse: bool = ...,
    unroll: int | bool = ...,
) -> Callable[..., Any]: ...
def scan(
    f: Callable[..., Any],
    init: Any = None,
    xs: Any = None,
    length: int | None = None,
    *,
    reverse: bool = False,
    unroll: int | bool = 1,
) -> Any:
    """Carries a state along an axis, as ``jax.lax.scan`` does; ``scan(body)(init, xs)`` works, too.

    Args:
        f: From the carry and a slice of ``xs`` to the next carry and a slice of results.
        init: The first carry.
        xs: A tree of arrays, or of lists of host values, scanned along their first axis.
        length: How many steps, where there is no ``xs``.
        reverse: Whether the last slice comes first.
        unroll: How many numeric steps are compiled into one.

    Returns:
        The last carry, and the results stacked.

    Example:
        >>> import jax.numpy as jnp
        >>> from ember_xcs import host, jit, scan
        >>> @host
        ... def extend(text: str, k: int) -> str:
        ...     return f"{text}{k}"
        >>> def body(text, k):
        ...     text = extend(text, k)
        ...     return text, text
        >>> jit.trace(lambda text: scan(body, text, jnp.arange(3)))("n")
        ('n012', ['n0', 'n01', 'n012'])
    """
    _check_functions(f=f)
    if init is None and xs is None and length is None:
        return functools.partial(scan, f, length=length, reverse=reverse, unroll=unroll)
    settings: dict[str, Any] = {"length": length, "reverse": reverse, "unroll": unroll}
    return _control(
        lambda init, xs: jax.lax.scan(_lifting_pair(f), init, xs, **settings),
        lambda init, xs: jax.lax.scan(f, init, xs, **settings),
        init,
        jax.tree.map(_as_batch, xs, is_leaf=is_batch),
        inline=True,
    )


def _as_batch(xs: Any) -> Any:
    """What is scanned, a list of numbers or host values as one array of them."""
    batch = as_array(xs) if type(xs) is list else xs
    return staged_value(batch) if isinstance(batch, HostBatch) and under_jax_trace() else batch


def _lifting_pair(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda carry, x: lifted(tuple(function(carry, x)))


def _control(
    staged: Callable[..., Any], numeric: Callable[..., Any], *operands: Any, inline: bool = False
) -> Any:
    """Stages a loop or branch, or compiles and runs it where nothing is being staged.

    Args:
        staged: Calls ``jax.lax`` with bodies whose results are lifted.
        numeric: Calls ``jax.lax`` with the bodies as they are.
        operands: What they are called with.
        inline: Whether it may stay what JAX makes of it: it wastes no call under ``vmap``.
    """
    if not under_jax_trace() and calls.current_recorder() is None:
        return _run(staged, numeric, operands)
    if inline:
        return staged(*lifted(operands))
    return staged_control(staged, *operands)


def _run(staged: Callable[..., Any], numeric: Callable[..., Any], operands: Any) -> Any:
    if all(map(is_numeric, jax.tree.leaves(operands))):
        traced = jax.make_jaxpr(staged)(*operands)
        if not contains_host_calls(traced):
            return numeric(*operands)
    return jit.trace(lambda *ops: staged_control(staged, *ops))(*operands)


def _check_functions(**functions: Any) -> None:
    for name, function in functions.items():
        if not callable(function):
            raise TypeError(f"{name} is to be a function, and is {function!r}.")


def _check_number(value: Any, name: str, kind: str) -> None:
    if isinstance(value, HostValue):
        raise TracingError(
            f"{name} is a host value, whose truth is not known to be a number. Let the operator "
            f"that makes it declare what it returns: `-> {kind}`.",
            user_line(),
        )
    if not is_numeric(value):
        raise TypeError(f"{name} is to be a number or {kind}, and is {value!r}.")
