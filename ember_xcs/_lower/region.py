"""Regions: pure nodes compiled as one XLA program."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from ember_xcs._core import calls
from ember_xcs._core.arguments import summary
from ember_xcs._graph import pick_field
from ember_xcs._lower.boundary import all_arrays, are_constants, from_static, to_static
from ember_xcs._lower.constants import Compiled
from ember_xcs._lower.in_flight import has_large_arrays, keep_up
from ember_xcs._trace.host_values import HandleTable, from_bits, to_bits
from ember_xcs.errors import NodeExecutionError

if TYPE_CHECKING:
    from ember_xcs._lower.node_calls import NodeCall, Source

__all__ = ["Region", "RegionStep"]


@dataclass(frozen=True, slots=True)
class RegionStep:
    """One pure node in a region.

    Attributes:
        node_id: The node.
        call: How its operator is called.
    """

    node_id: str
    call: NodeCall


_MOST_STRUCTURES = 16
"""For how many different sets of constants a region is compiled; for others it is not."""


class Region:
    """Pure nodes as one function of arrays: ``region(*values)``, compiled once for each shape.

    Attributes:
        steps: The nodes, in a topological order.
        sources: Where each value comes from.
        outputs: The values that others read: (node, field of its output).
        host_inputs: The positions of ``sources`` that are host values (handles, inside), and how
            many batch axes each has.
        host_outputs: The positions of ``outputs`` that are host values.
        python_calls: How many calls were run as plain Python, since a value was neither an array
            nor a constant, or the constants were others each time.
    """

    def __init__(self, steps: Sequence[RegionStep], outputs: Sequence[Source]) -> None:
        self.steps = tuple(steps)
        self.outputs = tuple(outputs)
        inside = {step.node_id for step in steps}
        read = (s for step in steps for s in step.call.sources if s[0] not in inside)
        self.sources = tuple(dict.fromkeys(read))
        self.host_inputs = {
            self.sources.index(source): len(_avals(step)[field].shape)
            for step in steps
            for source, field in zip(step.call.sources, step.call.fields, strict=False)
            if source[0] not in inside and field in _host(step, "host_inputs")
        }
        by_id = {step.node_id: step for step in steps}
        self.host_outputs = frozenset(
            k
            for k, (node, field) in enumerate(outputs)
            if node is not None and field in _host(by_id[node], "host_outputs")
        )
        self._jitted = Compiled(self._computed)
        self._compiling = threading.Lock()
        self._is_compiled = self._is_large = False
        self._takes_statics = self._returns_statics = False
        self._structures: set[Any] = set()
        self.python_calls = 0

    def __call__(self, *values: Any) -> Any:
        """Returns the value of the only output, or a tuple of them."""
        if self._is_compiled:
            results = self._called(values)
        else:
            with self._compiling:  # one compiles, the others wait for it
                results = self._called(values)
            self._is_compiled = True
        if self._is_large:
            keep_up(results)
        return results

    def _called(self, values: tuple[Any, ...]) -> Any:
        if not (self.host_inputs or self.host_outputs):
            return self._run(values)
        table = HandleTable()
        ranks = self.host_inputs
        encoded = (table.encode(v, ranks[k]) if k in ranks else v for k, v in enumerate(values))
        results = self._run(tuple(encoded))
        if len(self.outputs) == 1:
            return table.decode(results) if self.host_outputs else results
        return tuple(
            table.decode(result) if k in self.host_outputs else result
            for k, result in enumerate(results)
        )

    def _run(self, values: tuple[Any, ...]) -> Any:
        if self._takes_statics:
            return self._run_with_statics(values)
        try:
            results = self._jitted(*values)
        except TypeError:
            if all_arrays(values):
                raise
            results = self._run_with_statics(values)
            self._takes_statics = True  # do not try the other way first again
        return from_static(results) if self._returns_statics else results

    def _run_with_statics(self, values: tuple[Any, ...]) -> Any:
        """Compiles once for each set of constants; runs as plain Python what has no such sets."""
        static = to_static(values)
        structure = jax.tree.structure(static)
        if structure not in self._structures:
            if len(self._structures) >= _MOST_STRUCTURES or not are_constants(values):
                self.python_calls += 1
                results = self.compute(values)
                return results[0] if len(results) == 1 else tuple(results)
            self._structures.add(structure)
        return from_static(self._jitted(*static))

    def _computed(self, *values: Any) -> Any:
        """What is compiled."""
        results = self.compute(from_static(values))
        self._is_large = self._is_large or has_large_arrays((values, results))
        if not all_arrays(results):
            self._returns_statics = True
            results = list(map(to_static, results))
        return results[0] if len(results) == 1 else tuple(results)

    def compute(self, values: Sequence[Any]) -> list[Any]:
        """Returns the values of the outputs, step by step; JAX may be tracing."""
        values = [from_bits(v) if k in self.host_inputs else v for k, v in enumerate(values)]
        known: dict[Source, Any] = dict(zip(self.sources, values, strict=True))
        with calls.recording(None):
            for step in self.steps:
                known[(step.node_id, None)] = _step_value(step, known)
        results = [_picked(known, output) for output in self.outputs]
        return [to_bits(r) if k in self.host_outputs else r for k, r in enumerate(results)]

    def lower(self, *values: Any) -> Any:
        """Returns what JAX lowers the region to, for values like these."""
        return self._jitted.lower(*values)

    def warm(self) -> None:
        """Compiles for the shapes that staging has seen; does nothing where it saw none."""
        structs = self._known_structs()
        if structs is not None and self._compiling.acquire(blocking=False):
            try:
                self.lower(*structs).compile()
            finally:
                self._compiling.release()

    @property
    def can_warm(self) -> bool:
        """Whether the shapes of all inputs are known before a run."""
        return self._known_structs() is not None

    def _known_structs(self) -> list[jax.ShapeDtypeStruct] | None:
        found: dict[Source, jax.ShapeDtypeStruct] = {}
        for step in self.steps:
            avals = _avals(step)
            for source, field in zip(step.call.sources, step.call.fields, strict=False):
                if field in avals:
                    is_host = field in _host(step, "host_inputs")
                    found[source] = _struct(avals[field], is_host)
        if any(source not in found for source in self.sources):
            return None
        return [found[source] for source in self.sources]


def _host(step: RegionStep, which: str) -> frozenset[Any]:
    return getattr(step.call.operator, which, frozenset())


def _avals(step: RegionStep) -> dict[str, Any]:
    """The abstract values of the inputs of a node, where staging has made it."""
    found: dict[str, Any] = getattr(step.call.operator, "in_avals", {})
    return found


def _struct(aval: Any, is_host: bool) -> jax.ShapeDtypeStruct:
    if is_host:
        return jax.ShapeDtypeStruct((*aval.shape, 1), jnp.uint32)
    weak = getattr(aval, "weak_type", False)
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=weak)


def _picked(known: dict[Source, Any], source: Source) -> Any:
    if source not in known:
        node, field = source
        known[source] = pick_field(known[(node, None)], str(field))
    return known[source]


def _step_value(step: RegionStep, known: dict[Source, Any]) -> Any:
    call = step.call
    operator = call.operator
    values: list[Any] = []
    try:
        values += (_picked(known, source) for source in call.sources)
        args, kwargs = call.arguments(values)
        with jax.named_scope(operator.name):
            return operator.run(args, kwargs)
    except Exception as error:
        inputs = ", ".join(map(summary, values))
        raise NodeExecutionError(
            f"node {step.node_id!r} (operator {operator.name}) failed: "
            f"{type(error).__name__}: {error}\n  its inputs: {inputs or 'none'}",
            step.node_id,
            operator.name,
            inputs,
        ) from error
