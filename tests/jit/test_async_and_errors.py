"""``acall``, running event loops, and what is raised when things go wrong."""

from __future__ import annotations

import asyncio
import threading

import jax
import jax.numpy as jnp
import pytest

import ember_xcs as xcs


@xcs.host
async def later(text: str) -> str:
    await asyncio.sleep(0)
    return text + "!"


@xcs.host
def ask(text: str) -> str:
    return text + "?"


@xcs.jit.trace
def both(text):
    return later(text), ask(text)


def test_acall_gives_what_a_call_gives():
    assert asyncio.run(both.acall("a")) == both("a") == ("a!", "a?")


def test_a_call_inside_a_running_event_loop_gives_its_result():
    async def main():
        return both("a")

    assert asyncio.run(main()) == ("a!", "a?")


@pytest.mark.parametrize("value", [2.0, "text"])
def test_acall_of_numeric_functions_and_of_plain_python(value):
    f = xcs.jit(lambda x: x * 2)
    assert asyncio.run(f.acall(value)) == value * 2


def test_acall_awaits_a_coroutine_function_that_is_run_as_plain_python():
    async def greet(text):
        return await asyncio.sleep(0, text + "!")

    f = xcs.jit(greet)
    assert asyncio.run(f.acall("a")) == "a!"


def test_acall_does_not_block_the_event_loop():
    begun, go_on = threading.Event(), threading.Event()

    @xcs.host
    def wait(text: str) -> str:
        begun.set()
        assert go_on.wait(20)
        return text

    f = xcs.jit.trace(lambda t: wait(t))  # noqa: PLW0108

    async def main():
        running = asyncio.create_task(f.acall("a"))
        assert await asyncio.to_thread(begun.wait, 20)
        go_on.set()  # only a loop that goes on gets here
        return await running

    assert asyncio.run(main()) == "a"


def test_several_acalls_run_at_once():
    together = threading.Barrier(4, timeout=20)

    @xcs.host
    def meet(k: int) -> int:
        together.wait()
        return k

    f = xcs.jit.trace(lambda k: meet(k))  # noqa: PLW0108

    async def main():
        return await asyncio.gather(*(f.acall(k) for k in range(4)))

    assert [int(k) for k in asyncio.run(main())] == [0, 1, 2, 3]


def test_a_cancelled_acall_cancels_its_coroutines():
    begun, ended = threading.Event(), []

    @xcs.host
    async def hang(text: str) -> str:
        begun.set()
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return text

    f = xcs.jit.trace(lambda t: hang(t))  # noqa: PLW0108

    async def main():
        running = asyncio.create_task(f.acall("a"))
        assert await asyncio.to_thread(begun.wait, 20)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())
    assert ended == ["cancelled"]


def test_acalls_are_counted():
    f = xcs.jit.trace(lambda t: (ask(t), t))
    asyncio.run(f.acall("a"))
    f("b")
    assert (f.stats()["calls"], f.stats()["hits"]) == (2, 1)


@xcs.host
def fail(text: str) -> str:
    raise ValueError("quota exceeded")


def test_an_error_of_a_host_operator_names_its_node_and_keeps_its_cause():
    with pytest.raises(xcs.NodeExecutionError, match="fail") as raised:
        xcs.jit.trace(lambda t: ask(fail(t)))("secret")
    assert raised.value.node_id == "fail"
    assert raised.value.operator == "fail"
    assert isinstance(raised.value.__cause__, ValueError)
    assert "secret" not in str(raised.value)


def test_an_error_of_a_host_operator_in_plain_python_is_itself():
    with pytest.raises(ValueError, match="quota"):
        xcs.jit(lambda t: fail(t) + "!")("a")


def test_an_error_in_acall_is_that_of_a_call():
    f = xcs.jit.trace(lambda t: (fail(t), t))
    with pytest.raises(xcs.NodeExecutionError, match="quota"):
        asyncio.run(f.acall("a"))


def test_an_error_in_an_element_of_a_batch_names_it():
    @xcs.host
    def check(k: int) -> int:
        if k == 3:
            raise ValueError("bad one")
        return k

    with pytest.raises(xcs.NodeExecutionError, match=r"check.*element 3.*bad one") as raised:
        xcs.jit.trace(lambda ks: jax.vmap(check)(ks))(jnp.arange(5))  # noqa: PLW0108
    assert isinstance(raised.value.__cause__, ValueError)


def test_an_error_in_an_element_of_nested_batches_names_it():
    @xcs.host
    def check(k: int) -> int:
        if k == 4:
            raise ValueError("bad one")
        return k

    with pytest.raises(xcs.NodeExecutionError, match=r"element \(1, 1\)"):
        xcs.jit.trace(jax.vmap(jax.vmap(check)))(jnp.arange(6).reshape(2, 3))


def test_an_error_in_the_users_function_while_it_is_staged_is_itself():
    def broken(text):
        ask(text)
        return {}["missing"]

    with pytest.raises(KeyError, match="missing"):
        xcs.jit.trace(broken)("a")


def test_branching_on_a_number_that_is_not_known_is_explained_with_the_line():
    @xcs.host
    def score(text: str) -> float:
        return 1.0

    def choose(text):
        if score(text) > 0.5:
            return text
        return "no"

    with pytest.raises(xcs.TracingError, match=r"xcs\.cond") as raised:
        xcs.jit.trace(choose)("a")
    assert "if score(text) > 0.5" in raised.value.user_line
    assert isinstance(raised.value.__cause__, jax.errors.TracerBoolConversionError)


def test_a_host_call_inside_something_that_cannot_run_it_is_explained():
    @xcs.host
    def score(x: float) -> float:
        return x

    mesh = jax.sharding.Mesh(jax.devices()[:2], ("i",))
    spec = jax.sharding.PartitionSpec("i")
    f = jax.shard_map(jax.vmap(score), mesh=mesh, in_specs=spec, out_specs=spec)
    with pytest.raises(xcs.TracingError, match=r"inside `shard_map`.*take the call out"):
        xcs.jit.trace(f)(jnp.arange(4.0))


def test_tracing_errors_survive_being_sent_to_another_process():
    import pickle

    error = xcs.TracingError("message", "file:1: code")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.user_line) == (str(error), error.user_line)


def test_jit_inside_a_host_operator_runs_on_its_own():
    inner = xcs.jit(lambda x: jnp.sin(x) * 2)

    @xcs.host
    def compute(x: float) -> float:
        return float(inner(x))

    f = xcs.jit.trace(jax.vmap(compute))
    xs = jnp.arange(4.0)
    assert jnp.allclose(f(xs), jnp.sin(xs) * 2)


def test_a_staged_function_inside_a_host_operator_runs_on_its_own():
    @xcs.host
    def outer(text: str) -> str:
        return "".join(both(text))

    assert xcs.jit.trace(lambda t: (outer(t), t))("a") == ("a!a?", "a")
