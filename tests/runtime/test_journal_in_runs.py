"""Runs that are recorded as they go: killed at any moment, and gone on with where they were."""

from __future__ import annotations

import ast
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import ember_xcs as xcs
from tests.counting import Calls

RESUMED = Path(__file__).with_name("resumed.py")

EXPECTED = [
    [12, 12],
    list(range(2, 14)),
    list(range(1, 25)),
    16,
    list(range(1, 21)),
    [8, 108, 208],
    [6, 6, 6],
]
CALLS = 24 + 24 + 24 + 16 + 20 + (24 + 3) + 18
MOST_IN_FLIGHT = 24


class Program:
    """The programs of ``resumed.py``, in a process, with a journal and a file of counts."""

    def __init__(self, directory: Path) -> None:
        self.journal = directory / "run.db"
        self._counts = directory / "counts"
        self._counts.touch()

    @property
    def calls(self) -> list[str]:
        """The calls that came to their end, whether or not they were recorded."""
        return self._counts.read_text().splitlines()

    @property
    def recorded(self) -> int:
        """How many calls are in the journal."""
        if not self.journal.exists():
            return 0
        with sqlite3.connect(self.journal) as connection:
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            if "calls" not in names:
                return 0
            return int(connection.execute("SELECT count(*) FROM calls").fetchone()[0])

    def begin(self) -> subprocess.Popen[str]:
        command = [sys.executable, str(RESUMED), str(self.journal), str(self._counts)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        return process

    def kill_after(self, calls: int) -> bool:
        """Runs it until so many more calls have ended; False if it ended before it was killed."""
        process = self.begin()
        wanted = len(self.calls) + calls
        while len(self.calls) < wanted and process.poll() is None:
            threading.Event().wait(0.0005)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
        return process.returncode == -signal.SIGKILL

    def finish(self) -> object:
        process = self.begin()
        text, _ = process.communicate(timeout=30)
        assert process.returncode == 0
        return ast.literal_eval(text)


@pytest.mark.slow
def test_programs_that_are_killed_go_on_where_they_were(tmp_path) -> None:
    program, numbers, kills = Program(tmp_path), random.Random(), 0
    for _ in range(10):
        recorded, made = program.recorded, len(program.calls)
        kills += program.kill_after(numbers.randint(1, 14))
        lost = (len(program.calls) - made) - (program.recorded - recorded)
        assert 0 <= lost <= MOST_IN_FLIGHT  # what had ended, and was not on the disk yet
    left, made = CALLS - program.recorded, len(program.calls)
    assert program.finish() == EXPECTED
    assert len(program.calls) - made == left
    assert program.recorded == CALLS
    assert kills == 10


@pytest.fixture
def journal(tmp_path):
    with xcs.Journal(tmp_path / "run.db") as journal:
        yield journal


def graph_of(operator, copies: int = 1):
    graph = xcs.XCSGraph("journaled")
    for k in range(copies):
        graph.add_node(operator, node_id=f"n{k}")
    return graph


def test_the_second_run_in_a_process_is_another_run(journal) -> None:
    calls = Calls()
    graph = graph_of(calls.host(lambda x: len(calls)))
    results = [xcs.execute_graph(graph, {"x": 3}, options={"journal": journal}) for _ in range(3)]
    assert [result["n0"] for result in results] == [1, 2, 3]
    assert [result.metrics.journal_hits for result in results] == [0, 0, 0]


def test_a_run_that_failed_is_gone_on_with_by_the_next(journal) -> None:
    calls = Calls()
    graph = xcs.XCSGraph("fails")
    first = graph.add_node(calls.host(lambda x: x + 1), node_id="first")
    second = graph.add_node(calls.host(lambda y: 1 // (len(calls) - 2)), node_id="second")
    graph.connect(first, second.inputs["y"])
    with pytest.raises(xcs.NodeExecutionError):
        xcs.execute_graph(graph, {"x": 3}, options={"journal": journal})
    result = xcs.execute_graph(graph, {"x": 3}, options={"journal": journal})
    assert result["second"] == 1
    assert calls.seen == [3, 4, 4]
    assert result.metrics.journal_hits == 1


def test_two_calls_at_one_node_are_kept_apart(journal) -> None:
    calls = Calls()

    @calls.host
    def double(x: int) -> int:
        return 2 * x

    program = xcs.jit.trace(jax.vmap(double))
    with xcs.execution_options(journal=journal):
        assert list(program(jnp.array([1, 2, 3, 1]))) == [2, 4, 6, 2]
    assert len(calls) == 4
    assert len(journal.entries()) == 4


def test_another_attempt_makes_the_calls_within_again(journal) -> None:
    calls = Calls()
    draft = calls.host(lambda x: len(calls))

    @xcs.host(retry=xcs.Retry(initial_seconds=0.0))
    def outer(x: int) -> int:
        answer = xcs.execute_graph(graph_of(draft), {"x": x})["n0"]
        if answer < 3:
            raise ValueError("not good enough")
        return answer

    result = xcs.execute_graph(graph_of(outer), {"x": 1}, options={"journal": journal})
    assert result["n0"] == 3


def test_results_that_cannot_be_stored_are_said_once(journal) -> None:
    calls = Calls()
    graph = graph_of(calls.host(lambda x: threading.Lock()), copies=3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        xcs.execute_graph(graph, {"x": 3}, options={"journal": journal})
    assert len(calls) == 3
    assert ["not remembered" in str(warning.message) for warning in caught] == [True]
