"""Functions as operators: ``@pure``, ``@host`` and what turns a callable into an operator."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, overload

from ember_xcs._core.arguments import has_model_fields
from ember_xcs._core.calls import is_coroutine_callable
from ember_xcs._core.operator import HostOperator, Operator
from ember_xcs._core.operator_class import derived, fields_of, instance_only, kept, make_instance
from ember_xcs._core.outputs import OutputType, output_type
from ember_xcs._core.policy import HostPolicy
from ember_xcs._core.signature import Signature, callable_signature

if TYPE_CHECKING:
    from ember_xcs._core.retry import Retry

__all__ = ["HostFunction", "PureFunction", "as_operator", "from_callable", "host", "pure"]


_THREAD, _ASYNC = HostPolicy(executor="thread"), HostPolicy(executor="async")


class _Function(Operator):
    """What a decorated function and an operator have in common.

    Attributes:
        function: The function.
        owner: What the function is a method of: nothing, or the instance, alone in a tuple.
    """

    function: Callable[..., Any]
    owner: tuple[Any, ...] = ()

    def forward(self, /, *args: Any, **kwargs: Any) -> Any:
        """Returns what the function returns."""
        return self.function(*self.owner, *args, **kwargs)

    def __get__(self, instance: Any, owner: type | None = None) -> Self:
        """Returns the operator bound to ``instance``, where it is a method of a class."""
        if instance is None:
            return self
        method: Self = make_instance(type(self), {**fields_of(self), "owner": (instance,)})
        method.__dict__["_xcs_unbound"] = self
        return method

    @derived
    def name(self) -> str:
        """The name of the function."""
        return _function_name(self.function)

    @derived
    def signature(self) -> Signature:
        """The signature of the function."""
        return kept(self, "_xcs_signature", lambda: _signature(self))

    @derived
    def call_parameters(self) -> inspect.Signature:
        """The parameters of the function."""
        return kept(self, "_xcs_parameters", lambda: _parameters(self))

    @derived
    def validates_inputs(self) -> bool:
        """Whether a parameter is annotated with a pydantic model."""
        return kept(self, "_xcs_validates", lambda: has_model_fields(self.signature))

    @derived
    def output_type(self) -> OutputType:
        """What ``out=`` or the function's return annotation declares."""
        return kept(self, "_xcs_output_type", lambda: _output_type(self))

    @instance_only
    def __wrapped__(self) -> Callable[..., Any]:
        """The function itself."""
        return self.function

    @derived
    def __name__(self) -> str:
        """The name of the operator."""
        return self.name

    def __reduce__(self) -> Any:
        return _reduced(self)


class PureFunction(_Function):
    """A function that JAX can trace, as an operator; what ``@pure`` makes.

    In the body of a class it is a method: ``instance.score(x)`` passes the instance first.

    Example:
        >>> PureFunction(lambda x: x + 1)(2)
        3
    """

    def __init__(self, function: Callable[..., Any], owner: tuple[Any, ...] = ()) -> None:
        self.__dict__.update(function=function, owner=owner)

    def __repr__(self) -> str:
        return f"pure({self.name})"


class HostFunction(_Function, HostOperator):
    """A function of host work as an operator; what ``@host`` makes.

    In the body of a class it is a method: ``instance.search(q)`` passes the instance first.

    Attributes:
        settings: How its calls are to be run.
        declared_out: What it returns where the annotation does not say.
        label: What it is called in graphs and messages; None for the function's name.

    Example:
        >>> HostFunction(str.upper)("hello")
        'HELLO'
    """

    settings: HostPolicy = _THREAD
    declared_out: Any = None
    label: str | None = None

    def __init__(
        self,
        function: Callable[..., Any],
        settings: HostPolicy | None = None,
        out: Any = None,
        label: str | None = None,
    ) -> None:
        settings = settings or (_ASYNC if is_coroutine_callable(function) else _THREAD)
        self.__dict__.update(
            function=function, owner=(), settings=settings, declared_out=out, label=label
        )

    @derived
    def is_async(self) -> bool:
        """Whether the function is a coroutine function."""
        return is_coroutine_callable(self.function)

    @derived
    def policy(self) -> HostPolicy:
        """What the decorator was told."""
        return self.settings

    @derived
    def name(self) -> str:
        """The name that was given, or that of the function."""
        return self.label or _function_name(self.function)

    def __repr__(self) -> str:
        return f"host({self.name})"


def _function_name(function: Callable[..., Any]) -> str:
    if isinstance(function, functools.partial):
        return _function_name(function.func)
    name = getattr(function, "__name__", None) or type(function).__name__
    return "function" if name == "<lambda>" else str(name)


def _signature(operator: _Function) -> Signature:
    unbound: _Function | None = operator.__dict__.get("_xcs_unbound")
    if unbound is not None:
        whole = unbound.signature
        return dataclasses.replace(whole, fields=whole.fields[1:])
    return callable_signature(operator.function, skip_first=bool(operator.owner))


def _parameters(operator: _Function) -> inspect.Signature:
    try:
        signature = inspect.signature(operator.function)
    except (TypeError, ValueError):  # some builtins have none
        return _ANYTHING
    return signature.replace(parameters=list(signature.parameters.values())[len(operator.owner) :])


_ANYTHING = inspect.signature(lambda *args, **kwargs: None)


def _output_type(operator: _Function) -> OutputType:
    out = getattr(operator, "declared_out", None)
    return output_type(operator.signature.returns, out=out)


def _reduced(operator: _Function) -> Any:
    """Pickles a decorated function by its import path, as plain functions are."""
    function = operator.function
    named = _at_import_path(function)
    if named is operator:
        return _named, (function.__module__, function.__qualname__)
    state = operator.__getstate__()
    if isinstance(named, _Function) and named.function is function:
        state = {**state, "function": _Undecorated(function.__module__, function.__qualname__)}
    return _rebuilt, (type(operator), state)


def _at_import_path(function: Any) -> Any:
    """What the module of a function has under the function's name: often an operator."""
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    found: Any = module
    for part in getattr(function, "__qualname__", "").split("."):
        found = inspect.getattr_static(found, part, None)
    return found


def _named(module: str, qualname: str) -> Any:
    return functools.reduce(getattr, qualname.split("."), importlib.import_module(module))


class _Undecorated(NamedTuple):
    """The function under a decorator, which pickle cannot find by its name."""

    module: str
    qualname: str


def _rebuilt(cls: type[Any], state: Mapping[str, Any]) -> Any:
    function = state["function"]
    if isinstance(function, _Undecorated):
        function = _named(*function).function
    return make_instance(cls, {**state, "function": function})


def _check_decorated(function: Any, decorator: str) -> None:
    if isinstance(function, Operator):
        raise TypeError(f"{function!r} is an operator already; {decorator} takes a plain function.")
    if isinstance(function, staticmethod | classmethod):
        below = type(function).__name__
        raise TypeError(
            f"{decorator} stands above @{below}; put {decorator} below it, next to the function."
        )
    if isinstance(function, type):
        raise TypeError(
            f"{decorator} is for functions, and {function.__name__} is a class; make it a subclass "
            f"of {'HostOperator' if decorator == '@host' else 'Operator'}."
        )
    if not callable(function):
        raise TypeError(f"{decorator} takes a function, and was given {function!r}.")


def pure(function: Callable[..., Any]) -> PureFunction:
    """Declares a function pure: JAX can trace it, and it has no side effects.

    Args:
        function: Takes and returns arrays, numbers and trees of them.

    Returns:
        The function as an operator; called outside any graph, it simply runs.

    Example:
        >>> import jax.numpy as jnp
        >>> @pure
        ... def score(query, docs):
        ...     return docs @ query
        >>> print(score(jnp.ones(2), jnp.eye(2)))
        [1. 1.]
    """
    _check_decorated(function, "@pure")
    if is_coroutine_callable(function):
        raise TypeError(
            f"{_function_name(function)!r} is `async def`, which JAX cannot trace; "
            "declare it @host."
        )
    operator = PureFunction(function)
    operator.__dict__["__doc__"] = function.__doc__
    return operator


@overload
def host(function: Callable[..., Any], /) -> HostFunction: ...
@overload
def host(
    *,
    executor: str | None = None,
    deterministic: bool = False,
    side_effects: bool = False,
    timeout: float | None = None,
    out: Any = None,
    max_batch_size: int | None = None,
    vjp: Callable[..., Any] | None = None,
    name: str | None = None,
    resource: str | None = None,
    retry: Retry | None = None,
) -> Callable[[Callable[..., Any]], HostFunction]: ...
def host(
    function: Callable[..., Any] | None = None,
    /,
    *,
    executor: str | None = None,
    deterministic: bool = False,
    side_effects: bool = False,
    timeout: float | None = None,
    out: Any = None,
    max_batch_size: int | None = None,
    vjp: Callable[..., Any] | None = None,
    name: str | None = None,
    resource: str | None = None,
    retry: Retry | None = None,
) -> HostFunction | Callable[[Callable[..., Any]], HostFunction]:
    """Declares a function host work: run as it is, never traced, never guessed about.

    Args:
        function: A plain or an ``async def`` function.
        executor: Where calls run: ``"thread"`` (default for ``def``), ``"async"`` (default for
            ``async def``), ``"process"`` (CPU-bound Python), ``"inline"`` (cheap, never blocks).
        deterministic: Whether equal inputs give equal results; calls may then be merged.
        side_effects: Whether calls must happen even where the result is unused, in program order.
        timeout: The most that one call may take, in seconds.
        out: What it returns where the annotation does not say: a ``jax.ShapeDtypeStruct``, a
            type, or a tree of these.
        max_batch_size: The most calls that a batch end point takes at once.
        vjp: ``vjp(inputs, output, cotangent)`` gives the cotangents of the inputs, a dict by
            parameter, for ``jax.grad``; without it the gradient through the call is zero.
        name: What it is called in graphs and messages; default the function's name.
        resource: The name of what its calls use, such as a model: see ``xcs.Limit``.
        retry: How failed calls are tried again, an ``xcs.Retry``; None for what the options say.

    Returns:
        The function as an operator; called outside any graph, it simply runs.

    Example:
        >>> @host(deterministic=True)
        ... def shout(text: str) -> str:
        ...     return text.upper()
        >>> shout("hello")
        'HELLO'
    """

    def declare(function: Callable[..., Any]) -> HostFunction:
        _check_decorated(function, "@host")
        is_async = is_coroutine_callable(function)
        if is_async and executor not in (None, "async"):
            raise TypeError(
                f"{_function_name(function)!r} is `async def` and runs on the event loop; "
                f"executor={executor!r} is for plain functions."
            )
        policy = HostPolicy(
            executor=executor or ("async" if is_async else "thread"),
            deterministic=deterministic,
            side_effects=side_effects,
            timeout_seconds=timeout,
            max_batch_size=max_batch_size,
            vjp=vjp,
            resource=resource,
            retry=retry,
        )
        operator = HostFunction(function, policy, out, name)
        operator.__dict__["__doc__"] = function.__doc__
        return operator

    return declare if function is None else declare(function)


def as_operator(value: Any) -> Operator:
    """Returns ``value`` as an operator: an operator as it is, a callable as host work."""
    if isinstance(value, Operator):
        return value
    if isinstance(value, type) or not callable(value):
        raise TypeError(
            f"{value!r} is not an operator: a node is an Operator instance or a function"
            + (", and this is a class; make an instance of it." if isinstance(value, type) else ".")
        )
    return HostFunction(value)


def from_callable(function: Callable[..., Any], kind: Literal["pure", "host"]) -> Operator:
    """Returns a callable as an operator of the kind that you say it is.

    Args:
        function: Any callable, such as a library's function that cannot be decorated.
        kind: ``"pure"`` (JAX can trace it) or ``"host"``.

    Example:
        >>> import math
        >>> from_callable(math.factorial, kind="host")(5)
        120
    """
    if kind not in ("pure", "host"):
        raise ValueError(f"kind={kind!r} is not 'pure' or 'host'.")
    return pure(function) if kind == "pure" else host(function)
