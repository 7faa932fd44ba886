"""``mesh_sharded`` over eight simulated devices: numeric, host and mixed functions."""

from __future__ import annotations

import asyncio
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ember_xcs as xcs
from ember_xcs import DeviceMesh, PartitionSpec, mesh_sharded

DEVICES = jax.devices()
ROW = DeviceMesh(shape={"x": 8})
GRID = DeviceMesh(shape={"r": 2, "c": 4})
P = jax.P


def wave(x):
    return jnp.tanh(x) * 2 + x


def plane(*shape: int) -> jax.Array:
    return jnp.arange(float(np.prod(shape))).reshape(shape) / 7


def same(found, expected) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected
    )


def by_jax(f, mesh: DeviceMesh, in_specs, out_specs):
    return jax.jit(jax.shard_map(f, mesh=mesh.jax_mesh, in_specs=in_specs, out_specs=out_specs))


# ---------------------------------------------------------------------------------- numeric

PROGRAMS = {
    "rows": (ROW, wave, P("x"), P("x")),
    "columns": (ROW, wave, P(None, "x"), P(None, "x")),
    "both axes": (GRID, wave, P("r", "c"), P("r", "c")),
    "both axes, turned": (GRID, lambda x: x.T, P("r", "c"), P("c", "r")),
    "a tuple of axes": (GRID, wave, P(("c", "r")), P(("c", "r"))),
    "uncut": (GRID, wave, P(), P()),
    "psum": (GRID, lambda x: jax.lax.psum(x.sum(), ("r", "c")), P("r", "c"), P()),
    "psum over one axis": (GRID, lambda x: jax.lax.psum(x, "c"), P("r", "c"), P("r")),
    "all_gather": (
        ROW,
        lambda x: jax.lax.all_gather(x, "x", tiled=True) * (1.0 + jax.lax.axis_index("x")),
        P("x"),
        P("x"),
    ),
    "ppermute": (
        ROW,
        lambda x: jax.lax.ppermute(x, "x", [(k, (k + 1) % 8) for k in range(8)]),
        P("x"),
        P("x"),
    ),
    "axis_index": (
        GRID,
        lambda x: x + 10 * jax.lax.axis_index("r") + jax.lax.axis_index("c"),
        P(("c", "r")),
        P(("c", "r")),
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_numeric_programs_give_what_shard_map_gives_and_lie_as_there(name) -> None:
    mesh, f, in_specs, out_specs = PROGRAMS[name]
    found = mesh_sharded(f, mesh, in_specs, out_specs)(plane(8, 8))
    expected = by_jax(f, mesh, in_specs, out_specs)(plane(8, 8))
    same(found, expected)
    assert found.sharding == expected.sharding


SPECS = st.sampled_from(
    [P(), P("r"), P(None, "c"), P("c", "r"), P(("r", "c")), P(None, ("c", "r"))]
)


@given(a=SPECS, b=SPECS)
def test_trees_of_specs_give_what_shard_map_gives(a, b) -> None:
    def f(tree, y):
        return {"s": tree["a"] * 2, "t": (tree["b"] + 1, y)}

    in_specs, out_specs = ({"a": a, "b": b}, P("r")), {"s": a, "t": (b, P("r"))}
    args = ({"a": plane(8, 8), "b": plane(8, 16)}, plane(4))
    found = mesh_sharded(f, GRID, in_specs, out_specs)(*args)
    expected = by_jax(f, GRID, in_specs, out_specs)(*args)
    same(found, expected)
    assert jax.tree.map(lambda x: x.sharding.spec, found) == jax.tree.map(
        lambda x: x.sharding.spec, expected
    )


def test_positions_and_names_are_the_same_specs() -> None:
    by_position = mesh_sharded(wave, GRID, partition_spec=PartitionSpec(1, 0))(plane(8, 8))
    assert by_position.sharding.spec == P("c", "r")
    by_both = mesh_sharded(wave, GRID, partition_spec=PartitionSpec((0, "c")))(plane(8, 8))
    assert by_both.sharding.spec == P(("r", "c"))


def test_one_spec_stands_for_a_whole_tree() -> None:
    tree = {"a": plane(8), "b": [plane(16)]}
    found = mesh_sharded(lambda t: jax.tree.map(wave, t), ROW, partition_spec=P("x"))(tree)
    same(found, jax.tree.map(wave, tree))


@pytest.mark.parametrize(
    "in_specs",
    [P("x"), {"x": P("x"), "y": P("x")}, {"x": P("x"), "y": None}, (P("x"),)],
    ids=str,
)
def test_keywords_are_cut_by_the_one_spec_or_by_name(in_specs) -> None:
    sizes = []

    def f(x, *, y):
        sizes.append(y.shape)
        return x + y.sum()

    mesh_sharded(f, ROW, in_specs, P("x"))(plane(8), y=plane(16))
    is_cut = in_specs == P("x") or (isinstance(in_specs, dict) and in_specs["y"])
    assert set(sizes) == {(2,) if is_cut else (16,)}


def test_a_list_of_numbers_is_an_array() -> None:
    same(mesh_sharded(wave, ROW, partition_spec=P("x"))([1.0] * 16), wave(jnp.ones(16)))


@pytest.mark.parametrize("types", ["auto", "explicit"])
def test_a_mesh_of_jax_will_do(types) -> None:
    kind = {"auto": jax.sharding.AxisType.Auto, "explicit": jax.sharding.AxisType.Explicit}[types]
    mesh = jax.make_mesh((8,), ("x",), (kind,))
    found = mesh_sharded(wave, mesh, partition_spec=P("x"))(plane(16))
    same(found, wave(plane(16)))
    assert len(found.sharding.device_set) == 8


def test_a_submesh_uses_its_devices_alone() -> None:
    found = mesh_sharded(wave, GRID.get_submesh(r=1), partition_spec=P("c"))(plane(8))
    assert found.sharding.device_set == set(DEVICES[4:])


def test_arrays_bound_to_other_devices_are_moved() -> None:
    sharded = mesh_sharded(lambda a, b: a + b, GRID.get_submesh(r=1), partition_spec=P("c"))
    one, all_of_them = jax.device_put(plane(8), DEVICES[0]), xcs.pmap(wave)(plane(8))
    for _ in range(2):
        same(sharded(one, all_of_them), plane(8) + wave(plane(8)))


def test_jit_vmap_pmap_grad_and_nesting_give_plain_results() -> None:
    sharded = mesh_sharded(wave, ROW, partition_spec=P("x"))
    same(jax.jit(sharded)(plane(8)), wave(plane(8)))
    same(xcs.jit(sharded)(plane(8)), wave(plane(8)))
    same(xcs.vmap(sharded)(plane(3, 8)), wave(plane(3, 8)))
    same(xcs.pmap(sharded)(plane(3, 8)), wave(plane(3, 8)))
    same(mesh_sharded(xcs.jit(wave), ROW, partition_spec=P("x"))(plane(8)), wave(plane(8)))
    same(mesh_sharded(xcs.vmap(wave), ROW, partition_spec=P("x"))(plane(8)), wave(plane(8)))
    inner = mesh_sharded(wave, GRID, partition_spec=P("c"))
    same(mesh_sharded(inner, GRID, partition_spec=P("r"))(plane(16)), wave(plane(16)))
    total = mesh_sharded(lambda x: jax.lax.psum((x**2).sum(), "x"), ROW, P("x"), P())
    same(jax.grad(total)(plane(8)), 2 * plane(8))


def test_acall_gives_what_a_call_gives() -> None:
    sharded = mesh_sharded(wave, ROW, partition_spec=P("x"))
    same(asyncio.run(sharded.acall(plane(8))), wave(plane(8)))


def test_many_unawaited_calls_with_collectives_do_not_hang() -> None:
    total = mesh_sharded(lambda x: jax.lax.psum(x.sum(), "x"), ROW, P("x"), P())
    found = [total(jnp.full(8, float(k))) for k in range(150)]
    assert list(map(float, found)) == [8.0 * k for k in range(150)]


def test_as_a_decorator() -> None:
    @mesh_sharded(mesh=ROW, partition_spec=P("x"))
    def doubled(x):
        return 2 * x

    same(doubled(plane(8)), 2 * plane(8))


# ----------------------------------------------------------------------------------- misuse


def test_a_size_that_does_not_divide_says_everything() -> None:
    with pytest.raises(xcs.TransformError) as caught:
        mesh_sharded(wave, ROW, partition_spec=P("x"))(plane(10))
    assert str(caught.value) == (
        "axis 0 of x, which is float32[10], has size 10, and that does not divide over mesh axis "
        "'x' (size 8): pad it to a multiple of 8, use a mesh that divides it, or use xcs.pmap, "
        "which takes batches of any length."
    )


def test_a_size_that_does_not_divide_names_the_leaf_and_all_its_axes() -> None:
    sharded = mesh_sharded(lambda data: data["k"], GRID, {"data": P(("r", "c"))}, P("r"))
    with pytest.raises(xcs.TransformError, match=r"data\['k'\].*'r' \(size 2\), 'c' \(size 4\)"):
        sharded(data={"k": plane(10)})


@pytest.mark.parametrize("values", [["a"] * 3, [1.0] * 3])
def test_a_list_that_does_not_divide_is_refused(values) -> None:
    with pytest.raises(xcs.TransformError, match="has size 3, and that does not divide"):
        mesh_sharded(lambda x: x, ROW, partition_spec=P("x"))(values)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"partition_spec": P("foo")}, "names mesh axis 'foo', and the mesh has the axes 'x'"),
        ({"partition_spec": PartitionSpec(1)}, "names mesh axis 1"),
        ({"partition_spec": P("x", "x")}, "twice"),
        ({"in_specs": "x", "out_specs": P()}, "is no PartitionSpec"),
        ({"in_specs": P("x")}, "needs out_specs"),
        ({}, "needs in_specs"),
        ({"in_specs": P("x"), "partition_spec": P("x")}, "not both"),
        ({"mesh": None, "partition_spec": P("x")}, "needs a mesh"),
        ({"mesh": 8, "partition_spec": P("x")}, "is to be an xcs.DeviceMesh"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message) -> None:
    with pytest.raises(xcs.TransformError, match=message):
        mesh_sharded(wave, **{"mesh": ROW, **settings})


@pytest.mark.parametrize(
    ("in_specs", "args", "message"),
    [
        (P("x", None), (plane(8),), "with 1 axes, and its PartitionSpec .* is for 2"),
        ((P("x"),), (plane(8), plane(8)), "has 2 positional arguments"),
        ({"z": P("x")}, (plane(8),), "'z', which is no argument"),
        (({"j": P("x")},), ({"k": plane(8)},), "Dict key mismatch"),
    ],
)
def test_specs_that_do_not_fit_the_call_are_refused(in_specs, args, message) -> None:
    with pytest.raises(xcs.TransformError, match=message):
        mesh_sharded(lambda x, y=None: x, ROW, in_specs, P())(*args)


@pytest.mark.parametrize(
    ("f", "out_specs", "message"),
    [
        (lambda x: x.sum(), P(), "reduce over it"),
        (lambda x: x, P(), "reduce over it"),
        (lambda x: x.sum(), P("x"), "no more entries than its part"),
        (lambda x: (x, x), (P("x"),) * 3, "a tree that is a prefix"),
    ],
)
def test_results_that_do_not_fit_out_specs_are_refused(f, out_specs, message) -> None:
    with pytest.raises(xcs.TransformError, match=message):
        mesh_sharded(f, ROW, P("x"), out_specs)(plane(8))


def test_a_collective_over_an_unknown_axis_names_those_there_are() -> None:
    with pytest.raises((xcs.TransformError, NameError), match=r"'x'|unbound axis name: q"):
        mesh_sharded(lambda x: jax.lax.psum(x, "q"), ROW, partition_spec=P("x"))(plane(8))


def test_an_error_of_the_function_is_its_own() -> None:
    def wrong(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        mesh_sharded(wrong, ROW, partition_spec=P("x"))(plane(8))


# ---------------------------------------------------------------------------- host operators


class Calls:
    """What a host operator was given, in no order."""

    def __init__(self) -> None:
        self.lock, self.given = threading.Lock(), []

    def operator(self, f):
        def noting(value):
            with self.lock:
                self.given.append(value)
            return f(value)

        noting.__annotations__["return"] = f.__annotations__.get("return")
        return xcs.host(noting)


LETTERS = [f"{k:02}" for k in range(16)]
TABLE = [[f"{i}{j}" for j in range(8)] for i in range(4)]


def test_a_host_operator_has_one_call_for_each_shard_in_order() -> None:
    calls = Calls()
    shout = calls.operator(lambda texts: [text + "!" for text in texts])
    found = mesh_sharded(shout, ROW, partition_spec=P("x"))(LETTERS)
    assert found == [text + "!" for text in LETTERS]
    assert sorted(calls.given) == [LETTERS[k : k + 2] for k in range(0, 16, 2)]


@pytest.mark.parametrize(
    ("spec", "shape", "count"),
    [
        (P("r", "c"), (2, 2), 8),
        (P("c", "r"), (1, 4), 8),
        (P(None, ("c", "r")), (4, 1), 8),
        (P("r"), (2, 8), 2),
        (P(None, "c"), (4, 2), 4),
    ],
)
@pytest.mark.parametrize("kind", ["lists", "numpy", "jax"])
def test_tables_are_cut_and_put_together_on_a_grid(kind, spec, shape, count) -> None:
    make = {"lists": lambda x: x.astype(str).tolist(), "numpy": np.asarray, "jax": jnp.asarray}[
        kind
    ]
    table = make(np.arange(32).reshape(4, 8))
    calls = Calls()
    found = mesh_sharded(calls.operator(lambda part: part), GRID, partition_spec=spec)(table)
    assert [np.shape(part) for part in calls.given] == [shape] * count
    assert np.array_equal(found, table)
    assert (type(found) is list) == (kind == "lists")


def test_what_a_shard_has_is_what_shard_map_gives_it() -> None:
    calls = Calls()
    mesh_sharded(calls.operator(lambda part: part), GRID, partition_spec=P(("c", "r")))(plane(8))
    parts = by_jax(lambda x: x, GRID, P(("c", "r")), P(("c", "r")))(plane(8)).addressable_shards
    assert sorted(map(float, np.concatenate(calls.given))) == sorted(
        float(p.data[0]) for p in parts
    )
    assert len(calls.given) == 8


def test_the_calls_of_the_shards_overlap() -> None:
    barrier = threading.Barrier(8)

    def wait(texts):
        barrier.wait(30)
        return texts

    assert mesh_sharded(xcs.host(wait), ROW, partition_spec=P("x"))(LETTERS) == LETTERS


def test_async_operators_and_functions_and_acall() -> None:
    async def shout(texts):
        return [text + "!" for text in texts]

    expected = [text + "!" for text in LETTERS]
    for function in (shout, xcs.host(shout)):
        sharded = mesh_sharded(function, ROW, partition_spec=P("x"))
        assert sharded(LETTERS) == expected
        assert asyncio.run(sharded.acall(LETTERS)) == expected


def test_a_plain_function_of_lists_is_called_for_each_shard() -> None:
    def label(texts, values):
        return [f"{text}={float(v):g}" for text, v in zip(texts, values, strict=True)]

    found = mesh_sharded(label, ROW, partition_spec=P("x"))(LETTERS, jnp.arange(16.0))
    assert found == label(LETTERS, jnp.arange(16.0))


def test_results_are_trees_of_what_each_shard_gives() -> None:
    def study(texts):
        return {"texts": texts, "first": texts[0][0]}

    found = mesh_sharded(xcs.host(study), ROW, P("x"), {"texts": P("x"), "first": P()})(
        [f"a{k}" for k in range(8)]
    )
    assert found == {"texts": [f"a{k}" for k in range(8)], "first": "a"}


def test_shards_may_give_more_or_less_than_they_had() -> None:
    only_some = xcs.host(lambda texts: [text for text in texts if int(text) % 3 == 0] * 2)
    found = mesh_sharded(only_some, ROW, partition_spec=P("x"))(LETTERS)
    assert found == [text for k in range(0, 16, 2) for text in only_some(LETTERS[k : k + 2])]


@pytest.mark.parametrize(
    ("f", "out_specs", "message"),
    [
        (lambda texts: texts[0], P(), r"the same along mesh axis 'x', and shard \{'x': 1\}"),
        (lambda texts: texts[0], P("x"), "which has no such axis"),
        (lambda texts: {"a": texts} if texts[0] == "00" else texts, P("x"), "match in structure"),
        (lambda texts: texts, {"a": P("x")}, "does not fit the result"),
    ],
)
def test_results_that_cannot_be_put_together_are_refused(f, out_specs, message) -> None:
    with pytest.raises(xcs.TransformError, match=message):
        mesh_sharded(xcs.host(f), ROW, P("x"), out_specs)(LETTERS)


def test_an_error_names_the_shard_and_has_its_cause() -> None:
    def fail(texts):
        if "05" in texts:
            raise ValueError("no 05")
        return texts

    with pytest.raises(xcs.NodeExecutionError, match="shard 2: ValueError: no 05") as caught:
        mesh_sharded(xcs.host(fail), ROW, partition_spec=P("x"))(LETTERS)
    assert isinstance(caught.value.__cause__, ValueError)


# ----------------------------------------------------------------- numeric and host work mixed


def total(part) -> float:
    return float(np.sum(part))


def weighted(host_total):
    def f(x):
        return jnp.sin(x) * host_total(jnp.cos(x))

    return f


def loop(x: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """``weighted`` of each block of a table, in plain numpy."""
    return np.block(
        [
            [np.sin(block) * np.cos(block).sum() for block in np.split(band, columns, 1)]
            for band in np.split(x, rows, 0)
        ]
    )


@pytest.mark.parametrize(
    ("mesh", "spec", "blocks"),
    [(ROW, P("x"), (8, 1)), (GRID, P("r", "c"), (2, 4)), (GRID, P("c", "r"), (4, 2))],
)
def test_a_mixed_function_is_that_of_each_block_and_lies_on_the_mesh(mesh, spec, blocks) -> None:
    calls = Calls()
    sharded = mesh_sharded(weighted(calls.operator(total)), mesh, partition_spec=spec)
    for _ in range(2):
        calls.given.clear()
        found = sharded(plane(8, 8))
        same(found, loop(np.asarray(plane(8, 8)), *blocks))
        assert found.sharding.device_set == set(DEVICES)
        shape = (8 // blocks[0], 8 // blocks[1])
        assert [part.shape for part in calls.given] == [shape] * 8


@xcs.host
def host_total(part) -> float:
    return total(part)


@pytest.mark.parametrize(
    ("f", "out_specs"),
    [
        (lambda t, x: jax.lax.psum(t(x), "x"), P()),
        (lambda t, x: jax.lax.all_gather(t(x), "x"), P()),
        (lambda t, x: x * t(x) + jax.lax.axis_index("x"), P("x")),
        (lambda t, x: jax.lax.ppermute(x * t(x), "x", [(k, -k % 8) for k in range(8)]), P("x")),
        (lambda t, x: jax.lax.pmean(x, "x") + jax.lax.pmax(t(x), "x"), P()),
    ],
    ids=["psum", "all_gather", "axis_index", "ppermute", "pmean and pmax"],
)
def test_collectives_in_mixed_functions_are_those_of_numeric_ones(f, out_specs) -> None:
    found = mesh_sharded(lambda x: f(host_total, x), ROW, P("x"), out_specs)(plane(16))
    numeric = jax.shard_map(
        lambda x: f(jnp.sum, x),
        mesh=ROW.jax_mesh,
        in_specs=P("x"),
        out_specs=out_specs,
        check_vma=False,
    )
    same(found, jax.jit(numeric)(plane(16)))


def test_a_host_call_of_what_is_not_cut_is_made_once() -> None:
    calls = Calls()
    operator = calls.operator(total)
    sharded = mesh_sharded(lambda x, w: x * operator(w), ROW, (P("x"), P()), P("x"))
    same(sharded(plane(8), plane(3)), plane(8) * plane(3).sum())
    assert len(calls.given) == 1


def test_a_mixed_result_that_differs_where_out_specs_says_not_is_refused() -> None:
    with pytest.raises(xcs.TransformError, match="reduce over it, or name it"):
        mesh_sharded(weighted(host_total), ROW, P("x"), P())(plane(8))


def test_mixed_functions_within_jit_vmap_and_grad() -> None:
    f = weighted(host_total)
    sharded = mesh_sharded(f, ROW, partition_spec=P("x"))
    expected = loop(np.asarray(plane(16, 1)), 8, 1)[:, 0]
    same(xcs.jit(sharded)(plane(16)), expected)
    same(xcs.vmap(sharded)(jnp.stack([plane(16)] * 3)), np.stack([expected] * 3))
    found = xcs.grad(lambda w: (sharded(plane(16)) * w).sum())(1.0)
    same(found, jnp.float32(expected.sum()))


def test_many_unawaited_mixed_calls_with_collectives_do_not_hang() -> None:
    sharded = mesh_sharded(lambda x: jax.lax.psum(host_total(x), "x"), ROW, P("x"), P())
    found = [sharded(jnp.full(8, float(k))) for k in range(80)]
    assert list(map(float, found)) == [8.0 * k for k in range(80)]


def test_explain_says_how() -> None:
    def how(f, *args):
        return str(mesh_sharded(f, ROW, partition_spec=P("x")).explain(*args))

    assert "jit(shard_map)" in how(wave, plane(8))
    assert "one call for each shard" in how(weighted(host_total), plane(8))
    assert "a host operator gets one call" in how(host_total, plane(8))
