"""How a function is compiled: the arguments of ``jit``."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ember_xcs._core.options import execution_options_of
from ember_xcs.errors import OptionsError

if TYPE_CHECKING:
    from ember_xcs._core.options import ExecutionOptions

__all__ = ["JITMode", "JITSettings", "jit_settings"]


class JITMode(enum.StrEnum):
    """Which strategy compiles a function.

    ``AUTO`` tries those that fit the callable and its inputs; the others name one.
    """

    AUTO = "auto"
    TRACE = "trace"
    STRUCTURAL = "structural"
    ENHANCED = "enhanced"


@dataclasses.dataclass(frozen=True)
class JITSettings:
    """The settings of one ``jit``.

    Attributes:
        mode: The strategy, or ``"auto"``; a registered strategy's own name will do, too.
        static_argnames: Parameters that the function's Python sees as they are; it is compiled
            once for each of their values.
        static_argnums: The same, by position.
        donate_argnums: Arguments whose memory a numeric function may reuse, as in ``jax.jit``.
        recursive: Whether composite operators are opened; if not, they are one host call.
        force_trace: Whether each call compiles anew.
        preserve_stochasticity: Whether every call of a host operator is made.
        disable_strategies: Strategies that automatic selection leaves out.
        prefer: A strategy that automatic selection tries first.
        options: How the compiled graph is run, over the options of the context.

    Raises:
        OptionsError: A setting has a value of another type.

    Example:
        >>> JITSettings(static_argnames=("n",)).mode
        'auto'
    """

    mode: str = JITMode.AUTO.value
    static_argnames: tuple[str, ...] = ()
    static_argnums: tuple[int, ...] = ()
    donate_argnums: tuple[int, ...] = ()
    recursive: bool = True
    force_trace: bool = False
    preserve_stochasticity: bool = True
    disable_strategies: tuple[str, ...] = ()
    prefer: str | None = None
    options: ExecutionOptions | None = None

    def __post_init__(self) -> None:
        """Checks the type of each setting; that the names in them exist is known later."""
        for name, (kinds, expected) in _SINGLE.items():
            if not isinstance(getattr(self, name), kinds):
                raise _wrong(name, getattr(self, name), expected)
        for name, kind in _SEVERAL.items():
            values = getattr(self, name)
            if not isinstance(values, tuple) or not all(isinstance(v, kind) for v in values):
                raise _wrong(name, values, f"{kind.__name__} or a tuple of them")

    @property
    def positions(self) -> dict[str, tuple[int, ...]]:
        """The settings that name parameters by position."""
        return {"static_argnums": self.static_argnums, "donate_argnums": self.donate_argnums}


_SINGLE = {
    "mode": (str, "str"),
    "recursive": (bool, "bool"),
    "force_trace": (bool, "bool"),
    "preserve_stochasticity": (bool, "bool"),
    "prefer": (str | None, "str or None"),
}
_SEVERAL = {
    "static_argnames": str,
    "static_argnums": int,
    "donate_argnums": int,
    "disable_strategies": str,
}
_NAMES = tuple(field.name for field in dataclasses.fields(JITSettings))


def _wrong(name: str, value: Any, expected: str) -> OptionsError:
    return OptionsError(f"jit: {name}={value!r}, which must be {expected}. Give that.")


def jit_settings(**given: Any) -> JITSettings:
    """Returns settings from the arguments of ``jit``.

    Raises:
        OptionsError: A name or a value is not one that ``jit`` takes.
    """
    unknown = given.keys() - set(_NAMES)
    if unknown:
        raise OptionsError(
            f"jit has no setting {min(unknown)!r}; its settings are {', '.join(_NAMES)}. Use "
            "one of these."
        )
    for name in _SEVERAL:
        given[name] = _as_tuple(given.get(name))
    given["options"] = execution_options_of(given.get("options"))
    return JITSettings(**given)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    if isinstance(value, str | int) or not isinstance(value, Iterable):
        return (value,)
    return tuple(value)
