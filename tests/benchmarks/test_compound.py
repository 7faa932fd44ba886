"""The programs of the benchmark give the same however they are run; their speed is not tested."""

from __future__ import annotations

import asyncio
import importlib

import pytest

import ember_xcs as xcs
from benchmarks.compound import PROGRAMS, mocks, triage


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mocks, "factor", 0.0)


@pytest.mark.parametrize("name", PROGRAMS)
def test_by_hand_gives_what_the_program_gives(name: str) -> None:
    module = importlib.import_module(f"benchmarks.compound.{name}")
    plain = module.program(*module.ARGUMENTS)
    assert asyncio.run(module.by_hand(*module.ARGUMENTS)) == plain


@pytest.mark.parametrize("name", PROGRAMS)
def test_enhanced_gives_what_the_program_gives(name: str) -> None:
    module = importlib.import_module(f"benchmarks.compound.{name}")
    plain = module.program(*module.ARGUMENTS)
    assert xcs.jit.enhanced(module.program)(*module.ARGUMENTS) == plain


def test_mails_are_handled_alike_by_vmap() -> None:
    (mails,) = triage.ARGUMENTS
    handled = triage.program(mails)
    mapped = xcs.vmap(triage.handle)(mails)
    assert mapped == {key: [mail[key] for mail in handled] for key in ("kind", "reply")}
