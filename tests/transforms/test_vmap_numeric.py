"""``vmap`` of numeric functions: ``jax.vmap`` is the oracle."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ember_xcs as xcs

MATRIX = jnp.arange(6.0).reshape(2, 3)
CUBE = jnp.arange(24.0).reshape(2, 3, 4)


def assert_same(ours, expected):
    """The same tree, with equal leaves of the same dtype."""
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    for mine, theirs in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        assert jnp.result_type(mine) == jnp.result_type(theirs)
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)


def scaled(tree, factor):
    return {"sum": tree["x"] * factor + tree["y"][0], "same": tree["y"][1] * 2.0}


@pytest.mark.parametrize(
    ("function", "args", "settings"),
    [
        (jnp.sum, (MATRIX,), {}),
        (jnp.sum, (MATRIX,), {"in_axes": 1}),
        (jnp.sum, (MATRIX,), {"in_axes": -1}),
        (jnp.dot, (MATRIX, MATRIX[0]), {"in_axes": (0, None)}),
        (jnp.dot, (MATRIX, MATRIX[0]), {"in_axes": [0, None]}),
        (lambda x, y: x + y, (MATRIX, 2.0), {"in_axes": (0, None)}),
        (lambda x: x * 2, (CUBE,), {"in_axes": 2, "out_axes": 1}),
        (lambda x: x * 2, (CUBE,), {"out_axes": -1}),
        (lambda x: (x, {"k": x.T}), (CUBE,), {"out_axes": (1, {"k": 2})}),
        (lambda x: (x, {"k": x.T}), (CUBE,), {"out_axes": (1, 0)}),
        (lambda x, y: (x, y), (MATRIX, 3.0), {"in_axes": (0, None), "out_axes": (0, None)}),
        (
            scaled,
            ({"x": MATRIX, "y": (MATRIX.T, 5.0)}, 3.0),
            {"in_axes": ({"x": 0, "y": (1, None)}, None)},
        ),
        (scaled, ({"x": MATRIX, "y": (MATRIX, MATRIX)}, 3.0), {"in_axes": (0, None)}),
        (lambda xs: xs[0] + xs[1], ([MATRIX, MATRIX],), {}),
        (lambda x: x, (jnp.array([True, False]),), {}),
        (lambda x: x + 1, (np.arange(3),), {}),
        (lambda x: x, (MATRIX.astype(jnp.bfloat16),), {}),
        (lambda x: 1.0, (MATRIX,), {}),
        (lambda x: (x, None), (MATRIX,), {}),
    ],
)
def test_as_jax_vmap(function, args, settings):
    assert_same(xcs.vmap(function, **settings)(*args), jax.vmap(function, **settings)(*args))


@pytest.mark.parametrize("length", [0, 1])
@pytest.mark.parametrize("out_axes", [0, 1])
def test_short_batches(length, out_axes):
    batch = jnp.ones((length, 3))
    ours = xcs.vmap(lambda x: (x * 2, jnp.sum(x)[None]), out_axes=out_axes)(batch)
    assert_same(ours, jax.vmap(lambda x: (x * 2, jnp.sum(x)[None]), out_axes=out_axes)(batch))


def test_keyword_arguments_are_mapped():
    def function(x, y=1.0):
        return x - y

    expected = jax.vmap(function)(MATRIX, y=MATRIX[::-1])
    assert_same(xcs.vmap(function)(MATRIX, y=MATRIX[::-1]), expected)


@pytest.mark.parametrize("collective", ["psum", "pmean", "pmax", "all_gather"])
def test_collectives_over_a_named_axis(collective):
    def function(x):
        return x - getattr(jax.lax, collective)(x, "batch")

    expected = jax.vmap(function, axis_name="batch")(MATRIX)
    assert_same(xcs.vmap(function, axis_name="batch")(MATRIX), expected)


def test_an_index_along_a_named_axis():
    def function(x):
        return x + jax.lax.axis_index("batch")

    expected = jax.vmap(function, axis_name="batch")(MATRIX)
    assert_same(xcs.vmap(function, axis_name="batch")(MATRIX), expected)


def test_collectives_over_two_nested_axes():
    def function(x):
        return jax.lax.psum(x, ("rows", "columns")) + jax.lax.pmax(x, "columns")

    def nested(vmap):
        return vmap(vmap(function, axis_name="columns"), axis_name="rows")

    assert_same(nested(xcs.vmap)(MATRIX), nested(jax.vmap)(MATRIX))


def test_the_size_of_the_axis_where_no_argument_has_it():
    assert_same(xcs.vmap(lambda: 1.0, axis_size=3)(), jax.vmap(lambda: 1.0, axis_size=3)())
    ours = xcs.vmap(lambda x: x, in_axes=None, axis_size=2)(MATRIX)
    assert_same(ours, jax.vmap(lambda x: x, in_axes=None, axis_size=2)(MATRIX))


def test_spmd_axis_name_shards_the_batch():
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("devices",))
    constraint = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def function(x):
        return jax.lax.with_sharding_constraint(x * 2, constraint)

    batch = jnp.arange(16.0).reshape(8, 2)
    ours = xcs.vmap(function, spmd_axis_name="devices")
    result = jax.jit(ours)(batch)
    np.testing.assert_array_equal(result, batch * 2)
    assert result.sharding.shard_shape(result.shape) == (1, 2)


def test_random_keys():
    keys = jax.random.split(jax.random.key(0), 3)
    assert_same(xcs.vmap(jax.random.normal)(keys), jax.vmap(jax.random.normal)(keys))


def test_a_batch_of_random_keys_as_result():
    keys = jax.random.split(jax.random.key(0), 3)
    ours = xcs.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
    expected = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
    np.testing.assert_array_equal(jax.random.key_data(ours), jax.random.key_data(expected))


@pytest.mark.parametrize(
    "numbers", [[1, 2, 3], [1.0, 2, 3], [True, False], [[1, 2], [3, 4]], [np.float32(1), 2]]
)
def test_a_list_of_numbers_is_an_array(numbers):
    expected = jax.vmap(lambda x: x * 2)(jnp.array(numbers))
    assert_same(xcs.vmap(lambda x: x * 2)(numbers), expected)


def test_integers_that_jax_cannot_hold_stay_what_they_are():
    assert xcs.vmap(lambda x: x + 1)([2**40, 1]) == [2**40 + 1, 2]


def test_axes_by_name():
    ours = xcs.vmap(lambda x, y: x + y, in_axes={"y": None})(MATRIX, MATRIX[0])
    assert_same(ours, MATRIX + MATRIX[0])


def test_as_a_decorator_with_settings():
    @xcs.vmap(in_axes=(0, None), out_axes=1)
    def add(x, y):
        return x + y

    assert_same(add(MATRIX, 1.0), (MATRIX + 1.0).T)


def test_a_method_is_mapped_over_its_own_arguments():
    class Scale:
        factor = 3.0

        @xcs.vmap(in_axes=(None, 0))
        def __call__(self, x):
            return self.factor * x

    # JAX takes no object for `self`, so the elements are called one by one.
    assert_same(Scale.__call__(Scale(), MATRIX), MATRIX * 3.0)


def test_a_partial_function():
    assert_same(xcs.vmap(functools.partial(jnp.add, 1.0))(MATRIX), MATRIX + 1.0)


def test_a_pure_operator_and_its_weights():
    class Scale(xcs.Operator):
        weight: jax.Array

        def forward(self, x):
            return self.weight * x

    scale = Scale(jnp.array([1.0, 2.0, 3.0]))
    assert_same(xcs.vmap(scale)(MATRIX), jax.vmap(lambda x: scale.weight * x)(MATRIX))
    ours = xcs.vmap(lambda op, x: op(x))(Scale(MATRIX), MATRIX)
    assert_same(ours, MATRIX * MATRIX)


@pytest.mark.parametrize("around", [jax.jit, jax.vmap, lambda f: jax.grad(lambda x: f(x).sum())])
def test_inside_transformations_of_jax(around):
    batch = CUBE if around is jax.vmap else MATRIX
    ours = around(xcs.vmap(lambda x: jnp.sin(x) * x))(batch)
    assert_same(ours, around(jax.vmap(lambda x: jnp.sin(x) * x))(batch))


def test_the_users_own_errors_pass():
    def fails(x):
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        xcs.vmap(fails)(MATRIX)


def test_control_flow_on_values_is_an_error_of_jax():
    with pytest.raises(jax.errors.TracerBoolConversionError):
        xcs.vmap(lambda x: x if x > 0 else -x)(MATRIX[0])


def test_the_function_is_called_once_for_the_batch():
    shapes = []

    def function(x):
        shapes.append(x.shape)
        return x

    xcs.vmap(function)(MATRIX)
    assert shapes == [(3,)]


def test_it_keeps_the_name_and_the_documentation():
    def function(x):
        """Doubles."""
        return x * 2

    mapped = xcs.vmap(function)
    assert (mapped.__name__, mapped.__doc__) == ("function", "Doubles.")
    assert mapped.__wrapped__ is function
    assert repr(mapped) == "xcs.vmap(function)"


def test_it_says_that_jax_runs_it():
    assert xcs.vmap(jnp.sin).explain(MATRIX).strategy == "jax.vmap"
