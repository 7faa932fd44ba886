"""Operator methods of the user's own classes are code of the user's, whatever their form."""

from __future__ import annotations

import threading

import pytest

import ember_xcs as xcs
from ember_xcs._enhanced.pending import Pending
from ember_xcs._enhanced.special_methods import ON_VALUES


@pytest.mark.parametrize("name", ["or", "and", "xor", "lshift", "divmod", "add", "rshift"])
def test_a_reflected_operator_of_the_users_waits_for_all_earlier_calls(name) -> None:
    used = threading.Event()
    sink = type("Sink", (), {f"__r{name}__": lambda self, other: used.set()})()

    @xcs.host
    def fails(q: str) -> str:
        used.wait(0.2)
        raise ValueError("first")

    @xcs.host
    def number(q: str):
        return 1

    programs = {
        "or": lambda q: (fails(q), number(q) | sink),
        "and": lambda q: (fails(q), number(q) & sink),
        "xor": lambda q: (fails(q), number(q) ^ sink),
        "lshift": lambda q: (fails(q), number(q) << sink),
        "rshift": lambda q: (fails(q), number(q) >> sink),
        "add": lambda q: (fails(q), number(q) + sink),
        "divmod": lambda q: (fails(q), divmod(number(q), sink)),
    }
    with pytest.raises(ValueError, match="first"):
        xcs.jit.enhanced(programs[name])("q")
    assert not used.is_set()


def test_an_operator_in_place_of_the_users_waits_for_all_earlier_calls() -> None:
    used = threading.Event()

    class Log:
        def __ior__(self, other):
            used.set()
            return self

    log = Log()

    @xcs.host
    def fails(q: str) -> str:
        used.wait(0.2)
        raise ValueError("first")

    @xcs.host
    def number(q: str):
        return 1

    def program(q):
        x, mine = fails(q), log
        mine |= number(q)
        return x

    with pytest.raises(ValueError, match="first"):
        xcs.jit.enhanced(program)("q")
    assert not used.is_set()


@pytest.mark.parametrize("name", sorted(ON_VALUES - {"__repr__"}))
def test_a_pending_value_refuses_to_be_operated_on(name) -> None:
    pending = Pending(0, "thread", "slow#1", str, [], {}, [])
    with pytest.raises(xcs.XCSError, match=rf"<pending slow#1> reached code .*\({name}\)"):
        getattr(type(pending), name)(pending)
