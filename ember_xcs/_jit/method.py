"""A compiled function as a method of a class: bound to the instance that it was taken from."""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ember_xcs._enhanced.report import RunReport
    from ember_xcs._graph import XCSGraph
    from ember_xcs._jit.function import JitFunction
    from ember_xcs._jit.lowered import LoweredFunction
    from ember_xcs._jit.selection import JITExplanation

__all__ = ["JitMethod"]


class JitMethod:
    """A compiled function with its first argument: what ``instance.method`` is.

    It has what the function has. Cache and statistics are the function's, for all instances.

    Attributes:
        __func__: The compiled function.
        __self__: The instance.
    """

    def __init__(self, function: JitFunction, instance: Any) -> None:
        functools.update_wrapper(self, function, updated=())
        self.__func__, self.__self__ = function, instance
        self.__wrapped__ = types.MethodType(function.__wrapped__, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what the method returns for these arguments."""
        return self.__func__(self.__self__, *args, **kwargs)

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what the method returns, without blocking the event loop."""
        return await self.__func__.acall(self.__self__, *args, **kwargs)

    def graph(self, *args: Any, **kwargs: Any) -> XCSGraph:
        """Returns the graph of the method for arguments like these; nothing is run."""
        return self.__func__.graph(self.__self__, *args, **kwargs)

    def lower(self, *args: Any, **kwargs: Any) -> LoweredFunction:
        """Returns the method lowered for arguments like these; nothing is run."""
        return self.__func__.lower(self.__self__, *args, **kwargs)

    def selection(self, *args: Any, **kwargs: Any) -> JITExplanation:
        """Returns which strategy compiles such a call, and why; nothing is run."""
        return self.__func__.selection(self.__self__, *args, **kwargs)

    def explain(self, *args: Any, **kwargs: Any) -> JITExplanation | RunReport:
        """Returns which strategy compiles such a call, or what the last run did."""
        if not (args or kwargs):
            return self.__func__.explain()
        return self.selection(*args, **kwargs)

    def stats(self) -> dict[str, Any]:
        """Returns the statistics of the function, for all instances."""
        return self.__func__.stats()

    def clear_cache(self) -> None:
        """Forgets all that was compiled, for all instances."""
        self.__func__.clear_cache()

    @property
    def mode(self) -> str:
        """The strategy that was asked for, or ``"auto"``."""
        return self.__func__.mode

    @property
    def is_numeric(self) -> bool:
        """Whether calls go straight to ``jax.jit``."""
        return self.__func__.is_numeric

    @property
    def strategy(self) -> str | None:
        """The strategy that compiled the last call; None before the first."""
        return self.__func__.strategy

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, JitMethod):
            return NotImplemented
        return self.__func__ is other.__func__ and self.__self__ is other.__self__

    def __hash__(self) -> int:
        return hash((self.__func__, id(self.__self__)))

    def __repr__(self) -> str:
        return f"{self.__func__!r} of {type(self.__self__).__name__}"
