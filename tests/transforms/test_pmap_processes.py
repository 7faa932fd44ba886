"""``pmap(executor="process")``: spawned processes, and what becomes of those that die."""

from __future__ import annotations

import os
from collections.abc import Iterator

import jax.numpy as jnp
import pytest

import ember_xcs as xcs
from ember_xcs._runtime.processes import processes
from tests.transforms import process_work as work


@pytest.fixture(autouse=True, scope="module")
def no_process_left_behind() -> Iterator[None]:
    yield
    assert processes.close() == []


def in_processes(function, **settings):
    return xcs.pmap(function, executor="process", **settings)


@pytest.mark.parametrize("chunk_size", [None, 2, 3])
def test_results_are_those_of_the_loop_in_order(chunk_size) -> None:
    found = in_processes(work.square, chunk_size=chunk_size)(list(range(7)))
    assert list(found) == [k * k for k in range(7)]


def test_the_work_is_done_by_other_processes_that_are_used_again() -> None:
    mapped = in_processes(work.pid)
    found = {int(pid) for _ in range(3) for pid in mapped(list(range(6)))}
    assert os.getpid() not in found
    assert len(found) <= (os.cpu_count() or 1)


def test_num_workers_bounds_the_processes() -> None:
    processes.close()
    found = in_processes(work.pid, num_workers=1)(list(range(6)))
    assert len({int(pid) for pid in found}) == 1


def test_arrays_go_to_processes_and_come_back() -> None:
    found = in_processes(work.square)(jnp.arange(3.0))
    assert [float(x) for x in found] == [0.0, 1.0, 4.0]


def test_processes_end_when_the_pool_is_closed() -> None:
    (pid, *_) = in_processes(work.pid)([1])
    assert processes.close() == []
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


@pytest.mark.parametrize("function", [lambda x: x, work.decorated.__wrapped__])
def test_a_function_that_cannot_be_sent_is_a_clear_error(function) -> None:
    with pytest.raises(xcs.NodeExecutionError, match="top level of an importable module"):
        in_processes(function)([1, 2])


def test_an_exception_in_a_process_names_the_element() -> None:
    with pytest.raises(xcs.NodeExecutionError, match="element 1: ValueError: no two"):
        in_processes(work.fail_at_two)([1, 2, 3])


def test_an_exception_in_a_chunk_notes_the_element() -> None:
    with pytest.raises(xcs.NodeExecutionError) as caught:
        in_processes(work.fail_at_two, chunk_size=3)([1, 2, 3])
    assert caught.value.__cause__.__notes__ == ["it was element 1 of the batch"]


def test_a_process_that_dies_names_the_element() -> None:
    with pytest.raises(xcs.NodeExecutionError, match=r"element 1: .*died with exit code 3"):
        in_processes(work.die_at_two)([1, 2, 3])


def test_on_error_return_keeps_the_death_of_a_process_in_its_place() -> None:
    found = in_processes(work.die_at_two, on_error="return")([1, 2, 3])
    assert (found[0], found[2]) == (1, 3)
    assert "died with exit code 3" in str(found[1])


def test_on_error_return_keeps_the_death_of_a_process_for_all_of_its_chunk() -> None:
    found = in_processes(work.die_at_two, on_error="return", chunk_size=2)([1, 2, 3, 4, 5])
    assert [isinstance(result, xcs.XCSError) for result in found] == [True, True, *[False] * 3]
    assert found[2:] == [3, 4, 5]


def test_on_error_return_keeps_a_call_that_takes_too_long() -> None:
    found = xcs.pmap(work.hangs_at_two, on_error="return")([1, 2, 3])
    assert (found[0], found[2]) == (1, 3)
    assert isinstance(found[1], xcs.ExecutionTimeout)


def test_the_time_of_a_call_begins_when_its_arguments_are_there() -> None:
    found = xcs.pmap(work.soon)([work.SlowToArrive(1), work.SlowToArrive(2)])
    assert [item.number for item in found] == [1, 2]


def test_a_timed_call_whose_arguments_cannot_arrive_says_so() -> None:
    with pytest.raises(xcs.NodeExecutionError, match="it never arrives"):
        xcs.pmap(work.soon)([work.NeverArrives()])


@pytest.mark.parametrize("executor", [None, "process"])
def test_a_deterministic_call_whose_process_died_is_made_once_more(tmp_path, executor) -> None:
    mapped = xcs.pmap(work.dies_once, in_axes=(0, None), executor=executor)
    assert list(mapped([1, 2, 3], str(tmp_path))) == [1, 2, 3]
    assert (tmp_path / "died").exists()


def test_a_deterministic_call_is_not_made_a_third_time(tmp_path) -> None:
    mapped = xcs.pmap(work.dies_always, in_axes=(0, None))
    with pytest.raises(xcs.NodeExecutionError, match=r"element 1: .*died"):
        mapped([1, 2, 3], str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_stochastic_call_whose_process_died_is_not_made_again(tmp_path) -> None:
    mapped = xcs.pmap(work.dies_once_stochastic, in_axes=(0, None))
    with pytest.raises(xcs.NodeExecutionError, match=r"element 1: .*died"):
        mapped([1, 2, 3], str(tmp_path))
