"""A function called once for each element of a batch, through the engine.

This is how what cannot be staged is mapped: the calls are a fan, as host calls under ``vmap``
are, with its limits, deadlines, cancellation and errors that name the element.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ember_xcs._core import calls
from ember_xcs._core.arguments import summary
from ember_xcs._core.operator import HostOperator
from ember_xcs._core.policy import HostPolicy
from ember_xcs._jit.function import JitFunction
from ember_xcs._lower.plan import Executor, Plan, Task, TaskKind
from ember_xcs._runtime.memory import note_element

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["ElementCall", "ElementCalls", "OnError", "executor_of"]

OnError = Literal["raise", "return"]


class ElementCall(NamedTuple):
    """A function with the arguments of one element; it can be pickled if they can."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def input_summary(self) -> str:
        """Returns the types and shapes of the arguments, for messages."""
        named = (f"{name}={summary(value)}" for name, value in self.kwargs.items())
        return ", ".join([*map(summary, self.args), *named])

    def start(self) -> Any:
        """Returns the result; a coroutine of it if the function is async."""
        if isinstance(self.function, HostOperator):
            return self.function.start(self.args, self.kwargs)
        if calls.in_event_loop():
            return calls.call_plain_code(self.function, self.args, self.kwargs)
        return self.function(*self.args, **self.kwargs)

    def rows(self) -> list[tuple[Any, tuple[Any, ...], dict[str, Any]]]:
        """Returns the call that it is: the function, and its arguments."""
        return [(self.function, self.args, dict(self.kwargs))]


def _start(call: ElementCall) -> Any:
    return call.start()


class _Chunk(NamedTuple):
    """Elements that one call of a worker handles, in turn."""

    indices: tuple[int, ...]
    elements: tuple[ElementCall, ...]
    keeps_errors: bool

    def rows(self) -> list[tuple[Any, tuple[Any, ...], dict[str, Any]]]:
        """Returns the calls that it is."""
        return [row for element in self.elements for row in element.rows()]

    def select(self, positions: Sequence[int]) -> _Chunk:
        """Returns some of its elements."""
        return self._replace(
            indices=tuple(self.indices[k] for k in positions),
            elements=tuple(self.elements[k] for k in positions),
        )

    def input_summary(self) -> str:
        """Returns the types and shapes of the first arguments, for messages."""
        return f"{len(self.elements)} elements, the first {self.elements[0].input_summary()}"

    def kept(self, k: int, error: Exception) -> Exception:
        """Returns the error of an element as its result; raises it where it is not to be one."""
        if self.keeps_errors:
            return error
        error.add_note(f"it was element {self.indices[k]} of the batch")
        raise error


def _run_chunk(chunk: _Chunk) -> list[Any]:
    """Returns the results of the elements of a chunk."""
    results: list[Any] = []
    for k, call in enumerate(chunk.elements):
        try:
            results.append(call.start())
        except Exception as error:  # noqa: BLE001  (user code may raise anything)
            results.append(chunk.kept(k, error))
        else:
            note_element(k, results[-1])
    return results


async def _run_chunk_async(chunk: _Chunk) -> list[Any]:
    """Returns the results of the elements of a chunk, whose function is async."""
    results: list[Any] = []
    for k, call in enumerate(chunk.elements):
        try:
            results.append(await call.start())
        except Exception as error:  # noqa: BLE001  (user code may raise anything)
            results.append(chunk.kept(k, error))
        else:
            note_element(k, results[-1])
    return results


@dataclasses.dataclass(frozen=True)
class _ElementFan:
    """Each element as a call, or each chunk of elements."""

    chunk_size: int | None
    keeps_errors: bool
    noun: str
    goes_together: bool

    def split(self, values: tuple[Any, ...]) -> Sequence[tuple[Any, ...]]:
        """Returns the arguments of each call."""
        (elements,) = values
        size = self.chunk_size
        if size is None:
            return [(element,) for element in elements]
        return [
            (_Chunk(tuple(range(k, k + size)), tuple(elements[k : k + size]), self.keeps_errors),)
            for k in range(0, len(elements), size)
        ]

    def join(self, values: tuple[Any, ...], results: Sequence[Any]) -> list[Any]:
        """Returns the results in the order of the elements."""
        if self.chunk_size is None:
            return list(results)
        joined: list[Any] = []
        for k, result in enumerate(results):
            if isinstance(result, Exception):  # the worker itself failed, with all it had
                joined.extend([result] * len(values[0][k * self.chunk_size :][: self.chunk_size]))
            else:
                joined.extend(result)
        return joined

    def partial(self, values: tuple[Any, ...], results: Sequence[Any]) -> list[Any]:
        """Returns the results in the order of the elements."""
        return self.join(values, results)

    def describe(self, values: tuple[Any, ...], index: int) -> str:
        """Returns ``"element 3"``."""
        if self.chunk_size is None:
            return f"{self.noun} {index}"
        first = index * self.chunk_size
        last = min(first + self.chunk_size, len(values[0])) - 1
        if first == last:
            return f"{self.noun} {first}"
        return f"{self.noun}s {first} to {last}"


@dataclasses.dataclass(frozen=True)
class ElementCalls:
    """How the elements of a batch are called.

    Attributes:
        name: What the function is called in messages.
        executor: Where its calls run; None for where its kind of function does.
        workers: The most calls at once; None for no limit but that of the options.
        chunk_size: How many elements one call of a worker handles, in turn; None for one call each.
        on_error: Whether a failure is raised, or is the result of its element.
        noun: What an element is called in messages.
    """

    name: str
    executor: Executor | None = None
    workers: int | None = None
    chunk_size: int | None = None
    on_error: OnError = "raise"
    noun: str = "element"

    def named(self, name: str) -> ElementCalls:
        """Returns the same under another name."""
        return dataclasses.replace(self, name=name)

    def _goes_together(self, function: Callable[..., Any]) -> bool:
        """Whether elements go to a batch end point: not where an executor is to have each."""
        is_free = self.executor is None and self.chunk_size is None
        return is_free and isinstance(function, HostOperator) and function.has_batch

    def _timeout(self, policy: HostPolicy) -> float | None:
        """The most that one call of a worker may take: as long as its elements in turn."""
        seconds = policy.timeout_seconds
        return seconds if seconds is None else seconds * (self.chunk_size or 1)

    def plan(self, function: Callable[..., Any]) -> Plan:
        """Returns the plan of a map of ``function``: one task that is a call for each element."""
        executor = self.executor or executor_of(function)
        run: Callable[..., Any] = _start
        is_host = isinstance(function, HostOperator)
        policy = function.policy if isinstance(function, HostOperator) else HostPolicy()
        if self.chunk_size is not None:
            run = _run_chunk_async if executor is Executor.ASYNC else _run_chunk
        task = Task(
            index=0,
            kind=TaskKind.CALL,
            node_ids=(self.name,),
            operator=self.name,
            run=run,
            reads=(0,),
            writes=(1,),
            executor=executor,
            fan=_ElementFan(
                self.chunk_size,
                self.on_error == "return",
                self.noun,
                self._goes_together(function),
            ),
            timeout_seconds=self._timeout(policy),
            concurrency=self.workers,
            host=function,
            policy=policy if is_host else None,
        )
        return Plan(
            name=self.name,
            tasks=(task,),
            slot_count=2,
            inputs=("elements",),
            constants=(),
            outputs={"results": 1},
            node_slots={},
            reader_counts=(1, 0),
            roots=(0,),
        )


def executor_of(function: Callable[..., Any]) -> Executor:
    """Returns where the calls of a function run of themselves."""
    if isinstance(function, HostOperator):
        return Executor(function.policy.executor)
    if isinstance(function, JitFunction):  # an operator in it runs its own calls to their end
        function = function.__wrapped__
    return Executor.ASYNC if calls.is_coroutine_callable(function) else Executor.THREAD
