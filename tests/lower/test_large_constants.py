"""Large arrays that a compiled function closes over are arguments of its XLA program."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ember_xcs as xcs
from ember_xcs._core.options import get_execution_options
from ember_xcs._lower.constants import LARGE_CONSTANT_BYTES
from ember_xcs._lower.lower import lower
from ember_xcs._lower.plan import TaskKind

SIDE = 200
LARGE = np.linspace(-1, 1, SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)
MODES = ("trace", "structural")
assert LARGE.nbytes >= LARGE_CONSTANT_BYTES


class Linear(xcs.Operator):
    weight: jax.Array

    def forward(self, x):
        return x @ self.weight


def large_constants(text: str) -> list[str]:
    """The constants of a StableHLO text that hold as many elements as the weight."""
    constants = re.findall(r"stablehlo\.constant dense<.*> : (tensor<[^>]*>)", text)
    return [kind for kind in constants if f"{SIDE}x{SIDE}" in kind]


def arguments(text: str) -> list[str]:
    """The types of the arguments of the program."""
    (line,) = (line for line in text.splitlines() if "@main" in line)
    return re.findall(r"%arg\d+: (tensor<[^>]*>)", line)


def region_of(graph: xcs.XCSGraph):
    plan = lower(graph, get_execution_options())
    (region,) = (task.run for task in plan.tasks if task.kind is TaskKind.REGION)
    return region


def test_the_oracle_sees_a_constant_that_jax_embeds():
    weight = jnp.asarray(LARGE)
    text = jax.jit(lambda x: x @ weight).lower(jnp.ones(SIDE)).as_text()
    assert large_constants(text)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("weight", [jnp.asarray(LARGE), LARGE, LARGE.astype(np.float64)])
def test_the_weight_of_a_compiled_operator_is_an_argument(mode, weight):
    f = getattr(xcs.jit, mode)(Linear(weight))
    text = f.lower(jnp.ones(SIDE)).as_text()
    assert large_constants(text) == []
    assert arguments(text) == [f"tensor<{SIDE}x{SIDE}xf32>", f"tensor<{SIDE}xf32>"]


@pytest.mark.parametrize("mode", MODES)
def test_a_compiled_operator_gives_what_it_gives_in_plain_python(mode):
    operator = Linear(jnp.asarray(LARGE))
    f = getattr(xcs.jit, mode)(operator)
    for shape in [(SIDE,), (3, SIDE), (SIDE,)]:
        x = jax.random.normal(jax.random.key(0), shape)
        np.testing.assert_allclose(f(x), operator(x), rtol=1e-5, atol=1e-5)


def test_vmap_of_a_compiled_operator():
    operator = Linear(jnp.asarray(LARGE))
    f = xcs.jit(operator)
    x = jax.random.normal(jax.random.key(0), (3, SIDE))
    f(x[0])
    np.testing.assert_allclose(jax.vmap(f)(x), x @ LARGE, rtol=1e-5, atol=1e-5)


def test_grad_of_a_compiled_operator():
    f = xcs.jit(Linear(jnp.asarray(LARGE)))
    f(jnp.ones(SIDE))
    found = jax.grad(lambda x: f(x).sum())(jnp.ones(SIDE))
    np.testing.assert_allclose(found, LARGE.sum(1), rtol=1e-5, atol=1e-5)


def test_grad_with_respect_to_the_weight_of_a_compiled_operator():
    def loss(operator):
        return xcs.jit(operator)(jnp.ones(SIDE)).sum()

    found = jax.grad(loss)(Linear(jnp.asarray(LARGE)))
    np.testing.assert_allclose(found.weight, np.ones_like(LARGE))


def test_a_small_constant_stays_in_the_program():
    f = xcs.jit(Linear(jnp.ones((SIDE, 2))))
    assert arguments(f.lower(jnp.ones(SIDE)).as_text()) == [f"tensor<{SIDE}xf32>"]


def test_the_function_is_traced_once_for_each_shape():
    traced = []

    class Noted(Linear):
        def forward(self, x):
            traced.append(x.shape)
            return super().forward(x)

    f = xcs.jit.trace(Noted(jnp.asarray(LARGE)))
    for rows in (2, 2, 3, 2):
        f(jnp.ones((rows, SIDE)))
    assert traced == [(2, SIDE), (3, SIDE)]


def test_static_and_donated_arguments_stay_what_they_are():
    weight = jnp.asarray(LARGE)

    def f(x, times, y):
        return (x @ weight) * times + y

    compiled = xcs.jit(f, static_argnames="times", donate_argnums=0)
    x = jnp.ones(SIDE)
    np.testing.assert_allclose(compiled(x, 3, y=1.0), np.ones(SIDE) @ LARGE * 3 + 1, atol=1e-3)
    assert x.is_deleted()
    assert not weight.is_deleted()


def test_an_array_that_is_changed_later_does_not_change_the_program():
    table = LARGE.copy()
    f = xcs.jit(lambda x: x @ jnp.asarray(table))
    before = np.asarray(f(jnp.ones(SIDE)))
    table[:] = 0
    np.testing.assert_array_equal(f(jnp.ones(SIDE)), before)


def test_an_array_that_is_bound_to_a_device_meets_inputs_on_another():
    first, second = jax.devices()[:2]
    f = xcs.jit(Linear(jax.device_put(LARGE, second)))
    found = f(jax.device_put(jnp.ones(SIDE), first))
    np.testing.assert_allclose(found, np.ones(SIDE) @ LARGE, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_the_weight_of_a_region_is_an_argument(mode):
    operator = Linear(jnp.asarray(LARGE))

    @xcs.host
    def total(x) -> float:
        return float(np.sum(x))

    f = getattr(xcs.jit, mode)(lambda x: total(operator(x)))
    x = jnp.linspace(0, 1, SIDE)
    np.testing.assert_allclose(f(x), np.sum(x @ LARGE), rtol=1e-4, atol=1e-4)
    text = region_of(f.graph(x)).lower(x).as_text()
    assert large_constants(text) == []
    assert arguments(text) == [f"tensor<{SIDE}x{SIDE}xf32>", f"tensor<{SIDE}xf32>"]


def test_a_region_with_a_large_weight_is_warmed_for_its_calls():
    operator = Linear(jnp.asarray(LARGE))

    @xcs.host
    def half(x: float) -> float:
        return x / 2

    f = xcs.jit.trace(lambda x: operator(jnp.full(SIDE, half(x))).sum())
    f.lower(1.0).compile()
    np.testing.assert_allclose(f(1.0), LARGE.sum() / 2, rtol=1e-3, atol=1e-3)


def test_constants_that_are_no_arrays_and_a_large_weight_in_one_region():
    weight = jnp.asarray(LARGE)

    @xcs.host
    def named(x):
        return {"name": "first", "x": np.full(SIDE, x, np.float32)}

    @xcs.pure
    def scaled(record):
        return {"name": record["name"], "x": record["x"] @ weight}

    graph = xcs.XCSGraph()
    made = graph.add_node(named, "made")
    graph.connect(graph.input("x"), made.inputs["x"])
    last = graph.add_node(scaled, "last")
    graph.connect(made, last.inputs["record"])
    graph.set_outputs(result=last)
    (result,) = xcs.execute_graph(graph, {"x": 2.0}).values()
    assert result["name"] == "first"
    np.testing.assert_allclose(result["x"], np.full(SIDE, 2) @ LARGE, rtol=1e-4, atol=1e-4)
    assert region_of(graph).python_calls == 0
