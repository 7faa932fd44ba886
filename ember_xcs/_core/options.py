"""How runs are to be executed: one immutable record of options, and the context it comes from.

Options are looked up in this order: the argument of the call, the innermost
``execution_options`` block, the outer blocks, ``set_execution_options``, the defaults.
Blocks live in a context variable, so each thread and each asyncio task has its own.

The record of options is a pydantic model, and pydantic takes longer to load than many a run lasts.
So runs to which nobody has given any option have ``DEFAULTS`` instead, which reads the same.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, cast

from ember_xcs.errors import OptionsError

if TYPE_CHECKING:
    from ember_xcs._core.execution_options import ExecutionOptions

__all__ = [
    "DEFAULTS",
    "ExecutionOptions",
    "execution_options",
    "execution_options_of",
    "get_execution_options",
    "given_options",
    "reset_execution_options",
    "resolve_options",
    "schedulers",
    "set_execution_options",
    "suggestion",
]

# Scheduler classes by name; the runtime fills it and ``register_scheduler`` adds to it. It is
# here because a name is checked where it is given, and options come before the runtime.
schedulers: dict[str, Callable[..., Any]] = {}


@functools.cache
def _model() -> type[ExecutionOptions]:
    """The class of the options; loads pydantic, which the import of the library should not."""
    module = importlib.import_module("ember_xcs._core.execution_options")
    model: type[ExecutionOptions] = module.ExecutionOptions
    return model


def __getattr__(name: str) -> Any:
    if name == "ExecutionOptions":
        return _model()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Defaults:
    """What runs read of the options where none were given: those of ``ExecutionOptions()``.

    A new option of the record has its default here, too; a test compares them.
    """

    __slots__ = ()

    model_fields_set: frozenset[str] = frozenset()
    scheduler = "auto"
    max_workers = None
    timeout_seconds = None
    on_error = "raise"
    return_partial_results = False
    passes = None
    retry = None
    limits = None
    budget = None
    cache = None
    journal = None
    max_batch_size = None
    batch_window_seconds = None
    progress = None
    collect_metrics = False
    trace_execution = False

    def over(self, others: ExecutionOptions) -> ExecutionOptions:
        """Returns the others, as no option was given here."""
        return others

    def replace(self, **options: Any) -> ExecutionOptions:
        """Returns a record of these options.

        Args:
            **options: Options by name.

        Raises:
            OptionsError: If an option is unknown or has a value that it cannot have.
        """
        return _model()(**options)

    def __repr__(self) -> str:
        """Returns what the record of them would be written as."""
        return "ExecutionOptions()"


DEFAULTS: Final = cast("ExecutionOptions", _Defaults())
"""The options where none were given. It has what runs read, and is no instance of the model."""


class _Layer:
    """An ``execution_options`` block: all overrides in force, and what they come to."""

    __slots__ = ("base", "overrides", "resolved")

    def __init__(self, overrides: dict[str, Any]) -> None:
        self.overrides = overrides
        self.base = _process.base
        self.resolved = self.base.replace(**overrides)

    def current(self) -> ExecutionOptions:
        """Returns the options of this block, following ``set_execution_options``."""
        base = _process.base
        if self.base is not base:
            self.base, self.resolved = base, base.replace(**self.overrides)
        return self.resolved


def get_execution_options() -> ExecutionOptions:
    """Returns the options in force here."""
    options = resolve_options()
    return _default_record() if options is DEFAULTS else options


def set_execution_options(options: ExecutionOptions | None = None, /, **changes: Any) -> None:
    """Changes the options of the whole process, below every ``execution_options`` block.

    Args:
        options: Options to start from; those it was given are set.
        **changes: Options by name; they add to what was set before.

    Raises:
        OptionsError: If an option is unknown or has a value that it cannot have.
    """
    _process.base = _process.base.replace(**(given_options(options) | changes))


def reset_execution_options() -> None:
    """Returns the options of the whole process to the defaults; blocks stay in force."""
    _process.base = DEFAULTS


@contextlib.contextmanager
def execution_options(
    options: ExecutionOptions | None = None, /, **changes: Any
) -> Iterator[ExecutionOptions]:
    """Sets options for the runs begun within a block, in this thread or asyncio task.

    Args:
        options: Options to start from; those it was given are set.
        **changes: Options by name.

    Yields:
        The options now in force.

    Raises:
        OptionsError: If an option is unknown or has a value that it cannot have.

    Example:
        >>> with execution_options(max_workers=2):
        ...     get_execution_options().max_workers
        2
    """
    outer = _layer.get()
    layer = _Layer((outer.overrides if outer else {}) | given_options(options) | changes)
    token = _layer.set(layer)
    try:
        yield layer.resolved
    finally:
        _layer.reset(token)


def resolve_options(
    argument: ExecutionOptions | Mapping[str, Any] | None = None,
) -> ExecutionOptions:
    """Returns the options of a call: its argument over those in force here.

    Args:
        argument: The options that the call was given, by name or as a record.

    Raises:
        OptionsError: If an option is unknown or has a value that it cannot have.
    """
    layer = _layer.get()
    current = _process.base if layer is None else layer.current()
    if argument is None or argument is DEFAULTS:
        return current
    if not isinstance(argument, _model()):
        return current.replace(**given_options(argument))
    return argument.over(current)


def suggestion(name: str, valid: Iterable[str]) -> str:
    """Returns ``"; did you mean 'x'?"`` for a misspelt name, or nothing."""
    close = difflib.get_close_matches(name, list(valid), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def execution_options_of(
    options: ExecutionOptions | Mapping[str, Any] | None,
) -> ExecutionOptions | None:
    """Returns options that were given by name as a record; None if none were given.

    Raises:
        OptionsError: If an option is unknown or has a value that it cannot have.
    """
    return None if options is None else _model()(**given_options(options))


def given_options(options: ExecutionOptions | Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the options that were given, by name.

    Raises:
        OptionsError: They are neither a record of options nor a mapping.
    """
    if options is None or options is DEFAULTS:
        return {}
    if isinstance(options, Mapping):
        return dict(options)
    if isinstance(options, _model()):
        return {name: getattr(options, name) for name in options.model_fields_set}
    raise OptionsError(
        f"options are given as a {type(options).__name__}; give ExecutionOptions(...) or a mapping "
        "from option names to values"
    )


@functools.cache
def _default_record() -> ExecutionOptions:
    return _model()()


class _Process:
    """The options of the process: those below every block."""

    base: ExecutionOptions = DEFAULTS


_process = _Process()
_layer: ContextVar[_Layer | None] = ContextVar("ember_xcs_execution_options", default=None)
