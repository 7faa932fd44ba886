"""Settings of JAX that hold in a context hold for what is called in it, on whatever thread."""

from __future__ import annotations

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ember_xcs as xcs


def third() -> float:
    return 1.0 / 3.0


def test_a_staged_function_is_traced_again_where_numbers_have_64_bits() -> None:
    ask = xcs.host(third)
    program = xcs.jit.trace(lambda x: ask() + jnp.asarray(x))
    narrow = program(1.0)
    with jax.enable_x64(True):
        wide = program(1.0)
    again = program(1.0)
    assert [r.dtype for r in (narrow, wide, again)] == [np.float32, np.float64, np.float32]
    assert float(wide) == 1.0 + 1.0 / 3.0
    assert program.stats()["misses"] == 2


@pytest.mark.parametrize("timeout", [None, 60.0])
def test_regions_in_pool_threads_have_the_settings_of_the_caller(timeout) -> None:
    barrier, seen = threading.Barrier(2), []

    def meet(x: float) -> float:
        barrier.wait(timeout=20)
        seen.append((threading.get_ident(), jax.config.jax_enable_x64))
        return x

    meets = [xcs.host(meet) for _ in range(2)]
    program = xcs.jit.trace(lambda x: [jnp.float64(1) / m(x) for m in meets])
    with jax.enable_x64(True), xcs.execution_options(timeout_seconds=timeout):
        results = program(3.0)
    assert [float(r) for r in results] == [1 / 3, 1 / 3]
    assert len({thread for thread, _ in seen}) == 2
    assert all(is_wide for _, is_wide in seen)
    assert not jax.config.jax_enable_x64


def test_a_graph_by_hand_is_planned_again_where_numbers_have_64_bits() -> None:
    graph = xcs.XCSGraph()
    number = graph.add_node(xcs.pure(lambda x: jnp.asarray(x) / 3), constants={"x": 1.0})
    graph.connect(number, graph.add_node(xcs.host(lambda value: value.dtype, name="dtype")))

    def dtype():
        return xcs.execute_graph(graph)["dtype"]

    assert dtype() == np.float32
    with jax.enable_x64(True):
        assert dtype() == np.float64
    assert dtype() == np.float32


def test_the_precision_of_matrix_products_and_the_device_follow_into_pool_threads() -> None:
    seen = []

    def look(x: float) -> float:
        config = jax.config
        seen.append((config.jax_default_matmul_precision, config.jax_default_device))
        return x

    looks = [xcs.host(look) for _ in range(3)]
    device = jax.devices()[-1]
    program = xcs.jit.trace(lambda x: sum(f(x) for f in looks))
    with (
        jax.default_matmul_precision("float32"),
        jax.default_device(device),
        xcs.execution_options(timeout_seconds=60.0),
    ):
        result = program(1.0)
    assert float(result) == 3.0
    assert seen == [("float32", device)] * 3
