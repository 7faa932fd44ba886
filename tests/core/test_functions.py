"""Functions as operators: ``@pure``, ``@host``, ``as_operator``, ``from_callable``."""

import functools
import inspect
import math
import pickle

import jax
import jax.numpy as jnp
import pydantic
import pytest

from ember_xcs._core.functions import HostFunction, as_operator, from_callable, host, pure
from ember_xcs._core.operator import Operator
from ember_xcs.errors import OperatorInputError, OptionsError


@pure
def double(x: jax.Array) -> jax.Array:
    """Twice x."""
    return 2 * x


@host(deterministic=True, timeout=2.0, name="finder")
def search(query: str, limit: int = 3) -> list[str]:
    """Finds."""
    return [query] * limit


@host
async def ask(question: str) -> str:
    return question + "?"


class Tools:
    def __init__(self, factor):
        self.factor = factor

    @pure
    def scaled(self, x):
        return self.factor * x

    @host
    def lookup(self, key: str, suffix: str = "!") -> str:
        return f"{key}{self.factor}{suffix}"

    @staticmethod
    @host
    def free(key: str) -> str:
        return key


class Model(Operator):
    weights: jax.Array

    @pure
    def hidden(self, x):
        return self.weights * x

    def forward(self, x):
        return self.hidden(x).sum()


def test_decorated_functions_run_as_before():
    assert double(jnp.ones(2)).tolist() == [2.0, 2.0]
    assert search("a", limit=2) == ["a", "a"]


@pytest.mark.parametrize(("operator", "kind"), [(double, "pure"), (search, "host"), (ask, "host")])
def test_the_decorator_decides_the_kind(operator, kind):
    assert operator.kind == kind


def test_a_decorated_function_keeps_its_name_text_and_signature():
    assert (double.name, double.__name__, double.__doc__) == ("double", "double", "Twice x.")
    assert str(inspect.signature(search)) == "(query: str, limit: int = 3) -> list[str]"
    assert search.name == "finder"
    assert [f.required for f in search.signature.fields] == [True, False]


def test_the_policy_is_what_the_decorator_was_told():
    assert (search.policy.deterministic, search.policy.timeout_seconds) == (True, 2.0)
    assert (search.policy.executor, ask.policy.executor) == ("thread", "async")


def test_the_class_of_decorated_functions_can_be_inspected():
    assert "function" in inspect.signature(HostFunction).parameters


@pytest.mark.parametrize("decorate", [pure, host])
@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (double, "operator already"),
        (int, "is a class"),
        (3, "takes a function"),
        (staticmethod(len), "above @staticmethod"),
        (classmethod(len), "above @classmethod"),
    ],
)
def test_what_is_not_a_function_cannot_be_decorated(decorate, thing, message):
    with pytest.raises(TypeError, match=message):
        decorate(thing)


def test_async_functions_are_not_pure():
    async def fetch():
        return 1

    with pytest.raises(TypeError, match=r"'fetch' is `async def`.*@host"):
        pure(fetch)


def test_async_functions_run_on_the_event_loop_only():
    async def fetch():
        return 1

    with pytest.raises(TypeError, match="runs on the event loop"):
        host(executor="thread")(fetch)


@pytest.mark.parametrize("bad", [{"executor": "gpu"}, {"timeout": 0}, {"max_batch_size": 0}])
def test_policies_are_checked_when_they_are_declared(bad):
    with pytest.raises(OptionsError):
        host(**bad)(lambda x: x)


def test_wrong_arguments_name_the_function():
    with pytest.raises(OperatorInputError, match=r"operator 'finder' takes \(query, limit\)"):
        search()


def test_a_type_error_inside_the_function_is_its_own():
    @host
    def broken(x):
        return len(x)

    with pytest.raises(TypeError, match="has no len"):
        broken(3)


def test_pydantic_parameters_are_validated():
    class Query(pydantic.BaseModel):
        text: str
        limit: int = 3

    @host
    def find(query: Query):
        return query

    assert find({"text": "a"}) == Query(text="a")
    with pytest.raises(OperatorInputError, match=r"'find'.*limit"):
        find({"text": "a", "limit": "many"})


def test_as_operator_takes_callables_for_host_work():
    operator = as_operator(math.sqrt)
    assert (operator.kind, operator(4.0)) == ("host", 2.0)
    assert as_operator(operator) is operator


@pytest.mark.parametrize("thing", [3, "text", int, Operator])
def test_as_operator_refuses_what_is_no_function(thing):
    with pytest.raises(TypeError, match="not an operator"):
        as_operator(thing)


def test_callable_objects_with_an_async_call_are_async():
    class Client:
        async def __call__(self, x):
            return x

    assert as_operator(Client()).is_async
    assert as_operator(functools.partial(ask.function)).is_async
    assert not as_operator(functools.partial(len)).is_async


def test_builtins_without_a_signature_take_anything():
    operator = from_callable(max, kind="host")
    assert (operator(1, 5), operator.signature.open) == (5, True)


def test_from_callable_asks_for_a_kind_that_exists():
    with pytest.raises(ValueError, match="'host'"):
        from_callable(len, kind="glue")


def test_functions_pickle_by_their_import_path():
    for operator in (double, search, ask):
        assert pickle.loads(pickle.dumps(operator)) is operator


def test_changed_copies_of_decorated_functions_pickle_too():
    copy = pickle.loads(pickle.dumps(search.replace(label="other")))
    assert (copy.name, copy("a", 1)) == ("other", ["a"])


def test_plain_functions_pickle_as_operators():
    operator = pickle.loads(pickle.dumps(as_operator(math.sqrt)))
    assert operator(9.0) == 3.0


def test_partial_functions_pickle_as_operators():
    operator = pickle.loads(pickle.dumps(as_operator(functools.partial(math.pow, 2.0))))
    assert (operator(3.0), operator.name) == (8.0, "pow")


def test_a_method_receives_its_instance():
    assert Tools(3).lookup("k") == "k3!"
    assert Tools(3).lookup("k", suffix="?") == "k3?"
    assert Tools(2).scaled(5) == 10


def test_a_bound_method_has_the_fields_without_self():
    method = Tools(3).lookup
    assert method.signature.names == ("key", "suffix")
    with pytest.raises(OperatorInputError, match=r"operator 'lookup' takes \(key, suffix\)"):
        method()


def test_a_method_read_from_the_class_is_the_operator_itself():
    assert Tools.lookup(Tools(1), "k") == "k1!"


def test_a_static_method_receives_nothing():
    assert Tools(3).free("k") == "k"


def test_weights_reach_a_pure_method_as_leaves():
    model = Model(jnp.ones(2))
    assert len(jax.tree.leaves(model.hidden)) == 1
    gradients = jax.grad(lambda m: m(jnp.arange(2.0)))(model)
    assert gradients.weights.tolist() == [0.0, 1.0]


def test_operators_in_fields_are_not_bound():
    class Pipeline(Operator):
        step: Operator = double

        def forward(self, x):
            return self.step(x)

    assert Pipeline()(jnp.float32(2)) == 4.0
    assert Pipeline(pure(lambda x: x - 1))(jnp.float32(2)) == 1.0
