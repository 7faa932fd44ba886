"""``mesh_sharded``: a function of the parts of its arguments that the devices of a mesh hold."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from ember_xcs._core.operator import HostOperator
from ember_xcs._jit.programs import NumericRunner
from ember_xcs._trace.control_flow import lifted
from ember_xcs._trace.dict_order import keeping_order
from ember_xcs._trace.host_values import HostValue
from ember_xcs._trace.staging import is_numeric, noting_host_calls, placing_results
from ember_xcs._transforms.mapping import element_function
from ember_xcs._transforms.mesh import DeviceMesh, as_mesh, resolved_spec
from ember_xcs._transforms.partition_spec import is_spec
from ember_xcs._transforms.prefixes import SettingKind, take_apart
from ember_xcs._transforms.shard_calls import ShardCalls, ShardedCall, as_jax
from ember_xcs._transforms.shards import check_divides, mesh_axes, names_of
from ember_xcs._transforms.spreading import devices_are_taken, paced, pacing, taking_devices
from ember_xcs._transforms.staged import StagedBody, StagedCall
from ember_xcs._transforms.transformed import Transformed, explanation
from ember_xcs.errors import TracingError, TransformError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ember_xcs._jit.selection import JITExplanation

__all__ = ["MeshShardedFunction", "mesh_sharded"]


def _is_list_or_host_value(value: Any) -> bool:
    return isinstance(value, HostValue) or (
        type(value) is list and not all(isinstance(item, jax.Array) and item.ndim for item in value)
    )


class MeshShardedFunction(Transformed):
    """A function sharded by ``mesh_sharded``."""

    def __init__(self, function: Any, mesh: DeviceMesh, in_specs: Any, out_specs: Any) -> None:
        super().__init__("mesh_sharded", function)
        resolve = functools.partial(resolved_spec, mesh=mesh)
        self.mesh = mesh
        self._in_specs = jax.tree.map(resolve, in_specs, is_leaf=is_spec)
        self._out_specs = jax.tree.map(resolve, out_specs, is_leaf=is_spec)
        self._devices = tuple(mesh.devices.flat)
        self._specs = SettingKind(
            name="in_specs",
            default=self._in_specs if is_spec(self._in_specs) else jax.sharding.PartitionSpec(),
            is_leaf=is_spec,
            what="a PartitionSpec or None",
            stops=lambda _spec: _is_list_or_host_value,
        )
        self._jitted = jax.jit(self._sharded_plainly)
        self._is_numeric = self.nature != "host"
        self._body = StagedBody(
            self._mixed_plainly, self.name, self.parameters, is_declared=self.nature != "unknown"
        )

    def _apart(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> ShardedCall:
        leaves, structure = take_apart(
            self.name, args, kwargs, self.positional_names, self._in_specs, self._specs
        )
        for leaf in leaves:
            check_divides(leaf.label, leaf.value, leaf.setting, self.mesh.shape)
        return ShardedCall(leaves, structure)

    # The bodies: what JAX traces

    def _sharded_plainly(self, *args: Any, **kwargs: Any) -> Any:
        return self._sharded(self._apart(args, kwargs))

    def _sharded(self, call: ShardedCall) -> Any:
        """A numeric function: ``jax.shard_map`` of it."""

        def shard(*values: Any) -> Any:
            args, kwargs = call.structure.unflatten(values)
            with taking_devices():
                return self._function(*args, **kwargs)

        shard.__name__ = shard.__qualname__ = self.name
        sharded = jax.shard_map(
            shard, mesh=self.mesh.jax_mesh, in_specs=call.specs, out_specs=self._out_specs
        )
        try:
            return sharded(*(as_jax(leaf.value) for leaf in call.leaves))
        except ValueError as error:
            if "out_specs" not in str(error):
                raise
            raise self._misfit(error) from error
        except AssertionError as error:
            if str(error):
                raise
            raise TransformError(
                f"an assertion failed while {self.name} was traced. If it is JAX's own, the "
                "function names an axis that the mesh does not have; the mesh has the axes "
                f"{', '.join(map(repr, self.mesh.axis_names))}."
            ) from error

    def _misfit(self, error: ValueError) -> TransformError:
        if "replication" in str(error):
            rule = (
                "A mesh axis that a spec does not name has the same result on all its devices: "
                "reduce over it (jax.lax.psum, pmean, all_gather), or name it in out_specs."
            )
        else:
            rule = (
                "They are a tree that is a prefix of the result, and a spec has no more entries "
                "than its part of the result has axes."
            )
        return TransformError(
            f"the results of {self.name} do not fit out_specs={self._out_specs!r}. {rule}\n{error}"
        )

    def _mixed_plainly(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        return self._mixed(self._apart(args, kwargs))

    def _mixed(self, call: ShardedCall) -> Any:
        """A function with host calls in it: a ``vmap`` over shards, spread over the mesh."""
        names, sizes = self.mesh.axis_names, self.mesh.shape
        specs = call.specs
        values = [self._blocks(lifted(as_jax(leaf.value)), leaf.setting) for leaf in call.leaves]

        def shard(values: Sequence[Any]) -> Any:
            args, kwargs = call.structure.unflatten(values)
            result = lifted(keeping_order(self._function(*args, **kwargs)))
            return keeping_order(result) if is_spec(self._out_specs) else result

        mapped: Callable[..., Any] = shard
        for name in reversed(names):
            mapped = jax.vmap(
                mapped,
                in_axes=([0 if name in mesh_axes(spec) else None for spec in specs],),
                out_axes=jax.tree.map(
                    lambda spec, name=name: 0 if name in mesh_axes(spec) else None,
                    self._out_specs,
                    is_leaf=is_spec,
                ),
                axis_name=name,
                axis_size=sizes[name],
                spmd_axis_name=None if devices_are_taken() else name,
            )
        with self._placing():
            try:
                results = mapped(values)
            except ValueError as error:
                if "out_axes" not in str(error):
                    raise
                raise TransformError(
                    f"a result of {self.name} differs along a mesh axis that "
                    f"out_specs={self._out_specs!r} does not name: reduce over it, or name it.\n"
                    f"{error}"
                ) from error
        return jax.tree.map(
            lambda spec, part: jax.tree.map(
                lambda leaf: self._whole(leaf, spec), part, is_leaf=_is_host_value
            ),
            self._out_specs,
            results,
            is_leaf=is_spec,
        )

    @contextlib.contextmanager
    def _placing(self) -> Iterator[None]:
        if devices_are_taken():
            yield
            return
        with taking_devices(), placing_results(self._placed):
            yield

    def _placed(self, value: Any) -> Any:
        free = (jax.sharding.PartitionSpec.UNCONSTRAINED,) * value.ndim
        return self._constrained(value, jax.sharding.PartitionSpec(*free))

    def _sharding(self, spec: Any) -> jax.sharding.NamedSharding:
        return jax.sharding.NamedSharding(self.mesh.jax_mesh, spec)

    def _constrained(self, value: Any, spec: Any) -> Any:
        return jax.lax.with_sharding_constraint(value, self._sharding(spec))

    def _blocks(self, value: Any, spec: Any) -> Any:
        """A value with an axis in front for each mesh axis that cuts it, in the mesh's order."""
        if isinstance(value, HostValue):
            return HostValue(self._blocks(value.array, spec)) if value.ndim else value
        named = mesh_axes(spec)
        if not named:
            return value
        array = jnp.asarray(value)
        if is_numeric(value) and not devices_are_taken():
            array = self._constrained(array, spec)
        shape: list[int] = []
        order: dict[str, int] = {}
        local: list[int] = []
        for axis, size in enumerate(array.shape):
            names = names_of(spec[axis]) if axis < len(spec) else ()
            for name in names:
                order[name] = len(shape)
                shape.append(self.mesh.shape[name])
            local.append(len(shape))
            shape.append(size // math.prod(self.mesh.shape[name] for name in names))
        front = [order[name] for name in self.mesh.axis_names if name in named]
        return array.reshape(shape).transpose(*front, *local)

    def _whole(self, value: Any, spec: Any) -> Any:
        """The reverse of ``_blocks``."""
        if isinstance(value, HostValue):
            return HostValue(self._whole(value.array, spec))
        named = mesh_axes(spec)
        front = [name for name in self.mesh.axis_names if name in named]
        rank = value.ndim - len(front)
        if len(spec) > rank:
            raise TracingError(
                f"a result of {self.name} is one value for each shard, with {rank} axes, and "
                f"out_specs joins it by {tuple(spec)!r}"
            )
        order: list[int] = []
        shape: list[int] = []
        for axis in range(rank):
            names = names_of(spec[axis]) if axis < len(spec) else ()
            order += [*(front.index(name) for name in names), len(front) + axis]
            size = value.shape[len(front) + axis]
            for name in names:
                size *= self.mesh.shape[name]
            shape.append(size)
        return value.transpose(*order).reshape(shape)

    # Calls

    def _inside(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        call = self._apart(args, kwargs)
        if devices_are_taken() or self._has_host_calls(call):
            return self._mixed(call)
        return self._sharded(call)

    def _has_host_calls(self, call: ShardedCall) -> bool:
        if not call.is_numeric:
            return True
        with noting_host_calls() as seen:
            try:
                jax.make_jaxpr(lambda: self._sharded(call))()
            except Exception:
                if not seen:
                    raise
        return bool(seen)

    def _outside(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if self._is_numeric and all(map(is_numeric, jax.tree.leaves((args, kwargs)))):
            with noting_host_calls() as seen:
                try:
                    result = paced(self._jitted(*args, **kwargs), self._devices)
                except Exception:
                    if not seen and not self._lie_elsewhere((args, kwargs)):
                        raise
                else:
                    self._direct_call = pacing(self._jitted, self._devices)
                    return result
            self._is_numeric = not seen
        return paced(self._call(args, kwargs).run(), self._devices)

    def _lie_elsewhere(self, tree: Any) -> bool:
        """Whether arrays are bound to other devices than those of the mesh."""
        return any(map(self._lies_elsewhere, jax.tree.leaves(tree)))

    def _lies_elsewhere(self, leaf: Any) -> bool:
        is_bound = isinstance(leaf, jax.Array) and leaf.committed
        return is_bound and leaf.sharding.device_set != set(self._devices)

    def _moved(self, call: ShardedCall) -> ShardedCall:
        """A call whose arrays are not bound to other devices, which JAX would refuse."""
        moved = [
            leaf._replace(value=jax.device_put(leaf.value, self._sharding(leaf.setting)))
            if self._lies_elsewhere(leaf.value)
            else leaf
            for leaf in call.leaves
        ]
        return ShardedCall(moved, call.structure)

    def _call(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> StagedCall | _NumericCall | ShardCalls:
        call = self._moved(self._apart(args, kwargs))
        reason = "a plain function is staged where all its arguments are arrays and numbers"
        if isinstance(self._function, HostOperator):
            reason = "a host operator gets one call for each shard"
        elif self.nature != "unknown" or call.is_numeric:
            whole = call.for_jax()
            staged = self._body.call(*whole)
            if isinstance(staged.program, NumericRunner):
                return _NumericCall(self._jitted, *whole)
            if staged.program is not None:
                return staged
            reason = staged.reason
        self._why_shards = reason
        return ShardCalls(
            element_function(self._function), call, self._out_specs, self.mesh, self.name
        )

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what a call returns, without blocking the event loop."""
        if self.nature == "host" or not all(map(is_numeric, jax.tree.leaves((args, kwargs)))):
            result = await self._call(args, kwargs).arun()
            return await asyncio.to_thread(paced, result, self._devices)
        return await asyncio.to_thread(self, *args, **kwargs)

    def explain(self, *args: Any, **kwargs: Any) -> JITExplanation:
        """Returns how such a call is run, and why; nothing is run."""
        call = self._call(args, kwargs)
        if isinstance(call, _NumericCall):
            return explanation(self.name, "devices", f"numeric: jit(shard_map) on {self.mesh!r}")
        if isinstance(call, StagedCall):
            why = "staged: regions over the mesh, one call for each shard"
            return explanation(self.name, "trace", why)
        why = "called once for each shard; the calls overlap"
        return explanation(self.name, "shards", why, self._why_shards)


@dataclasses.dataclass(frozen=True)
class _NumericCall:
    """A call that is one XLA program over the mesh."""

    jitted: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def run(self) -> Any:
        """Returns the results."""
        return self.jitted(*self.args, **self.kwargs)

    async def arun(self) -> Any:
        """Returns the results; JAX computes them asynchronously of itself."""
        return await asyncio.to_thread(self.run)


def _is_host_value(value: Any) -> bool:
    return isinstance(value, HostValue)


_NOT_GIVEN: Any = object()


def mesh_sharded(
    f: Any = None,
    mesh: DeviceMesh | jax.sharding.Mesh | None = None,
    in_specs: Any = _NOT_GIVEN,
    out_specs: Any = _NOT_GIVEN,
    *,
    partition_spec: Any = _NOT_GIVEN,
) -> Any:
    """Runs a function on the parts of its arguments that the devices of a mesh hold.

    A numeric function is ``jax.jit(jax.shard_map(f))``: collectives such as ``jax.lax.psum`` take
    the names of the mesh axes. A host operator gets one call for each shard, with its part of
    each list or array; the results are put together in order. Of a function that mixes the two,
    the numeric parts are computed by the devices, and each host call becomes one for each shard.

    Args:
        f: A function, an operator, a graph, or what another transformation returned; without it, a
            decorator is returned.
        mesh: An ``xcs.DeviceMesh`` or a ``jax.sharding.Mesh``.
        in_specs: How the arguments are cut: one ``PartitionSpec`` for all, a tuple with one for
            each positional argument, or a dict by name; each may be a tree that is a prefix of the
            argument. None is not cut. Integers name mesh axes by position.
        out_specs: How the results are put together, a tree that is a prefix of the result.
        partition_spec: One spec for all arguments and results, in place of the two.

    Returns:
        A function of whole arguments, with ``mesh``, ``acall`` and ``explain``.

    Raises:
        TransformError: A spec names an axis that the mesh does not have; at a call: a size does not
            divide, or a result differs where ``out_specs`` says that it is the same.

    Example:
        >>> import jax.numpy as jnp
        >>> from ember_xcs import host, PartitionSpec
        >>> mesh = DeviceMesh(shape=(1,))
        >>> total = mesh_sharded(
        ...     lambda x: jax.lax.psum(x.sum(), "x"), mesh, PartitionSpec("x"), PartitionSpec()
        ... )
        >>> print(total(jnp.arange(4.0)))
        6.0
        >>> @host
        ... def shout(texts: list[str]) -> list[str]:
        ...     return [text.upper() for text in texts]
        >>> mesh_sharded(shout, mesh, partition_spec=PartitionSpec(0))(["a", "b"])
        ['A', 'B']
    """
    if mesh is None:
        raise TransformError("mesh_sharded needs a mesh: mesh=xcs.DeviceMesh(...).")
    if partition_spec is not _NOT_GIVEN:
        if in_specs is not _NOT_GIVEN or out_specs is not _NOT_GIVEN:
            raise TransformError("give partition_spec, or in_specs and out_specs, not both.")
        in_specs = out_specs = partition_spec
    if in_specs is _NOT_GIVEN or out_specs is _NOT_GIVEN:
        missing = "in_specs" if in_specs is _NOT_GIVEN else "out_specs"
        raise TransformError(
            f"mesh_sharded needs {missing}: how the arguments are cut and the results put "
            "together, or partition_spec for both."
        )
    grid = as_mesh(mesh)
    if f is None:
        return lambda given: MeshShardedFunction(given, grid, in_specs, out_specs)
    return MeshShardedFunction(f, grid, in_specs, out_specs)
