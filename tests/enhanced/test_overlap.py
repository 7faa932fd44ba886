"""Which calls of an enhanced function are in flight together: shown by calls that meet."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import json
import threading

import jax
import jax.numpy as jnp
import pytest

import ember_xcs as xcs

SECONDS = 20


def meeting(count: int):
    """Returns an operator whose calls end only when so many are in flight at once."""
    barrier = threading.Barrier(count)

    @xcs.host
    def meet(value):
        barrier.wait(SECONDS)
        return value

    return meet


def awaited_meeting(count: int):
    here: list[asyncio.Future] = []

    @xcs.host
    async def meet(value):
        mine = asyncio.get_running_loop().create_future()
        here.append(mine)
        if len(here) == count:
            for one in here:
                one.set_result(None)
        await asyncio.wait_for(mine, SECONDS)
        return value

    return meet


@pytest.mark.parametrize("operator", [meeting, awaited_meeting])
def test_calls_in_a_row_overlap(operator):
    meet = operator(2)

    def program(text):
        first = meet(text)
        second = meet(text + "!")
        return first, second

    assert xcs.jit.enhanced(program)("a") == ("a", "a!")


def test_two_hundred_blocking_calls_are_in_flight_at_once():
    meet = meeting(200)

    def program(n):
        return [meet(k) for k in range(n)]

    assert xcs.jit.enhanced(program)(200) == list(range(200))


def test_calls_of_a_helper_overlap_with_those_of_its_caller():
    meet = meeting(3)

    def helper(text):
        parts = []
        for mark in "!?":
            parts.append(meet(text + mark))  # noqa: PERF401  (as people write it)
        return " ".join(parts)

    def program(text):
        both = helper(text)
        return f"{both} and {meet(text)}"

    assert xcs.jit.enhanced(program)("a") == "a! a? and a"


def test_methods_closures_and_lambdas_overlap():
    meet = meeting(3)

    class Agent:
        def __init__(self, name):
            self.__name = name

        def say(self, text):
            return meet(f"{self.__name}: {text}")

    def program(text):
        def within(mark):
            return meet(text + mark)

        return [Agent("x").say(text), within("!"), (lambda t: meet(t * 2))(text)]

    # The constructor is code that is not known: it comes before the calls.
    assert xcs.jit.enhanced(program)("a") == ["x: a", "a!", "aa"]


def test_expressions_on_results_do_not_wait():
    meet = meeting(5)

    def program(text):
        a = meet(json.dumps({"n": 1, "tags": ["x"]}))
        data = json.loads(a)
        b = meet("b").upper()
        c = sorted([meet("z"), meet("y")])
        total = len(b) + 1
        total += data["n"]
        d = meet("d")
        return data["tags"][0], b[0], c, f"{total:>4}", d

    assert xcs.jit.enhanced(program)("a") == ("x", "B", ["y", "z"], "   3", "d")


def test_a_record_is_made_before_its_fields_are_there():
    meet = meeting(4)

    @dataclasses.dataclass
    class Answer:
        text: str
        scores: list

    def program(texts):
        return [Answer(meet(t), [meet(1)]) for t in texts]

    assert xcs.jit.enhanced(program)(["a", "b"]) == [Answer("a", [1]), Answer("b", [1])]


def test_a_named_place_waits_for_its_own_value_alone():
    gate, meet = threading.Event(), meeting(1)

    @xcs.host
    def held(text):
        assert gate.wait(SECONDS)
        return text

    @xcs.host
    def opens(text):
        gate.set()
        return text

    def program(text):
        results = {"slow": held(text), "fast": meet(text)}
        results["next"] = opens("for {fast}".format(**results))
        return results

    assert xcs.jit.enhanced(program)("a") == {"slow": "a", "fast": "a", "next": "for a"}


def test_samples_of_an_ensemble_overlap():
    meet = meeting(3)
    ensemble = xcs.Ensemble(meet, 3)

    def program(text):
        return ", ".join(ensemble(text))

    assert xcs.jit.enhanced(program)("a") == "a, a, a"


def test_a_composite_operator_is_part_of_the_program():
    meet = meeting(2)

    class Both(xcs.Operator):
        ask: xcs.Operator

        def forward(self, text):
            first = self.ask(text)
            return first + self.ask("b")

    assert xcs.jit.enhanced(Both(meet))("a") == "ab"


def test_a_mapped_call_overlaps_with_others():
    meet = meeting(3)
    mapped = xcs.vmap(meet)

    def program(texts):
        found = mapped(texts)
        last = meet("c")
        return found, last

    assert xcs.jit.enhanced(program)(["a", "b"]) == (["a", "b"], "c")


def test_an_enhanced_function_within_another_is_part_of_it():
    meet = meeting(2)

    @xcs.jit.enhanced
    def inner(text):
        return meet(text)

    def program(text):
        return inner(text), inner(text + "!")

    assert xcs.jit.enhanced(program)("a") == ("a", "a!")


def test_numeric_operators_are_jitted_and_wait_for_no_one():
    meet = meeting(2)
    traced = []

    @xcs.pure
    def double(x):
        traced.append(isinstance(x, jax.core.Tracer))
        return 2 * x

    def program(text, vector):
        first = double(meet(vector))
        return first, meet(text)

    first, second = xcs.jit.enhanced(program)("ab", jnp.arange(3))
    assert (first.tolist(), second, traced) == ([0, 2, 4], "ab", [True])


def test_the_context_of_the_program_reaches_its_calls():
    language = contextvars.ContextVar("language", default="none")

    @xcs.host
    def speak(text):
        return f"{language.get()}: {text}"

    def program(text):
        language.set("en")
        first = speak(text)
        language.set("fr")
        return first, speak(text)

    assert contextvars.copy_context().run(xcs.jit.enhanced(program), "a") == ("en: a", "fr: a")


def test_no_more_calls_are_in_flight_than_the_options_allow():
    lock, now, most = threading.Lock(), [0], [0]
    pause = threading.Event()

    @xcs.host
    def counted(k):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        pause.wait(0.002)
        with lock:
            now[0] -= 1
        return k

    def program(n):
        return [counted(k) for k in range(n)]

    f = xcs.jit(program, mode="enhanced", options={"max_workers": 3})
    assert f(20) == list(range(20))
    assert most[0] <= 3


def test_a_run_does_not_block_the_event_loop():
    meet = awaited_meeting(2)

    def program(text):
        return meet(text)

    async def two():
        f = xcs.jit.enhanced(program)
        return await asyncio.gather(f.acall("a"), f.acall("b"))

    assert asyncio.run(two()) == ["a", "b"]


def cpu_bound(n: int) -> int:
    return sum(range(n))


def test_calls_in_processes_are_calls_like_others():
    work = xcs.host(executor="process")(cpu_bound)

    def program(n):
        return [work(n), work(n + 1)]

    assert xcs.jit.enhanced(program)(4) == [6, 10]


def test_a_sum_of_many_results_waits_once():
    meet = meeting(100)

    def program(n):
        total, text = 0, ""
        for k in range(n):
            found = meet(k)
            total += found
            text += f"{found},"
        return total, len(text)

    assert xcs.jit.enhanced(program)(100) == (4950, 290)
