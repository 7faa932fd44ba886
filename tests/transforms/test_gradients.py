"""``grad`` and ``value_and_grad``: ``jax.grad`` is the oracle, with host calls as constants."""

import asyncio

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ember_xcs as xcs
from tests.counting import Calls

VECTOR = jnp.array([1.0, 2.0, 3.0])
MATRIX = jnp.arange(1.0, 7.0).reshape(2, 3)


@xcs.host
def rating(x) -> float:
    return 2.0


@xcs.host
def length(text: str) -> float:
    return float(len(text))


@xcs.host(vjp=lambda arguments, result, cotangent: {"x": 2 * arguments["x"] * cotangent})
def square(x: float) -> float:
    return x * x


def rated(x):
    return rating(x) * jnp.sum(x * x)


def rated_in_jax(x):
    return 2.0 * jnp.sum(x * x)


def assert_close(ours, expected):
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), ours, expected)


# Numeric functions


@pytest.mark.parametrize("transformation", ["grad", "value_and_grad"])
@pytest.mark.parametrize(
    ("function", "args", "settings"),
    [
        (lambda x: jnp.sum(x**3), (MATRIX,), {}),
        (lambda x, y: jnp.sum(x * y), (VECTOR, 2.0), {"argnums": (0, 1)}),
        (lambda x, y: jnp.sum(x * y), (VECTOR, 2.0), {"argnums": [1]}),
        (lambda x, y: jnp.sum(x * y), (VECTOR, 2.0), {"argnums": -1}),
        (lambda t: jnp.sum(t["a"]) * t["b"][0], ({"a": VECTOR, "b": (2.0,)},), {}),
        (lambda x: (jnp.sum(x), {"kept": x * 2}), (VECTOR,), {"has_aux": True}),
        (lambda x: x * x, (2.0 + 1j,), {"holomorphic": True}),
        (lambda x: 2.0, (3.0,), {}),
        (lambda x: jnp.sum(jax.lax.stop_gradient(x)), (VECTOR,), {}),
    ],
)
def test_as_jax(transformation, function, args, settings):
    ours = getattr(xcs, transformation)(function, **settings)(*args)
    assert_close(ours, getattr(jax, transformation)(function, **settings)(*args))


def test_integers_where_they_are_allowed():
    def function(n, x):
        return n * x

    ours = xcs.grad(function, argnums=(0, 1), allow_int=True)(3, 2.0)
    expected = jax.grad(function, argnums=(0, 1), allow_int=True)(3, 2.0)
    assert ours[0].dtype == expected[0].dtype == jax.dtypes.float0
    assert ours[1] == expected[1]


@pytest.mark.parametrize(
    ("args", "settings"),
    [((2, 1.0), {}), ((VECTOR, 1.0), {}), ((2.0, 3.0), {"argnums": 3})],
    ids=["an integer", "a vector", "argnums"],
)
@pytest.mark.parametrize("factor", [lambda x: 2.0, rating], ids=["numeric", "mixed"])
def test_misuse_is_the_error_of_jax(args, settings, factor):
    with pytest.raises(TypeError) as expected:
        jax.grad(lambda x, y: x * y * 2.0, **settings)(*args)
    with pytest.raises(TypeError) as ours:
        xcs.grad(lambda x, y: x * y * factor(x), **settings)(*args)
    assert str(ours.value).split("\n")[0] == str(expected.value).split("\n")[0]


def test_second_derivatives():
    assert xcs.grad(xcs.grad(lambda x: x**3))(2.0) == 12.0
    assert xcs.grad(xcs.grad(lambda x: rating(x) * x**3))(2.0) == 24.0


# Through host calls


def test_a_host_call_is_a_constant():
    assert_close(xcs.grad(rated)(VECTOR), jax.grad(rated_in_jax)(VECTOR))


def test_the_value_comes_with_the_gradient_and_the_call_is_made_once():
    calls = Calls()

    @calls.host
    def counted(x) -> float:
        return 2.0

    ours = xcs.value_and_grad(lambda x: counted(x) * jnp.sum(x * x))(VECTOR)
    assert_close(ours, jax.value_and_grad(rated_in_jax)(VECTOR))
    assert len(calls) == 1


def test_a_declared_vjp_is_used():
    assert xcs.grad(square)(3.0) == 6.0
    assert xcs.grad(lambda x: square(x) * x)(3.0) == 27.0
    assert xcs.grad(lambda x: square(square(x)))(2.0) == 32.0


def test_text_beside_the_numbers():
    def function(text, x):
        return length(text) * x * x

    assert xcs.grad(function, argnums=1)("abc", 2.0) == 12.0
    assert xcs.grad(lambda x, text: function(text, x))(2.0, text="abc") == 12.0


def test_host_values_beside_the_result():
    @xcs.host
    def note(x) -> str:
        return f"noted {x.shape}"

    gradient, aux = xcs.grad(lambda x: (rated(x), (note(x), "text")), has_aux=True)(VECTOR)
    assert_close(gradient, jax.grad(rated_in_jax)(VECTOR))
    assert aux == ("noted (3,)", "text")


def test_with_respect_to_the_weights_of_an_operator():
    class Scorer(xcs.Operator):
        weights: jax.Array
        judge: xcs.HostOperator

        def forward(self, x):
            return jnp.sum(self.weights * x) * self.judge(x)

    scorer = Scorer(VECTOR, rating)
    gradient = xcs.grad(lambda scorer, x: scorer(x))(scorer, MATRIX[1])
    assert isinstance(gradient, Scorer)
    assert_close(gradient.weights, 2.0 * MATRIX[1])
    assert_close(xcs.grad(scorer)(MATRIX[1]), 2.0 * VECTOR)


def test_through_a_scan_with_host_calls():
    def function(x):
        return xcs.scan(lambda c, _: (c * rating(c), None), x, length=3)[0]

    assert xcs.grad(function)(1.0) == 8.0


def test_descent_by_gradients_through_host_calls():
    def loss(x):
        return jnp.sum((x - 1.0) ** 2) * rating(x)

    x, step = jnp.zeros(2), xcs.jit(xcs.grad(loss))
    for _ in range(20):
        x = x - 0.2 * step(x)
    np.testing.assert_allclose(x, 1.0, atol=1e-3)


# Gradients that host calls cut


@pytest.mark.parametrize(
    "function",
    [
        rating,
        lambda x: rating(x) * 2.0,
        lambda x: rating(jnp.sin(x)) + rating(x) * rating(x),
        xcs.jit(lambda x: rating(x) * 2.0),
        lambda x: jax.jit(lambda y: y * 3.0)(rating(x)),
    ],
)
@pytest.mark.parametrize("transformation", [xcs.grad, xcs.value_and_grad])
def test_a_gradient_that_is_cut_everywhere_names_the_calls(function, transformation):
    with pytest.raises(
        xcs.TransformError, match="with respect to x is cut by host calls: 'rating'"
    ):
        transformation(function)(3.0)


def test_the_message_says_what_to_do():
    with pytest.raises(xcs.TransformError, match=r"Declare one \(vjp= of @xcs.host"):
        xcs.grad(rating)(3.0)


def test_only_calls_on_the_way_without_a_derivative_are_named():
    @xcs.host
    def elsewhere(x) -> float:
        return 1.0

    def function(x, y):
        elsewhere(x)
        return rating(square(x)) * elsewhere(y)

    with pytest.raises(xcs.TransformError, match=r"cut by host calls: 'rating'\."):
        xcs.grad(function)(3.0, 4.0)


def test_nothing_is_called_before_it_is_refused():
    calls = Calls()

    @calls.host
    def counted(x) -> float:
        return 2.0

    with pytest.raises(xcs.TransformError, match="cut by host calls"):
        xcs.grad(counted)(3.0)
    assert len(calls) == 0


def test_a_result_that_depends_on_nothing_has_a_gradient_of_zero():
    assert xcs.grad(lambda x, text: length(text))(3.0, "abc") == 0.0


def test_a_gradient_that_is_cut_in_part_is_that_of_the_rest():
    gradients = xcs.grad(lambda x, y: rating(x) * y, argnums=(0, 1))(3.0, 4.0)
    assert gradients == (0.0, 2.0)


def test_a_cut_under_vmap_is_refused_as_well():
    with pytest.raises(xcs.TransformError, match="cut by host calls: 'rating'"):
        xcs.vmap(xcs.grad(rating))(VECTOR)


# What has no gradient


def test_with_respect_to_text():
    with pytest.raises(xcs.TransformError, match=r"with respect to text, which is str\[3\]"):
        xcs.grad(lambda text, x: length(text) * x)("abc", 2.0)


def test_of_a_host_value():
    with pytest.raises(xcs.TransformError, match=r"returned a host value.*-> float"):
        xcs.grad(xcs.host(lambda x: 1.0))(2.0)


def test_of_what_cannot_be_staged():
    def function(x):
        return x if rating(x) > 1 else 2 * x

    with pytest.raises(xcs.TransformError, match="needs the function staged"):
        xcs.grad(function)(2.0)


def test_of_an_async_function():
    async def function(x):
        return x

    with pytest.raises(xcs.TracingError, match="`async def`"):
        xcs.grad(function)(2.0)


# Together with other transformations


@pytest.mark.parametrize("around", [xcs.vmap, xcs.pmap, lambda f: xcs.jit(xcs.vmap(f))])
@pytest.mark.parametrize(
    ("function", "in_jax"), [(rated, rated_in_jax), (rated_in_jax, rated_in_jax)]
)
def test_gradients_of_a_batch(around, function, in_jax):
    assert_close(around(xcs.grad(function))(MATRIX), jax.vmap(jax.grad(in_jax))(MATRIX))


@pytest.mark.parametrize("within", [xcs.vmap, xcs.pmap, lambda f: xcs.jit(xcs.vmap(f))])
@pytest.mark.parametrize(
    ("function", "in_jax"), [(rated, rated_in_jax), (rated_in_jax, rated_in_jax)]
)
def test_the_gradient_of_a_batch(within, function, in_jax):
    ours = xcs.grad(lambda x: jnp.sum(within(function)(x)))(MATRIX)
    assert_close(ours, jax.grad(lambda x: jnp.sum(jax.vmap(in_jax)(x)))(MATRIX))


@pytest.mark.parametrize("around", [jax.jit, jax.vmap, lambda f: jax.jit(jax.vmap(f))])
def test_numeric_gradients_inside_transformations_of_jax(around):
    x = VECTOR if around is jax.jit else MATRIX
    assert_close(around(xcs.grad(rated_in_jax))(x), around(jax.grad(rated_in_jax))(x))


def test_vjps_under_vmap():
    assert_close(xcs.vmap(xcs.grad(square))(VECTOR), 2 * VECTOR)


@pytest.mark.parametrize("function", [rated, rated_in_jax])
def test_acall(function):
    result = asyncio.run(xcs.grad(function).acall(VECTOR))
    assert_close(result, jax.grad(rated_in_jax)(VECTOR))


def test_explain():
    assert xcs.grad(rated).explain(VECTOR).strategy == "trace"
    assert xcs.grad(rated_in_jax).explain(VECTOR).strategy == "jax.grad"


def test_as_decorators_with_settings():
    @xcs.grad(argnums=1)
    def slope(x, y):
        return x * y

    @xcs.value_and_grad(has_aux=True)
    def both(x):
        return x * x, "aux"

    assert slope(2.0, 3.0) == 2.0
    assert both(3.0) == ((9.0, "aux"), 6.0)
