"""A journal and a cache that several processes use at once, are killed in, and find damaged."""

from __future__ import annotations

import ast
import io
import marshal
import os
import pickle
import random
import shelve
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import ClassVar

import pytest

import ember_xcs as xcs
from ember_xcs._runtime.stored import checksum
from tests.counting import Calls
from tests.runtime.sharing import LENGTH, program

HERE = Path(__file__).parent
SOURCES = Path(xcs.__file__).parent / "_runtime"
MOST_IN_FLIGHT = 3
SAMPLES = ("sample", "asample")
EXPECTED = [LENGTH, LENGTH, 2 * LENGTH]


def begin(script, *arguments) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


def rows(path, select) -> list[tuple[object, ...]]:
    """What is in a file, which may not be there yet."""
    if not path.exists():
        return []
    connection = sqlite3.connect(path)
    try:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        return connection.execute(select).fetchall() if select.split()[-1] in tables else []
    finally:
        connection.close()


class Sharing:
    """Several processes of ``sharing.py`` over the same files."""

    def __init__(self, directory):
        self.journal, self.cache = directory / "run.db", directory / "cache"
        self._counts = directory / "counts"
        self._counts.touch()

    @property
    def calls(self) -> Counter[str]:
        """How often each call came to its end, whether or not it was recorded."""
        return Counter(self._counts.read_text().splitlines())

    @property
    def recorded(self) -> Counter[object]:
        """How many calls of each node are in the journal."""
        return Counter(node for (node,) in rows(self.journal, "SELECT node FROM calls"))

    def begin(self, names) -> list[subprocess.Popen[str]]:
        arguments = (self.journal, self.cache, self._counts)
        processes = [begin("sharing.py", *arguments, name) for name in names]
        for process in processes:
            assert process.stdout.readline() == "begun\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        return processes

    def kill_after(self, names, calls) -> int:
        """Kills them after so many more calls; returns how many had not come to their end."""
        processes = self.begin(names)
        wanted = self.calls.total() + calls
        while self.calls.total() < wanted and any(p.poll() is None for p in processes):
            threading.Event().wait(0.0005)
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=60)
        return sum(process.returncode == -signal.SIGKILL for process in processes)

    def finish(self, names) -> list[object]:
        processes = self.begin(names)
        texts = [process.stdout.read() for process in processes]
        for process in processes:
            process.communicate(timeout=60)
            assert process.returncode == 0
        return [ast.literal_eval(text) for text in texts]


@pytest.mark.slow
def test_processes_that_are_killed_lose_nothing_of_what_they_share(tmp_path) -> None:
    sharing, numbers, names, kills = Sharing(tmp_path), random.Random(), ["one", "two"], 0
    for _ in range(2):
        recorded, made = sharing.recorded.total(), sharing.calls.total()
        kills += sharing.kill_after(names, numbers.randint(2, 12))
        lost = (sharing.calls.total() - made) - (sharing.recorded.total() - recorded)
        assert lost <= len(names) * MOST_IN_FLIGHT
    assert kills == 4
    recorded, made = sharing.recorded, sharing.calls
    assert sharing.finish(names) == [EXPECTED, EXPECTED]
    assert sharing.recorded == dict.fromkeys(program().nodes, len(names))
    # Two runs were recorded, and each call that had been is not among those made at last.
    left = sum(len(names) - recorded[f"{kind}{k}"] for kind in SAMPLES for k in range(LENGTH))
    at_last = sharing.calls - made
    assert sum(n for call, n in at_last.items() if "sample" in call) == left
    facts = sum(n for call, n in at_last.items() if call.startswith("fact"))
    known = sum(1 for k in range(LENGTH) if recorded[f"fact{k}"])
    assert facts <= len(names) * (LENGTH - known)
    assert list(tmp_path.rglob("*.corrupt*")) == []


@pytest.mark.slow
def test_after_the_end_of_all_nothing_is_asked_again(tmp_path) -> None:
    sharing = Sharing(tmp_path)
    assert sharing.finish(["one", "two"]) == [EXPECTED, EXPECTED]
    calls = sharing.calls
    assert max(n for call, n in calls.items() if "sample" in call) == 1
    # The samples of the third are its own; the facts are known.
    assert sharing.finish(["two", "three"]) == [EXPECTED, EXPECTED]
    again = sharing.calls - calls
    assert set(again.values()) == {1}
    assert {call.split()[1] for call in again if "sample" in call} == {"three"}
    assert len(again) == 2 * LENGTH


class Waiting:
    """A process of ``waiting.py``."""

    def __init__(self, journal):
        self.process = begin("waiting.py", journal)

    def hear(self) -> str:
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=60)

    def end(self) -> None:
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0


def test_the_same_program_in_two_processes_at_once_is_two_runs(tmp_path) -> None:
    journal = tmp_path / "run.db"
    one = Waiting(journal)
    assert one.hear() == "step 0"
    one.go_on()
    assert one.hear() == "step 1"  # what is before it is recorded
    other = Waiting(journal)
    for k in range(3):
        assert other.hear() == f"step {k}"
        other.go_on()
    assert other.hear() == "result 3"
    other.end()
    for said in ("step 2", "result 3"):
        one.go_on()
        assert one.hear() == said
    one.end()
    assert len(rows(journal, "SELECT key FROM runs")) == 2
    assert len(rows(journal, "SELECT key FROM calls")) == 6


def test_the_run_of_a_killed_process_is_gone_on_with_while_another_runs_the_same(tmp_path) -> None:
    journal = tmp_path / "run.db"
    one = Waiting(journal)
    assert one.hear() == "step 0"
    other = Waiting(journal)
    assert other.hear() == "step 0"
    one.go_on()
    assert one.hear() == "step 1"
    one.kill()
    third = Waiting(journal)
    assert third.hear() == "step 1"  # where the first one was; the second still stands at 0
    for process in (other, third):
        process.kill()
    assert len(rows(journal, "SELECT key FROM runs")) == 2


# Damage


def _overwrite(path) -> None:
    path.write_bytes(b"\x80\x04nonsense" * 2000)


def _truncate(path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def _scramble(path) -> None:
    data = bytearray(path.read_bytes())
    for k in range(100, len(data), 7):
        data[k] ^= 0x5A
    path.write_bytes(bytes(data))


DAMAGES = pytest.mark.parametrize("damage", [_overwrite, _truncate, _scramble])


def _without_log(path) -> None:
    """Has all that was written be in the file itself."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _graph(calls):
    graph = xcs.XCSGraph("damaged")
    for k in range(5):
        operator = calls.host(lambda x: x * 1000, deterministic=True)
        graph.add_node(operator, node_id=f"n{k}", constants={"x": k})
    return graph


@DAMAGES
def test_a_damaged_journal_is_said_and_its_calls_are_made_again(tmp_path, damage) -> None:
    path, calls = tmp_path / "run.db", Calls()
    graph = _graph(calls)
    with xcs.Journal(path) as journal:
        first = dict(xcs.execute_graph(graph, options={"journal": journal}))
    _without_log(path)
    damage(path)
    with pytest.warns(RuntimeWarning, match=r"run\.db.* is damaged"), xcs.Journal(path) as journal:
        assert dict(xcs.execute_graph(graph, options={"journal": journal})) == first
    assert len(calls) == 10
    with xcs.Journal(path) as journal:
        assert dict(xcs.execute_graph(graph, options={"journal": journal})) == first
    assert len(calls) == 10


@DAMAGES
def test_a_damaged_cache_is_said_and_its_calls_are_made_again(tmp_path, damage) -> None:
    calls = Calls()
    graph = _graph(calls)
    with xcs.ResultCache(tmp_path) as cache:
        first = dict(xcs.execute_graph(graph, options={"cache": cache}))
    _without_log(tmp_path / "results.sqlite")
    damage(tmp_path / "results.sqlite")
    with (
        pytest.warns(RuntimeWarning, match=r"results\.sqlite.* is damaged"),
        xcs.ResultCache(tmp_path) as cache,
    ):
        assert dict(xcs.execute_graph(graph, options={"cache": cache})) == first
    assert len(calls) == 10


# What is read is data


class Bomb:
    """Does something when it is unpickled."""

    exploded: ClassVar[list[int]] = []

    def __reduce__(self):
        return (Bomb.exploded.append, (1,))


@pytest.fixture
def no_loading(monkeypatch):
    """Makes every way to load objects an error."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("something was unpickled")

    for module, names in (
        (pickle, ("load", "loads", "Unpickler", "_Unpickler")),
        (marshal, ("load", "loads")),
        (shelve, ("open",)),
    ):
        for name in names:
            monkeypatch.setattr(module, name, refuse)


def test_nothing_that_is_read_from_disk_is_unpickled(tmp_path, no_loading) -> None:
    calls = Calls()
    graph = _graph(calls)
    for _ in range(2):
        with xcs.Journal(tmp_path / "run.db") as journal, xcs.ResultCache(tmp_path) as cache:
            xcs.execute_graph(graph, options={"journal": journal, "cache": cache})
            xcs.execute_graph(graph, options={"cache": cache})
    assert len(calls) == 5
    with pytest.raises(AssertionError, match="unpickled"):
        pickle.load(io.BytesIO())


@pytest.mark.parametrize("place", ["journal", "cache"])
def test_a_pickle_in_the_place_of_a_result_is_dropped_and_never_loaded(tmp_path, place) -> None:
    calls, bomb = Calls(), pickle.dumps(Bomb())
    graph = _graph(calls)
    path, table = {
        "journal": (tmp_path / "run.db", "calls"),
        "cache": (tmp_path / "results.sqlite", "results"),
    }[place]

    def run():
        opened = xcs.Journal(path) if place == "journal" else xcs.ResultCache(tmp_path)
        with opened:
            return dict(xcs.execute_graph(graph, options={place: opened}))

    first = run()
    columns = "key, node" if place == "journal" else "key"
    connection = sqlite3.connect(path, isolation_level=None)
    for names in connection.execute(f"SELECT {columns} FROM {table}").fetchall():
        stored = checksum(*names, bomb)
        update = f"UPDATE {table} SET value = ?, checksum = ? WHERE key = ?"
        connection.execute(update, (bomb, stored, names[0]))
    connection.close()
    with pytest.warns(RuntimeWarning, match="damaged"):
        assert run() == first
    assert (len(calls), Bomb.exploded) == (10, [])


@pytest.mark.parametrize("path", sorted(SOURCES.glob("*.py")), ids=lambda path: path.stem)
def test_what_reads_files_knows_no_way_to_load_objects(path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    others = {"processes"}  # what it unpickles comes through a pipe from its own children
    if path.stem not in others:
        assert not imported & {"pickle", "marshal", "shelve", "dill", "cloudpickle"}
