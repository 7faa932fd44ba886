"""What a call of a compiled numeric function costs, against ``jax.jit``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ember_xcs as xcs
from benchmarks.harness import Row, compare, installed, ratio_row, skipped

BAR = 1.15


def norm(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(x * x))


def dense(params: dict[str, Any], x: jax.Array, *, scale: float = 1.0) -> dict[str, jax.Array]:
    return {"y": jnp.tanh(x @ params["w"] + params["b"]) * scale, "norm": norm(x)}


class Scaled(xcs.Operator):
    factor: float

    def forward(self, x: jax.Array) -> jax.Array:
        return norm(x) * self.factor


CompiledScaled = xcs.jit(Scaled)


def cases() -> Iterator[tuple[str, Any, Any, tuple[Any, ...], dict[str, Any]]]:
    """The name, the function, what ``jax.jit`` is given, the arguments."""
    x = jnp.arange(8.0)
    params = {"w": jnp.ones((8, 8)), "b": jnp.zeros(8)}
    yield "one array of 8", norm, norm, (x,), {}
    yield "a dict of arrays, a keyword", dense, dense, (params, x), {"scale": 2.0}
    operator = Scaled(2.0)
    yield "an operator", operator, operator.forward, (x,), {}
    yield "an instance of a compiled class", CompiledScaled(2.0), operator.forward, (x,), {}


def rows(quick: bool = False) -> Iterator[Row]:
    repeats, number = (5, 100) if quick else (31, 1000)
    for name, given, function, args, kwargs in cases():
        ours = given if xcs.is_jit_compiled(given) else xcs.jit(given)
        plain = jax.jit(function)
        expected = jax.tree.leaves(plain(*args, **kwargs))
        for _ in range(2):  # the second call is the first that goes straight to jax.jit
            for got, want in zip(jax.tree.leaves(ours(*args, **kwargs)), expected, strict=True):
                np.testing.assert_array_equal(got, want)

        def call(function: Any, args: Any = args, kwargs: Any = kwargs) -> Any:
            return lambda: jax.block_until_ready(function(*args, **kwargs))

        sides = {"xcs.jit": call(ours), "jax.jit": call(plain)}
        if installed("equinox"):
            import equinox

            sides["eqx.filter_jit"] = call(equinox.filter_jit(function))
        times = compare(repeats, sides, number=number, warm=3)
        what = f"xcs.jit, {name}, warm"
        yield ratio_row(what, times, "xcs.jit", "jax.jit", BAR)
        if "eqx.filter_jit" in sides:
            yield ratio_row(what, times, "xcs.jit", "eqx.filter_jit", faster=True)
        else:
            yield skipped(f"{what} / eqx.filter_jit", "equinox")
