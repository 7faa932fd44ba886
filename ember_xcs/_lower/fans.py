"""Staged host calls as tasks: how one becomes the calls that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from ember_xcs._core.arguments import summary
from ember_xcs._core.calls import is_coroutine_callable
from ember_xcs._lower.lane_fans import in_step
from ember_xcs.errors import OperatorOutputError

if TYPE_CHECKING:
    from ember_xcs._core.operator import HostOperator
    from ember_xcs._trace.nodes import StagedCall

__all__ = [
    "BoundCall",
    "CallFailure",
    "CallFan",
    "arun_rows",
    "batch_is_async",
    "fan_of",
    "run_rows",
    "start_call",
]


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

    @property
    def goes_together(self) -> bool:
        """Whether there is a batch end point for the calls, and one operator for all."""
        return self.call.uses_batch

    def split(self, values: tuple[Any, ...]) -> Sequence[tuple[Any, ...]]:
        """Returns the calls."""
        _, operands = self.call.split(values)
        return [(BoundCall(*self.call.arguments(row)),) for row in operands]

    def join(self, values: tuple[Any, ...], results: Sequence[Any]) -> Any:
        """Returns the batched results."""
        if not self.call.batch:
            return self.call.results(results[0])
        return self.call.join_values(self.call.indices(values), results)

    def partial(self, values: tuple[Any, ...], results: Sequence[Any]) -> Any:
        """Returns the results of the calls as nested lists; None where no call is made."""
        if not self.call.batch:
            return results[0]
        whole = np.empty(self.call.batch, object)
        for index, result in zip(self.call.indices(values), results, strict=True):
            whole[index] = result
        return whole.tolist()

    def describe(self, values: tuple[Any, ...], index: int) -> str:
        """Returns ``"element 3"`` or ``"element (1, 2)"``."""
        return _described(self.call, values, index)


class CallFailure(Exception):
    """Stands for a call of a batch that failed, among the results of the others.

    Attributes:
        error: What it failed with.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def batch_is_async(operator: HostOperator) -> bool:
    """Returns whether the batch end point of an operator is awaited."""
    return is_coroutine_callable(operator.forward_batch)  # type: ignore[attr-defined]


def run_rows(rows: Sequence[BoundCall]) -> list[Any]:
    """Returns the results of calls that go to the batch end point of their operator together.

    A ``CallFailure`` stands for a call whose arguments are refused, whose result is not what the
    operator declares, or for which the end point returned an exception.
    """
    columns = _Columns(rows)
    for part in columns.parts():
        columns.take(part, columns.ask(part))
    return columns.results


async def arun_rows(rows: Sequence[BoundCall]) -> list[Any]:
    """Returns the same where the batch end point is a coroutine function."""
    columns = _Columns(rows)
    for part in columns.parts():
        columns.take(part, await columns.ask(part))
    return columns.results


_Shape: TypeAlias = tuple[int, frozenset[str]]  # how many arguments by position, and which by name


class _Columns:
    """Calls as the lists that a batch end point takes, and the results of the calls."""

    def __init__(self, rows: Sequence[BoundCall]) -> None:
        self._operator = rows[0].operator
        self.results: list[Any] = [None] * len(rows)
        self._prepared: dict[int, tuple[tuple[Any, ...], Mapping[str, Any]]] = {}
        for k, row in enumerate(rows):
            try:
                self._prepared[k] = row.operator.prepared(row.args, row.kwargs)
            except Exception as error:  # noqa: BLE001  (user code may raise anything)
                self.results[k] = CallFailure(error)
        if len({_shape(given) for given in self._prepared.values()}) > 1:
            self._prepared = {k: self._in_full(*given) for k, given in self._prepared.items()}

    def _in_full(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """The arguments with defaults, so that calls that were written differently are alike."""
        bound = self._operator.call_parameters.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.args, bound.kwargs

    def parts(self) -> Iterable[list[int]]:
        """Returns which calls can be asked together: all, unless some have more arguments."""
        parts: dict[_Shape, list[int]] = {}
        for k, given in self._prepared.items():
            parts.setdefault(_shape(given), []).append(k)
        return parts.values()

    def ask(self, part: Sequence[int]) -> Any:
        """Returns what the batch end point returns for some of the calls."""
        given = [self._prepared[k] for k in part]
        columns = [list(column) for column in zip(*(args for args, _ in given), strict=True)]
        named = {name: [kwargs[name] for _, kwargs in given] for name in given[0][1]}
        return self._operator.forward_batch(*columns, **named)  # type: ignore[attr-defined]

    def take(self, part: Sequence[int], answer: Any) -> None:
        """Takes what the batch end point returned.

        Raises:
            OperatorOutputError: It is not one result for each call.
        """
        if not isinstance(answer, Iterable) or isinstance(answer, str | bytes | Mapping):
            raise OperatorOutputError(
                f"forward_batch of operator {self._operator.name!r} returned a "
                f"{type(answer).__name__}; it returns a list of one result for each call, in order."
            )
        found = list(answer)
        if len(found) != len(part):
            raise OperatorOutputError(
                f"forward_batch of operator {self._operator.name!r} was given {len(part)} calls "
                f"and returned {len(found)} results; it returns one for each call, in order."
            )
        for k, result in zip(part, found, strict=True):
            self.results[k] = self._finished(result)

    def _finished(self, result: Any) -> Any:
        if isinstance(result, Exception):
            return CallFailure(result)
        try:
            return self._operator.finished(result)
        except OperatorOutputError as error:
            return CallFailure(error)


def _shape(given: tuple[tuple[Any, ...], Mapping[str, Any]]) -> _Shape:
    args, kwargs = given
    return len(args), frozenset(kwargs)


def _described(call: StagedCall, values: tuple[Any, ...], index: int) -> str:
    if not call.batch:
        return ""
    where = call.indices(values)[index]
    return f"element {where[0] if len(where) == 1 else where}"


def fan_of(call: StagedCall) -> tuple[Callable[..., Any], Any]:
    """Returns what runs one call of the fan, and the fan; no fan where one call is made."""
    if call.site.raw and (found := in_step(call)) is not None:
        return found
    if call.batch or call.policy.executor == "process":
        return start_call, CallFan(call)
    return call.forward, None
