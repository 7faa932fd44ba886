"""What host operators receive in staged programs, and what staged functions return.

The oracle is plain Python: an operator cannot tell whether it was staged.
"""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
import pydantic
import pytest

import ember_xcs as xcs


def described(value: Any) -> Any:
    """What an operator can tell about a value."""
    if isinstance(value, dict):
        return {key: described(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value), [described(item) for item in value]
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    content = np.asarray(value).tolist() if isinstance(dtype, np.dtype) else repr(value)
    return type(value), str(dtype), shape, content


@xcs.host
def look(value):
    return described(value)


VALUES = {
    "int": 1,
    "float": 2.5,
    "bool": True,
    "complex": 1 + 2j,
    "text": "a",
    "bytes": b"a",
    "none": None,
    "numpy float": np.float32(2),
    "numpy array": np.arange(3),
    "numpy text": np.array(["a", "b"]),
    "numpy objects": np.array(["a", None], dtype=object),
    "jax array": jnp.arange(3),
    "bfloat16": jnp.ones(2, jnp.bfloat16),
    "list": [1, "a", [2.0]],
    "tuple": (1, "a"),
    "dict": {"a": 1, "b": ["x", None]},
}


@pytest.mark.parametrize("name", VALUES)
def test_an_argument_arrives_as_from_plain_python(name):
    assert xcs.jit.trace(look)(VALUES[name]) == look(VALUES[name])


@pytest.mark.parametrize("name", VALUES)
def test_a_constant_arrives_as_from_plain_python(name):
    assert xcs.jit.trace(lambda _: look(VALUES[name]))(0) == look(VALUES[name])


def test_a_numpy_constant_is_the_one_of_the_time_of_staging():
    array = np.arange(2)
    f = xcs.jit.trace(lambda _: look(array))
    before = f(0)
    array[0] = 7
    assert f(0) == before


@pytest.mark.parametrize("constant", [True, False])
def test_annotated_parameters_get_what_they_are_annotated_with(constant):
    @xcs.host
    def kinds(x: float, n: int, b: bool, a: jax.Array, rest) -> Any:
        return [type(v) for v in (x, n, b, a)] + [type(rest), rest.flags.writeable]

    values = (1.5, 2, True, np.arange(2), np.arange(2))
    staged = xcs.jit.trace(lambda _: kinds(*values))(0) if constant else None
    staged = staged or xcs.jit.trace(kinds)(*values)
    assert staged == kinds(*values)


def test_computed_numbers_arrive_as_python_numbers_where_annotated():
    @xcs.host
    def kinds(x: float, n: int, b: bool) -> Any:
        return [type(x), type(n), type(b)]

    f = xcs.jit.trace(lambda x, n: kinds(x * 2, n + 1, n > 1))
    assert f(1.0, 2) == [float, int, bool]


def test_an_array_that_an_operator_receives_cannot_be_written_to():
    @xcs.host
    def spoil(x) -> None:
        x[0] = 1

    with pytest.raises(xcs.NodeExecutionError, match="read-only"):
        xcs.jit.trace(lambda x: spoil(x + 1))(jnp.zeros(2))


def test_a_random_key_arrives_as_a_key():
    @xcs.host
    def draw(key) -> float:
        return float(jax.random.uniform(key))

    key = jax.random.key(3)
    assert float(xcs.jit.trace(draw)(key)) == draw(key)


def test_random_keys_are_split_inside_a_staged_function():
    @xcs.host
    def draw(key) -> float:
        return float(jax.random.uniform(key))

    f = lambda key: jax.vmap(draw)(jax.random.split(key, 3))  # noqa: E731
    expected = [draw(k) for k in jax.random.split(jax.random.key(0), 3)]
    assert xcs.jit.trace(f)(jax.random.key(0)).tolist() == expected


def test_random_keys_are_carried_by_loops_and_scans():
    @xcs.host
    def draw(key) -> float:
        return float(jax.random.uniform(key))

    def scanned(key):
        return jax.lax.scan(lambda k, _: (jax.random.split(k)[0], k), key, None, length=3)[1]

    def turns(loop, n, key):
        body = lambda c: (c[0] + 1, jax.random.split(c[1])[0], draw(c[1]))  # noqa: E731
        return loop(lambda c: c[0] < n, body, (0, key, 0.0))[1:]

    def f(loop, n, key):
        keys = jax.lax.scan(lambda k, _: (jax.random.split(k)[0], (k, draw(k))), key, None, 3)[1]
        return *turns(loop, n, key), *keys

    keys = jax.random.split(jax.random.key(1), 3)
    limits = jnp.array([0, 1, 3])
    for loop in (jax.lax.while_loop, xcs.while_loop):
        last, drawn, column, draws = xcs.jit.trace(
            lambda n, key, loop=loop: jax.vmap(lambda n, key: f(loop, n, key))(n, key)
        )(limits, keys)
        for lane, (n, key) in enumerate(zip(limits.tolist(), keys, strict=True)):
            path = list(scanned(key))
            assert draws[lane].tolist() == [draw(k) for k in path]
            assert (column[lane] == jnp.stack(path)).all()
            end = jax.random.split(path[2])[0] if n == 3 else path[n]
            assert last[lane] == end
            assert float(drawn[lane]) == (draw(path[n - 1]) if n else 0.0)


class Point(NamedTuple):
    x: float
    label: str


@dataclasses.dataclass
class Pair:
    x: float
    label: str


class Model(pydantic.BaseModel):
    x: float
    label: str


class Typed(TypedDict):
    x: float
    label: str


RECORDS = pytest.mark.parametrize("cls", [Point, Pair, Model, Typed])


@RECORDS
def test_a_record_that_operators_return_is_an_argument_too(cls):
    @xcs.host
    def improved(record: cls, x: float) -> cls:
        return cls(x=x + 1, label=f"{type(record).__name__} {record}")

    get = lambda r, name: r[name] if isinstance(r, dict) else getattr(r, name)  # noqa: E731
    record = cls(x=1.5, label="a")
    expected = improved(record, 3.0)
    result = xcs.jit.trace(lambda r: improved(r, get(r, "x") * 2))(record)
    assert float(get(result, "x")) == get(expected, "x")
    assert get(result, "label") == get(expected, "label")


@RECORDS
def test_a_record_comes_back_as_its_class(cls):
    @xcs.host
    def make(k: int) -> cls:
        return cls(x=float(k), label=f"n{k}")

    result = xcs.jit.trace(make)(3)
    assert type(result) is type(make(3))
    fields = result if isinstance(result, dict) else vars(result) if cls in (Pair, Model) else None
    fields = fields or result._asdict()
    assert isinstance(fields["x"], jax.Array)
    assert (float(fields["x"]), fields["label"]) == (3.0, "n3")


@RECORDS
def test_a_batch_of_records_is_a_record_of_batches(cls):
    @xcs.host
    def make(k: int) -> cls:
        return cls(x=float(k), label=f"n{k}")

    batch = xcs.jit.trace(jax.vmap(make))(jnp.arange(2))
    x, label = (batch["x"], batch["label"]) if cls is Typed else (batch.x, batch.label)
    assert (x.tolist(), label) == ([0.0, 1.0], ["n0", "n1"])


DICTS = pytest.mark.parametrize(
    "value",
    [{"b": 1, "a": "x"}, {"b": {"d": 1, "c": 2}, "a": [{"z": 1, "y": 2}]}, {1: "x", "a": 2}],
)


@DICTS
def test_a_dict_arrives_with_its_keys_in_their_order(value):
    @xcs.host
    def write(d) -> str:
        return repr(d)

    assert xcs.jit.trace(write)(value) == write(value)
    assert xcs.jit.trace(lambda _: write(value))(0) == write(value)


@DICTS
def test_a_dict_comes_back_with_its_keys_in_their_order(value):
    assert repr(xcs.jit.trace(lambda t: (value, t))("t")[0]) == repr(value)
    assert str(xcs.jit.trace(lambda d, t: d)(value, "t").keys()) == str(value.keys())


def test_arguments_by_position_by_keyword_by_default_and_open_ended():
    @xcs.host
    def collect(a, *rest, k=1, **more):
        return a, rest, k, sorted(more.items())

    f = lambda t: (collect(t), collect(t, 1, "b", k=2, m=t), collect(t, k=t))  # noqa: E731
    assert xcs.jit.trace(f)("t") == f("t")


def test_arguments_that_do_not_fit_are_an_error_of_the_staging():
    @xcs.host
    def one(a):
        return a

    with pytest.raises(xcs.OperatorInputError, match=r"takes \(a\)"):
        xcs.jit.trace(lambda t: one(t, t))("t")


def test_arrays_come_back_as_jax_arrays_and_constants_as_they_are():
    @xcs.host
    def count(t: str) -> int:
        return len(t)

    result = xcs.jit.trace(lambda t: {"n": count(t), "k": "constant", "t": t, "none": None})("abc")
    assert isinstance(result["n"], jax.Array)
    assert result == {"n": 3, "k": "constant", "t": "abc", "none": None}


@pytest.mark.parametrize("value", [[1, "x"], {"a": 1}, None, object, "text", (1, 2)])
def test_an_object_of_any_type_comes_back_itself(value):
    @xcs.host
    def give(_):
        return value

    assert xcs.jit.trace(give)("q") is value
    assert xcs.jit.trace(lambda k: jax.vmap(give)(k)[1])(jnp.arange(2)) is value


def test_an_array_of_undeclared_shape_is_a_host_value():
    @xcs.host
    def tokens(n: int):
        return np.arange(n)

    @xcs.host
    def total(t) -> int:
        return int(t.sum())

    rows, sums = xcs.jit.trace(jax.vmap(lambda n: (tokens(n), total(tokens(n)))))(jnp.arange(1, 4))
    assert [r.tolist() for r in rows] == [[0], [0, 1], [0, 1, 2]]
    assert sums.tolist() == [0, 1, 3]


def test_a_declared_shape_is_used_by_numeric_code():
    @xcs.host(out=jax.ShapeDtypeStruct((2,), jnp.float32))
    def embed(t: str):
        return np.array([len(t), 1.0], np.float32)

    assert float(xcs.jit.trace(lambda t: embed(t) @ jnp.ones(2))("abc")) == 4.0


def test_a_declared_tree_of_shapes_comes_back_as_that_tree():
    struct = {"v": jax.ShapeDtypeStruct((2,), jnp.float32), "t": str}

    @xcs.host(out=struct)
    def embed(t: str):
        return {"v": np.ones(2, np.float32), "t": t + "!"}

    result = xcs.jit.trace(lambda ts: jax.vmap(embed)(jnp.stack(ts)))(["a", "b"])
    assert (result["v"].shape, result["t"]) == ((2, 2), ["a!", "b!"])


@pytest.mark.parametrize("answer", [np.ones(3, np.float32), "text", np.ones(2, np.complex64), None])
def test_another_result_than_declared_is_an_error_that_names_both(answer):
    @xcs.host(out=jax.ShapeDtypeStruct((2,), jnp.float32))
    def embed(t: str):
        return answer

    with pytest.raises(xcs.NodeExecutionError, match=r"embed.*float32\[2\]") as raised:
        xcs.jit.trace(lambda t: embed(t) * 2)("a")
    assert isinstance(raised.value.__cause__, xcs.OperatorOutputError)


def test_bfloat16_passes_through_numeric_code_and_host_calls():
    @xcs.host(out=jax.ShapeDtypeStruct((2,), jnp.bfloat16))
    def same(x):
        assert x.dtype == jnp.bfloat16
        return x

    result = xcs.jit.trace(lambda x: same(x * 2))(jnp.ones(2, jnp.bfloat16))
    assert (result.dtype, result.tolist()) == (jnp.bfloat16, [2.0, 2.0])


def test_python_numbers_are_weakly_typed_as_in_jax():
    @xcs.host
    def note(t: str) -> str:
        return t

    f = lambda x, w: x * w  # noqa: E731
    x = jnp.ones(2, jnp.bfloat16)
    mixed = xcs.jit.trace(lambda x, w, t: (f(x, w), note(t)))(x, 2.0, "t")[0]
    assert mixed.dtype == jax.jit(f)(x, 2.0).dtype == jnp.bfloat16


def test_a_large_constant_is_captured():
    table = jnp.arange(1_000_000.0)

    @xcs.host
    def pick(k: int) -> int:
        return k + 1

    assert float(xcs.jit.trace(lambda k: table[pick(k)])(41)) == 42.0


def test_sixty_four_bits_where_jax_is_set_to_them():
    code = """
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_enable_x64", True)
import ember_xcs as xcs
@xcs.host
def third(x: float) -> float:
    return x / 3
@xcs.host
def big(k: int) -> int:
    return k + 2**40
f = xcs.jit.trace(lambda x, k: (third(x) * 3, jax.vmap(big)(jnp.arange(2)) + k))
x, ks = f(1.0, 1)
assert x.dtype == np.float64 and float(x) == 1.0, x
assert ks.dtype == np.int64 and ks.tolist() == [2**40 + 1, 2**40 + 2], ks
g = xcs.jit.trace(jax.grad(lambda x: x**2 + third(x)))
assert g(0.1).dtype == np.float64 and float(g(0.1)) == 0.2, g(0.1)
print("fine")
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        cwd=root,
        timeout=50,
    )
    assert done.stdout.strip() == "fine", done.stderr
