"""Flax and Equinox modules as pure operators; the plain module is the oracle."""

import pickle
import subprocess
import sys

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from ember_xcs._core import adapters
from ember_xcs._core.adapters import from_equinox, from_flax
from ember_xcs._core.functions import pure
from ember_xcs.errors import OperatorOutputError

X = jnp.arange(8.0).reshape(4, 2)


class NnxMlp(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(2, 5, rngs=rngs)
        self.second = nnx.Linear(5, 1, rngs=rngs)

    def __call__(self, x, scale=1.0):
        return self.second(nnx.tanh(self.first(x))) * scale


class NnxFull(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(2, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x, rngs=None):
        return self.dropout(self.norm(self.linear(x)), rngs=rngs)


class LinenMlp(nn.Module):
    width: int = 5

    @nn.compact
    def __call__(self, x, scale=1.0):
        return nn.Dense(1)(nn.tanh(nn.Dense(self.width)(x))) * scale


class LinenFull(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(3)(x))
        return nn.Dropout(0.5, deterministic=not train)(x)


def smooth(x):
    return jnp.tanh(x)


def linen(module):
    variables = module.init(jax.random.key(0), X)
    return from_flax(module, variables), lambda x, **kw: module.apply(variables, x, **kw)


def nnx_pair():
    module = NnxMlp(nnx.Rngs(0))
    return from_flax(module), module


def equinox_pair():
    mlp = eqx.nn.MLP(2, 1, 5, 2, activation=smooth, final_activation=smooth, key=jax.random.key(0))
    return from_equinox(mlp), mlp


def linen_pair():
    return linen(LinenMlp())


@pytest.fixture(params=[nnx_pair, linen_pair, equinox_pair], ids=["nnx", "linen", "equinox"])
def pair(request):
    return request.param()


def test_an_adapted_module_computes_what_the_module_computes(pair):
    operator, module = pair
    assert jnp.array_equal(operator(X[1]), module(X[1]))


def test_it_does_under_jit(pair):
    operator, module = pair
    assert jnp.allclose(jax.jit(lambda op, x: op(x))(operator, X[1]), module(X[1]))
    assert jnp.allclose(jax.jit(operator)(X[1]), module(X[1]))


def test_it_does_under_vmap(pair):
    operator, module = pair
    expected = jnp.stack([module(x) for x in X])
    assert jnp.allclose(jax.vmap(operator)(X), expected, atol=1e-6)
    assert jnp.allclose(jax.jit(jax.vmap(operator))(X), expected, atol=1e-6)


def test_it_does_under_grad_by_the_input(pair):
    operator, module = pair
    gradient = jax.grad(lambda x: operator(x).sum())(X[1])
    assert jnp.allclose(gradient, jax.grad(lambda x: module(x).sum())(X[1]))


def test_it_is_pure_and_named_after_its_class(pair):
    operator, _ = pair
    assert operator.kind == "pure"
    assert operator.name in ("NnxMlp", "LinenMlp", "MLP")
    assert operator.signature.names[0] == "x"


def test_its_leaves_are_arrays_and_its_structure_is_stable(pair):
    operator, _ = pair
    leaves, structure = jax.tree.flatten(operator)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    assert jax.tree.structure(jax.tree.map(jnp.shape, operator), is_leaf=_is_shape) == structure
    assert hash(structure) == hash(jax.tree.structure(jax.tree.map(jnp.zeros_like, operator)))


def _is_shape(value):
    return type(value) is tuple and all(type(n) is int for n in value)


def test_new_weights_do_not_compile_again(pair):
    operator, _ = pair
    traces = []

    @jax.jit
    def run(operator, x):
        traces.append(1)
        return operator(x)

    for factor in (1.0, 2.0):
        run(jax.tree.map(lambda w: w * factor, operator), X[1])  # noqa: B023
    assert len(traces) == 1


def test_optax_trains_it(pair):
    model, _ = pair
    optimizer = optax.adam(0.05)
    state = optimizer.init(model)

    @jax.jit
    def step(model, state):
        loss, gradients = jax.value_and_grad(lambda m: jnp.mean((jax.vmap(m)(X) - 1) ** 2))(model)
        updates, state = optimizer.update(gradients, state, model)
        return optax.apply_updates(model, updates), state, loss

    losses = []
    for _ in range(40):
        model, state, loss = step(model, state)
        losses.append(float(loss))
    assert losses[-1] < losses[0] / 2


def test_it_joins_other_operators(pair):
    operator, module = pair
    pipeline = pure(lambda x: x + 1) >> operator
    assert jnp.allclose(pipeline(X[1]), module(X[1] + 1))
    assert len(jax.tree.leaves(pipeline)) == len(jax.tree.leaves(operator))


def test_it_is_pickled(pair):
    operator, module = pair
    assert jnp.array_equal(pickle.loads(pickle.dumps(operator))(X[1]), module(X[1]))


@pytest.mark.parametrize("make", [nnx_pair, linen_pair])
def test_keyword_arguments_reach_the_module(make):
    operator, module = make()
    assert jnp.array_equal(operator(X, scale=3.0), module(X, scale=3.0))


def test_gradients_of_nnx_parameters_are_those_of_nnx():
    module = NnxMlp(nnx.Rngs(0))
    gradients = jax.grad(lambda op: op(X).sum())(from_flax(module))
    expected = nnx.grad(lambda m: m(X).sum())(module)
    assert jax.tree.all(jax.tree.map(jnp.allclose, gradients.params, expected))


def test_gradients_of_linen_parameters_are_those_of_linen():
    module = LinenMlp()
    variables = module.init(jax.random.key(0), X)
    gradients = jax.grad(lambda op: op(X).sum())(from_flax(module, variables))
    expected = jax.grad(lambda v: module.apply(v, X).sum())(variables)
    assert jax.tree.all(jax.tree.map(jnp.allclose, gradients.variables, expected))


def test_gradients_of_equinox_arrays_are_those_of_equinox():
    module = eqx.nn.MLP(2, 1, 5, 2, key=jax.random.key(0))
    gradients = jax.grad(lambda op: op(X[1]).sum())(from_equinox(module))
    expected = eqx.filter_grad(lambda m: m(X[1]).sum())(module)
    assert all(map(jnp.allclose, jax.tree.leaves(gradients), jax.tree.leaves(expected)))


def test_other_activations_are_another_structure():
    key = jax.random.key(0)
    one, other = (eqx.nn.MLP(2, 1, 5, 2, activation=f, key=key) for f in (jnp.tanh, jnp.sin))
    run = jax.jit(lambda op, x: op(x))
    assert jnp.allclose(run(from_equinox(one), X[1]), one(X[1]))
    assert jnp.allclose(run(from_equinox(other), X[1]), other(X[1]))


def test_equinox_modules_take_random_keys():
    dropout = eqx.nn.Dropout(0.5)
    key = jax.random.key(1)
    assert jnp.array_equal(from_equinox(dropout)(X, key=key), dropout(X, key=key))


def test_a_change_of_the_module_afterwards_does_not_reach_the_operator():
    module = NnxMlp(nnx.Rngs(0))
    operator = from_flax(module)
    before = operator(X)
    module.first.kernel[...] = jnp.zeros((2, 5))
    assert jnp.array_equal(operator(X), before)


def test_an_nnx_module_in_evaluation_mode_is_pure():
    module = NnxFull(nnx.Rngs(0))
    module.eval()
    operator = from_flax(module)
    assert jnp.array_equal(operator(X), module(X))
    assert jnp.allclose(jax.jit(lambda op, x: op(x))(operator, X), module(X))
    assert jax.vmap(operator)(X).shape == (4, 3)


def test_only_parameters_of_an_nnx_module_get_gradients():
    module = NnxFull(nnx.Rngs(0))
    module.eval()
    operator = from_flax(module)
    gradients = jax.grad(lambda op: op(X).sum())(operator)
    assert any(leaf.any() for leaf in jax.tree.leaves(gradients.params))
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradients.replace(params=None)))
    assert len(jax.tree.leaves(operator.replace(params=None))) == 2


@pytest.mark.parametrize(
    "call", [lambda op: op(X), lambda op: jax.jit(op)(X), lambda op: jax.vmap(op)(X)]
)
def test_an_nnx_module_that_changes_its_state_is_an_error(call):
    operator = from_flax(NnxFull(nnx.Rngs(0)))
    with pytest.raises(OperatorOutputError, match=r"'NnxFull'.*changed its own state.*eval\(\)"):
        call(operator)


def test_a_refused_change_leaves_the_operator_as_it_was():
    class Drifting(nnx.Module):
        def __init__(self):
            self.weight = nnx.Param(jnp.ones(1))
            self.count = nnx.Variable(jnp.zeros(1))

        def __call__(self, x):
            self.weight[...] += 1
            self.count[...] += 1
            return x

    operator = from_flax(Drifting())
    for _ in range(2):
        with pytest.raises(OperatorOutputError, match=r"count.*weight"):
            operator(X)
    assert [leaf.item() for leaf in jax.tree.leaves(operator)] == [1.0, 0.0]


@pytest.mark.filterwarnings("ignore:Using 'Module.sow:DeprecationWarning")
def test_a_new_variable_is_a_change_of_state_too():
    class Sowing(nnx.Module):
        def __call__(self, x):
            self.sow(nnx.Intermediate, "seen", x)
            return x

    with pytest.raises(OperatorOutputError, match="seen"):
        from_flax(Sowing())(X)


def test_random_streams_can_be_passed_to_an_nnx_module():
    class Noisy(nnx.Module):
        def __init__(self):
            self.dropout = nnx.Dropout(0.5)

        def __call__(self, x, rngs):
            return self.dropout(x, rngs=rngs)

    result = from_flax(Noisy())(X, rngs=nnx.Rngs(3))
    assert jnp.array_equal(result, Noisy()(X, rngs=nnx.Rngs(3)))


def test_random_streams_and_mutable_reach_a_linen_module():
    module = LinenFull()
    variables = module.init(jax.random.key(0), X)
    options = {"train": True, "rngs": {"dropout": jax.random.key(1)}, "mutable": ["batch_stats"]}
    result, changed = from_flax(module, variables)(X, **options)
    expected, expected_changes = module.apply(variables, X, **options)
    assert jnp.array_equal(result, expected)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, changed, expected_changes))


def test_only_parameters_of_a_linen_module_get_gradients():
    operator, _ = linen(LinenFull())
    gradients = jax.grad(lambda op: op(X).sum())(operator).variables
    assert all(not leaf.any() for leaf in jax.tree.leaves(gradients["batch_stats"]))
    assert any(leaf.any() for leaf in jax.tree.leaves(gradients["params"]))


def test_linen_modules_with_other_settings_are_another_structure():
    variables = LinenMlp(5).init(jax.random.key(0), X)
    structures = [jax.tree.structure(from_flax(LinenMlp(w), variables)) for w in (5, 5, 6)]
    assert structures[0] == structures[1] != structures[2]


def test_stacked_modules_are_mapped_over():
    operators = [from_flax(NnxMlp(nnx.Rngs(0))), from_flax(NnxMlp(nnx.Rngs(0)))]
    scaled = jax.tree.map(lambda w: 2 * w, operators[1])
    stack = jax.tree.map(lambda *w: jnp.stack(w), operators[0], scaled)
    results = jax.vmap(lambda op, x: op(x), in_axes=(0, None))(stack, X)
    assert jnp.allclose(results[1], scaled(X))


@pytest.mark.parametrize(
    ("adapt", "message"),
    [
        (lambda: from_flax(LinenMlp()), r"from_flax\(module, module.init"),
        (lambda: from_flax(NnxMlp(nnx.Rngs(0)), {}), "for linen modules"),
        (lambda: from_flax(3), "given a int"),
        (lambda: from_flax(NnxMlp), "the class NnxMlp; make an instance"),
        (lambda: from_equinox(NnxMlp(nnx.Rngs(0))), r"takes an equinox\.Module"),
    ],
)
def test_what_cannot_be_adapted_says_why(adapt, message):
    with pytest.raises(TypeError, match=message):
        adapt()


def test_a_module_that_cannot_be_called_is_an_error():
    class Bag(eqx.Module):
        weights: jax.Array

    with pytest.raises(TypeError, match="Bag has no __call__"):
        from_equinox(Bag(X))


@pytest.mark.parametrize(("adapt", "extra"), [(from_flax, "flax"), (from_equinox, "equinox")])
def test_a_missing_extra_says_how_to_install_it(adapt, extra, monkeypatch):
    monkeypatch.setattr(adapters.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=rf"pip install ember-xcs\[{extra}\]"):
        adapt(object())


def test_the_libraries_are_not_loaded_for_nothing():
    code = (
        "import sys; import ember_xcs._core.adapters as a\n"
        "try: a.from_flax(3)\nexcept TypeError: pass\n"
        "assert not {'flax', 'equinox'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
