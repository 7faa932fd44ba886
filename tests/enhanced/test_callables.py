"""Operators and callable objects: what a call of them runs is the program."""

from __future__ import annotations

import functools

import pytest

import ember_xcs as xcs
from tests.enhanced.test_overlap import meeting

meet = meeting(2)


class Asks(xcs.Operator):
    def forward(self, text: str) -> list[str]:
        return [meet(text), meet(text)]


class Checked(xcs.Operator):
    def forward(self, text: str) -> tuple[str, str]:
        return meet(text), meet(text)


class Called:
    def __call__(self, text):
        return [meet(text), meet(text)]


def plain(mark, text, *, end=""):
    return [meet(mark + text + end), meet(mark + text + end)]


@pytest.mark.parametrize("given", [Asks(), Called(), functools.partial(plain, "")])
def test_the_calls_of_what_is_no_plain_function_overlap(given):
    f = xcs.jit(given, mode="enhanced")
    assert f("a") == ["a", "a"]
    assert f.selection("a").strategy == "enhanced"


def test_the_calls_of_a_method_and_of_a_partial_with_keywords_overlap():
    f = xcs.jit(functools.partial(plain, end="!"), mode="enhanced")
    assert f("<", "a") == ["<a!", "<a!"]


@pytest.mark.parametrize("given", [Asks(), Checked()])
def test_an_operator_that_a_program_calls_is_part_of_it(given):
    def program(text):
        return list(given(text))

    assert xcs.jit.enhanced(program)("a") == ["a", "a"]


def test_what_an_operator_is_given_must_fit():
    with pytest.raises(xcs.OperatorInputError):
        xcs.jit(Asks(), mode="enhanced")("a", "b")
