"""What a host operator receives: what plain Python would hand it."""

import dataclasses
from typing import Annotated, Any, NamedTuple, Optional

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ember_xcs._core.functions import host
from ember_xcs._core.operator import HostOperator, Operator
from ember_xcs._core.outputs import output_type


class Pair(NamedTuple):
    score: float
    vector: Any


@dataclasses.dataclass
class Record:
    score: float
    vector: Any


output_type(Record)


def received(value, annotation=Any, **given):
    """What a parameter with this annotation receives for a value."""

    def keep(value):
        return value

    keep.__annotations__ = {"value": annotation}
    return host(keep)(value)


@pytest.mark.parametrize("wrap", [jnp.asarray, np.asarray, lambda v: jnp.asarray(v)[()]])
@pytest.mark.parametrize("number", [1.5, 3, True, 1 + 2j])
def test_an_array_without_axes_arrives_as_the_annotated_number(number, wrap):
    value = received(wrap(number), type(number))
    assert type(value) is type(number)
    assert value == number


def test_an_integer_array_arrives_as_float_where_annotated_so():
    assert type(received(jnp.int32(2), float)) is float


def test_no_part_of_a_number_is_lost():
    assert received(jnp.float32(2.5), int) == 2.5
    assert received(jnp.int32(2), bool) == 2


@pytest.mark.parametrize("annotation", [float | None, Optional[float], Annotated[float, "s"]])  # noqa: UP045
def test_annotations_may_wrap_the_number(annotation):
    assert type(received(jnp.float32(2.5), annotation)) is float
    assert received(None, annotation) is None


def test_of_several_numbers_the_fitting_one_is_taken():
    assert type(received(jnp.int32(2), float | int)) is int


@pytest.mark.parametrize("annotation", [Any, str, np.ndarray, float])
def test_arrays_arrive_as_numpy_arrays_that_cannot_be_written(annotation):
    value = received(jnp.ones(3), annotation)
    assert type(value) is np.ndarray
    with pytest.raises(ValueError, match="read-only"):
        value[0] = 2


def test_the_callers_own_array_stays_writeable():
    mine = np.zeros(3)
    assert not received(mine).flags.writeable
    assert mine.flags.writeable


@pytest.mark.parametrize("annotation", [jax.Array, jax.Array | None, Annotated[jax.Array, "x"]])
@pytest.mark.parametrize("value", [jnp.ones(3), np.ones(3), jnp.float32(1)])
def test_arrays_arrive_as_jax_arrays_where_annotated_so(annotation, value):
    assert isinstance(received(value, annotation), jax.Array)


def test_random_keys_arrive_as_they_are():
    key = jax.random.key(0)
    assert received(key) is key


@pytest.mark.parametrize(
    "value", ["text", b"bytes", 1, 1.5, None, [1, "a"], {"k": [1]}, (1, (2,)), {1, 2}, object()]
)
def test_everything_else_arrives_as_it_is(value):
    assert received(value) is value


def test_elements_are_converted_by_the_annotation_of_the_container():
    value = received([jnp.float32(1), jnp.float32(2)], list[float])
    assert value == [1.0, 2.0]
    assert type(value[0]) is float
    value = received({"a": jnp.int32(1)}, dict[str, int])
    assert type(value["a"]) is int
    value = received((jnp.int32(1), jnp.float32(2)), tuple[int, float])
    assert list(map(type, value)) == [int, float]
    value = received((jnp.int32(1), jnp.int32(2)), tuple[int, ...])
    assert list(map(type, value)) == [int, int]


def test_records_are_converted_by_their_fields():
    for record in (Pair, Record):
        value = received(record(jnp.float32(1), jnp.ones(2)))
        assert type(value) is record
        assert type(value.score) is float
        assert type(value.vector) is np.ndarray


def test_records_without_arrays_arrive_as_they_are():
    record = Record(1.0, "a")
    assert received(record) is record


def test_modules_and_operators_arrive_as_they_are():
    class Inner(Operator):
        def __init__(self):
            self.weights = jnp.ones(2)

        def forward(self):
            return None

    operator, module = Inner(), eqx.nn.Linear(2, 2, key=jax.random.key(0))
    assert received(operator) is operator
    assert received(module) is module


def test_keyword_arguments_are_converted_by_name():
    @host
    def both(text: str, *, score: float = 0.0):
        return text, score

    assert type(both("a", score=jnp.float32(2))[1]) is float


def test_further_arguments_are_converted_without_annotation():
    @host
    def many(first: float, *rest, **named):
        return first, rest, named

    first, rest, named = many(jnp.float32(1), jnp.float32(2), more=jnp.ones(1))
    assert type(first) is float
    assert type(rest[0]) is np.ndarray
    assert type(named["more"]) is np.ndarray


def test_operators_of_the_class_form_receive_the_same():
    class Keep(HostOperator):
        def forward(self, score: float, vector):
            return score, vector

    score, vector = Keep()(jnp.float32(1), jnp.ones(1))
    assert (type(score), type(vector)) == (float, np.ndarray)
