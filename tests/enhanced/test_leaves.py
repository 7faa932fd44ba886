"""Functions that call no operator run as they were written; the oracle is plain Python."""

from __future__ import annotations

import json
import math
import re
import sys
import threading
import traceback

import pytest

import ember_xcs as xcs

SECONDS = 20
WORD = re.compile(r"\w+")
SCALE = 2
NAMES = []


@xcs.host
def ask(text):
    if "bad" in str(text):
        raise ValueError(f"no {text}")
    return f"<{text}>"


def same(function, *args):
    assert xcs.jit.enhanced(function)(*args) == function(*args)


def tokens(text):
    found = {}
    for word in text.split():
        cleaned = word.strip(".,").lower()
        found[cleaned] = found.get(cleaned, 0) + 1
    return found


def distance(left, right):
    previous = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        current = [i]
        for j, b in enumerate(right, 1):
            current.append(min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + (a != b)))
        previous = current
    return previous[-1]


def factorial(number):
    return 1 if number < 2 else number * factorial(number - 1)


def is_even(number):
    return True if number == 0 else is_odd(number - 1)


def is_odd(number):
    return False if number == 0 else is_even(number - 1)


def guarded(items):
    try:
        return 1 / items[0]
    except (IndexError, ZeroDivisionError) as error:
        return str(error)


def parsed(text):
    pairs = [(w, math.sqrt(len(w))) for w in WORD.findall(text)]
    return json.dumps(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))


def append(items, value):
    items.append(value)
    return items


def scaled(value):
    return value * SCALE


def remember(value):
    NAMES.append(value)
    return len(NAMES)


def shout(items):
    items.append(1)
    return len(items)


def held(value):
    return [value, {"in": [value]}]


def first_of(rows):
    rows[0].append("x")
    return rows


def joined(items):
    return ",".join(str(item) for item in items)


@pytest.mark.parametrize(
    ("helper", "value"),
    [
        (tokens, "the cat, the Dog. the end"),
        (lambda text: distance(text, "sitting"), "kitten"),
        (factorial, 12),
        (is_even, 7),
        (guarded, []),
        (guarded, [0]),
        (parsed, "one three two"),
    ],
)
def test_a_helper_gives_what_plain_python_gives(helper, value):
    def program(given):
        asked = ask("x")
        return helper(given), asked

    same(program, value)


def spy():
    """A leaf, and what says which code it ran."""
    ran = []

    def watch(frame, event, _):
        if event == "call" and frame.f_code.co_name == "counted":
            ran.append(frame.f_code)

    return ran, watch


def counted(text):
    total = 0
    for letter in text:
        total += ord(letter)
    return total


def ran_code(program, *args):
    ran, watch = spy()
    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        xcs.jit.enhanced(program)(*args)
    finally:
        sys.setprofile(before)
    return ran


def test_a_leaf_runs_as_its_original_code():
    assert ran_code(lambda text: (counted(text), 1), "abc") == [counted.__code__]
    (code,) = ran_code(lambda text: (counted(text), 1), "abc")
    assert code is counted.__code__


def test_a_leaf_of_a_users_object_runs_rewritten():
    class Text:
        def __iter__(self):
            return iter("abc")

    def program():
        return counted(Text())

    (code,) = ran_code(program)
    assert code is not counted.__code__


def test_a_method_of_a_users_class_named_append_still_calls_its_operator():
    class Log:
        def __init__(self):
            self.items = []

        def append(self, value):
            self.items.append(ask(value))

        def __len__(self):
            return len(self.items)

    def program(text):
        log = Log()
        count = shout(log)
        return count, ask(text), log.items

    same(program, "a")


def test_a_shadowed_builtin_is_an_operator_call(monkeypatch):
    monkeypatch.setitem(globals(), "ord", xcs.host(lambda letter: 1000 + len(letter)))
    (code,) = ran_code(lambda text: (counted(text), 1), "abc")
    same(lambda text: (counted(text), 1), "abc")
    assert code is not counted.__code__


def test_a_global_may_change_between_calls(monkeypatch):
    function = xcs.jit.enhanced(lambda value: (scaled(value), 1))
    assert function(3) == (6, 1)
    monkeypatch.setitem(globals(), "SCALE", 5)
    assert function(3) == (15, 1)


def test_a_global_that_becomes_an_operator_object_is_no_data(monkeypatch):
    class Times:
        def __rmul__(self, other):
            return ask(other)

    monkeypatch.setitem(globals(), "SCALE", Times())
    same(lambda value: (scaled(value), 1), 3)


def test_pending_values_in_a_container_are_there_for_a_leaf():
    def program(text):
        items = [ask(text), {"deep": [ask("b")]}]
        return joined(items), len(items)

    same(program, "a")


def test_a_leaf_that_is_given_a_pending_value_does_not_wait():
    both = threading.Barrier(2)

    @xcs.host
    def meet(text):
        both.wait(SECONDS)
        return text

    def program(text):
        first = held(meet(text))
        second = held(meet("b"))
        return first, second

    assert xcs.jit.enhanced(program)("a") == (["a", {"in": ["a"]}], ["b", {"in": ["b"]}])


def test_what_a_leaf_makes_may_hold_pending_values_at_once():
    both = threading.Barrier(2)

    @xcs.host
    def meet(text):
        both.wait(SECONDS)
        return text

    def program():
        made = held("x")
        made.append(meet("a"))
        made.append(meet("b"))
        return made

    assert xcs.jit.enhanced(program)() == ["x", {"in": ["x"]}, "a", "b"]


def test_an_argument_of_the_caller_is_not_changed_after_a_failure():
    given = []

    def program(items):
        asked = ask("bad")
        append(items, 1)
        return asked

    with pytest.raises(ValueError, match="no bad"):
        xcs.jit.enhanced(program)(given)
    assert given == []


def test_a_global_is_not_changed_after_a_failure(monkeypatch):
    monkeypatch.setitem(globals(), "NAMES", [])

    def program():
        asked = ask("bad")
        remember("a")
        return asked

    with pytest.raises(ValueError, match="no bad"):
        xcs.jit.enhanced(program)()
    assert NAMES == []


def test_an_item_of_the_callers_is_not_changed_through_a_list_of_the_programs():
    given = []

    def program(items):
        rows = [items]
        asked = ask("bad")
        first_of(rows)
        return asked

    with pytest.raises(ValueError, match="no bad"):
        xcs.jit.enhanced(program)(given)
    assert given == []


def test_what_a_leaf_puts_into_an_argument_can_be_seen_by_others():
    def program(items):
        mine = []
        append(items, mine)
        try:
            asked = ask("bad")
            mine.append(1)
            return asked
        except ValueError:
            return list(items)

    assert xcs.jit.enhanced(program)([]) == program([])


def test_an_earlier_failure_comes_before_that_of_a_leaf():
    def program(text):
        asked = ask("bad")
        found = factorial(text)
        return asked, found

    with pytest.raises(ValueError, match="no bad"):
        xcs.jit.enhanced(program)("a")


def test_the_traceback_of_a_leaf_has_the_users_own_lines():
    def program(items):
        return scaled(items), tokens(items)

    def lines(function):
        with pytest.raises(AttributeError) as caught:
            function([])
        frames = traceback.extract_tb(caught.value.__traceback__)
        mine = [f for f in frames if f.filename == __file__ and f.name in ("program", "tokens")]
        return [(f.name, f.lineno) for f in mine]

    assert lines(xcs.jit.enhanced(program)) == lines(program)
