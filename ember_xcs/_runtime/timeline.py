"""What happened when, and what it comes to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ember_xcs._lower.plan import Task

__all__ = ["ExecutionMetrics", "Record", "TimelineEntry"]

# rank, element or None, worker, start and end in seconds on the clock of ``time.perf_counter``
Record = tuple[int, int | None, str, float, float]


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One call of one task.

    Attributes:
        node_id: The node, the first of them where a region stands for several.
        node_ids: All nodes that the task stands for.
        kind: ``"region"``, ``"call"`` or ``"glue"``.
        operator: The name of the operator.
        worker: The name of the thread, ``"io"`` for the I/O loop, ``"process"`` for a process.
        start_seconds: When it began, in seconds from the start of the run.
        end_seconds: When it ended, in seconds from the start of the run.
        element: Which call of a fan it was; None for a task of one call.
    """

    node_id: str
    node_ids: tuple[str, ...]
    kind: str
    operator: str
    worker: str
    start_seconds: float
    end_seconds: float
    element: int | None = None


@dataclass(frozen=True, slots=True)
class ExecutionMetrics:
    """What a run came to.

    Where calls were not measured (neither ``collect_metrics`` nor ``trace_execution``), only
    ``tasks``, ``failed``, ``skipped``, ``wall_seconds``, ``failed_warmups``, ``batches`` and
    ``batched_calls`` are known.

    Attributes:
        tasks: How many tasks the plan has.
        failed: How many nodes failed.
        skipped: How many nodes were skipped.
        wall_seconds: How long the run took, in seconds.
        calls: How many calls were made, by kind of task; None where not measured.
        busy_seconds: The durations of all calls, added up, in seconds; None where not measured.
        peak_concurrency: The most calls in flight at once; None where not measured.
        workers: How many calls each worker made, by its name; None where not measured.
        failed_warmups: How many compilations ahead of time failed.
        batches: How many times batch end points were asked, further attempts included.
        batched_calls: How many calls they were asked for together.
        attempts: How many times host operators were called, in the runs within this one too. This
            and what follows is known where calls are measured, or go through limits, retries,
            budgets, a cache or a journal; else None.
        retries: How many of these attempts were further ones.
        tokens: How many tokens they reported to have used.
        cost: What they reported to have cost; None if a price was not known.
        cache_hits: How many calls were answered from the cache.
        journal_hits: How many calls were made before the run was begun again.
        wait_seconds: How long calls stood in line before their resources, added up, in seconds.
    """

    tasks: int
    failed: int
    skipped: int
    wall_seconds: float
    calls: Mapping[str, int] | None = None
    busy_seconds: float | None = None
    peak_concurrency: int | None = None
    workers: Mapping[str, int] | None = field(default=None, repr=False)
    failed_warmups: int = 0
    batches: int = 0
    batched_calls: int = 0
    attempts: int | None = None
    retries: int | None = None
    tokens: int | None = None
    cost: float | None = None
    cache_hits: int | None = None
    journal_hits: int | None = None
    wait_seconds: float | None = None


def entries(
    records: Sequence[Record], tasks: Sequence[Task], started: float
) -> tuple[TimelineEntry, ...]:
    """Returns the timeline of a run, by the time of starting."""
    return tuple(
        TimelineEntry(
            node_id=tasks[rank].node_ids[0] if tasks[rank].node_ids else "",
            node_ids=tasks[rank].node_ids,
            kind=tasks[rank].kind.value,
            operator=tasks[rank].operator,
            worker=worker,
            start_seconds=start - started,
            end_seconds=end - started,
            element=element,
        )
        for rank, element, worker, start, end in sorted(records, key=lambda record: record[3])
    )


def calls_by_kind(records: Sequence[Record], tasks: Sequence[Task]) -> dict[str, int]:
    """Returns how many calls were made, by kind of task."""
    return dict(Counter(tasks[record[0]].kind.value for record in records))


def peak_concurrency(records: Sequence[Record]) -> int:
    """Returns the most calls that were in flight at once."""
    changes = [(start, 1) for *_, start, _ in records] + [(end, -1) for *_, end in records]
    level = peak = 0
    for _, change in sorted(changes):
        level += change
        peak = max(peak, level)
    return peak


def metrics(
    records: Sequence[Record] | None,
    tasks: Sequence[Task],
    *,
    failed: int,
    skipped: int,
    wall_seconds: float,
    failed_warmups: int,
    batches: Sequence[int],
    figures: Mapping[str, Any],
) -> ExecutionMetrics:
    """Returns what a run came to."""
    base = ExecutionMetrics(
        len(tasks),
        failed,
        skipped,
        wall_seconds,
        failed_warmups=failed_warmups,
        batches=len(batches),
        batched_calls=sum(batches),
        **figures,
    )
    if records is None:
        return base
    return replace(
        base,
        calls=calls_by_kind(records, tasks),
        busy_seconds=sum(end - start for *_, start, end in records),
        peak_concurrency=peak_concurrency(records),
        workers=dict(Counter(record[2] for record in records)),
    )
