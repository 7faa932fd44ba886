"""Compound-AI programs in plain Python, run by ``enhanced``, against asyncio and themselves.

The programs are in ``benchmarks/compound``; all three ways give equal results.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import ember_xcs as xcs
from benchmarks.compound import PROGRAMS, triage
from benchmarks.harness import Row, compare, duration, ratio_row

BY_HAND_BAR, PLAIN_BAR, HELPER_BAR = 1.1, 1.05, 1.1
CALLS = 500

# Programs that branch on each of several independent items: only their author knows that they are.
BRANCHING = {"triage"}


def ways(module: ModuleType) -> dict[str, Callable[[], Any]]:
    """A program as it is, by hand with asyncio, and as ``enhanced`` runs it."""
    enhanced = xcs.jit.enhanced(module.program)
    return {
        "plain Python": lambda: module.program(*module.ARGUMENTS),
        "asyncio by hand": lambda: asyncio.run(module.by_hand(*module.ARGUMENTS)),
        "enhanced": lambda: enhanced(*module.ARGUMENTS),
    }


def program_rows(name: str, repeats: int) -> Iterator[Row]:
    sides = ways(importlib.import_module(f"benchmarks.compound.{name}"))
    check(sides)
    times = compare(repeats, sides)
    what = f"{name.replace('_', ' ')}, enhanced"
    bar = None if name in BRANCHING else BY_HAND_BAR
    yield ratio_row(what, times, "enhanced", "asyncio by hand", bar)
    yield ratio_row(what, times, "enhanced", "plain Python", PLAIN_BAR)


def check(sides: dict[str, Callable[[], Any]]) -> None:
    expected, *others = [side() for side in sides.values()]
    assert all(other == expected for other in others)


def mapped_row(repeats: int) -> Row:
    """The program that says that its items are independent."""
    (mails,) = triage.ARGUMENTS
    handle = xcs.vmap(triage.handle)
    hand = ways(triage)["asyncio by hand"]
    ours = "xcs.vmap of each mail"
    sides = {ours: lambda: handle(mails), "asyncio by hand": hand}
    assert handle(mails)["reply"] == [handled["reply"] for handled in hand()]
    return ratio_row("triage, xcs.vmap", compare(repeats, sides), ours, "asyncio by hand")


@xcs.host(executor="inline")
def inline(number: int) -> int:
    return number


@xcs.host
def blocking(number: int) -> int:
    return number


@xcs.host
async def awaiting(number: int) -> int:
    return number


def overhead_row(operator: Any, repeats: int) -> Row:
    """What a call costs that takes no time itself, beyond what it costs in plain Python."""

    def program(count: int) -> int:
        return sum([operator(number) for number in range(count)])

    enhanced = xcs.jit.enhanced(program)
    sides = {"plain Python": lambda: program(CALLS), "enhanced": lambda: enhanced(CALLS)}
    check(sides)
    times = compare(repeats, sides)
    ours, plain = times["enhanced"] / CALLS, times["plain Python"] / CALLS
    what = f"a call that takes no time, {operator.name}, enhanced"
    detail = f"plain Python: {duration(plain)}"
    return Row(what, ours * 1e6, unit="us", detail=detail)


def distance(left: str, right: str) -> int:
    previous = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        current = [i]
        for j, b in enumerate(right, 1):
            current.append(min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + (a != b)))
        previous = current
    return previous[-1]


def helper_row(repeats: int) -> Row:
    """A program that spends its time in a helper of plain Python."""

    def program(text: str) -> tuple[int, int]:
        return blocking(1), distance(text, "sitting" * 40)

    enhanced = xcs.jit.enhanced(program)
    text = "kitten" * 40
    sides = {"plain Python": lambda: program(text), "enhanced": lambda: enhanced(text)}
    check(sides)
    times = compare(repeats, sides)
    return ratio_row("a helper that computes", times, "enhanced", "plain Python", HELPER_BAR)


def rows(quick: bool = False) -> Iterator[Row]:
    repeats = 1 if quick else 7
    for name in PROGRAMS:
        yield from program_rows(name, repeats)
    yield mapped_row(repeats)
    yield helper_row(2 * repeats + 1)
    for operator in (inline, blocking, awaiting):
        yield overhead_row(operator, 2 * repeats + 1)
