"""``vmap``: one function, over batches of arrays and of host values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax

from ember_xcs._jit.programs import NumericRunner
from ember_xcs._lower.plan import Executor
from ember_xcs._trace.staging import is_numeric, noting_host_calls
from ember_xcs._transforms.batches import Arguments, split_arguments
from ember_xcs._transforms.elements import ElementCalls, executor_of
from ember_xcs._transforms.mapping import ElementwiseCall, element_function, vmapped
from ember_xcs._transforms.staged import StagedBody, StagedCall
from ember_xcs._transforms.transformed import Transformed, explanation
from ember_xcs.errors import TracingError, TransformError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ember_xcs._jit.selection import JITExplanation

__all__ = ["VmapFunction", "vmap"]


class VmapFunction(Transformed):
    """A function mapped by ``vmap``."""

    def __init__(self, function: Any, in_axes: Any, out_axes: Any, **axis: Any) -> None:
        super().__init__("vmap", function)
        self._in_axes, self._out_axes, self._axis = in_axes, out_axes, axis
        by_position = 0 if isinstance(in_axes, dict) else in_axes
        self._direct = jax.vmap(self._function, in_axes=by_position, out_axes=out_axes, **axis)
        is_async = executor_of(self._function) is Executor.ASYNC
        self._is_numeric = self.nature != "host" and not is_async and not isinstance(in_axes, dict)
        self._body = StagedBody(
            self._vmapped, self.name, self.parameters, is_declared=self.nature != "unknown"
        )

    def _vmapped(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        return vmapped(self._function, args, kwargs, self._out_axes, **self._axis)

    def _arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
        size = self._axis["axis_size"]
        return split_arguments(self.name, args, kwargs, self._in_axes, self.positional_names, size)

    def _inside(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        return self._vmapped(*self._arguments(args, kwargs).marked(as_objects=self.is_host_call))

    def _outside(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if self._is_numeric and all(map(is_numeric, jax.tree.leaves((args, kwargs)))):
            with noting_host_calls() as seen:
                try:
                    return self._direct(*args, **kwargs)
                except TracingError:
                    if not seen:
                        raise
                except (OverflowError, ValueError):
                    if not _has_list((args, kwargs)):
                        self._arguments(args, kwargs)  # raises if the batches do not fit together
                        raise
            self._is_numeric = not seen
        call = self._call(args, kwargs)
        return call.run()

    def _call(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> StagedCall | ElementwiseCall | _Eager:
        """How a call is run, where it is not plainly ``jax.vmap``."""
        arguments = self._arguments(args, kwargs)
        reason = "a plain function is staged where all its arguments are arrays and numbers"
        if self.nature != "unknown" or arguments.is_numeric:
            marked = arguments.marked(as_objects=self.is_host_call)
            call = self._body.call(*marked)
            if isinstance(call.program, NumericRunner):
                return _Eager(lambda: self._vmapped(*marked))
            if call.program is not None:
                return call
            reason = call.reason
        if self._axis["axis_name"] is not None:
            raise TransformError(
                f"{self.name} has axis_name={self._axis['axis_name']!r}, and its elements have to "
                f"be called one by one, where there is no axis to name: {reason}. Leave axis_name "
                "out, or make a function of it that can be staged (@xcs.jit.trace)."
            )
        self._why_elements = reason
        function = element_function(self._function)
        return ElementwiseCall(function, arguments, ElementCalls(self.name), self._out_axes)

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what a call returns, without blocking the event loop."""
        return await self._call(args, kwargs).arun()

    def explain(self, *args: Any, **kwargs: Any) -> JITExplanation:
        """Returns how such a call is run, and why; nothing is run."""
        call = self._call(args, kwargs)
        if isinstance(call, _Eager):
            return explanation(self.name, "jax.vmap", "it is numeric")
        if isinstance(call, StagedCall):
            return explanation(self.name, "trace", "staged: batched by JAX, host calls fan out")
        why = "called once for each element; the calls overlap"
        return explanation(self.name, "elements", why, self._why_elements)


class _Eager:
    """A numeric call that JAX runs by itself."""

    def __init__(self, run: Callable[[], Any]) -> None:
        self.run = run

    async def arun(self) -> Any:
        """Returns the result; JAX computes it asynchronously of itself."""
        return self.run()


def _has_list(tree: Any) -> bool:
    leaves = jax.tree.leaves(tree, is_leaf=lambda value: type(value) is list)
    return any(type(leaf) is list for leaf in leaves)


def vmap(
    f: Any = None,
    in_axes: Any = 0,
    out_axes: Any = 0,
    axis_name: Any = None,
    axis_size: int | None = None,
    spmd_axis_name: Any = None,
) -> Any:
    """Maps a function over batches: of arrays as ``jax.vmap`` does, of host values concurrently.

    A numeric function is ``jax.vmap`` of it. Of a function with host calls the numeric parts are
    batched, and each host call becomes one for each element, all in flight at once, or one call of
    the operator's ``forward_batch``. A call that depends on nothing batched is made once, and its
    result is shared: for n samples, use ``xcs.Ensemble`` or map over a seed. What cannot be staged
    is called once for each element, concurrently and in order.

    Args:
        f: A function, an operator, a graph, or what another transformation returned; without it, a
            decorator is returned.
        in_axes: Along which axis each argument is mapped; None for what is shared. An int, or a
            tuple with one entry for each positional argument, which may be a tree, as in
            ``jax.vmap``; also a dict by name. Keywords are mapped along axis 0. A list of numbers,
            text or records is a batch; text, None and records without one are shared.
        out_axes: Along which axis the results are stacked. Results that are no arrays come in
            lists.
        axis_name: A name for the axis, for collectives such as ``jax.lax.psum``.
        axis_size: The length of the batches, where no argument has it.
        spmd_axis_name: As in ``jax.vmap``.

    Returns:
        A function of batches, with ``acall`` and ``explain``.

    Raises:
        TransformError: At a call: the batches have different lengths, there is none, or the
            results of the elements have different structures.

    Example:
        >>> from ember_xcs import host
        >>> @host
        ... def shout(text: str, mark: str) -> str:
        ...     return text.upper() + mark
        >>> vmap(shout)(["a", "b"], "!")
        ['A!', 'B!']
    """
    axis = {"axis_name": axis_name, "axis_size": axis_size, "spmd_axis_name": spmd_axis_name}
    if f is None:
        return lambda given: VmapFunction(given, in_axes, out_axes, **axis)
    return VmapFunction(f, in_axes, out_axes, **axis)
