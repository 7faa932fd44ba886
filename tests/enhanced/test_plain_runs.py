"""The options of a run hold for what is not rewritten, although no call of it overlaps."""

from __future__ import annotations

import asyncio
import threading

import pytest

import ember_xcs as xcs

SECONDS = 20


@xcs.host
def ask(text):
    return text


@xcs.host
async def ask_later(text):
    return text


def without_source(name):
    code = f"def {name}(ask):\n    return [ask(k) for k in range(4)]\n"
    made = {}
    exec(code, made)
    return made[name]


def guarded(n):
    for k in range(n):
        try:
            yield ask(k)
        finally:
            pass


def steps(n):
    for k in range(n):
        yield ask(k)


async def coroutine(n):
    return [await ask_later(k) for k in range(n)]


TWO_CALLS = {"budget": xcs.Budget(calls=2)}


def test_a_budget_holds_without_source():
    f = xcs.jit(without_source("made"), mode="enhanced", options=TWO_CALLS)
    with pytest.raises(xcs.BudgetExceeded):
        f(ask)


@pytest.mark.parametrize("program", [guarded, steps])
def test_a_budget_holds_for_the_steps_of_a_generator(program):
    found = []
    with pytest.raises(xcs.BudgetExceeded):
        found.extend(xcs.jit(program, mode="enhanced", options=TWO_CALLS)(4))
    with pytest.raises(xcs.BudgetExceeded), xcs.execution_options(budget=xcs.Budget(calls=2)):
        found.extend(xcs.jit(program, mode="enhanced")(4))
    assert found == [0, 1, 0, 1]


def test_a_budget_holds_for_a_coroutine():
    f = xcs.jit(coroutine, mode="enhanced", options=TWO_CALLS)
    with pytest.raises(xcs.BudgetExceeded):
        asyncio.run(f(4))
    assert asyncio.run(f(2)) == [0, 1]


@pytest.mark.parametrize("program", [without_source("made"), lambda call: list(each_of(call))])
def test_failed_calls_are_tried_again(program):
    tries = []

    @xcs.host
    def flaky(value):
        tries.append(value)
        if len(tries) == 1:
            raise ConnectionError("down")
        return value

    retry = xcs.Retry(attempts=2, initial_seconds=0.001)
    f = xcs.jit(program, mode="enhanced", options={"retry": retry})
    assert f(flaky) == [0, 1, 2, 3]
    assert tries == [0, 0, 1, 2, 3]


def each_of(call):
    for k in range(4):
        try:
            yield call(k)
        finally:
            pass


def test_a_plain_function_is_left_at_its_deadline():
    hold = threading.Event()

    @xcs.host
    def wait(value):
        hold.wait(SECONDS)
        return value

    f = xcs.jit(without_source("made"), mode="enhanced", options={"timeout_seconds": 0.05})
    try:
        with pytest.raises(xcs.ExecutionTimeout, match="deadline"):
            f(wait)
    finally:
        hold.set()


def test_a_coroutine_is_cancelled_at_its_deadline():
    async def never():
        await asyncio.Event().wait()

    f = xcs.jit(never, mode="enhanced", options={"timeout_seconds": 0.05})
    with pytest.raises(xcs.ExecutionTimeout, match=r"'never' passed its deadline of 0\.05 s"):
        asyncio.run(f())


def test_a_generator_ends_at_the_first_step_after_its_deadline():
    made = xcs.jit(endless, mode="enhanced", options={"timeout_seconds": 0.05})()
    with pytest.raises(xcs.ExecutionTimeout, match="'endless' passed its deadline"):
        for _ in made:
            pass


def endless():
    while True:
        yield ask("again")


def test_a_generator_under_options_receives_what_it_is_sent_and_returns():
    def echo():
        found = []
        try:
            found.append((yield ask("first")))
            yield ask("second")
        except KeyError as error:
            found.append(error.args)
        return found

    made = xcs.jit(echo, mode="enhanced", options=TWO_CALLS)()
    assert next(made) == "first"
    assert made.send("sent") == "second"
    with pytest.raises(StopIteration) as ended:
        made.throw(KeyError("thrown"))
    assert ended.value.value == ["sent", ("thrown",)]
