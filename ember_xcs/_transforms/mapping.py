"""A function mapped over batches: staged where it can be, element by element where not."""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from ember_xcs._core.operator import Operator
from ember_xcs._jit.jit import jit
from ember_xcs._jit.programs import results_of
from ember_xcs._runtime.supervise import OptionsArgument, aexecute_plan, execute_plan
from ember_xcs._trace.control_flow import Constant, lifted
from ember_xcs._trace.dict_order import keeping_order
from ember_xcs._trace.host_values import HostBatch, HostValue
from ember_xcs._trace.staging import check_known, stage_call
from ember_xcs._transforms.batches import Along, Arguments, is_axis
from ember_xcs._transforms.elements import ElementCall, ElementCalls
from ember_xcs._transforms.joining import joined
from ember_xcs.errors import TracingError, TransformError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ember_xcs._runtime.run import Run

__all__ = ["ElementwiseCall", "element_function", "refuse_coroutine", "staged_value", "vmapped"]


def vmapped(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    out_axes: Any = 0,
    **axis: Any,
) -> Any:
    """Returns ``jax.vmap`` of a function, for arguments marked by the axis they are mapped along.

    Args:
        function: The function; it may call host operators if its calls are being staged.
        args: By position.
        kwargs: By name.
        out_axes: As in ``jax.vmap``.
        axis: ``axis_name``, ``axis_size`` and ``spmd_axis_name`` of ``jax.vmap``.

    Raises:
        TracingError: The function is ``async def``.
        TransformError: ``out_axes`` does not fit the results.
    """
    structure: Any
    returned: list[bool] = []
    marks, structure = jax.tree.flatten(keeping_order((args, kwargs)), is_leaf=_is_along)
    values = [staged_value(mark.value) for mark in marks]

    def call(values: list[Any]) -> Any:
        args, kwargs = structure.unflatten(values)
        result = function(*args, **kwargs)
        refuse_coroutine(result)
        result = lifted(keeping_order(result))
        check_known(str(jax.tree.structure(result)), "the result")
        returned.append(True)
        return keeping_order(result) if is_axis(out_axes) else result

    axes = [mark.axis for mark in marks]
    try:
        return jax.vmap(call, in_axes=(axes,), out_axes=out_axes, **axis)(values)
    except ValueError as error:
        if not returned:
            raise
        raise TransformError(
            f"out_axes={out_axes!r} does not fit the results: {error}. It is an int, None for a "
            "result that is the same for all elements, or a tree of these like the result."
        ) from error


def staged_value(value: Any) -> Any:
    """Returns a value for JAX, while it is tracing: objects known by now as host values."""
    if not isinstance(value, HostBatch):
        return lifted(value)
    constants = [stage_call(Constant(item), (), {}).array for item in value.ravel().tolist()]
    if not constants:  # JAX has no way to make an empty array of handles but from another one
        return HostValue(stage_call(Constant(None), (), {}).array[None][:0].reshape(value.shape))
    return HostValue(jnp.stack(constants).reshape(value.shape))


def refuse_coroutine(result: Any) -> None:
    """Raises if an ``async def`` function was called to be staged.

    Raises:
        TracingError: The result is a coroutine, which is closed.
    """
    if inspect.iscoroutine(result):
        result.close()
        raise TracingError(
            f"{result.__qualname__!r} is `async def`, which is host work and has no result while "
            "it is being staged. Declare it: @xcs.host."
        )


def _is_along(value: Any) -> bool:
    return isinstance(value, Along)


def element_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns what is called for an element: within an operator of operators calls overlap, too."""
    if isinstance(function, Operator) and function.kind == "composite":
        return jit(function)  # type: ignore[no-any-return]
    return function


@dataclasses.dataclass(frozen=True)
class ElementwiseCall:
    """A function called once for each element.

    Attributes:
        function: What is called.
        arguments: Its batches.
        how: Where and how many at once.
        out_axes: As in ``jax.vmap``.
    """

    function: Callable[..., Any]
    arguments: Arguments
    how: ElementCalls
    out_axes: Any = 0

    def run(self, options: OptionsArgument = None) -> Any:
        """Returns the results of all elements, joined."""
        run = execute_plan(self.how.plan(self.function), [self._elements()], options)
        return self._joined(run)

    async def arun(self, options: OptionsArgument = None) -> Any:
        """Returns the results of all elements, without blocking the event loop."""
        run = await aexecute_plan(self.how.plan(self.function), [self._elements()], options)
        return self._joined(run)

    def _elements(self) -> list[ElementCall]:
        return [ElementCall(self.function, *call) for call in self.arguments.calls()]

    def _joined(self, run: Run) -> Any:
        results = results_of(run, self.how.name)["results"]
        return joined(self.how.name, self.function, results, self.out_axes)
