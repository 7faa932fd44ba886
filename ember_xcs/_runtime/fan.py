"""A fan in progress: one task that is many calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ember_xcs._runtime.layout import EMPTY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ember_xcs._lower.plan import Task
    from ember_xcs.errors import NodeExecutionError

__all__ = ["OpenFan"]


class OpenFan:
    """The calls of a fan. Its counts change only under the lock of its dispatch.

    Attributes:
        calls: The arguments of each call.
        results: What the calls returned, in their order.
        next: The number of the next call to begin.
        in_flight: How many calls have begun and not ended.
        ended: How many calls have ended well.
        error: The failure of the first call that failed.
        keeps_errors: Whether the exception of a call is its result.
        at: The number of the call being made, where they are made one after another.
        values: What the fan was split from; None once it has ended.
        failures: What calls have failed with, by number.
        queued: Whether the fan is in the queue of ready tasks. Holds between any two changes:
            a fan with calls that may begin is queued, and at most once.
    """

    __slots__ = (
        "at",
        "calls",
        "ended",
        "error",
        "failures",
        "in_flight",
        "keeps_errors",
        "limit",
        "next",
        "queued",
        "results",
        "values",
    )

    def __init__(
        self, task: Task, values: tuple[Any, ...], calls: Sequence[tuple[Any, ...]]
    ) -> None:
        self.calls = calls
        self.values: tuple[Any, ...] | None = values
        self.failures: dict[int, BaseException] = {}
        self.results: list[Any] = [EMPTY] * len(calls)
        self.next = self.in_flight = self.ended = 0
        self.error: NodeExecutionError | None = None
        self.keeps_errors = task.fan is not None and task.fan.keeps_errors
        self.at: int | None = None
        self.limit = len(calls) if task.concurrency is None else task.concurrency
        self.queued = bool(calls)

    @property
    def left(self) -> int:
        """How many calls have not begun."""
        return len(self.calls) - self.next

    @property
    def may_begin(self) -> bool:
        """Whether another call may begin now."""
        return self.error is None and self.next < len(self.calls) and self.in_flight < self.limit

    def keeps(self, element: int | None, error: BaseException) -> bool:
        """Whether an error is the result of a call; not what fails when the calls have ended."""
        return (
            self.keeps_errors
            and element is not None
            and isinstance(error, Exception)
            and self.results[element] is EMPTY
        )

    def begin(self) -> int:
        """Begins a call and returns its number."""
        element = self.next
        self.next += 1
        self.in_flight += 1
        self.queued = self.may_begin
        return element

    def begin_some(self, count: int | None) -> range:
        """Begins so many calls, or all that are left, and returns their numbers."""
        begun = range(self.next, len(self.calls))[:count]
        self.next += len(begun)
        self.in_flight += len(begun)
        self.queued = self.may_begin
        return begun

    def end(self) -> bool:
        """Ends a call; returns whether the fan is to be queued again."""
        self.in_flight -= 1
        if self.queued or not self.may_begin:
            return False
        self.queued = True
        return True
