"""What feeds each input field: the rules, and what is said when they are broken."""

import dataclasses
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ember_xcs._core.operator import HostOperator
from ember_xcs._graph import (
    ConstantBinding,
    InputBinding,
    OutputBinding,
    SpreadBinding,
    XCSGraph,
    pick_field,
)
from ember_xcs.errors import (
    FieldConflictError,
    GraphError,
    UnboundInputError,
    UnknownFieldError,
)


class Page(TypedDict):
    text: str
    url: str


def text_out(x: Any) -> str: ...


def page_out(x: Any) -> Page: ...


def any_out(x: Any) -> Any: ...


def two(a, b): ...


def reader(text, limit=3): ...


def keyword_only(text, *, url, limit=3): ...


class Legacy(HostOperator):
    def forward(self, *, inputs): ...


def fan_in(target, *sources, **constants):
    """A graph of ``s0, s1, ... -> t``, without mappings."""
    graph = XCSGraph()
    node = graph.add_node(target, "t", constants=constants)
    for index, source in enumerate(sources):
        graph.connect(graph.add_node(source, f"s{index}"), node)
    return graph


def received(graph, **results):
    return graph.prepare_node_inputs("t", results)


def test_a_node_without_edges_takes_the_graph_inputs_by_name():
    graph = fan_in(reader)
    assert dict(graph.bindings("t").fields) == {
        "text": InputBinding("text", "text", required=True),
        "limit": InputBinding("limit", "limit", required=False),
    }
    assert graph.prepare_node_inputs("t", {}, {"text": "x"}) == {"text": "x"}
    assert graph.prepare_node_inputs("t", {}, {"text": "x", "limit": 1, "z": 0}) == {
        "text": "x",
        "limit": 1,
    }


def test_a_declared_value_goes_to_the_next_unbound_parameter_in_edge_order():
    graph = fan_in(two, text_out, text_out)
    assert dict(graph.bindings("t").fields) == {
        "a": OutputBinding("a", "s0"),
        "b": OutputBinding("b", "s1"),
    }
    assert received(graph, s0={"b": 1}, s1="y") == {"a": {"b": 1}, "b": "y"}


def test_a_declared_record_is_carried_by_names_that_the_target_has():
    graph = fan_in(reader, page_out)
    assert dict(graph.bindings("t").fields) == {"text": OutputBinding("text", "s0", "text")}
    assert received(graph, s0={"text": "hello", "url": "u"}) == {"text": "hello"}


def test_a_mapped_edge_is_taken_as_it_is_and_first():
    graph = fan_in(two, text_out)
    graph.connect(graph.add_node(text_out, "s1"), graph["t"].inputs["a"])
    assert received(graph, s0=0, s1=1) == {"a": 1, "b": 0}


@given(st.lists(st.sampled_from([None, "a", "b", "c"]), min_size=1, max_size=4))
def test_mapped_edges_come_first_and_the_others_take_what_is_left(targets):
    def three(a, b, c=0): ...

    graph = XCSGraph()
    node = graph.add_node(three, "t")
    for k, field in enumerate(targets):
        source = graph.add_node(text_out, f"s{k}")
        graph.connect(source, node if field is None else node.inputs[field])

    mapped = [(field, f"s{k}") for k, field in enumerate(targets) if field is not None]
    others = [f"s{k}" for k, field in enumerate(targets) if field is None]
    left = [field for field in "abc" if field not in dict(mapped)]
    expected = dict(mapped) | dict(zip(left, others, strict=False))
    if len(dict(mapped)) < len(mapped) or len(others) > len(left):
        with pytest.raises(FieldConflictError):
            graph.validate()
    elif not {"a", "b"} <= expected.keys():
        with pytest.raises(UnboundInputError):
            graph.validate()
    else:
        found = graph.bindings("t")
        assert dict(found.fields) == {f: OutputBinding(f, s) for f, s in expected.items()}
        assert not found.spreads


def test_a_field_without_target_goes_to_the_field_of_its_name():
    graph = XCSGraph()
    page, node = graph.add_node(page_out, "s0"), graph.add_node(keyword_only, "t")
    graph.connect(page.outputs["url"], node)
    graph.connect(page.outputs["text"], node)
    assert received(graph, s0={"text": 1, "url": 2}) == {"text": 1, "url": 2}


def test_required_keyword_only_parameters_come_after_the_others():
    assert received(fan_in(keyword_only, text_out, text_out), s0=0, s1=1) == {"text": 0, "url": 1}


def test_an_optional_keyword_only_parameter_is_fed_by_name_only():
    with pytest.raises(FieldConflictError, match="No unbound parameter of 't'"):
        fan_in(keyword_only, text_out, text_out, text_out).validate()


def test_constants_bind_their_fields():
    graph = fan_in(two, text_out, a=7)
    assert graph.bindings("t").fields["a"] == ConstantBinding("a", 7)
    assert received(graph, s0=1) == {"a": 7, "b": 1}


def test_constants_are_not_overwritten_by_the_fields_of_a_record():
    graph = fan_in(keyword_only, page_out, text="mine")
    assert received(graph, s0={"text": 1, "url": 2}) == {"text": "mine", "url": 2}


def test_an_unknown_output_is_decided_by_its_value():
    graph = fan_in(two, any_out, any_out)
    bindings = graph.bindings("t")
    assert bindings.spreads == (SpreadBinding("s0"), SpreadBinding("s1"))
    assert not bindings.fields
    assert received(graph, s0="x", s1="y") == {"a": "x", "b": "y"}
    assert received(graph, s0="x", s1={"a": 1, "z": 2}) == {"a": 1, "b": "x"}
    assert received(graph, s0={"a": 1}, s1={"b": 2}) == {"a": 1, "b": 2}


def test_a_declared_value_waits_for_unknown_outputs_beside_it():
    graph = fan_in(two, text_out, any_out)
    assert graph.bindings("t").spreads == (SpreadBinding("s0", None, True), SpreadBinding("s1"))
    assert received(graph, s0={"b": 0}, s1={"a": 1}) == {"a": 1, "b": {"b": 0}}


def test_an_unknown_mapping_leaves_constants_alone():
    assert received(fan_in(two, any_out, a=7), s0={"a": 1, "b": 2}) == {"a": 7, "b": 2}


def test_two_unknown_mappings_that_feed_one_field_are_refused_in_the_run():
    graph = fan_in(two, any_out, any_out)
    with pytest.raises(
        FieldConflictError, match="fed by the output of 's0' and by the output of 's1'"
    ):
        received(graph, s0={"a": 1}, s1={"a": 2})


def test_an_unknown_mapping_without_a_known_key_is_refused_in_the_run():
    with pytest.raises(UnknownFieldError, match=r"carries nothing.*'z'.*'a', 'b'.*field_mappings"):
        received(fan_in(two, any_out), s0={"z": 1})


def test_an_unknown_mapping_that_leaves_a_required_field_is_refused_in_the_run():
    with pytest.raises(UnboundInputError, match="'b' of 't'"):
        received(fan_in(two, any_out), s0={"a": 1})


def test_too_many_unknown_values_are_refused_in_the_run():
    with pytest.raises(FieldConflictError, match="No unbound parameter of 't' is left"):
        received(fan_in(reader, any_out, any_out, any_out), s0=0, s1=1, s2=2)


@pytest.mark.parametrize(
    ("returns", "value", "expected"),
    [
        (dict[str, Any], {"a": 1}, {"a": 1}),
        (str | dict, {"a": 1}, {"a": 1}),
        (str | None, {"a": 1}, {"a": {"a": 1}}),
        (Annotated[dict, "x"], {"a": 1}, {"a": 1}),
        (list[int], {"a": 1}, {"a": {"a": 1}}),
        (Literal["x"], {"a": 1}, {"a": {"a": 1}}),
        (None, {"a": 1}, {"a": {"a": 1}}),
        (object, {"a": 1}, {"a": 1}),
    ],
)
def test_an_annotation_says_whether_the_output_may_be_a_mapping(returns, value, expected):
    def source(x): ...

    source.__annotations__["return"] = returns

    def target(a, b=None): ...

    assert received(fan_in(target, source), s0=value) == expected


def test_inputs_style_operators_take_any_field():
    graph = fan_in(Legacy(), any_out)
    graph.connect(graph.add_node(page_out, "s1"), graph["t"])
    assert received(graph, s0={"a": 1}, s1={"text": "x", "url": "u"}) == {
        "a": 1,
        "text": "x",
        "url": "u",
    }


def test_inputs_style_operators_without_edges_take_all_that_the_graph_is_given():
    graph = fan_in(Legacy(), b=2)
    assert graph.takes_any_input
    assert graph.bindings("t").spreads == (SpreadBinding(None, None),)
    assert graph.prepare_node_inputs("t", {}, {"a": 1, "b": 0}) == {"a": 1, "b": 2}
    assert graph.prepare_node_inputs("t", {}, {}) == {"b": 2}


def test_a_plain_value_has_no_place_in_an_inputs_style_operator():
    with pytest.raises(FieldConflictError, match=r"names no parameters.*Name the field"):
        fan_in(Legacy(), text_out).validate()


def test_a_graph_input_is_a_source_with_and_without_a_port():
    graph = fan_in(two)
    graph.connect(graph.input("x"), graph["t"].inputs["b"])
    graph.connect(graph.input("a"), graph["t"])
    assert dict(graph.bindings("t").fields) == {
        "b": InputBinding("b", "x"),
        "a": InputBinding("a", "a"),
    }
    assert graph.prepare_node_inputs("t", {}, {"x": 1, "a": 2}) == {"b": 1, "a": 2}


def test_a_graph_input_of_another_name_is_decided_by_its_value():
    graph = fan_in(two)
    graph.connect(graph.input("pair"), graph["t"])
    assert graph.prepare_node_inputs("t", {}, {"pair": {"a": 1, "b": 2}}) == {"a": 1, "b": 2}
    with pytest.raises(UnboundInputError, match="'b' of 't'"):
        graph.prepare_node_inputs("t", {}, {"pair": 1})


def test_a_graph_input_gives_its_name_to_an_inputs_style_operator():
    graph = fan_in(Legacy())
    graph.connect(graph.input("query"), graph["t"])
    assert graph.prepare_node_inputs("t", {}, {"query": "x"}) == {"query": "x"}


def test_two_edges_to_one_field_are_refused_by_validate():
    graph = fan_in(keyword_only, page_out, page_out)
    with pytest.raises(FieldConflictError) as caught:
        graph.validate()
    assert (
        "'text' of 't' is fed by the field 'text' of 's0' and by the field 'text' of 's1'"
        in str(caught.value)
    )
    assert caught.value.node_ids == ("t",)


def test_an_edge_to_a_constant_is_refused():
    graph = fan_in(two, a=1)
    graph.connect(graph.add_node(text_out, "s0"), graph["t"].inputs["a"])
    with pytest.raises(
        FieldConflictError, match="a constant of the node and by the output of 's0'"
    ):
        graph.validate()


def test_an_unknown_target_field_is_refused_with_the_nearest():
    graph = fan_in(reader)
    graph.add_node(text_out, "s0")
    graph.add_edge("s0", "t", {"x": "txt"})
    with pytest.raises(
        UnknownFieldError, match=r"'txt' \(did you mean 'text'\?\).*'text', 'limit'"
    ):
        graph.validate()


def test_an_unknown_source_field_is_refused_with_the_nearest():
    graph = fan_in(reader)
    graph.add_node(page_out, "s0")
    graph.add_edge("s0", "t", {"txt": "text"})
    with pytest.raises(UnknownFieldError, match=r"no output field 'txt' \(did you mean 'text'\?\)"):
        graph.validate()


def test_an_unknown_constant_is_refused():
    with pytest.raises(UnknownFieldError, match="no input field 'c'"):
        fan_in(two, text_out, c=1).validate()


def test_a_record_of_which_nothing_fits_is_refused():
    with pytest.raises(UnknownFieldError, match=r"'text', 'url', and 't' takes 'a', 'b'.*Map them"):
        fan_in(two, page_out).validate()


def test_an_unbound_required_field_is_refused():
    with pytest.raises(UnboundInputError) as caught:
        fan_in(two, text_out).validate()
    assert "Nothing feeds the input field 'b' of 't'" in str(caught.value)
    assert "graph.input('b')" in str(caught.value)


def test_a_missing_graph_input_is_refused():
    with pytest.raises(UnboundInputError, match=r"'a', which 't' reads, was not given; given: 'z'"):
        fan_in(two).prepare_node_inputs("t", {}, {"z": 1})


def test_a_missing_result_is_refused():
    with pytest.raises(GraphError, match="no result of 's0', which 't' reads") as caught:
        received(fan_in(two, text_out, text_out))
    assert caught.value.node_ids == ("s0", "t")


def test_validate_checks_the_fields_of_outputs():
    graph = fan_in(page_out)
    port = dataclasses.replace(graph["t"].outputs["text"], field="txt")
    graph.set_outputs(port)
    with pytest.raises(UnknownFieldError, match="no output field 'txt'"):
        graph.validate()


class Model(pydantic.BaseModel):
    text: str


class Pair(NamedTuple):
    first: int
    second: int


@dataclasses.dataclass
class Data:
    text: str


@pytest.mark.parametrize(
    ("value", "field", "expected"),
    [
        ({"a": 1}, "a", 1),
        ({"0": 1}, "0", 1),
        (Model(text="x"), "text", "x"),
        (Data("x"), "text", "x"),
        (Pair(1, 2), "second", 2),
        (Pair(1, 2), "0", 1),
        ([1, 2], "-1", 2),
        (3 + 4j, "imag", 4.0),
    ],
)
def test_pick_field_finds(value, field, expected):
    assert pick_field(value, field) == expected


@pytest.mark.parametrize(
    ("value", "field", "message"),
    [
        ({"text": 1}, "txt", r"type dict has no field 'txt' \(did you mean 'text'\?\)"),
        (Model(text="x"), "txt", r"type Model .*did you mean 'text'"),
        (Data("x"), "txt", r"type Data .*did you mean 'text'"),
        (Pair(1, 2), "frist", r"type Pair .*did you mean 'first'"),
        ([1, 2], "2", r"type list has no field '2'.*has '0', '1'"),
        (7, "0", "type int has no field '0'"),
        (Pair(1, 2), "_asdict", "type Pair has no field '_asdict'"),
        ("text", "__class__", "type str has no field '__class__'"),
    ],
)
def test_pick_field_refuses(value, field, message):
    with pytest.raises(UnknownFieldError, match=message):
        pick_field(value, field)
