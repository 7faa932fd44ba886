"""The operators that tracing puts into a graph: staged host calls, and numeric programs."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.extend.core as jex_core
import jax.numpy as jnp
import numpy as np

from ember_xcs._core.operator import HostOperator, Kind, Operator
from ember_xcs._core.operator_class import derived
from ember_xcs._core.outputs import HOST, OutputType
from ember_xcs._core.signature import Field, Signature
from ember_xcs._trace.host_values import is_host_dtype
from ember_xcs._trace.primitive import CallSite
from ember_xcs._trace.rebuild import rebuild_arguments

if TYPE_CHECKING:
    from ember_xcs._core.policy import HostPolicy

__all__ = [
    "NumericProgram",
    "StagedCall",
    "chosen",
    "indexable",
    "live_input",
    "output_fields",
    "stacked",
]


def live_input(level: int) -> str:
    """Returns the input that says which lanes of a batched loop still run.

    Args:
        level: The loop: how many batched loops are around it.
    """
    return f"live_{level}"


def output_fields(count: int) -> tuple[str, ...] | None:
    """Returns the output fields of a node with ``count`` results: positions, or None for one."""
    return None if count == 1 else tuple(map(str, range(count)))


class NumericProgram(Operator):
    """Equations between host calls, as one pure operator.

    Attributes:
        jaxpr: What it computes, closed over nothing.
        label: What it is called: the pure operators in it, or what it does.
        work: An estimate of its arithmetic operations.
        lines: The user's lines that it comes from.
    """

    jaxpr: Any
    label: str
    work: float
    lines: tuple[str, ...]

    def __init__(self, jaxpr: Any, label: str, work: float, lines: tuple[str, ...]) -> None:
        self.jaxpr, self.label, self.work, self.lines = jaxpr, label, work, lines

    def forward(self, *inputs: Any) -> Any:
        """Returns the value of the only result, or a tuple."""
        results = jex_core.jaxpr_as_fun(self.jaxpr)(*inputs)
        return results[0] if len(results) == 1 else tuple(results)

    @derived
    def name(self) -> str:
        """What it is called."""
        return self.label

    @derived
    def kind(self) -> Kind:
        """``"pure"``."""
        return "pure"

    @derived
    def signature(self) -> Signature:
        """An input for each variable, an output for each result."""
        names = [Field(f"x{k}") for k in range(len(self.jaxpr.in_avals))]
        return Signature(tuple(names), outputs=output_fields(len(self.jaxpr.out_avals)))

    @derived
    def host_inputs(self) -> frozenset[str]:
        """The inputs that are host values: handles, for JAX."""
        return _host_positions(self.jaxpr.in_avals, "x")

    @derived
    def host_outputs(self) -> frozenset[str | None]:
        """The outputs that are host values; None is the only one."""
        found = _host_positions(self.jaxpr.out_avals, "")
        return frozenset({None}) if found and len(self.jaxpr.out_avals) == 1 else found

    @derived
    def in_avals(self) -> dict[str, Any]:
        """The abstract value of each input."""
        return {f"x{k}": aval for k, aval in enumerate(self.jaxpr.in_avals)}

    @derived
    def equations(self) -> tuple[str, ...]:
        """The primitives of its equations, in order."""
        return tuple(e.primitive.name for e in self.jaxpr.jaxpr.eqns)

    def __repr__(self) -> str:
        return f"NumericProgram({self.label}, {len(self.equations)} equations)"


def _host_positions(avals: Sequence[Any], prefix: str) -> frozenset[Any]:
    return frozenset(f"{prefix}{k}" for k, aval in enumerate(avals) if is_host_dtype(aval.dtype))


class StagedCall(HostOperator):
    """A host call as staging saw it: with constants inside and batch axes around.

    Attributes:
        site: The call.
        batch: The sizes of its batch axes, outermost first.
        mapped: For each operand, on which of the axes it is batched.
        live: The inputs that say which lanes of the loops around it still run.
        lanes: For each of these, which axes of the batch are the lanes; calls are made for the live
            ones alone. Empty for a loop or branch, which has them for its own bodies to see.
    """

    site: CallSite
    batch: tuple[int, ...] = ()
    mapped: tuple[tuple[bool, ...], ...] = ()
    live: tuple[str, ...] = ()
    lanes: tuple[tuple[int, ...], ...] = ()

    @derived
    def name(self) -> str:
        """The name of the operator that is called."""
        return self.site.operator.name

    @derived
    def kind(self) -> Kind:
        """The kind of the operator that is called."""
        return self.site.operator.kind

    @derived
    def policy(self) -> HostPolicy:
        """The policy of the operator that is called."""
        return self.site.operator.policy

    @derived
    def is_async(self) -> bool:
        """Whether a call gives a coroutine."""
        if self.uses_batch:
            return inspect.iscoroutinefunction(self.site.operator.forward_batch)  # type: ignore[attr-defined]
        return self.site.operator.is_async

    @derived
    def uses_batch(self) -> bool:
        """Whether its calls go to the operator's batch end point together."""
        site = self.site
        if not self.batch or site.raw or not site.operator.has_batch:
            return False
        return not any(any(self.mapped[k]) for k in site.operator_operands)  # one operator for all

    @derived
    def signature(self) -> Signature:
        """An input for each operand, an output for each result."""
        fields = tuple(Field(label) for label in (*self.site.labels, *self.live))
        return Signature(fields, outputs=output_fields(len(self.site.outputs)))

    @derived
    def output_type(self) -> OutputType:
        """Checked by the operator itself."""
        return OutputType(HOST)

    @derived
    def identity(self) -> Any:
        """What two calls share that would give the same results, but for their operands."""
        site = self.site
        called = site.structure if site.traced_operator else jax.tree.structure(site.operator)
        leaves = () if site.traced_operator else tuple(map(id, jax.tree.leaves(site.operator)))
        positions = (
            site.operand_positions,
            site.labels,
            self.batch,
            self.mapped,
            self.live,
            self.lanes,
        )
        return called, leaves, site.structure, site.constants, positions

    def forward(self, *operands: Any) -> Any:
        """Returns the result of one call, or a coroutine of it."""
        operator, args, kwargs = self.arguments(operands)
        result = operator.start(args, kwargs)
        return self._later(result) if operator.is_async else self.results(result)

    async def _later(self, result: Any) -> Any:
        return self.results(await result)

    def arguments(
        self, operands: Sequence[Any]
    ) -> tuple[HostOperator, tuple[Any, ...], dict[str, Any]]:
        """Returns the operator and its arguments for one call."""
        return rebuild_arguments(self.site, operands)

    def results(self, value: Any) -> Any:
        """Returns the results, one or a tuple, from what the operator returned."""
        if self.site.raw:
            leaves = value
        else:
            operator = self.site.operator
            leaves = operator.output_type.split(value, operator.name)
        return leaves[0] if len(leaves) == 1 else tuple(leaves)

    def indices(self, values: Sequence[Any]) -> list[tuple[int, ...]]:
        """Returns where in the batch calls are made: everywhere, or in the live lanes."""
        if not self.lanes:
            return list(np.ndindex(*self.batch))
        live = np.ones(self.batch, bool)
        for mask, axes in zip(values[-len(self.lanes) :], self.lanes, strict=True):
            others = tuple(k for k in range(len(self.batch)) if k not in axes)
            live &= np.expand_dims(np.asarray(mask), others)
        return [tuple(index) for index in np.argwhere(live).tolist()]

    def split(self, values: Sequence[Any]) -> tuple[list[tuple[int, ...]], list[tuple[Any, ...]]]:
        """Returns the indices of the calls to be made, and the operands of each."""
        arrays = [
            indexable(v) if any(levels) else v
            for v, levels in zip(values, self.mapped, strict=False)
        ]
        indices = self.indices(values)
        if len(self.batch) == 1:
            return indices, self._rows(arrays, [index for (index,) in indices])
        return indices, [self._element(arrays, index) for index in indices]

    def _rows(self, arrays: Sequence[Any], indices: Sequence[int]) -> list[tuple[Any, ...]]:
        """The operands of the calls at ``indices``, where the batch has one axis."""
        is_whole = len(indices) == self.batch[0]
        columns: list[Any] = []
        for array, (is_mapped,) in zip(arrays, self.mapped, strict=True):
            if not is_mapped:
                columns.append(itertools.repeat(array, len(indices)))
            else:
                columns.append(list(array) if is_whole else [array[k] for k in indices])
        return list(zip(*columns, strict=True)) if columns else [()] * len(indices)

    def _element(self, arrays: Sequence[Any], index: tuple[int, ...]) -> tuple[Any, ...]:
        return tuple(
            array[tuple(k for k, is_mapped in zip(index, levels, strict=True) if is_mapped)]
            if any(levels)
            else array
            for array, levels in zip(arrays, self.mapped, strict=True)
        )

    def join_values(self, indices: Sequence[tuple[int, ...]], values: Sequence[Any]) -> Any:
        """Returns the batched results from what the operator returned for ``indices``."""
        if not self.site.raw and self.site.operator.output_type.is_leaf:
            return stacked(self.site.outputs[0], self.batch, indices, values)
        return self.join(indices, [self.results(value) for value in values])

    def join(self, indices: Sequence[tuple[int, ...]], results: Sequence[Any]) -> Any:
        """Returns the batched results from those of the calls at ``indices``."""
        count = len(self.site.outputs)
        rows = [(r,) if count == 1 else r for r in results]
        columns = [
            stacked(aval, self.batch, indices, [row[k] for row in rows])
            for k, aval in enumerate(self.site.outputs)
        ]
        return columns[0] if count == 1 else tuple(columns)

    def __repr__(self) -> str:
        batch = f", batch={self.batch}" if self.batch else ""
        return f"StagedCall({self.name}{batch})"


def indexable(value: Any) -> Any:
    """Returns a batch as something whose elements are taken by index: random keys as they are."""
    return value if isinstance(value, np.ndarray) or _are_keys(value) else np.asarray(value)


def _are_keys(value: Any) -> bool:
    return isinstance(value, jax.Array) and _is_key_dtype(value.dtype)


def _is_key_dtype(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jax.dtypes.prng_key)) and not is_host_dtype(dtype)


def chosen(mask: np.ndarray[Any, Any], new: Any, old: Any) -> Any:
    """Returns the elements of ``new`` where a mask of its leading axes holds, else of ``old``."""
    new, old = indexable(new), indexable(old)
    mask = mask.reshape(mask.shape + (1,) * (new.ndim - mask.ndim))
    return jnp.where(mask, new, old) if _are_keys(new) else np.where(mask, new, old)


def stacked(
    aval: Any, batch: tuple[int, ...], indices: Sequence[tuple[int, ...]], values: Sequence[Any]
) -> Any:
    """Returns values as one array of the whole batch; where there is none it is zero, or None."""
    shape = (*batch, *aval.shape)
    if _is_key_dtype(aval.dtype):
        keys = jnp.zeros(shape, aval.dtype)
        places = tuple(np.array(indices, int).reshape(-1, len(batch)).T)
        return keys.at[places].set(jnp.stack(values)) if len(values) else keys
    whole: np.ndarray[Any, Any]
    is_host = is_host_dtype(aval.dtype)
    if len(indices) == math.prod(batch) and len(indices) and (not is_host or not aval.shape):
        if is_host:
            return np.fromiter(values, object, len(values)).reshape(batch)
        whole = np.array(values, aval.dtype)
        if whole.shape == (len(values), *aval.shape):  # not what numpy would broadcast below
            return whole.reshape(shape)
    whole = np.empty(shape, object) if is_host else np.zeros(shape, aval.dtype)
    for index, value in zip(indices, values, strict=True):
        whole[index] = value
    return whole
