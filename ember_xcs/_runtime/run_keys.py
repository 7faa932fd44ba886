"""What runs are known by in a journal.

A run is known by its plan and its inputs, and by its number among those like it in this process;
one that did not end well leaves its number to the next. A number that another process is running
just now is passed over: the two are different runs. A run within a call of another, such as a round
of a loop, is known by that call, the attempt, its plan and inputs, and by how many like it were
begun there.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import os
import threading
from collections import Counter
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ember_xcs._core.arguments import summary
from ember_xcs._runtime.content import Unstorable, encode
from ember_xcs._runtime.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ember_xcs._lower.plan import Plan

__all__ = ["RunKey", "digest", "journal_at", "place_of", "within"]


class RunKey:
    """What a run is known by, from its beginning to its end.

    Args:
        plan: Its plan.
        values: The values of the inputs of the plan.
        journal: Where it is recorded.

    Attributes:
        text: The key.
    """

    def __init__(self, plan: Plan, values: Sequence[Any], journal: Journal) -> None:
        self._journal, self._number = journal, 0
        self._numbers: _Numbers | None = None
        content = digest(plan.name, *(_content(value) for value in values))
        scope = _scope.get()
        if scope is not None:
            self.text = scope.run_key(content)
            return
        with _lock:
            numbers = _numbers.setdefault(journal, {}).setdefault(content, _Numbers())
            self._number = numbers.take(lambda number: journal.claim(digest(content, str(number))))
        self._numbers = numbers
        self.text = digest(content, str(self._number))
        self._begun = journal.begin_noting(self.text)

    def end(self, *, is_complete: bool) -> None:
        """Notes the end of the run: one that is not complete is gone on with by the next."""
        numbers, self._numbers = self._numbers, None
        if numbers is None:
            return
        with _lock:
            self._journal.disclaim(self.text)
            if not is_complete:
                numbers.give_back(self._number)
        if is_complete:
            self._begun.wait()


class _Numbers:
    """The numbers of equal runs; one that is given back is given out again first."""

    def __init__(self) -> None:
        self._next = 0
        self._free: list[int] = []

    def take(self, claim: Callable[[int], bool]) -> int:
        """Returns the first number that can be claimed; those before it stay free."""
        passed_over = []
        while not claim(number := self._first()):
            passed_over.append(number)
        for other in passed_over:
            self.give_back(other)
        return number

    def _first(self) -> int:
        if self._free:
            return heapq.heappop(self._free)
        self._next += 1
        return self._next - 1

    def give_back(self, number: int) -> None:
        heapq.heappush(self._free, number)


class _Scope:
    """What runs begun here are known by."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._counts: Counter[str] = Counter()

    def run_key(self, content: str) -> str:
        """Returns the key of the next run of this content."""
        with _lock:
            number = self._counts[content]
            self._counts[content] += 1
        return digest(self._key, content, str(number))


_scope: ContextVar[_Scope | None] = ContextVar("ember_xcs_journal_scope", default=None)
_journals: dict[str, Journal] = {}
_numbers: WeakKeyDictionary[Journal, dict[str, _Numbers]] = WeakKeyDictionary()
_lock = threading.Lock()


def journal_at(path: str | os.PathLike[str] | Journal) -> Journal:
    """Returns the journal in a file; one object for each file in a process."""
    if isinstance(path, Journal):
        return path
    name = str(Path(path).resolve())
    with _lock:
        if name not in _journals:
            _journals[name] = Journal(name)
        return _journals[name]


def place_of(operator: str) -> str:
    """Returns what the next call is known by that code here makes itself."""
    return operator if (scope := _scope.get()) is None else scope.run_key(operator)


@contextlib.contextmanager
def within(key: str) -> Iterator[None]:
    """Has the runs that are begun in a block be known by a key; by nothing new if it is empty."""
    if not key:
        yield
        return
    token = _scope.set(_Scope(key))
    try:
        yield
    finally:
        _scope.reset(token)


def digest(*parts: str) -> str:
    """Returns the SHA-256 of some texts, in hexadecimal."""
    state = hashlib.sha256()
    for part in parts:
        state.update(f"{len(part)}:{part}".encode("utf-8", "surrogatepass"))
    return state.hexdigest()


def _content(value: Any) -> str:
    """What an input is known by; the calls that read it are known by what they read, too."""
    try:
        return hashlib.sha256(encode(value)).hexdigest()
    except Unstorable:
        return summary(value)


def _after_fork() -> None:
    global _lock  # noqa: PLW0603  (a thread of the parent may have held it)
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
