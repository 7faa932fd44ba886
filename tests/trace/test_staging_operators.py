"""Operators whose arrays are arguments of staged functions, and the derivatives they declare."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import ember_xcs as xcs


class Scaled(xcs.HostOperator):
    weight: jax.Array

    def forward(self, x: float) -> float:
        return float(x * self.weight)


class Rerank(xcs.Operator):
    weights: jax.Array

    def forward(self, x):
        return x @ self.weights


class Pipeline(xcs.Operator):
    rerank: Rerank
    judge: Any

    def forward(self, x):
        return self.rerank(x) * self.judge(x[0])


@xcs.host
def plus_one(x: float) -> float:
    return x + 1


def test_the_arrays_of_a_host_operator_may_be_arguments():
    f = xcs.jit.trace(lambda op, x: op(x))
    assert float(f(Scaled(jnp.float32(3)), 2.0)) == 6.0
    assert float(f(Scaled(jnp.float32(4)), 2.0)) == 8.0


def test_a_batch_of_weights_is_a_batch_of_operators():
    f = xcs.jit.trace(jax.vmap(lambda op, x: op(x), in_axes=(0, None)))
    assert f(Scaled(jnp.arange(3.0)), 2.0).tolist() == [0.0, 2.0, 4.0]


def test_the_gradient_with_respect_to_an_operator_has_its_structure():
    pipeline = Pipeline(Rerank(jnp.ones(3)), plus_one)
    gradient = xcs.jit.trace(jax.grad(lambda op, x: op(x)))(pipeline, jnp.arange(3.0))
    assert type(gradient) is Pipeline
    assert gradient.rerank.weights.tolist() == [0.0, 1.0, 2.0]


def test_the_gradient_with_respect_to_the_arrays_of_a_host_operator_is_zero():
    loss = lambda op, x: op(x) * op.weight  # noqa: E731
    gradient = xcs.jit.trace(jax.grad(loss))(Scaled(jnp.float32(3)), 2.0)
    assert float(gradient.weight) == 6.0


def test_an_operator_is_trained():
    def loss(op, x):
        return (op(x) - 10.0) ** 2

    step = xcs.jit.trace(jax.grad(loss))
    pipeline, x = Pipeline(Rerank(jnp.zeros(2)), plus_one), jnp.array([1.0, 2.0])
    for _ in range(50):
        pipeline = jax.tree.map(lambda p, g: p - 0.02 * g, pipeline, step(pipeline, x))
    assert abs(float(pipeline(x)) - 10.0) < 1e-2


def with_rule(rule, **settings):
    @xcs.host(vjp=rule, **settings)
    def simulate(x: float, label: str = "") -> float:
        return x * x

    return simulate


def triple(inputs, output, cotangent):
    return {"x": 3 * cotangent}


def test_a_declared_rule_gives_the_gradient():
    simulate = with_rule(triple)
    assert float(xcs.jit.trace(simulate)(2.0)) == 4.0
    assert float(xcs.jit.trace(jax.grad(simulate))(2.0)) == 3.0


def test_a_declared_rule_sees_inputs_output_and_cotangent():
    def rule(inputs, output, cotangent):
        return {"x": cotangent * (inputs["x"] + output)}

    simulate = with_rule(rule)
    assert float(xcs.jit.trace(jax.grad(lambda x: 10 * simulate(x)))(2.0)) == 10 * (2.0 + 4.0)


def test_a_declared_rule_beside_a_host_value_that_has_no_gradient():
    simulate = with_rule(triple)
    assert float(xcs.jit.trace(jax.grad(simulate))(2.0, "label")) == 3.0


def test_a_declared_rule_is_batched_with_its_call():
    simulate = with_rule(triple)
    xs = jnp.arange(3.0)
    assert xcs.jit.trace(jax.vmap(jax.grad(simulate)))(xs).tolist() == [3.0] * 3
    f = jax.grad(lambda xs: jax.vmap(simulate)(xs).sum())
    assert xcs.jit.trace(f)(xs).tolist() == [3.0] * 3


def test_a_declared_rule_may_call_host_operators():
    @xcs.host
    def rate(label: str) -> float:
        return float(len(label))

    def rule(inputs, output, cotangent):
        return {"x": cotangent * rate(inputs["label"])}

    simulate = with_rule(rule)
    assert float(xcs.jit.trace(jax.grad(simulate))(2.0, "four")) == 4.0


def test_a_declared_rule_for_a_tree_of_arguments():
    def rule(inputs, output, cotangent):
        x = inputs["x"]
        return {"x": {"a": cotangent * x["b"], "b": cotangent * x["a"]}}

    @xcs.host(vjp=rule)
    def product(x: dict) -> float:
        return float(x["a"] * x["b"])

    gradient = xcs.jit.trace(jax.grad(product))({"a": 2.0, "b": 3.0})
    assert {k: float(v) for k, v in gradient.items()} == {"a": 3.0, "b": 2.0}


def test_a_declared_rule_is_a_method_of_an_operator_class():
    class Simulator(Scaled):
        def vjp(inputs, output, cotangent):
            return {"x": 5 * cotangent}

    f = jax.grad(lambda op, x: op(x) * op.weight, argnums=(0, 1))
    gradient, slope = xcs.jit.trace(f)(Simulator(jnp.float32(3)), 2.0)
    assert (float(gradient.weight), float(slope)) == (6.0, 15.0)


def test_a_declared_rule_that_leaves_a_parameter_out_gives_zero():
    simulate = with_rule(lambda inputs, output, cotangent: {})
    assert float(xcs.jit.trace(jax.grad(lambda x: simulate(x) + x))(2.0)) == 1.0


def test_a_declared_rule_may_return_a_number():
    simulate = with_rule(lambda inputs, output, cotangent: {"x": 7})
    assert float(xcs.jit.trace(jax.grad(simulate))(2.0)) == 7.0


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda i, o, c: c, "dict of cotangents by parameter"),
        (lambda i, o, c: {"y": c}, "dict of cotangents by parameter"),
        (lambda i, o, c: {"x": jnp.ones(3)}, r"float32\[3\] for 'x'"),
        (lambda i, o, c: {"x": {"part": c}}, r"x\['part'\]"),
        (lambda i, o, c: {"x": c * 1j}, r"complex64\[\] for 'x'"),
    ],
    ids=["no dict", "no parameter", "wrong shape", "wrong tree", "wrong dtype"],
)
def test_a_rule_that_returns_no_cotangents_is_an_error_that_names_the_operator(rule, message):
    simulate = with_rule(rule)
    with pytest.raises(xcs.TracingError, match=message) as raised:
        xcs.jit.trace(jax.grad(simulate))(2.0)
    assert "simulate" in str(raised.value)
