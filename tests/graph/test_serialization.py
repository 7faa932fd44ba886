"""Graphs as JSON, and texts that are none."""

import dataclasses
import json
import math
import sys
import types
from typing import Any

import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ember_xcs._core.functions import as_operator, host, pure
from ember_xcs._core.operator import HostOperator, Operator
from ember_xcs._graph import XCSGraph
from ember_xcs.errors import GraphFormatError

HERE = [__name__]


class Settings(pydantic.BaseModel):
    k: int = 3


@dataclasses.dataclass(frozen=True)
class Rule:
    words: tuple[str, ...]


class Judge(HostOperator):
    rubric: str = "accuracy"
    rule: Any = None
    settings: Any = None

    def forward(self, text: str) -> str:
        return f"{self.rubric}: {text}"


class Chain(Operator):
    steps: Any

    def forward(self, text): ...

    class Inner(HostOperator):
        def forward(self, text): ...


class Failing(HostOperator):
    def __init__(self, x=1):
        if x != 1:
            raise RuntimeError("refused")
        self.x = x

    def forward(self): ...


@host(deterministic=True)
def search(query: str) -> str:
    return query * 2


@pure
def score(x): ...


def plain(text: str) -> str:
    return text


def again(graph, **changes):
    text = json.dumps(json.loads(graph.to_json()) | changes)
    return XCSGraph.from_json(text, allowed_modules=HERE)


def one_node(operator, **kwargs):
    graph = XCSGraph()
    graph.add_node(operator, "n", **kwargs)
    return graph


def test_a_graph_comes_back_equal():
    graph = XCSGraph("qa")
    a, b = graph.add_node(search), graph.add_node(plain, "p", "Plain", {"team": [1, None]})
    c = graph.add_node(plain, constants={"text": ("x", 1.5)})
    graph.input("k", default=(1, 2))
    graph.connect(graph.input("q"), a.inputs["query"])
    graph.connect(a, b)
    graph.set_outputs(b, c, length=a.outputs["0"], question=graph.input("q"))
    copy = again(graph)
    assert (copy.name, copy.edges, copy.inputs) == ("qa", graph.edges, graph.inputs)
    assert list(copy) == list(graph)
    assert {k: (p.node_id, p.field) for k, p in copy.outputs.items()} == {
        k: (p.node_id, p.field) for k, p in graph.outputs.items()
    }
    assert (copy["p"].name, dict(copy["p"].metadata)) == ("Plain", {"team": [1, None]})
    assert dict(copy["plain"].constants) == {"text": ("x", 1.5)}
    assert copy.to_json() == graph.to_json()


def test_a_decorated_function_comes_back_as_itself():
    assert again(one_node(search))["n"].operator is search
    assert again(one_node(score))["n"].operator is score


def test_a_bare_function_comes_back_as_host_work_of_itself():
    operator = again(one_node(plain))["n"].operator
    assert (operator.kind, operator("x")) == ("host", "x")


def test_nodes_that_share_an_operator_still_share_it():
    graph = XCSGraph()
    judge = Judge()
    graph.add_node(judge), graph.add_node(judge), graph.add_node(Judge())
    copy = again(graph)
    assert copy["judge"].operator is copy["judge_2"].operator
    assert copy["judge"].operator is not copy["judge_3"].operator


def test_an_operator_is_saved_as_its_class_and_fields():
    operator = again(one_node(Judge("brevity", Rule(("a", "b")), Settings(k=5))))["n"].operator
    assert operator("x") == "brevity: x"
    assert (operator.rule, operator.settings) == (Rule(("a", "b")), Settings(k=5))


def test_operators_within_operators_come_back():
    chain = Chain([Judge(), {"inner": Chain.Inner(), "search": search}, Settings])
    first, named, cls = again(one_node(chain))["n"].operator.steps
    assert isinstance(first, Judge)
    assert isinstance(named["inner"], Chain.Inner)
    assert named["search"] is search
    assert cls is Settings


def test_a_function_declared_where_it_is_used_keeps_its_kind():
    operator = again(one_node(pure(plain)))["n"].operator
    assert (operator.kind, operator("x")) == ("pure", "x")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.lists(inner).map(tuple)
            | st.dictionaries(st.text() | st.integers() | st.just("$ref"), inner)
        ),
        max_leaves=10,
    )
)
def test_plain_values_come_back_equal_and_of_one_type(value):
    copy = again(one_node(plain, constants={"text": value}))
    assert repr(copy["n"].constants["text"]) == repr(value)


def test_a_lambda_is_refused():
    with pytest.raises(GraphFormatError, match=r"cannot be imported by that name.*top of a module"):
        one_node(lambda x: x).to_json()


def test_a_local_class_is_refused():
    class Local(HostOperator):
        def forward(self): ...

    with pytest.raises(GraphFormatError, match=r"class of the operator of 'n'.*<locals>"):
        one_node(Local()).to_json()


class Renaming(HostOperator):
    def __init__(self, given):
        self.kept = given

    def forward(self): ...


def test_an_operator_that_could_not_be_made_again_is_refused():
    with pytest.raises(GraphFormatError, match=r"__init__ does not take its fields 'kept'"):
        one_node(Renaming(1)).to_json()


def test_a_name_that_now_means_something_else_is_refused(monkeypatch):
    operator = as_operator(plain)
    monkeypatch.setattr(sys.modules[__name__], "plain", search)
    with pytest.raises(GraphFormatError, match="cannot be imported by that name"):
        one_node(operator).to_json()


def test_arrays_are_refused():
    graph = one_node(Judge(rule=np.zeros((2, 3), np.float32)))
    with pytest.raises(
        GraphFormatError, match=r"'rule' of the operator of 'n' is an array float32"
    ):
        graph.to_json()


@pytest.mark.parametrize("value", [{1}, b"x", object(), np.float64(1.0), math])
def test_what_json_cannot_say_is_refused(value):
    with pytest.raises(GraphFormatError, match="the constants of 'n' is a"):
        one_node(plain, constants={"text": value}).to_json()


def test_nothing_is_imported_from_modules_that_are_not_allowed():
    text = one_node(plain).to_json()
    for allowed in ([], ["other"], [__name__[:-1]], [__name__ + ".below"]):
        with pytest.raises(GraphFormatError, match="allowed: "):
            XCSGraph.from_json(text, allowed)


def test_a_module_is_allowed_with_all_below_it():
    text = one_node(plain).to_json()
    assert list(XCSGraph.from_json(text, [__name__.split(".")[0]])) == ["n"]


def test_what_is_not_allowed_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "never_imported.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(GraphFormatError, match="allowed: "):
        again(one_node(plain), operators=[{"$ref": "never_imported:x"}])


@pytest.mark.parametrize(
    "path",
    [
        "os:system",
        "builtins:eval",
        "ember_xcs._core.functions:as_operator",
        "ember_xcs._graph.values:importlib.import_module",
        "ember_xcs._graph.values:sys",
        f"{__name__}:json.loads",
        f"{__name__}:Any",
        f"{__name__}:HERE",
        f"{__name__}:nothing",
        f"{__name__}:plain.__globals__",
        f"{__name__}:Judge.__subclasses__",
        f"{__name__}:",
        "plain",
        f"{__name__}.nothing:x",
        3,
        None,
    ],
)
def test_paths_lead_to_what_a_module_defines_only(path):
    for operator in ({"$ref": path}, {"$object": path, "fields": {}}):
        with pytest.raises(GraphFormatError):
            again(one_node(plain), operators=[operator])


def test_a_function_that_a_module_merely_imports_is_refused(monkeypatch):
    stray = types.FunctionType(plain.__code__, {"__name__": "elsewhere"}, "stray")
    monkeypatch.setattr(sys.modules[__name__], "stray", stray, raising=False)
    with pytest.raises(GraphFormatError, match="'elsewhere'; allowed"):
        again(one_node(plain), operators=[{"$ref": f"{__name__}:stray"}])


def test_a_class_that_is_no_operator_is_not_called():
    with pytest.raises(GraphFormatError, match="no class of operators or records"):
        again(one_node(plain), operators=[{"$object": f"{__name__}:Plainest", "fields": {}}])


class Plainest:
    def __init__(self):
        raise AssertionError("called")


@pytest.mark.parametrize(
    "fields", [{"x": 2}, {"nothing": 1}, [1], "x", {"x": {"$ref": "os:system"}}]
)
def test_fields_that_do_not_fit_are_refused(fields):
    with pytest.raises(GraphFormatError):
        again(one_node(plain), operators=[{"$object": f"{__name__}:Failing", "fields": fields}])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "The version is 2"),
        ({"version": True}, "The version is True"),
        ({"format": "x"}, "The format is 'x'"),
        ({"name": 3}, "'name' is 3, not a str"),
        ({"nodes": {}}, "'nodes' is {}, not a list"),
        ({"nodes": [3]}, "A int stands where an object should be"),
        ({"nodes": [{"id": "n", "operator": 5}]}, "no operator number 5"),
        ({"nodes": [{"id": "n", "operator": 0}] * 2}, "has a node 'n' already"),
        ({"nodes": [{"id": "n", "operator": 0, "constants": [1]}]}, "A list stands where"),
        ({"operators": [3]}, "3 is no operator"),
        ({"operators": [{"$strange": 1}]}, "no kind of value '\\$strange'"),
        ({"operators": [{"$tuple": 3}]}, "no value of the kind \\$tuple"),
        ({"operators": [{"$dict": [[[], 1]]}]}, "no value of the kind \\$dict"),
        ({"operators": [{"$float": "x"}]}, "no value of the kind \\$float"),
        ({"edges": [["n", None, "m", None]]}, "no node 'm'"),
        ({"edges": [["n", None, None, None]]}, "An edge has no target"),
        ({"edges": [["n"]]}, "not a list of source"),
        ({"edges": [[3, None, "n", None]]}, "3 stands where a name"),
        ({"edges": [[None, "q", "n", None]]}, "declares no input 'q'"),
        ({"outputs": {"x": {"node": "m"}}}, "no node 'm'"),
        ({"inputs": [{"name": 3}]}, "'name' is 3"),
    ],
)
def test_a_document_that_is_no_graph_is_refused(changes, message):
    with pytest.raises(GraphFormatError, match=message):
        again(one_node(plain), **changes)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000, "1" * 10_000, b"{}", None])
def test_a_text_that_is_no_document_is_refused(text):
    with pytest.raises(GraphFormatError, match=r"A saved graph is a JSON object"):
        XCSGraph.from_json(text)


def test_values_that_are_nested_too_deeply_are_refused():
    deep = '{"a":' * 900 + "1" + "}" * 900
    document = json.dumps(json.loads(one_node(plain).to_json()) | {"operators": ["DEEP"]})
    with pytest.raises(GraphFormatError):
        XCSGraph.from_json(document.replace('"DEEP"', deep), HERE)


@given(st.text())
def test_any_text_is_a_graph_or_refused(text):
    with pytest.raises(GraphFormatError):
        XCSGraph.from_json(text)


KEYS = [
    *("id", "name", "operator", "node", "field", "default", "constants", "metadata", "rubric"),
    *("fields", "$ref", "$object", "$tuple", "$dict", "$float", "$x"),
]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 5)
    | st.sampled_from(["n", "text", f"{__name__}:plain", f"{__name__}:Judge", ""]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(
        st.sampled_from(["name", "inputs", "operators", "nodes", "edges", "outputs"]), JSON
    )
)
def test_any_document_is_a_graph_or_refused(changes):
    graph = one_node(plain)
    try:
        loaded = again(graph, **changes)
    except GraphFormatError:
        return
    assert XCSGraph.from_json(loaded.to_json(), HERE).to_json() == loaded.to_json()
