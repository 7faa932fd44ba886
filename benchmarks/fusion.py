"""Pure graphs of many operators, against the same function written by hand under ``jax.jit``.

Each graph is measured four ways: an operator that contains the others through ``xcs.jit`` (mode
"trace" and mode "structural"), and an XCSGraph built by hand through ``xcs.GraphExecutor``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ember_xcs as xcs
from benchmarks.harness import Row, compare, ratio_row

BAR = 1.15
SMALL, LARGE = 8, 1_000_000
MODES = ["trace", "structural"]


class Affine(xcs.Operator):
    scale: jax.Array
    shift: jax.Array

    def forward(self, x: jax.Array) -> jax.Array:
        return x * self.scale + self.shift


class Mean(xcs.Operator):
    def forward(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return 0.5 * (a + b)


class Chain(xcs.Operator):
    """One operator after another."""

    layers: list[Affine]

    def forward(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = layer(x)
        return x


class Diamonds(xcs.Operator):
    """Two operators on one value, a third on theirs, and so on."""

    layers: list[Affine]
    mean: Mean

    def forward(self, x: jax.Array) -> jax.Array:
        for k in range(0, len(self.layers), 2):
            x = self.mean(self.layers[k](x), self.layers[k + 1](x))
        return x


def layers(count: int, size: int | None = None) -> list[Affine]:
    """Operators whose weights are scalars, or arrays of a size."""
    shape = () if size is None else (size,)
    random = np.random.default_rng(0)

    def weights(low: float, high: float) -> jax.Array:
        return jnp.asarray(random.uniform(low, high, shape), jnp.float32)

    return [Affine(weights(0.5, 0.9), weights(0.0, 1.0)) for _ in range(count)]


def composite(shape: str, count: int) -> xcs.Operator:
    """An operator of ``count`` operators."""
    if shape == "chain":
        return Chain(layers(count))
    return Diamonds(layers(2 * count // 3 // 2 * 2), Mean())


def by_hand(operator: Any) -> Callable[..., Any]:
    """The same as a person would write it: weights as closed-over constants, no operators."""
    scales = [layer.scale for layer in operator.layers]
    shifts = [layer.shift for layer in operator.layers]

    def chain(x: jax.Array) -> jax.Array:
        for scale, shift in zip(scales, shifts, strict=True):
            x = x * scale + shift
        return x

    def diamonds(x: jax.Array) -> jax.Array:
        for k in range(0, len(scales), 2):
            x = 0.5 * ((x * scales[k] + shifts[k]) + (x * scales[k + 1] + shifts[k + 1]))
        return x

    return chain if isinstance(operator, Chain) else diamonds


def each_jitted(operator: Any) -> Callable[..., Any]:
    """Each operator jitted alone, called in a loop."""
    steps = [jax.jit(layer.forward) for layer in operator.layers]
    if isinstance(operator, Chain):

        def chain(x: jax.Array) -> jax.Array:
            for step in steps:
                x = step(x)
            return x

        return chain
    mean = jax.jit(operator.mean.forward)

    def diamonds(x: jax.Array) -> jax.Array:
        for k in range(0, len(steps), 2):
            x = mean(steps[k](x), steps[k + 1](x))
        return x

    return diamonds


def graph_of(operator: Any) -> xcs.XCSGraph:
    """The same as a graph built by hand."""
    graph = xcs.XCSGraph("by_hand")
    value: Any = graph.input("x")

    def add(layer: xcs.Operator, **feeds: Any) -> Any:
        node = graph.add_node(layer)
        for field, source in feeds.items():
            graph.connect(source, node.inputs[field])
        return node

    if isinstance(operator, Chain):
        for layer in operator.layers:
            value = add(layer, x=value)
    else:
        for k in range(0, len(operator.layers), 2):
            a, b = add(operator.layers[k], x=value), add(operator.layers[k + 1], x=value)
            value = add(operator.mean, a=a, b=b)
    graph.set_outputs(y=value)
    return graph


def sides_of(operator: Any) -> dict[str, Callable[..., Any]]:
    """All ways to run one composite operator."""
    executor = xcs.GraphExecutor(graph_of(operator))
    return {
        **{mode: xcs.jit(operator, mode=mode) for mode in MODES},
        "graph": lambda x: executor.execute({"x": x})["y"],
        "jax.jit": jax.jit(by_hand(operator)),
    }


def fused(shape: str, count: int, size: int, repeats: int) -> Iterator[Row]:
    """The rows of one graph and one size."""
    operator = composite(shape, count)
    sides = sides_of(operator)
    if size == SMALL:
        sides["each operator jitted alone"] = each_jitted(operator)
    x = jnp.linspace(0.0, 1.0, size)
    expected = sides["jax.jit"](x)
    for function in sides.values():
        for _ in range(2):
            np.testing.assert_allclose(function(x), expected, rtol=1e-5)
    calls = {name: ready(function, x) for name, function in sides.items()}
    times = compare(repeats, calls, number=200 if size == SMALL else 1, warm=3)
    what = f"{shape} of {count} operators, {size:,} elements"
    against = "each operator jitted alone"
    for ours in (*MODES, "graph"):
        is_compiled = ours in MODES  # a graph's run has results, a timeline, options: more to do
        yield ratio_row(f"{ours}, {what}", times, ours, "jax.jit", BAR if is_compiled else None)
        if size == SMALL:
            bar = 5 if is_compiled else None
            yield ratio_row(f"{ours}, {what}", times, ours, against, bar, faster=True)


def ready(function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    return lambda: jax.block_until_ready(function(*args))


def heavy_weights(count: int = 20, size: int = LARGE, repeats: int = 15) -> Iterator[Row]:
    """Weights of 10^6 elements: closed over, as arguments, and as the library has them."""
    operator = Chain(layers(count, size))
    x = jnp.linspace(0.0, 1.0, size)

    def with_arguments(operator: Chain, x: jax.Array) -> jax.Array:
        for layer in operator.layers:
            x = x * layer.scale + layer.shift
        return x

    passed = jax.jit(with_arguments)
    sides = {
        **sides_of(operator),
        "weights as arguments": lambda x: passed(operator, x),
    }
    first: dict[str, float] = {}
    results = {}
    for name, function in sides.items():
        start = time.perf_counter()
        results[name] = jax.block_until_ready(function(x))
        first[name] = time.perf_counter() - start
    for result in results.values():
        np.testing.assert_allclose(result, results["jax.jit"], rtol=1e-5)
    times = compare(repeats, {n: ready(f, x) for n, f in sides.items()}, warm=2)
    what = f"chain of {count}, weights of {size:,} elements"
    for ours in (*MODES, "graph", "weights as arguments"):
        yield ratio_row(f"{ours}, {what}", times, ours, "jax.jit")
        yield ratio_row(f"{ours}, {what}, first call", first, ours, "jax.jit")


def rows(quick: bool = False) -> Iterator[Row]:
    repeats = 5 if quick else 21
    for shape in ("chain", "diamonds"):
        for count in (20, 200):
            for size in (SMALL, LARGE):
                yield from fused(shape, count, size, repeats)
    yield from heavy_weights(repeats=repeats)
