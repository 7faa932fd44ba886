"""Measuring several ways to do one thing side by side, and the table of what came out.

The machine may be shared and noisy. Repeats are therefore interleaved (one of each side, in turn,
the order changing), so that noise falls on all sides, and what is reported is a ratio of medians.
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Row",
    "compare",
    "duration",
    "installed",
    "measured",
    "ratio_row",
    "skipped",
    "table",
    "versions",
]

Side = Callable[[], Any]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: What was measured, and against what.
        value: A ratio, or a figure in ``unit``.
        bar: What it should keep to; None where it is only reported.
        at_least: Whether the bar is the least that it should be, rather than the most.
        unit: What the value is in; ``"x"`` for ratios.
        detail: What the ratio is made of, or why there is no value.
    """

    what: str
    value: float | None
    bar: float | None = None
    at_least: bool = False
    unit: str = "x"
    detail: str = ""

    @property
    def verdict(self) -> str:
        """``"ok"``, ``"MISSED"``, or nothing where there is no bar."""
        if self.value is None:
            return "skipped"
        if self.bar is None:
            return ""
        kept = self.value >= self.bar if self.at_least else self.value <= self.bar
        return "ok" if kept else "MISSED"

    @property
    def cells(self) -> tuple[str, ...]:
        """What the table shows."""
        value = "-" if self.value is None else f"{self.value:.3g} {self.unit}"
        bar = "" if self.bar is None else f"{'>=' if self.at_least else '<='} {self.bar:g}"
        return self.what, value, bar, self.verdict, self.detail


def compare(
    repeats: int,
    sides: Mapping[str, Side],
    *,
    number: int = 1,
    before: Side | None = None,
    clock: Callable[[], float] = time.perf_counter,
    warm: int = 1,
) -> dict[str, float]:
    """Returns the median time of one call of each side, in seconds.

    Args:
        repeats: How often each side is measured.
        sides: What is measured, by name.
        number: Calls in one measurement, for what is too quick to be timed alone.
        before: Runs before each measurement, untimed.
        clock: ``time.perf_counter``, or ``time.thread_time`` for work that one thread does
            without waiting: then other processes count less.
        warm: Calls of each side before the first measurement.
    """
    for side in sides.values():
        for _ in range(warm):
            side()
    times: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    gc.collect()
    gc.freeze()  # what lives now need not be looked at by each collection
    try:
        for repeat in range(repeats):
            first = repeat % len(names)
            for name in names[first:] + names[:first]:
                times[name].append(_timed(sides[name], number, before, clock))
    finally:
        gc.unfreeze()
    return {name: statistics.median(found) for name, found in times.items()}


def _timed(side: Side, number: int, before: Side | None, clock: Callable[[], float]) -> float:
    if before is not None:
        before()
    gc.collect()
    gc.disable()
    try:
        start = clock()
        for _ in range(number):
            side()
        return (clock() - start) / number
    finally:
        gc.enable()


def ratio_row(
    what: str,
    times: Mapping[str, float],
    ours: str,
    theirs: str,
    bar: float | None = None,
    *,
    faster: bool = False,
) -> Row:
    """Returns a row for the ratio of two sides.

    Args:
        what: What was measured.
        times: What ``compare`` returned.
        ours: The side that is ours.
        theirs: The side that it is compared with.
        bar: What the ratio should keep to.
        faster: Whether the ratio says how many times faster we are, rather than slower.
    """
    mine, other = times[ours], times[theirs]
    return Row(
        f"{what} / {theirs}" if not faster else f"{what}: times faster than {theirs}",
        other / mine if faster else mine / other,
        bar,
        at_least=faster,
        detail=f"{duration(mine)} / {duration(other)}",
    )


def duration(seconds: float) -> str:
    """Returns a time as people say it.

    >>> duration(0.00002), duration(0.05), duration(3)
    ('20 us', '50 ms', '3 s')
    """
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} us"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def installed(package: str) -> bool:
    """Whether a package can be compared with."""
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def skipped(what: str, package: str) -> Row:
    """Returns the row for a comparison with what is not installed."""
    return Row(what, None, detail=f"{package} is not installed: pip install -e '.[bench]'")


def versions() -> str:
    """Returns what was measured on: one line."""
    names = ("jax", "jaxlib", "numpy", "equinox", "networkx", "dask", "langgraph")
    found = [f"{name} {importlib.metadata.version(name)}" for name in names if installed(name)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"Python {platform.python_version()}, {', '.join(found)}; {cores} cores"


def table(rows: Iterable[Row]) -> str:
    """Returns the rows as a Markdown table."""
    header = ("what / against what", "measured", "bar", "", "medians")
    lines = [header, *(row.cells for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(header))]
    texts = [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    ]
    texts.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(texts)


def measured(subject: str, quick: bool) -> list[Row]:
    """Returns the rows of one subject, and prints each as soon as it is known."""
    rows = []
    for row in importlib.import_module(f"benchmarks.{subject}").rows(quick):
        print("  " + "  ".join(cell for cell in row.cells if cell), flush=True)
        rows.append(row)
    return rows
