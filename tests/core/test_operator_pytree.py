"""Operators as JAX pytrees: what is a leaf, what is structure, and when JAX compiles again."""

import copy
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ember_xcs._core.layout import same_value
from ember_xcs._core.operator import Operator


class Holder(Operator):
    content: Any
    label: Any = "x"

    def forward(self, x):
        return x


class Linear(Operator):
    weights: jax.Array
    activation: Any = None

    def forward(self, x):
        y = x @ self.weights
        return y if self.activation is None else self.activation(y)


class Point(NamedTuple):
    x: Any
    y: Any


ARRAYS = st.builds(lambda n: np.arange(float(n)), st.integers(0, 3))
STATIC = st.one_of(
    st.text(max_size=3), st.integers(), st.booleans(), st.none(), st.binary(max_size=2)
)
FIELDS = st.recursive(
    st.one_of(ARRAYS, STATIC),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=2), inner, max_size=3),
        st.builds(Point, inner, inner),
        st.builds(Holder, inner),
    ),
    max_leaves=8,
)


def same(one, other):
    if isinstance(one, Operator):
        return type(one) is type(other) and same(one.content, other.content)
    if isinstance(one, np.ndarray):
        return one is other
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(v, other[k]) for k, v in one.items())
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return one == other


@given(FIELDS)
def test_flatten_and_unflatten_give_the_same_operator(content):
    operator = Holder(content)
    leaves, structure = jax.tree.flatten(operator)
    again = structure.unflatten(leaves)
    assert same(operator, again)
    assert jax.tree.structure(again) == structure
    assert hash(jax.tree.structure(again)) == hash(structure)


@given(FIELDS)
def test_leaves_are_the_arrays_and_nothing_else(content):
    leaves = jax.tree.leaves(Holder(content))
    assert all(isinstance(leaf, np.ndarray) for leaf in leaves)


@given(FIELDS)
@pytest.mark.parametrize("to", [lambda a: a.size, str, lambda a: object])
def test_the_structure_stays_when_leaves_become_something_else(to, content):
    operator = Holder(content)
    leaves, structure = jax.tree.flatten(operator)
    mapped = jax.tree.map(to, operator)
    assert jax.tree.structure(mapped) == structure
    assert jax.tree.leaves(mapped) == [to(leaf) for leaf in leaves]


@given(FIELDS)
@pytest.mark.parametrize("to", [lambda a: a.shape, lambda a: None, lambda a: {"a": 1}])
def test_leaves_may_become_trees(to, content):
    operator = Holder(content)
    leaves, structure = jax.tree.flatten(operator)
    mapped = jax.tree.map(to, operator)
    assert structure.flatten_up_to(mapped) == [to(leaf) for leaf in leaves]


def test_a_tree_of_nothing_has_the_structure_of_none_leaves():
    mapped = jax.tree.map(lambda _: None, Linear(jnp.ones(2)))
    assert mapped.weights is None
    structure = jax.tree.structure(Linear(jnp.ones(2)))
    assert structure == jax.tree.structure(mapped, is_leaf=lambda v: v is None)


def test_trees_map_over_several_operators_together():
    total = jax.tree.map(jnp.add, Linear(jnp.ones(2)), Linear(jnp.ones(2)))
    assert total.weights.tolist() == [2.0, 2.0]


def test_containers_may_mix_arrays_and_text():
    operator = Holder({"weights": [jnp.ones(2), "tanh"], "name": "first"})
    doubled = jax.tree.map(lambda a: 2 * a, operator)
    assert doubled.content["weights"][0].tolist() == [2.0, 2.0]
    assert (doubled.content["weights"][1], doubled.content["name"]) == ("tanh", "first")


def test_paths_of_leaves_read_like_attributes():
    operator = Holder({"a": Linear(jnp.ones(1))})
    (path, _), *_ = jax.tree_util.tree_leaves_with_path(operator)
    assert jax.tree_util.keystr(path) == ".content['a'].weights"


def test_flattening_in_init_does_not_fix_the_layout():
    class Counting(Operator):
        def __init__(self):
            self.first = jnp.ones(1)
            self.count = len(jax.tree.leaves(self))
            self.second = jnp.ones(1)

        def forward(self):
            return None

    assert Counting().count == 1
    assert len(jax.tree.leaves(Counting())) == 2


def test_replacing_an_array_by_nothing_makes_another_structure():
    operator = Linear(jnp.ones(2))
    assert jax.tree.leaves(operator.replace(weights=None)) == []
    assert len(jax.tree.leaves(operator)) == 1


def compilations(operators):
    """How often JAX traces a function that is called with each of these in turn."""
    count = []

    @jax.jit
    def run(operator, x):
        count.append(1)
        return operator(x)

    for operator in operators:
        run(operator, jnp.ones(2))
    return len(count)


def test_equal_static_fields_share_a_compiled_program():
    assert (
        compilations([Linear(jnp.ones((2, k)) + i, jnp.tanh) for i in range(3) for k in [2]]) == 1
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (jnp.tanh, jnp.sin),
        (1, 2),
        (1, 1.0),
        (1, True),
        ((1, 2), (1.0, 2.0)),
        ([1], [True]),
        ({"a": 1}, {"a": 1.0}),
        (0.0, -0.0),
        ("a", b"a"),
        (None, 0),
    ],
)
def test_different_static_fields_do_not(one, other):
    assert compilations([Holder(jnp.ones(1), one), Holder(jnp.ones(1), other)]) == 2


@pytest.mark.parametrize("value", [[1, "a"], {"k": [1.5]}, (1, (2,)), "text", None, {1, 2}])
def test_equal_static_containers_do(value):
    twin = copy.deepcopy(value)
    assert compilations([Holder(jnp.ones(1), value), Holder(jnp.ones(1), twin)]) == 1


def test_a_static_value_decides_the_dtype_of_the_result():
    run = jax.jit(lambda operator, x: x * operator.label[0])
    assert run(Holder(jnp.ones(1), (2,)), 3).dtype == jnp.int32
    assert run(Holder(jnp.ones(1), (2.0,)), 3).dtype == jnp.float32


def test_values_that_refuse_to_be_compared_are_different():
    class Odd:
        def __eq__(self, other):
            raise TypeError("no")

        __hash__ = None

    odd = Odd()
    assert same_value(odd, odd)
    assert not same_value(odd, Odd())
    assert compilations([Holder(jnp.ones(1), odd), Holder(jnp.ones(1), odd)]) == 1


def test_gradients_with_respect_to_an_operator_are_an_operator():
    operator = Linear(jnp.ones((2, 1)), jnp.tanh)
    gradients = jax.grad(lambda op, x: op(x).sum())(operator, jnp.ones(2))
    expected = jax.grad(lambda w, x: jnp.tanh(x @ w).sum())(operator.weights, jnp.ones(2))
    assert isinstance(gradients, Linear)
    assert jnp.allclose(gradients.weights, expected)


def test_optax_trains_an_operator():
    operator = Linear(jnp.zeros((2, 1)))
    optimizer = optax.adam(0.1)
    state = optimizer.init(operator)
    x, y = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[1.0], [2.0]])

    @jax.jit
    def step(operator, state):
        loss, gradients = jax.value_and_grad(lambda op: jnp.mean((op(x) - y) ** 2))(operator)
        updates, state = optimizer.update(gradients, state, operator)
        return optax.apply_updates(operator, updates), state, loss

    losses = []
    for _ in range(30):
        operator, state, loss = step(operator, state)
        losses.append(float(loss))
    assert losses[-1] < losses[0] / 10


def test_a_stack_of_operators_is_mapped_over():
    stack = jax.vmap(Linear)(jnp.arange(6.0).reshape(3, 2))
    results = jax.vmap(lambda op, x: op(x), in_axes=(0, None))(stack, jnp.ones(2))
    assert results.tolist() == [1, 5, 9]


def test_an_operator_is_carried_through_scan():
    def body(operator, _):
        return operator.replace(weights=operator.weights * 2), None

    final, _ = jax.lax.scan(body, Linear(jnp.ones(1)), length=3)
    assert final.weights.tolist() == [8.0]


def test_a_pure_operator_runs_under_its_name():
    text = (
        jax.jit(lambda op, x: op(x))
        .lower(Linear(jnp.ones(2)), jnp.ones(2))
        .as_text(debug_info=True)
    )
    assert "Linear" in text


SAME = [
    (np.array([2.0]), np.array([2]), False),
    (np.array([2.0]), np.array(2.0), False),
    (np.array([2.0]), np.array([2.0]), True),
    (np.float32(2), np.float32(2), True),
    (np.array([0.0]), np.array([-0.0]), False),
    (np.array([np.nan]), np.array([np.nan]), True),
    (np.array([1, 2]), np.array([1, 2]), True),
    (np.array(["a", None]), np.array(["a", None]), True),
    (np.array([1], object), np.array([1.0], object), False),
    (jnp.array([2.0]), jnp.array([2]), False),
    (jnp.array([2.0]), jnp.array([2.0]), True),
    (jax.random.key(1), jax.random.key(1), True),
    (jax.random.key(1), jax.random.key(2), False),
]


@pytest.mark.parametrize(("one", "other", "same"), SAME)
def test_arrays_are_interchangeable_if_shape_dtype_and_contents_are_the_same(one, other, same):
    assert same_value(one, other) is same
