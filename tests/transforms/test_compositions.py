"""Transformations of transformations, in both orders: the plain loop is the oracle."""

import asyncio
import functools
import itertools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ember_xcs as xcs
from tests.counting import Calls

ROWS = jnp.arange(24.0).reshape(8, 3) / 8
TEXTS = [[f"{row}{column}" for column in "abc"] for row in range(8)]
MESH = xcs.DeviceMesh()
MAPS = {"vmap": xcs.vmap, "pmap": xcs.pmap}


@xcs.host
def square(x: float) -> float:
    return x * x


@xcs.host
def shout(text: str) -> str:
    return text.upper()


@xcs.host
def shout_all(texts: list[str]) -> list[str]:
    return [text.upper() for text in texts]


def sharded(function):
    return xcs.mesh_sharded(function, MESH, partition_spec=xcs.PartitionSpec(0))


FUNCTIONS = {
    "numeric": (lambda x: x * x * jnp.sin(x), lambda x: x * x * np.sin(x), ROWS),
    "mixed": (lambda x: square(x) * jnp.sin(x), lambda x: x * x * np.sin(x), ROWS),
    "operator": (shout, str.upper, TEXTS),
    "plain": (lambda t: shout(t) + "!", lambda t: t.upper() + "!", TEXTS),
}


def in_a_loop(function, batch, depth):
    """What a plain loop gives, of arrays or of lists."""
    if depth == 0:
        return function(batch)
    results = [in_a_loop(function, item, depth - 1) for item in batch]
    return results if isinstance(batch, list) else np.stack(results)


def assert_same(ours, expected):
    if isinstance(expected, list | str):
        assert ours == expected
    else:
        np.testing.assert_allclose(ours, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", FUNCTIONS)
@pytest.mark.parametrize("names", list(itertools.product(["jit", *MAPS], repeat=2)), ids="-".join)
def test_two_of_jit_and_the_maps(names, kind):
    function, plain, batch = FUNCTIONS[kind]
    outer, inner = (getattr(xcs, name) for name in names)
    depth = sum(name in MAPS for name in names)
    for _ in range(2 - depth):
        batch = batch[1]
    expected = in_a_loop(plain, batch, depth)
    composed = xcs.compose(outer, inner)(function)
    for _ in range(2):  # the second call finds what the first has compiled
        assert_same(composed(batch), expected)


@pytest.mark.parametrize("kind", FUNCTIONS)
@pytest.mark.parametrize("outer", ["jit", "vmap", "pmap"])
def test_three_deep(outer, kind):
    function, plain, batch = FUNCTIONS[kind]
    composed = xcs.compose(getattr(xcs, outer), xcs.vmap, xcs.jit, xcs.pmap)(function)
    if outer == "jit":
        assert_same(composed(batch), in_a_loop(plain, batch, 2))
    else:
        batches = [batch, batch] if isinstance(batch, list) else jnp.stack([batch, batch])
        assert_same(composed(batches), in_a_loop(plain, batches, 3))


@pytest.mark.parametrize("kind", ["numeric", "mixed"])
@pytest.mark.parametrize("name", ["jit", *MAPS])
def test_mesh_sharded_around(name, kind):
    function, plain, batch = FUNCTIONS[kind]
    inner = getattr(xcs, name)
    by_row = function if kind == "numeric" else xcs.vmap(function)
    inner_function = inner(xcs.vmap(by_row) if name == "jit" else by_row)
    assert_same(sharded(inner_function)(batch), in_a_loop(plain, batch, 2))


@pytest.mark.parametrize("kind", ["numeric", "mixed"])
@pytest.mark.parametrize("name", ["jit", *MAPS])
def test_mesh_sharded_within(name, kind):
    function, plain, batch = FUNCTIONS[kind]
    composed = getattr(xcs, name)(sharded(xcs.vmap(xcs.vmap(function))))
    if name == "jit":
        assert_same(composed(batch), in_a_loop(plain, batch, 2))
    else:
        batches = jnp.stack([batch, batch + 1])
        assert_same(composed(batches), in_a_loop(plain, batches, 3))


def test_mesh_sharded_host_work_with_jit_and_the_maps():
    texts = [row[0] for row in TEXTS]
    expected = [text.upper() for text in texts]
    for composed in (
        sharded(shout_all),
        xcs.jit(sharded(shout_all)),
        sharded(xcs.jit(shout_all)),
        sharded(xcs.vmap(shout)),
        sharded(xcs.pmap(shout)),
    ):
        assert composed(texts) == expected
    assert xcs.vmap(sharded(shout_all))([texts, texts]) == [expected, expected]
    assert xcs.pmap(sharded(shout_all))([texts, texts]) == [expected, expected]


@pytest.mark.parametrize("kind", ["numeric", "mixed"])
@pytest.mark.parametrize("name", ["jit", "vmap", "pmap", "mesh_sharded"])
def test_the_gradient_with_each_in_both_orders(name, kind):
    def with_factor(factor):
        return lambda x: jnp.sum(factor(jnp.sum(x)) * jnp.sin(x))

    host = xcs.host(functools.update_wrapper(lambda x: x * x, square.function))
    scalar = with_factor(host if kind == "mixed" else lambda x: jax.lax.stop_gradient(x * x))
    in_jax = with_factor(lambda x: jax.lax.stop_gradient(x * x))
    expected = jax.vmap(jax.grad(in_jax))(ROWS)
    if name == "jit":
        assert_same(xcs.jit(xcs.grad(scalar))(ROWS[1]), expected[1])
        assert_same(xcs.grad(xcs.jit(scalar))(ROWS[1]), expected[1])
        return
    mapped = (lambda f: sharded(xcs.vmap(f))) if name == "mesh_sharded" else getattr(xcs, name)
    assert_same(mapped(xcs.grad(scalar))(ROWS), expected)
    assert_same(xcs.grad(lambda x: jnp.sum(mapped(scalar)(x)))(ROWS), expected)


@pytest.mark.parametrize("names", [("vmap", "vmap"), ("vmap", "pmap"), ("pmap", "vmap")])
def test_composed_maps_make_each_call_once(names):
    calls = Calls()

    @calls.host
    def counted(x: float) -> float:
        return x

    outer, inner = (getattr(xcs, name) for name in names)
    np.testing.assert_array_equal(xcs.jit(outer(inner(counted)))(ROWS), ROWS)
    assert calls.sorted == sorted(np.asarray(ROWS).ravel().tolist())


# JAX's own transformations around ours


@pytest.mark.parametrize("name", ["jit", *MAPS])
@pytest.mark.parametrize("around", ["jit", "vmap", "grad"])
def test_numeric_functions_inside_transformations_of_jax(around, name):
    function, plain, batch = FUNCTIONS["numeric"]
    inner = getattr(xcs, name)(function)
    if around == "grad":
        ours = jax.grad(lambda x: jnp.sum(inner(x)))(batch)
        assert_same(ours, jax.grad(lambda x: jnp.sum(function(x)))(batch))
    else:
        assert_same(getattr(jax, around)(inner)(batch), in_a_loop(plain, batch, 2))


def test_numeric_mesh_sharded_inside_jax_jit_and_grad():
    def inner(x):
        return jnp.sum(sharded(lambda x: x * x)(x))

    assert_same(jax.jit(jax.grad(inner))(ROWS), 2 * ROWS)


@pytest.mark.parametrize("name", ["jit", *MAPS])
@pytest.mark.parametrize("around", ["jit", "vmap", "grad"])
def test_what_is_said_of_host_calls_inside_transformations_of_jax(around, name):
    inner = getattr(xcs, name)(lambda x: square(x) * 2)
    batch = ROWS if around == "vmap" and name != "jit" else ROWS[0]
    if around == "grad":
        inner_function = inner
        inner = lambda x: jnp.sum(inner_function(x))  # noqa: E731
    with pytest.raises(xcs.TracingError, match=r"host operator 'square' .*xcs\.jit"):
        getattr(jax, around)(inner)(batch)


@pytest.mark.parametrize("name", ["vmap", "grad"])
def test_xcs_jit_around_transformations_of_jax(name):
    if name == "vmap":
        ours = xcs.jit(jax.vmap(lambda x: square(x) * 2))(ROWS[0])
        assert_same(ours, 2 * ROWS[0] ** 2)
    else:
        ours = xcs.jit(jax.grad(lambda x: square(x) * x))(3.0)
        assert_same(ours, 9.0)


# Graphs as functions


def text_graph():
    graph = xcs.XCSGraph("texts")
    first = graph.add_node(shout)
    last = graph.add_node(xcs.host(lambda text, mark: text + mark), node_id="last")
    graph.connect(graph.input("question"), first.inputs["text"])
    graph.connect(graph.input("mark", default="!"), last.inputs["mark"])
    graph.connect(first, last.inputs["text"])
    return graph


def weighted(y, w):
    return jnp.dot(y, w)


def numeric_graph():
    graph = xcs.XCSGraph("numbers")
    double = graph.add_node(xcs.pure(lambda x: x * 2), node_id="double")
    dot = graph.add_node(xcs.pure(weighted))
    graph.connect(graph.input("x"), double.inputs["x"])
    graph.connect(double, dot.inputs["y"])
    graph.connect(graph.input("w"), dot.inputs["w"])
    return graph


@pytest.mark.parametrize("mode", ["auto", "trace", "structural"])
def test_jit_of_a_graph(mode):
    function = xcs.jit(text_graph(), mode=mode)
    assert function("why", "?") == "WHY?"
    assert function("why") == "WHY!"
    assert function(mark="?", question="how") == "HOW?"


@pytest.mark.parametrize("mapped", [xcs.vmap, xcs.pmap, xcs.compose(xcs.jit, xcs.vmap)])
def test_a_map_of_a_graph(mapped):
    function = mapped(text_graph())
    assert function(["a", "b"], ["?", "."]) == ["A?", "B."]
    assert function(["a", "b"], "?") == ["A?", "B?"]
    assert function(question=["a", "b"]) == ["A!", "B!"]


def test_a_numeric_graph_is_numeric():
    graph = numeric_graph()
    assert xcs.vmap(graph).explain(ROWS, ROWS).strategy == "jax.vmap"
    expected = 2 * np.sum(np.asarray(ROWS) ** 2, axis=1)
    for mapped in (
        xcs.vmap,
        xcs.pmap,
        lambda g: jax.jit(xcs.vmap(g)),
        lambda g: xcs.jit(xcs.vmap(g)),
    ):
        assert_same(mapped(graph)(ROWS, ROWS), expected)
    assert_same(xcs.vmap(graph, in_axes={"w": None})(ROWS, ROWS[0]), 2 * ROWS @ ROWS[0])
    assert_same(xcs.grad(graph)(ROWS[0], ROWS[1]), 2 * ROWS[1])


def test_a_graph_with_several_outputs_gives_a_dict():
    graph = numeric_graph()
    graph.set_outputs(twice=graph["double"], product=graph["weighted"])
    result = xcs.vmap(graph)(ROWS, ROWS)
    assert_same(result["twice"], 2 * ROWS)
    assert_same(result["product"], 2 * jnp.sum(ROWS * ROWS, axis=1))


class Keyed(xcs.HostOperator):
    """A dict in and a dict out, of keys that nothing declares."""

    def forward(self, *, inputs):
        return {"text": inputs["question"] + inputs.get("mark", "?")}


@pytest.mark.parametrize("whole", [True, False], ids=["whole output", "one field"])
def test_a_graph_with_fields_that_only_the_run_knows(whole):
    graph = xcs.XCSGraph("keyed")
    keyed, last = graph.add_node(Keyed()), graph.add_node(shout)
    if whole:
        graph.add_edge(keyed, last)
    else:
        graph.connect(keyed.outputs["text"], last.inputs["text"])
    assert xcs.execute_graph(graph, {"question": "a"})["shout"] == "A?"
    assert xcs.jit(graph)(question="a") == "A?"
    assert xcs.vmap(graph)(question=["a", "b"], mark="!") == ["A!", "B!"]


def test_a_transformed_graph_is_the_graph_as_it_was():
    graph = xcs.XCSGraph("growing")
    first = graph.add_node(shout)
    jitted, mapped = xcs.jit(graph), xcs.vmap(graph)
    assert jitted("a") == "A"
    last = graph.add_node(xcs.host(lambda text: text + "!"), node_id="last")
    graph.connect(first, last.inputs["text"])
    assert (jitted("a"), mapped(["a"])) == ("A", ["A"])
    assert xcs.jit(graph)("a") == "A!"


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "message"),
    [
        ((), {"mark": "?"}, xcs.XCSError, "'question'"),
        (("a", "?", "b"), {}, xcs.OperatorInputError, "takes question, mark, and was given 3"),
        (("a",), {"question": "b"}, xcs.OperatorInputError, "'question' both by position and"),
        (("a",), {"colour": "b"}, xcs.OperatorInputError, "'colour', which is none of these"),
    ],
)
def test_arguments_that_a_graph_does_not_take(args, kwargs, error, message):
    with pytest.raises(error, match=message):
        xcs.jit(text_graph())(*args, **kwargs)


# Compose, and calls from other places


def test_compose_applies_the_last_first():
    def tagged(tag):
        return lambda f: lambda x: f"{tag}({f(x)})"

    assert xcs.compose(tagged("outer"), tagged("inner"))(str)(1) == "outer(inner(1))"
    assert xcs.compose()(str) is str


def test_compose_takes_transformations():
    with pytest.raises(TypeError, match=r"compose takes transformations.* was given 0"):
        xcs.compose(xcs.jit, 0)


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_acall_of_composed_maps(kind):
    function, plain, batch = FUNCTIONS[kind]
    result = asyncio.run(xcs.vmap(xcs.pmap(function)).acall(batch))
    assert_same(result, in_a_loop(plain, batch, 2))


def test_a_map_within_a_recorded_operator():
    class Each(xcs.Operator):
        judge: xcs.HostOperator

        def forward(self, texts):
            return xcs.vmap(self.judge)(texts)

    for mode in ("auto", "structural"):
        assert xcs.jit(Each(shout), mode=mode)(["a", "b"]) == ["A", "B"]


def test_one_mapped_function_for_many_kinds_of_arguments():
    mapped = xcs.vmap(lambda x: x + x)
    assert_same(mapped(ROWS), 2 * ROWS)
    assert mapped(["a", "b"]) == ["aa", "bb"]
    assert_same(mapped(jnp.arange(3)), np.array([0, 2, 4]))
    assert_same(mapped(ROWS[:2]), 2 * ROWS[:2])


# Settings of pmap inside other transformations


def test_workers_are_bounded_inside_jit():
    lock, level, peak = threading.Lock(), [0], [0]
    two = threading.Barrier(2, timeout=10)

    @xcs.host
    def counted(x: float) -> float:
        with lock:
            level[0] += 1
            peak[0] = max(peak[0], level[0])
        two.wait()
        with lock:
            level[0] -= 1
        return 2 * x

    program = xcs.jit.trace(lambda x: jnp.sum(xcs.pmap(counted, num_workers=2)(x)))
    assert program(jnp.arange(8.0)) == 56.0
    assert peak == [2]


def test_failed_elements_stay_in_their_place_inside_jit():
    @xcs.host
    def inverse(x: float) -> float:
        return 1 / x

    program = xcs.jit.trace(xcs.pmap(inverse, on_error="return"))
    first, second = program(jnp.array([2.0, 0.0]))
    assert first == 0.5
    assert isinstance(second, ZeroDivisionError)


def test_elements_go_to_threads_inside_vmap():
    names = xcs.jit.trace(xcs.vmap(xcs.pmap(lambda v: type(v).__name__, executor="thread")))
    assert len(names(jnp.ones((2, 3)))) == 2


def test_chunks_of_host_calls_inside_jit_are_refused():
    @xcs.host
    def double(x: float) -> float:
        return 2 * x

    program = xcs.jit.trace(xcs.pmap(lambda v: double(v) + 1, chunk_size=2))
    with pytest.raises(xcs.TransformError, match="chunk_size=2"):
        program(jnp.arange(4.0))
