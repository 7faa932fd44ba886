"""Random programs give, run by a strategy, all that plain Python gives.

``EMBER_XCS_PROGRAMS=5000`` sets how many programs are run.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import ember_xcs as xcs
from tests.properties.programs.checking import Checker

PROGRAMS = int(os.environ.get("EMBER_XCS_PROGRAMS", "300"))
SHARDS = 4
REDUCING_SECONDS = 30.0

# Programs are made small by the checker, which knows their syntax, rather than by their seeds.
many = settings(
    max_examples=max(1, PROGRAMS // SHARDS),
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
seeds = st.integers(0, 2**40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


@pytest.mark.parametrize("shard", range(SHARDS))
@given(seed=seeds)
@many
def test_enhanced_is_plain_python(folder: Path, shard: int, seed: int) -> None:
    checker = Checker(xcs.jit.enhanced, folder)
    fault = checker.fault_of_seed(seed * SHARDS + shard)
    if fault:
        pytest.fail(str(checker.smallest(fault, REDUCING_SECONDS)), pytrace=False)


@given(seed=seeds)
@settings(max_examples=25, phases=[Phase.explicit, Phase.generate])
def test_the_programs_do_the_same_each_time(folder: Path, seed: int) -> None:
    assert Checker(lambda function: function, folder).fault_of_seed(seed) is None


def with_copies(function: Callable[..., Any]) -> Callable[..., Any]:
    """Forgets what was done to the arguments."""
    return lambda *args: function(*copy.deepcopy(args))


def twice(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes all calls once more."""

    def run(*args: Any) -> Any:
        function(*copy.deepcopy(args))
        return function(*args)

    return run


def quietly(function: Callable[..., Any]) -> Callable[..., Any]:
    """Swallows exceptions."""

    def run(*args: Any) -> Any:
        with contextlib.suppress(Exception):
            return function(*args)
        return None

    return run


def copied(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns objects that are no longer those of the arguments and the module."""
    return lambda *args: copy.deepcopy(function(*args))


@pytest.mark.parametrize("wrong", [with_copies, twice, quietly, copied])
def test_the_comparison_finds_what_is_wrong(folder: Path, wrong: Any) -> None:
    checker = Checker(wrong, folder)
    assert any(checker.fault_of_seed(seed) for seed in range(40))


def test_a_fault_is_made_small(folder: Path) -> None:
    checker = Checker(quietly, folder)
    fault = next(found for seed in range(40) if (found := checker.fault_of_seed(seed)))
    smallest = checker.smallest(fault, REDUCING_SECONDS)
    assert checker.fault(smallest.source)
    assert len(smallest.source.splitlines()) < len(fault.source.splitlines()) / 3
