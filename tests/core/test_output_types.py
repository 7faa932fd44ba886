"""What a return annotation declares, and the check of what came back."""

import dataclasses
import re
import types
from typing import Annotated, Any, NamedTuple, NotRequired, Required, TypedDict

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pydantic
import pytest
from jax import ShapeDtypeStruct

import ember_xcs as xcs
from ember_xcs._core.functions import host, pure
from ember_xcs._core.operator import HostOperator, Operator
from ember_xcs._core.outputs import HOST, ArrayType, RecordType, output_type
from ember_xcs.errors import OperatorOutputError


class Verdict(pydantic.BaseModel):
    score: float
    why: str = ""


class Aliased(pydantic.BaseModel):
    score: float = pydantic.Field(alias="Score", ge=0)


class Nested(pydantic.BaseModel):
    verdict: Verdict
    count: int


@dataclasses.dataclass(frozen=True)
class Range:
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Wide(Range):
    step: float = 1.0


class Pair(NamedTuple):
    left: int
    right: str


class Keys(TypedDict):
    id: int
    text: str


class Partial(TypedDict, total=False):
    id: int


class SomeRequired(TypedDict):
    id: Required[int]
    text: NotRequired[str]


class AllRequired(TypedDict):
    id: Required[int]


VECTOR = ShapeDtypeStruct((3,), jnp.float32)


class Embedded(pydantic.BaseModel):
    model_config = {"arbitrary_types_allowed": True}
    vector: Annotated[jax.Array, VECTOR]


def jaxtyped(dimensions, *dtypes):
    """An annotation with the attributes of jaxtyping's: `Float[Array, "3 4"]`."""
    return types.SimpleNamespace(dim_str=dimensions, dtypes=dtypes, array_type=jax.Array)


@pytest.mark.parametrize("number", [float, int, bool, complex])
def test_numbers_are_arrays_without_axes(number):
    kind = output_type(number).kind
    assert (kind.shape, kind.number) == ((), number)
    assert kind.struct == ShapeDtypeStruct((), jnp.asarray(number(1)).dtype)


def test_numbers_have_the_precision_that_jax_is_set_to():
    kind = output_type(float).kind
    assert kind.struct.dtype == jnp.float32
    with jax.enable_x64(True):
        assert kind.struct.dtype == jnp.float64


@pytest.mark.parametrize(
    "annotation",
    [str, bytes, list[float], list, dict, Any, None, type(None), tuple[int, int], float | None],
)
def test_anything_else_is_one_host_value(annotation):
    assert output_type(annotation).kind is HOST
    assert output_type(annotation).is_host


def test_an_annotated_array_is_that_array():
    assert output_type(Annotated[jax.Array, VECTOR]).kind == ArrayType((3,), jnp.float32)


def test_an_annotated_number_is_a_number():
    assert output_type(Annotated[float, "in seconds"]).kind.number is float


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (jaxtyped("3 4", "float32"), ((3, 4), "float32")),
        (jaxtyped("", "float16", "float32", "float64"), ((), "float32")),
        (jaxtyped("2", "int8", "int32"), ((2,), "int32")),
        (jaxtyped("2", "bool"), ((2,), "bool")),
    ],
)
def test_jaxtyping_with_fixed_dimensions_is_that_array(annotation, expected):
    kind = output_type(annotation).kind
    assert (kind.shape, str(np.dtype(kind.dtype))) == expected


@pytest.mark.parametrize("dimensions", ["batch 3", "...", "*n 3", "n"])
def test_jaxtyping_with_named_dimensions_is_a_host_value(dimensions):
    assert output_type(jaxtyped(dimensions, "float32")).kind is HOST


@pytest.mark.parametrize(
    ("record", "fields"),
    [(Verdict, "score why"), (Range, "low high"), (Pair, "left right"), (Keys, "id text")],
)
def test_records_are_trees_of_their_fields(record, fields):
    declared = output_type(record)
    assert isinstance(declared.kind, RecordType)
    assert [name for name, _ in declared.kind.fields] == fields.split()
    assert len(declared.leaves) == 2


def test_records_nest():
    declared = output_type(Nested)
    assert [getattr(kind, "number", kind) for kind in declared.leaves] == [float, HOST, int]


def test_notes_in_models_are_kept():
    assert output_type(Embedded).leaves == [ArrayType((3,), jnp.float32)]


def test_required_keys_are_fields():
    assert [kind.number for kind in output_type(AllRequired).leaves] == [int]


@pytest.mark.parametrize("record", [Partial, SomeRequired])
def test_a_typed_dict_whose_keys_may_be_missing_is_one_host_value(record):
    assert output_type(record).kind is HOST


def test_classes_with_static_fields_of_their_own_are_one_host_value():
    class Module(eqx.Module):
        weights: jax.Array
        size: int = eqx.field(static=True)

    assert output_type(Module).kind is HOST


def test_operators_are_one_host_value():
    class Inner(Operator):
        weights: jax.Array

        def forward(self):
            return None

    assert output_type(Inner).kind is HOST


def test_out_takes_a_tree_of_types():
    declared = output_type(Any, out={"a": VECTOR, "b": str, "c": [float, Verdict]})
    assert len(declared.leaves) == 5


def test_out_takes_an_example_array():
    assert output_type(Any, out=np.zeros((2, 2), np.int8)).kind == ArrayType((2, 2), np.int8)


def returning(value, annotation=None, **options):
    def judge():
        return value

    judge.__annotations__ = {"return": annotation} if annotation is not None else {}
    return host(**options)(judge)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (float, 1.5),
        (float, 1),
        (float, np.float64(1.5)),
        (float, np.float32(1.5)),
        (float, jnp.float32(1.5)),
        (int, np.int64(3)),
        (complex, 1.0),
        (bool, True),
        (bool, np.bool_(True)),
        (Annotated[jax.Array, VECTOR], jnp.zeros(3)),
        (Annotated[jax.Array, VECTOR], np.zeros(3, np.float64)),
        (Annotated[jax.Array, VECTOR], np.zeros(3, int)),
        (Range, Range(0.0, 1)),
        (Pair, Pair(1, "a")),
        (Keys, {"id": 1, "text": "a"}),
        (Verdict, Verdict(score=1.0)),
        (str, 3),
        (list[float], "not checked"),
    ],
)
def test_what_fits_is_returned_as_it_is(annotation, value):
    assert returning(value, annotation)() is value


@pytest.mark.parametrize(
    ("annotation", "value", "given"),
    [
        (float, "0.5", r"str\[3\]"),
        (float, None, "NoneType"),
        (float, 1j, "complex"),
        (int, 1.5, "float"),
        (int, True, "bool"),
        (bool, 1, "int"),
        (float, np.zeros(2), r"float64\[2\]"),
        (Annotated[jax.Array, VECTOR], jnp.zeros(4), r"float32\[4\]"),
        (Annotated[jax.Array, VECTOR], [0.0, 0.0, 0.0], r"list\[3\] of float"),
        (Annotated[jax.Array, VECTOR], np.zeros(3, complex), r"complex128\[3\]"),
        (Range, (0.0, 1.0), r"tuple\[2\]"),
        (Range, Range("low", 1.0), r"str\[3\]"),
        (Pair, (1, "a"), r"tuple\[2\]"),
        (Pair, Pair("1", "a"), r"str\[1\]"),
        (Keys, {"id": 1}, "id: int"),
        (Keys, {"id": 1, "text": "a", "more": 1}, "more: int"),
        (Keys, {"id": "1", "text": "a"}, r"str\[1\]"),
        (Verdict, {"score": "high"}, "score"),
        (Verdict, "good", r"str\[4\]"),
    ],
)
def test_what_does_not_fit_names_the_operator_and_what_was_given(annotation, value, given):
    with pytest.raises(OperatorOutputError, match=given) as caught:
        returning(value, annotation)()
    assert "operator 'judge" in str(caught.value)


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (float, "0.5", "'judge' declares to return float and returned str[3]"),
        (
            Annotated[jax.Array, VECTOR],
            np.zeros(4),
            "'judge' declares to return float32[3] and returned float64[4]",
        ),
        (Range, 3, "'judge' declares to return Range and returned int"),
        (Range, Range("low", 1.0), "'judge.low' declares to return float and returned str[3]"),
        (Keys, 3, "'judge' declares to return Keys and returned int"),
        (Verdict, {"score": "high"}, "'judge' declares to return Verdict and returned {score:"),
    ],
)
def test_a_mismatch_names_both_types(annotation, value, message):
    with pytest.raises(OperatorOutputError, match=re.escape(message)):
        returning(value, annotation)()


def test_contents_are_not_shown():
    with pytest.raises(OperatorOutputError) as caught:
        returning("a secret", float)()
    assert "secret" not in str(caught.value)


def test_a_mapping_becomes_the_declared_model():
    assert returning({"score": "0.5"}, Verdict)() == Verdict(score=0.5)


def test_pure_functions_are_checked_too():
    @pure
    def total(x) -> Annotated[jax.Array, VECTOR]:
        return x

    assert total(jnp.zeros(3)).shape == (3,)
    with pytest.raises(OperatorOutputError, match="'total'"):
        jax.jit(total)(jnp.zeros(4))


def test_values_that_are_not_known_yet_are_not_validated_by_models():
    @pure
    def judge(x) -> Verdict:
        return {"score": x * 2, "why": "because"}

    assert jax.jit(lambda x: judge(x).score)(1.5) == 3.0


def test_out_of_a_class_declares_what_it_returns():
    class Embed(HostOperator):
        out = VECTOR

        def forward(self, text):
            return np.zeros(len(text), np.float32)

    assert Embed()("abc").shape == (3,)
    with pytest.raises(OperatorOutputError, match="'Embed'"):
        Embed()("a")


def test_a_tree_of_another_form_is_a_mismatch():
    with pytest.raises(OperatorOutputError, match="'judge'"):
        returning({"b": 1.0}, out={"a": float})()


@pytest.mark.parametrize(
    "value", [Verdict(score=1.5, why="a"), Range(0.0, 2.0), Pair(3, "x"), {"id": 1, "text": "a"}]
)
def test_a_record_is_split_into_its_leaves_and_put_together_again(value):
    declared = output_type(Keys if isinstance(value, dict) else type(value))
    leaves = declared.split(value, "judge")
    assert declared.structure.unflatten(leaves) == value


def test_a_model_with_aliases_is_put_together_again():
    declared = output_type(Aliased)
    value = Aliased(Score=2.0)
    assert declared.structure.unflatten(declared.split(value, "judge")) == value


def test_a_subclass_of_the_declared_record_cannot_be_split():
    declared = output_type(Range)
    assert declared.validated(Wide(0.0, 1.0, 2.0), "judge")
    with pytest.raises(OperatorOutputError, match="'judge' declares to return Range"):
        declared.split(Wide(0.0, 1.0, 2.0), "judge")


def test_annotations_may_be_text():
    source = "def judge() -> 'float': return 'x'"
    namespace = {}
    exec(source, namespace)
    with pytest.raises(OperatorOutputError, match="declares to return float"):
        host(namespace["judge"])()


def test_jaxtyping_annotations_are_understood():
    from jaxtyping import Array, Float

    assert output_type(Float[Array, "2 3"]).kind == ArrayType((2, 3), jnp.float32)
    assert output_type(Float[Array, "n 3"]).kind is HOST


class OfLength(xcs.HostOperator):
    length: int

    @property
    def out(self):
        return jax.ShapeDtypeStruct((self.length,), jnp.float32)

    def forward(self, text):
        return np.full(self.length, len(text), np.float32)


class OfShape(xcs.HostOperator):
    out: jax.ShapeDtypeStruct

    def forward(self, text):
        return np.full(self.out.shape, len(text), self.out.dtype)


@pytest.mark.parametrize(
    "make", [OfLength, lambda n: OfShape(jax.ShapeDtypeStruct((n,), jnp.float32))]
)
def test_an_instance_may_say_what_it_returns(make):
    for length in (3, 4):
        operator = make(length)
        assert xcs.jit.trace(lambda text, op=operator: op(text).sum())("ab") == 2 * length
        assert operator.output_type.kind.shape == (length,)


def test_what_an_instance_says_it_returns_is_checked():
    class Longer(OfLength):
        def forward(self, text):
            return np.zeros(self.length + 1, np.float32)

    with pytest.raises(xcs.OperatorOutputError, match=r"float32\[3\] and returned float32\[4\]"):
        Longer(3)("ab")
