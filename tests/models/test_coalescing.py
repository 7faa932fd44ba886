"""A line of requests: batches, failures that reach their own, and interrupts."""

import threading

import pytest

from ember_xcs.models._coalescing import Coalescing


def doubled(batch):
    return [2 * request for request in batch]


def test_answers_are_those_of_the_requests():
    line = Coalescing(doubled, 3, 0.0)
    futures = line.submitted(range(8))
    line.settle(futures)
    assert [future.result() for future in futures] == [2 * k for k in range(8)]


def test_a_failure_is_given_to_its_own_batch_alone():
    def fail_of_bad(batch):
        if "bad" in batch:
            raise ValueError("bad")
        return batch

    line = Coalescing(fail_of_bad, 1, 0.0)
    bad, good = line.submitted(["bad"]), line.submitted(["good"])
    line.settle(good)
    assert good[0].result() == "good"
    assert isinstance(bad[0].exception(), ValueError)


def test_whoever_is_interrupted_leaves_the_line():
    def interrupt(batch):
        raise KeyboardInterrupt

    line = Coalescing(interrupt, 2, 0.0)
    futures = line.submitted("abcd")
    with pytest.raises(KeyboardInterrupt):
        line.settle(futures)
    assert [future.cancelled() for future in futures] == [False, False, True, True]


def test_a_line_that_is_drained_starts_again():
    line = Coalescing(doubled, 2, 0.0)
    for _ in range(3):
        futures = line.submitted([1, 2, 3])
        line.drain()
        assert [future.result(10) for future in futures] == [2, 4, 6]


def test_who_stands_in_line_while_a_batch_is_answered_makes_the_next():
    begun, sizes, goes_on = threading.Event(), [], threading.Event()

    def wait(batch):
        sizes.append(len(batch))
        begun.set()
        assert goes_on.wait(10)
        return batch

    line = Coalescing(wait, 8, 0.0)
    first = line.submitted([0])
    line.drain()
    assert begun.wait(10)
    others = line.submitted([1, 2, 3])
    line.drain()
    goes_on.set()
    assert [future.result(10) for future in [*first, *others]] == [0, 1, 2, 3]
    assert sizes == [1, 3]
