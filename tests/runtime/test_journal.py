"""The journal: what was recorded is there and whole, whatever happens."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ember_xcs._runtime.content import Unstorable
from ember_xcs._runtime.journal import Journal
from ember_xcs.errors import XCSError
from tests.runtime.stored import Point


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.db"


def sql(path, statement) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()


def test_what_was_recorded_is_found_again_by_another_process_object(path) -> None:
    with Journal(path) as journal:
        assert journal.find("a") == (False, None)
        journal.record("a", [Point(1), None], "ask")
        assert journal.find("a") == (True, [Point(1), None])
    with Journal(path) as journal:
        assert journal.find("a") == (True, [Point(1), None])


def test_entries_tell_nodes_times_and_sizes_in_order(path) -> None:
    with Journal(path) as journal:
        journal.record("b", "secret", "first")
        journal.record("a", np.zeros(1000), "second \ud800")
        first, second = journal.entries()
    assert (first.node, second.node) == ("first", "second \\ud800")
    assert first.time <= second.time
    assert second.bytes > 8000 > first.bytes
    assert "secret" not in repr(first)


def test_recording_again_replaces(path) -> None:
    with Journal(path) as journal:
        journal.record("a", 1, "n")
        journal.record("a", 2, "n")
        assert (journal.find("a"), len(journal.entries())) == ((True, 2), 1)


def test_runs_are_counted(path) -> None:
    with Journal(path) as journal:
        for key in ("x", "y", "x"):
            journal.begin(key)
        assert [(run.key, run.begun) for run in journal.runs()] == [("x", 2), ("y", 1)]


def test_what_cannot_be_stored_is_an_error_and_not_recorded(path) -> None:
    with Journal(path) as journal:
        with pytest.raises(Unstorable):
            journal.record("a", object(), "n")
        assert journal.entries() == []


@pytest.mark.parametrize("damage", ["value = x'00'", "node = 'm'", "node = CAST(x'ff' AS TEXT)"])
def test_a_damaged_call_is_dropped_and_said(path, damage) -> None:
    with Journal(path) as journal:
        journal.record("a", 1, "n")
        journal.record("b", 2, "n")
        sql(path, f"UPDATE calls SET {damage} WHERE key = 'a'")
        with pytest.warns(RuntimeWarning, match=r"run\.db.* is damaged .*dropped"):
            assert journal.find("a") == (False, None)
        assert (journal.find("b"), len(journal.entries())) == ((True, 2), 1)


def test_a_call_whose_class_is_not_loaded_is_kept_and_said(path, monkeypatch) -> None:
    with Journal(path) as journal:
        journal.record("a", Point(1), "n")
        with monkeypatch.context() as patch:
            patch.delattr("tests.runtime.stored.Point")
            with pytest.warns(RuntimeWarning, match="has to be made again"):
                assert journal.find("a") == (False, None)
        assert journal.find("a") == (True, Point(1))


def test_a_damaged_file_is_moved_aside_and_said(path) -> None:
    with Journal(path) as journal:
        journal.record("a", "x" * 20_000, "n")
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.warns(RuntimeWarning, match=r"run\.db.* is damaged .*moved"):
        journal = Journal(path)
    with journal:
        assert journal.find("a") == (False, None)
        journal.record("a", 1, "n")
        assert journal.find("a") == (True, 1)
    assert len(list(path.parent.glob("*.corrupt"))) == 1


def test_another_database_is_left_alone(path) -> None:
    sql(path, "CREATE TABLE precious (x)")
    with pytest.raises(XCSError, match="not the journal"):
        Journal(path)


def test_a_closed_journal_says_so(path) -> None:
    journal = Journal(path)
    journal.close()
    with pytest.raises(XCSError, match="closed"):
        journal.find("a")


def test_threads_and_objects_record_into_one_file_without_loss(path) -> None:
    def work(n: int) -> None:
        with Journal(path) as journal:
            for k in range(10):
                journal.record(f"{n} {k}", [n, k], "n")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    with Journal(path) as journal:
        found = [journal.find(f"{n} {k}") for n in range(4) for k in range(10)]
    assert found == [(True, [n, k]) for n in range(4) for k in range(10)]


# Each round forks two writers that say on a pipe what `record` has returned from, and kills both
# after a random number of their words and a random moment more.
SCRIPT = """
import json, os, random, select, signal, sys, time
from ember_xcs._runtime.journal import Journal
path, dice = sys.argv[1], random.Random(int(sys.argv[2]))

def write(pipe, name):
    journal = Journal(path)
    number = 0
    while True:
        key = f"{name} {number}"
        journal.record(key, [key] * (number * 37 % 500), "n")
        os.write(pipe, f"{key}\\n".encode())
        number += 1

said = b""
for turn in range(12):
    reading, writing = os.pipe()
    children = []
    for writer in range(2):
        pid = os.fork()
        if pid == 0:
            write(writing, f"{turn} {writer}")
        children.append(pid)
    os.close(writing)
    heard = b""
    for _ in range(dice.randrange(1, 20)):
        heard += os.read(reading, 64)
    time.sleep(dice.random() / 100)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    while more := os.read(reading, 65536):
        heard += more
    os.close(reading)
    said += heard
print(json.dumps(said.decode().splitlines()))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_was_recorded_survives_kill_at_random_moments(path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path), "1"], capture_output=True, text=True, check=True
    )
    keys = json.loads(done.stdout)
    assert len(keys) == len(set(keys)) > 24
    with Journal(path) as journal:
        for key in keys:
            number = int(key.split()[-1])
            assert journal.find(key) == (True, [key] * (number * 37 % 500))
        # One call of each writer may have been recorded and not said.
        assert len(keys) <= len(journal.entries()) <= len(keys) + 24
    assert list(path.parent.glob("*.corrupt")) == []
