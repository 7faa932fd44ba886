"""Templates: prompt text as an operator."""

import dataclasses
import json
import pickle
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ember_xcs as xcs
from ember_xcs._core.composition import Template
from ember_xcs.errors import OperatorInputError


def test_placeholders_are_filled_by_name():
    assert Template("Q: {q}\nA: {a}")(q="why", a="so") == "Q: why\nA: so"


def test_placeholders_are_filled_by_position_in_the_order_of_first_use():
    assert Template("{b}{a}{b}")("1", "2") == "121"
    assert Template("{b}{a}")("1", a="2") == "12"


def test_each_placeholder_is_an_input_field():
    signature = Template("{q} {doc.title} {docs[0][key]} {x:.2f} {y!r:>{width}} {q}").signature
    assert signature.names == ("q", "doc", "docs", "x", "y", "width")
    assert (signature.returns, signature.open) == (str, False)


def test_attributes_keys_and_formats_are_those_of_python():
    doc = types.SimpleNamespace(title="T")
    template = Template("{doc.title} {docs[0]} {x:.2f} {y!r:>{width}}")
    assert template(doc=doc, docs=["a"], x=1.234, y="b", width=5) == "T a 1.23   'b'"


def test_doubled_braces_are_braces():
    assert Template('{{"q": "{q}"}}')(q=1) == '{"q": "1"}'
    assert Template("{{}}").signature.names == ()
    assert Template("{{}}")() == "{}"


def test_a_template_without_placeholders_is_its_text():
    assert Template("hello")() == "hello"


@pytest.mark.parametrize("value", [jnp.float32(0.1), np.float32(0.1), jnp.asarray(0.1)])
def test_numbers_from_arrays_read_as_in_python(value):
    assert Template("{x} {x!s} {x:.2f}")(x=value) == f"{value} {value!s} {value:.2f}"


def test_integers_from_arrays_read_like_integers():
    assert Template("{n:03d}")(n=jnp.int32(7)) == "007"


def test_arrays_read_as_in_python():
    assert Template("{x}")(x=jnp.arange(3)) == f"{np.arange(3)}"


def test_one_mapping_fills_several_fields():
    assert Template("{q} {a}")({"q": 1, "a": 2}) == "1 2"


def test_one_mapping_is_the_value_of_a_single_field():
    assert Template("{q}")({"q": 1}) == "{'q': 1}"


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {"q": 1}), ((), {"q": 1, "a": 2, "b": 3}), ((1, 2, 3), {}), ((1,), {"q": 1, "a": 2})],
)
def test_values_that_do_not_fit_the_placeholders_name_those_that_there_are(args, kwargs):
    with pytest.raises(OperatorInputError, match=r"takes \(q, a\)"):
        Template("{q} {a}")(*args, **kwargs)


@pytest.mark.parametrize(
    ("text", "value"), [("{x.title}", 1), ("{x[0]}", []), ("{x[k]}", {}), ("{x:.2f}", "a")]
)
def test_values_that_cannot_be_formatted_name_the_template_and_their_types(text, value):
    with pytest.raises(OperatorInputError, match=f"x: {type(value).__name__}") as caught:
        Template(text)(x=value)
    assert repr(text) in str(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("text", ["{", "}", "{q", "q}", "{q!}", "{q!rr}"])
def test_malformed_text_is_an_error_at_once(text):
    with pytest.raises(ValueError, match=r"is malformed: .*\{\{ or \}\}"):
        Template(text)


@pytest.mark.parametrize(
    "text", ["{}", "{0}", "{0.x}", "{:d}", "{a b}", "{a-b}", "{class}", "{q:{}}"]
)
def test_placeholders_without_a_name_are_an_error_at_once(text):
    with pytest.raises(ValueError, match="identifier"):
        Template(text)


def test_only_text_is_a_template():
    with pytest.raises(TypeError, match="int"):
        Template(3)


def test_a_template_is_deterministic_inline_glue():
    template = Template("{q}")
    assert template.kind == "glue"
    assert (template.policy.executor, template.policy.deterministic) == ("inline", True)


def test_a_template_is_its_text():
    template = Template("{q} {a}")
    fields = {f.name: getattr(template, f.name) for f in dataclasses.fields(template)}
    assert json.loads(json.dumps(fields)) == {"text": "{q} {a}"}
    assert pickle.loads(pickle.dumps(template))(1, 2) == "1 2"
    assert template.replace(text="{b}").signature.names == ("b",)
    assert jax.tree.structure(template) == jax.tree.structure(Template("{q} {a}"))
    assert jax.tree.structure(template) != jax.tree.structure(Template("{q}"))


@pytest.mark.parametrize("name", ["self", "args", "kwargs", "text", "name"])
def test_placeholders_may_have_any_name(name):
    assert Template(f"{{{name}}}")(**{name: 1}) == "1"


@xcs.host
def fields(q):
    return {"q": q, "n": 7}


FILLED = Template("{q} {n:03d}")


@pytest.mark.parametrize("mode", ["trace", "structural"])
def test_one_mapping_that_only_the_run_knows_fills_several_fields(mode):
    program = xcs.jit(lambda q: FILLED(fields(q)), mode=mode)
    assert program("Why?") == FILLED(fields("Why?")) == "Why? 007"


def test_an_input_of_a_recorded_graph_may_be_the_mapping():
    with xcs.autograph() as graph:
        FILLED(graph.input("values"))
    assert xcs.execute_graph(graph, {"values": {"q": "a", "n": 1}})["template"] == "a 001"


def test_what_turns_out_to_be_no_mapping_is_an_error_that_names_the_fields():
    program = xcs.jit.structural(lambda q: FILLED(xcs.host(len)(q)))
    with pytest.raises(xcs.NodeExecutionError, match=r"given a int.*\(q, n\)"):
        program("Why?")


def test_a_missing_value_is_an_error_while_recording_too():
    with pytest.raises(xcs.OperatorInputError, match="'n'"):
        xcs.jit.structural(lambda q: (fields(q), FILLED("text")))("Why?")
