"""Records of real runs, and graphs from them that do what Python does, or none."""

# ruff: noqa: PLW0108  (what is called in a lambda is seen with the lambda's line)

import asyncio
import concurrent.futures
import contextvars
import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pydantic
import pytest

from ember_xcs._core import calls
from ember_xcs._core.functions import host, pure
from ember_xcs._core.operator import HostOperator, Operator
from ember_xcs._trace.tracer_context import TracerContext
from ember_xcs.errors import TracingError
from tests.trace.reference import run_graph


class Verdict(pydantic.BaseModel):
    score: float
    why: str


@dataclasses.dataclass
class Doc:
    title: str
    lines: list


@host
def draft(topic, style="plain"):
    return f"{style} text on {topic}"


@host
def judge(text: str) -> Verdict:
    return Verdict(score=float(len(text)), why="because")


@host
def search(query):
    return [f"{query} 1", f"{query} 2"]


@host
def show(value, other=None):
    return repr((value, other))


@host
def say_yes(text):
    return "yes"


@host
def count(text):
    return 3


@host
def identity(value):
    return value


@host
def fail(text):
    raise ValueError(text)


@pure
def double(x):
    return x * 2


class Chain(Operator):
    first: Operator
    second: Operator

    def forward(self, text):
        return self.second(self.first(text))


class Careless(Operator):
    op: Operator

    def forward(self, text):
        return self.op(text.upper())


def traced(function, value):
    """Returns the tracer of a run, and the result."""
    with TracerContext() as tracer:
        result = function(tracer.input("x", value))
    return tracer, result


def same(function, value, *others):
    """Asserts that the graph of a run does for other inputs what Python does."""
    tracer, result = traced(function, value)
    graph = tracer.to_graph(result=result)
    for other in (value, *others):
        np.testing.assert_equal(run_graph(graph, {"x": other})["result"], function(other))
    return graph


def refusal(function, value="abc", **options):
    tracer, result = traced(function, value)
    with pytest.raises(TracingError) as caught:
        tracer.to_graph(result=result, **options)
    assert "To mend it: " in str(caught.value)
    assert "test_tracer_context.py" in caught.value.user_line
    return str(caught.value)


# Records


def test_operators_run_and_results_are_returned():
    tracer, result = traced(lambda x: judge(draft(x)), "a")
    assert result == judge(draft("a"))
    assert [r.operator.name for r in tracer.records] == ["draft", "judge"]


def test_a_record_says_what_went_in_and_out_and_when():
    tracer, result = traced(lambda x: draft(x, style="short"), "bees")
    (record,) = tracer.records
    assert (record.args, record.kwargs) == (("bees",), {"style": "short"})
    assert record.output == result == "short text on bees"
    assert 0 <= record.started <= record.ended
    assert record.seconds == record.ended - record.started
    assert "test_tracer_context.py" in record.line


def test_parents_are_the_calls_whose_outputs_flow_in():
    def f(x):
        found = search(x)
        text = draft(x)
        show({"a": [found[0]]}, text)
        return show(found)

    tracer, _ = traced(f, "bees")
    assert [r.parents for r in tracer.records] == [(), (), (0, 1), (0,)]


def test_equal_values_of_other_origin_are_no_parents():
    def f(x):
        say_yes(x)
        return show("yes", 3)

    assert traced(f, "bees")[0].records[1].parents == ()


def test_calls_inside_operators_are_deeper():
    tracer, _ = traced(Chain(draft, judge), "a")
    seen = [(r.operator.name, r.depth, r.caller) for r in tracer.records]
    assert seen == [("Chain", 0, None), ("draft", 1, 0), ("judge", 1, 0)]


def test_a_failure_is_recorded_and_raised():
    with pytest.raises(ValueError, match="a"), TracerContext() as tracer:
        fail("a")
    assert isinstance(tracer.records[0].error, ValueError)


def test_calls_of_worker_threads_are_recorded_with_their_context():
    with concurrent.futures.ThreadPoolExecutor(4) as pool, TracerContext() as tracer:
        contexts = [contextvars.copy_context() for _ in range(20)]
        futures = [pool.submit(c.run, draft, k) for k, c in enumerate(contexts)]
        results = [future.result() for future in futures]
    assert results == [draft(k) for k in range(20)]
    assert [r.index for r in tracer.records] == list(range(20))
    assert sorted(r.output for r in tracer.records) == sorted(results)


def test_async_operators_are_recorded_when_they_end():
    @host
    async def fetch(name):
        await asyncio.sleep(0)
        return name + "!"

    async def run():
        with TracerContext() as tracer:
            x = tracer.input("x", "bees")
            result = draft(await fetch(x))
        return tracer, result

    tracer, result = asyncio.run(run())
    assert result == draft("bees!")
    assert tracer.records[0].output == "bees!"
    assert tracer.records[1].parents == (0,)


def test_the_recording_ends_with_the_block():
    traced(draft, "a")
    assert calls.current_recorder() is None


# Graphs


@pytest.mark.parametrize(
    "function",
    [
        lambda x: judge(draft(x)),
        lambda x: draft(draft(x), style="brief"),
        lambda x: show([x, draft(x), 3], {"k": (True, None)}),
        lambda x: show(search(x)[0], judge(x).why),
        lambda x: {"a": [draft(x), x], "b": judge(x)},
        lambda x: show(Doc(draft(x), [x])),
        lambda x: show(say_yes(x), "yes"),
        lambda x: Chain(draft, Chain(judge, show))(x),
        lambda x: identity(identity([x])),
    ],
)
def test_a_graph_does_for_other_inputs_what_python_does(function):
    graph = None
    tracer, result = traced(function, "abc")
    graph = tracer.to_graph(result=result, follow_path=True)
    for other in ("abc", "de", "f g"):
        assert run_graph(graph, {"x": other})["result"] == function(other)


def test_straight_code_needs_no_leave():
    def f(x):
        found = search(x)
        verdict = judge(found[1])
        return {"why": show(verdict.why, "yes"), "text": draft(found[0], style="brief")}

    same(f, "bees", "ants")


def test_numeric_code_is_followed():
    def f(x):
        y = double(double(x))
        return double(y)

    same(f, np.arange(3.0), np.ones(2))


def test_composite_operators_are_opened():
    chain = Chain(draft, Chain(judge, show))
    assert list(same(chain, "abc", "d")) == ["draft", "judge", "show"]


def test_fields_of_operators_are_constants():
    class Styled(Operator):
        op: Operator
        style: str

        def forward(self, text):
            return self.op(text, style=self.style)

    same(Styled(draft, "brief"), "abc", "d")


def test_a_loop_over_the_fields_of_an_operator_is_no_choice():
    class Every(Operator):
        ops: tuple[Operator, ...]
        n: int

        def forward(self, text):
            for op in self.ops:
                text = op(text)
            return [self.ops[0](text) for _ in range(self.n)]

    same(Every((draft, identity), 2), "abc", "d")


def test_declared_constants_are_kept():
    small = 7
    with TracerContext() as tracer:
        x = tracer.input("x", "abc")
        weights = tracer.constant(np.ones(2))
        result = show(x, [weights, weights])
        last = show(result, tracer.constant(small))
    graph = tracer.to_graph(last=last)
    assert run_graph(graph, {"x": "b"})["last"] == show(show("b", [np.ones(2)] * 2), 7)


def test_calls_without_inputs_can_be_a_graph():
    with TracerContext() as tracer:
        draft(draft("bees"))
    graph = tracer.to_graph()
    assert list(graph.inputs) == []
    assert run_graph(graph, {}) == {"draft_2": draft(draft("bees"))}


def test_a_node_knows_the_line_of_the_call():
    graph = same(lambda x: draft(x), "abc", "b")
    assert "draft(x)" in graph["draft"].metadata["line"]


# Refusals


def shouting(x):
    return draft(draft(x) + "!")


def choosing(x):
    text = draft(x)
    if len(text) > 15:
        return show(text)
    return judge(text)


def longest(x):
    found = search(x)
    best = max(found)
    return draft(best)


def looping(x):
    return [draft(text) for text in search(x)]


def looked_up(x):
    return draft({"abc": "first", "b": "second"}[x])


def by_position(x):
    k = count(x) - 2
    return draft(search(x)[k])


def either(x):
    return draft(x or say_yes(x))


def caught(x):
    try:
        return fail(x)
    except ValueError:
        return draft(x)


def unpacked(x):
    return show(*search(x))


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (choosing, "an `if`"),
        (longest, "the call of max"),
        (looping, "a loop whose length may depend on a value"),
        (looked_up, "an index that is not constant"),
        (by_position, "an index that is not constant"),
        (either, "`and` or `or`"),
        (caught, "a `try`"),
        (unpacked, "a `*`"),
    ],
)
def test_code_that_may_choose_is_refused(function, what):
    message = refusal(function)
    assert what in message
    assert "follow_path=True" in message


def test_the_path_can_be_followed_all_the_same():
    tracer, result = traced(choosing, "abc")
    graph = tracer.to_graph(result=result, follow_path=True)
    assert run_graph(graph, {"x": "b"})["result"] == show(draft("b"))


@pytest.mark.parametrize("follow_path", [False, True])
def test_a_value_from_code_between_operators_is_refused(follow_path):
    message = refusal(shouting, follow_path=follow_path)
    assert "argument 'topic' of operator 'draft'" in message
    assert "code between the operators" in message
    assert "tracer.constant(value)" in message


def test_a_value_made_of_an_input_is_refused():
    assert "code between" in refusal(lambda x: draft(x.upper()), follow_path=True)


def test_code_between_inside_a_composite_is_refused():
    assert "code between" in refusal(Careless(draft), follow_path=True)


def test_a_part_from_code_between_is_named():
    message = refusal(lambda x: show({"k": [x, x + "!"]}), follow_path=True)
    assert "value['k'][1]" in message
    assert "of operator 'show'" in message


def test_a_variable_is_no_literal():
    style = "brief"
    assert "argument 'style'" in refusal(lambda x: draft(x, style=style), follow_path=True)


def test_a_small_integer_that_an_operator_returned_is_refused():
    message = refusal(lambda x: show(count(x)), follow_path=True)
    assert "its origin cannot be told" in message


def test_an_input_without_identity_is_refused():
    assert "its origin cannot be told" in refusal(lambda x: show(x), 3)


def test_a_small_integer_computed_between_is_refused():
    assert "its origin cannot be told" in refusal(lambda x: show(len(x)), follow_path=True)


def test_an_object_that_an_operator_keeps_is_refused():
    kept = np.ones(3)

    @host
    def give(x):
        return kept

    assert "others have the same object" in refusal(lambda x: show(give(x)), follow_path=True)


def test_an_object_that_an_operator_hands_through_is_refused():
    def f(x):
        y = identity(x)
        return show(x, y)

    class Client:
        pass

    assert "others have the same object" in refusal(f, Client(), follow_path=True)


def test_a_container_changed_in_place_is_refused():
    def f(x):
        found = search(x)
        found.append(x)
        return show(found)

    assert "changed in place" in refusal(f, follow_path=True)


def test_an_array_changed_in_place_is_refused():
    def f(x):
        y = host(lambda x: x + 1)(x)
        y[0] = 0
        return show(y)

    assert "changed in place" in refusal(f, np.ones(2), follow_path=True)


def test_a_record_changed_in_place_is_refused():
    def f(x):
        verdict = judge(x)
        verdict.why = x
        return show(verdict)

    assert "changed in place" in refusal(f, follow_path=True)


def test_a_part_that_a_property_may_have_chosen_is_refused():
    @dataclasses.dataclass
    class Pages:
        lines: list

        @property
        def longest(self):
            return max(self.lines, key=len)

    @host
    def pages(x):
        return Pages([x + " one", x + " and two"])

    assert "its origin cannot be told" in refusal(lambda x: show(pages(x).longest))


def test_a_computed_result_is_refused():
    message = refusal(lambda x: draft(x) + "!", follow_path=True)
    assert "the output 'result'" in message


def test_a_failed_call_is_refused():
    assert "operator 'fail' raised ValueError" in refusal(caught, follow_path=True)


def test_a_graph_is_made_after_the_run():
    with TracerContext() as tracer:
        draft("a")
        with pytest.raises(TracingError, match=r"(?s)has not ended.*To mend it"):
            tracer.to_graph()


def test_an_input_has_one_name():
    with TracerContext() as tracer:
        tracer.input("x", 1)
        with pytest.raises(TracingError, match=r"(?s)declared before.*To mend it"):
            tracer.input("x", 2)


def test_a_recorded_output_is_never_replayed_as_a_constant():
    """Values that operators returned before, equal to what later calls are given otherwise."""

    def f(x):
        first = say_yes(x)
        return [show(first), show("yes"), first]

    graph = same(f, "abc", "b")
    constants = [n.constants["value"] for n in graph.nodes.values() if "value" in n.constants]
    assert constants == ["yes"]


def test_host_operators_with_calls_inside_stay_whole():
    class Agent(HostOperator):
        op: Any

        def forward(self, text):
            return self.op(text.upper())

    tracer, _ = traced(Agent(draft), "a")
    assert [r.depth for r in tracer.records] == [0, 1]
    graph = same(Agent(draft), "abc", "b")
    assert list(graph) == ["agent"]


def test_calls_under_a_jax_transformation_run():
    import jax

    with TracerContext() as tracer:
        result = jax.vmap(double)(jnp.ones(2))
    assert result.tolist() == [2, 2]
    assert tracer.records == ()
