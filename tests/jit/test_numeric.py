"""A numeric function under ``jit`` is that function under ``jax.jit``, bit for bit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ember_xcs as xcs

UNARY = {
    "sin": jnp.sin, "exp": lambda x: jnp.exp(-x * x), "neg": lambda x: -x, "sum": jnp.sum,
    "mean": jnp.mean, "cumsum": jnp.cumsum, "sort": lambda x: jnp.sort(jnp.ravel(x)),
    "argmax": jnp.argmax, "transpose": jnp.transpose, "bool": lambda x: x > 0,
    "int": lambda x: (x * 3).astype(jnp.int32), "bfloat16": lambda x: x.astype(jnp.bfloat16),
    "scan": lambda x: jax.lax.scan(lambda c, v: (c + v, c * v), 0.0, jnp.ravel(x) * 1.0)[1],
    "cond": lambda x: jax.lax.cond(jnp.sum(x) > 0, jnp.sin, jnp.cos, x * 1.0),
    "while": lambda x: jax.lax.while_loop(lambda c: c.sum() < 10, lambda c: c + 1, abs(x * 1.0)),
    "vmap": jax.vmap(lambda v: v * 2),
    "grad": lambda x: jax.grad(lambda v: jnp.sum(jnp.tanh(v)))(x * 1.0),
}  # fmt: skip
BINARY = {
    "add": jnp.add, "multiply": jnp.multiply, "maximum": jnp.maximum, "where": lambda a, b:
    jnp.where(a > b, a, b), "divide": lambda a, b: a / (jnp.abs(b) + 1), "subtract": jnp.subtract,
}  # fmt: skip

PROGRAMS = st.recursive(
    st.integers(0, 2),
    lambda inner: (
        st.tuples(st.sampled_from(sorted(UNARY)), inner)
        | st.tuples(st.sampled_from(sorted(BINARY)), inner, inner)
    ),
    max_leaves=5,
)
NUMBERS = st.floats(-4, 4, width=32)
ARRAYS = st.builds(
    lambda values, dtype, rank: np.array(values, dtype).reshape((2,) * rank),
    st.lists(NUMBERS, min_size=4, max_size=4), st.sampled_from(["float32", "int32", "float16"]),
    st.just(2),
)  # fmt: skip
ARGUMENTS = st.tuples(ARRAYS | NUMBERS, ARRAYS, ARRAYS | st.integers(-3, 3))


def evaluated(program, arguments):
    if isinstance(program, int):
        return jnp.asarray(arguments[program])
    operation, *parts = program
    values = [evaluated(part, arguments) for part in parts]
    if len(values) == 1:
        value = jnp.atleast_1d(values[0]) if operation in ("cumsum", "vmap") else values[0]
        return UNARY[operation](value)
    ranks = {v.shape for v in values}
    if len(ranks) > 1:
        values = [jnp.sum(v) for v in values]
    return BINARY[operation](*values)


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert isinstance(x, jax.Array)
        assert (x.dtype, x.shape, x.weak_type) == (y.dtype, y.shape, y.weak_type)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@given(program=PROGRAMS, arguments=ARGUMENTS)
def test_any_numeric_program_gives_the_bits_of_jax_jit(program, arguments):
    def f(*args):
        return {"value": evaluated(program, args), "rest": [args[0]]}

    try:
        expected = jax.jit(f)(*arguments)
    except TypeError:  # a program may subtract booleans
        with pytest.raises(TypeError):
            xcs.jit(f)(*arguments)
    else:
        same(xcs.jit(f)(*arguments), expected)


@given(program=PROGRAMS, arguments=ARGUMENTS)
def test_a_numeric_program_beside_a_host_call_gives_the_bits_of_jax_jit(program, arguments):
    @xcs.host
    def note(text: str) -> str:
        return text + "!"

    def f(*args):
        return {"value": evaluated(program, args), "rest": [args[0]]}

    mixed = xcs.jit.trace(lambda t, *args: (f(*args), note(t)))
    try:
        expected = jax.jit(f)(*arguments)
    except TypeError:  # a program may subtract booleans
        with pytest.raises(TypeError):
            mixed("a", *arguments)
        return
    result, text = mixed("a", *arguments)
    assert text == "a!"
    for x, y in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
    "x",
    [1, 1.5, True, 1j, np.float64(1), np.int8(1), np.arange(3), jnp.ones(2, jnp.bfloat16), [1, 2.0],
     {"b": 1, "a": (jnp.ones(2), None)}, (), jnp.zeros((0, 3))],
    ids=repr,
)  # fmt: skip
def test_arguments_of_any_numeric_kind(x):
    f = lambda tree: jax.tree.map(lambda v: v * 2, tree)  # noqa: E731
    same(xcs.jit(f)(x), jax.jit(f)(x))


def test_random_keys_are_numeric():
    f = lambda key: jax.random.normal(jax.random.split(key)[0], (3,))  # noqa: E731
    compiled = xcs.jit(f)
    same(compiled(jax.random.key(1)), jax.jit(f)(jax.random.key(1)))
    assert xcs.get_jit_strategy_used(compiled) == "trace"


def test_a_numeric_function_is_transformed_by_jax():
    f = xcs.jit(lambda x: jnp.sin(x) * x)
    assert float(jax.grad(f)(1.0)) == float(jax.grad(f.__wrapped__)(1.0))
    np.testing.assert_array_equal(jax.vmap(f)(jnp.arange(3.0)), f(jnp.arange(3.0)))
    assert float(jax.jit(f)(1.0)) == float(f(1.0))
    assert jax.eval_shape(f, 1.0).shape == ()


def test_a_numeric_operator_is_differentiated():
    class Scale(xcs.Operator):
        weight: jax.Array

        def forward(self, x):
            return jnp.sum(self.weight * x)

    loss = xcs.jit(lambda op, x: op(x) ** 2)
    gradient = jax.grad(loss)(Scale(jnp.ones(2)), jnp.arange(2.0))
    assert gradient.weight.tolist() == [0.0, 2.0]


@pytest.mark.parametrize(
    "broken",
    [
        lambda x: 1 if x > 0 else 2,
        lambda x: float(x + 1),
        lambda x: np.sin(x + 1),
        lambda x: list(range(x)),
        lambda x: x.at[0].set(1).nope,
        lambda x: jnp.ones(3) + jnp.ones(2),
        lambda x: [1, 2][x],
        lambda x: jnp.concatenate([x, x]),
        lambda x: 1 / 0,
        lambda x: {}["missing"],
        lambda x: jnp.zeros(x + 1),
    ],
)
@pytest.mark.parametrize("attempts", [1, 2])
def test_an_error_in_a_numeric_function_is_that_of_jax_jit(broken, attempts):
    with pytest.raises(Exception) as plain:  # noqa: PT011
        jax.jit(broken)(1.5)
    compiled = xcs.jit(broken)
    for _ in range(attempts):
        with pytest.raises(type(plain.value)) as raised:
            compiled(1.5)
    assert type(raised.value) is type(plain.value)


def test_an_error_of_jax_names_the_users_function_and_argument():
    def score(weights):
        return 1 if weights > 0 else 2

    with pytest.raises(jax.errors.TracerBoolConversionError, match=r"score at .*test_numeric\.py"):
        xcs.jit(score)(1.0)
    with pytest.raises(jax.errors.TracerBoolConversionError, match="argument weights"):
        xcs.jit(score)(1.0)


def test_a_compiled_program_is_named_after_the_function():
    def score(weights):
        return weights * 2

    assert "score" in xcs.jit(score).lower(1.0).as_text()


def test_debug_prints_and_checks_run_as_under_jax(capsys):
    def f(x):
        jax.debug.print("x = {}", x)
        return x + 1

    f = xcs.jit(f)
    f(jnp.float32(1)).block_until_ready()
    jax.effects_barrier()
    assert "x = 1.0" in capsys.readouterr().out


def test_a_function_that_turns_out_to_call_a_host_operator_is_staged_then():
    @xcs.host
    def plus_one(x: float) -> float:
        return x + 1

    f = xcs.jit(lambda x: plus_one(x) if jnp.ndim(x) == 0 else x * 2)
    assert f(jnp.ones(2)).tolist() == [2.0, 2.0]
    assert float(f(1.0)) == 2.0
    assert f(jnp.ones(3)).tolist() == [2.0, 2.0, 2.0]
    assert float(f(3.0)) == 4.0


def test_a_numeric_function_may_return_text_and_other_constants():
    f = xcs.jit(lambda x: {"name": "score", "value": x * 2, "none": None})
    result = f(1.5)
    assert result == {"name": "score", "value": 3.0, "none": None}
