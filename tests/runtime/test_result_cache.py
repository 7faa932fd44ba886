"""The cache of results: in memory, and in a directory that processes share."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ember_xcs._runtime.content import encode
from ember_xcs._runtime.result_cache import ResultCache
from ember_xcs.errors import OptionsError, XCSError


@pytest.fixture(params=["memory", "directory"])
def place(request, tmp_path):
    return None if request.param == "memory" else tmp_path / "cache"


def file_of(cache):
    return cache.path / "results.sqlite"


def sql(cache, statement, *values):
    connection = sqlite3.connect(file_of(cache), isolation_level=None)
    try:
        return connection.execute(statement, values).fetchall()
    finally:
        connection.close()


def test_what_was_put_is_got_and_counted(place) -> None:
    with ResultCache(place) as cache:
        assert cache.get("a") == (False, None)
        assert cache.put("a", {"x": (1, None)})
        assert cache.get("a") == (True, {"x": (1, None)})
        stats = cache.stats()
        assert (stats["hits"], stats["misses"], stats["puts"], stats["entries"]) == (1, 1, 1, 1)
        assert stats["bytes"] == len(encode({"x": (1, None)}))
        assert len(cache) == 1


def test_a_result_that_is_changed_does_not_change_in_the_cache(place) -> None:
    with ResultCache(place) as cache:
        array = np.zeros(2)
        cache.put("a", array)
        array[0] = 1
        cache.get("a")[1][1] = 2
        assert cache.get("a")[1].tolist() == [0, 0]


def test_a_result_can_be_none(place) -> None:
    with ResultCache(place) as cache:
        cache.put("a", None)
        assert cache.get("a") == (True, None)


def test_a_later_result_replaces_an_earlier_one(place) -> None:
    with ResultCache(place) as cache:
        cache.put("a", "x" * 100)
        cache.put("a", "y")
        assert cache.get("a") == (True, "y")
        assert (cache.stats()["bytes"], len(cache)) == (len(encode("y")), 1)


def test_what_cannot_be_stored_is_refused_and_counted(place) -> None:
    with ResultCache(place, max_bytes=100) as cache:
        assert not cache.put("a", object())
        assert not cache.put("a", "x" * 100)
        assert (cache.stats()["unstorable"], len(cache)) == (2, 0)


def test_the_least_recently_used_goes_first(place) -> None:
    size = len(encode("x" * 100))
    with ResultCache(place, max_bytes=3 * size) as cache:
        for key in "abc":
            cache.put(key, key * 100)
        assert cache.get("a")[0]
        cache.put("d", "d" * 100)
        assert [cache.get(key)[0] for key in "abcd"] == [True, False, True, True]
        stats = cache.stats()
        assert (stats["evictions"], stats["bytes"], stats["entries"]) == (1, 3 * size, 3)


def test_many_reads_are_remembered_without_a_write_between(place) -> None:
    size = len(encode("x" * 100))
    with ResultCache(place, max_bytes=2 * size) as cache:
        cache.put("a", "a" * 100)
        cache.put("b", "b" * 100)
        for _ in range(600):
            cache.get("a")
        cache.put("c", "c" * 100)
        assert [cache.get(key)[0] for key in "abc"] == [True, False, True]


def test_clear_removes_everything(place) -> None:
    with ResultCache(place) as cache:
        cache.put("a", 1)
        cache.clear()
        assert (cache.get("a"), len(cache), cache.stats()["bytes"]) == ((False, None), 0, 0)


def test_a_closed_cache_says_so(place) -> None:
    cache = ResultCache(place)
    cache.close()
    cache.close()
    with pytest.raises(XCSError, match="closed"):
        cache.get("a")
    with pytest.raises(XCSError, match="closed"):
        cache.put("a", 1)


def test_threads_share_a_cache(place) -> None:
    with ResultCache(place, max_bytes=10_000) as cache, ThreadPoolExecutor(8) as pool:

        def work(k: int) -> bool:
            cache.put(f"{k % 50}", f"value {k % 50}")
            found, value = cache.get(f"{k % 50}")
            return found and value == f"value {k % 50}"

        assert all(pool.map(work, range(400)))
        stats = cache.stats()
        assert (stats["puts"], stats["hits"], stats["entries"]) == (400, 400, 50)


def test_the_repr_says_where_it_is(tmp_path) -> None:
    with ResultCache(max_bytes=5) as cache:
        assert repr(cache) == "ResultCache(in memory, max_bytes=5)"


def test_a_path_must_be_a_directory_and_a_size_positive(tmp_path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OptionsError, match="takes a directory"):
        ResultCache(tmp_path / "file")
    with pytest.raises(OptionsError, match="max_bytes=0"):
        ResultCache(max_bytes=0)


def test_a_directory_is_for_the_user_alone_and_keeps_what_was_put(tmp_path) -> None:
    with ResultCache(tmp_path / "new" / "cache") as cache:
        cache.put("a", [1])
        assert cache.path.stat().st_mode & 0o777 == 0o700
        assert file_of(cache).stat().st_mode & 0o777 == 0o600
    with ResultCache(tmp_path / "new" / "cache") as cache:
        assert cache.get("a") == (True, [1])


@pytest.mark.parametrize(
    "damage",
    ["value = x'00'", "value = 'text'", "checksum = x'00'", "key = 'b'"],
)
def test_a_damaged_entry_is_dropped_counted_and_said(tmp_path, damage) -> None:
    with ResultCache(tmp_path) as cache:
        cache.put("a", [1])
        sql(cache, f"UPDATE results SET {damage}")
        key = "b" if "key" in damage else "a"
        with pytest.warns(RuntimeWarning, match=r"results\.sqlite.* is damaged .*dropped"):
            assert cache.get(key) == (False, None)
        assert (cache.stats()["corrupted"], len(cache)) == (1, 0)
        assert cache.get(key) == (False, None)


def test_a_value_of_an_unknown_format_is_dropped(tmp_path) -> None:
    from ember_xcs._runtime.stored import checksum

    with ResultCache(tmp_path) as cache:
        cache.put("a", [1])
        sql(cache, "UPDATE results SET value = ?, checksum = ?", b"old", checksum("a", b"old"))
        with pytest.warns(RuntimeWarning, match="another version"):
            assert cache.get("a") == (False, None)


def filled(path) -> None:
    with ResultCache(path) as cache:
        for k in range(50):
            cache.put(str(k), "x" * 5000)


def opened_and_read(path) -> ResultCache:
    cache = ResultCache(path)
    for k in range(50):
        cache.get(str(k))
    return cache


DAMAGES = {
    "text": lambda data: b"this is no database, but it is long enough to look at" * 100,
    "half": lambda data: data[: len(data) // 2],
    "begin": lambda data: data[:50],
    "zeros": lambda data: data[:8192] + bytes(len(data) - 8192),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_moved_aside_and_a_new_one_begun(tmp_path, damage) -> None:
    filled(tmp_path)
    file = tmp_path / "results.sqlite"
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with pytest.warns(RuntimeWarning, match=r"results\.sqlite.* is damaged .*moved to"):
        cache = opened_and_read(tmp_path)
    with cache:
        assert cache.put("new", 1)
        assert cache.get("new") == (True, 1)
        assert (cache.stats()["corrupted"], len(list(tmp_path.glob("*.corrupt")))) == (1, 1)


def test_a_file_that_is_replaced_while_it_is_open_is_followed(tmp_path) -> None:
    with ResultCache(tmp_path) as one:
        one.put("a", 1)
        file_of(one).rename(tmp_path / "elsewhere")
        with ResultCache(tmp_path) as other:
            other.put("b", 2)
            assert (one.get("a"), one.get("b")) == ((False, None), (True, 2))


def test_another_database_is_left_alone(tmp_path) -> None:
    connection = sqlite3.connect(tmp_path / "results.sqlite")
    connection.execute("CREATE TABLE precious (x)")
    connection.close()
    with pytest.raises(XCSError, match="name another"):
        ResultCache(tmp_path)


def test_a_failed_put_leaves_the_cache_usable(tmp_path) -> None:
    with ResultCache(tmp_path) as cache:
        cache.put("a", 1)
        sql(cache, "CREATE TRIGGER no BEFORE INSERT ON results BEGIN SELECT raise(FAIL, 'no'); END")
        with pytest.raises(XCSError, match="cannot be used: no"):
            cache.put("a", 2)
        assert cache.get("a") == (True, 1)


SCRIPT = """
import os, sys, threading
from ember_xcs._runtime.result_cache import ResultCache
path, processes, keys = sys.argv[1], 4, 60

def work(cache):
    for k in range(keys):
        cache.put(str(k), "x" * k)
        assert cache.get(str(k)) == (True, "x" * k)

cache = ResultCache(path)
cache.put("parent", 1)
children = []
for _ in range(processes):
    pid = os.fork()
    if pid == 0:
        try:
            assert cache.get("parent") == (True, 1)
            work(cache)
            os._exit(0)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
    children.append(pid)
work(cache)
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
print(codes, cache.stats()["entries"], cache.stats()["corrupted"])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_processes_share_a_directory(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[0, 0, 0, 0] 61 0"
    connection = sqlite3.connect(tmp_path / "results.sqlite")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_objects_of_one_directory_share_their_limit(tmp_path) -> None:
    size = len(encode("x" * 100))
    barrier = threading.Barrier(4)

    def work(n: int) -> None:
        with ResultCache(tmp_path, max_bytes=5 * size) as cache:
            barrier.wait()
            for k in range(20):
                cache.put(f"{n} {k}", "x" * 100)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    with ResultCache(tmp_path) as cache:
        assert (len(cache), cache.stats()["bytes"]) == (5, 5 * size)
        assert sql(cache, "SELECT count(*), sum(size) FROM results") == [(5, 5 * size)]
