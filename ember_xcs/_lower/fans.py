"""Staged host calls as tasks: how one becomes the calls that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ember_xcs._core.arguments import summary
from ember_xcs._lower.lane_fans import in_step
from ember_xcs.errors import OperatorOutputError

if TYPE_CHECKING:
    from ember_xcs._core.operator import HostOperator
    from ember_xcs._trace.nodes import StagedCall

__all__ = ["BatchFan", "BoundCall", "CallFan", "fan_of", "start_batch", "start_call"]


class BoundCall(NamedTuple):
    """An operator with the arguments of one call; it can be pickled if they can."""

    operator: HostOperator
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def input_summary(self) -> str:
        """Returns the types and shapes of the arguments, for messages."""
        named = (f"{name}={summary(value)}" for name, value in self.kwargs.items())
        return ", ".join([*map(summary, self.args), *named])

    def rows(self) -> list[tuple[Any, tuple[Any, ...], dict[str, Any]]]:
        """Returns the call that it is: the operator, and its arguments."""
        return [(self.operator, self.args, self.kwargs)]


def start_call(call: BoundCall) -> Any:
    """Returns the result of one call; a coroutine if it is async."""
    return call.operator.start(call.args, call.kwargs)


class CallFan:
    """Each element of a batch as a call of its own."""

    __slots__ = ("call",)
    keeps_errors: bool = False

    def __init__(self, call: StagedCall) -> None:
        self.call = call

    def split(self, values: tuple[Any, ...]) -> Sequence[tuple[Any, ...]]:
        """Returns the calls."""
        _, operands = self.call.split(values)
        return [(BoundCall(*self.call.arguments(row)),) for row in operands]

    def join(self, values: tuple[Any, ...], results: Sequence[Any]) -> Any:
        """Returns the batched results."""
        if not self.call.batch:
            return self.call.results(results[0])
        return self.call.join_values(self.call.indices(values), results)

    def describe(self, values: tuple[Any, ...], index: int) -> str:
        """Returns ``"element 3"`` or ``"element (1, 2)"``."""
        return _described(self.call, values, index)


class BatchFan:
    """The elements of a batch as calls of the operator's batch end point."""

    __slots__ = ("call", "size")
    keeps_errors: bool = False

    def __init__(self, call: StagedCall, size: int | None) -> None:
        self.call, self.size = call, size

    def split(self, values: tuple[Any, ...]) -> Sequence[tuple[Any, ...]]:
        """Returns, for each call of the batch end point, the calls that it answers."""
        _, operands = self.call.split(values)
        rows = [BoundCall(*self.call.arguments(row)) for row in operands]
        size = self.size or max(len(rows), 1)
        return [(rows[k : k + size],) for k in range(0, len(rows), size)]

    def join(self, values: tuple[Any, ...], results: Sequence[Any]) -> Any:
        """Returns the batched results."""
        rows = [row for chunk in results for row in chunk]
        return self.call.join_values(self.call.indices(values), rows)

    def describe(self, values: tuple[Any, ...], index: int) -> str:
        """Returns ``"elements 0 to 7"``."""
        size = self.size or len(self.call.indices(values))
        return f"elements {index * size} to {index * size + size - 1}"


def start_batch(rows: Sequence[BoundCall]) -> Any:
    """Returns the results of one call of a batch end point; a coroutine if it is async."""
    operator = rows[0][0]
    prepared = [op.prepared(args, kwargs) for op, args, kwargs in rows]
    columns = [list(column) for column in zip(*(args for args, _ in prepared), strict=True)]
    named = {key: [kwargs[key] for _, kwargs in prepared] for key in prepared[0][1]}
    answer = operator.forward_batch(*columns, **named)  # type: ignore[attr-defined]
    if hasattr(answer, "__await__"):
        return _finished_later(operator, answer, len(rows))
    return _finished(operator, answer, len(rows))


async def _finished_later(operator: HostOperator, answer: Any, count: int) -> list[Any]:
    return _finished(operator, await answer, count)


def _finished(operator: HostOperator, answer: Any, count: int) -> list[Any]:
    results = list(answer)
    if len(results) != count:
        raise OperatorOutputError(
            f"forward_batch of operator {operator.name!r} was given {count} calls and returned "
            f"{len(results)} results; it returns one for each call, in order."
        )
    return [operator.finished(result) for result in results]


def _described(call: StagedCall, values: tuple[Any, ...], index: int) -> str:
    if not call.batch:
        return ""
    where = call.indices(values)[index]
    return f"element {where[0] if len(where) == 1 else where}"


def fan_of(call: StagedCall) -> tuple[Callable[..., Any], Any]:
    """Returns what runs one call of the fan, and the fan; no fan where one call is made."""
    if call.site.raw and (found := in_step(call)) is not None:
        return found
    if call.uses_batch:
        return start_batch, BatchFan(call, call.policy.max_batch_size)
    if call.batch or call.policy.executor == "process":
        return start_call, CallFan(call)
    return call.forward, None
