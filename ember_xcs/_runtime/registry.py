"""Schedulers by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ember_xcs._core.options import schedulers, suggestion
from ember_xcs._runtime.adaptive import AdaptiveScheduler
from ember_xcs._runtime.noop import NoOpScheduler
from ember_xcs._runtime.parallel import ParallelScheduler
from ember_xcs._runtime.sequential import SequentialScheduler
from ember_xcs._runtime.topological import TopologicalScheduler
from ember_xcs._runtime.wave import WaveScheduler
from ember_xcs.errors import OptionsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ember_xcs._runtime.layout import Layout
    from ember_xcs._runtime.scheduler import Scheduler

__all__ = ["choose_scheduler", "create_scheduler", "register_scheduler"]


def create_scheduler(name: str, **settings: Any) -> Scheduler:
    """Returns a new scheduler.

    Args:
        name: The name of a registered scheduler.
        **settings: What its class takes, such as ``max_workers``.

    Raises:
        OptionsError: If no scheduler has that name, or its class does not take these settings.

    Example:
        >>> type(create_scheduler("parallel", max_workers=4)).__name__
        'ParallelScheduler'
    """
    if name not in schedulers:
        raise OptionsError(
            f"unknown scheduler {name!r}{suggestion(name, schedulers)} "
            f"(registered: {', '.join(sorted(schedulers))})"
        )
    try:
        scheduler: Scheduler = schedulers[name](**settings)
    except (TypeError, ValueError) as error:
        raise OptionsError(f"scheduler {name!r} cannot be made with {settings}: {error}") from error
    return scheduler


def register_scheduler(name: str, scheduler: Callable[..., Scheduler]) -> None:
    """Makes a scheduler known by name.

    Args:
        name: What ``ExecutionOptions(scheduler=...)`` and ``create_scheduler`` call it.
        scheduler: Its class, or a function that returns one.

    Raises:
        OptionsError: If the name is taken by another class, or is not a usable name.
    """
    if not name or name == "auto":
        raise OptionsError(f"a scheduler cannot be registered as {name!r}")
    if schedulers.setdefault(name, scheduler) is not scheduler:
        raise OptionsError(f"the scheduler name {name!r} is taken by {schedulers[name]!r}")


def choose_scheduler(wanted: str | Scheduler, layout: Layout) -> Scheduler:
    """Returns the scheduler for a run.

    Args:
        wanted: The option; ``"auto"`` is sequential where no host call can overlap anything,
            else parallel.
        layout: What is to be run.
    """
    if not isinstance(wanted, str):
        return wanted
    if wanted != "auto":
        return create_scheduler(wanted)
    overlaps = layout.overlaps or layout.has_launches or layout.warmups
    return ParallelScheduler() if overlaps else SequentialScheduler()


for _name, _class in {
    "adaptive": AdaptiveScheduler,
    "noop": NoOpScheduler,
    "parallel": ParallelScheduler,
    "sequential": SequentialScheduler,
    "topological": TopologicalScheduler,
    "wave": WaveScheduler,
}.items():
    register_scheduler(_name, _class)
