"""The benchmarks' own measuring: ratios, verdicts, the table. Speed itself is not tested."""

from __future__ import annotations

import importlib

import pytest

from benchmarks.__main__ import SUBJECTS
from benchmarks.harness import Row, compare, ratio_row, skipped, table


def test_sides_are_measured_in_turn_and_by_the_clock_that_is_given() -> None:
    now = 0.0

    def work(seconds: float) -> None:
        nonlocal now
        now += seconds

    sides = {"slow": lambda: work(3.0), "quick": lambda: work(1.0)}
    times = compare(3, sides, number=2, clock=lambda: now)
    assert times == {"slow": 3.0, "quick": 1.0}


def test_ratio_is_how_much_slower_or_how_many_times_faster() -> None:
    times = {"ours": 2.0, "theirs": 8.0}
    assert ratio_row("x", times, "ours", "theirs").value == 0.25
    assert ratio_row("x", times, "ours", "theirs", faster=True).value == 4.0


@pytest.mark.parametrize(
    ("value", "bar", "at_least", "verdict"),
    [
        (1.1, 1.15, False, "ok"),
        (1.2, 1.15, False, "MISSED"),
        (4.0, 5.0, True, "MISSED"),
        (6.0, 5.0, True, "ok"),
        (6.0, None, False, ""),
        (None, 5.0, True, "skipped"),
    ],
)
def test_verdict_follows_the_bar(
    value: float | None, bar: float | None, at_least: bool, verdict: str
) -> None:
    assert Row("x", value, bar, at_least).verdict == verdict


def test_table_has_a_line_for_each_row_and_says_what_was_skipped() -> None:
    text = table([Row("a", 1.0, 2.0), skipped("b", "dask")])
    assert [line.count("|") for line in text.splitlines()] == [6] * 4
    assert "dask is not installed" in text


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_subject_has_rows(subject: str) -> None:
    assert callable(importlib.import_module(f"benchmarks.{subject}").rows)
