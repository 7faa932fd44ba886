"""What the transformations return: something that is called like what they were given."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Literal

from ember_xcs._core import calls
from ember_xcs._core.functions import from_callable
from ember_xcs._core.jax_state import under_jax_trace
from ember_xcs._core.operator import HostOperator, Operator
from ember_xcs._enhanced.natures import register_concurrent
from ember_xcs._jit.function import JitFunction
from ember_xcs._jit.graphs import as_callable
from ember_xcs._jit.selection import JITExplanation, Verdict
from ember_xcs._jit.settings import JITMode
from ember_xcs.errors import TracingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Nature", "Transformed", "explanation"]

Nature = Literal["pure", "host", "unknown"]
"""What is known of a function before it is called: an operator says what it is, others do not."""


class Transformed:
    """A transformed function.

    Attributes:
        name: ``vmap(f)``: what it is called in messages and graphs.
        nature: What is known of the function without calling it.
        parameters: The parameters of the function.
        is_host_call: Whether a host operator is all that it is.
    """

    _direct_call: Callable[..., Any] | None = None
    """A compiled function that has taken calls like this one; it refuses what it cannot take."""

    def __init__(self, transformation: str, given: Any) -> None:
        self._function: Callable[..., Any] = _checked(as_callable(given), transformation)
        described = _described(self._function)
        functools.update_wrapper(self, described, updated=())
        self.__wrapped__ = given
        self.name = f"{transformation}({_name(self._function)})"
        self.nature: Nature = _nature(self._function)
        self.is_host_call: bool = isinstance(self._function, HostOperator) or (
            isinstance(self._function, Transformed) and self._function.is_host_call
        )
        self.parameters = _parameters(self._function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what the transformed function returns for these arguments."""
        recorder = calls.current_recorder()
        if recorder is not None:
            return recorder(self._operator, args, kwargs)
        if under_jax_trace():
            return self._inside(args, kwargs)
        direct = self._direct_call
        if direct is not None:
            try:
                return direct(*args, **kwargs)
            except (TypeError, ValueError, TracingError):
                self._direct_call = None  # what is wrong with the call is found below
        return self._outside(args, kwargs)

    @functools.cached_property
    def positional_names(self) -> list[str]:
        """The names of the parameters that can be given by position, in order."""
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        return [name for name, p in self.parameters.items() if p.kind in kinds]

    def _inside(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Returns the result while JAX is tracing: as part of what is being traced."""
        raise NotImplementedError

    def _outside(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Returns the result of a call that nothing is around."""
        raise NotImplementedError

    @functools.cached_property
    def _operator(self) -> Operator:
        """It as one operator, for graphs that are recorded call by call."""

        def transformed(*args: Any, **kwargs: Any) -> Any:
            return self(*args, **kwargs)

        transformed.__name__ = transformed.__qualname__ = self.name
        return from_callable(transformed, "pure" if self.nature == "pure" else "host")

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Binds like a function, so that methods can be transformed."""
        if instance is None or isinstance(self._function, Operator):
            return self
        return functools.partial(self, instance)

    def __repr__(self) -> str:
        return f"xcs.{self.name}"


register_concurrent(Transformed, lambda transformed: transformed.nature)


def _checked(function: Any, transformation: str) -> Any:
    is_class = isinstance(function, type) and issubclass(function, Operator)
    if is_class or not callable(function):
        raise TypeError(
            f"{transformation} takes a function, an operator, a graph or what another "
            f"transformation returned, and was given {function!r}."
            + (" Make an instance of the class." if is_class else "")
        )
    return function


def _described(function: Any) -> Any:
    if isinstance(function, Operator):
        return getattr(function, "function", type(function))
    return function


def _name(function: Any) -> str:
    if isinstance(function, Operator | Transformed):
        return str(function.name)
    return str(getattr(function, "__name__", None) or type(function).__name__)


def _nature(function: Any) -> Nature:
    if isinstance(function, Transformed):
        return function.nature
    if isinstance(function, JitFunction):
        is_staged = function.mode == JITMode.TRACE
        return "host" if is_staged else _nature(as_callable(function.__wrapped__))
    if isinstance(function, functools.partial):
        return _nature(function.func)
    if isinstance(function, Operator):
        return "pure" if function.kind == "pure" else "host"
    return "unknown"


def _parameters(function: Any) -> Mapping[str, inspect.Parameter]:
    if isinstance(function, Transformed):
        return function.parameters
    if isinstance(function, Operator):
        return function.call_parameters.parameters
    if isinstance(function, JitFunction):
        return _parameters(as_callable(function.__wrapped__))
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # some builtins have no signature
        return {}


def explanation(name: str, chosen: str, why: str, refused: str = "") -> JITExplanation:
    """Returns how a call of a transformed function is run, and why not staged."""
    staged = (Verdict("trace", chosen=False, reason=refused),) if refused else ()
    return JITExplanation(name, (*staged, Verdict(chosen, chosen=True, reason=why)))
