"""A batch spread over devices: how ``pmap`` runs what is numeric."""

from __future__ import annotations

import contextlib
import functools
import itertools
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ember_xcs._trace.dict_order import keeping_order
from ember_xcs._transforms.batches import Along

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = [
    "BATCH_AXIS",
    "batch_mesh",
    "devices_are_taken",
    "paced",
    "pacing",
    "spread",
    "taking_devices",
    "used_devices",
]

BATCH_AXIS = "xcs_batch"
"""The mesh axis over which a batch is spread."""

_IN_FLIGHT = 16
"""How many programs with collectives simulated CPU devices take before one has to be awaited: some
30 in flight hang XLA's CPU client (seen with jaxlib 0.7 to 0.10)."""

_dispatches = itertools.count(1)


def paced(result: Any, devices: Sequence[Any]) -> Any:
    """Returns ``result``; now and then, on several CPU devices, after waiting until it is there."""
    if _needs_pace(devices) and next(_dispatches) % _IN_FLIGHT == 0:
        jax.block_until_ready(result)
    return result


def pacing(function: Callable[..., Any], devices: Sequence[Any]) -> Callable[..., Any]:
    """Returns a compiled function whose results are paced, where these devices need it."""
    if not _needs_pace(devices):
        return function
    return lambda *args, **kwargs: paced(function(*args, **kwargs), devices)


def _needs_pace(devices: Sequence[Any]) -> bool:
    return len(devices) > 1 and devices[0].platform == "cpu"


@functools.cache
def batch_mesh(devices: tuple[Any, ...], axis: str = BATCH_AXIS) -> jax.sharding.Mesh:
    """Returns a mesh of one axis over these devices."""
    return jax.sharding.Mesh(np.array(devices, object), (axis,))


def used_devices(
    devices: tuple[Any, ...], size: int, axis_name: str | None = None
) -> tuple[Any, ...]:
    """Returns the devices that a batch is spread over.

    A batch with a named axis takes no padding, as a collective would count it: it has as many
    devices as divide it.

    Args:
        devices: Those that there are.
        size: How many rows the batch has.
        axis_name: The name of its axis, if it has one.
    """
    if axis_name is None:
        return devices
    count = max(k for k in range(1, len(devices) + 1) if size % k == 0) if size else 1
    return devices[:count]


_taken: ContextVar[bool] = ContextVar("ember_xcs_devices_taken", default=False)


@contextlib.contextmanager
def taking_devices() -> Iterator[None]:
    """Marks the time in which a function is traced that is spread over devices itself."""
    token = _taken.set(True)
    try:
        yield
    finally:
        _taken.reset(token)


def devices_are_taken() -> bool:
    """Whether the code being traced has one device: something around it is spread over them."""
    return _taken.get() or bool(jax.sharding.get_abstract_mesh().manual_axes)


def spread(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    devices: tuple[Any, ...],
    axis_name: str | None = None,
    chunk_size: int | None = None,
) -> Any:
    """Returns a numeric function of each row of a batch, the rows spread over devices.

    A batch that does not divide is padded with its last row, and the results of that are removed.
    One with a named axis is spread over those of the devices that divide it.

    Args:
        function: The function of one row.
        args: By position, marked by the axis that they are mapped along.
        kwargs: By name, marked so, too.
        devices: Where to.
        axis_name: A name for the batch, for collectives.
        chunk_size: The most rows that a device computes at once.
    """
    structure: Any
    marks, structure = jax.tree.flatten((args, kwargs), is_leaf=_is_along)
    rows = [jnp.moveaxis(jnp.asarray(m.value), m.axis, 0) for m in marks if m.axis is not None]
    shared = [m.value for m in marks if m.axis is None]
    size = rows[0].shape[0]

    def one(row: Sequence[Any], shared: Sequence[Any]) -> Any:
        mapped, same = iter(row), iter(shared)
        args, kwargs = structure.unflatten(
            [next(same) if m.axis is None else next(mapped) for m in marks]
        )
        with taking_devices():
            return keeping_order(function(*args, **kwargs))

    if not size:
        return jax.vmap(one, in_axes=(0, None), axis_name=axis_name)(rows, shared)
    if axis_name is not None:
        used = used_devices(devices, size, axis_name)
        return _with_collectives(one, rows, shared, used, axis_name)
    block = functools.partial(_block, one, chunk_size=chunk_size)
    padded = -(-size // len(devices)) * len(devices)
    if padded != size:
        index = np.minimum(np.arange(padded), size - 1)
        rows = [row[index] for row in rows]
    results = _sharded(block, devices, BATCH_AXIS)(rows, shared)
    return results if padded == size else jax.tree.map(lambda x: x[:size], results)


def _is_along(value: Any) -> bool:
    return isinstance(value, Along)


def _block(one: Callable[..., Any], rows: Any, shared: Any, chunk_size: int | None) -> Any:
    """The rows of one device."""
    if chunk_size is not None and rows[0].shape[0] > chunk_size:
        return jax.lax.map(lambda row: one(row, shared), rows, batch_size=chunk_size)
    return jax.vmap(one, in_axes=(0, None))(rows, shared)


def _sharded(function: Callable[..., Any], devices: tuple[Any, ...], axis: str) -> Any:
    spec, same = jax.sharding.PartitionSpec(axis), jax.sharding.PartitionSpec()
    return jax.shard_map(
        function,
        mesh=batch_mesh(devices, axis),
        in_specs=(spec, same),
        out_specs=spec,
        check_vma=False,  # every result has the batch axis: there is no replication to check
    )


def _with_collectives(
    one: Callable[..., Any], rows: Any, shared: Any, devices: tuple[Any, ...], axis_name: str
) -> Any:
    if len(devices) == rows[0].shape[0]:

        def one_row(rows: Any, shared: Any) -> Any:
            result = one([row[0] for row in rows], shared)
            return jax.tree.map(lambda x: jnp.asarray(x)[None], result)

        return _sharded(one_row, devices, axis_name)(rows, shared)
    by_rows = jax.sharding.NamedSharding(
        batch_mesh(devices), jax.sharding.PartitionSpec(BATCH_AXIS)
    )
    placed = jax.lax.with_sharding_constraint(rows, by_rows)
    results = jax.vmap(one, in_axes=(0, None), axis_name=axis_name, spmd_axis_name=BATCH_AXIS)(
        placed, shared
    )
    return jax.lax.with_sharding_constraint(results, by_rows)
