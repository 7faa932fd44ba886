"""Functions recorded at the level of operator calls: same results, no operator run."""

# ruff: noqa: PLW0108  (each lambda is a line of a user)

import asyncio
import copy
import dataclasses
import json
import re
from typing import Any, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ember_xcs._core import calls
from ember_xcs._core.composition import Ensemble, Parallel, Sequential
from ember_xcs._core.functions import host, pure
from ember_xcs._core.operator import HostOperator, Operator
from ember_xcs._core.template import Template
from ember_xcs._runtime.execute import execute_graph
from ember_xcs._trace.symbols import Symbol
from ember_xcs.errors import OperatorInputError, OperatorOutputError, TracingError
from tests.trace.reference import record, replay


class Verdict(NamedTuple):
    score: float
    why: str


class Answer(pydantic.BaseModel):
    text: str
    votes: int = 0


@dataclasses.dataclass
class Doc:
    title: str
    lines: list


class Row(TypedDict):
    name: str
    size: int


ran = []


@host
def draft(topic, style="plain"):
    ran.append(topic)
    return f"{style} text on {topic}"


@host
def judge(text: str) -> Verdict:
    return Verdict(float(len(text)), f"about {text}")


@host
def stats(text: str) -> dict:
    return {"words": [text, text[::-1]], "n": len(text)}


@host
def show(value):
    return repr(value)


@host
def row(name: str) -> Row:
    return {"name": name, "size": len(name)}


@host
def answer(text: str) -> Answer:
    return Answer(text=text, votes=len(text))


@host
def pair(text: str) -> tuple[str, int]:
    return text, len(text)


@host
def identity(value):
    return value


@host
def every(*values, **named):
    return values, named


def same(function, given, *others):
    """Asserts that a function recorded for one argument does for others what Python does."""
    recorded = record(function, given)
    for other in (given, *others):
        assert replay(recorded, other) == function(other)
    return recorded


# Recording


def test_no_operator_is_run():
    ran.clear()
    record(lambda t: judge(draft(t)), "a")
    assert ran == []


def test_each_call_is_a_node():
    recorded = same(lambda t: [draft(draft(t)), draft(t)], "a", "b")
    assert list(recorded.program.graph) == ["draft", "draft_2", "draft_3"]


def test_a_node_knows_the_users_line():
    graph = record(lambda t: draft(t), "a").program.graph
    assert "test_structural.py" in graph["draft"].metadata["line"]


def test_no_operator_call_is_told():
    assert not record(lambda t: [t], "a").calls_operators
    assert record(draft, "a").calls_operators


def test_plain_values_become_constants():
    graph = same(lambda t: draft(t, style="brief"), "a", "b").program.graph
    assert dict(graph["draft"].constants) == {"style": "brief"}


def test_static_leaves_are_seen_as_they_are():
    def f(t, n):
        return [draft(t) for _ in range(n)]

    recorded = record(f, "a", 3, static={1})
    assert recorded.program.inputs == ("x0",)
    assert replay(recorded, "b", 3) == f("b", 3)


def test_an_operator_closed_over_keeps_its_arrays():
    class Scale(Operator):
        w: jax.Array

        def forward(self, x):
            return self.w * x

    scale = Scale(jnp.float32(3))
    recorded = record(lambda x: scale(scale(x)), jnp.float32(1))
    assert replay(recorded, jnp.float32(2)) == 18
    assert len(recorded.program.graph) == 2


def test_a_call_without_arguments_takes_no_input_of_the_graph():
    @host
    def give(x0="default"):
        return x0

    same(lambda t: [give(), draft(t)], "a", "b")


def test_a_call_of_constants_takes_no_input_of_the_graph():
    same(lambda t: [every(k=1), every(), draft(t)], "a", "b")


def test_positional_arguments_beyond_the_parameters_are_kept():
    same(lambda t: every(t, draft(t), 3, x=t), "a", "b")


def test_a_list_that_is_changed_after_a_call_was_passed_as_it_was():
    def chat(question):
        history = []
        first = show(history)
        history.append(first)
        second = show(history)
        history.append(question)
        return [first, second, show(history)]

    same(chat, "a", "b")


def test_wrong_arguments_are_refused_as_in_python():
    with pytest.raises(OperatorInputError, match="draft"):
        record(lambda t: draft(t, tone="x"), "a")


# Plumbing


@pytest.mark.parametrize(
    "function",
    [
        lambda t: show([t, draft(t), 1]),
        lambda t: show((t, {"k": draft(t), "a": None})),
        lambda t: show(Verdict(t, [draft(t)])),
        lambda t: show(Doc(draft(t), [t])),
        lambda t: show({"z": t, "a": t}),
        lambda t: {"z": [draft(t), t], "a": (t, None, "c")},
        lambda t: Verdict(judge(t).score, t),
        lambda t: (judge(t).why, judge(t)[0], judge(t)[-1], judge(t)),
        lambda t: (stats(t)["n"], stats(t)["words"][1], stats(t)["words"][1][0]),
        lambda t: (row(t)["size"], row(t)["name"][:1]),
        lambda t: (answer(t).text, answer(t).votes),
        lambda t: (pair(t)[1], show(pair(t)[0])),
        lambda t: [*pair(t)],
        lambda t: dict(zip("ab", judge(t), strict=True)),
        lambda t: show(show),
    ],
)
def test_values_are_packed_and_picked_as_in_python(function):
    same(function, "abc", "de", "f")


def test_a_declared_field_is_an_edge_and_a_deeper_path_a_node():
    graph = record(lambda t: [judge(t).why, stats(t)["words"][0]], "a").program.graph
    kinds = [graph[n].operator.kind for n in graph]
    assert kinds == ["host", "host", "glue"]


def test_one_part_is_picked_once():
    def f(t):
        s = stats(t)
        return [show(s["words"][0]), show(s["words"][0])]

    assert len(same(f, "a", "b").program.graph) == 4


def test_an_index_of_true_is_not_one_of_one():
    @host
    def table(_):
        return {True: "yes", 2: "two"}

    same(lambda t: [table(t)[1], table(t)[True], table(t)[2]], "a")


def test_a_key_is_looked_up_as_python_does():
    @host
    def numbers(t) -> dict:
        return {0: t, "0": "text"}

    same(lambda t: [numbers(t)[0], numbers(t)["0"]], "a", "b")


def test_arguments_that_are_results_need_no_graph():
    recorded = same(lambda t: {"in": t, "out": draft(t)}, "a", "b")
    assert recorded.program.outputs == (("input", "x0"), ("output", "result_1"))


def test_the_length_of_a_declared_tuple_is_known():
    same(lambda t: [draft(t)] * len(pair(t)), "a", "b")


def test_nested_arguments_are_inputs():
    def f(docs, *, top):
        return [draft(docs[0]["t"]), draft(top)]

    recorded = record(f, [{"t": "a"}], top="b")
    assert recorded.program.inputs == ("x0", "x1")
    assert replay(recorded, [{"t": "c"}], top="d") == f([{"t": "c"}], top="d")


def test_inputs_style_takes_a_dict_or_the_output_of_another():
    class Upper(HostOperator):
        def forward(self, *, inputs) -> dict:
            return {"text": inputs["text"].upper(), "keys": sorted(inputs)}

    upper = Upper()

    def f(t):
        once = upper(inputs={"text": t, "n": 1})
        return [once["text"], upper(inputs=once), upper(inputs={"text": once["keys"][0]})]

    recorded = record(f, "a")
    upper_outside = f("b")
    assert replay(recorded, "b") == upper_outside


def test_an_input_can_be_the_inputs_of_an_operator():
    class Keys(HostOperator):
        def forward(self, *, inputs) -> dict:
            return {"k": sorted(inputs)}

    class Box:
        def __init__(self, value):
            self.value = value

    keys = Keys()
    same(lambda box: keys(inputs=box.value), Box({"x0": 1, "b": 2}), Box({"c": 3}))


def test_results_are_new_containers_each_time():
    recorded = record(lambda t: {"l": [], "d": draft(t)}, "a")
    assert replay(recorded, "a")["l"] is not replay(recorded, "a")["l"]


# Composite operators


class Chain(Operator):
    first: Operator
    second: Operator

    def forward(self, text):
        return self.second(self.first(text))


def test_composite_operators_are_opened():
    chain = Chain(Chain(draft, draft), Ensemble(judge, 3))
    recorded = record(chain, "a")
    assert len(recorded.program.graph) == 5
    assert replay(recorded, "b") == chain("b")


def test_nested_composites_stay_whole_without_recursive():
    chain = Chain(Chain(draft, draft), judge)
    recorded = record(chain, "a", recursive=False)
    assert [n.operator.kind for n in recorded.program.graph.nodes.values()] == ["composite", "host"]
    assert replay(recorded, "b") == chain("b")


def test_a_declared_output_of_a_composite_is_checked_in_the_run():
    class Rate(Operator):
        op: Operator

        def forward(self, text) -> float:
            return self.op(text)

    assert replay(record(Rate(host(lambda t: float(len(t)))), "a"), "abc") == 3.0
    with pytest.raises(OperatorOutputError, match="Rate"):
        replay(record(Rate(draft), "a"), "b")


def test_a_dict_that_is_declared_a_model_becomes_one():
    class Make(Operator):
        op: Operator

        def forward(self, text) -> Answer:
            return {"text": self.op(text), "votes": 2}

    make = Make(draft)
    assert replay(record(make, "a"), "b") == make("b") == Answer(text="plain text on b", votes=2)


def test_the_inputs_of_a_composite_are_validated_in_the_run():
    class Spec(pydantic.BaseModel):
        text: str
        n: int = 1

    class Careful(Operator):
        input_spec = Spec
        op: Operator

        def forward(self, text, n):
            return [self.op(text), n]

    careful = Careful(draft)
    recorded = record(lambda t, n: careful(t, n), "a", 1)
    assert replay(recorded, "b", "7") == careful("b", "7") == ["plain text on b", 7]
    with pytest.raises(OperatorInputError, match="Careful"):
        replay(recorded, "b", "seven")


def test_async_operators_are_recorded_when_awaited():
    @host
    async def fetch(t):
        return t

    async def twice(t):
        return await fetch(await fetch(t))

    assert len(record(twice, "a").program.graph) == 2


def test_awaiting_anything_else_is_refused():
    async def slow(t):
        await asyncio.sleep(0)
        return draft(t)

    with pytest.raises(TracingError, match=r"(?s)asyncio\.sleep.*To mend it"):
        record(slow, "a")


def test_compositions_are_opened():
    prompt = Template("Q: {topic}")
    chain = Sequential(draft, Ensemble(Parallel(text=identity, verdict=judge), 2), show)
    same(lambda t: [chain(t), prompt(topic=t), prompt(draft(t))], "a", "b")


def test_a_pure_composition_is_one_node():
    both = Parallel(double=pure(lambda x: 2 * x), square=pure(lambda x: x * x))
    recorded = same(lambda x: [both(x)["square"], both(x)["double"]], 3, 5)
    assert len(recorded.program.graph) == 2


def test_a_sequence_of_inputs_style_operators_is_opened():
    class Upper(HostOperator):
        def forward(self, *, inputs) -> dict:
            return {"text": inputs["text"].upper()}

    chain = Sequential(Upper(), Upper())
    same(lambda t: chain(inputs={"text": t})["text"], "a", "b")


# Refusals


def refusal(function, given="a"):
    with pytest.raises(TracingError) as caught:
        record(function, given)
    return caught.value


@pytest.mark.parametrize(
    "use",
    [
        lambda s: s + 1,
        lambda s: "a" + s,
        lambda s: -s,
        lambda s: s == 1,
        lambda s: s < 1,
        lambda s: 1 in s,
        lambda s: s in [1, 2],
        lambda s: bool(s),
        lambda s: not s,
        lambda s: len(s),
        lambda s: list(s),
        lambda s: dict(**s),
        lambda s: {s: 1},
        lambda s: {s},
        lambda s: str(s),
        lambda s: f"{s}",
        lambda s: format(s),
        lambda s: "%s" % s,  # noqa: UP031
        lambda s: "".join([s]),
        lambda s: re.match("a", s),
        lambda s: json.dumps(s),
        lambda s: int(s),
        lambda s: float(s),
        lambda s: [1][s],
        lambda s: range(s),
        lambda s: "abc"[:s],
        lambda s: s(),
        lambda s: s.upper(),
        lambda s: s._private,
        lambda s: setattr(s, "a", 1),
        lambda s: s.__setitem__(0, 1),
        lambda s: isinstance(s, str),
        lambda s: copy.deepcopy(s),
        lambda s: sorted([s, s]),
        lambda s: [1, 2][s],
        lambda s: s[s],
        lambda s: Answer(text=s),
        lambda s: np.sin(s),
        lambda s: np.asarray(s),
        lambda s: np.ones(2) * s,
        lambda s: np.concatenate([s, s]),
        lambda s: jnp.sin(s),
        lambda s: jnp.stack([s, s]),
        lambda s: jnp.asarray(s),
        lambda s: jnp.where(s, 1, 2),
        lambda s: jnp.ones(2) * s,
        lambda s: s @ jnp.ones((2, 2)),
        lambda s: jnp.ones(2) @ s,
        lambda s: jnp.ones(2)[s],
        lambda s: jnp.ones(2).at[0].set(s),
        lambda s: jax.lax.sin(s),
        lambda s: jax.lax.cond(s, lambda: 1, lambda: 2),
        lambda s: jax.jit(lambda x: x)(s),
        lambda s: jax.vmap(lambda x: x)(s),
        lambda s: jax.grad(lambda x: x)(s),
        lambda s: s.shape,
        lambda s: s.dtype,
    ],
)
def test_what_needs_the_value_is_refused_with_line_and_remedy(use):
    error = refusal(lambda t: use(draft(t)))
    assert "To mend it: " in str(error)
    assert "test_structural.py" in error.user_line


@pytest.mark.parametrize(
    ("use", "given", "remedy"),
    [
        (lambda s: s * 2, "`*` was asked of the output of 'draft'", "@pure function"),
        (lambda s: f"{s}", "its text was asked of the output of 'draft'", "xcs.Template"),
        (lambda s: s.upper(), "the method 'upper'", "@host function"),
        (lambda s: jnp.sin(s), "its use as an array", "@pure function"),
        (lambda s: [*s], "iteration or unpacking", "tuple[str, float] or a NamedTuple"),
        (lambda s: "yes" if s else "no", "its truth", "mode='enhanced'"),
        (lambda s: s["k"][0] > 1, "the output of 'draft'['k'][0]", "@host function"),
    ],
)
def test_a_refusal_says_what_was_asked_of_what_and_what_to_do(use, given, remedy):
    message = str(refusal(lambda t: use(draft(t))))
    assert given in message
    assert remedy in message.split("To mend it: ")[1]


def test_a_refusal_names_the_input():
    assert "the input 'x0'" in str(refusal(lambda t: t + 1))


def test_a_field_that_is_not_declared_is_refused():
    message = str(refusal(lambda t: judge(t).scroe))
    assert "'scroe'" in message
    assert "'score', 'why'" in message


def test_endless_recursion_is_refused():
    class Loop(Operator):
        op: Operator

        def forward(self, text):
            return self(self.op(text))

    error = refusal(Loop(draft))
    assert "Loop" in str(error)
    assert "mode='enhanced'" in str(error)
    assert "self(self.op(text))" in error.user_line


def test_recursion_that_static_values_end_is_recorded():
    class Down(Operator):
        op: Operator

        def forward(self, text, n):
            return text if n == 0 else self(self.op(text), n - 1)

    down = Down(draft)
    recorded = record(lambda t: down(t, 3), "a")
    assert replay(recorded, "b") == down("b", 3)


def test_endless_recursion_of_a_function_is_refused():
    def loop(t):
        return loop(draft(t))

    assert "without end" in str(refusal(loop))


def test_a_symbol_in_a_field_of_an_operator_is_refused():
    class Prompt(HostOperator):
        text: Any

        def forward(self, t):
            return self.text + t

    error = refusal(lambda t: Prompt(draft(t))(t))
    assert "the field 'text' of operator 'Prompt'" in str(error)
    assert "pass the value as an argument" in str(error)


def test_a_symbol_that_leaks_is_refused_when_used():
    leaked = []
    record(lambda t: leaked.append(draft(t)) or draft(t), "a")
    for use in (lambda s: s + 1, lambda s: s.text, lambda s: s[0], lambda s: f"{s}", draft):
        with pytest.raises(TracingError, match=r"(?s)had ended.*To mend it.*return the value"):
            use(leaked[0])


def test_a_symbol_of_another_recording_is_refused():
    leaked = []
    record(lambda t: leaked.append(draft(t)) or draft(t), "a")
    assert "another recording" in str(refusal(lambda t: draft(leaked[0])))


def test_a_symbol_has_a_repr_for_debuggers():
    shown = []
    record(lambda t: shown.append(repr(draft(t))) or draft(t), "a")
    assert shown == ["<symbol: the output of 'draft'>"]


def test_a_refusal_ends_the_recording():
    refusal(lambda t: draft(t) + 1)
    assert calls.current_recorder() is None


def test_the_users_own_errors_pass_through():
    with pytest.raises(ZeroDivisionError):
        record(lambda t: [draft(t), 1 / 0], "a")


def test_dunder_probes_see_no_attribute():
    found = []
    record(lambda t: found.append(hasattr(t, "__wrapped__")) or draft(t), "a")
    assert found == [False]
    assert "Symbol" in Symbol.__name__


# Programs at random


@pure
def add(x, y):
    return x + y


@host
def split(x) -> tuple[int, int]:
    return x // 2, x - x // 2


@host
def gather(parts):
    return {"sum": sum(parts["items"]), "items": [*parts["items"], parts["last"]]}


@st.composite
def programs(draw):
    """A list of steps: each applies an operation to earlier values."""
    steps = []
    for k in range(draw(st.integers(1, 8))):
        value = st.integers(0, k)
        steps.append(
            (
                draw(st.sampled_from(["add", "split", "gather", "const", "pack"])),
                draw(value),
                draw(value),
            )
        )
    return steps


def run_program(steps, x):
    values = [x]
    for kind, i, j in steps:
        a, b = values[i], values[j]
        if kind == "add":
            values.append(add(a, b))
        elif kind == "const":
            values.append(add(a, y=7))
        elif kind == "split":
            low, high = split(a)
            values.append(add(low, add(high, b)))
        elif kind == "gather":
            values.append(gather({"items": [a, b, 1], "last": b})["items"][-1])
        else:
            values.append(gather({"items": (b, a), "last": 0})["sum"])
    return {"last": values[-1], "all": values, "n": len(values)}


@given(programs(), st.integers(-99, 99), st.integers(-99, 99))
def test_random_programs_give_what_python_gives(steps, first, second):
    recorded = record(lambda x: run_program(steps, x), first)
    assert replay(recorded, second) == run_program(steps, second)


@given(programs(), st.integers(-99, 99))
def test_random_programs_run_on_the_engine(steps, value):
    recorded = record(lambda x: run_program(steps, x), 0)
    values = execute_graph(recorded.program.graph, {"x0": value})
    results = recorded.program.results(values, {"x0": value})
    assert recorded.result(results) == run_program(steps, value)
