"""The body of a transformation, staged once for each signature of its arguments."""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING, Any

import jax.errors

from ember_xcs._jit.cache import JITCache
from ember_xcs._jit.request import Request, Target
from ember_xcs._jit.settings import jit_settings
from ember_xcs._jit.strategies import TraceStrategy
from ember_xcs.errors import LoweringError, TracingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ember_xcs._jit.programs import Program
    from ember_xcs._runtime.supervise import OptionsArgument

__all__ = ["StagedBody", "StagedCall"]


@dataclasses.dataclass(frozen=True)
class StagedCall:
    """One call of a staged body.

    Attributes:
        program: What it became; None if it cannot be staged.
        request: Its arguments.
        reason: Why it cannot be staged.
    """

    program: Program | None
    request: Request
    reason: str = ""

    def run(self, options: OptionsArgument = None) -> Any:
        """Returns the result."""
        assert self.program is not None
        return self.program.run(self.request, options)

    async def arun(self, options: OptionsArgument = None) -> Any:
        """Returns the result without blocking the event loop."""
        assert self.program is not None
        return await self.program.arun(self.request, options)


class StagedBody:
    """A function of marked arguments, as programs by the signature of these.

    Args:
        body: The function; JAX is tracing when it is called.
        name: What it is called in messages and graphs.
        parameters: Those of the user's function, for labels.
        is_declared: Whether the user's function is an operator, which can be run in another way
            where it cannot be staged; a plain function of numbers breaks JAX's own contract then.
    """

    def __init__(
        self,
        body: Callable[..., Any],
        name: str,
        parameters: Mapping[str, inspect.Parameter],
        *,
        is_declared: bool,
    ) -> None:
        def named(*args: Any, **kwargs: Any) -> Any:
            return body(args, kwargs)

        named.__name__ = named.__qualname__ = name
        positional = [
            p.replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None)
            for p in parameters.values()
            if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
        named.__signature__ = inspect.Signature(positional)  # type: ignore[attr-defined]
        self._target = Target(named, jit_settings())
        self._strategy = TraceStrategy()
        self._cache = JITCache()
        self._is_declared = is_declared

    def call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> StagedCall:
        """Returns what a call with these arguments is, staged; nothing is run."""
        request = Request(self._target, args, kwargs)
        program, reason = self._cache.get_or_make(request.key, lambda: self._made(request))
        return StagedCall(program, request, reason)

    def _made(self, request: Request) -> tuple[Program | None, str]:
        refused: tuple[type[Exception], ...] = (TracingError, LoweringError)
        if self._is_declared:
            refused += (jax.errors.JAXTypeError, jax.errors.JAXIndexError)
        try:
            return self._strategy.compile(request), ""
        except refused as error:
            return None, str(error)
