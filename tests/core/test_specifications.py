"""``input_spec``, ``output_spec``, and operators of the form ``forward(self, *, inputs)``."""

import pydantic
import pytest

import ember_xcs as xcs
from ember_xcs._core.composition import Parallel, Sequential
from ember_xcs._core.functions import host
from ember_xcs._core.operator import HostOperator, Operator
from ember_xcs.errors import OperatorInputError, OperatorOutputError


class Question(pydantic.BaseModel):
    query: str
    limit: int = 3


class Answer(pydantic.BaseModel):
    answer: str
    confidence: float = 1.0


class Plain(Operator):
    def forward(self, *, inputs):
        return {"answer": inputs["query"].upper()}


class Specified(HostOperator):
    input_spec = Question
    output_spec = Answer

    def forward(self, *, inputs):
        return {"answer": inputs["query"] * inputs["limit"], "confidence": "0.5"}


class ByArguments(HostOperator):
    input_spec = Question
    output_spec = Answer

    def forward(self, query, limit):
        return Answer(answer=query * limit)


class Summary(HostOperator):
    def forward(self, *, inputs):
        return {"text": f"{inputs['answer']}."}


def test_inputs_are_passed_as_one_mapping():
    assert Plain()(inputs={"query": "a"}) == {"answer": "A"}


def test_without_specification_any_field_is_accepted():
    signature = Plain().signature
    assert (signature.style, signature.open, signature.fields) == ("inputs", True, ())


def test_with_specification_the_fields_are_its_keys():
    signature = Specified().signature
    assert (signature.style, signature.open) == ("inputs", False)
    assert signature.names == ("query", "limit")
    assert [field.required for field in signature.fields] == [True, False]
    assert signature.outputs == ("answer", "confidence")


def test_inputs_and_outputs_are_completed_and_converted():
    result = Specified()(inputs={"query": "a"})
    assert result == {"answer": "aaa", "confidence": 0.5}


def test_arguments_are_converted_by_the_specification():
    assert ByArguments()("a", limit="2") == Answer(answer="aa")
    assert ByArguments()(query="a", limit=1).answer == "a"


@pytest.mark.parametrize(
    ("inputs", "problem"), [({}, "query"), ({"query": "a", "limit": "x"}, "limit"), (3, "Question")]
)
def test_inputs_that_break_the_specification_name_operator_and_field(inputs, problem):
    with pytest.raises(OperatorInputError, match=f"'Specified'.*{problem}"):
        Specified()(inputs=inputs)


def test_a_result_that_breaks_the_specification_names_operator_and_field():
    class Wrong(Specified):
        def forward(self, *, inputs):
            return {"confidence": 1.0}

    with pytest.raises(OperatorOutputError, match=r"'Wrong' declares to return Answer.*answer"):
        Wrong()(inputs={"query": "a"})


def test_a_pure_operator_may_have_specifications():
    class Checked(Plain):
        input_spec = Question
        output_spec = Answer

    assert Checked()(inputs={"query": "a"}) == {"answer": "A", "confidence": 1.0}


def test_inputs_cannot_be_passed_by_position():
    with pytest.raises(OperatorInputError, match="'Plain'"):
        Plain()({"query": "a"})


def test_functions_may_take_inputs():
    @host
    def upper(*, inputs):
        return {"answer": inputs["query"].upper()}

    assert upper.signature.style == "inputs"
    assert upper(inputs={"query": "a"}) == {"answer": "A"}


def test_results_are_passed_on_as_inputs():
    assert (Plain() >> Summary())(inputs={"query": "a"}) == {"text": "A."}


def test_a_sequence_takes_the_fields_of_its_first_operator():
    pipeline = Specified() >> Summary()
    assert pipeline.signature.style == "inputs"
    assert pipeline.signature.names == ("query", "limit")
    assert pipeline(inputs={"query": "a"}) == {"text": "aaa."}


def test_inputs_go_to_each_parallel_operator():
    both = Parallel(plain=Plain(), specified=Specified())
    assert both(inputs={"query": "a"})["plain"] == {"answer": "A"}


def test_a_specification_is_applied_once_in_a_sequence():
    class Grow(pydantic.BaseModel):
        text: str

        @pydantic.field_validator("text")
        @classmethod
        def _grow(cls, value):
            return value + "+"

    class Step(Operator):
        output_spec = Grow

        def forward(self, text):
            return {"text": text}

    assert Sequential(Step())("a") == {"text": "a+"}


class Counted(pydantic.BaseModel):
    q: str
    count: int = 2
    tags: list[str] = pydantic.Field(default_factory=lambda: ["tag"])


class Asks(xcs.HostOperator):
    input_spec = Counted

    def forward(self, q, count, tags):
        return q * count, tags


class Asking(xcs.Operator):
    input_spec = Counted
    inner: xcs.Operator

    def forward(self, q, count, tags):
        return self.inner(q, count, tags)


def test_defaults_of_the_specification_stand_for_arguments_that_are_not_given():
    assert Asks()("a") == ("aa", ["tag"])
    assert Asks()("a", tags=["x"]) == ("aa", ["x"])
    assert Asks()("a", 3) == ("aaa", ["tag"])
    assert [f.required for f in Asks().signature.fields] == [True, False, False]


def test_an_argument_without_a_default_is_still_required():
    with pytest.raises(xcs.OperatorInputError, match="missing a required argument: 'q'"):
        Asks()(count=2)


@pytest.mark.parametrize("mode", ["trace", "structural"])
@pytest.mark.parametrize("operator", [Asks(), Asking(Asks())], ids=["host", "composite"])
def test_defaults_of_the_specification_hold_in_compiled_programs_and_graphs(operator, mode):
    graph = xcs.XCSGraph()
    graph.add_node(operator, "node")
    assert xcs.execute_graph(graph, {"q": "a"})["node"] == ("aa", ["tag"])
    assert tuple(xcs.jit(operator, mode=mode)("a")) == ("aa", ["tag"])
