"""``pmap`` over eight simulated devices, and over workers of this process."""

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

DEVICES = jax.devices()


def wave(x):
    return jnp.tanh(x) * 2 + x.sum()


def rows(length: int, width: int = 3) -> jax.Array:
    return jnp.arange(float(length * width)).reshape(length, width)


def same(found, expected) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected
    )


@xcs.host
def doubled(v: float) -> float:
    return v * 2


@xcs.host
def shout(text: str) -> str:
    return text.upper()


# ------------------------------------------------------------------ numeric, over the devices


@pytest.mark.parametrize("length", [0, 1, 3, 7, 8, 9, 16, 17])
def test_a_batch_of_any_length_gives_what_vmap_gives_and_no_padding(length) -> None:
    same(xcs.pmap(wave)(rows(length)), jax.vmap(wave)(rows(length)))


@pytest.mark.parametrize("length", [8, 16, 10])
def test_results_lie_on_all_devices(length) -> None:
    assert xcs.pmap(wave)(rows(length)).sharding.device_set == set(DEVICES)


def test_each_device_holds_its_own_rows() -> None:
    shards = xcs.pmap(wave)(rows(16)).addressable_shards
    assert sorted(shard.index[0].start for shard in shards) == list(range(0, 16, 2))


def test_padding_repeats_a_row_and_so_makes_no_nan_of_its_own() -> None:
    jax.config.update("jax_debug_nans", True)
    try:
        found = xcs.pmap(lambda x: 1 / x)(jnp.arange(1.0, 11.0))
    finally:
        jax.config.update("jax_debug_nans", False)
    same(found, 1 / jnp.arange(1.0, 11.0))


@given(
    length=st.integers(0, 20),
    axis=st.sampled_from([0, 1, -1]),
    shared=st.booleans(),
    chunk=st.sampled_from([None, 1, 2, 5]),
)
def test_pytrees_axes_and_chunks_give_what_vmap_gives(length, axis, shared, chunk) -> None:
    batch = {"a": jnp.moveaxis(rows(length), 0, axis), "b": (rows(length),)}
    other = jnp.float32(3) if shared else rows(length)
    in_axes = ({"a": axis, "b": 0}, None if shared else 0)

    def f(tree, y):
        return {"s": tree["a"] * y, "t": [tree["b"][0].sum()]}

    found = xcs.pmap(f, in_axes=in_axes, chunk_size=chunk)(batch, other)
    same(found, jax.vmap(f, in_axes=in_axes)(batch, other))


def test_a_list_of_numbers_is_a_batch() -> None:
    same(xcs.pmap(jnp.tanh)([1.0, 2.0, 3.0]), jnp.tanh(jnp.array([1.0, 2.0, 3.0])))


@pytest.mark.parametrize("count", [1, 3, 4])
def test_devices_are_those_given(count) -> None:
    chosen = DEVICES[2 : 2 + count]
    found = xcs.pmap(wave, devices=chosen)(rows(10))
    assert found.sharding.device_set == set(chosen)
    same(found, jax.vmap(wave)(rows(10)))


def test_devices_may_be_a_mesh() -> None:
    mesh = xcs.DeviceMesh(DEVICES[:4])
    for given_as in (mesh, mesh.jax_mesh):
        found = xcs.pmap(wave, devices=given_as)(rows(8))
        assert found.sharding.device_set == set(DEVICES[:4])


def test_arrays_bound_to_other_devices_are_moved() -> None:
    elsewhere = jax.device_put(rows(10), DEVICES[5])
    also = xcs.pmap(jnp.tanh)(rows(16))[:10]
    mapped = xcs.pmap(lambda a, b: a + b, devices=DEVICES[:4])
    for _ in range(2):  # the second call goes the short way
        same(mapped(elsewhere, also), rows(10) + also)


@pytest.mark.parametrize("wrong", [[], [1], DEVICES[0], [DEVICES[0], DEVICES[0]]])
def test_wrong_devices_are_refused(wrong) -> None:
    with pytest.raises(xcs.TransformError, match="devices="):
        xcs.pmap(wave, devices=wrong)


def test_batches_of_different_lengths_are_named() -> None:
    with pytest.raises(xcs.TransformError, match="a has 10, b has 3"):
        xcs.pmap(lambda a, b: a + b)(rows(10), rows(3))


def test_a_call_that_is_wrong_after_one_that_was_right_has_its_message() -> None:
    mapped = xcs.pmap(lambda a, b: a + b)
    mapped(rows(4), rows(4))
    with pytest.raises(xcs.TransformError, match="a has 4, b has 3"):
        mapped(rows(4), rows(3))


@pytest.mark.parametrize(
    "setting",
    [{"num_workers": 0}, {"chunk_size": True}, {"executor": "gpu"}, {"on_error": "ignore"}],
    ids=lambda setting: next(iter(setting)),
)
def test_settings_that_cannot_be_are_refused(setting) -> None:
    with pytest.raises(xcs.TransformError, match=next(iter(setting))):
        xcs.pmap(wave, **setting)


def test_explain_counts_the_devices() -> None:
    assert "over 8 devices" in str(xcs.pmap(wave).explain(rows(3)))
    total = xcs.pmap(lambda x: jax.lax.psum(x, "i"), axis_name="i")
    assert "over 5 devices" in str(total.explain(rows(10)))


def test_jit_vmap_grad_and_nesting_give_what_vmap_gives() -> None:
    mapped, cube = xcs.pmap(wave), jnp.ones((3, 10, 2))
    same(jax.jit(mapped)(rows(10)), jax.vmap(wave)(rows(10)))
    same(xcs.vmap(mapped)(cube), jax.vmap(jax.vmap(wave))(cube))
    same(xcs.pmap(mapped)(cube), jax.vmap(jax.vmap(wave))(cube))
    found = jax.grad(lambda x: mapped(x).sum())(rows(10))
    same(found, jax.grad(lambda x: jax.vmap(wave)(x).sum())(rows(10)))


def test_acall_gives_what_a_call_gives() -> None:
    same(asyncio.run(xcs.pmap(wave).acall(rows(10))), jax.vmap(wave)(rows(10)))


# ---------------------------------------------------------------------------- collectives


def ring(length: int):
    return [(k, (k + 1) % length) for k in range(length)]


COLLECTIVES = {
    "psum": lambda n: lambda x: jax.lax.psum(x, "i"),
    "pmean of some": lambda n: lambda x: x - jax.lax.pmean(x, "i"),
    "all_gather": lambda n: lambda x: jax.lax.all_gather(x, "i"),
    "axis_index": lambda n: lambda x: x + jax.lax.axis_index("i"),
    "ppermute": lambda n: lambda x: jax.lax.ppermute(x, "i", ring(n)),
    "psum_scatter": lambda n: lambda x: jax.lax.psum_scatter(jnp.arange(float(n)) * x[0], "i"),
}


@pytest.mark.parametrize("length", [1, 7, 8, 10, 16])
@pytest.mark.parametrize("name", COLLECTIVES)
def test_collectives_count_every_row_once(name, length) -> None:
    f = COLLECTIVES[name](length)
    same(xcs.pmap(f, axis_name="i")(rows(length)), jax.vmap(f, axis_name="i")(rows(length)))


@pytest.mark.parametrize(("length", "count"), [(1, 1), (4, 4), (8, 8), (10, 5), (11, 1), (16, 8)])
def test_a_named_axis_has_as_many_devices_as_divide_it(length, count) -> None:
    found = xcs.pmap(lambda x: x + jax.lax.psum(x, "i"), axis_name="i")(rows(length))
    assert len(found.sharding.device_set) == count


def test_a_permutation_of_some_rows_leaves_zeros_as_in_jax_pmap() -> None:
    def f(x):
        return jax.lax.ppermute(x, "i", [(0, 7), (1, 0)])

    same(xcs.pmap(f, axis_name="i")(rows(8)), jax.pmap(f, axis_name="i")(rows(8)))


@pytest.mark.parametrize("length", [4, 7, 10])
def test_a_named_axis_takes_arrays_that_lie_on_all_devices(length) -> None:
    def f(x):
        return jax.lax.psum(x, "i") - x

    everywhere = xcs.pmap(jnp.tanh)(rows(16))[:length]
    expected = jax.vmap(f, axis_name="i")(np.asarray(everywhere))
    same(xcs.pmap(f, axis_name="i")(everywhere), expected)
    same(jax.jit(xcs.pmap(f, axis_name="i"))(everywhere), expected)


def test_two_names_of_nested_maps_stay_apart() -> None:
    def f(x):
        return jax.lax.psum(x, "i") + 10 * jax.lax.pmax(x, "j")

    nested = xcs.pmap(xcs.pmap(f, axis_name="j"), axis_name="i")
    expected = jax.vmap(jax.vmap(f, axis_name="j"), axis_name="i")(jnp.ones((8, 4)))
    same(nested(jnp.ones((8, 4))), expected)


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(NameError, match="j"):
        xcs.pmap(lambda x: jax.lax.psum(x, "j"), axis_name="i")(rows(8))


def test_a_named_axis_with_chunks_or_an_executor_is_refused() -> None:
    for setting in ({"chunk_size": 2}, {"executor": "thread"}):
        with pytest.raises(xcs.TransformError, match="needs all elements at once"):
            xcs.pmap(wave, axis_name="i", **setting)


def test_many_unawaited_calls_with_collectives_do_not_hang() -> None:
    total = xcs.pmap(lambda x: jax.lax.psum(x, "i"), axis_name="i")
    found = [total(jnp.full(8, float(k))) for k in range(150)]
    assert [float(result[0]) for result in found] == [8.0 * k for k in range(150)]


def test_many_unawaited_mixed_calls_with_collectives_do_not_hang() -> None:
    total = xcs.pmap(lambda x: jax.lax.psum(doubled(x) * 1.0, "i"), axis_name="i")
    found = [total(jnp.full(8, float(k))) for k in range(80)]
    assert [float(result[0]) for result in found] == [16.0 * k for k in range(80)]


# ---------------------------------------------------------------- numeric and host work mixed


def mixed(x):
    return doubled(jnp.tanh(x)) + x


@pytest.mark.parametrize("length", [1, 7, 8, 10])
def test_a_mixed_function_gives_what_the_loop_gives(length) -> None:
    batch = jnp.arange(float(length))
    same(xcs.pmap(mixed)(batch), jnp.stack([jnp.asarray(mixed(x)) for x in batch]))


def test_the_regions_of_a_mixed_function_are_spread() -> None:
    assert xcs.pmap(mixed)(jnp.arange(16.0)).sharding.device_set == set(DEVICES)


@pytest.mark.parametrize("length", [7, 8, 10])
def test_collectives_take_what_host_calls_give(length) -> None:
    found = xcs.pmap(lambda x: jax.lax.psum(doubled(x), "i"), axis_name="i")(
        jnp.arange(float(length))
    )
    same(found, jnp.full(length, float(length * (length - 1))))


# ------------------------------------------------------------------------------- host work


class Together:
    """An operator that waits until so many calls are in flight, and counts the most."""

    def __init__(self, parties: int) -> None:
        self.barrier = threading.Barrier(parties)
        self.lock = threading.Lock()
        self.now = self.most = 0

    def __call__(self, x: int) -> int:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.barrier.wait(30)
        with self.lock:
            self.now -= 1
        return -x


@pytest.mark.parametrize("executor", [None, "thread"])
def test_num_workers_bounds_how_many_calls_are_in_flight_and_reaches_it(executor) -> None:
    together = Together(3)
    operator = xcs.host(together)
    found = xcs.pmap(operator, num_workers=3, executor=executor)([1, 2, 3, 4, 5, 6])
    assert list(found) == [-1, -2, -3, -4, -5, -6]
    assert together.most == 3


def test_without_a_bound_all_calls_are_in_flight() -> None:
    together = Together(40)
    assert xcs.pmap(together, executor="thread")(list(range(40)))
    assert together.most == 40


def test_num_workers_bounds_async_calls() -> None:
    now = most = 0

    async def count(text: str) -> str:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        now -= 1
        return text * 2

    found = xcs.pmap(count, executor="async", num_workers=4)([str(k) for k in range(20)])
    assert found == [str(k) * 2 for k in range(20)]
    assert most == 4


@pytest.mark.parametrize("chunk_size", [None, 1, 2, 5, 100])
def test_chunks_keep_the_order(chunk_size) -> None:
    texts = [f"t{k}" for k in range(7)]
    assert xcs.pmap(shout, chunk_size=chunk_size)(texts) == [text.upper() for text in texts]


def test_the_elements_of_a_chunk_are_called_by_one_worker() -> None:
    def who(text: str) -> str:
        return threading.current_thread().name

    found = xcs.pmap(who, executor="thread", chunk_size=3)(["a"] * 9)
    assert all(len(set(found[k : k + 3])) == 1 for k in (0, 3, 6))


def test_chunks_of_async_calls_run_in_turn() -> None:
    order = []

    async def note(text: str) -> str:
        order.append(("begin", text))
        await asyncio.sleep(0)
        order.append(("end", text))
        return text

    xcs.pmap(note, chunk_size=3)(["a", "b", "c"])
    assert order == [(what, text) for text in "abc" for what in ("begin", "end")]


def test_chunks_of_a_mixed_function_are_refused_with_a_remedy() -> None:
    with pytest.raises(xcs.TransformError, match="num_workers"):
        xcs.pmap(mixed, chunk_size=2)(jnp.arange(4.0))


def test_an_executor_that_does_not_fit_the_function_is_refused() -> None:
    async def later(text: str) -> str:
        return text

    with pytest.raises(xcs.TransformError, match="async def"):
        xcs.pmap(later, executor="thread")
    with pytest.raises(xcs.TransformError, match="async def"):
        xcs.pmap(shout, executor="async")


# ----------------------------------------------------------------------------------- errors


def no_b(text: str) -> str:
    if text == "b":
        raise ValueError("no b")
    return text.upper()


@xcs.host(executor="inline")
def inline_no_b(text: str) -> str:
    return no_b(text)


@xcs.host
async def async_no_b(text: str) -> str:
    return no_b(text)


@pytest.mark.parametrize("function", [no_b, xcs.host(no_b), inline_no_b, async_no_b])
def test_an_error_names_the_element_and_has_its_cause(function) -> None:
    with pytest.raises(xcs.NodeExecutionError, match=r"element 1: ValueError: no b") as caught:
        xcs.pmap(function)(["a", "b", "c"])
    assert isinstance(caught.value.__cause__, ValueError)


def test_an_error_in_a_chunk_notes_the_element() -> None:
    with pytest.raises(xcs.NodeExecutionError, match="elements 0 to 1") as caught:
        xcs.pmap(no_b, chunk_size=2)(["a", "b", "c"])
    assert caught.value.__cause__.__notes__ == ["it was element 1 of the batch"]


@pytest.mark.parametrize("chunk_size", [None, 1, 2, 3])
@pytest.mark.parametrize("function", [no_b, xcs.host(no_b), inline_no_b, async_no_b])
def test_on_error_return_puts_the_exception_in_its_place(function, chunk_size) -> None:
    found = xcs.pmap(function, on_error="return", chunk_size=chunk_size)(["a", "b", "c"])
    assert found[0] == "A"
    assert isinstance(found[1], ValueError)
    assert found[2] == "C"


def test_on_error_return_stands_for_a_whole_result() -> None:
    def share(x: int) -> dict[str, float]:
        return {"share": 1 / x}

    first, failed, last = xcs.pmap(share, executor="thread", on_error="return")([1, 0, 2])
    assert (first, last) == ({"share": 1.0}, {"share": 0.5})
    assert isinstance(failed, ZeroDivisionError)


def test_on_error_return_without_an_error_gives_what_raise_gives() -> None:
    same(xcs.pmap(wave, on_error="return")(rows(10)), jax.vmap(wave)(rows(10)))
    same(xcs.pmap(mixed, on_error="return")(jnp.arange(4.0)), xcs.pmap(mixed)(jnp.arange(4.0)))


@pytest.mark.parametrize("kind", ["thread", "async"])
def test_on_error_return_keeps_a_call_that_takes_too_long(kind) -> None:
    over = threading.Event()

    def wait(text: str) -> str:
        if text == "b":
            over.wait(30)
        return text

    async def await_it(text: str) -> str:
        if text == "b":
            await asyncio.sleep(30)
        return text

    operator = xcs.host(timeout=0.2)(wait if kind == "thread" else await_it)
    try:
        found = xcs.pmap(operator, on_error="return")(["a", "b", "c"])
    finally:
        over.set()
    assert (found[0], found[2]) == ("a", "c")
    assert isinstance(found[1], xcs.ExecutionTimeout)


def test_a_deadline_of_the_run_still_ends_it() -> None:
    over = threading.Event()
    mapped = xcs.pmap(lambda text: over.wait(30), executor="thread", on_error="return")
    try:
        with pytest.raises(xcs.ExecutionTimeout), xcs.execution_options(timeout_seconds=0.2):
            mapped(["a", "b"])
    finally:
        over.set()


def test_a_named_axis_of_host_work_is_refused_with_the_reason() -> None:
    with pytest.raises(xcs.TransformError, match="one by one"):
        xcs.pmap(no_b, axis_name="i")(["a"])
