"""The cache of compiled programs, and the statistics."""

from __future__ import annotations

import gc
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ember_xcs as xcs
from tests.counting import Calls


@xcs.host
def plus_one(x: float) -> float:
    return x + 1


def staged():
    """A staged function with a host call, and how often it was traced."""
    traces = Calls()

    def f(x):
        traces.add(None)
        return plus_one(x) * 2 if jnp.ndim(x) == 0 else jnp.sum(x)

    return xcs.jit.trace(f), traces


def figures(f):
    stats = f.stats()
    return {name: stats[name] for name in ("calls", "hits", "misses", "size")}


def test_a_signature_is_compiled_once():
    f, traces = staged()
    assert [float(f(x)) for x in (1.0, 2.0, 3.0)] == [4.0, 6.0, 8.0]
    first = len(traces)
    f(4.0)
    assert len(traces) == first
    assert figures(f) == {"calls": 4, "hits": 3, "misses": 1, "size": 1}


@pytest.mark.parametrize(
    "other", [1, True, np.float32(1), jnp.ones(()), jnp.ones(2), np.ones((), np.int32), 1j]
)
def test_another_dtype_shape_or_weakness_is_another_signature(other):
    f = xcs.jit.trace(lambda x: (xcs.host(lambda v: None)(x), jnp.sum(x))[1])
    f(1.0)
    f(other)
    assert figures(f)["misses"] == 2


def test_host_values_of_one_type_share_a_program():
    f = xcs.jit.trace(xcs.host(lambda q: q))
    assert [f("a"), f("b"), f(b"c")] == ["a", "b", b"c"]
    assert figures(f) == {"calls": 3, "hits": 1, "misses": 2, "size": 2}


def test_another_structure_is_another_signature():
    f = xcs.jit.trace(lambda tree: jax.tree.map(plus_one, tree))
    assert f({"a": 1.0}) == {"a": 2.0}
    assert f({"b": 1.0}) == {"b": 2.0}
    assert f([1.0, None]) == [2.0, None]
    assert figures(f)["misses"] == 3


def test_arguments_by_keyword_and_by_position_give_the_same():
    f = xcs.jit.trace(lambda x, y: plus_one(x) - y)
    assert float(f(1.0, 2.0)) == float(f(x=1.0, y=2.0)) == float(f(y=2.0, x=1.0)) == 0.0
    assert figures(f)["misses"] == 2


def test_the_least_recently_used_program_goes_first():
    cache = xcs.JITCache(max_size=2)
    f = xcs.jit.trace(lambda x: jnp.sum(x) + plus_one(0.0), cache=cache)
    for size in (1, 2, 1, 3, 1, 2):
        assert float(f(jnp.ones(size))) == size + 1
    assert (cache.hits, cache.misses, cache.evictions, len(cache)) == (2, 4, 2, 2)


def test_a_shared_cache_does_not_mix_functions():
    cache = xcs.JITCache()
    f = xcs.jit.trace(lambda x: plus_one(x) * 1, cache=cache)
    g = xcs.jit.trace(lambda x: plus_one(x) * 10, cache=cache)
    assert (float(f(1.0)), float(g(1.0)), float(f(2.0))) == (2.0, 20.0, 3.0)
    assert len(cache) == 2


def test_a_shared_cache_does_not_take_a_new_function_for_one_that_is_gone():
    cache = xcs.JITCache()
    for k in range(50):
        f = xcs.jit.trace(lambda x, k=k: plus_one(x) + k, cache=cache)
        assert float(f(1.0)) == 2.0 + k
        del f
        gc.collect(0)


def test_clearing_one_function_leaves_the_others_of_a_shared_cache():
    cache = xcs.JITCache()
    f = xcs.jit.trace(lambda x: plus_one(x) * 1, cache=cache)
    g = xcs.jit.trace(lambda x: plus_one(x) * 10, cache=cache)
    f(1.0), g(1.0)
    f.clear_cache()
    assert len(cache) == 1
    g(1.0)
    assert g.stats()["hits"] == 1


@pytest.mark.parametrize("size", [0, -1])
def test_a_cache_holds_something(size):
    with pytest.raises(xcs.OptionsError, match="at least 1"):
        xcs.JITCache(max_size=size)


def test_clear_cache_compiles_anew_and_sees_what_has_changed():
    factor = [2.0]
    f = xcs.jit(lambda x: x * factor[0])
    assert float(f(1.0)) == 2.0
    factor[0] = 3.0
    assert float(f(1.0)) == 2.0  # as under jax.jit
    f.clear_cache()
    assert float(f(1.0)) == 3.0
    assert figures(f)["size"] == 1


def test_many_threads_compile_a_signature_once():
    begin, traces = threading.Barrier(16, timeout=20), Calls()

    def f(x):
        traces.add(None)
        return plus_one(x)

    # A mode by name, as automatic selection may trace more than once for one compilation.
    compiled = xcs.jit.trace(f)
    results = Calls()

    def call(k):
        begin.wait()
        results.add(float(compiled(float(k))))

    threads = [threading.Thread(target=call, args=(k,)) for k in range(16)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert results.sorted == [k + 1.0 for k in range(16)]
    assert compiled.stats()["strategies"]["trace"]["tries"] == 1
    assert figures(compiled) == {"calls": 16, "hits": 15, "misses": 1, "size": 1}


def test_threads_that_wait_for_a_compilation_get_its_error():
    inside, errors = threading.Event(), Calls()

    def f(q):
        inside.wait(20)
        return len(plus_one_text(q))

    @xcs.host
    def plus_one_text(q: str) -> str:
        return q

    compiled = xcs.jit.trace(f)

    def call():
        try:
            compiled("a")
        except xcs.TracingError as error:
            errors.add(str(error))

    threads = [threading.Thread(target=call) for _ in range(4)]
    [t.start() for t in threads]
    inside.set()
    [t.join() for t in threads]
    assert len(errors) == 4
    assert figures(compiled)["size"] == 0


def test_a_failed_compilation_is_tried_again():
    broken = [True]

    def f(q):
        if broken:
            raise ValueError("not yet")
        return plus_one(q)

    compiled = xcs.jit.trace(f)
    with pytest.raises(ValueError, match="not yet"):
        compiled(1.0)
    broken.clear()
    assert float(compiled(1.0)) == 2.0
    assert compiled.stats()["strategies"]["trace"]["failures"] == 1


def test_statistics_stay_right_through_a_mixture_of_calls():
    f = xcs.jit(lambda x: x * 2)
    assert [float(f(1.0)), f("ab"), float(f(2.0)), f("cd")] == [2.0, "abab", 4.0, "cdcd"]
    stats = f.stats()
    tries = {name: entry["tries"] for name, entry in stats["strategies"].items()}
    assert figures(f) == {"calls": 4, "hits": 2, "misses": 2, "size": 2}
    assert sorted(stats["entries"]) == ["enhanced", "trace"]
    assert stats["execution_seconds"] >= 0
    assert tries == {"trace": 1, "enhanced": 1}


def test_a_failing_call_is_counted_as_a_call():
    @xcs.host
    def fail(x: float) -> float:
        raise ValueError("quota")

    f = xcs.jit.trace(lambda x: fail(x) + 1)
    for _ in range(2):
        with pytest.raises(xcs.NodeExecutionError):
            f(1.0)
    assert figures(f) == {"calls": 2, "hits": 1, "misses": 1, "size": 1}


def test_the_statistics_of_all_functions_are_sums(monkeypatch):
    import weakref

    from ember_xcs._jit import function

    monkeypatch.setattr(function, "_live", weakref.WeakSet())  # functions of other tests may go
    f, _ = staged()
    g = xcs.jit(lambda x: x * 2)
    f(1.0), f(2.0), g(1.0), g("a")
    totals = xcs.get_jit_stats()
    assert (totals["functions"], totals["calls"], totals["misses"]) == (2, 4, 3)
    assert totals["strategies"]["trace"]["tries"] == 2
    assert totals["strategies"]["enhanced"]["tries"] == 1
    assert xcs.get_jit_stats(f)["calls"] == 2


def test_functions_that_are_gone_are_not_kept():
    import weakref

    def f(x):
        return plus_one(x)

    compiled = xcs.jit.trace(f)
    compiled(1.0)
    gone = weakref.ref(compiled)
    del compiled
    gc.collect()
    assert gone() is None
