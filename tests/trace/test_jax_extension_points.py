"""What ember_xcs relies on in JAX: each extension point by itself.

A failure here says that JAX has changed, and what has to be looked at.
"""

from __future__ import annotations

import threading

import jax
import jax.extend.core as jex_core
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import source_info_util
from jax.extend.random import define_prng_impl
from jax.interpreters import ad, batching, mlir, partial_eval


def refuse(*_args, **_kwargs):
    raise TypeError("no")


IMPL = define_prng_impl(
    key_shape=(1,), seed=refuse, split=refuse, random_bits=refuse, fold_in=refuse,
    name="test-handles", tag="test-handles",
)  # fmt: skip


def handles(count):
    return jax.random.wrap_key_data(jnp.arange(count, dtype=jnp.uint32)[:, None], impl=IMPL)


def numbers(keys):
    return jax.random.key_data(keys)[..., 0].tolist()


def equation(function, *args):
    (found,) = jax.make_jaxpr(function)(*args).jaxpr.eqns
    return found


@pytest.mark.parametrize(
    ("move", "expected"),
    [
        (lambda h: h[jnp.argmax(jnp.arange(4))], 3),
        (lambda h: jnp.where(jnp.arange(4) > 1, h, h[::-1]), [3, 2, 2, 3]),
        (lambda h: jnp.stack([h[0], h[2]]), [0, 2]),
        (lambda h: jnp.concatenate([h[:1], h[3:]]), [0, 3]),
        (lambda h: jax.lax.scan(lambda c, x: (x, c), h[0], h)[0], 3),
        (jax.vmap(lambda x: x), [0, 1, 2, 3]),
        (lambda h: jnp.take(h, jnp.array([1, 1]), axis=0), [1, 1]),
    ],
)
def test_a_key_type_of_our_own_is_moved_about_by_jax(move, expected):
    assert numbers(jax.jit(move)(handles(4))) == expected, (
        "define_prng_impl no longer gives arrays that JAX can move: see _trace/host_values.py"
    )


@pytest.mark.parametrize("compute", [jnp.sin, jnp.sum, lambda h: h + 1, float, bool])
def test_a_key_type_of_our_own_is_not_computed_with(compute):
    with pytest.raises(TypeError):
        compute(handles(1)[0])


def test_a_key_type_says_its_name_in_text_made_of_it():
    found = []
    jax.make_jaxpr(lambda h: found.append(str(h)) or h)(handles(1))
    assert "Tracer(" in found[0], "how tracers print has changed: see staging._check_no_tracer_text"


@pytest.mark.parametrize(
    "name",
    ["Primitive", "Jaxpr", "ClosedJaxpr", "Literal", "DebugInfo", "jaxpr_as_fun",
     "jaxprs_in_params", "get_opaque_trace_state"],
)  # fmt: skip
def test_a_name_of_jax_extend_core_is_there(name):
    assert hasattr(jex_core, name), f"jax.extend.core.{name} is gone: find what took its place"


def test_a_jaxpr_is_put_together_from_equations_and_run():
    closed = jax.make_jaxpr(lambda x, y: jnp.sin(x) * y)(1.0, 2.0)
    whole = closed.jaxpr
    info = jex_core.DebugInfo("test", "test", ("a", "b"), ("c",))
    part = jex_core.Jaxpr(
        [], whole.eqns[0].invars, whole.eqns[0].outvars, whole.eqns[:1],
        debug_info=info._replace(arg_names=("a",)),
    )  # fmt: skip
    (result,) = jex_core.jaxpr_as_fun(jex_core.ClosedJaxpr(part, []))(1.0)
    np.testing.assert_allclose(result, np.sin(1.0), rtol=1e-6)


def test_jaxprs_are_found_in_the_parameters_of_an_equation():
    found = equation(jax.jit(lambda x: x + 1), 1.0)
    assert len(list(jex_core.jaxprs_in_params(found.params))) == 1


def test_the_trace_state_tells_a_trace_from_none_on_any_thread():
    states = {"here": jex_core.get_opaque_trace_state()}
    thread = threading.Thread(target=lambda: states.update(there=jex_core.get_opaque_trace_state()))
    thread.start()
    thread.join()
    jax.make_jaxpr(lambda x: states.update(traced=jex_core.get_opaque_trace_state()) or x)(1.0)
    assert states["here"] == states["there"] != states["traced"]


def make_primitive():
    primitive = jex_core.Primitive("test_call")
    primitive.multiple_results = True
    primitive.def_abstract_eval(lambda x, **_: [jax.core.ShapedArray(x.shape, x.dtype)])
    primitive.def_impl(lambda x, **_: [x])
    return primitive


def test_a_batching_rule_is_used_by_vmap():
    primitive, seen = make_primitive(), []

    def rule(operands, dims, **params):
        seen.append(dims)
        return primitive.bind(*operands, **params), [0]

    batching.primitive_batchers[primitive] = rule
    jax.vmap(lambda x: primitive.bind(x)[0])(jnp.arange(3.0))
    assert seen == [(0,)], "jax.interpreters.batching.primitive_batchers has changed"


def test_a_derivative_rule_is_used_by_grad():
    primitive = make_primitive()

    def rule(primals, tangents, **params):
        results = primitive.bind(*primals, **params)
        return results, [ad.Zero(jax.typeof(r).to_tangent_aval()) for r in results]

    ad.primitive_jvps[primitive] = rule
    assert float(jax.grad(lambda x: x * x + primitive.bind(x)[0])(3.0)) == 6.0


def test_a_lowering_rule_is_used_by_jit():
    primitive = make_primitive()

    def rule(_context, *_operands, **_params):
        raise RuntimeError("lowered")

    mlir.register_lowering(primitive, rule)
    with pytest.raises(RuntimeError, match="lowered"):
        jax.jit(lambda x: primitive.bind(x)[0])(1.0)


def differentiable_primitive():
    primitive = make_primitive()
    zeros = lambda rs: [ad.Zero(jax.typeof(r).to_tangent_aval()) for r in rs]  # noqa: E731

    def rule(primals, tangents, **params):
        results = primitive.bind(*primals, **params)
        return results, zeros(results)

    ad.primitive_jvps[primitive] = rule
    return primitive


def count(jaxpr, primitive):
    inner = [j for e in jaxpr.eqns for j in jex_core.jaxprs_in_params(e.params)]
    return sum(e.primitive is primitive for e in jaxpr.eqns) + sum(
        count(getattr(j, "jaxpr", j), primitive) for j in inner
    )


def test_a_checkpoint_rule_keeps_a_call_out_of_the_backward_pass():
    primitive = differentiable_primitive()
    f = jax.grad(jax.checkpoint(lambda w, x: jnp.sin(w) * primitive.bind(x)[0]))
    assert count(jax.make_jaxpr(f)(1.0, 2.0).jaxpr, primitive) == 2, (
        "checkpoint no longer repeats a primitive without a rule: is ours still needed?"
    )
    partial_eval.partial_eval_jaxpr_custom_rules[primitive] = lambda _policy, unknown, _, e: (
        e, None, [False] * len(e.outvars), [False] * len(e.outvars), []
    )  # fmt: skip
    g = jax.grad(jax.checkpoint(lambda w, x: jnp.sin(w) * primitive.bind(x)[0]))
    assert count(jax.make_jaxpr(g)(1.0, 2.0).jaxpr, primitive) == 1, (
        "partial_eval_jaxpr_custom_rules has changed: see _trace/primitive.py"
    )


def test_a_dead_code_rule_keeps_an_unused_call():
    primitive = differentiable_primitive()
    partial_eval.dce_rules[primitive] = lambda *args: ([True] * len(args[-1].invars), args[-1])
    f = jax.grad(jax.checkpoint(lambda w, x: (primitive.bind(x), w * w)[1]))
    assert count(jax.make_jaxpr(f)(1.0, 2.0).jaxpr, primitive) >= 1, (
        "jax.interpreters.partial_eval.dce_rules has changed: see _trace/primitive.py"
    )


def test_the_parameters_of_scan_that_are_read():
    def f(c, xs):
        return jax.lax.scan(lambda c, x: (c + x, (c, c * x)), c, xs, reverse=True)

    found = equation(f, 0.0, jnp.arange(3.0))
    assert found.primitive.name == "scan"
    assert (found.params["length"], found.params["reverse"]) == (3, True)
    inner = found.params["jaxpr"]
    assert [len(v.aval.shape) for v in found.invars] == [0, 1]
    assert [len(a.shape) for a in inner.in_avals] == [0, 0]
    assert [len(v.aval.shape) for v in found.outvars] == [0, 1, 1]


def test_the_parameters_of_while_that_are_read():
    def f(limit, step, x):
        return jax.lax.while_loop(lambda c: c < limit, lambda c: c + step, x)

    found = equation(f, 3.0, 1.0, 0.0)
    assert found.primitive.name == "while"
    assert (found.params["cond_nconsts"], found.params["body_nconsts"]) == (1, 1)
    assert len(found.params["cond_jaxpr"].in_avals) == 2
    assert len(found.params["body_jaxpr"].in_avals) == 2


def test_a_batched_while_keeps_a_predicate_for_each_lane_in_front_of_the_carry():
    def f(limits):
        def loop(n):
            body = lambda c: (c[0] + 1, c[1] * 2)  # noqa: E731
            return jax.lax.while_loop(lambda c: c[0] < n, body, (0.0, jnp.ones(5)))

        return jax.vmap(loop)(limits)

    jaxpr = jax.make_jaxpr(f)(jnp.arange(3.0)).jaxpr
    (found,) = [e for e in jaxpr.eqns if e.primitive.name == "while"]
    assert found.params["cond_jaxpr"].out_avals[0].shape == (3,), "see _trace/lanes.py"
    assert [v.aval.shape for v in found.outvars] == [(3,), (3, 5)]


def test_an_axis_that_does_not_reach_the_predicate_comes_behind_the_lanes():
    def f(limits, starts):
        def one(n, a):
            return jax.lax.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, c[1] * 2), (0.0, a))

        return jax.vmap(lambda a: jax.vmap(lambda n: one(n, a))(limits))(starts)

    jaxpr = jax.make_jaxpr(f)(jnp.arange(3.0), jnp.arange(2.0)).jaxpr
    (found,) = [e for e in jaxpr.eqns if e.primitive.name == "while"]
    assert found.params["cond_jaxpr"].out_avals[0].shape == (3,)
    assert found.outvars[1].aval.shape == (3, 2), "see _trace/lanes.py"


def test_the_parameters_of_cond_that_are_read():
    closed = jax.make_jaxpr(lambda p, x: jax.lax.cond(p, jnp.sin, jnp.cos, x))(True, 2.0)
    found = closed.jaxpr.eqns[-1]
    assert found.primitive.name == "cond"
    assert len(found.params["branches"]) == 2
    assert len(found.invars) == 2, "the first operand of cond is the number of the branch"


@pytest.mark.parametrize(
    ("wrap", "names"),
    [
        (jax.jit, {"jit", "pjit"}),
        (jax.checkpoint, {"checkpoint", "remat", "remat2"}),
        (jax.custom_jvp, {"custom_jvp_call"}),
        (jax.custom_vjp, {"custom_vjp_call", "custom_vjp_call_jaxpr"}),
    ],
)
def test_a_nested_call_has_a_name_and_a_jaxpr_that_we_know(wrap, names):
    from ember_xcs._trace.flatten import _CALLS, _OPENED

    inner = wrap(lambda x: x + 1)
    if wrap is jax.custom_jvp:
        inner.defjvp(lambda p, t: (p[0] + 1, t[0]))
    if wrap is jax.custom_vjp:
        inner.defvjp(lambda x: (x + 1, None), lambda _, g: (g,))
    found = equation(inner, 1.0)
    assert found.primitive.name in names <= _OPENED
    assert any(name in found.params for name in _CALLS)


def test_the_source_of_an_equation_is_known():
    def f(x):
        return x * 3.25

    found = equation(f, 1.0)
    assert "test_jax_extension_points.py" in source_info_util.summarize(found.source_info)


def test_key_arrays_of_jax_are_made_and_written_by_index():
    keys = jax.random.split(jax.random.key(0), 2)
    blank = jnp.zeros((3,), keys.dtype)
    assert (blank.at[jnp.array([2])].set(keys[:1])[2] == keys[0]).all()


def test_make_jaxpr_takes_structs_and_keeps_weak_types():
    struct = jax.ShapeDtypeStruct((), jnp.float32, weak_type=True)
    assert jax.make_jaxpr(lambda x: x)(struct).in_avals[0].weak_type
