"""Processes for CPU-bound Python: spawned, never forked, and reused.

A process does one call at a time, and a thread waits for it meanwhile, so a call can be killed
without harm to any other. There are at most as many as processors.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import threading
import traceback
from typing import TYPE_CHECKING, Any

from ember_xcs._core.usage import Meter, Usage, current_meter, metering
from ember_xcs._runtime.failures import call_timeout
from ember_xcs.errors import ExecutionCancelled, XCSError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection

    from ember_xcs._lower.plan import Task
    from ember_xcs._runtime.run import Run

__all__ = ["ProcessDied", "ProcessPool", "processes"]

_BEGUN = b""  # what a process says when a call that has a timeout begins
_TURN_SECONDS = 0.1  # how often a call that waits for a process looks whether its run has ended


class ProcessPool:
    """A pool of spawned processes.

    Args:
        size: The most processes at once; None for the number of processors.
    """

    def __init__(self, size: int | None = None) -> None:
        self._turns = threading.Semaphore(size or os.cpu_count() or 1)
        self._idle: list[_Process] = []
        self._lock = threading.Lock()

    def call(self, run: Run, task: Task, arguments: Sequence[Any]) -> Any:
        """Has a process make a call, and waits for its result.

        Args:
            run: The run; the process is killed if the run is stopped.
            task: What to call; ``task.timeout_seconds`` is how long it may take.
            arguments: What with, by position.

        Raises:
            XCSError: If the call cannot be pickled, or the process died; if the task is repeatable,
                the process that was to make the call once more, too.
            ExecutionTimeout: If the call takes too long; the process is killed.
        """
        request = _pickled(task, arguments)
        try:
            reply = self._ask(run, task, request)
        except ProcessDied:
            if not task.is_repeatable:
                raise
            reply = self._ask(run, task, request)
        return _unpacked(reply, task)

    def _ask(self, run: Run, task: Task, request: bytes) -> bytes:
        """Has a process make a call as soon as one may."""
        while not self._turns.acquire(timeout=_TURN_SECONDS):
            run.check()
        try:
            process = self._borrow()
            run.attach(process)
            try:
                return process.ask(request, task)
            finally:
                run.detach(process)
                self._give_back(process)
        finally:
            self._turns.release()

    def close(self, timeout_seconds: float = 5.0) -> list[str]:
        """Ends the processes that have no work; the pool can still be used.

        Args:
            timeout_seconds: How long to wait for each process to end, in seconds.

        Returns:
            The names of those that did not end in time.
        """
        with self._lock:
            idle, self._idle = self._idle, []
        for process in idle:
            process.stop()
        return [process.name for process in idle if not process.join(timeout_seconds)]

    def _borrow(self) -> _Process:
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if process.is_alive:
                    return process
        return _Process()

    def _give_back(self, process: _Process) -> None:
        if process.usable:
            with self._lock:
                self._idle.append(process)
        else:
            process.stop()
            process.join(5.0)


class ProcessDied(XCSError):
    """Raised when a process ended before its call did."""


class _Process:
    """One spawned process, and the pipe to it."""

    _numbers = itertools.count(1)

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self.name = f"ember_xcs-process-{next(self._numbers)}"
        self._process = context.Process(target=serve, args=(theirs,), name=self.name, daemon=True)
        self._process.start()
        theirs.close()
        self.usable = True
        self._stopped = False

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def ask(self, request: bytes, task: Task) -> bytes:
        """Sends a call and waits for the reply."""
        self.usable = False  # until the reply is in, what is in the pipe is not known
        try:
            self._pipe.send_bytes(request)
            reply = self._pipe.recv_bytes()
            if reply == _BEGUN:  # the start of a process, and its imports, are not the call's time
                if not self._pipe.poll(task.timeout_seconds):
                    raise call_timeout(task)
                reply = self._pipe.recv_bytes()
        except (EOFError, OSError) as error:
            raise self._death(task) from error
        self.usable = True
        return reply

    def stop(self) -> None:
        """Kills the process."""
        self._stopped = True
        self._process.kill()

    def join(self, seconds: float) -> bool:
        """Waits for the end of the process, and tells whether it came."""
        self._process.join(seconds)
        if self._process.is_alive():
            return False
        self._pipe.close()
        return True

    def _death(self, task: Task) -> XCSError:
        if self._stopped:
            return ExecutionCancelled(f"the process of {task.operator} was killed with its run")
        self._process.join(1.0)
        return ProcessDied(
            f"the process that ran {task.operator} died with exit code {self._process.exitcode}; "
            "if it died at its first call, the main script may start work when it is imported: "
            "put that under `if __name__ == '__main__':`"
        )


def serve(pipe: Connection) -> None:
    """Makes calls until the pipe is closed; the main function of a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which kills
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            pipe.send_bytes(_answer(pipe.recv_bytes(), pipe))


def _answer(request: bytes, pipe: Connection) -> bytes:
    meter = Meter()
    try:
        function, arguments, is_timed = pickle.loads(request)
        if is_timed:
            pipe.send_bytes(_BEGUN)
        with metering(meter):
            result = function(*arguments)
    except BaseException as error:  # noqa: BLE001  (user code may raise anything)
        return _failure(error, meter)
    try:
        return pickle.dumps((True, result, "", _used(meter)), protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # noqa: BLE001  (user code may raise anything)
        return _failure(TypeError(f"its result cannot be sent back: {error}"), meter)


def _used(meter: Meter) -> Usage | None:
    """What a call reported to have used; None if it did not say."""
    return meter.usage if meter.reported else None


def _failure(error: BaseException, meter: Meter) -> bytes:
    text = "".join(traceback.format_exception(error))
    try:
        request = pickle.dumps((False, error, text, _used(meter)))
        pickle.loads(request)
    except Exception:  # noqa: BLE001  (user code may raise anything)
        substitute = RuntimeError(f"{type(error).__name__}: {error}")
        return pickle.dumps((False, substitute, text, _used(meter)))
    return request


class _RemoteTraceback(Exception):
    """The traceback of an exception in another process."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _pickled(task: Task, arguments: Sequence[Any]) -> bytes:
    function: Callable[..., Any] = task.run
    try:
        request = (function, tuple(arguments), task.timeout_seconds is not None)
        return pickle.dumps(request, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise XCSError(
            f"{task.operator} runs in a process, but the call cannot be pickled: {error}; its "
            "function and the types of its arguments must be defined at the top level of an "
            "importable module (no lambda, no function within a function)"
        ) from error


def _unpacked(reply: bytes, task: Task) -> Any:
    try:
        good, result, text, used = pickle.loads(reply)
    except Exception as error:
        raise XCSError(f"the result of {task.operator} cannot be unpickled: {error}") from error
    meter = current_meter()
    if meter is not None and used is not None:
        meter.add(used)
    if good:
        return result
    raise result from _RemoteTraceback(text)


processes = ProcessPool()


def _after_fork() -> None:
    processes.__init__()  # type: ignore[misc]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
