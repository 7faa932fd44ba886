"""The options of a run hold for the calls of an enhanced function."""

from __future__ import annotations

import threading
import time

import pytest

import ember_xcs as xcs
from tests.counting import Calls

SECONDS = 20


def upper(text):
    return text.upper()


def test_failed_calls_are_tried_again():
    tries = []

    @xcs.host
    def flaky(text):
        tries.append(text)
        if len(tries) < 3:
            raise ConnectionError("down")
        return text

    def program(text):
        return flaky(text) + "!"

    retry = xcs.Retry(attempts=3, initial_seconds=0.001)
    assert xcs.jit(program, mode="enhanced", options={"retry": retry})("a") == "a!"
    assert len(tries) == 3


def test_a_budget_ends_the_run():
    @xcs.host
    def ask(text):
        return text

    def program(text):
        return [ask(text) for _ in range(5)]

    with pytest.raises(xcs.BudgetExceeded):
        xcs.jit(program, mode="enhanced", options={"budget": xcs.Budget(calls=3)})("a")


def test_results_of_deterministic_operators_come_from_the_cache():
    calls = Calls()
    ask = calls.host(upper, deterministic=True)

    def program(text):
        return ask(text)

    f = xcs.jit(program, mode="enhanced", options={"cache": xcs.ResultCache()})
    assert [f("a"), f("a")] == ["A", "A"]
    assert calls.seen == ["a"]


def test_finished_calls_are_not_made_twice_with_a_journal(tmp_path):
    calls, killed = Calls(), Calls()
    ask = calls.host(upper)

    @killed.host
    def last(text):
        if len(killed) == 1:
            raise KeyError("killed")
        return text

    def program(text):
        both = [ask(text), ask(text + "!")]
        return (both, last(text)) if both else None

    f = xcs.jit(program, mode="enhanced", options={"journal": str(tmp_path / "run.db")})
    with pytest.raises(KeyError):
        f("a")
    assert f("a") == (["A", "A!"], "a")
    assert calls.sorted == ["a", "a!"]


def test_a_deadline_ends_the_run_while_a_call_is_in_flight():
    over = threading.Event()

    @xcs.host
    def stuck(text):
        over.wait(SECONDS)
        return text

    def program(text):
        return stuck(text) + "!"

    started = time.monotonic()
    with pytest.raises(xcs.ExecutionTimeout):
        xcs.jit(program, mode="enhanced", options={"timeout_seconds": 0.1})("a")
    assert time.monotonic() - started < SECONDS / 2
    over.set()


def test_a_call_that_takes_longer_than_its_operator_allows_fails():
    over = threading.Event()

    @xcs.host(timeout=0.05)
    def stuck(text):
        over.wait(SECONDS)
        return text

    def program(text):
        try:
            return stuck(text) + "!"
        except xcs.ExecutionTimeout:
            return "late"

    assert xcs.jit.enhanced(program)("a") == "late"
    over.set()


def test_calls_of_code_that_is_not_known_go_through_the_policies_too():
    calls = []

    @xcs.host
    def ask(text):
        calls.append(text)
        return text

    def program(texts):
        return list(map(ask, texts))

    with pytest.raises(xcs.BudgetExceeded):
        xcs.jit(program, mode="enhanced", options={"budget": xcs.Budget(calls=1)})(["a", "b"])
    assert calls == ["a"]


def test_a_sequential_scheduler_makes_one_call_after_another():
    now, most, lock = [0], [0], threading.Lock()

    @xcs.host
    def counted(k):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        with lock:
            now[0] -= 1
        return k

    def program(n):
        return [counted(k) for k in range(n)]

    f = xcs.jit(program, mode="enhanced", options={"scheduler": "sequential"})
    assert f(5) == list(range(5))
    assert most[0] == 1


def test_ctrl_c_in_the_program_is_raised_at_once():
    gate = threading.Event()

    @xcs.host
    def held(text):
        gate.wait(SECONDS)
        return text

    def interrupt():
        raise KeyboardInterrupt

    @xcs.host(executor="inline")
    def interrupted():
        interrupt()

    def program(text):
        held(text)
        interrupted()

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        xcs.jit.enhanced(program)("a")
    assert time.monotonic() - started < SECONDS / 2
    gate.set()


def test_a_run_says_which_calls_overlapped_and_where_it_waited():
    both = threading.Barrier(2)

    @xcs.host
    def judge(text):
        both.wait(SECONDS)
        time.sleep(0.05)
        return len(text)

    def program(text):
        scores = [judge(text), judge(text)]
        if scores[1] > 1:
            return "long"
        return "short"

    f = xcs.jit.enhanced(program)
    assert f("ab") == "long"
    report = f.explain()
    assert [set(pair) for pair in report.overlapping()] == [{"judge#1", "judge#2"}]
    (wait,) = [w for w in report.waits if w.text.startswith("if")]
    assert wait.text == "if scores[1] > 1:"
    assert wait.longest == "judge#2"
    text = str(report)  # tells them in the order in which they began
    assert "judge#1, judge#2" in text or "judge#2, judge#1" in text
    assert "branch" in str(report)
