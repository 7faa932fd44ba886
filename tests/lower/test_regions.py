"""Regions: pure nodes compiled as one program, with the results of plain Python."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ember_xcs as xcs
from ember_xcs._core.options import get_execution_options
from ember_xcs._core.plumbing import Form, Pack, Pick
from ember_xcs._lower.lower import lower
from ember_xcs._lower.plan import TaskKind
from tests.properties.graphs import plain


def regions(graph: xcs.XCSGraph) -> list:
    plan = lower(graph, get_execution_options())
    return [task.run for task in plan.tasks if task.kind is TaskKind.REGION]


def chain(*operators, name: str = "n") -> xcs.XCSGraph:
    """Nodes n0, n1, ...: each reads the whole output of the one before it."""
    graph = xcs.XCSGraph()
    before = None
    for k, operator in enumerate(operators):
        node = graph.add_node(operator, f"{name}{k}")
        if before is not None:
            graph.connect(before, node.inputs[next(iter(node.inputs))])
        before = node
    return graph


def run(graph: xcs.XCSGraph, **inputs):
    (result,) = xcs.execute_graph(graph, inputs).values()
    return result


class Counted:
    """A pure operator that counts how often it is traced or run."""

    def __init__(self, function) -> None:
        self.count = 0

        def counted(x):
            self.count += 1
            return function(x)

        self.operator = xcs.pure(counted)


def number(x):
    return float(x)


# What crosses the border


@pytest.mark.parametrize(
    "value",
    [
        {"y": 1.5, "note": "text"},
        {"none": None, "list": [1, "a", (2, b"c")]},
        "text",
        None,
        (),
        {},
        ("a", 1),
        [True, 2, 3.5],
        np.arange(3),
    ],
)
def test_what_a_pure_operator_returns_comes_out_of_its_region(value) -> None:
    assert plain(run(chain(xcs.pure(lambda x: value)), x=1.0)) == plain(value)
    reader = xcs.host(lambda found: found)
    assert plain(run(chain(xcs.pure(lambda x: value), reader), x=1.0)) == plain(value)


@pytest.mark.parametrize(
    "value",
    [
        3,
        2.5,
        True,
        np.float32(1.5),
        np.arange(3.0),
        jnp.arange(3),
        {"a": 1, "b": np.ones(2)},
        [1, (2, 3)],
    ],
)
def test_what_a_graph_is_given_goes_into_its_regions(value) -> None:
    total = xcs.pure(lambda x: jax.tree.map(lambda leaf: leaf * 2, x))
    assert plain(run(chain(total), x=value)) == plain(jax.tree.map(lambda v: v * 2, value))


def test_texts_among_arrays_go_through_regions() -> None:
    scale = xcs.pure(lambda row: {"text": row["text"], "score": row["score"] * 2})
    graph = chain(xcs.host(lambda text: {"text": text, "score": 1.5}), scale, scale)
    for text in ("a", "b", "a"):
        assert plain(run(graph, text=text)) == {"text": text, "score": 6.0}


def test_a_text_can_choose_what_is_computed() -> None:
    operator = xcs.pure(lambda mode, x: x + 1 if mode == "up" else x - 1)
    graph = xcs.XCSGraph()
    graph.add_node(operator, "n")
    assert [int(run(graph, mode=m, x=5)) for m in ("up", "down", "up")] == [6, 4, 6]


def test_a_region_is_compiled_once_for_each_constant() -> None:
    counted = Counted(lambda row: row["x"] * 2)
    graph = chain(counted.operator)
    for text in ("a", "b", "a", "b", "a"):
        assert int(run(graph, x={"x": 1, "text": text})) == 2
    assert counted.count <= 3


def test_texts_that_are_others_each_time_are_not_compiled_for_without_end() -> None:
    graph = chain(xcs.pure(lambda row: row["x"] * 2))
    (region,) = regions(graph)
    for k in range(40):
        assert int(run(graph, row={"x": k, "text": f"text {k}"})) == 2 * k
    assert region.python_calls == 40 - 16


class Box:
    def __init__(self, scale) -> None:
        self.scale = scale


def boxed(x):
    return Box(x)


def test_an_object_that_changes_is_seen_as_it_is() -> None:
    graph = xcs.XCSGraph()
    graph.add_node(xcs.pure(lambda box, x: box.scale * x), "n")
    box = Box(2.0)
    assert float(run(graph, box=box, x=3.0)) == 6.0
    box.scale = 5.0
    assert float(run(graph, box=box, x=3.0)) == 15.0


def test_what_is_picked_from_an_object_is_picked_before_the_region() -> None:
    counted = Counted(lambda x: x * 2)
    graph = chain(xcs.host(boxed), Pick((("attribute", "scale"),)), counted.operator)
    for x in (1.0, 2.0, 3.0):
        assert float(run(graph, x=x)) == 2 * x
    assert counted.count == 1


def test_plumbing_between_pure_nodes_is_inside_the_region() -> None:
    pack = Pack(Form("dict", None, ("a", "k"), (Form("part"), Form("constant", "text"))))
    graph = chain(
        xcs.pure(lambda x: {"v": x + 1}),
        Pick((("item", "v"),)),
        pack,
        xcs.pure(lambda found: found["a"] * len(found["k"])),
    )
    assert len(lower(graph, get_execution_options()).tasks) == 1
    assert float(run(graph, x=1.0)) == 8.0


def test_optional_inputs_may_be_missing() -> None:
    graph = chain(xcs.pure(lambda x, y=10.0: x + y), xcs.pure(lambda z: z * 2))
    assert float(run(graph, x=1.0)) == 22.0
    assert float(run(graph, x=1.0, y=2.0)) == 6.0
    assert float(run(graph, x=1.0)) == 22.0


def test_constants_of_python_are_constants_in_the_region() -> None:
    graph = xcs.XCSGraph()
    node = graph.add_node(xcs.pure(lambda x, n, flip: jnp.tile(-x if flip else x, n)), "n",
                          constants={"n": 3, "flip": True})  # fmt: skip
    graph.connect(graph.input("x"), node.inputs["x"])
    assert plain(run(graph, x=2)) == [-2, -2, -2]


def test_weak_types_are_those_of_python_numbers() -> None:
    graph = chain(xcs.pure(lambda x: x * jnp.ones(2, jnp.bfloat16)))
    assert run(graph, x=2.0).dtype == jnp.bfloat16


# Compilation


def test_a_region_is_compiled_anew_only_for_other_shapes() -> None:
    counted = Counted(lambda x: x + 1)
    graph = chain(counted.operator)
    for size in (2, 3, 2, 3, 2):
        run(graph, x=np.ones(size))
    assert counted.count == 2


def test_concurrent_first_calls_compile_once() -> None:
    entered = threading.Barrier(4)
    counted = Counted(lambda x: x + 1)
    graph = chain(counted.operator)

    def call(k: int) -> float:
        entered.wait(timeout=20)
        return float(run(graph, x=float(k)))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(call, range(4))) == [1.0, 2.0, 3.0, 4.0]
    assert counted.count == 1


def test_two_plans_of_one_graph_in_threads() -> None:
    graph = chain(xcs.pure(lambda x: x + 1), xcs.host(number), xcs.pure(lambda x: -x))
    options = [{"passes": ()}, {"passes": ("fusion",)}]

    def call(k: int) -> float:
        result = xcs.execute_graph(graph, {"x": float(k)}, options=options[k % 2])
        return float(result["n2"])

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(call, range(20))) == [-(k + 1.0) for k in range(20)]


@xcs.host
def same(x: float) -> float:
    return x


def test_warming_up_is_the_compilation_that_the_call_needs() -> None:
    program = xcs.jit.trace(lambda x: jnp.sin(same(x)) * 2.0)
    graph = program.graph(1.0)
    plan = lower(graph, get_execution_options())
    (region,) = (task.run for task in plan.tasks if task.kind is TaskKind.REGION)
    compiled = []
    region_compute = region.compute
    region.compute = lambda values: compiled.append(1) or region_compute(values)
    assert region.can_warm
    region.warm()
    assert float(region(np.float32(0.5))) == pytest.approx(2 * np.sin(0.5))
    assert len(compiled) == 1


def test_warming_up_and_calling_at_once_compile_once() -> None:
    program = xcs.jit.trace(lambda x: jnp.sin(same(x)) * 2.0)
    plan = lower(program.graph(1.0), get_execution_options())
    (region,) = (task.run for task in plan.tasks if task.kind is TaskKind.REGION)
    compiled = []
    region_compute = region.compute
    region.compute = lambda values: compiled.append(1) or region_compute(values)
    with ThreadPoolExecutor(4) as pool:
        warmed = pool.submit(region.warm)
        results = list(pool.map(region, [np.float32(0.5)] * 8))
        warmed.result()
    assert {float(found) for found in results} == {float(results[0])}
    assert len(compiled) == 1


def test_a_region_whose_shapes_are_not_known_is_not_warmed() -> None:
    graph = chain(xcs.host(lambda x: x), xcs.pure(lambda x: x + 1))
    (region,) = regions(graph)
    assert not region.can_warm
    assert lower(graph, get_execution_options()).warmups == ()
    region.warm()


# Host values in regions


@xcs.host
def say(k: int) -> str:
    return f"text {k}"


def test_host_values_are_chosen_in_regions() -> None:
    @xcs.jit.trace
    def program(scores):
        texts = jax.vmap(say)(jnp.arange(3))
        order = jnp.argsort(-scores)
        return texts[order[0]], texts[order[:2]], jnp.where(scores[0] > 1, texts[0], texts[1])

    best, two, one = program(jnp.array([0.5, 2.0, 1.0]))
    assert (best, list(two), one) == ("text 1", ["text 1", "text 2"], "text 1")


def test_batched_host_values_go_through_regions() -> None:
    @xcs.jit.trace
    def program(ks):
        return jax.vmap(lambda row: jax.vmap(say)(row)[::-1])(ks)

    assert plain(program(jnp.arange(6).reshape(2, 3))) == [
        ["text 2", "text 1", "text 0"],
        ["text 5", "text 4", "text 3"],
    ]


def test_any_object_can_be_a_host_value() -> None:
    box = Box(1)
    values = [None, box, [1, 2], {"a": 1}, np.arange(3), "text"]
    make = xcs.host(lambda k: values[int(k)])

    @xcs.jit.trace
    def program(k):
        found = jax.vmap(make)(jnp.arange(len(values)))
        return found[k]

    for k, value in enumerate(values):
        assert program(k) is value


# Errors


def test_an_error_names_the_node_in_the_region_and_has_the_users_as_its_cause() -> None:
    error = KeyError("mine")

    def fail(x):
        raise error

    graph = chain(xcs.pure(lambda x: x + 1), xcs.pure(fail), xcs.pure(lambda x: x))
    with pytest.raises(xcs.NodeExecutionError, match="'n1'") as caught:
        run(graph, x=1.0)
    assert caught.value.__cause__ is error
    assert caught.value.node_id == "n1"


@pytest.mark.parametrize("inputs", [{"x": 1.0, "s": 2.0}, {"x": 1.0, "s": "text"}])
def test_type_errors_of_the_user_are_not_taken_for_static_values(inputs) -> None:
    calls = []

    def fail(x, s):
        calls.append(1)
        raise TypeError("mine")

    graph = xcs.XCSGraph()
    graph.add_node(xcs.pure(fail), "n")
    with pytest.raises(xcs.NodeExecutionError, match="TypeError: mine") as caught:
        xcs.execute_graph(graph, inputs)
    assert isinstance(caught.value.__cause__, TypeError)
    assert calls == [1]


def test_an_error_that_comes_of_values_comes_at_each_call() -> None:
    graph = xcs.XCSGraph()
    graph.add_node(xcs.pure(lambda x, y: x @ y), "n")
    for _ in range(2):
        with pytest.raises(xcs.NodeExecutionError, match="'n'"):
            xcs.execute_graph(graph, {"x": np.ones(2), "y": np.ones(3)})
    assert float(run(graph, x=np.ones(2), y=np.ones(2))) == 2.0


def test_a_field_that_is_not_there_names_the_node() -> None:
    graph = xcs.XCSGraph()
    a = graph.add_node(xcs.pure(lambda x: {"y": x}), "a")
    b = graph.add_node(xcs.pure(lambda z: z), "b")
    graph.connect(a.outputs["w"], b.inputs["z"])
    with pytest.raises(xcs.NodeExecutionError, match="no field 'w'"):
        xcs.execute_graph(graph, {"x": 1.0})


@pytest.mark.parametrize("returns", [float, str])
def test_a_pure_operator_that_calls_a_host_operator_is_told_so(returns) -> None:
    def inner(x):
        return x

    inner.__annotations__["return"] = returns
    call = xcs.host(inner)

    def calls_it(x):
        return call(x)

    graph = chain(xcs.pure(lambda x: x + 1), xcs.pure(calls_it))
    with pytest.raises(xcs.NodeExecutionError, match=r"'inner'.*declared pure") as caught:
        run(graph, x=1.0)
    assert isinstance(caught.value.__cause__, xcs.TracingError)


def test_where_runs_go_on_other_regions_still_give_their_results() -> None:
    def fail(x):
        raise ValueError("no")

    graph = xcs.XCSGraph()
    graph.add_node(xcs.host(number), "call")
    bad = graph.add_node(xcs.pure(fail), "bad")
    graph.connect("call", bad.inputs["x"])
    graph.add_node(xcs.pure(lambda x: x + 1), "good")
    result = xcs.execute_graph(graph, {"x": 1.0}, options={"on_error": "continue"})
    assert float(result["good"]) == 2.0
    assert set(result.errors) == {"bad"}
