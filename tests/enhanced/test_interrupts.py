"""Ctrl-C and the deadline let the program clean up, at once: a call that never ends proves it."""

from __future__ import annotations

import signal
import threading

import pytest

import ember_xcs as xcs

SECONDS = 20


@pytest.fixture
def stuck():
    """An operator whose calls end only with the test, and what tells that one has begun."""
    begun, end = threading.Event(), threading.Event()

    @xcs.host
    def never(text):
        begun.set()
        while not end.wait(0.05):  # a signal just before a wait does not interrupt that
            pass
        return text

    yield never, begun
    end.set()


def interrupt_when(begun):
    def send():
        begun.wait(SECONDS)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Thread(target=send, daemon=True).start()


@pytest.mark.parametrize("calls", [1, 3])
def test_ctrl_c_runs_finally_while_calls_are_in_flight(stuck, calls):
    never, begun = stuck
    log = []

    def program(text):
        try:
            return [never(text) for _ in range(calls)]
        finally:
            log.append("cleaned")

    interrupt_when(begun)
    with pytest.raises(KeyboardInterrupt):
        xcs.jit.enhanced(program)("a")
    assert log == ["cleaned"]


@pytest.mark.parametrize("calls", [1, 3])
def test_a_program_may_catch_ctrl_c_and_go_on(stuck, calls):
    never, begun = stuck

    @xcs.host
    def ask(text):
        return f"<{text}>"

    def program(text):
        found = ["before"]
        try:
            found = [never(text) for _ in range(calls)]
            return found  # noqa: RET504  (assigned in the body, and so restored)
        except KeyboardInterrupt:
            return found, ask(text)

    interrupt_when(begun)
    assert xcs.jit.enhanced(program)("a") == (["before"], "<a>")


def test_the_deadline_runs_finally_before_the_caller_goes_on(stuck):
    never, _ = stuck
    log = []

    def program(text):
        try:
            return never(text)
        finally:
            log.append("cleaned")

    f = xcs.jit(program, mode="enhanced", options={"timeout_seconds": 0.1})
    with pytest.raises(xcs.ExecutionTimeout):
        f("a")
    assert log == ["cleaned"]


def test_the_deadline_leaves_a_context(stuck):
    never, _ = stuck
    lock = threading.Lock()

    def program(text):
        with lock:
            return never(text)

    f = xcs.jit(program, mode="enhanced", options={"timeout_seconds": 0.1})
    with pytest.raises(xcs.ExecutionTimeout):
        f("a")
    assert not lock.locked()
