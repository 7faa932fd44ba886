"""What ``vmap`` says when it is used wrongly: given, rule, remedy."""

import jax.numpy as jnp
import pytest

import ember_xcs as xcs
from tests.transforms.functions import shout, square

MATRIX = jnp.arange(6.0).reshape(2, 3)


def refused(function, *args, **kwargs):
    with pytest.raises(xcs.TransformError) as caught:
        function(*args, **kwargs)
    return str(caught.value)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: x + y,
        xcs.host(lambda x, y: x + y),
    ],
    ids=["plain", "host"],
)
@pytest.mark.parametrize(
    "batches", [(jnp.ones(2), jnp.ones(3)), (["a", "b"], ["a", "b", "c"])], ids=["arrays", "lists"]
)
def test_different_lengths_with_names_and_lengths(function, batches):
    message = refused(xcs.vmap(function), *batches)
    assert "batches of different lengths: x has 2, y has 3" in message
    assert "None in in_axes" in message


def test_different_lengths_within_a_tree():
    message = refused(xcs.vmap(lambda d: d), {"q": ["a"], "k": ["b", "c"]})
    assert "d['q'] has 1, d['k'] has 2" in message


def test_different_lengths_among_the_fields_of_inputs():
    message = refused(xcs.vmap(lambda *, inputs: inputs), inputs={"q": ["a"], "k": ["b", "c"]})
    assert "inputs['q'] has 1, inputs['k'] has 2" in message


def test_different_lengths_by_keyword():
    message = refused(xcs.vmap(lambda x, y: x), ["a"], y=["b", "c"])
    assert "x has 1, y has 2" in message


@pytest.mark.parametrize("function", [shout, jnp.sin])
def test_a_length_that_is_not_the_axis_size(function):
    batch = ["a", "b"] if function is shout else jnp.ones(2)
    assert "has 2, axis_size has 3" in refused(xcs.vmap(function, axis_size=3), batch)


def test_nothing_to_map_over():
    message = refused(xcs.vmap(shout), "a")
    assert "nothing to map over: text is str[1]" in message
    assert "a list with one entry for each call" in message


def test_a_tuple_is_a_tree_and_no_batch():
    assert "text[0] is str[1], text[1] is str[1]" in refused(xcs.vmap(shout), ("a", "b"))


def test_no_arguments_at_all():
    assert "nothing to map over: no arguments" in refused(xcs.vmap(lambda: 1))


def test_a_number_where_a_batch_should_be():
    message = refused(xcs.vmap(lambda x, y: x + y), MATRIX, 1.0)
    assert "y is to be mapped along axis 0, and it is float, which has 0 axes" in message
    assert "None to share it" in message


@pytest.mark.parametrize("function", [square, lambda x: x])
def test_an_axis_that_an_array_does_not_have(function):
    message = refused(xcs.vmap(function, in_axes=2), MATRIX)
    assert "x is to be mapped along axis 2, and it is float32[2, 3], which has 2 axes" in message


def test_an_axis_that_lists_of_different_lengths_do_not_have():
    message = refused(xcs.vmap(lambda xs: xs, in_axes=1), [["a", "b"], ["c"]])
    assert "axis 1" in message
    assert "which has 1 axes" in message


@pytest.mark.parametrize("batch", [["a"], jnp.ones(1)])
def test_too_few_axes_for_the_arguments(batch):
    message = refused(xcs.vmap(lambda x, y: x, in_axes=(0,)), batch, batch)
    assert "in_axes=(0,) does not fit" in message
    assert "2 positional arguments (x, y)" in message


@pytest.mark.parametrize("axes", [("a",), "a", 1.5])
def test_axes_that_are_no_axes_are_refused_at_once(axes):
    with pytest.raises(TypeError, match="in_axes must be an int, None"):
        xcs.vmap(shout, in_axes=axes)


def test_out_axes_that_are_no_axes_are_refused_at_once():
    with pytest.raises(TypeError, match="out_axes must be an int, None"):
        xcs.vmap(shout, out_axes="x")


@pytest.mark.parametrize("batch", [["a"], MATRIX])
def test_axes_for_a_tree_that_is_another(batch):
    message = refused(xcs.vmap(lambda d: d, in_axes=({"x": 0},)), {"y": batch})
    assert "in_axes has {'x': 0} for d" in message
    assert "expected keys: ['x']; present keys: ['y']" in message


def test_axes_by_a_name_that_is_no_argument():
    message = refused(xcs.vmap(lambda d: d, in_axes={"x": 0}), ["a"])
    assert "in_axes has 'x', which is no argument of this call" in message
    assert "it was given d" in message


def test_axes_by_a_name_that_hold_something_else():
    message = refused(xcs.vmap(lambda d: d, in_axes={"d": "zero"}), ["a"])
    assert "in_axes has 'zero' for d; what it may have is an int or None" in message


def fails_at_b(text):
    if text == "b":
        raise ValueError("cannot do b")
    return text


@pytest.mark.parametrize("declare", [lambda f: f, xcs.host])
def test_the_element_that_fails_and_a_summary_of_its_inputs(declare):
    with pytest.raises(
        xcs.NodeExecutionError, match="element 1: ValueError: cannot do b"
    ) as caught:
        xcs.vmap(declare(fails_at_b))(["a", "b", "c"])
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.inputs == "str[1]"


def test_contents_stay_out_of_messages():
    def fails(text, settings):
        raise KeyError(0)

    with pytest.raises(xcs.NodeExecutionError) as caught:
        xcs.vmap(fails)(["secret"], {"key": "hidden"})
    assert "its inputs: str[6], {key: str[6]}" in str(caught.value)


def test_the_element_that_fails_in_nested_batches():
    with pytest.raises(xcs.NodeExecutionError, match=r"element \(1, 0\): ValueError"):
        xcs.vmap(xcs.vmap(xcs.host(fails_at_b)))([["a", "a"], ["b", "a"]])


def test_results_of_different_structure():
    def function(text):
        return {"x": 1} if text == "a" else {"y": 1}

    message = refused(xcs.vmap(function), ["a", "b"])
    assert "do not match in structure: element 0 gave" in message
    assert "element 1 gave {y: int}" in message


def test_results_of_different_kinds():
    message = refused(xcs.vmap(lambda t: (1, 2) if t == "a" else 3), ["a", "b"])
    assert "element 1 gave int" in message


def test_an_out_axis_for_what_comes_in_a_list():
    message = refused(xcs.vmap(lambda t: t, out_axes=1), ["a"])
    assert "out_axes has 1 for a result" in message
    assert "a list has axis 0 alone" in message


def test_an_out_axis_that_results_do_not_have():
    message = refused(xcs.vmap(lambda t: jnp.ones(2), out_axes=4), ["a"])
    assert "out_axes has 4" in message
    assert "float32[2] for each element: stacked it has 2 axes" in message


@pytest.mark.parametrize("out_axes", [1, (0, 0), None])
def test_out_axes_that_do_not_fit_staged_results(out_axes):
    message = refused(xcs.vmap(shout, out_axes=out_axes), ["a", "b"])
    assert f"out_axes={out_axes!r} does not fit the results" in message


def test_out_axes_for_a_tree_that_is_another():
    message = refused(xcs.vmap(lambda t: (t, t), out_axes=(0, 0, 0)), ["a"])
    assert "out_axes=(0, 0, 0) does not fit the results" in message


def test_a_shared_result_that_differs():
    message = refused(xcs.vmap(lambda t: t, out_axes=None), ["a", "a", "b"])
    assert "element 2 differs from element 0" in message


def test_a_shared_result_of_no_elements():
    assert "the batch is empty" in refused(xcs.vmap(lambda t: t, out_axes=None), [])


def test_an_axis_name_where_elements_are_called_one_by_one():
    message = refused(xcs.vmap(lambda t: t, axis_name="batch"), ["a"])
    assert "axis_name='batch'" in message
    assert "xcs.jit.trace" in message


def test_a_batch_that_is_not_known_while_staging():
    with pytest.raises(xcs.TracingError, match="t, a host value that is not known") as caught:
        xcs.jit.trace(xcs.vmap(shout))("ab")
    assert "test_vmap_misuse.py" in str(caught.value.user_line)


@pytest.mark.parametrize("given", [3, xcs.HostOperator], ids=["number", "class"])
def test_what_cannot_be_mapped(given):
    with pytest.raises(TypeError, match="vmap takes a function, an operator, a graph"):
        xcs.vmap(given)


def test_a_class_is_to_be_made_an_instance():
    with pytest.raises(TypeError, match="Make an instance of the class"):
        xcs.vmap(xcs.HostOperator)


@pytest.mark.parametrize("transform", ["jit", "vmap", "grad"])
def test_host_calls_under_transformations_of_jax(transform):
    import jax

    def total(x):
        return jnp.sum(xcs.vmap(square)(x))

    batch = MATRIX if transform == "vmap" else MATRIX[0]
    with pytest.raises(xcs.TracingError, match=r"'square' was called .* xcs\.jit"):
        getattr(jax, transform)(total)(batch)


def test_arguments_of_functions_that_take_any_number_are_named_by_position():
    message = refused(xcs.vmap(lambda *rows, out=None: rows[0]), jnp.ones(3), jnp.ones(2))
    assert "argument 0 has 3, argument 1 has 2" in message
