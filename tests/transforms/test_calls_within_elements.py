"""Host operators that a function calls itself, where it is called for each element."""

from __future__ import annotations

import asyncio
import itertools
import threading

import pytest

import ember_xcs as xcs

_calls = itertools.count()


@xcs.host(deterministic=True)
def counted(text: str) -> str:
    next(_calls)
    return text + "!"


def made() -> int:
    """How many calls were made since it was last asked."""
    global _calls
    count, _calls = next(_calls), itertools.count()
    return count


def test_limits_hold_for_them():
    lock, level, peak = threading.Lock(), [0], [0]
    first = threading.Event()

    @xcs.host(resource="test_limits_hold_for_them")
    def alone(text: str) -> str:
        with lock:
            level[0] += 1
            peak[0] = max(peak[0], level[0])
        first.wait(0.05)
        with lock:
            level[0] -= 1
        return text

    limits = {"test_limits_hold_for_them": xcs.Limit(concurrency=1)}
    with xcs.execution_options(limits=limits):
        assert xcs.vmap(lambda text: alone(text) + alone(text))(["a", "b"]) == ["aa", "bb"]
    assert peak == [1]


def test_they_are_what_a_budget_counts():
    made()
    with xcs.execution_options(budget=xcs.Budget(calls=3)):
        assert xcs.vmap(lambda text: text.upper())(list("abcd")) == list("ABCD")
        with pytest.raises(xcs.BudgetExceeded):
            xcs.vmap(lambda text: counted(text) + counted(text))(list("abcd"))
    assert made() == 3


def test_the_cache_answers_them():
    made()
    with xcs.execution_options(cache=xcs.ResultCache()):
        assert xcs.vmap(lambda text: counted(text) + counted(text))(["a", "a"]) == ["a!a!"] * 2
    assert made() == 1


def test_one_that_fails_is_tried_again_and_those_before_it_are_not():
    made()
    failures = iter([True, False])

    @xcs.host
    def fails_once(text: str) -> str:
        if next(failures):
            raise ConnectionError
        return text

    with xcs.execution_options(retry=xcs.Retry(attempts=2, initial_seconds=0)):
        assert xcs.vmap(lambda text: fails_once(counted(text)))(["a"]) == ["a!"]
    assert made() == 1


_attempts = itertools.count()


@xcs.host
def fails_at_first(text: str) -> str:
    if next(_attempts) == 0:
        raise ConnectionError
    return text


def test_the_journal_knows_them(tmp_path):
    made()
    program = xcs.vmap(lambda text: fails_at_first(counted(text) + counted(text)))
    with xcs.execution_options(journal=tmp_path / "run.db"):
        with pytest.raises(xcs.NodeExecutionError):
            program(["a"])
        assert made() == 2
        assert program(["a"]) == ["a!a!"]
    assert made() == 0


def test_async_ones_are_awaited_as_ever():
    @xcs.host
    async def later(text: str) -> str:
        await asyncio.sleep(0)
        return text + "?"

    async def element(text):
        return await later(text)

    with xcs.execution_options(retry=xcs.Retry(attempts=2)):
        assert xcs.vmap(element)(["a", "b"]) == ["a?", "b?"]
        assert xcs.vmap(lambda text: later(text) + ".")(["a"]) == ["a?."]


def test_text_made_of_numbers_is_that_of_each_element():
    assert xcs.vmap(lambda k: counted(f"{k}"))([1, 2]) == ["1!", "2!"]
    assert xcs.vmap(lambda k: {str(k): k})([7, 7]) == {"7": [7, 7]}


def test_host_operators_receive_the_numbers_of_a_list_as_they_are():
    @xcs.host
    def shown(x: float) -> str:
        return repr(x)

    assert xcs.vmap(shown)([0.1, 2**40]) == ["0.1", repr(2**40)]
    assert xcs.vmap(xcs.vmap(shown))([[0.1], [0.2]]) == [["0.1"], ["0.2"]]
    assert xcs.pmap(shown)([0.1]) == ["0.1"]


def test_a_scheduler_that_runs_nothing_says_so():
    with (
        xcs.execution_options(scheduler="noop"),
        pytest.raises(xcs.XCSError, match=r"has no result.*only plans"),
    ):
        xcs.vmap(lambda text: text)(["a"])


def test_scan_takes_lists():
    carry, texts = xcs.scan(lambda c, text: (c + 1, counted(text)), 0, ["a", "b"])
    assert (carry, texts) == (2, ["a!", "b!"])
    assert xcs.scan(lambda c, x: (c + x, x), 0, [1, 2])[0] == 3
