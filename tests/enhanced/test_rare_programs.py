"""What few programs do: code given as a text, compiled functions within, very deep results."""

from __future__ import annotations

import pytest

import ember_xcs as xcs
from tests.enhanced.test_overlap import meeting


@xcs.host
def ask(text):
    return f"<{text}>"


def evaluated(text):
    found = ask(text)  # noqa: F841  (read by the text)
    return eval("found + '!'")


def executed(text):
    found = [ask(text)]
    exec("found.append('!')")
    return found


def executed_then_evaluated(text):
    found = ask(text)  # noqa: F841  (read by the text)
    exec("made = found + '!'")
    return eval("(made, found)")


def evaluated_within_a_dict(text):
    found = ask(text)
    return eval("found + other", {"other": "?", "found": found})


def all_variables(text):
    found = ask(text)
    return vars(), locals()


@pytest.mark.parametrize("program", [evaluated, executed, evaluated_within_a_dict, all_variables])
def test_code_that_is_a_text_finds_values(program):
    assert xcs.jit.enhanced(program)("a") == program("a")


def test_what_a_text_assigns_is_found_by_the_next_as_in_plain_python():
    assert xcs.jit.enhanced(executed_then_evaluated)("a") == executed_then_evaluated("a")


def test_calls_of_a_compiled_function_overlap_whatever_its_arguments_are():
    meet = meeting(3)

    @xcs.jit.enhanced
    def inner(k):
        return meet(k)

    def program(n):
        return [inner(k) for k in range(n)]

    assert xcs.jit(program, mode="enhanced")(3) == [0, 1, 2]


def depth_of(value):
    count = 0
    while type(value) in (list, tuple) and value:
        value, count = value[-1], count + 1
    return count


def test_a_list_within_lists_may_be_deeper_than_the_recursion_limit():
    def program(n):
        found = ask("a")
        for _ in range(n):
            found = [found]
        return found

    assert depth_of(xcs.jit(program, mode="enhanced")(3000)) == 3000


def test_a_tuple_within_tuples_may_be_deeper_than_the_recursion_limit():
    def program(n):
        found = ()
        for k in range(n):
            found = (ask(k), found)
        return found

    assert depth_of(xcs.jit(program, mode="enhanced")(3000)) == 3000
