"""Values as bytes, and what calls are known by."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import functools
import json
import os
import socket
import subprocess
import sys
import threading
import uuid

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import ember_xcs as xcs
from ember_xcs._runtime.content import Corrupted, Unstorable, content_key, decode, encode
from tests.runtime import stored
from tests.runtime.stored import Access, Answer, Colour, Open, Pair, Point, Scale, Slotted, same

texts = st.text(st.characters(codec=None, exclude_categories=()), max_size=8)
atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers().map(lambda number: number << 20_000)
    | st.floats()
    | st.complex_numbers()
    | texts
    | st.binary(max_size=8)
    | st.sampled_from([*Colour, *Access, Access.READ | Access.WRITE, Access(0)])
)
keys = st.none() | st.booleans() | st.integers() | texts | st.binary(max_size=4) | st.tuples(texts)
arrays = hnp.arrays(
    hnp.scalar_dtypes() | hnp.unicode_string_dtypes() | hnp.byte_string_dtypes(),
    hnp.array_shapes(min_dims=0, min_side=0, max_side=3),
)
values = st.recursive(
    atoms | arrays,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=3)
        | st.dictionaries(texts, inner, max_size=3).map(collections.OrderedDict)
        | st.sets(keys, max_size=3)
        | st.frozensets(keys, max_size=3)
        | st.builds(Pair, inner, inner)
        | st.builds(Point, inner, inner)
        | st.builds(Slotted, inner)
    ),
    max_leaves=8,
)


@given(values)
def test_any_value_comes_back_with_its_types_and_contents(value) -> None:
    assert same(decode(encode(value)), value)


DTYPES = [
    *"?bBhHiIlLqQefdgFDG",
    *("M8[ns]", "M8[25us]", "m8[D]", ">i4", ">f8", "U3", "S3", "V3"),
    *(ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.int4, ml_dtypes.uint4),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name + np.dtype(d).char)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_arrays_and_scalars_of_every_dtype_come_back(dtype, shape) -> None:
    array = np.zeros(shape, dtype)
    if array.dtype.kind in "iufc?" or (array.dtype.kind == "V" and array.dtype.char != "V"):
        array = np.arange(array.size).reshape(shape).astype(dtype)
    assert same(decode(encode(array)), array)
    scalar = np.ones(1, dtype)[0] if array.dtype.char != "V" else np.zeros(1, dtype)[0]
    assert type(decode(encode(scalar))) is type(scalar)
    assert decode(encode(scalar)).dtype == scalar.dtype
    assert decode(encode(scalar)) == scalar


INNER = np.dtype([("a", "i1"), ("b", ">f8", (2,)), ("c", "O")], align=True)


@pytest.mark.parametrize(
    "array",
    [
        np.array([1, "x", None, [2.5]], dtype=object),
        np.array([(1, (2.0, 3.0), "x"), (4, (5.0, 6.0), None)], INNER),
        np.array([((1, (2.0, 3.0), "x"),)], [("inner", INNER)]),
        np.array(["", "long" * 20], np.dtypes.StringDType()),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.arange(10)[::-2],
    ],
    ids=["objects", "records", "nested", "strings", "fortran", "strided"],
)
def test_arrays_that_are_no_plain_bytes_come_back(array) -> None:
    assert same(decode(encode(array)), array)


def test_a_restored_array_can_be_written_to() -> None:
    array = decode(encode(np.zeros(3)))
    array[0] = 1
    assert array.tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: jnp.arange(3),
        lambda: jnp.asarray(1.5),
        lambda: jnp.broadcast_to(jnp.asarray(2), (2, 2)) + 1,
        lambda: jnp.ones((2,), jnp.bfloat16),
        lambda: jnp.ones((2,), jnp.int4),
        lambda: jax.random.split(jax.random.key(3)),
        lambda: jax.random.key(1, impl="rbg"),
    ],
)
def test_jax_arrays_come_back_with_dtype_and_weak_type(make) -> None:
    assert same(decode(encode(make())), make())


def test_a_64_bit_jax_array_comes_back_where_64_bits_are_off() -> None:
    with jax.enable_x64(True):
        array = jnp.asarray([1.0, 2.0**-60 + 1])
    assert decode(encode(array)).dtype == jnp.float64
    assert same(np.asarray(decode(encode(array))), np.asarray(array))


@pytest.mark.parametrize(
    "value",
    [
        Answer(text="a", parts=[1, Point(2)]),
        Open(a=1, b=2),
        Open(),
        decimal.Decimal("-0.00"),
        uuid.UUID(int=3),
        datetime.date(2026, 1, 2),
        datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.UTC),
        datetime.timedelta(days=-1, microseconds=1),
        collections.OrderedDict(b=1, a=2),
        np.str_("text"),
        np.bytes_(b"bytes"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_records_and_texts_come_back(value) -> None:
    restored = decode(encode(value))
    assert type(restored) is type(value)
    assert restored == value
    assert repr(restored) == repr(value)


@pytest.mark.parametrize("value", [np.str_("a\0"), np.bytes_(b"a\0")])
def test_numpy_strings_keep_the_nuls_at_their_end(value) -> None:
    assert (type(decode(encode(value))), len(decode(encode(value)))) == (type(value), 2)


def test_a_model_keeps_which_fields_were_set_and_its_private_attributes() -> None:
    answer = Answer(text="a")
    answer._hidden = 5
    restored = decode(encode(answer))
    assert (restored.model_fields_set, restored._hidden) == ({"text"}, 5)


def test_an_operator_comes_back_and_works() -> None:
    restored = decode(encode(Scale(np.float32(3))))
    assert type(restored) is Scale
    assert restored(2) == 6


def test_a_cached_property_is_no_part_of_a_record() -> None:
    point = Point(1)
    assert point.total == 1
    assert "total" not in vars(decode(encode(point)))


def test_restoring_runs_no_constructor() -> None:
    data = encode(Point("permitted")).replace(b"permitted", b"forbidden")
    assert decode(data).x == "forbidden"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (object(), "builtins.object cannot be stored"),
        (lambda: 1, "function cannot be stored"),
        (threading.Lock(), "lock cannot be stored"),
        (type("Local", (str,), {})("x"), "Local cannot be stored"),
        (np.ma.array([1]), "MaskedArray cannot be stored"),
        (datetime.datetime(2026, 1, 1, fold=1), "does not say all"),
    ],
)
def test_what_cannot_be_stored_is_said(value, reason) -> None:
    with pytest.raises(Unstorable, match=reason):
        encode([value])


def test_a_class_that_its_name_does_not_lead_to_cannot_be_stored() -> None:
    class Inner(Point):
        pass

    with pytest.raises(Unstorable, match="top level of a module"):
        encode(Inner(1))


def test_a_value_that_contains_itself_cannot_be_stored() -> None:
    ring: list = []
    ring.append(ring)
    with pytest.raises(Unstorable, match="contains itself"):
        encode(ring)


def test_a_traced_array_cannot_be_stored() -> None:
    with pytest.raises(Unstorable, match="traced by JAX"):
        jax.jit(encode)(jnp.ones(2))


def test_reading_imports_nothing() -> None:
    data = encode(Point(1)).replace(b"tests.runtime.stored", b"tests.runtime.st0red")
    before = set(sys.modules)
    with pytest.raises(Unstorable, match="no class of that name is loaded"):
        decode(data)
    assert set(sys.modules) == before


def test_a_name_that_leads_to_something_else_is_not_called() -> None:
    data = encode(Point(1)).replace(
        b'"tests.runtime.stored","Point"', b'"tests.runtime.stored","same" '
    )
    with pytest.raises(Unstorable, match="no class"):
        decode(data)


def test_a_class_whose_fields_have_changed_is_not_restored(monkeypatch) -> None:
    data = encode(Point(1))

    changed = dataclasses.make_dataclass("Point", ["z"])
    changed.__module__ = stored.__name__
    monkeypatch.setattr(stored, "Point", changed)
    with pytest.raises(Unstorable, match="its fields were x, y, and are z"):
        decode(data)


@given(st.data())
def test_damaged_bytes_are_an_error_of_ours_or_another_value(data) -> None:
    whole = bytearray(encode({"a": [1, (2.5, b"xyz")], "b": np.arange(3), "c": Colour.RED}))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    for damaged in (bytes(whole), bytes(whole[:cut])):
        try:
            decode(damaged)
        except (Corrupted, Unstorable):
            continue


def test_an_object_array_cannot_be_read_from_raw_bytes() -> None:
    data = encode(np.zeros(1)).replace(b'"<f8"', b'"|O8"')
    with pytest.raises(Corrupted):
        decode(data)


# ------------------------------------------------------------------------------------- keys


def f(x, y=2, **more):
    return x, y, more


def key(*args, **kwargs) -> str:
    return content_key(f, args, kwargs)


def compiled(source: str, name: str = "g", **names):
    module = {"__name__": stored.__name__, **names}
    exec(compile(source, "made_up.py", "exec"), module)
    return module[name]


@given(values)
def test_equal_arguments_have_equal_keys(value) -> None:
    assert key(value) == key(decode(encode(value)))


@given(atoms, atoms)
def test_arguments_that_differ_in_type_or_content_have_other_keys(one, other) -> None:
    assert (key(one) == key(other)) == same(one, other)


@given(st.permutations(["a", "b", b"c", 4, None]))
def test_the_order_of_dicts_and_sets_does_not_matter(order) -> None:
    assert key(dict.fromkeys(order, 1)) == key(dict.fromkeys(["a", "b", b"c", 4, None], 1))
    assert key(set(order)) == key({"a", "b", b"c", 4, None})


def test_how_an_argument_is_passed_does_not_matter() -> None:
    assert key(1, 2, z=3) == key(z=3, y=2, x=1) != key(1, 3, z=2)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.zeros(2), jnp.zeros(2)),
        (np.zeros(2), np.zeros((2, 1))),
        (np.zeros(2, "f4"), np.zeros(2, "i4")),
        (jnp.asarray(1.0), jnp.float32(1)),
        (np.array([0.0]), np.array([-0.0])),
        (Point(1, 2), Pair(1, 2)),
        ([1, [2]], [[1], 2]),
        (["ab", "c"], ["a", "bc"]),
        (jax.random.key(0), jax.random.key(1)),
    ],
)
def test_arrays_and_records_that_differ_have_other_keys(one, other) -> None:
    assert key(one) != key(other)


def test_an_unwritable_view_has_the_key_of_its_array() -> None:
    array = np.arange(6).reshape(2, 3)
    view = array.T.copy().T
    view.flags.writeable = False
    assert key(array) == key(view)


EDITS = {
    "constant": ("def g(x): return x + 1", "def g(x): return x + 2"),
    "operation": ("def g(x): return x + 1", "def g(x): return x - 1"),
    "name": ("def g(x): return x.lower()", "def g(x): return x.upper()"),
    "default": ("def g(x, y=1): return y", "def g(x, y=2): return y"),
    "inner": ("def g(x): return lambda: 1", "def g(x): return lambda: 2"),
    "handler": (
        "def g(x):\n try: return int(x)\n except ValueError: return 0",
        "def g(x):\n try: return int(x)\n except TypeError: return 0",
    ),
    "global": ("K = 1\ndef g(x): return K", "K = 2\ndef g(x): return K"),
    "helper": (
        "def h(x): return 1\ndef g(x): return h(x)",
        "def h(x): return 2\ndef g(x): return h(x)",
    ),
    "closure": (
        "def m(k):\n def g(x): return k\n return g\ng = m(1)",
        "def m(k):\n def g(x): return k\n return g\ng = m(2)",
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_function_has_another_key(edit) -> None:
    before, after = (content_key(compiled(source), (1,), {}) for source in EDITS[edit])
    assert before != after
    assert before == content_key(compiled("\n# moved\n" + EDITS[edit][0]), (1,), {})


CLASS = """
import ember_xcs as xcs
class Ask(xcs.HostOperator):
    mark: str = "!"
    times = 1
    deterministic = False
    def forward(self, text):
        return self.decorated(text) * self.times
    def decorated(self, text):
        return text + self.mark
"""


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("text + self.mark", "self.mark + text", True),
        ("times = 1", "times = 2", True),
        ('mark: str = "!"', 'mark: str = "?"', True),
        ("deterministic = False", "deterministic = True", False),
    ],
)
def test_an_edited_operator_has_another_key(old, new, changes) -> None:
    before = content_key(compiled(CLASS, "Ask")(), ("a",), {})
    after = content_key(compiled(CLASS.replace(old, new), "Ask")(), ("a",), {})
    assert (before != after) is changes


def test_a_field_is_part_of_the_key() -> None:
    assert content_key(Scale(1), (2,), {}) != content_key(Scale(2), (2,), {})


def test_settings_that_do_not_change_a_result_are_no_part_of_the_key() -> None:
    one, other = xcs.host(f), xcs.host(timeout=3.0, deterministic=True, name="g")(f)
    assert content_key(one, (1,), {}) == content_key(other, (1,), {})


def test_a_method_is_known_by_its_instance_too() -> None:
    keys = {content_key(text.upper, (), {}) for text in ("a", "b")}
    keys |= {content_key(Scale(k).forward, (1,), {}) for k in (1, 2)}
    keys |= {content_key(functools.partial(f, k), (), {}) for k in (1, 2)}
    assert len(keys) == 6


def test_a_recursive_function_has_a_key() -> None:
    source = "def m():\n def g(x): return g(x - 1) if x else 0\n return g\ng = m()"
    assert content_key(compiled(source), (3,), {}) == content_key(compiled(source), (3,), {})


def test_what_cannot_be_identified_is_said() -> None:
    with socket.socket() as connection:

        def ask(x):
            return connection.send(x)

        with pytest.raises(Unstorable, match=r"call of .*ask.*'connection', which .* closes over"):
            content_key(ask, (b"x",), {})
        with pytest.raises(Unstorable, match="the field 'factor' of Scale"):
            content_key(Scale(connection), (1,), {})


def test_a_class_can_say_what_its_instances_are() -> None:
    class Client:
        def __init__(self, url):
            self.url, self.connection = url, object()

        def __xcs_identity__(self):
            return self.url

    assert key(Client("a")) == key(Client("a")) != key(Client("b"))


SCRIPT = """
import json, numpy as np
from ember_xcs._runtime.content import content_key
from tests.runtime.stored import Answer, Colour, Point, Scale
sets = [{"a", "b", "c", "d"}, frozenset(Colour)]
value = [sets, {"x": Point(1), "y": Answer(text="t")}, np.arange(3)]
print(json.dumps([content_key(Scale(2), (value,), {}), content_key(Point, (1,), {})]))
"""


def test_keys_are_the_same_in_every_process() -> None:
    keys = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", SCRIPT],
                env={**os.environ, "PYTHONHASHSEED": seed},
                capture_output=True,
                check=True,
                text=True,
            ).stdout
        )
        for seed in ("1", "2")
    ]
    assert keys[0] == keys[1]
