"""One run of a program: the calls in flight, in the order of the program, and how they fail.

The program runs on one thread and makes calls, each a ``Pending``. Calls begin as soon as their
operands are there, on whichever thread finds them ready. What the program sees is what it would
see if each call had ended before the next began:

- It waits where it needs a value (``force``), and for all of them (``settle``) before anything
  happens that other code could see.
- The first failure in the order of the program is the one that is raised (``Surfaced``): whoever
  raises one first waits for all calls before it. What comes after it is abandoned.

============  ================================================================================
unsettled     calls and expressions that may yet fail, in the order of the program
failed        the first place in that order that is known to have failed; None for none
tries         when each ``try`` was entered that the program is in, innermost last
clock         goes on with each call and each ``try``
eager         above 0: code that was not rewritten is at work, and every call ends before it returns
awaited       what the program is waiting for
============  ================================================================================
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from contextvars import ContextVar, copy_context
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from ember_xcs._core.jax_state import jax_settings
from ember_xcs._enhanced import calls
from ember_xcs._enhanced.call_sites import site_here
from ember_xcs._enhanced.containers import Containers, Snapshot
from ember_xcs._enhanced.pending import (
    ABANDONED,
    DONE,
    FAILED,
    POSTPONED,
    READY,
    RUNNING,
    WAITING,
    Pending,
    Postponed,
)
from ember_xcs._enhanced.report import Recorder
from ember_xcs.errors import XCSError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

    from ember_xcs._runtime.run import Run

__all__ = ["Failure", "Flow", "Surfaced", "active_flow"]

_SLICE_SECONDS: Final = 0.25  # a signal that comes just before a wait does not interrupt it
_FIRST_SWEEP: Final = 64

_active: ContextVar[Flow | None] = ContextVar("ember_xcs_flow", default=None)


def active_flow() -> Flow | None:
    """Returns the run that the code of this thread is the program of; None for none."""
    flow = _active.get()
    return flow if flow is not None and flow.thread == threading.get_ident() else None


class Failure(NamedTuple):
    """What a failed call raised, as it was when it did."""

    error: BaseException
    traceback: TracebackType | None
    context: BaseException | None


class Surfaced(NamedTuple):
    """A failure that has been raised in the program."""

    error: BaseException
    node: Pending


class Flow:
    """One run of a program.

    Args:
        run: The run of the engine: its options, its policies, its end.
        root: The frame that starts the program.
    """

    def __init__(self, run: Run, root: FrameType | None) -> None:
        self.run, self.root = run, root
        self.thread = threading.get_ident()
        self.containers = Containers()
        self.record = Recorder()
        self.unsettled: deque[Pending] = deque()
        self.tries: list[int] = []
        self.clock = self.eager = self.in_flight = 0
        self.failed: int | None = None
        self.surfaced: Surfaced | None = None
        self.awaited: Pending | None = None
        self.limit = run.options.max_workers
        self.parked: list[tuple[int, Pending]] = []
        self.stopped: bool = False
        self.is_recursive = True
        self.shown: dict[int, Failure] = {}
        self._since_effect: list[Pending] = []
        self._last_effect: Pending | None = None
        self._sweep_at = _FIRST_SWEEP
        self._lock = threading.Lock()
        self._signal = threading.Lock()
        self._signal.acquire()

    # Entering

    def __enter__(self) -> Flow:
        self._token = _active.set(self)
        self.run.attach(self)
        self.run.take_off(self)
        return self

    def __exit__(self, *_: object) -> None:
        _active.reset(self._token)
        self.run.detach(self)
        self.run.land(self)
        self.abandon()

    @property
    def since(self) -> int:
        """When the innermost ``try`` was entered."""
        return self.tries[-1] if self.tries else 0

    @property
    def is_busy(self) -> bool:
        """Whether there is anything to wait for, or to put in place, before other code runs."""
        return bool(self.unsettled or self.containers.tainted)

    # Making calls

    def submit(
        self,
        kind: str,
        label: str,
        work: Callable[..., Any],
        snapshot: Snapshot,
        operator: Any = None,
        *,
        after_all: bool = False,
    ) -> Pending:
        """Returns the pending result of a call, which begins as soon as it can.

        Args:
            kind: Where it is made: see ``calls``.
            label: What it is called in explanations.
            work: Makes it.
            snapshot: Its arguments.
            operator: The operator that it calls, if it calls one.
            after_all: Whether it begins only after all earlier calls have ended well.
        """
        if self.failed is not None:
            self.wait_all()
        self.clock += 1
        node = Pending(
            self.clock, kind, label, work, snapshot.args, snapshot.kwargs, snapshot.holes
        )
        node.site, node.handled = site_here(self.root), sys.exception()
        node.operator = operator
        node.originals = snapshot.originals or None
        if kind != "lift":
            node.context, node.settings = copy_context(), jax_settings()
            if operator is not None:
                calls.prepare(self, node)
        operands = [hole[2] for hole in snapshot.holes if type(hole[2]) is Pending]
        if after_all:
            operands += self._effects_before(node)
        else:
            self._since_effect.append(node)
        if self._is_ready(node, operands):
            self.go_on([node])
        self._note(node)
        return node

    def _note(self, node: Pending) -> None:
        unsettled = self.unsettled
        while unsettled and unsettled[0].state == DONE:
            unsettled.popleft()
        if node.state != DONE:
            unsettled.append(node)
        if len(self._since_effect) > self._sweep_at:
            self._since_effect = [n for n in self._since_effect if n.state != DONE]
            self._sweep_at = max(_FIRST_SWEEP, 2 * len(self._since_effect))

    def _effects_before(self, node: Pending) -> list[Pending]:
        before = [n for n in self._since_effect if n.state != DONE]
        if self._last_effect is not None:
            before.append(self._last_effect)
        self._last_effect, self._since_effect = node, []
        return before

    def _is_ready(self, node: Pending, operands: list[Pending]) -> bool:
        """Has a call wait for its operands, and tells whether it need not."""
        with self._lock:
            for operand in operands:
                if operand.state >= FAILED:
                    node.state = ABANDONED
                    return False
                if operand.state < DONE:
                    operand.readers.append(node)
                    node.missing += 1
            return node.missing == 0

    # Performing them

    def go_on(self, ready: list[Pending]) -> None:
        """Begins calls whose operands are there, and what these make ready."""
        while ready:
            node = ready.pop()
            if self.stopped or (self.failed is not None and node.order > self.failed):
                ready += self.finish(node, None, None, ABANDONED)
            elif node.kind == "lift":
                ready += self._evaluated(node)
            elif node.kind in calls.LIGHT:
                if calls.must_leave(node):
                    calls.in_pool(self, node)
                else:
                    ready += self._evaluated(node)
            elif self._admit(node):
                calls.launch(self, node)

    def _admit(self, node: Pending) -> bool:
        with self._lock:
            if self.limit is not None and self.in_flight >= self.limit:
                heappush(self.parked, (node.order, node))
                return False
            self.in_flight += 1
            node.state = READY
        return True

    def _evaluated(self, node: Pending) -> list[Pending]:
        node.state = RUNNING
        here = active_flow() is self
        self.eager += here
        try:
            value = calls.compute(node)
        except Postponed:
            self._postpone(node)
            return []
        except BaseException as error:
            if here and isinstance(error, KeyboardInterrupt):
                raise
            return self.finish(node, None, error, FAILED)
        finally:
            self.eager -= here
        return self.finish(node, value, None, DONE)

    def _postpone(self, node: Pending) -> None:
        with self._lock:
            node.kind = POSTPONED
            if self.awaited is node:
                self.awaited = None
                self._signal.release()

    def _catch_up(self, node: Pending) -> None:
        """Does what only the program can do, after all that comes before it."""
        for earlier in list(self.unsettled):
            if earlier is node:
                break
            self.force(earlier)
        receiver, *others = node.args
        call = getattr(receiver, node.label)
        self.eager += 1
        try:
            value = call(*others, **node.kwargs)
        except Exception as error:  # noqa: BLE001  (user code may raise anything)
            self.complete(node, None, error)
        else:
            self.complete(node, value, None)
        finally:
            self.eager -= 1

    def claim(self, node: Pending) -> bool:
        """Takes a call that is ready; False if somebody else has."""
        with self._lock:
            if node.state != READY:
                return False
            node.state = RUNNING
        return True

    def airborne(self, node: Pending, flight: Any) -> None:
        """Notes the coroutine that makes a call, so that it can be cancelled."""
        with self._lock:
            node.flight = flight
            is_wanted = node.state == RUNNING
        if not is_wanted:
            flight.cancel()

    def complete(self, node: Pending, value: Any, error: BaseException | None) -> None:
        """Takes the outcome of a call that was launched, and goes on with what it made ready."""
        self.go_on(self.finish(node, value, error, DONE if error is None else FAILED))

    def finish(
        self, node: Pending, value: Any, error: BaseException | None, state: int
    ) -> list[Pending]:
        """Notes the outcome of a call, and returns what may begin because of it."""
        ready: list[Pending] = []
        with self._lock:
            if node.state >= DONE:  # it was abandoned
                return []
            was_admitted = node.state in (READY, RUNNING) and node.kind in calls.HEAVY
            if error is not None:
                node.error = error
                value = Failure(error, error.__traceback__, _context(error, node.handled))
                if self.failed is None or node.order < self.failed:
                    self.failed = node.order
            elif state == DONE:
                node.site = node.handled = None
            node.value = value
            node.work, node.args, node.kwargs, node.holes = calls.no_work, [], {}, ()
            node.flight = node.context = node.settings = node.originals = None
            node.state = state
            self._tell_readers(node, ready)
            if was_admitted:
                ready += self._unpark(node)
            awaited = self.awaited
            if awaited is not None and self._is_awaited(awaited):
                self.awaited = None
                self._signal.release()
        return ready

    def _unpark(self, node: Pending) -> list[Pending]:
        if node.kind not in calls.HEAVY:
            return []
        self.in_flight -= 1
        return [heappop(self.parked)[1]] if self.parked else []

    def _tell_readers(self, node: Pending, ready: list[Pending]) -> None:
        told = [node]
        for ended in told:  # grows meanwhile
            readers, ended.readers = ended.readers, []
            for reader in readers:
                if reader.state != WAITING:
                    continue
                if ended.state == DONE:
                    reader.missing -= 1
                    if reader.missing == 0:
                        ready.append(reader)
                        if reader.kind == "lift":
                            reader.cause = ended.cause
                else:
                    reader.state = ABANDONED
                    told.append(reader)

    def _is_awaited(self, awaited: Pending) -> bool:
        if awaited.kind == POSTPONED:
            return True
        return awaited.state >= DONE or (self.failed is not None and self.failed < awaited.order)

    # Waiting

    def force(self, node: Pending) -> Any:
        """Returns the value of a call when it is there.

        Raises:
            BaseException: What the first call up to this one raised that failed.
        """
        if node.state != DONE:
            self._wait(node)
        if node.state != DONE or (self.failed is not None and self.failed < node.order):
            self.wait_all()
        if node.state != DONE:
            raise XCSError(
                f"internal error: the program needs {node!r}, which was abandoned. Run this with "
                "EMBER_XCS_ENHANCED=0, and please report the program."
            )
        return node.value

    def settle(self) -> None:
        """Waits for all calls made so far.

        Raises:
            BaseException: What the first of them raised that failed.
        """
        if self.unsettled:
            self.wait_all()
        if self.containers.tainted:
            self.containers.resolve()

    def first_failure(self) -> Surfaced | None:
        """Waits for all calls made so far, and returns the first that failed."""
        try:
            self.settle()
        except BaseException as error:
            if self.surfaced is None or self.surfaced.error is not error:
                raise
            return self.surfaced
        return None

    def wait_all(self) -> None:
        """Waits for all calls, in their order; raises what the first raised that failed."""
        unsettled = self.unsettled
        while unsettled:
            node = unsettled[0]
            if node.state < DONE:
                self._wait(node)
            if node.state == DONE:
                unsettled.popleft()
            elif node.state == FAILED:
                self._surface(node)
            else:
                self.run.check()
                unsettled.popleft()

    def _wait(self, node: Pending) -> None:
        """Waits for a call, or until an earlier one has failed; makes it here if nobody has."""
        if node.kind == POSTPONED:
            self._catch_up(node)
            return
        if node.kind == calls.THREAD and not self.run.is_watched and self.claim(node):
            start = time.perf_counter()
            self.eager += 1
            try:
                calls.perform(self, node)
            finally:
                self.eager -= 1
                self.record.waited(node, time.perf_counter() - start, self.root)
            return
        with self._lock:
            if self._is_awaited(node):
                return
            self.awaited = node
        start = time.perf_counter()
        try:
            while not self._signal.acquire(timeout=_SLICE_SECONDS):
                if self.stopped:
                    self.run.check()
        except BaseException:
            self._stop_waiting()
            raise
        self.record.waited(node, time.perf_counter() - start, self.root)
        self.run.check()
        if node.kind == POSTPONED and node.state == RUNNING:
            self._catch_up(node)

    def _stop_waiting(self) -> None:
        """Forgets what is awaited, because of Ctrl-C or the end of the run."""
        with self._lock:
            if self.awaited is None:  # it has come just now
                self._signal.acquire(blocking=False)
            self.awaited = None

    def _surface(self, node: Pending) -> NoReturn:
        """Raises what a call raised; what the program made after it is abandoned."""
        failure: Failure = node.value
        self.abandon()
        self.surfaced = Surfaced(failure.error, node)
        raise failure.error.with_traceback(failure.traceback)

    def abandon(self) -> None:
        """Forgets all calls; those in flight are cancelled where that is possible."""
        with self._lock:
            unsettled = [n for n in self.unsettled if n.state < DONE]
            flights = [n.flight for n in unsettled if n.kind == calls.ASYNC]
            for node in unsettled:
                if node.state in (READY, RUNNING) and node.kind in calls.HEAVY:
                    self.in_flight -= 1
                node.state = ABANDONED
            self.parked = [entry for entry in self.parked if entry[1].state == WAITING]
            self.unsettled.clear()
            self.failed = None
            self._since_effect, self._last_effect = [], None
        calls.cancel(flights)

    def stop(self) -> None:
        """Ends the run: nothing more begins, and the program is let go."""
        with self._lock:
            self.stopped = True
            if self.awaited is not None:
                self.awaited = None
                self._signal.release()
        calls.cancel([n.flight for n in list(self.unsettled) if n.kind == calls.ASYNC])

    cancel = stop  # to its run, the program is in flight until its cleaning up is done


def _context(error: BaseException, handled: BaseException | None) -> BaseException | None:
    """What an error was raised in the course of handling: of an operator, and of the program."""
    if handled is None or handled is error:
        return error.__context__
    last, seen = error, {id(error)}
    while last.__context__ is not None and id(last.__context__) not in seen:
        last = last.__context__
        seen.add(id(last))
        if last is handled:
            return error.__context__
    if last is error:
        return handled
    last.__context__ = handled
    return error.__context__
