"""How many programs with large arrays are in flight: two a worker, so that memory is freed."""

from __future__ import annotations

import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ember_xcs as xcs
from ember_xcs._lower.in_flight import LARGE_ARRAY_BYTES, has_large_arrays, keep_up

LENGTH = 6
LARGE = LARGE_ARRAY_BYTES // 4


def slowly(x: jax.Array, times: int = 10) -> jax.Array:
    """An array of the same shape, which takes JAX far longer than a dispatch."""
    return jax.lax.fori_loop(0, times, lambda _, y: jnp.sin(y) + jnp.cos(y), x)


@xcs.pure
def follow(x: jax.Array) -> jax.Array:
    return slowly(x)


@xcs.pure
def reduced(x: jax.Array) -> jax.Array:
    return slowly(x).sum()


@xcs.host
def load() -> np.ndarray:
    return np.zeros(LARGE, np.float32)


def chain(size: int = LARGE) -> xcs.XCSGraph:
    graph = xcs.XCSGraph("chain")
    node = graph.add_node(xcs.pure(lambda: slowly(jnp.zeros(size))), "n0")
    for k in range(1, LENGTH):
        following = graph.add_node(follow, f"n{k}")
        graph.connect(node, following.inputs["x"])
        node = following
    return graph


def reductions() -> xcs.XCSGraph:
    """Large arrays of host code, each of which becomes a number."""
    graph = xcs.XCSGraph("reductions")
    for k in range(LENGTH):
        graph.connect(
            graph.add_node(load, f"load{k}"), graph.add_node(reduced, f"n{k}").inputs["x"]
        )
    return graph


def unfinished(graph: xcs.XCSGraph, scheduler: str) -> list[str]:
    """The nodes that were still computed when a run returned; all is compiled by then."""
    run = xcs.GraphExecutor(graph, {"passes": ()}, scheduler=scheduler)
    outputs = [f"n{k}" for k in range(LENGTH)]
    jax.block_until_ready([run.execute(outputs=outputs)[name] for name in outputs])
    result = run.execute(outputs=outputs)
    return [name for name in outputs if not result[name].is_ready()]


@pytest.mark.parametrize("scheduler", ["sequential", "parallel", "auto"])
def test_a_run_is_at_most_one_program_ahead_of_the_device_in_a_chain(scheduler: str) -> None:
    assert set(unfinished(chain(), scheduler)) <= {f"n{LENGTH - 1}"}


def test_programs_that_return_little_are_waited_for_because_of_what_they_read() -> None:
    assert set(unfinished(reductions(), "sequential")) <= {f"n{LENGTH - 1}"}


def test_programs_with_small_arrays_are_not_waited_for() -> None:
    assert len(unfinished(chain(LARGE - 1), "sequential")) > 1


def test_the_results_are_those_of_plain_jax() -> None:
    result = xcs.execute_graph(chain(), options={"passes": ()})
    expected = jnp.zeros(LARGE)
    for _ in range(LENGTH):
        expected = slowly(expected)
    np.testing.assert_allclose(result[f"n{LENGTH - 1}"], expected, rtol=1e-5)


def test_nobody_waits_for_an_array_that_was_deleted() -> None:
    array = slowly(jnp.zeros(LARGE))
    keep_up(array)
    array.delete()
    following = slowly(jnp.ones(LARGE))
    keep_up(following)
    keep_up(jnp.zeros(LARGE))
    assert following.is_ready()


def test_a_large_array_is_not_kept_alive_to_be_waited_for() -> None:
    array = jnp.zeros(LARGE)
    alive = weakref.ref(array)
    keep_up(array)
    del array
    assert alive() is None


def test_a_program_that_is_traced_is_not_waited_for_and_forgets_nothing() -> None:
    pending = slowly(jnp.zeros(LARGE))
    keep_up(pending)
    jax.jit(lambda x: keep_up(x) or x).lower(jnp.zeros(LARGE))
    keep_up(jnp.zeros(LARGE))
    assert pending.is_ready()


def test_arrays_are_large_from_a_mebibyte_on() -> None:
    struct = jax.ShapeDtypeStruct
    assert has_large_arrays({"a": struct((LARGE,), jnp.float32)})
    assert not has_large_arrays([struct((LARGE - 1,), jnp.float32), 3.0, "text"])
    assert not has_large_arrays(jax.random.split(jax.random.key(0), 8))
