"""Which strategy compiles what, and what is said about it."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import pytest

import ember_xcs as xcs
from ember_xcs._jit import strategies as registered
from tests.counting import Calls


@xcs.host
def ask(question: str) -> str:
    return question + "?"


@xcs.host
def plus_one(x: float) -> float:
    return x + 1


def asks(question):
    return ask(question)


def adds(x):
    return plus_one(x)


class Scale(xcs.Operator):
    weight: jax.Array

    def forward(self, x):
        return self.weight * x


class Twice(xcs.Operator):
    ask: xcs.HostOperator

    def forward(self, q):
        return self.ask(self.ask(q))


class Dynamic(xcs.Operator):
    ask: xcs.HostOperator

    def forward(self, q):
        return self.ask(q) if len(q) > 1 else q


class Shout(xcs.HostOperator):
    def forward(self, text: str) -> str:
        return text.upper()


CASES = {
    "numeric function": (lambda x: x * 2, (1.0,), "trace"),
    "numeric function with host calls": (lambda x: plus_one(x) * 2, (1.0,), "trace"),
    "function of text": (ask.function, ("a",), "enhanced"),
    "function of text with host calls": (asks, ("a",), "enhanced"),
    "function of an object": (lambda o: o, (object(),), "enhanced"),
    "function without arguments": (lambda: plus_one(1.0), (), "trace"),
    "pure operator": (Scale(jnp.ones(())), (2.0,), "trace"),
    "pure function": (xcs.pure(lambda x: x * 2), (2.0,), "trace"),
    "host function": (ask, ("a",), "trace"),
    "host operator": (Shout(), ("a",), "trace"),
    "composite operator": (Twice(ask), ("a",), "trace"),
    "operator that branches on its input": (Dynamic(ask), ("ab",), "enhanced"),
    "numeric function that branches on a host result": (
        lambda x: 1 if plus_one(x) > 0 else 2, (1.0,), "enhanced"),
    "partial": (functools.partial(lambda x, y: x * y, y=3.0), (2.0,), "trace"),
    "builtin": (len, ("abc",), "python"),
    "jax.jit": (jax.jit(lambda x: x + 1), (1.0,), "trace"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_callable_and_its_inputs_decide_the_strategy(case):
    given, args, strategy = CASES[case]
    compiled = xcs.jit(given)
    explanation = xcs.explain_jit_selection(compiled, *args)
    assert explanation.strategy == strategy
    assert xcs.explain_jit_selection(given, *args).strategy == strategy
    assert compiled(*args) == given(*args)
    assert xcs.get_jit_strategy_used(compiled) == strategy


def test_before_the_first_call_no_strategy_was_used():
    assert xcs.get_jit_strategy_used(xcs.jit(lambda x: x)) is None


def test_explaining_runs_no_host_call():
    calls = Calls()
    f = xcs.jit.trace(calls.host(lambda q: q))
    assert xcs.explain_jit_selection(f, "a").strategy == "trace"
    f.lower("a").compile()
    f.graph("a")
    assert calls.seen == []


def test_the_explanation_says_for_each_strategy_why_not():
    explanation = xcs.explain_jit_selection(asks, "a")
    reasons = {verdict.strategy: verdict.reason for verdict in explanation}
    assert "inputs that are not all arrays and numbers (str)" in reasons["trace"]
    assert "mode='structural'" in reasons["structural"]
    assert [v.chosen for v in explanation] == [v.strategy == "enhanced" for v in explanation]
    assert all(name in str(explanation) for name in reasons)


def test_the_explanation_points_at_the_users_line():
    explanation = xcs.explain_jit_selection(Dynamic(ask), "ab")
    reasons = {verdict.strategy: verdict.reason for verdict in explanation}
    for strategy in ("trace", "structural"):
        assert "len(q) > 1" in reasons[strategy]
        assert "test_selection.py" in reasons[strategy]


@pytest.mark.parametrize("mode", ["trace", xcs.JITMode.TRACE])
def test_a_mode_is_a_name_or_a_member(mode):
    f = xcs.jit(asks, mode=mode)
    assert f("a") == "a?"
    assert xcs.get_jit_strategy_used(f) == "trace"
    assert "asked for" in str(f.explain("a"))


def test_each_mode_is_an_attribute():
    assert xcs.jit.trace(asks)("a") == "a?"
    assert xcs.jit.structural(Twice(ask))("a") == "a??"
    assert xcs.structural_jit(Twice(ask))("a") == "a??"


def test_a_mode_that_does_not_fit_is_an_error_and_no_fallback():
    with pytest.raises(xcs.TracingError, match=r"len\(\)"):
        xcs.jit.trace(Dynamic(ask))("ab")


def test_an_unknown_mode_is_an_error_that_lists_the_known():
    with pytest.raises(xcs.OptionsError, match=r"'fast'.*'trace', 'structural'"):
        xcs.jit(lambda x: x, mode="fast")(1.0)


@pytest.mark.parametrize("setting", [{"disable_strategies": ("fast",)}, {"prefer": "fast"}])
def test_an_unknown_strategy_is_an_error_that_lists_the_known(setting):
    with pytest.raises(xcs.OptionsError, match=r"'fast'.*'trace', 'structural'"):
        xcs.jit(lambda x: x, **setting)(1.0)


def test_disabled_strategies_are_left_out():
    f = xcs.jit(adds, disable_strategies=("trace",))
    assert f(1.0) == 2.0
    assert xcs.get_jit_strategy_used(f) == "enhanced"


def test_disabling_all_is_an_error_that_names_them():
    names = tuple(s.name for s in registered.strategies())
    with pytest.raises(xcs.OptionsError, match="no strategy is left"):
        xcs.jit(lambda x: x, disable_strategies=names)(1.0)


def test_a_preferred_strategy_is_tried_first():
    assert xcs.jit(adds, prefer="python").explain(1.0).strategy == "python"
    assert xcs.jit(Twice(ask), prefer="structural").explain("a").strategy == "structural"


def test_a_preferred_strategy_that_does_not_fit_gives_way():
    assert xcs.jit(Dynamic(ask), prefer="structural").explain("ab").strategy == "enhanced"


class Recorded:
    """A strategy of a user's own: it notes what it is asked, and runs the function."""

    name = "recorded"

    def __init__(self):
        self.asked = []

    def unfit(self, request):
        self.asked.append(request.target.name)
        return None if request.target.name == "wanted" else "it is not wanted"

    def compile(self, request):
        from ember_xcs._jit.programs import PythonRunner

        return PythonRunner(self.name, lambda *args: ("recorded", *args))


@pytest.fixture
def strategy(monkeypatch):
    monkeypatch.setattr(registered, "_strategies", list(registered._strategies))
    mine = Recorded()
    xcs.register_strategy(mine, before="trace")
    return mine


def test_a_registered_strategy_is_asked_in_its_turn(strategy):
    def wanted(x):
        return x

    f = xcs.jit(wanted)
    assert f("a") == ("recorded", "a")
    assert xcs.get_jit_strategy_used(f) == "recorded"
    assert f.stats()["strategies"]["recorded"]["tries"] == 1


def test_a_registered_strategy_may_decline(strategy):
    explanation = xcs.explain_jit_selection(lambda x: x, 1.0)
    assert explanation.strategy == "trace"
    assert "it is not wanted" in str(explanation)


def test_a_registered_strategy_is_a_mode(strategy):
    assert xcs.jit(lambda x: x, mode="recorded")(1) == ("recorded", 1)


def test_a_name_is_registered_once(strategy):
    with pytest.raises(xcs.OptionsError, match="recorded"):
        xcs.register_strategy(Recorded())


@pytest.mark.parametrize("bad", [object(), "trace"])
def test_what_is_no_strategy_is_refused(bad):
    with pytest.raises(xcs.OptionsError, match=r"Strategy"):
        xcs.register_strategy(bad)


def test_a_strategy_is_registered_before_a_known_one(strategy):
    other = Recorded()
    other.name = "other"
    with pytest.raises(xcs.OptionsError, match="unknown"):
        xcs.register_strategy(other, before="unknown")


def test_a_recursive_function_is_a_clear_error_of_trace():
    def f(q):
        return f(ask(q))

    with pytest.raises(xcs.TracingError, match="calls itself without end") as raised:
        xcs.jit.trace(f)("a")
    assert "return f(ask(q))" in raised.value.user_line


def test_a_recursive_numeric_function_fails_as_under_jax():
    def f(x):
        return f(x + 1)

    with pytest.raises(RecursionError):
        xcs.jit(f)(1.0)


@pytest.mark.parametrize("given", [3, "text", None.__class__, int, [ask]])
def test_what_is_no_function_is_refused(given):
    with pytest.raises(TypeError, match="jit takes"):
        xcs.jit(given)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"static_argnames": "n"}, "'n'.*parameters are x"),
        ({"static_argnums": 3}, "static_argnums has 3"),
        ({"donate_argnums": 1}, "donate_argnums has 1"),
        ({"options": {"max_workers": -1}}, "max_workers"),
        ({"options": {"unknown": 1}}, "unknown"),
    ],
)
def test_a_setting_that_cannot_be_is_an_error(setting, message):
    with pytest.raises(xcs.OptionsError, match=message):
        xcs.jit(adds, **setting)(1.0)


def test_options_reach_the_run():
    import threading

    threads = Calls()

    @xcs.host
    def note(k: int) -> int:
        threads.add(threading.get_ident())
        return k

    f = xcs.jit.trace(jax.vmap(note), options={"scheduler": "sequential"})
    f(jnp.arange(4))
    assert set(threads.seen) == {threading.get_ident()}


def test_recursive_false_leaves_an_inner_operator_closed():
    class Outer(xcs.Operator):
        inner: Twice

        def forward(self, q):
            return self.inner(q)

    graph = xcs.jit.structural(Outer(Twice(ask)), recursive=False).graph("a")
    assert len(graph) == 1
    assert len(xcs.jit.structural(Outer(Twice(ask))).graph("a")) == 2
