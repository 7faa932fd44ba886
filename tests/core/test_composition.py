"""Sequences, parallel operators and ensembles."""

import jax
import jax.numpy as jnp
import optax
import pytest

from ember_xcs._core.composition import Ensemble, Parallel, Sequential, Template
from ember_xcs._core.functions import host, pure
from ember_xcs._core.operator import Operator


class Linear(Operator):
    weights: jax.Array

    def forward(self, x):
        return x @ self.weights


@pure
def add(x, y=1):
    return x + y


@pure
def double(x):
    return x * 2


@host
def shout(text: str) -> str:
    return text.upper()


@host
def count(letters: str) -> int:
    return len(letters)


def test_each_operator_receives_the_result_before_it():
    assert Sequential(add, double)(3) == 8
    assert (add >> double)(3, y=5) == 16


def test_sequences_are_opened_up():
    assert (add >> double >> add).operators == (add, double, add)
    assert (add >> (double >> add)).operators == (add, double, add)
    assert Sequential(add, Sequential(double), add).operators == (add, double, add)


def test_a_subclass_of_sequential_stays_whole():
    class Step(Sequential):
        pass

    assert len(Sequential(Step(add, double), add).operators) == 2


def test_plain_functions_join_at_either_end():
    assert (len >> add)([1, 2]) == 3
    assert (add >> repr)(1) == "2"


def test_a_class_is_no_operator():
    with pytest.raises(TypeError, match="make an instance"):
        Sequential(add, Linear)


def test_a_sequence_has_the_inputs_of_its_first_and_the_outputs_of_its_last():
    signature = (add >> count).signature
    assert signature.names == ("x", "y")
    assert signature.returns is int


def test_parallel_operators_give_a_tuple():
    assert Parallel(add, double)(3) == (4, 6)
    assert Parallel(add, double).signature.outputs is None


def test_named_parallel_operators_give_a_dict_in_their_order():
    both = Parallel(second=add, first=double)
    assert list(both(3).items()) == [("second", 4), ("first", 6)]
    assert both.signature.outputs == ("second", "first")
    mapped = jax.tree.map(lambda a: a, both)
    assert list(mapped(3)) == ["second", "first"]


def test_parallel_operators_receive_arguments_by_name():
    assert Parallel(add, add)(x=3, y=4) == (7, 7)


def test_fields_with_other_names_are_fed_by_position():
    assert Parallel(shout, count)(text="abc") == ("ABC", 3)


@pytest.mark.parametrize("name", ["self", "operators", "names"])
def test_parallel_operators_may_have_any_name(name):
    assert Parallel(**{name: add})(1) == {name: 2}


def test_an_ensemble_is_a_list_of_separate_samples():
    calls = []
    sample = host(lambda text: calls.append(text) or len(calls))
    assert Ensemble(sample, 3)("a") == [1, 2, 3]


@pytest.mark.parametrize("composition", [Sequential, Parallel])
def test_a_composition_of_nothing_is_an_error(composition):
    with pytest.raises(TypeError, match=f"{composition.__name__}\\(\\) has no operators"):
        composition()


def test_parallel_operators_are_named_or_not():
    with pytest.raises(TypeError, match=r"1 operator.* by position and b by name"):
        Parallel(add, b=add)


@pytest.mark.parametrize(("n", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError)])
def test_an_ensemble_needs_a_sample(n, error):
    with pytest.raises(error, match="Ensemble"):
        Ensemble(add, n)


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        (add >> double, "pure"),
        (add >> shout, "composite"),
        (Parallel(a=add, b=double), "pure"),
        (Parallel(a=add, b=shout), "composite"),
        (Ensemble(add, 2), "pure"),
        (Ensemble(shout, 2), "composite"),
        (Sequential(Template("{x}")), "composite"),
        (Parallel(add, Ensemble(add >> shout, 2)), "composite"),
    ],
)
def test_the_kind_follows_from_the_operators(operator, kind):
    assert operator.kind == kind


def test_gradients_reach_the_weights_of_a_sequence():
    first, second = jnp.ones((2, 3)), jnp.ones((3, 1))
    x = jnp.arange(2.0)
    gradients = jax.grad(lambda op: op(x).sum())(Linear(first) >> pure(jnp.tanh) >> Linear(second))
    expected = jax.grad(lambda w, v: (jnp.tanh(x @ w) @ v).sum(), argnums=(0, 1))(first, second)
    assert jnp.allclose(gradients.operators[0].weights, expected[0])
    assert jnp.allclose(gradients.operators[2].weights, expected[1])


def test_optax_trains_a_composition():
    model = Linear(jnp.full((2, 3), 0.1)) >> Parallel(a=Linear(jnp.ones((3, 1))), b=double)
    optimizer = optax.sgd(0.1)

    def loss(model):
        return jnp.sum(model(jnp.ones(2))["a"] ** 2)

    gradients = jax.grad(loss)(model)
    updates, _ = optimizer.update(gradients, optimizer.init(model), model)
    assert loss(optax.apply_updates(model, updates)) < loss(model)


@pytest.mark.parametrize(
    "model",
    [
        Linear(jnp.ones((2, 2))) >> double,
        Parallel(Linear(jnp.ones((2, 2))), double),
        Parallel(a=Linear(jnp.ones((2, 2)))),
        Ensemble(Linear(jnp.ones((2, 2))), 2),
    ],
)
def test_compositions_are_trees_whose_leaves_are_the_weights(model):
    assert [leaf.shape for leaf in jax.tree.leaves(model)] == [(2, 2)]
    assert jax.tree.structure(jax.tree.map(jnp.zeros_like, model)) == jax.tree.structure(model)
    x = jnp.arange(2.0)
    plain, staged = model(x), jax.jit(lambda m, x: m(x))(model, x)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, plain, staged))
    batched = jax.vmap(model)(jnp.stack([x, x]))
    assert jax.tree.all(jax.tree.map(lambda p, b: jnp.array_equal(p, b[1]), plain, batched))


def test_parallel_texts_fill_a_template_by_name():
    prompt = Parallel(q=shout, n=count) >> Template("{q} has {n}")
    assert prompt("abc") == "ABC has 3"
