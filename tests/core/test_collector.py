"""The collector is paused while many objects are made, and left as it was found."""

from __future__ import annotations

import gc

import pytest

from ember_xcs._core.collector import uncollected


@pytest.fixture(autouse=True)
def _as_it_was():
    was = gc.isenabled()
    gc.enable()
    yield
    gc.unfreeze()
    (gc.enable if was else gc.disable)()


def test_it_is_paused_for_many_things_and_goes_on() -> None:
    with uncollected(1001):
        assert not gc.isenabled()
    assert gc.isenabled()
    with uncollected(10):
        assert gc.isenabled()


def test_a_program_that_does_without_it_goes_on_without_it() -> None:
    gc.disable()
    with uncollected():
        pass
    assert not gc.isenabled()


def test_what_was_made_is_not_looked_at_again_soon() -> None:
    with uncollected():
        made = [[number] for number in range(1000)]
    old = {id(thing) for thing in gc.get_objects(generation=2)}
    assert {id(thing) for thing in made} <= old
    assert gc.get_freeze_count() == 0


def test_what_a_program_has_frozen_stays_frozen() -> None:
    gc.freeze()
    frozen = gc.get_freeze_count()
    with uncollected():
        pass
    assert gc.get_freeze_count() >= frozen - 10  # some of it may have been freed meanwhile


def test_an_exception_leaves_it_as_it_was() -> None:
    with pytest.raises(ValueError, match="within"), uncollected():
        raise ValueError("within")
    assert gc.isenabled()
