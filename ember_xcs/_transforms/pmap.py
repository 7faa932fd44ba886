"""``pmap``: a batch of any length over the devices, and over a bounded pool for host work."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, get_args

import jax

from ember_xcs._core.functions import from_callable
from ember_xcs._core.operator import HostOperator, Operator
from ember_xcs._jit.programs import NumericRunner
from ember_xcs._lower.plan import Executor
from ember_xcs._trace.dict_order import keeping_order
from ember_xcs._trace.staging import (
    contains_host_calls,
    limiting_calls,
    noting_host_calls,
    placing_results,
)
from ember_xcs._transforms.batches import Along, Arguments, split_arguments
from ember_xcs._transforms.elements import ElementCalls, OnError, executor_of
from ember_xcs._transforms.mapping import ElementwiseCall, element_function, vmapped
from ember_xcs._transforms.mesh import DeviceMesh
from ember_xcs._transforms.spreading import (
    BATCH_AXIS,
    batch_mesh,
    devices_are_taken,
    paced,
    spread,
    taking_devices,
    used_devices,
)
from ember_xcs._transforms.staged import StagedBody, StagedCall
from ember_xcs._transforms.transformed import Transformed, explanation
from ember_xcs.errors import TracingError, TransformError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ember_xcs._jit.selection import JITExplanation
    from ember_xcs._runtime.supervise import OptionsArgument

__all__ = ["PmapFunction", "pmap"]

_EXECUTORS = ("thread", "async", "process")


class PmapFunction(Transformed):
    """A function mapped by ``pmap``."""

    def __init__(
        self,
        function: Any,
        in_axes: Any,
        devices: tuple[Any, ...] | None,
        axis_name: str | None,
        how: ElementCalls,
    ) -> None:
        super().__init__("pmap", function)
        self._in_axes, self._axis_name = in_axes, axis_name
        self._given_devices = devices
        self._how = how.named(self.name)
        _check_executor(self._function, self._how)
        self._body = StagedBody(
            self._mixed, self.name, self.parameters, is_declared=self.nature != "unknown"
        )
        self._jitted = jax.jit(self._numeric)
        self._jitted_plain = jax.jit(self._plain)
        self._is_numeric = False

    @functools.cached_property
    def _devices(self) -> tuple[Any, ...]:
        return self._given_devices or tuple(jax.local_devices())

    def _arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
        return split_arguments(self.name, args, kwargs, self._in_axes, self.positional_names)

    # The bodies: what JAX traces

    def _mixed(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The function with host calls in it: numeric parts over the devices, calls fanned out."""
        mesh = batch_mesh(self._devices)
        with taking_devices(), placing_results(lambda x: _placed(x, mesh)):
            args, kwargs = jax.tree.map(
                lambda mark: _placed_along(mark, mesh),
                keeping_order((args, kwargs)),
                is_leaf=_is_along,
            )
            return vmapped(
                self._function,
                args,
                kwargs,
                axis_name=self._axis_name,
                spmd_axis_name=BATCH_AXIS,
            )

    def _numeric(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """A numeric function, of marked arguments."""
        chunk = self._how.chunk_size
        return spread(self._function, args, kwargs, self._devices, self._axis_name, chunk)

    def _plain(self, *args: Any, **kwargs: Any) -> Any:
        """A numeric function, of arguments as JAX takes them."""
        return self._numeric(*self._arguments(args, kwargs).marked(as_objects=self.is_host_call))

    # Calls

    def _inside(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if self._why_whole_elements() or self._how.on_error == "return":
            return self._as_host_call(*args, **kwargs)
        with limiting_calls(self._how.workers):
            return self._part(self._arguments(args, kwargs))

    @functools.cached_property
    def _as_host_call(self) -> Operator:
        """It as one host operator, where its elements are called as a whole."""

        def elements(*args: Any, **kwargs: Any) -> Any:
            return self(*args, **kwargs)

        elements.__name__ = elements.__qualname__ = self.name
        return from_callable(elements, "host")

    def _part(self, arguments: Arguments) -> Any:
        """A part of what is being traced."""
        marked = arguments.marked(as_objects=self.is_host_call)
        if devices_are_taken():
            return vmapped(self._function, *marked, axis_name=self._axis_name)
        if not arguments.is_numeric or self._meets_host_calls(
            lambda: jax.make_jaxpr(self._numeric)(*marked)
        ):
            self._check_no_chunks()
            return self._mixed(*marked)
        if self._used(arguments) != self._devices:  # the others may hold what is given
            return vmapped(self._function, *marked, axis_name=self._axis_name)
        return self._numeric(*marked)

    def _used(self, arguments: Arguments) -> tuple[Any, ...]:
        return used_devices(self._devices, arguments.size, self._axis_name)

    @staticmethod
    def _meets_host_calls(trace: Callable[[], Any]) -> bool:
        """Whether there are host calls in what is traced as a numeric function."""
        with noting_host_calls() as seen:
            try:
                traced = trace()
            except Exception:
                if not seen:
                    raise
                return True
        return contains_host_calls(traced)  # JAX may have traced it before: then none is seen

    def _outside(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if self._is_numeric and not any(type(arg) is list for arg in args):
            try:
                return paced(self._jitted_plain(*args, **kwargs), self._devices)
            except (TypeError, ValueError, TracingError):
                self._is_numeric = False  # what is wrong with the call is found below
        result = self._call(args, kwargs).run(self._options)
        return paced(result, self._devices)

    @property
    def _options(self) -> OptionsArgument:
        return None if self._how.workers is None else {"max_workers": self._how.workers}

    def _call(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> StagedCall | ElementwiseCall | _NumericCall:
        arguments = self._arguments(args, kwargs)
        reason = self._why_whole_elements()
        if not reason and (self.nature != "unknown" or arguments.is_numeric):
            marked = arguments.marked(as_objects=self.is_host_call)
            # Rows that have a device each take collectives that jax.vmap does not have.
            takes_collectives = self._axis_name is not None and arguments.is_numeric
            if (takes_collectives and self.nature != "host") and not self._meets_host_calls(
                lambda: self._jitted.trace(*marked)
            ):
                return self._numeric_call(arguments)
            call = self._body.call(*marked)
            if isinstance(call.program, NumericRunner):
                return self._numeric_call(arguments)
            if call.program is not None and self._how.on_error == "raise":
                self._check_no_chunks()
                return call
            reason = call.reason or "on_error='return' keeps the elements apart"
        self._why_elements = reason or (
            "a plain function is staged where all its arguments are arrays and numbers"
        )
        if self._axis_name is not None:
            raise TransformError(
                f"{self.name} has axis_name={self._axis_name!r}, and its elements have to be "
                f"called one by one, where there is no axis to name: {self._why_elements}"
            )
        is_sent = self._how.executor is Executor.PROCESS
        function = self._function if is_sent else element_function(self._function)
        return ElementwiseCall(function, arguments, self._how)

    def _why_whole_elements(self) -> str:
        """Why the function is called for each element whatever it is like; empty if it is not."""
        if self._how.executor:
            return "an executor was asked for"
        if self._how.chunk_size is not None and isinstance(self._function, HostOperator):
            return "chunk_size says how many calls of a host operator a worker takes at a time"
        return ""

    def _numeric_call(self, arguments: Arguments) -> _NumericCall:
        self._is_numeric = True
        return _NumericCall(
            self._jitted, arguments.marked(as_objects=self.is_host_call), self._used(arguments)
        )

    def _check_no_chunks(self) -> None:
        if self._how.chunk_size is not None:
            raise TransformError(
                f"{self.name} has chunk_size={self._how.chunk_size}, and its function mixes "
                "numeric work and host calls, which are scheduled each by itself. Bound the host "
                "calls with num_workers, or name an executor, which then has whole elements."
            )

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what a call returns, without blocking the event loop."""
        result = await self._call(args, kwargs).arun(self._options)
        return await asyncio.to_thread(paced, result, self._devices)

    def explain(self, *args: Any, **kwargs: Any) -> JITExplanation:
        """Returns how such a call is run, and why; nothing is run."""
        call = self._call(args, kwargs)
        if isinstance(call, _NumericCall):
            count = len(call.devices)
            why = f"numeric: jit(shard_map(vmap)) over {count} device{'s' if count > 1 else ''}"
            return explanation(self.name, "devices", why)
        if isinstance(call, StagedCall):
            return explanation(self.name, "trace", "staged: regions over devices, calls fan out")
        why = "called once for each element; the calls overlap"
        return explanation(self.name, "elements", why, self._why_elements)


class _NumericCall:
    """A call that is one XLA program over the devices."""

    def __init__(self, jitted: Any, marked: tuple[Any, Any], devices: tuple[Any, ...]) -> None:
        self._jitted, self._marked, self.devices = jitted, marked, devices

    def run(self, options: OptionsArgument = None) -> Any:
        """Returns the results."""
        del options  # they are about host work
        return self._jitted(*_moved_to(self._marked, self.devices))

    async def arun(self, options: OptionsArgument = None) -> Any:
        """Returns the results; JAX computes them asynchronously of itself."""
        return await asyncio.to_thread(self.run, options)


def _moved_to(tree: Any, devices: tuple[Any, ...]) -> Any:
    """A tree without arrays that are bound to other devices, which JAX would refuse."""
    everywhere = jax.sharding.NamedSharding(batch_mesh(devices), jax.sharding.PartitionSpec())

    def moved(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or not getattr(leaf, "committed", False):
            return leaf
        if leaf.sharding.device_set == set(devices):
            return leaf
        return jax.device_put(leaf, everywhere)

    return jax.tree.map(moved, tree)


def _is_along(value: Any) -> bool:
    return isinstance(value, Along)


def _placed(value: Any, mesh: Any) -> Any:
    """A value within an element, whose batch is spread over a mesh."""
    free = (jax.sharding.PartitionSpec.UNCONSTRAINED,) * value.ndim
    spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*free))
    return jax.lax.with_sharding_constraint(value, spec)


def _placed_along(mark: Along, mesh: Any) -> Along:
    if mark.axis is None or not isinstance(mark.value, jax.Array):
        return mark
    names: list[Any] = [None] * mark.value.ndim
    names[mark.axis] = BATCH_AXIS
    if mark.value.shape[mark.axis] % mesh.size:
        return mark
    spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*names))
    return Along(jax.lax.with_sharding_constraint(mark.value, spec), mark.axis)


def _check_executor(function: Any, how: ElementCalls) -> None:
    if how.executor is Executor.ASYNC and executor_of(function) is not Executor.ASYNC:
        raise TransformError(
            f"{how.name} has executor='async', and its function is not `async def`. Use "
            "executor='thread', or make the function async."
        )
    if how.executor in (Executor.THREAD, Executor.PROCESS) and (
        executor_of(function) is Executor.ASYNC
    ):
        raise TransformError(
            f"{how.name} has executor={how.executor.value!r}, and its function is `async def`, "
            "which runs on the event loop. Use executor='async', or leave it out."
        )


def pmap(
    f: Any = None,
    in_axes: Any = 0,
    num_workers: int | None = None,
    devices: Sequence[Any] | DeviceMesh | jax.sharding.Mesh | None = None,
    axis_name: str | None = None,
    executor: str | None = None,
    on_error: OnError = "raise",
    chunk_size: int | None = None,
) -> Any:
    """Maps a function over a batch in parallel: over devices, or over a pool of workers.

    A numeric function is compiled once for all devices and its batch, of any length, is spread over
    them. Of a function with host calls the numeric parts are spread over the devices and the calls
    overlap, ``num_workers`` of them at once. With an ``executor`` the function itself is host
    work: it is called once for each element.

    Args:
        f: A function, an operator, a graph, or what another transformation returned; without it, a
            decorator is returned.
        in_axes: As for ``vmap``.
        num_workers: The most host calls in flight at once; None for the limit of the options.
        devices: Those to use; None for all of this process.
        axis_name: A name for the batch, for collectives such as ``jax.lax.psum``. No row is added
            then: as many devices are used as divide the batch. Where rows share a device, the
            collectives are those that ``jax.vmap`` has: a permutation moves every row.
        executor: ``"thread"``, ``"async"`` or ``"process"`` (spawned, reused; the function and its
            arguments are pickled). None: where the function's calls run of themselves.
        on_error: ``"raise"`` the first failure, or ``"return"`` the exception of a failed element
            in its place. Results that are arrays come in a list then, if any element failed.
        chunk_size: The most rows that a device computes at once; for host work, how many elements
            a worker takes at a time.

    Returns:
        A function of batches, with ``acall`` and ``explain``.

    Raises:
        TransformError: A setting has a value that it cannot have, or, at a call, the batches do
            not fit together.
        NodeExecutionError: At a call: an element failed; the message has its index.

    Example:
        >>> import jax.numpy as jnp
        >>> print(pmap(lambda x: x * x)(jnp.arange(5)))
        [ 0  1  4  9 16]
        >>> pmap(lambda text: 1 / len(text), on_error="return")(["ab", ""])
        [0.5, ZeroDivisionError('division by zero')]
    """
    how = ElementCalls(
        "pmap",
        executor=_executor(executor),
        workers=_at_least_one("num_workers", num_workers),
        chunk_size=_at_least_one("chunk_size", chunk_size),
        on_error=on_error,
    )
    if on_error not in get_args(OnError):
        raise TransformError(f"on_error={on_error!r} is neither 'raise' nor 'return'.")
    if axis_name is not None and (chunk_size is not None or executor is not None):
        raise TransformError(
            f"axis_name={axis_name!r} was given with "
            f"{'chunk_size' if chunk_size is not None else 'executor'}: a collective needs all "
            "elements at once. Leave one of the two out."
        )
    chosen = _chosen_devices(devices)
    if f is None:
        return lambda given: PmapFunction(given, in_axes, chosen, axis_name, how)
    return PmapFunction(f, in_axes, chosen, axis_name, how)


def _executor(name: str | None) -> Executor | None:
    if name is None:
        return None
    if name not in _EXECUTORS:
        raise TransformError(
            f"executor={name!r} is not one of {', '.join(map(repr, _EXECUTORS))}, or None."
        )
    return Executor(name)


def _at_least_one(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise TransformError(f"{name}={value!r} is to be an int of at least 1, or None.")
    return value


def _chosen_devices(devices: Any) -> tuple[Any, ...] | None:
    if devices is None:
        return None
    if isinstance(devices, DeviceMesh | jax.sharding.Mesh):
        return tuple(devices.devices.flat)
    found = tuple(devices) if isinstance(devices, Iterable) else ()
    if not found or not all(isinstance(device, jax.Device) for device in found):
        raise TransformError(
            f"devices={devices!r} is to be a sequence of devices, such as jax.devices()[:4], or a "
            "mesh."
        )
    if len(set(found)) < len(found):
        raise TransformError(f"devices={devices!r} names a device twice. Name each once.")
    return found
