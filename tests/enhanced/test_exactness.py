"""Enhanced functions do what plain Python does; the oracle is the function itself."""

from __future__ import annotations

import linecache
import threading
import traceback

import pytest

import ember_xcs as xcs

SECONDS = 20


@xcs.host
def ask(text):
    if "bad" in str(text):
        raise ValueError(f"no {text}")
    return f"<{text}>"


def same(function, *args):
    assert xcs.jit.enhanced(function)(*args) == function(*args)


def test_a_failure_is_caught_where_plain_python_catches_it():
    def program(text):
        x, seen = 0, []
        try:
            seen.append(ask(text))
            x = 1
            y = ask("bad")
            x = 2
            seen.append(y)
        except ValueError as error:
            seen.append(str(error))
        else:
            seen.append("else")
        finally:
            seen.append("finally")
        return x, seen

    same(program, "a")


def test_a_variable_is_unbound_where_plain_python_leaves_it_unbound():
    def program(text):
        try:
            found = ask("bad " + text)
        except ValueError:
            seen = True
        try:
            return found, seen
        except UnboundLocalError:
            return "unbound", seen

    same(program, "a")


def test_the_first_failure_in_program_order_is_raised():
    slow = threading.Event()

    @xcs.host
    def fails_late(text):
        assert slow.wait(SECONDS)
        raise KeyError(text)

    @xcs.host
    def fails_first(text):
        slow.set()
        raise ValueError(text)

    def program(text):
        first = fails_late(text)
        return first, fails_first(text)

    with pytest.raises(KeyError, match="a"):
        xcs.jit.enhanced(program)("a")


def test_an_error_of_the_program_gives_way_to_an_earlier_one_of_a_call():
    def program(text):
        found = ask("bad")
        return found, {}[text]

    with pytest.raises(ValueError, match="no bad"):
        xcs.jit.enhanced(program)("a")


def test_a_traceback_shows_the_line_of_the_call():
    def helper(text):
        return ask("bad " + text)  # the call

    def program(text):
        x = helper(text)  # the helper
        return x, ask("good")

    with pytest.raises(ValueError, match="no bad a") as caught:
        xcs.jit.enhanced(program)("a")
    frames = traceback.extract_tb(caught.value.__traceback__)
    lines = [frame.line for frame in frames if frame.filename == __file__]
    assert [line.rpartition("# ")[2] for line in lines[1:3]] == ["the helper", "the call"]
    assert not [frame for frame in frames[-4:] if "_enhanced" in frame.filename]


def test_a_failure_prevents_what_other_code_could_see():
    class Sink:
        value = None

    sink, table, plain = Sink(), {}, []

    def program(text):
        ask("bad")
        plain.append(text)
        table["x"] = text
        sink.value = text

    with pytest.raises(ValueError, match="no bad"):
        xcs.jit.enhanced(program)("a")
    assert (sink.value, table, plain) == (None, {}, [])


def test_operators_get_their_arguments_as_they_were():
    gate = threading.Event()

    @xcs.host
    def count(items):
        assert gate.wait(SECONDS)
        return len(items)

    @xcs.host
    def opens():
        gate.set()

    def program(text):
        items = [text]
        before = count(items)
        items.append(text)
        opens()
        return before, count(items), items

    assert xcs.jit.enhanced(program)("a") == (1, 2, ["a", "a"])


def test_side_effects_happen_in_program_order_after_what_came_before():
    done, gate = [], threading.Event()

    @xcs.host
    def held(text):
        assert gate.wait(SECONDS)
        done.append("held")
        return text

    @xcs.host(side_effects=True)
    def write(text):
        done.append(text)

    @xcs.host
    def opens():
        gate.set()

    def program(text):
        held(text)
        write("one")
        write("two")
        opens()

    xcs.jit.enhanced(program)("a")
    assert done == ["held", "one", "two"]


def test_a_call_behind_a_branch_is_not_made_before_the_branch_is_decided():
    calls = []

    @xcs.host
    def counted(text):
        calls.append(text)
        return text

    def program(text):
        if counted(text) == "never":
            return counted("behind")
        return text

    assert xcs.jit.enhanced(program)("a") == "a"
    assert calls == ["a"]


def test_aliases_stay_aliases():
    def program(text):
        inner = {"x": ask(text)}
        outer = [inner, inner]
        best = max(outer, key=lambda d: d["x"])
        best["y"] = ask("y")
        return outer, best is inner, outer[0] is outer[1]

    same(program, "a")


def test_arguments_are_changed_in_place():
    def program(items):
        items.append(ask("x"))
        items[0] = ask(items[0])

    items = ["a"]
    xcs.jit.enhanced(program)(items)
    assert items == ["<a>", "<x>"]


def test_generators_recursion_defaults_and_stars():
    def program(text, *rest, mark="!", **more):
        def numbers(n):
            if n:
                yield ask(n)
                yield from numbers(n - 1)

        def depth(n, found=()):
            return found if n == 0 else depth(n - 1, (*found, ask(n)))

        first, *others = [ask(r) for r in rest]
        return list(numbers(3)), depth(3), first, others, mark, more, {**more, "t": ask(text)}

    enhanced = xcs.jit.enhanced(program)
    assert enhanced("a", 1, 2, 3, k=4) == program("a", 1, 2, 3, k=4)


def test_statements_that_wait_find_values():
    def program(text):
        count, total = 0, ""
        while len(total) < 12:
            count += 1
            total += ask(count)
        match ask(text):
            case "<a>" if (n := len(total)) > 3:
                found = n
            case _:
                found = None
        assert 0 < len(ask("x")) < 4 < count + 40, "chained"
        return count, total, found, ask("q") if ask("p") else None, not ask("z")

    same(program, "a")


def test_nonlocal_global_and_class_bodies():
    def program(text):
        count = 0

        def more():
            nonlocal count
            count += len(ask(text))
            return count

        class Local:
            value = ask(text)

            def get(self):
                return self.value + ask("m")

        return more(), more(), count, Local().get(), Local.__qualname__[-5:]

    same(program, "a")


def test_contexts_see_the_failures_of_their_bodies():
    class Swallow:
        def __init__(self):
            self.seen = None

        def __enter__(self):
            return self

        def __exit__(self, kind, error, where):
            self.seen = kind
            return True

    def program(text):
        with Swallow() as context:
            x = ask("bad")
            x = ask(text)
        return context.seen, "x" in locals()

    same(program, "a")


def test_lambdas_on_one_line_are_told_apart():
    pair = [lambda t: ask(t) if t else t, lambda t: (lambda u: ask(u) * 2)(t) + ""]
    compiled = [xcs.jit.enhanced(one) for one in pair]
    assert [one("a") for one in compiled] == ["<a>", "<a><a>"]
    assert [one.strategy for one in compiled] == ["enhanced", "enhanced"]


def test_the_switch_in_the_environment_turns_it_off(monkeypatch):
    monkeypatch.setenv("EMBER_XCS_ENHANCED", "0")
    f = xcs.jit.enhanced(lambda text: ask(text) + "")
    assert f("a") == "<a>"
    explanation = xcs.explain_jit_selection(f, "a")
    assert explanation.strategy == "python"
    assert "EMBER_XCS_ENHANCED" in str(explanation)


def made(source, filename, *, is_kept):
    names = {"ask": ask}
    if is_kept:
        linecache.cache[filename] = len(source), None, source.splitlines(keepends=True), filename
    exec(compile(source, filename, "exec"), names)
    return names["program"]


def test_code_without_source_runs_as_plain_python_and_says_so():
    program = made("def program(text):\n    return ask(text)\n", "<nowhere>", is_kept=False)
    f = xcs.jit(program, mode="enhanced")
    assert f("a") == "<a>"
    assert f.strategy == "python"
    assert "source cannot be had" in str(xcs.explain_jit_selection(f, "a"))


def test_code_typed_in_a_notebook_is_rewritten():
    program = made("def program(text):\n    return ask(text)\n", "<cell 1>", is_kept=True)
    f = xcs.jit(program, mode="enhanced")
    assert f("a") == "<a>"
    assert f.strategy == "enhanced"


def test_coroutine_functions_run_as_plain_python():
    async def program(text):
        return await later(text)

    @xcs.host
    async def later(text):
        return text + "!"

    import asyncio

    f = xcs.jit.enhanced(program)
    assert asyncio.run(f.acall("a")) == "a!"
    assert "async def" in str(xcs.explain_jit_selection(f, "a"))


def test_without_recursion_helpers_run_as_they_are():
    order = []

    @xcs.host
    def noted(text):
        order.append(text)
        return text

    def helper(text):
        first = noted(text)
        order.append("between")
        return first + noted("last")

    assert xcs.jit(lambda t: helper(t) + "", mode="enhanced", recursive=False)("a") == "alast"
    assert order == ["a", "between", "last"]
