"""Host values refuse, with the remedy, what would need the value itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ember_xcs as xcs
from ember_xcs._trace.host_values import HandleTable
from tests.counting import Calls


@xcs.host
def ask(question: str) -> str:
    return question + "?"


REFUSED = {
    "f-string": lambda v: f"{v}",
    "format": "{:>10}".format,
    "percent": "{}".format,
    "str": str,
    "bool": lambda v: not v,
    "if": lambda v: 1 if v else 2,
    "and": lambda v: v and v,
    "len": len,
    "list": list,
    "unpacking": lambda v: [*v],
    "plus": lambda v: v + "!",
    "plus from the left": lambda v: "!" + v,
    "times": lambda v: v * 2,
    "equality": lambda v: v == "a?",
    "inequality": lambda v: v != "a?",
    "order": lambda v: v < "b",
    "in": lambda v: "a" in v,
    "float": float,
    "int": int,
    "range": range,
    "index": lambda v: v[0],
    "slice": lambda v: v[:2],
    "key": lambda v: v["text"],
    "method": lambda v: v.upper(),
    "call": lambda v: v(),
    "numpy": np.asarray,
    "minus": lambda v: -v,
    "membership of a dict": lambda v: {"a?": 1}[v],
    "and of bits": lambda v: v & v,
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_needs_the_value_is_refused_with_the_users_line(what):
    use = REFUSED[what]
    with pytest.raises((xcs.TracingError, TypeError)) as raised:
        xcs.jit.trace(lambda q: use(ask(q)))("a")
    if what != "membership of a dict":  # Python itself says that it has no hash
        assert isinstance(raised.value, xcs.TracingError)
        assert "test_host_values.py" in raised.value.user_line
        assert "@host" in str(raised.value) or "declare" in str(raised.value)


@pytest.mark.parametrize(
    ("what", "remedy"),
    [("f-string", "Template"), ("if", "bool"), ("key", "record"), ("plus", "Template")],
)
def test_the_remedy_fits_what_was_tried(what, remedy):
    with pytest.raises(xcs.TracingError, match=remedy):
        xcs.jit.trace(lambda q: REFUSED[what](ask(q)))("a")


COMPUTED = {
    "sum": jnp.sum,
    "sine": jnp.sin,
    "plus": lambda v: jnp.stack([v, v]) + 1,
    "mean": lambda v: jnp.mean(jnp.stack([v, v])),
    "comparison": lambda v: jnp.stack([v]) < jnp.stack([v]),
    "argmax": lambda v: jnp.argmax(jnp.stack([v, v])),
    "astype": lambda v: jnp.stack([v]).astype(jnp.float32),
    "matmul": lambda v: jnp.stack([v]) @ jnp.ones(1),
    "float": lambda v: float(jnp.stack([v])[0]),
    "bool": lambda v: bool(jnp.stack([v])[0]),
    "equality": lambda v: jnp.stack([v]) == jnp.stack([v]),
    "isnan": lambda v: jnp.isnan(jnp.stack([v])),
    "sort": lambda v: jnp.sort(jnp.stack([v, v])),
    "unique": lambda v: jnp.unique(jnp.stack([v, v]), size=2),
    "key data": lambda v: jax.random.key_data(jnp.stack([v])),
    "equality in a jit": lambda v: jax.jit(lambda a: a == a[::-1])(jnp.stack([v, v])),
    "equality in a branch": lambda v: xcs.cond(
        True, lambda a: (a == a)[0], lambda a: False, jnp.stack([v])
    ),
    "random": lambda v: jax.random.uniform(jnp.stack([v])[0]),
    "split": lambda v: jax.random.split(jnp.stack([v])[0]),
}


@pytest.mark.parametrize("what", COMPUTED)
def test_nobody_computes_on_a_handle_and_no_call_is_made_first(what):
    calls = Calls()

    @calls.host
    def answer(q: str) -> str:
        return q

    with pytest.raises((TypeError, ValueError, xcs.TracingError)):
        xcs.jit.trace(lambda q: COMPUTED[what](answer(q)))("a")
    assert calls.seen == []


@pytest.mark.parametrize("write", [str, repr, lambda a: f"{a}"], ids=["str", "repr", "f-string"])
def test_text_made_of_a_traced_value_is_not_sent_to_an_operator(write):
    with pytest.raises(xcs.TracingError, match=r"question.*not known while staging"):
        xcs.jit.trace(lambda q: ask("prompt: " + write(jnp.stack([ask(q)]))))("a")
    with pytest.raises(xcs.TracingError, match=r"question.*not known while staging"):
        xcs.jit.trace(lambda x: ask(write(x + 1)))(1.0)


def test_a_host_value_has_a_shape_and_a_dtype_while_staging():
    found = []

    @xcs.jit.trace
    def f(ks):
        values = jax.vmap(jax.vmap(xcs.host(lambda k: "a")))(ks)
        found.append((values.shape, values.ndim, values.size, len(values), repr(values)))
        return values

    f(jnp.zeros((2, 3), int))
    assert found[-1] == ((2, 3), 2, 6, 2, "HostValue[2, 3]")


def test_none_is_told_from_a_host_value():
    f = xcs.jit.trace(lambda q, more: ask(q) if more is None else more)
    assert f("a", None) == "a?"


def test_host_values_pass_through_python_containers():
    @xcs.host
    def join(parts: list, by: dict) -> str:
        return by["sep"].join(parts)

    f = xcs.jit.trace(lambda a, b: join([a, ask(b), "c"], {"sep": ask("-")}))
    assert f("x", "y") == "x-?y?-?c"


def test_a_handle_table_returns_what_was_put_in():
    table = HandleTable()
    batch = np.empty((2, 2), object)
    batch[:] = [["a", None], [[1], {"k": 1}]]
    alone, together = table.encode(["a list"], 0), table.encode(batch, 2)
    assert together.shape == (2, 2, 1)
    assert table.decode(alone) == ["a list"]
    assert table.decode(together).tolist() == batch.tolist()
    assert table.decode(together[1, ::-1]).tolist() == [{"k": 1}, [1]]


@pytest.mark.parametrize("transformation", [jax.vmap, jax.grad, jax.jit])
def test_a_plain_transformation_around_a_host_call_says_what_to_use(transformation):
    @xcs.host
    def double(x: float) -> float:
        return 2 * x

    xs = jnp.arange(3.0) if transformation is jax.vmap else 1.0
    with pytest.raises(xcs.TracingError, match=r"double.*(xcs\.jit|xcs\.vmap)") as raised:
        transformation(double)(xs)
    assert "test_host_values.py" in raised.value.user_line


def test_a_host_call_in_an_operator_declared_pure_says_what_to_do():
    @xcs.host
    def double(x: float) -> float:
        return 2 * x

    @xcs.pure
    def liar(x):
        return double(x) + 1

    graph = xcs.XCSGraph("g")
    graph.add_node(liar, node_id="liar")
    with pytest.raises(xcs.XCSError, match=r"double.*declared pure"):
        xcs.execute_graph(graph, {"x": jnp.ones(())})


def test_a_host_value_that_is_an_object_array_is_one_value_in_a_compiled_region():
    table = np.array([["a", 1], ["b", 2]], object)
    make = xcs.host(lambda k: table[:, ::-1] if k else table)
    chosen = xcs.jit.trace(lambda x: jnp.where(x > 0, make(0).array, make(1).array))(1.0)
    assert chosen is table


def test_a_batch_of_object_arrays_is_indexed_along_the_batch_alone():
    tables = [np.array([k, str(k)], object) for k in range(3)]
    make = xcs.host(lambda k: tables[int(k)])
    picked = xcs.jit.trace(lambda i: jax.vmap(make)(jnp.arange(3))[i])(2)
    assert picked is tables[2]
