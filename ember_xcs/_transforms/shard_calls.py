"""One call of a sharded function: taken apart, and made on the host for each shard."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import jax

from ember_xcs._jit.programs import results_of
from ember_xcs._runtime.supervise import OptionsArgument, aexecute_plan, execute_plan
from ember_xcs._trace.staging import is_numeric
from ember_xcs._transforms.batches import as_array
from ember_xcs._transforms.elements import ElementCall, ElementCalls
from ember_xcs._transforms.partition_spec import is_spec
from ember_xcs._transforms.shards import cut, joined_shards, mesh_axes, shard_indices

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ember_xcs._transforms.mesh import DeviceMesh
    from ember_xcs._transforms.prefixes import CallStructure, Leaf

__all__ = ["ShardCalls", "ShardedCall", "as_jax"]


@dataclasses.dataclass(frozen=True)
class ShardedCall:
    """A call taken apart.

    Attributes:
        leaves: The arguments' leaves, each with its spec.
        structure: Their tree.
    """

    leaves: Sequence[Leaf]
    structure: CallStructure

    @property
    def specs(self) -> tuple[Any, ...]:
        """The spec of each leaf."""
        return tuple(leaf.setting for leaf in self.leaves)

    @property
    def is_numeric(self) -> bool:
        """Whether JAX computes with all of them."""
        return all(is_numeric(as_jax(leaf.value)) for leaf in self.leaves)

    def for_jax(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns ``(args, kwargs)`` as JAX takes them."""
        return self.structure.unflatten([as_jax(leaf.value) for leaf in self.leaves])


def as_jax(value: Any) -> Any:
    """Returns a leaf of the arguments as JAX takes it."""
    return as_array(value) if type(value) is list else value


@dataclasses.dataclass(frozen=True)
class ShardCalls:
    """A function called on the host, once for each shard."""

    function: Callable[..., Any]
    call: ShardedCall
    out_specs: Any
    mesh: DeviceMesh
    name: str

    def run(self, options: OptionsArgument = None) -> Any:
        """Returns the results of all shards, joined."""
        run = execute_plan(self._how.plan(self.function), [self._elements()], options)
        return self._joined(results_of(run, self.name)["results"])

    async def arun(self, options: OptionsArgument = None) -> Any:
        """Returns the results of all shards, without blocking the event loop."""
        run = await aexecute_plan(self._how.plan(self.function), [self._elements()], options)
        return self._joined(results_of(run, self.name)["results"])

    @property
    def _how(self) -> ElementCalls:
        return ElementCalls(self.name, noun="shard")

    @functools.cached_property
    def _indices(self) -> list[Mapping[str, int]]:
        specs = [*self.call.specs, *jax.tree.leaves(self.out_specs, is_leaf=is_spec)]
        used = {name for spec in specs for name in mesh_axes(spec)}
        axes = [name for name in self.mesh.axis_names if name in used]
        return list(shard_indices(axes, self.mesh.shape))

    def _elements(self) -> list[ElementCall]:
        found = []
        for index in self._indices:
            parts = [
                cut(leaf.value, leaf.setting, index, self.mesh.shape) for leaf in self.call.leaves
            ]
            args, kwargs = self.call.structure.unflatten(parts)
            found.append(ElementCall(self.function, args, kwargs))
        return found

    def _joined(self, results: Sequence[Any]) -> Any:
        by_shard = list(zip(self._indices, results, strict=True))
        return joined_shards(self.name, by_shard, self.out_specs, self.mesh.shape)
