"""The options of a run, as a pydantic model.

It has a module of its own, which is loaded when options are given or asked for, and neither by the
import of the library nor by a run with none: pydantic takes longer to load than all of the library.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    PrivateAttr,
    ValidationError,
    field_validator,
)

from ember_xcs._core.budget import Budget
from ember_xcs._core.limit import Limit
from ember_xcs._core.options import given_options, schedulers, suggestion
from ember_xcs._core.retry import Retry
from ember_xcs.errors import OptionsError

__all__ = ["ExecutionOptions"]


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
        return_partial_results: Whether a run that passes its deadline, or has spent its budget,
            returns what it has instead of raising an error. Of a batch that is not finished that
            is a list, with an exception in the place of each call that has not ended.
        passes: The names of the passes to apply to a graph; None for the usual ones.
        retry: How failed host calls are tried again, where their operators do not say.
        limits: What resources allow, by name: a dict of ``Limit``. A resource has one line of calls
            in the process, and the limit that was set last.
        budget: What the run may spend, a ``Budget``.
        cache: A ``ResultCache`` for the results of deterministic operators.
        journal: The file in which the run is recorded as it goes, or a ``Journal``: a run that was
            killed goes on where it was when it is run again.
        max_batch_size: The most calls that go to a batch end point together; where an operator
            says, too, the less of both.
        batch_window_seconds: How long a call that is ready waits for others to go to its batch end
            point with, at most, in seconds, where the operator does not say.
        progress: True for a line on stderr that tells how far the run is, or a function that is
            told so with an ``xcs.Progress``: ten times a second at most, and once at the end.
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
    retry: InstanceOf[Retry] | None = None
    limits: dict[str, InstanceOf[Limit]] | None = None
    budget: InstanceOf[Budget] | None = None
    cache: Any = None
    journal: Any = None
    max_batch_size: int | None = Field(default=None, ge=1)
    batch_window_seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    progress: Any = None
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

    @field_validator("cache")
    @classmethod
    def _is_cache(cls, cache: object) -> object:
        if cache is not None and not (hasattr(cache, "get") and hasattr(cache, "put")):
            raise ValueError("cache is to be an xcs.ResultCache, or None")
        return cache

    @field_validator("journal")
    @classmethod
    def _is_journal(cls, journal: object) -> object:
        is_path = isinstance(journal, str | os.PathLike) and str(journal) != ""
        if journal is not None and not is_path and not hasattr(journal, "record"):
            raise ValueError("journal is to be the path of a file, an xcs.Journal, or None")
        return journal

    @field_validator("progress")
    @classmethod
    def _is_told(cls, progress: object) -> object:
        is_function = callable(progress) and not inspect.iscoroutinefunction(progress)
        if progress is not None and not isinstance(progress, bool) and not is_function:
            raise ValueError(
                "progress is to be True, False, None, or a plain function of one xcs.Progress"
            )
        return progress

    @field_validator("passes", mode="before")
    @classmethod
    def _tuple_of_names(cls, passes: object) -> object:
        return tuple(passes) if isinstance(passes, list) else passes

    def over(self, others: ExecutionOptions) -> ExecutionOptions:
        """Returns these options where they were given, and others where not."""
        if self._merged is None or self._merged[0] is not others:
            self._merged = others, others.replace(**given_options(self))
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
