"""How journals are written: together, while the loop goes on, and before anybody sees a result."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import pytest

import ember_xcs as xcs
from ember_xcs._runtime import journal as journals
from ember_xcs._runtime.batched_writes import BatchedWrites
from tests.counting import Calls

WAIT_SECONDS = 20


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.db"


def recorded(path) -> int:
    """How many calls are in the file, as another process would see it."""
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("SELECT count(*) FROM calls").fetchone()[0])
    finally:
        connection.close()


class Disk:
    """Keeps what is written to it, and lets nothing through until it is told to."""

    def __init__(self):
        self.batches: list[list[object]] = []
        self.busy, self.free = threading.Event(), threading.Event()

    def write(self, rows):
        self.busy.set()
        assert self.free.wait(WAIT_SECONDS)
        if "bad" in rows:
            raise xcs.XCSError("the disk is full")
        self.batches.append(list(rows))


@pytest.fixture
def disk():
    disk = Disk()
    yield disk
    disk.free.set()


def test_what_comes_while_the_disk_is_busy_is_written_together_and_in_order(disk) -> None:
    writes = BatchedWrites(disk.write)
    ends = [writes.add(0)]
    assert disk.busy.wait(WAIT_SECONDS)
    ends += [writes.add(number) for number in range(1, 6)]
    assert not any(end.done.done() for end in ends)
    disk.free.set()
    for end in ends:
        end.wait()
    assert disk.batches == [[0], [1, 2, 3, 4, 5]]


@pytest.mark.parametrize("is_async", [False, True])
def test_an_error_reaches_those_whose_row_it_was_and_nobody_after_them(disk, is_async) -> None:
    def wait(end) -> None:
        if is_async:
            asyncio.run(end.awaited())
        else:
            end.wait()

    writes = BatchedWrites(disk.write)
    first = writes.add("good")
    assert disk.busy.wait(WAIT_SECONDS)
    failing = [writes.add("bad"), writes.add("good")]
    disk.free.set()
    wait(first)
    for end in failing:
        with pytest.raises(xcs.XCSError, match="the disk is full"):
            wait(end)
    wait(writes.add("last"))
    assert disk.batches == [["good"], ["last"]]


def test_who_stops_waiting_leaves_the_others_waiting(disk) -> None:
    writes = BatchedWrites(disk.write)

    async def main() -> bool:
        end = writes.add("row")
        one, other = (asyncio.create_task(end.awaited()) for _ in range(2))
        await asyncio.sleep(0)
        one.cancel()
        await asyncio.wait([one])
        assert not other.done()
        disk.free.set()
        await other
        return one.cancelled()

    assert asyncio.run(main())
    assert disk.batches == [["row"]]


# The parent forks while its own row is being written: the child has no thread that would go on.
FORKING = """
import os, threading
from ember_xcs._runtime.batched_writes import BatchedWrites

written, busy, free = [], threading.Event(), threading.Event()

def write(rows):
    busy.set()
    free.wait(20)
    written.append(list(rows))

writes = BatchedWrites(write)
parents = writes.add("parent")
busy.wait(20)
child = os.fork()
free.set()
if child == 0:
    writes.add("child").wait()
    os._exit(0 if written == [["child"]] else 1)
parents.wait()
print(os.waitpid(child, 0)[1], written)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_writes_though_its_parent_was_writing() -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORKING]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "0 [['parent']]\n"


class Blocker:
    """Keeps others from writing into a journal."""

    def __init__(self, path):
        self._path = path

    def __xcs_identity__(self) -> str:
        return "blocker"

    def block(self) -> None:
        self._connection = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False
        )
        self._connection.execute("BEGIN IMMEDIATE")

    def release(self) -> None:
        self._connection.close()


def test_the_loop_goes_on_while_a_result_is_waiting_for_the_disk(path) -> None:
    blocker, blocked = Blocker(path), Calls()

    @xcs.host
    async def first(x: int) -> int:
        blocker.block()  # from here on nothing can be recorded
        blocked.add(x)
        return x

    @xcs.host
    async def second(x: int) -> int:
        while not blocked.seen:  # noqa: ASYNC110  (a Calls cannot be awaited)
            await asyncio.sleep(0)
        for _ in range(100):  # a loop that waits for the disk never comes to the end of this
            await asyncio.sleep(0.001)
        blocker.release()
        return x + 1

    graph = xcs.XCSGraph()
    graph.add_node(first, node_id="first")
    graph.add_node(second, node_id="second")
    with xcs.Journal(path) as journal:
        result = xcs.execute_graph(graph, {"x": 1}, options={"journal": journal})
    assert (result["first"], result["second"]) == (1, 2)
    assert recorded(path) == 2


@pytest.mark.parametrize("is_async", [False, True])
def test_a_call_begins_only_when_what_it_depends_on_is_on_the_disk(path, is_async) -> None:
    seen, name = Calls(), str(path)

    def look(x: int) -> int:
        seen.add(recorded(name))
        return x + 1

    async def alook(x: int) -> int:
        return look(x)

    looking = xcs.host(alook if is_async else look)
    program = xcs.jit.trace(lambda x: xcs.while_loop(lambda c: c < 5, looking, x))
    with xcs.execution_options(journal=path):
        assert int(program(jnp.array(0))) == 5
    assert seen.seen == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("is_async", [False, True])
def test_what_a_run_has_returned_is_on_the_disk(path, is_async) -> None:
    async def add_later(x: int) -> int:
        return x + 1

    def add(x: int) -> int:
        return x + 1

    program = xcs.jit.trace(jax.vmap(xcs.host(add_later if is_async else add)))
    with xcs.execution_options(journal=path):
        for number in range(1, 4):
            program(jnp.arange(50))
            assert recorded(path) == 50 * number


def test_a_result_that_is_changed_later_is_recorded_as_it_was(path) -> None:
    calls = Calls()

    @calls.host
    def listed(x: int) -> list[int]:
        return [x]

    @xcs.host
    def broken(values: list[int]) -> int:
        values.append(3)
        raise ValueError

    graph = xcs.XCSGraph()
    first = graph.add_node(listed)
    graph.connect(first, graph.add_node(broken, node_id="broken").inputs["values"])
    for _ in range(2):
        with pytest.raises(xcs.NodeExecutionError):
            xcs.execute_graph(graph, {"x": 1}, options={"journal": path})
    with xcs.Journal(path) as journal:
        size = [entry.bytes for entry in journal.entries()]
    with xcs.Journal(path.with_name("other.db")) as other:
        other.record("a", [1], "n")
        assert size == [entry.bytes for entry in other.entries()]
    assert len(calls) == 1


def test_a_result_that_takes_too_many_bytes_is_said_and_not_recorded(path, monkeypatch) -> None:
    monkeypatch.setattr(journals, "_MOST_BYTES", 1000)
    calls = Calls()
    graph = xcs.XCSGraph()
    graph.add_node(calls.host(lambda x: "y" * x), node_id="n")
    with pytest.warns(RuntimeWarning, match="not remembered.* bytes, and a journal takes 1000"):
        xcs.execute_graph(graph, {"x": 2000}, options={"journal": path})
    assert (len(calls), recorded(path)) == (1, 0)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_journal_that_cannot_be_written_fails_the_call(path, is_async) -> None:
    async def add_later(x: int) -> int:
        return x + 1

    def add(x: int) -> int:
        return x + 1

    graph = xcs.XCSGraph()
    graph.add_node(xcs.host(add_later if is_async else add), node_id="n")
    with xcs.Journal(path) as journal:
        sql = "CREATE TRIGGER no BEFORE INSERT ON calls BEGIN SELECT RAISE(ABORT, 'full'); END"
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute(sql)
        connection.close()
        with pytest.raises(xcs.NodeExecutionError, match=r"the journal .* cannot be used: full"):
            xcs.execute_graph(graph, {"x": 1}, options={"journal": journal})
