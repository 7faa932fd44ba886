"""Limits on resources: so many calls at once, so many a minute, for the whole process.

A resource is a name, such as that of a model; its calls wait in line, whichever run, thread or
event loop they come from, and are admitted in the order in which they came. What is allowed in a
minute is counted over the last sixty seconds, so that no window of a minute has more.

How many tokens a call uses is known when it has ended. Until then it counts with an estimate: what
its operator expects, corrected by what calls have used of what was expected for them, or else what
they have used on average. Estimates are worth what is known, so at first no more calls are in
flight than one more than have ended.

A call within a call may wait for a resource that the outer one holds. If all who hold it wait
like that, nobody would ever go on; the last to come is given an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import Counter, deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from ember_xcs._core.limit import Limit
from ember_xcs._runtime.io_loop import io_loop
from ember_xcs._runtime.token_estimate import TokenEstimate
from ember_xcs.errors import OptionsError, XCSError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Admission", "Limiter", "close_alarms", "held", "holding", "limiter_of"]

_WINDOW_SECONDS: Final = 60.0
_IDLE_SECONDS: Final = 5.0

_held: ContextVar[Admission | None] = ContextVar("ember_xcs_held", default=None)
held = _held.get


@contextlib.contextmanager
def holding(admission: Admission | None) -> Iterator[None]:
    """Has what is called within a block be known as called within a call that was admitted."""
    if admission is None:
        yield
        return
    token = _held.set(admission)
    try:
        yield
    finally:
        _held.reset(token)


class Admission:
    """A call's place in line, and then its leave to run; ``release`` it when the call has ended.

    Attributes:
        limiter: The line.
        expected: What the call is expected to use, in tokens; None if nobody says.
        outer: The call that it is made within.
        waits: The lines in which calls within this one stand, with how many.
    """

    __slots__ = ("entry", "expected", "limiter", "notify", "outer", "waits")

    def __init__(
        self, limiter: Limiter, expected: float | None, notify: Callable[[], None]
    ) -> None:
        self.limiter, self.expected, self.notify = limiter, expected, notify
        self.entry: list[float] | None = None
        self.outer = held()
        self.waits: Counter[Limiter] = Counter()

    def release(self, tokens: float | None = None, *, failed: bool = False) -> None:
        """Ends the call.

        Args:
            tokens: What it used; None if it does not say, and the estimate stands.
            failed: Whether it failed: then nothing is learnt from its silence.
        """
        self.limiter.end(self, tokens, failed=failed)

    def cancel(self) -> None:
        """Leaves the line, or gives the leave back as if it had never been given."""
        self.limiter.cancel(self)

    def around(self) -> Iterator[Admission]:
        """Yields the calls that this one is made within."""
        outer = self.outer
        while outer is not None:
            yield outer
            outer = outer.outer


class Limiter:
    """The line before one resource.

    Args:
        name: The resource.
        clock: What tells the time, in seconds.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.name, self.clock = name, clock
        self.peak = 0
        self._limit = Limit()
        self._line: deque[Admission] = deque()
        self._holders: set[Admission] = set()
        self._begun: deque[list[float]] = deque()  # [time, tokens] of the last minute
        self._tokens = 0.0
        self._told, self._untold = TokenEstimate(), TokenEstimate()
        self._allowance = 0.0
        self._refilled: float | None = None

    @property
    def limit(self) -> Limit:
        """What is allowed now."""
        return self._limit

    def set(self, limit: Limit) -> None:
        """Sets what is allowed, for all that wait and come."""
        with _lock:
            if limit == self._limit:
                return
            self._limit = limit
            self._refilled = None
        self.admit()

    def acquire(
        self, tokens: float | None = None, stopped: Callable[[], None] | None = None
    ) -> Admission:
        """Waits for leave to make a call, on this thread.

        Args:
            tokens: What it is expected to use; None for what calls have used so far.
            stopped: Called from time to time; what it raises ends the wait.

        Raises:
            OptionsError: It could never begin.
            XCSError: It would block the I/O loop, on which others may have to end first.
        """
        self._check(tokens)
        admitted = threading.Event()
        admission = self._enter(tokens, admitted.set)
        try:
            self._refuse_blocked_loop(admitted.is_set())
            while not admitted.wait(0.1):
                if stopped is not None:
                    stopped()
        except BaseException:
            admission.cancel()
            raise
        return admission

    def _refuse_blocked_loop(self, is_admitted: bool) -> None:
        if not is_admitted and io_loop.is_current():
            raise XCSError(
                f"a call of {self.name!r} would wait in line on the I/O loop, and hold up all "
                "that runs there; in an `async def` operator use the async twin, "
                "`await aexecute_graph(...)`"
            )

    async def aacquire(self, tokens: float | None = None) -> Admission:
        """Waits for leave to make a call, without blocking the event loop.

        Args:
            tokens: What it is expected to use; None for what calls have used so far.

        Raises:
            OptionsError: It could never begin.
        """
        self._check(tokens)
        loop = asyncio.get_running_loop()
        admitted: asyncio.Future[None] = loop.create_future()

        def tell() -> None:
            if not admitted.done():
                admitted.set_result(None)

        admission = self._enter(tokens, lambda: _call_soon(loop, tell))
        try:
            await admitted
        except BaseException:
            admission.cancel()
            raise
        return admission

    def _check(self, tokens: float | None) -> None:
        most = self._limit.tokens_per_minute
        if most is not None and tokens is not None and tokens > most:
            raise OptionsError(
                f"a call of {self.name!r} is expected to use {tokens:g} tokens, and its limit is "
                f"{most:g} a minute: it could never begin. Raise the limit, or make it shorter."
            )

    def _enter(self, tokens: float | None, notify: Callable[[], None]) -> Admission:
        admission = Admission(self, tokens, notify)
        with _lock:
            self._line.append(admission)
            for outer in admission.around():
                outer.waits[self] += 1
        self.admit()
        for outer in admission.around():
            outer.limiter.admit()  # who waits does not keep others from beginning
        with _lock:
            is_stuck = (
                admission.entry is None
                and admission.outer is not None
                and self in _stuck_with(self)
            )
        if is_stuck:
            admission.cancel()
            raise OptionsError(
                f"a call of {self.name!r} waits within calls that hold all that the limits allow "
                f"({self._limit.concurrency} at once), and that cannot end before it: it could "
                "never begin. Raise the concurrency, or give inner and outer calls resources of "
                "their own."
            )
        return admission

    def admit(self) -> None:
        """Admits whom the limit allows, in order, and sees that it is called again in time."""
        admitted: list[Admission] = []
        with _lock:
            now, wait = self.clock(), None
            while self._line:
                wait = self._wait_for(self._line[0], now)
                if wait != 0.0:
                    break
                admission = self._line.popleft()
                self._begin(admission, now)
                admitted.append(admission)
            _alarms.set(self, now + wait if self._line and wait else None)
        for admission in admitted:
            admission.notify()

    @property
    def is_full(self) -> bool:
        """Whether nobody can begin before a call has ended."""
        most = self._limit.concurrency
        return most is not None and len(self._holders) >= most

    def _wait_for(self, admission: Admission, now: float) -> float | None:
        """How long the first in line has to wait; 0 for not at all, None until a call ends."""
        limit = self._limit
        self._forget(now)
        if self.is_full:
            return None
        waits = [0.0]
        if limit.requests_per_minute is not None:
            waits.append(self._wait_for_request(limit, now))
        if limit.tokens_per_minute is not None:
            at_work = sum(not holder.waits for holder in self._holders)
            if not self._estimate(admission).allows(at_work):
                return None
            waits.append(self._wait_for_tokens(admission, limit.tokens_per_minute, now))
        return max(waits)

    def _estimate(self, admission: Admission) -> TokenEstimate:
        return self._untold if admission.expected is None else self._told

    def _likely(self, admission: Admission) -> float:
        """What a call is likely to use; nothing, where nothing is known."""
        if admission.expected is not None:
            return self._told.of(admission.expected)
        return self._untold.of(1.0) if self._untold.knows else 0.0

    def _wait_for_request(self, limit: Limit, now: float) -> float:
        most = limit.requests_per_minute
        assert most is not None
        wait = 0.0
        excess = len(self._begun) + 1 - int(most)
        if excess > 0:
            wait = self._begun[excess - 1][0] + _WINDOW_SECONDS - now
        if limit.burst is not None:
            rate = most / _WINDOW_SECONDS
            if self._refilled is None:
                self._allowance = float(limit.burst)
            else:
                gained = (now - self._refilled) * rate
                self._allowance = min(self._allowance + gained, float(limit.burst))
            self._refilled = now
            if self._allowance < 1.0:
                wait = max(wait, (1.0 - self._allowance) / rate)
        return wait

    def _wait_for_tokens(self, admission: Admission, most: float, now: float) -> float:
        excess = self._tokens + min(self._likely(admission), most) - most
        if excess <= 0:
            return 0.0
        for begun, used in self._begun:
            excess -= used
            if excess <= 1e-9:
                return max(begun + _WINDOW_SECONDS - now, 0.0) or 1e-3
        return 1e-3  # what was used was set right meanwhile

    def _forget(self, now: float) -> None:
        while self._begun and self._begun[0][0] + _WINDOW_SECONDS <= now:
            self._tokens -= self._begun.popleft()[1]

    def _begin(self, admission: Admission, now: float) -> None:
        admission.entry = [now, self._likely(admission)]
        self._leave_line(admission)
        self._begun.append(admission.entry)
        self._tokens += admission.entry[1]
        self._allowance -= 1.0
        self._holders.add(admission)
        self.peak = max(self.peak, len(self._holders))

    def _leave_line(self, admission: Admission) -> None:
        """No longer has the calls around a call wait because of it."""
        for outer in admission.around():
            outer.waits[self] -= 1
            outer.waits += Counter()  # drops what is zero

    def end(self, admission: Admission, tokens: float | None, *, failed: bool) -> None:
        """Ends a call that was admitted; see ``Admission.release``."""
        with _lock:
            if admission not in self._holders:
                return
            self._holders.discard(admission)
            assert admission.entry is not None
            if tokens is not None or not failed:
                expected = 1.0 if admission.expected is None else admission.expected
                used = admission.entry[1] if tokens is None else tokens
                self._estimate(admission).add(expected, used)
            if tokens is not None:
                self._correct(admission.entry, tokens)
        self.admit()

    def _correct(self, entry: list[float], tokens: float) -> None:
        """Counts a call with what it has used."""
        self._forget(self.clock())
        if self._begun and entry[0] >= self._begun[0][0]:
            self._tokens += tokens - entry[1]
        entry[1] = tokens

    def cancel(self, admission: Admission) -> None:
        """Takes a call out of the line, or takes its leave back; see ``Admission.cancel``."""
        with _lock:
            if admission.entry is None:
                if admission in self._line:
                    self._line.remove(admission)
                    self._leave_line(admission)
            elif admission in self._holders:
                self._holders.discard(admission)
                self._correct(admission.entry, 0.0)
                if any(entry is admission.entry for entry in self._begun):
                    kept = [entry for entry in self._begun if entry is not admission.entry]
                    self._begun = deque(kept)
                    self._allowance += 1.0
        self.admit()

    def lines_waited_in(self) -> list[frozenset[Limiter]]:
        """Returns, for each call that holds the resource, the lines that it waits in."""
        return [frozenset(holder.waits) for holder in self._holders]

    @property
    def in_flight(self) -> int:
        """How many calls have begun and not ended."""
        return len(self._holders)

    def __len__(self) -> int:
        """How many calls wait."""
        return len(self._line)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"Limiter({self.name!r}, {len(self._holders)} in flight, {len(self._line)} in line)"


def _stuck_with(limiter: Limiter) -> set[Limiter]:
    """The lines, of those that a line depends on, in which nobody can ever go on."""
    found = [limiter]
    for one in found:  # grows meanwhile
        found += [m for lines in one.lines_waited_in() for m in lines if m not in found]
    stuck = set(dict.fromkeys(found))
    while True:
        moving = {
            one
            for one in stuck
            if not one.is_full or any(stuck.isdisjoint(lines) for lines in one.lines_waited_in())
        }
        if not moving:
            return stuck
        stuck -= moving


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:  # the loop has been closed, and with it what waited on it
        return


class _Alarms:
    """One thread that wakes limiters when time alone lets somebody in."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._times: dict[Limiter, float] = {}
        self._thread: threading.Thread | None = None

    def set(self, limiter: Limiter, when: float | None) -> None:
        """Has a limiter look at its line at a time of its clock; None for not at all."""
        if when is None and limiter not in self._times:
            return
        with self._changed:
            if when is None:
                self._times.pop(limiter, None)
            else:
                self._times[limiter] = when
                self._start()
            self._changed.notify()

    def close(self, timeout_seconds: float) -> list[str]:
        """Ends the thread, if nobody waits for it; returns its name if it goes on."""
        with self._changed:
            thread = self._thread
            if thread is None:
                return []
            self._thread = None if not self._times else thread
            self._changed.notify()
        thread.join(timeout_seconds if self._thread is None else 0.0)
        return [thread.name] if thread.is_alive() else []

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(
                target=self._serve, name="ember_xcs-limits", daemon=True
            )
            self._thread.start()

    def _serve(self) -> None:
        while True:
            with self._changed:
                if self._thread is not threading.current_thread():
                    return
                if not self._times:
                    if not self._changed.wait(_IDLE_SECONDS) and not self._times:
                        self._thread = None
                        return
                    continue
                waits = {limiter: at - limiter.clock() for limiter, at in self._times.items()}
                limiter = min(waits, key=waits.__getitem__)
                if waits[limiter] > 0:
                    self._changed.wait(waits[limiter])
                    continue
                del self._times[limiter]
            limiter.admit()


_alarms = _Alarms()
_limiters: dict[str, Limiter] = {}
_lock = threading.Lock()  # one for all lines: a call may wait in one and hold a place in another


def limiter_of(resource: str) -> Limiter:
    """Returns the line before a resource; there is one for the whole process."""
    with _lock:
        return _limiters.setdefault(resource, Limiter(resource))


def close_alarms(timeout_seconds: float) -> list[str]:
    """Ends the thread that lets calls in as time passes; returns its name if calls still wait.

    Args:
        timeout_seconds: How long to wait for its end, in seconds.
    """
    return _alarms.close(timeout_seconds)


def _after_fork() -> None:
    """A forked child has no waiting threads, and counts afresh."""
    global _alarms, _lock
    _alarms, _lock = _Alarms(), threading.Lock()
    _limiters.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
