"""``vmap`` of host work: the plain loop is the oracle, and calls are counted."""

import asyncio
import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pydantic
import pytest

import ember_xcs as xcs
from tests.transforms.functions import exclaimed, exclaimed_later, length, shout, square

# Results as those of the plain loop


@pytest.mark.parametrize("size", [0, 1, 3])
@pytest.mark.parametrize(
    "function",
    [
        shout,
        exclaimed,
        exclaimed_later,
        xcs.host(exclaimed),
        xcs.host(exclaimed_later),
        lambda t: shout(t) + "?",
        xcs.jit(exclaimed_later),
        xcs.jit.trace(lambda t: shout(shout(t))),
    ],
    ids=["host", "plain", "async", "host plain", "host async", "calls", "jit async", "staged"],
)
def test_the_results_come_in_order(function, size):
    batch = ["one", "b", "three"][:size]

    def once(text):
        result = function(text)
        return asyncio.run(result) if asyncio.iscoroutine(result) else result

    assert xcs.vmap(function)(batch) == [once(text) for text in batch]


@pytest.mark.parametrize("numbers", [jnp.arange(3.0), [0.0, 1.0, 2.0], np.arange(3.0)])
def test_numbers_through_a_host_operator_are_an_array(numbers):
    result = xcs.vmap(square)(numbers)
    assert result.dtype == jnp.float32
    np.testing.assert_array_equal(result, [0.0, 1.0, 4.0])


def test_declared_numbers_of_an_empty_batch_have_their_type():
    result = xcs.vmap(length)([])
    assert (result.shape, result.dtype) == ((0,), jnp.float32)


def test_numeric_work_around_a_host_call():
    result = xcs.vmap(lambda x: square(x) * 2 + jnp.sin(x))(jnp.arange(3.0))
    np.testing.assert_allclose(result, [x * x * 2 + np.sin(x) for x in range(3)], rtol=1e-6)


def test_a_dict_of_lists_is_a_batch_of_dicts():
    def function(d):
        return {"both": d["q"] + d["k"], "q": d["q"]}

    batch = {"q": ["a", "b"], "k": ["x", "y"]}
    assert xcs.vmap(function)(batch) == {"both": ["ax", "by"], "q": ["a", "b"]}


def test_the_keys_of_a_dict_keep_their_order():
    seen = []

    def function(d):
        seen.append(list(d))
        return {"z": d["b"], "a": d["a"]}

    result = xcs.vmap(function)({"b": ["x", "y"], "a": ["z", "w"]})
    assert seen == [["b", "a"]] * 2
    assert list(result) == ["z", "a"]


@pytest.mark.parametrize(
    "mapped", [xcs.vmap, xcs.pmap, lambda f: xcs.jit(xcs.vmap(f)), lambda f: xcs.vmap(xcs.jit(f))]
)
def test_the_keys_of_a_shared_dict_keep_their_order(mapped):
    show = xcs.host(lambda text, settings: f"{text} {settings}")
    assert mapped(show)(["a"], {"z": 1, "b": "x"}) == ["a {'z': 1, 'b': 'x'}"]


@pytest.mark.parametrize("batch", [[], ["a", "b"], [[], []], [["a"], ["b"]], ["a", 1, None]])
def test_a_list_that_is_known_while_staging(batch):
    def wrap(value):
        return [value]

    depth = 2 if batch and isinstance(batch[0], list) else 1
    mapped = xcs.vmap(xcs.host(wrap))
    staged = xcs.jit.trace(lambda: (xcs.vmap(mapped) if depth == 2 else mapped)(batch))
    expected = [list(map(wrap, row)) for row in batch] if depth == 2 else list(map(wrap, batch))
    assert staged() == expected


def test_the_constructor_of_a_class_is_a_function():
    assert xcs.vmap(float)(["1", "2.5"]) == [1.0, 2.5]
    assert xcs.vmap(Plain)(["a"], [1]) == [Plain("a", 1)]


@dataclasses.dataclass
class Plain:
    text: str
    count: int


class Model(pydantic.BaseModel):
    text: str
    count: int


class Pair(NamedTuple):
    text: str
    count: int


@pytest.mark.parametrize("kind", [Plain, Model, Pair])
@pytest.mark.parametrize("declare", [lambda f: f, xcs.host])
def test_a_list_of_records_is_a_batch(kind, declare):
    @declare
    def repeated(record):
        assert type(record) is kind
        return record.text * record.count

    batch = [kind(text="x", count=1), kind(text="y", count=2)]
    assert xcs.vmap(repeated)(batch) == ["x", "yy"]


@pytest.mark.parametrize("kind", [Plain, Model])
def test_a_record_without_an_axis_is_shared(kind):
    record = kind(text="x", count=2)
    assert xcs.vmap(lambda t, r: t + r.text * r.count)(["a", "b"], record) == ["axx", "bxx"]


@pytest.mark.parametrize("kind", [Plain, Model])
def test_declared_records_come_as_a_record_of_batches(kind):
    def make(text):
        return kind(text=text, count=len(text))

    make.__annotations__["return"] = kind
    result = xcs.vmap(xcs.host(make))(["a", "bb"])
    assert type(result) is kind
    assert result.text == ["a", "bb"]
    np.testing.assert_array_equal(result.count, [1, 2])


@pytest.mark.parametrize("shared", ["!", None, {"mark": "!", "more": {"k": 1}}, 3, (1, "a")])
@pytest.mark.parametrize("declare", [lambda f: f, xcs.host])
def test_what_has_no_axis_is_shared(shared, declare):
    @declare
    def function(text, settings):
        return text, settings

    if declare is xcs.host:
        assert xcs.vmap(function)(["a", "b"], shared) == [("a", shared), ("b", shared)]
    else:
        texts, settings = xcs.vmap(lambda t, s: (t, [s]))(["a", "b"], shared)
        assert (texts, settings) == (["a", "b"], [[shared], [shared]])


def test_a_list_is_shared_where_in_axes_says_so():
    def function(text, words):
        return text + "".join(words)

    assert xcs.vmap(function, in_axes=(0, None))(["a", "b"], ["x", "y"]) == ["axy", "bxy"]
    host = xcs.host(function)
    assert xcs.vmap(host, in_axes=(0, None))(["a", "b"], ["x", "y"]) == ["axy", "bxy"]


class Prompted(xcs.HostOperator):
    """In the style of one dict in, one dict out."""

    def forward(self, *, inputs):
        return {"out": inputs["q"] + inputs.get("mark", "?")}


def test_inputs_style():
    loop = [Prompted()(inputs={"q": q, "mark": "!"}) for q in ("a", "b")]
    assert xcs.vmap(Prompted())(inputs={"q": ["a", "b"], "mark": "!"}) == loop


def test_inputs_style_with_axes_by_field():
    def function(*, inputs):
        return inputs["q"] + "".join(inputs["words"])

    mapped = xcs.vmap(function, in_axes={"words": None})
    assert mapped(inputs={"q": ["a", "b"], "words": ["x", "y"]}) == ["axy", "bxy"]


def test_none_is_a_value_of_a_batch():
    assert xcs.vmap(lambda x: x)([None, "a"]) == [None, "a"]
    assert xcs.vmap(xcs.host(lambda x: x))([None, "a"]) == [None, "a"]


def test_an_array_of_strings_is_a_batch():
    assert xcs.vmap(shout)(np.array(["a", "b"])) == ["A", "B"]
    assert xcs.vmap(exclaimed)(np.array(["ab", "b"], object)) == ["ab!", "b"]


def test_another_axis_of_a_list_of_lists():
    batch = [["a", "b"], ["c", "d"]]
    assert xcs.vmap(lambda column: column, in_axes=1)(batch) == [["a", "c"], ["b", "d"]]
    assert xcs.vmap(xcs.vmap(shout), in_axes=1)(batch) == [["A", "C"], ["B", "D"]]


def test_results_that_are_shared():
    mapped = xcs.vmap(lambda x, y: (x, y), in_axes=(0, None), out_axes=(0, None))
    assert mapped(["a", "b"], "s") == (["a", "b"], "s")


def test_arrays_out_of_a_dynamic_function_are_stacked():
    result = xcs.vmap(lambda t: jnp.ones(2) * len(t), out_axes=1)(["a", "bb"])
    np.testing.assert_array_equal(result, [[1.0, 2.0], [1.0, 2.0]])


def test_lists_of_different_lengths_are_values():
    assert xcs.vmap(list)(["ab", "c"]) == [["a", "b"], ["c"]]


@pytest.mark.parametrize("function", [shout, lambda t: t.upper()], ids=["host", "plain"])
def test_batches_of_batches_of_different_lengths(function):
    assert xcs.vmap(xcs.vmap(function))([["a", "b"], ["c"], []]) == [["A", "B"], ["C"], []]


def test_objects_that_are_no_trees_pass_through():
    objects = [object(), object()]
    result = xcs.vmap(xcs.host(lambda x: x))(objects)
    assert [a is b for a, b in zip(result, objects, strict=True)] == [True, True]
