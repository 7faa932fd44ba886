"""What a class of operators is: fields, initialisation, inheritance, immutability, copies."""

import copy
import dataclasses
import functools
import pickle
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import pytest

from ember_xcs._core.functions import host, pure
from ember_xcs._core.operator import HostOperator, Operator, sub_operators
from ember_xcs.errors import OperatorInputError


class Scale(Operator):
    factor: jax.Array
    offset: float = 0.0

    def forward(self, x):
        return self.factor * x + self.offset


class Named(Operator):
    name: str
    timeout: int = 3

    def forward(self, x):
        return x


class Shout(HostOperator):
    mark: str = "!"

    def forward(self, text: str) -> str:
        return text.upper() + self.mark


class CountedInit(Operator):
    def __init__(self, size: int):
        self.weights = jnp.arange(float(size))
        self.size = size

    def forward(self, x):
        return self.weights @ x


def test_fields_are_arguments_in_order():
    assert Scale(jnp.float32(2), 1.0)(3.0) == 7.0


def test_a_field_without_default_is_required():
    with pytest.raises(TypeError, match="factor"):
        Scale()


def test_a_custom_init_sets_fields():
    operator = CountedInit(3)
    assert operator(jnp.ones(3)) == 3.0
    assert operator.replace(size=7).size == 7


def test_a_custom_init_is_inherited():
    class More(CountedInit):
        def forward(self, x):
            return super().forward(x) + 1

    assert More(2)(jnp.ones(2)) == 2.0


def test_fields_of_a_subclass_come_after_those_of_its_base():
    class Shifted(Scale):
        shift: float = 10.0

        def forward(self, x):
            return super().forward(x) + self.shift

    assert Shifted(jnp.float32(1), 2.0, 3.0)(1.0) == 6.0


def test_a_subclass_of_a_custom_init_can_add_its_own_fields():
    class Labelled(CountedInit):
        def __init__(self, size: int, label: str):
            super().__init__(size)
            self.label = label

    assert Labelled(2, "x").label == "x"
    assert len(jax.tree.leaves(Labelled(2, "x"))) == 1


def test_a_field_declared_anew_keeps_the_default_of_its_base():
    class Narrow(Scale):
        offset: float

        def forward(self, x):
            return self.offset

    assert Narrow(jnp.float32(1)).offset == 0.0


def test_post_init_runs_and_may_set_fields():
    class Normalised(Operator):
        weights: jax.Array

        def __post_init__(self):
            self.weights = self.weights / self.weights.sum()

        def forward(self):
            return self.weights

    assert Normalised(jnp.array([1.0, 3.0]))().tolist() == [0.25, 0.75]


def test_default_factories_give_each_instance_its_own_value():
    class Listing(Operator):
        items: list = dataclasses.field(default_factory=list)

        def forward(self):
            return self.items

    assert Listing().items is not Listing().items


def test_class_variables_are_not_fields():
    class Constant(Operator):
        scale: ClassVar[int] = 4

        def forward(self, x):
            return x * self.scale

    assert Constant()(2) == 8
    assert jax.tree.leaves(Constant()) == []


def test_an_operator_without_forward_says_so_when_called():
    class Empty(Operator):
        pass

    with pytest.raises(TypeError, match="Empty has no forward method"):
        Empty()()


@pytest.mark.parametrize(
    "change",
    [
        lambda op: setattr(op, "factor", 1),
        lambda op: setattr(op, "other", 1),
        lambda op: delattr(op, "factor"),
    ],
    ids=["set", "add", "delete"],
)
def test_an_operator_does_not_change(change):
    operator = Scale(jnp.float32(2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        change(operator)


def test_a_field_set_in_init_can_be_deleted_in_init():
    class Scratch(Operator):
        def __init__(self):
            self.scratch = 1
            del self.scratch

        def forward(self):
            return hasattr(self, "scratch")

    assert Scratch()() is False


def test_replace_leaves_the_original_as_it_was():
    operator = Scale(jnp.float32(2))
    assert operator.replace(factor=jnp.float32(5))(1.0) == 5.0
    assert operator(1.0) == 2.0


def test_replace_names_the_fields_that_there_are():
    with pytest.raises(TypeError, match="Scale has no field 'weight'; its fields are factor"):
        Scale(jnp.float32(2)).replace(weight=1)


def test_operators_are_equal_only_to_themselves():
    one, other = Scale(jnp.float32(2)), Scale(jnp.float32(2))
    assert one == one
    assert one != other
    assert len({one, other}) == 2


def test_a_field_may_be_called_like_a_property():
    operator = Named("judge", timeout=9)
    assert (operator.name, operator.timeout) == ("judge", 9)
    assert jax.jit(lambda op, x: op(x))(operator, 2.0) == 2.0


def test_a_field_called_timeout_sets_the_limit_of_a_host_operator():
    class Slow(HostOperator):
        timeout: float

        def forward(self):
            return None

    assert Slow(2.5).policy.timeout_seconds == 2.5


@pytest.mark.parametrize("field", ["kind", "signature", "forward", "run", "replace"])
def test_a_field_cannot_take_the_place_of_what_every_operator_has(field):
    with pytest.raises(TypeError, match=f"field '{field}'.*{field}_"):
        type(Operator)("Bad", (Operator,), {"__annotations__": {field: str}, "__module__": "m"})


def test_init_cannot_set_what_every_operator_has_either():
    class Bad(Operator):
        def __init__(self):
            self.kind = "mine"

    with pytest.raises(TypeError, match="'kind'"):
        Bad()


def test_async_forward_needs_a_host_operator():
    with pytest.raises(TypeError, match="HostOperator"):

        class Bad(Operator):
            async def forward(self, x):
                return x


@pytest.mark.parametrize("decorate", [pure, host])
def test_forward_is_not_decorated(decorate):
    with pytest.raises(TypeError, match="Leave the decorator out"):

        class Bad(Operator):
            @decorate
            def forward(self, x):
                return x


def test_cached_properties_are_no_fields():
    class Table(Operator):
        weights: jax.Array

        @functools.cached_property
        def doubled(self):
            return self.weights * 2

        def forward(self):
            return self.doubled

    operator = Table(jnp.ones(2))
    assert operator().tolist() == [2.0, 2.0]
    assert len(jax.tree.leaves(operator)) == 1
    assert operator.replace(weights=jnp.zeros(2))().tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    "operator", [Scale(jnp.float32(2), 1.0), Shout("?"), CountedInit(3), Named("n")]
)
@pytest.mark.parametrize(
    "through", [copy.copy, copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))]
)
def test_copies_have_the_same_structure_and_leaves(operator, through):
    jax.tree.leaves(operator)
    copied = through(operator)
    assert type(copied) is type(operator)
    assert jax.tree.structure(copied) == jax.tree.structure(operator)
    assert all(map(jnp.array_equal, jax.tree.leaves(copied), jax.tree.leaves(operator)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        copied.anything = 1


def test_repr_shows_arrays_by_shape():
    assert repr(Scale(jnp.ones((2, 3)), 1.0)) == "Scale(factor=float32[2, 3], offset=1.0)"


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        (Scale(jnp.float32(1)), "pure"),
        (Shout(), "host"),
        (Named("n"), "pure"),
    ],
)
def test_kind_is_declared_by_the_class(operator, kind):
    assert operator.kind == kind


@pytest.mark.parametrize("wrap", [lambda op: op, lambda op: [1, op], lambda op: {"a": (op, "x")}])
def test_an_operator_that_contains_host_work_is_composite(wrap):
    class Holder(Operator):
        content: Any

        def forward(self):
            return None

    assert Holder(wrap(Shout())).kind == "composite"
    assert Holder(wrap(Scale(jnp.ones(1)))).kind == "pure"
    assert Holder(Holder(wrap(Shout()))).kind == "composite"
    assert len(list(sub_operators(Holder(wrap(Shout()))))) == 1


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), ((1, 2), {}), ((1,), {"y": 2}), ((1,), {"x": 2})]
)
def test_arguments_that_do_not_fit_name_the_operator_and_its_fields(args, kwargs):
    class One(Operator):
        def forward(self, x):
            return x

    with pytest.raises(OperatorInputError, match=r"operator 'One' takes \(x\)"):
        One()(*args, **kwargs)


def test_a_type_error_of_the_body_is_left_as_it_is():
    class Broken(Operator):
        def forward(self, x):
            return x + "text"

    with pytest.raises(TypeError, match="unsupported operand"):
        Broken()(1)


def test_what_is_known_of_a_class_is_found_out_once():
    assert Shout().signature is Shout("?").signature
    assert Shout().output_type is Shout("?").output_type


def test_what_is_cached_about_a_class_is_not_inherited():
    class First(HostOperator):
        def forward(self, x: int) -> int:
            return x

    class Second(First):
        async def forward(self, y: str) -> str:
            return y

    assert First().signature.names == ("x",)
    assert (First().is_async, Second().is_async) == (False, True)
    assert Second().signature.names == ("y",)
