"""Progress: what those who watch a run are told, when, and what it does to the run."""

from __future__ import annotations

import asyncio
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import jax
import jax.numpy as jnp
import pytest

import ember_xcs as xcs
from ember_xcs._runtime import watched_policies
from ember_xcs._runtime.status_line import StatusLine

SCHEDULERS = ["sequential", "parallel", "wave", "topological", "adaptive"]
WAIT_SECONDS = 20


class Watcher:
    """Keeps what it is told, and lets others wait for it."""

    def __init__(self):
        self.records: list[xcs.Progress] = []
        self._told = threading.Condition()

    def __call__(self, record):
        with self._told:
            self.records.append(record)
            self._told.notify_all()

    def wait_for(self, condition) -> None:
        """Returns once there is a record of which something holds."""
        with self._told:
            assert self._told.wait_for(lambda: any(map(condition, self.records)), WAIT_SECONDS)

    async def awaited(self, condition) -> None:
        """Returns once there is a record of which something holds."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not any(map(condition, list(self.records))):  # noqa: ASYNC110  (of another thread)
                await asyncio.sleep(0.001)

    @property
    def last(self):
        return self.records[-1]


class Stream(io.StringIO):
    """A stderr that is a terminal or not, and lets others wait for what is written."""

    def __init__(self, *, is_terminal=False):
        super().__init__()
        self._is_terminal = is_terminal
        self._written = threading.Condition()

    def isatty(self):
        return self._is_terminal

    def write(self, text):
        with self._written:
            self._written.notify_all()
            return super().write(text)

    def wait_for(self, text) -> None:
        with self._written:
            assert self._written.wait_for(lambda: text in self.getvalue(), WAIT_SECONDS)


Notebook = type("OutStream", (Stream,), {"__module__": "ipykernel.iostream"})


@pytest.fixture
def stderr(monkeypatch):
    """Puts a stream in the place of stderr, and a line there on which nothing has been."""
    monkeypatch.setattr(watched_policies, "status_line", StatusLine())
    monkeypatch.setenv("TERM", "xterm")

    def put(stream):
        monkeypatch.setattr("sys.stderr", stream)
        return stream

    return put


def graph_of(*operators, name="qa"):
    graph = xcs.XCSGraph(name)
    for k, operator in enumerate(operators):
        graph.add_node(operator, node_id=f"n{k}")
    return graph


@xcs.host
def double(x: int) -> int:
    return 2 * x


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_end_is_told_once_and_last(scheduler):
    watcher = Watcher()
    graph = graph_of(double, double, double)
    xcs.execute_graph(graph, {"x": 1}, options={"progress": watcher, "scheduler": scheduler})
    assert [record.is_over for record in watcher.records].count(True) == 1
    assert (watcher.last.is_over, watcher.last.run) == (True, "qa")
    assert (watcher.last.calls_done, watcher.last.calls_known, watcher.last.in_flight) == (3, 3, 0)


@pytest.mark.parametrize("is_async", [False, True])
def test_calls_in_flight_are_told_while_they_are(is_async):
    watcher = Watcher()

    def are_there(record) -> bool:
        return record.in_flight == 4

    def wait(x: int) -> int:
        watcher.wait_for(are_there)
        return x

    async def await_(x: int) -> int:
        await watcher.awaited(are_there)
        return x

    program = xcs.jit.trace(jax.vmap(xcs.host(await_ if is_async else wait)))
    with xcs.execution_options(progress=watcher):
        assert list(program(jnp.arange(4))) == [0, 1, 2, 3]
    assert (watcher.last.calls_done, watcher.last.calls_known) == (4, 4)


def test_records_come_at_a_bounded_rate():
    watcher = Watcher()

    @xcs.host
    def step(x: int) -> int:  # each call ends after another record, so there is always news
        told = len(watcher.records)
        watcher.wait_for(lambda record: len(watcher.records) > told)
        return x + 1

    graph, before = xcs.XCSGraph(), None
    for _ in range(5):
        node = graph.add_node(step)
        if before is not None:
            graph.connect(before, node.inputs["x"])
        before = node
    xcs.execute_graph(graph, {"x": 0}, options={"progress": watcher})
    moments = [record.seconds for record in watcher.records if not record.is_over]
    assert len(moments) >= 5
    assert all(later - earlier > 0.09 for earlier, later in pairwise(moments))


def test_a_run_that_is_awaited_tells():
    watcher = Watcher()
    graph = graph_of(double)
    result = asyncio.run(xcs.aexecute_graph(graph, {"x": 1}, options={"progress": watcher}))
    assert (result["n0"], watcher.last.calls_done, watcher.last.is_over) == (2, 1, True)


def test_retries_failures_tokens_and_cost_are_told():
    watcher, attempts = Watcher(), []

    @xcs.host
    def flaky(x: int) -> int:
        attempts.append(x)
        xcs.record_usage(tokens=10, cost=0.25)
        if len(attempts) < 3:
            raise ConnectionError
        return x

    @xcs.host
    def broken(x: int) -> int:
        raise ValueError

    retry = xcs.Retry(attempts=3, initial_seconds=0.0, retry_on=(ConnectionError,))
    options = {"progress": watcher, "retry": retry, "on_error": "continue"}
    xcs.execute_graph(graph_of(flaky, broken), {"x": 1}, options=options)
    last = watcher.last
    assert (last.calls_done, last.failed, last.retries) == (2, 1, 2)
    assert (last.tokens, last.cost) == (30, 0.75)


def test_the_cost_is_unknown_where_a_price_is():
    watcher = Watcher()

    @xcs.host
    def ask(x: int) -> int:
        xcs.record_usage(tokens=10, cost=None)
        return x

    xcs.execute_graph(graph_of(ask), {"x": 1}, options={"progress": watcher})
    assert (watcher.last.tokens, watcher.last.cost) == (10, None)


def test_calls_that_are_answered_from_a_cache_are_done_and_never_in_flight():
    watcher = Watcher()
    known = xcs.host(deterministic=True)(lambda x: x)
    graph = graph_of(known)
    with xcs.ResultCache() as cache, xcs.execution_options(cache=cache):
        xcs.execute_graph(graph, {"x": 1})
        xcs.execute_graph(graph, {"x": 1}, options={"progress": watcher})
    assert watcher.last.calls_done == 1
    assert {record.in_flight for record in watcher.records} == {0}


def test_runs_within_a_call_count_for_the_run_around_and_tell_nothing_themselves():
    watcher = Watcher()

    @xcs.host
    def outer(x: int) -> int:
        return xcs.execute_graph(graph_of(double, double, name="inner"), {"x": x})["n1"]

    with xcs.execution_options(progress=watcher):
        xcs.execute_graph(graph_of(outer), {"x": 1})
    assert {record.run for record in watcher.records} == {"qa"}
    assert [record.is_over for record in watcher.records].count(True) == 1
    assert (watcher.last.calls_done, watcher.last.calls_known) == (3, 3)


def test_the_rounds_of_a_loop_count_for_the_run_around():
    watcher = Watcher()
    program = xcs.jit.trace(lambda x: xcs.while_loop(lambda c: c < 16, double, x))
    with xcs.execution_options(progress=watcher):
        assert int(program(jnp.array(1))) == 16
    assert [record.is_over for record in watcher.records].count(True) == 1
    assert (watcher.last.calls_done, watcher.last.calls_known) == (4, 4)


def test_a_run_within_that_fails_leaves_no_calls_that_nobody_will_make():
    watcher, tries = Watcher(), []

    @xcs.host
    def first(x: int) -> int:
        tries.append(x)
        if len(tries) < 3:
            raise ConnectionError
        return x

    inner = graph_of(first)
    after = inner.add_node(double, node_id="after")
    inner.connect("n0", after.inputs["x"])

    @xcs.host(retry=xcs.Retry(attempts=3, initial_seconds=0.0))
    def outer(x: int) -> int:
        return xcs.execute_graph(inner, {"x": x})["after"]

    xcs.execute_graph(graph_of(outer), {"x": 1}, options={"progress": watcher})
    assert len(tries) == 3
    assert watcher.last.calls_known == watcher.last.calls_done == 1 + 1 + 1 + 2


def test_a_run_within_that_is_given_its_own_watcher_tells_both():
    watcher, own = Watcher(), Watcher()

    @xcs.host
    def outer(x: int) -> int:
        return xcs.execute_graph(graph_of(double), {"x": x}, options={"progress": own})["n0"]

    xcs.execute_graph(graph_of(outer), {"x": 1}, options={"progress": watcher})
    assert (watcher.last.calls_done, own.last.calls_done) == (2, 1)


def test_calls_that_a_function_makes_itself_are_counted():
    watcher = Watcher()

    @xcs.host
    def outer(x: int) -> int:
        return double(x) + double(x + 1)

    result = xcs.execute_graph(graph_of(outer), {"x": 1}, options={"progress": watcher})
    assert result["n0"] == 6
    assert watcher.last.calls_known == watcher.last.calls_done


@pytest.mark.parametrize("is_async", [False, True])
def test_the_calls_of_a_batch_are_counted_each(is_async):
    watcher, sizes = Watcher(), []

    def are_there(record) -> bool:
        return record.in_flight == 6

    class Blocking(xcs.HostOperator):
        def forward(self, x: int) -> int:
            raise AssertionError("one by one")

        def forward_batch(self, xs: list[int]) -> list[int]:
            sizes.append(len(xs))
            watcher.wait_for(are_there)
            return [2 * int(x) for x in xs]

    class Awaited(Blocking):
        async def forward(self, x: int) -> int:
            raise AssertionError("one by one")

        async def forward_batch(self, xs: list[int]) -> list[int]:
            sizes.append(len(xs))
            await watcher.awaited(are_there)
            return [2 * int(x) for x in xs]

    program = xcs.jit.trace(jax.vmap(Awaited() if is_async else Blocking()))
    with xcs.execution_options(progress=watcher):
        assert list(program(jnp.arange(6))) == [0, 2, 4, 6, 8, 10]
    assert sizes == [6]
    assert (watcher.last.calls_done, watcher.last.calls_known, watcher.last.failed) == (6, 6, 0)


def test_a_function_that_raises_is_said_and_the_result_stands():
    told = []

    def bad(record):
        told.append(record)
        raise ValueError("cannot draw")

    with pytest.warns(RuntimeWarning, match=r"bad, given as progress=, raised ValueError: cannot"):
        result = xcs.execute_graph(graph_of(double), {"x": 2}, options={"progress": bad})
    assert result["n0"] == 4
    assert len(told) == 1


def test_a_function_that_raises_does_not_hide_why_a_run_failed():
    def bad(record):
        raise ValueError("cannot draw")

    @xcs.host
    def broken(x: int) -> int:
        raise KeyError("the reason")

    with (
        pytest.warns(RuntimeWarning, match="cannot draw"),
        pytest.raises(xcs.NodeExecutionError, match="the reason"),
    ):
        xcs.execute_graph(graph_of(broken), {"x": 2}, options={"progress": bad})


def test_a_run_that_nobody_watches_has_nothing_to_do_with_it():
    plan = xcs.GraphExecutor(graph_of(double)).plan()
    assert xcs.execute_plan(plan, [1]).policies is None
    assert xcs.execute_plan(plan, [1], {"progress": Watcher()}).policies is not None


@pytest.mark.parametrize("wrong", [3, "yes", [], lambda: None])
def test_progress_is_a_bool_or_a_function(wrong):
    if callable(wrong):

        async def wrong(record):
            pass

    with pytest.raises(xcs.OptionsError, match=r"progress=.*a plain function of one xcs\.Progress"):
        xcs.ExecutionOptions(progress=wrong)


# The line on stderr


def test_a_log_gets_one_plain_line_of_a_short_run(stderr):
    stream = stderr(Stream())
    xcs.execute_graph(graph_of(double, double), {"x": 1}, options={"progress": True})
    assert stream.getvalue().startswith("qa: 2/2 calls, 0.")
    assert stream.getvalue().endswith(" s\n")
    assert stream.getvalue().count("\n") == 1


def test_many_short_runs_are_no_flood(stderr):
    stream = stderr(Stream())
    graph = graph_of(double)
    with xcs.execution_options(progress=True):
        for _ in range(20):
            xcs.execute_graph(graph, {"x": 1})
    assert 1 <= stream.getvalue().count("\n") < 20


def test_a_terminal_has_one_line_that_is_rewritten_and_stays_at_the_end(stderr):
    stream = stderr(Stream(is_terminal=True))

    @xcs.host
    def wait(x: int) -> int:
        stream.wait_for("qa: 0/1 calls, 1 in flight")
        return x

    xcs.execute_graph(graph_of(wait), {"x": 1}, options={"progress": True})
    before, *shown = stream.getvalue().split("\r\x1b[2K")
    assert before == ""
    assert all(text.startswith("qa: ") and "\n" not in text for text in shown[:-1])
    assert shown[-1].startswith("qa: 1/1 calls, ")
    assert shown[-1].endswith(" s\n")


def test_a_line_is_no_longer_than_the_terminal_is_wide(stderr, monkeypatch):
    monkeypatch.setenv("COLUMNS", "12")
    stream = stderr(Stream(is_terminal=True))

    @xcs.host
    def wait(x: int) -> int:
        stream.wait_for("qa")
        return x

    xcs.execute_graph(graph_of(wait), {"x": 1}, options={"progress": True})
    assert stream.getvalue().split("\r\x1b[2K")[1] == "qa: 0/1 cal"


def test_a_notebook_gets_no_escapes_and_what_is_shorter_covers_what_was_there(stderr):
    stream = stderr(Notebook())

    @xcs.host
    def wait(x: int) -> int:
        stream.wait_for("in flight")
        return x

    xcs.execute_graph(graph_of(wait), {"x": 1}, options={"progress": True})
    _, first, last = stream.getvalue().split("\r")
    assert "\x1b" not in stream.getvalue()
    assert first.startswith("qa: 0/1 calls, 1 in flight")
    assert len(last.removesuffix("\n")) >= len(first)


def test_runs_at_the_same_time_share_the_line(stderr):
    stream = stderr(Stream(is_terminal=True))

    @xcs.host
    def wait(x: int) -> int:
        stream.wait_for("2 runs: 0/2 calls, 2 in flight")
        return x

    def run(name):
        graph = graph_of(wait, name=name)
        return xcs.execute_graph(graph, {"x": 1}, options={"progress": True})["n0"]

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, ["one", "two"])) == [1, 1]
    before, *shown = stream.getvalue().split("\r\x1b[2K")
    assert before == ""
    assert all(text.startswith(("one: ", "two: ", "2 runs: ")) for text in shown)


def test_a_name_cannot_break_the_line(stderr):
    stream = stderr(Stream())
    xcs.execute_graph(graph_of(double, name="a\n\x1b[2Jb"), {"x": 1}, options={"progress": True})
    assert stream.getvalue().startswith("a  [2Jb: 1/1 calls")


def test_a_stderr_that_is_closed_is_said_and_the_result_stands(stderr):
    stderr(Stream()).close()
    with pytest.warns(RuntimeWarning, match=r"stderr, where progress=True .* raised ValueError"):
        result = xcs.execute_graph(graph_of(double), {"x": 1}, options={"progress": True})
    assert result["n0"] == 2


def test_without_a_stderr_nothing_is_shown(stderr):
    stderr(None)
    assert xcs.execute_graph(graph_of(double), {"x": 1}, options={"progress": True})["n0"] == 2
