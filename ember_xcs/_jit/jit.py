"""``jit``: the front door."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ember_xcs._core import calls
from ember_xcs._core.jax_state import under_jax_trace
from ember_xcs._core.operator import Operator
from ember_xcs._jit.function import JitFunction, live_functions
from ember_xcs._jit.graphs import as_callable
from ember_xcs._jit.method import JitMethod
from ember_xcs._jit.settings import JITMode, JITSettings, jit_settings

if TYPE_CHECKING:
    from ember_xcs._core.options import ExecutionOptions
    from ember_xcs._jit.cache import JITCache
    from ember_xcs._jit.selection import JITExplanation

__all__ = [
    "compiled_instance",
    "explain_jit_selection",
    "get_jit_stats",
    "get_jit_strategy_used",
    "is_jit_compiled",
    "jit",
    "structural_jit",
]

_COMPILED = (JitFunction, JitMethod)


def _jit(
    fn_or_operator_or_class: Any = None,
    /,
    mode: str | JITMode = JITMode.AUTO,
    static_argnames: str | tuple[str, ...] = (),
    sample_input: Any = None,
    cache: JITCache | None = None,
    recursive: bool = True,
    force_trace: bool = False,
    preserve_stochasticity: bool = True,
    disable_strategies: tuple[str, ...] = (),
    prefer: str | None = None,
    options: ExecutionOptions | Mapping[str, Any] | None = None,
    *,
    static_argnums: int | tuple[int, ...] = (),
    donate_argnums: int | tuple[int, ...] = (),
) -> Any:
    """Compiles a function, an operator or a class of operators.

    Numeric code becomes as few XLA programs as the data flow allows; host operators run as early
    and as concurrently as it allows. A purely numeric function is ``jax.jit`` of it.

    Args:
        fn_or_operator_or_class: What to compile; without it, a decorator is returned.
        mode: ``"auto"``, ``"trace"``, ``"structural"``, ``"enhanced"``, or the name of a registered
            strategy.
        static_argnames: Parameters that the function's Python sees as they are.
        sample_input: Arguments (a tuple, or one) to compile for at once.
        cache: A cache of compiled programs to share; by default each function has its own.
        recursive: Whether composite operators are opened.
        force_trace: Whether each call compiles anew.
        preserve_stochasticity: True: results of host operators are never reused between calls.
            False: equal calls, of operators without side effects, are answered from the result
            cache: that of the options, or else one of the function's own.
        disable_strategies: Strategies that automatic selection leaves out.
        prefer: A strategy that automatic selection tries first.
        options: How compiled graphs are run, over the options of the context.
        static_argnums: As ``static_argnames``, by position.
        donate_argnums: Arguments whose memory a numeric function may reuse, as in ``jax.jit``.

    Returns:
        Something that is called like what was given and returns the same, with ``acall``,
        ``graph``, ``lower``, ``explain``, ``stats``, ``clear_cache`` and ``__wrapped__``.

    Raises:
        OptionsError: A setting is unknown or has a value that it cannot have.

    Example:
        >>> import jax.numpy as jnp
        >>> @jit
        ... def norm(x):
        ...     return jnp.sqrt(jnp.sum(x * x))
        >>> print(norm(jnp.array([3.0, 4.0])))
        5.0
    """
    settings = jit_settings(
        mode=str(mode),
        static_argnames=static_argnames,
        static_argnums=static_argnums,
        donate_argnums=donate_argnums,
        recursive=recursive,
        force_trace=force_trace,
        preserve_stochasticity=preserve_stochasticity,
        disable_strategies=disable_strategies,
        prefer=prefer,
        options=dict(options) if isinstance(options, Mapping) else options,
    )
    if fn_or_operator_or_class is None:
        return lambda given: _compiled(given, settings, cache, sample_input)
    return _compiled(fn_or_operator_or_class, settings, cache, sample_input)


def _compiled(given: Any, settings: JITSettings, cache: JITCache | None, sample: Any) -> Any:
    given = as_callable(given.__wrapped__ if isinstance(given, _COMPILED) else given)
    if isinstance(given, type):
        return _compiled_class(given, settings, cache)
    if not callable(given):
        raise TypeError(
            f"jit takes a function, an operator or a class of operators, and was given {given!r}."
        )
    function = JitFunction(given, settings, cache)
    if sample is not None:
        function.lower(*(sample if isinstance(sample, tuple) else (sample,))).compile()
    return function


def _compiled_class(cls: Any, settings: JITSettings, cache: JITCache | None) -> type:
    """A subclass whose instances are compiled when they are called."""
    if not issubclass(cls, Operator):
        raise TypeError(
            f"jit takes classes of operators, and {cls.__name__} is not a subclass of xcs.Operator."
        )

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        function = self.__dict__.get("_xcs_jit")
        if function is not None and function.is_numeric:  # the short way: JAX's own
            return function(*args, **kwargs)
        if calls.current_recorder() is not None or under_jax_trace():
            return cls.__call__(self, *args, **kwargs)
        return compiled_instance(self, settings, cache)(*args, **kwargs)

    names = {
        "__call__": functools.update_wrapper(call, cls.__call__),
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "_xcs_jit_settings": (settings, cache),
    }
    made: type = type(cls)(cls.__name__, (cls,), names)
    return made


def compiled_instance(
    operator: Any, settings: JITSettings, cache: JITCache | None = None
) -> JitFunction:
    """Returns what runs an instance of a compiled class; made at its first call."""
    function: JitFunction | None = operator.__dict__.get("_xcs_jit")
    if function is None:
        function = operator.__dict__["_xcs_jit"] = JitFunction(operator, settings, cache)
    return function


class _Jit:
    """``jit`` itself: a function, with one attribute for each mode."""

    def __init__(self) -> None:
        functools.update_wrapper(self, _jit)
        self.trace: Callable[..., Any] = functools.partial(_jit, mode=JITMode.TRACE)
        self.structural: Callable[..., Any] = functools.partial(_jit, mode=JITMode.STRUCTURAL)
        self.enhanced: Callable[..., Any] = functools.partial(_jit, mode=JITMode.ENHANCED)

    __call__ = staticmethod(_jit)

    def __repr__(self) -> str:
        return "<function xcs.jit>"


jit = _Jit()
structural_jit = jit.structural


def _function(compiled: Any) -> JitFunction:
    """The compiled function behind what ``jit`` returned."""
    if isinstance(compiled, JitFunction):
        return compiled
    if isinstance(compiled, JitMethod):
        return compiled.__func__
    settings = getattr(type(compiled), "_xcs_jit_settings", None)
    if settings is not None and isinstance(compiled, Operator):
        return compiled_instance(compiled, *settings)
    raise TypeError(f"{compiled!r} is not compiled: it is not what xcs.jit returned.")


def is_jit_compiled(value: Any) -> bool:
    """Whether a value is what ``jit`` returned, or an instance of a compiled class."""
    return isinstance(value, _COMPILED) or hasattr(
        value if isinstance(value, type) else type(value), "_xcs_jit_settings"
    )


def get_jit_strategy_used(compiled: Any) -> str | None:
    """Returns the strategy that compiled the last call; None before the first call."""
    return _function(compiled).strategy


def explain_jit_selection(function: Any, *args: Any, **kwargs: Any) -> JITExplanation:
    """Returns which strategy compiles such a call, and for each other one why not; runs nothing.

    Args:
        function: What ``jit`` returned, or what it could be given.
        args: Arguments like those of the call.
        kwargs: Keyword arguments like those of the call.

    Example:
        >>> explanation = explain_jit_selection(lambda text: text.upper(), "hello")
        >>> explanation.strategy
        'enhanced'
    """
    compiled = function if is_jit_compiled(function) else jit(function)
    if isinstance(compiled, JitMethod):
        return compiled.selection(*args, **kwargs)
    return _function(compiled).selection(*args, **kwargs)


def get_jit_stats(compiled: Any = None) -> dict[str, Any]:
    """Returns the statistics of one compiled function, or the sums over all that are in use.

    Args:
        compiled: What ``jit`` returned; None for all.
    """
    if compiled is not None:
        return _function(compiled).stats()
    every = [function.stats() for function in live_functions()]
    names = ("calls", "execution_seconds", "hits", "misses", "size", "evictions")
    totals: dict[str, Any] = {name: sum(stats[name] for stats in every) for name in names}
    totals["functions"] = len(every)
    totals["strategies"] = _summed([stats["strategies"] for stats in every])
    return totals


def _summed(tables: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    totals: dict[str, dict[str, Any]] = {}
    for table in tables:
        for strategy, figures in table.items():
            total = totals.setdefault(strategy, dict.fromkeys(figures, 0))
            for name, value in figures.items():
                total[name] += value
    return totals
