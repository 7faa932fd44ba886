"""Small programs about one rule of Python each give by ``enhanced`` what plain Python gives."""

from __future__ import annotations

from pathlib import Path

import pytest

import ember_xcs as xcs
from tests.properties.programs.cases import CASES
from tests.properties.programs.checking import Checker

# Each makes other calls slow.
WORLDS = range(4)


@pytest.mark.parametrize("name", CASES)
def test_enhanced_keeps_the_rule_that(name: str, tmp_path: Path) -> None:
    checker = Checker(xcs.jit.enhanced, tmp_path)
    assert [checker.fault(CASES[name], world) for world in WORLDS] == [None] * len(WORLDS)
