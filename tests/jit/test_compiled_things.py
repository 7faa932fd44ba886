"""What ``jit`` makes of functions, methods, operators and classes of operators."""

from __future__ import annotations

import asyncio
import inspect
import itertools

import jax
import jax.numpy as jnp
import pytest

import ember_xcs as xcs
from tests.counting import Calls


@xcs.host
def ask(question: str) -> str:
    return question + "?"


def documented(x: float, *, scale: float = 2.0) -> float:
    """Scales."""
    return x * scale


def test_a_compiled_function_keeps_name_text_and_signature():
    f = xcs.jit(documented)
    assert (f.__name__, f.__doc__, f.__module__) == ("documented", "Scales.", __name__)
    assert f.__wrapped__ is documented
    assert inspect.signature(f) == inspect.signature(documented)


def test_a_compiled_operator_keeps_its_name():
    operator = ask
    assert xcs.jit(operator).__wrapped__ is operator
    assert xcs.jit(operator).__name__ == "ask"


def test_jit_is_a_decorator_with_and_without_arguments():
    @xcs.jit
    def plain(x):
        return x + 1

    @xcs.jit(mode="trace")
    def traced(q):
        return ask(q)

    assert float(plain(1.0)) == 2.0
    assert traced("a") == "a?"


def test_compiling_twice_is_compiling_once():
    f = xcs.jit(xcs.jit(documented))
    assert f.__wrapped__ is documented


def test_whether_something_is_compiled_is_known():
    @xcs.jit
    class Compiled(xcs.Operator):
        def forward(self, x):
            return x

    assert xcs.is_jit_compiled(xcs.jit(documented))
    assert xcs.is_jit_compiled(Compiled)
    assert xcs.is_jit_compiled(Compiled())
    assert not xcs.is_jit_compiled(documented)
    assert not xcs.is_jit_compiled(jax.jit(documented))


def test_what_is_not_compiled_has_no_statistics():
    with pytest.raises(TypeError, match="not compiled"):
        xcs.get_jit_stats(documented)


def test_a_method_is_compiled_for_each_instance():
    class Answers:
        def __init__(self, mark):
            self.mark = mark

        @xcs.jit
        def answer(self, question):
            return ask(question) + self.mark

        @xcs.jit
        def scale(self, x):
            return x * len(self.mark)

    a, b = Answers("!"), Answers("..")
    assert (a.answer("x"), b.answer("x")) == ("x?!", "x?..")
    assert [float(o.scale(jnp.float32(3))) for o in (a, b)] == [3.0, 6.0]


@xcs.jit
class Scale(xcs.Operator):
    """Scales."""

    weight: jax.Array

    def forward(self, x):
        return self.weight * x


def test_a_compiled_class_has_compiled_instances():
    scale = Scale(jnp.float32(3))
    assert isinstance(scale, xcs.Operator)
    assert float(scale(2.0)) == 6.0
    assert xcs.get_jit_strategy_used(scale) == "trace"
    assert xcs.get_jit_stats(scale)["calls"] == 1


def test_a_compiled_class_keeps_name_and_text():
    assert (Scale.__name__, Scale.__doc__, Scale.__module__) == ("Scale", "Scales.", __name__)


def test_a_changed_copy_of_a_compiled_instance_is_compiled_anew():
    scale = Scale(jnp.float32(3))
    assert float(scale(2.0)) == 6.0
    assert float(scale.replace(weight=jnp.float32(5))(2.0)) == 10.0


def test_a_compiled_instance_is_still_a_pytree_under_jax():
    scale = Scale(jnp.float32(3))
    scale(1.0)
    gradient = jax.grad(lambda op, x: op(x))(scale, 2.0)
    assert (type(gradient), float(gradient.weight)) == (Scale, 2.0)
    doubled = jax.tree.map(lambda w: 2 * w, scale)
    assert float(doubled(1.0)) == 6.0


def test_a_compiled_class_may_be_made_with_settings():
    @xcs.jit(mode="structural")
    class Twice(xcs.Operator):
        ask: xcs.HostOperator

        def forward(self, q):
            return self.ask(self.ask(q))

    assert Twice(ask)("a") == "a??"
    assert xcs.get_jit_strategy_used(Twice(ask)) is None


def test_a_class_that_is_no_operator_is_refused():
    with pytest.raises(TypeError, match=r"subclass of xcs\.Operator"):
        xcs.jit(type("Plain", (), {"__call__": lambda self: None}))


def test_a_compiled_operator_inside_a_staged_function_is_part_of_it():
    scale = Scale(jnp.float32(3))

    @xcs.host
    def plus_one(x: float) -> float:
        return x + 1

    f = xcs.jit.trace(lambda x: scale(plus_one(x)) + scale(1.0))
    assert float(f(1.0)) == 9.0
    assert len(f.lower(1.0).regions) == 1


def test_a_static_argument_is_seen_as_it_is():
    calls = Calls()

    @calls.host
    def plus_one(x: float) -> float:
        return x + 1

    f = xcs.jit.trace(lambda x, n: [plus_one(x) for _ in range(n)], static_argnames="n")
    assert len(f(1.0, 2)) == len(f(1.0, n=2)) == 2
    assert len(f(1.0, 3)) == 3
    assert len(calls) == 7


@pytest.mark.parametrize("settings", [{"static_argnames": "how"}, {"static_argnums": 1},
                                      {"static_argnums": -1}])  # fmt: skip
def test_a_numeric_function_with_a_static_argument_is_compiled_for_each_value(settings):
    seen = []

    def f(x, how="double"):
        seen.append(how)
        return x * 2 if how == "double" else x * 3

    g = xcs.jit(f, **settings)
    assert [float(g(1.0, "double")), float(g(1.0, "triple")), float(g(2.0, "double"))] == [2, 3, 4]
    assert float(g(1.0)) == 2.0
    assert set(seen) == {"double", "triple"}


def test_a_static_argument_that_changes_in_place_is_compiled_anew():
    sizes = [1]
    f = xcs.jit(lambda x, sizes: x * len(sizes), static_argnames="sizes")
    assert float(f(1.0, sizes)) == 1.0
    sizes.append(2)
    assert float(f(1.0, sizes)) == 2.0
    assert float(f(1.0, [7])) == 1.0


def test_a_donated_argument_is_used_up():
    f = xcs.jit(lambda x, y: x + y, donate_argnums=0)
    x, y = jnp.ones(4), jnp.ones(4)
    f(x, y)
    assert (x.is_deleted(), y.is_deleted()) == (True, False)


def test_donated_arguments_of_a_function_of_any_number_of_them():
    x = jnp.ones(4)
    xcs.jit(lambda *xs: xs[0] + xs[1], donate_argnums=0)(x, jnp.ones(4))
    assert x.is_deleted()


def test_sample_input_compiles_at_once_and_runs_nothing():
    calls = Calls()
    f = xcs.jit.trace(calls.host(lambda q: q + "!"), sample_input="a")
    assert calls.seen == []
    assert f.stats()["misses"] == 1
    assert f("b") == "b!"
    assert f.stats()["hits"] == 1


def test_force_trace_traces_at_each_call():
    seen = []

    def f(x):
        seen.append(x)
        return x + 1

    g = xcs.jit(f, force_trace=True)
    assert [float(g(1.0)), float(g(1.0))] == [2.0, 2.0]
    before = len(seen)
    g(1.0)
    assert g.stats()["hits"] == 0
    assert g.stats()["misses"] == 3
    assert before >= 1


def test_the_regions_of_a_lowered_function_are_those_that_the_host_calls_ask_for():
    @xcs.host
    def plus_one(x: float) -> float:
        return x + 1

    def f(x):
        a = plus_one(jnp.sin(x) * 2)
        b = plus_one(jnp.cos(x) + 1)
        c = plus_one(jnp.tanh(a))  # does not wait for b
        return c * jnp.exp(b)

    lowered = xcs.jit.trace(f).lower(1.0)
    assert len(lowered.regions) == 3
    assert "plus_one" in lowered.as_text()
    assert lowered.strategy == "trace"


def test_a_numeric_function_is_one_region():
    lowered = xcs.jit(lambda x: jnp.sin(x) + 1).lower(1.0)
    assert lowered.is_numeric
    assert len(lowered.regions) == 1
    assert "stablehlo" in lowered.as_text()


def test_plain_python_has_neither_plan_nor_regions():
    f = xcs.jit(lambda q: ask(q) + "!")
    lowered = f.lower("a").compile()
    assert (lowered.plan, lowered.regions, lowered.graph) == (None, (), None)
    assert "plain Python" in lowered.as_text()
    with pytest.raises(xcs.TracingError, match="no graph"):
        f.graph("a")


_drawn = itertools.count()


@xcs.host
def draw(x: float) -> float:
    return x + 10.0 * next(_drawn)


def test_samples_are_made_anew_unless_they_may_be_repeated():
    def program(x):
        return draw(x)

    fresh, repeated = xcs.jit(program), xcs.jit(program, preserve_stochasticity=False)
    assert fresh(1.0) != fresh(1.0)
    sample = repeated(1.0)
    assert [repeated(1.0), repeated(1.0)] == [sample, sample]
    assert repeated(2.0) != sample
    repeated.clear_cache()
    assert repeated(1.0) != sample


def test_side_effects_are_not_repeated_samples():
    sent = []

    @xcs.host(side_effects=True)
    def send(x: float) -> float:
        sent.append(x)
        return x

    f = xcs.jit(lambda x: send(x), preserve_stochasticity=False)  # noqa: PLW0108
    f(1.0), f(1.0)
    assert sent == [1.0, 1.0]


def test_repeated_samples_come_from_the_cache_of_the_options():
    cache = xcs.ResultCache()
    f = xcs.jit(lambda x: draw(x), preserve_stochasticity=False, options={"cache": cache})  # noqa: PLW0108
    assert f(1.0) == f(1.0)
    assert cache.stats()["hits"] == 1


class Scaled:
    def __init__(self, factor):
        self.factor = factor

    @xcs.jit
    def scale(self, x):
        """Scales."""
        return x * self.factor

    @xcs.jit.trace
    def asked(self, x):
        return ask(x)


def test_a_compiled_method_has_what_a_compiled_function_has():
    two, three = Scaled(2), Scaled(3)
    assert (two.scale(5), asyncio.run(three.scale.acall(5))) == (10, 15)
    assert two.scale.stats()["calls"] == 2
    assert two.scale.strategy == xcs.get_jit_strategy_used(two.scale) == "enhanced"
    assert list(two.asked.graph("x")) == ["ask"]
    assert two.asked.lower("x").strategy == two.asked.explain("x").strategy == "trace"
    assert xcs.explain_jit_selection(two.asked, "x").strategy == "trace"
    two.scale.clear_cache()
    assert two.scale.stats()["entries"] == []


def test_a_compiled_method_is_seen_as_the_method_that_it_is():
    two = Scaled(2)
    assert two.scale == two.scale
    assert two.scale != Scaled(2).scale
    assert list(inspect.signature(two.scale).parameters) == ["x"]
    assert (two.scale.__name__, two.scale.__doc__) == ("scale", "Scales.")
    assert xcs.is_jit_compiled(two.scale)
    assert xcs.jit(two.scale)(4) == 8
