"""Limits on resources: who may begin, in which order, and what is never exceeded."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import ember_xcs as xcs
from ember_xcs._runtime.limits import Limiter, holding, limiter_of
from tests.counting import Calls

_names = (f"resource {number}" for number in itertools.count())


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Line:
    """Calls that wait before a limiter, each on a thread of its own, one after the other."""

    def __init__(self, limiter: Limiter, pool: ThreadPoolExecutor) -> None:
        self.limiter, self._pool = limiter, pool
        self.begun: list[int] = []
        self.admissions: dict[int, object] = {}
        self._changed = threading.Condition()

    def join(self, number: int, tokens: float | None = None):
        """Has a call stand in line, and returns when it does or has begun."""
        before = len(self.begun), len(self.limiter)
        future = self._pool.submit(self._wait, number, tokens)
        while (len(self.begun), len(self.limiter)) == before:
            with self._changed:
                self._changed.wait(0.001)
        return future

    def _wait(self, number: int, tokens: float | None) -> None:
        admission = self.limiter.acquire(tokens)
        with self._changed:
            self.begun.append(number)
            self.admissions[number] = admission
            self._changed.notify_all()

    def wait_for(self, count: int) -> list[int]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.begun) >= count, timeout=30)
            return list(self.begun)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(32) as pool:
        yield pool


def simulated(limiter: Limiter, clock: Clock, count: int, seconds, used=None, expected=None):
    """Plays calls against a limiter by its clock; returns when each began and what it used."""
    waiting = [[] for _ in range(count)]
    admissions = [
        limiter._enter(None if expected is None else expected(k), lambda k=k: waiting[k].append(1))
        for k in range(count)
    ]
    begun: list[tuple[float, float]] = []
    ends: list[tuple[float, int]] = []
    started = [False] * count
    while len(begun) < count or ends:
        for k in range(count):
            if waiting[k] and not started[k]:
                started[k] = True
                begun.append((clock.now, 0.0 if used is None else used(k)))
                ends.append((clock.now + seconds(k), k))
        clock.now += 0.05
        for end in [end for end in ends if end[0] <= clock.now]:
            ends.remove(end)
            admissions[end[1]].release(None if used is None else used(end[1]))
        limiter.admit()
    return begun


def most_in_a_minute(begun, what) -> float:
    """The most of something that any window of sixty seconds has."""
    return max(
        sum(what(item) for item in begun if start <= item[0] < start + 60 - 1e-6)
        for start, _ in begun
    )


def test_concurrency_is_shared_by_runs_in_threads_and_event_loops(pool) -> None:
    name, lock = next(_names), threading.Lock()
    flying, peak = [0], [0]

    def enter() -> None:
        with lock:
            flying[0] += 1
            peak[0] = max(peak[0], flying[0])

    def leave() -> None:
        with lock:
            flying[0] -= 1

    @xcs.host(resource=name)
    def call(x: int) -> int:
        enter()
        threading.Event().wait(0.01)
        leave()
        return x

    @xcs.host(resource=name)
    async def acall(x: int) -> int:
        enter()
        await asyncio.sleep(0.01)
        leave()
        return x

    graph = xcs.XCSGraph("both")
    for k in range(5):
        graph.add_node(call, node_id=f"call_{k}")
        graph.add_node(acall, node_id=f"acall_{k}")
    options = {"limits": {name: xcs.Limit(concurrency=3)}, "scheduler": "parallel"}
    runs = [pool.submit(xcs.execute_graph, graph, {"x": 1}, options=options) for _ in range(3)]
    loops = [
        pool.submit(lambda: asyncio.run(xcs.aexecute_graph(graph, {"x": 1}, options=options)))
        for _ in range(3)
    ]
    results = [run.result(timeout=30) for run in runs + loops]
    assert all(len(result) == 10 for result in results)
    assert peak[0] == 3
    assert limiter_of(name).peak == 3
    assert max(result.metrics.wait_seconds for result in results) > 0


def test_calls_begin_in_the_order_in_which_they_came(pool) -> None:
    line = Line(Limiter("r"), pool)
    line.limiter.set(xcs.Limit(concurrency=1))
    for k in range(8):
        line.join(k)
    for k in range(8):
        assert line.wait_for(k + 1) == list(range(k + 1))
        line.admissions[k].release()


def test_a_call_that_gives_up_leaves_the_line(pool) -> None:
    class Stopped(Exception):
        pass

    limiter, gives_up = Limiter("r"), threading.Event()
    limiter.set(xcs.Limit(concurrency=1))
    first = limiter.acquire()

    def stopped() -> None:
        if gives_up.is_set():
            raise Stopped

    second = pool.submit(limiter.acquire, None, stopped)
    while not len(limiter):
        threading.Event().wait(0.001)
    third = pool.submit(limiter.acquire)
    while len(limiter) < 2:
        threading.Event().wait(0.001)
    gives_up.set()
    assert isinstance(second.exception(timeout=30), Stopped)
    first.release()
    third.result(timeout=30).release()
    assert len(limiter) == limiter.in_flight == 0


def test_a_cancelled_coroutine_leaves_the_line_or_gives_its_leave_back() -> None:
    async def play() -> None:
        limiter = Limiter("r")
        limiter.set(xcs.Limit(concurrency=1))
        first = await limiter.aacquire()
        tasks = [asyncio.create_task(limiter.aacquire()) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.wait([tasks[1]])
        first.release()  # admits the next, which is cancelled before it has noticed
        tasks[0].cancel()
        (await asyncio.wait_for(tasks[2], 30)).release()
        assert len(limiter) == limiter.in_flight == 0

    asyncio.run(play())


@pytest.mark.parametrize(("per_minute", "burst"), [(20, None), (20, 4), (7, 1)])
def test_no_window_of_a_minute_has_more_requests(per_minute, burst) -> None:
    clock = Clock()
    limiter = Limiter("r", clock)
    limiter.set(xcs.Limit(requests_per_minute=per_minute, burst=burst))
    numbers = random.Random(0)
    begun = simulated(limiter, clock, 3 * per_minute, lambda k: numbers.uniform(0.1, 20))
    assert most_in_a_minute(begun, lambda item: 1) <= per_minute
    assert begun[-1][0] - begun[0][0] < 60 * 3.2  # nor are there many fewer


def test_no_more_begin_at_once_than_the_burst() -> None:
    clock = Clock()
    limiter = Limiter("r", clock)
    limiter.set(xcs.Limit(requests_per_minute=60, burst=5))
    begun = simulated(limiter, clock, 40, lambda k: 0.1)
    assert sum(at == begun[0][0] for at, _ in begun) == 5
    assert all(later[0] - at[0] > 0.9 for at, later in itertools.pairwise(begun[5:]))


@pytest.mark.parametrize("expected", [None, lambda k: 50.0, lambda k: 400.0])
def test_tokens_a_minute_are_held_though_calls_use_other_than_expected(expected) -> None:
    clock, numbers = Clock(), random.Random(1)
    limiter = Limiter("r", clock)
    limiter.set(xcs.Limit(tokens_per_minute=20_000))
    used = [numbers.uniform(60, 140) for _ in range(700)]
    begun = simulated(limiter, clock, 700, lambda k: 2.0, used.__getitem__, expected)
    assert most_in_a_minute(begun, lambda item: item[1]) <= 20_000 * 1.05
    minutes = (begun[-1][0] - begun[0][0]) / 60
    assert sum(used) / 20_000 - 1 <= minutes < sum(used) / 20_000  # the first minute is free


def test_calls_that_fail_without_a_word_do_not_make_the_next_ones_look_cheap() -> None:
    clock = Clock()
    limiter = Limiter("r", clock)
    limiter.set(xcs.Limit(tokens_per_minute=1000))
    limiter.acquire().release(500)
    limiter.acquire().release(failed=True)
    clock.now += 60
    with pytest.raises(TimeoutError):  # noqa: PT012  (which of them is the point)
        for _ in range(3):
            limiter.acquire(stopped=_time_out)
    assert limiter.in_flight == 2


def _time_out() -> None:
    raise TimeoutError


def test_a_leave_that_was_not_used_is_not_counted() -> None:
    limiter = Limiter("r", Clock())
    limiter.set(xcs.Limit(requests_per_minute=1))
    limiter.acquire().cancel()
    limiter.acquire(stopped=_time_out)


def test_a_call_larger_than_a_minute_is_refused_at_once() -> None:
    limiter = Limiter("r")
    limiter.set(xcs.Limit(tokens_per_minute=100))
    with pytest.raises(xcs.OptionsError, match="could never begin"):
        limiter.acquire(101.0)


def test_a_limit_that_is_raised_lets_in_who_waits(pool) -> None:
    line = Line(Limiter("r"), pool)
    line.limiter.set(xcs.Limit(concurrency=1))
    for k in range(4):
        line.join(k)
    line.limiter.set(xcs.Limit(concurrency=3))
    assert sorted(line.wait_for(3)) == [0, 1, 2]
    line.limiter.set(xcs.Limit())
    assert sorted(line.wait_for(4)) == [0, 1, 2, 3]


def test_time_alone_lets_in_who_waits() -> None:
    limiter = Limiter("r")
    limiter.set(xcs.Limit(requests_per_minute=600, burst=1))
    begun = [limiter.acquire() for _ in range(3)]
    times = [admission.entry[0] for admission in begun]
    assert all(later - at >= 0.099 for at, later in itertools.pairwise(times))


def test_a_call_within_a_call_that_holds_all_of_the_resource_is_an_error() -> None:
    name = next(_names)

    @xcs.host(resource=name)
    def inner(x: int) -> int:
        return x

    graph = xcs.XCSGraph("inner")
    graph.add_node(inner, node_id="inner")

    @xcs.host(resource=name)
    def outer(x: int) -> int:
        return xcs.execute_graph(graph, {"x": x})["inner"]

    around = xcs.XCSGraph("outer")
    around.add_node(outer, node_id="outer")
    limits = {name: xcs.Limit(concurrency=1)}
    retry = xcs.Retry(initial_seconds=0.0)
    with pytest.raises(xcs.NodeExecutionError, match=r"could never begin.*Raise the concurrency"):
        xcs.execute_graph(around, {"x": 1}, options={"limits": limits, "retry": retry})
    result = xcs.execute_graph(
        around, {"x": 1}, options={"limits": {name: xcs.Limit(concurrency=2)}}
    )
    assert result["outer"] == 1


def test_calls_that_hold_what_each_other_waits_for_are_found_out(pool) -> None:
    first, second = Limiter("first"), Limiter("second")
    for limiter in (first, second):
        limiter.set(xcs.Limit(concurrency=1))
    holds_first, holds_second = first.acquire(), second.acquire()

    def waits_for_second() -> object:
        with holding(holds_first):
            return second.acquire()

    waiting = pool.submit(waits_for_second)
    while not len(second):
        threading.Event().wait(0.001)
    with (
        holding(holds_second),
        pytest.raises(xcs.OptionsError, match=r"'first'.*could never begin"),
    ):
        first.acquire()
    holds_second.release()
    waiting.result(timeout=30).release()


def test_a_call_within_a_call_learns_tokens_beside_it() -> None:
    limiter = Limiter("r")
    limiter.set(xcs.Limit(tokens_per_minute=1000))
    with holding(limiter.acquire()):  # nothing is known yet, and this one waits for the next
        limiter.acquire(stopped=_time_out).release(10)


@pytest.mark.parametrize(
    "settings",
    [{"concurrency": 0}, {"concurrency": 1.5}, {"tokens_per_minute": True}, {"burst": 2}],
)
def test_settings_that_cannot_be_are_refused(settings) -> None:
    with pytest.raises(xcs.OptionsError, match=next(iter(settings))):
        xcs.Limit(**settings)


def test_a_call_that_waits_is_let_go_when_its_run_ends() -> None:
    name, released = next(_names), threading.Event()
    calls = Calls()

    @calls.host(resource=name)
    def call(x: int) -> int:
        released.wait(30)
        return x

    graph = xcs.XCSGraph("two")
    graph.add_node(call, node_id="a")
    graph.add_node(call, node_id="b")
    options = {"limits": {name: xcs.Limit(concurrency=1)}, "timeout_seconds": 0.3}
    try:
        with pytest.raises(xcs.ExecutionTimeout):
            xcs.execute_graph(graph, {"x": 1}, options=options)
    finally:
        released.set()
    assert len(calls) == 1
