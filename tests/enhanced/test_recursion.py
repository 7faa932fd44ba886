"""Functions of a module that call themselves, or name the class that they stand in."""

from __future__ import annotations

import ember_xcs as xcs
from tests.enhanced.test_overlap import meeting

meet = meeting(4)
meet_in_class = meeting(2)


def chain(n):
    found = meet(n)
    return [found] + (chain(n - 1) if n else [])


class Tree:
    @staticmethod
    def leaf(text):
        return meet_in_class(text)

    def both(self, text):
        return [Tree.leaf(text), Tree.leaf(text)]

    def __hidden(self, text):
        return Tree.__name__ + text

    def name(self, text):
        return self.__hidden(text)


def test_the_calls_of_a_recursive_function_of_a_module_overlap():
    assert xcs.jit.enhanced(chain)(3) == [3, 2, 1, 0]


def test_a_method_may_name_its_own_class():
    assert xcs.jit.enhanced(Tree().both)("a") == ["a", "a"]


def test_private_names_are_those_of_the_class():
    f = xcs.jit.enhanced(Tree().name)
    assert f("a") == "Treea"
    assert f.selection("a").strategy == "enhanced"
