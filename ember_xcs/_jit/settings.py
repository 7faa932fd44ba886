"""How a function is compiled: the arguments of ``jit``."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any

import pydantic

from ember_xcs._core.options import ExecutionOptions
from ember_xcs.errors import OptionsError

__all__ = ["JITMode", "JITSettings", "jit_settings"]


class JITMode(enum.StrEnum):
    """Which strategy compiles a function.

    ``AUTO`` tries those that fit the callable and its inputs; the others name one.
    """

    AUTO = "auto"
    TRACE = "trace"
    STRUCTURAL = "structural"
    ENHANCED = "enhanced"


class JITSettings(pydantic.BaseModel):
    """The settings of one ``jit``.

    Attributes:
        mode: The strategy, or ``"auto"``; a registered strategy's own name will do, too.
        static_argnames: Parameters that the function's Python sees as they are; it is compiled
            once for each of their values.
        static_argnums: The same, by position.
        donate_argnums: Arguments whose memory a numeric function may reuse, as in ``jax.jit``.
        recursive: Whether composite operators are opened; if not, they are one host call.
        force_trace: Whether each call compiles anew.
        disable_strategies: Strategies that automatic selection leaves out.
        prefer: A strategy that automatic selection tries first.
        options: How the compiled graph is run, over the options of the context.
    """

    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True
    )

    mode: str = JITMode.AUTO.value
    static_argnames: tuple[str, ...] = ()
    static_argnums: tuple[int, ...] = ()
    donate_argnums: tuple[int, ...] = ()
    recursive: bool = True
    force_trace: bool = False
    disable_strategies: tuple[str, ...] = ()
    prefer: str | None = None
    options: ExecutionOptions | dict[str, Any] | None = None

    @property
    def positions(self) -> dict[str, tuple[int, ...]]:
        """The settings that name parameters by position."""
        return {"static_argnums": self.static_argnums, "donate_argnums": self.donate_argnums}


def jit_settings(**given: Any) -> JITSettings:
    """Returns settings from the arguments of ``jit``.

    Raises:
        OptionsError: A name or a value is not one that ``jit`` takes.
    """
    unknown = given.keys() - JITSettings.model_fields.keys()
    if unknown:
        raise OptionsError(
            f"jit has no setting {min(unknown)!r}; its settings are "
            f"{', '.join(JITSettings.model_fields)}."
        )
    for name in ("static_argnames", "static_argnums", "donate_argnums", "disable_strategies"):
        given[name] = _as_tuple(given.get(name))
    try:
        return JITSettings(**given)
    except pydantic.ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        raise OptionsError(
            f"jit: {'.'.join(map(str, problem['loc']))}: {problem['msg']}."
        ) from None


def _as_tuple(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    if isinstance(value, str | int) or not isinstance(value, Iterable):
        return (value,)
    return tuple(value)
