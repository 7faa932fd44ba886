"""How runs are to be executed: one immutable record of options, and the context it comes from.

Options are looked up in this order: the argument of the call, the innermost
``execution_options`` block, the outer blocks, ``set_execution_options``, the defaults.
Blocks live in a context variable, so each thread and each asyncio task has its own.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

from ember_xcs.errors import OptionsError

__all__ = [
    "ExecutionOptions",
    "execution_options",
    "get_execution_options",
    "reset_execution_options",
    "resolve_options",
    "schedulers",
    "set_execution_options",
    "suggestion",
]

# Scheduler classes by name; the runtime fills it and ``register_scheduler`` adds to it. It is
# here because a name is checked where it is given, and options come before the runtime.
schedulers: dict[str, Callable[..., Any]] = {}


class ExecutionOptions(BaseModel):
    """How a run is to be executed. Immutable; see ``replace`` for changed copies.

    Only the options that were given are taken from an instance that is passed to a call; the
    others come from the context.

    Attributes:
        scheduler: ``"auto"``, the name of a registered scheduler, or a scheduler.
        max_workers: The most host calls of one run in flight at once, whether on threads, on the
            I/O loop or in processes; None for as many as the plan can use.
        timeout_seconds: How long a run may take, in seconds; None for no limit.
        on_error: ``"raise"`` ends the run at the first error; ``"continue"`` runs all that does
            not depend on what failed.
        return_partial_results: Whether a run that passes its deadline returns what it has
            instead of raising ``ExecutionTimeout``.
        passes: The names of the passes to apply to a graph; None for the usual ones.
        collect_metrics: Whether each call is measured.
        trace_execution: Whether each call is recorded in the timeline.

    Example:
        >>> ExecutionOptions(max_workers=4).max_workers
        4
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    scheduler: Any = "auto"
    max_workers: int | None = Field(default=None, ge=1)
    timeout_seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    on_error: Literal["raise", "continue"] = "raise"
    return_partial_results: bool = False
    passes: tuple[str, ...] | None = None
    collect_metrics: bool = False
    trace_execution: bool = False

    _merged: tuple[ExecutionOptions, ExecutionOptions] | None = PrivateAttr(default=None)

    def __init__(self, **options: Any) -> None:
        """Checks and stores the options.

        Args:
            **options: See the attributes of the class.

        Raises:
            OptionsError: If an option is unknown or has a value that it cannot have.
        """
        _check_names(options)
        try:
            super().__init__(**options)
        except ValidationError as error:
            raise OptionsError(_explain(error)) from None

    @field_validator("scheduler")
    @classmethod
    def _known_scheduler(cls, scheduler: object) -> object:
        if isinstance(scheduler, str):
            if scheduler == "auto" or scheduler in schedulers:
                return scheduler
            raise ValueError(_unknown("scheduler", scheduler, ["auto", *sorted(schedulers)]))
        if isinstance(scheduler, type) or not callable(getattr(scheduler, "execute", None)):
            raise ValueError(  # noqa: TRY004  (pydantic wants this one)
                "a scheduler is 'auto', a registered name, or an object with prepare(plan) and "
                "execute(run); a class must be instantiated first"
            )
        return scheduler

    @field_validator("passes", mode="before")
    @classmethod
    def _tuple_of_names(cls, passes: object) -> object:
        return tuple(passes) if isinstance(passes, list) else passes

    def over(self, others: ExecutionOptions) -> ExecutionOptions:
        """Returns these options where they were given, and others where not."""
        if self._merged is None or self._merged[0] is not others:
            self._merged = others, others.replace(**_given(self))
        return self._merged[1]

    def replace(self, **options: Any) -> ExecutionOptions:
        """Returns a copy with some options changed.

        Args:
            **options: See the attributes of the class.

        Raises:
            OptionsError: If an option is unknown or has a value that it cannot have.
        """
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return ExecutionOptions(**(given | options))


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
    layer = _layer.get()
    return _process.base if layer is None else layer.current()


def set_execution_options(options: ExecutionOptions | None = None, /, **changes: Any) -> None:
    """Changes the options of the whole process, below every ``execution_options`` block.

    Args:
        options: Options to start from; those it was given are set.
        **changes: Options by name; they add to what was set before.

    Raises:
        OptionsError: If an option is unknown or has a value that it cannot have.
    """
    _process.base = _process.base.replace(**(_given(options) | changes))


def reset_execution_options() -> None:
    """Returns the options of the whole process to the defaults; blocks stay in force."""
    _process.base = ExecutionOptions()


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
    layer = _Layer((outer.overrides if outer else {}) | _given(options) | changes)
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
    if argument is None:
        return current
    if not isinstance(argument, ExecutionOptions):
        return current.replace(**_given(argument))
    return argument.over(current)


def suggestion(name: str, valid: Iterable[str]) -> str:
    """Returns ``"; did you mean 'x'?"`` for a misspelt name, or nothing."""
    close = difflib.get_close_matches(name, list(valid), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _given(options: ExecutionOptions | Mapping[str, Any] | None) -> dict[str, Any]:
    """The options that were given, by name."""
    if options is None:
        return {}
    if isinstance(options, Mapping):
        return dict(options)
    if isinstance(options, ExecutionOptions):
        return {name: getattr(options, name) for name in options.model_fields_set}
    raise OptionsError(
        f"options are given as a {type(options).__name__}; give ExecutionOptions(...) or a mapping "
        "from option names to values"
    )


def _check_names(options: Mapping[str, Any]) -> None:
    valid = list(ExecutionOptions.model_fields)
    for name in options:
        if name not in valid:
            raise OptionsError(_unknown("option", str(name), valid))


def _unknown(what: str, name: str, valid: list[str]) -> str:
    return f"unknown {what} {name!r}{suggestion(name, valid)} (valid: {', '.join(valid)})"


def _explain(error: ValidationError) -> str:
    """What is wrong with each value, in one line each."""
    return "\n".join(
        f"{'.'.join(map(str, item['loc']))}={item['input']!r}: {item['msg']}"
        for item in error.errors(include_url=False)
    )


class _Process:
    """The options of the process."""

    base = ExecutionOptions()


_process = _Process()
_layer: ContextVar[_Layer | None] = ContextVar("ember_xcs_execution_options", default=None)
