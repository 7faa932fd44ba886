"""Arrays as raw bytes and a description; numpy and JAX, every dtype.

Arrays of objects and of strings without a fixed length are stored by their items, arrays of records
field by field: so that neither pointers nor the gaps between fields are ever written or read.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ember_xcs._runtime.encoding_rules import Unstorable

if TYPE_CHECKING:
    from ember_xcs._runtime.encoding import Decoder, Encoder

__all__ = [
    "dtype_tree",
    "read_array",
    "read_jax_array",
    "read_prng_keys",
    "read_scalar",
    "write_array",
    "write_jax_array",
    "write_scalar",
]

_PADDED = {"g": 1, "G": 2}  # long doubles of 80 bits stand in 128
_X87_MANTISSA = 63


def write_array(encoder: Encoder, value: np.ndarray[Any, Any]) -> Any:
    """Returns the tree of a numpy array."""
    return ["array", *_description(encoder, value)]


def _description(encoder: Encoder, value: np.ndarray[Any, Any]) -> list[Any]:
    """The dtype, the shape and the contents of an array."""
    dtype, shape = value.dtype, list(value.shape)
    if dtype.names is not None:
        fields = [encoder.value(np.asarray(value[name])) for name in dtype.names]
        return [dtype_tree(dtype), shape, fields]
    if dtype.hasobject or dtype.kind == "T":
        return [dtype_tree(dtype), shape, encoder.values(value.ravel().tolist())]
    return [dtype_tree(dtype), shape, encoder.blob(_raw(value))]


def _raw(value: np.ndarray[Any, Any]) -> bytes:
    if value.dtype.char not in _PADDED or np.finfo(np.longdouble).nmant != _X87_MANTISSA:
        return value.tobytes()
    halves = np.frombuffer(value.tobytes(), np.uint8).reshape(-1, np.dtype("g").itemsize).copy()
    halves[:, 10:] = 0  # what lies there is left over from other work
    return halves.tobytes()


def dtype_tree(dtype: np.dtype[Any]) -> Any:
    """Returns what describes a dtype: a text, or the fields of a record.

    Raises:
        Unstorable: It is one that no description would bring back.
    """
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return {"base": dtype_tree(base), "shape": list(shape)}
    if dtype.names is not None and dtype.fields is not None:
        fields = [dtype.fields[name] for name in dtype.names]
        return {
            "names": list(dtype.names),
            "formats": [dtype_tree(field[0]) for field in fields],
            "offsets": [field[1] for field in fields],
            "itemsize": dtype.itemsize,
            "aligned": dtype.isalignedstruct,
        }
    for text in (dtype.str, dtype.byteorder + dtype.char, dtype.name):
        if _is_dtype(text, dtype):
            return text
    raise Unstorable(
        f"an array of dtype {dtype!r} cannot be stored: its name does not say all of it; convert "
        "it to one of numpy's or ml_dtypes' own"
    )


def _is_dtype(text: str, dtype: np.dtype[Any]) -> bool:
    try:
        found = np.dtype(text)
    except TypeError:
        return False
    return found == dtype and found.char == dtype.char and found.type is dtype.type


def _dtype(tree: Any) -> np.dtype[Any]:
    if not isinstance(tree, dict):
        return np.dtype(str(tree))
    if "base" in tree:
        return np.dtype((_dtype(tree["base"]), tuple(tree["shape"])))
    formats = [_dtype(part) for part in tree["formats"]]
    names, offsets, itemsize = tree["names"], tree["offsets"], tree["itemsize"]
    layout = {"names": names, "formats": formats, "offsets": offsets, "itemsize": itemsize}
    return np.dtype(layout, align=tree["aligned"])  # type: ignore[call-overload,no-any-return]


def read_array(decoder: Decoder, dtype_text: Any, shape: list[int], contents: Any) -> Any:
    """Returns a numpy array that can be written to."""
    dtype, whole = _dtype(dtype_text), tuple(shape)
    if dtype.names is not None:
        records: np.ndarray[Any, Any] = np.zeros(whole, dtype)
        for name, part in zip(dtype.names, contents, strict=True):
            records[name] = decoder.value(part)
        return records
    if dtype.hasobject or dtype.kind == "T":
        return _of_items(decoder.values(contents), dtype, whole)
    data = decoder.blob(contents)
    if len(data) != math.prod(whole) * dtype.itemsize:
        raise ValueError(f"{len(data)} bytes for an array {dtype}{shape}")
    return np.ndarray(whole, dtype, buffer=data or None).copy()


def _of_items(items: list[Any], dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    if len(items) != math.prod(shape):
        raise ValueError(f"{len(items)} items for an array {dtype}{list(shape)}")
    flat: np.ndarray[Any, Any] = np.empty(len(items), dtype)
    for place, item in enumerate(items):  # at once, numpy would open items that are sequences
        flat[place] = item
    return flat.reshape(shape)


def write_scalar(encoder: Encoder, value: np.generic) -> Any:
    """Returns the tree of a numpy scalar."""
    if type(value) is np.str_:  # an array, and str(value), would drop NULs at the end
        return ["scalar", "str", encoder.value(str.__str__(value))]
    if type(value) is np.bytes_:
        return ["scalar", "bytes", encoder.value(b"".join([value]))]
    array = np.asarray(value)
    if array.dtype.type is not type(value):
        raise _no_way(value)
    return ["scalar", *_description(encoder, array)]


def read_scalar(decoder: Decoder, dtype: Any, *parts: Any) -> Any:
    """Returns a numpy scalar."""
    if dtype == "str":
        return np.str_(decoder.value(*parts))
    if dtype == "bytes":
        return np.bytes_(decoder.value(*parts))
    return read_array(decoder, dtype, *parts)[()]


def write_jax_array(encoder: Encoder, value: jax.Array) -> Any:
    """Returns the tree of a JAX array; where it is placed is not stored.

    Raises:
        Unstorable: It is being traced, was deleted, lies in other processes, or has random keys of
            an implementation without a name.
    """
    if isinstance(value, jax.core.Tracer):
        raise Unstorable(
            f"{value.aval} is being traced by JAX and has no value that could be stored; call the "
            "operator outside jit, vmap and grad"
        )
    if value.is_deleted() or not value.is_fully_addressable:
        state = "was deleted or donated" if value.is_deleted() else "lies in other processes too"
        raise Unstorable(f"a JAX array that {state} cannot be stored; store a copy of it")
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        name = jax.random.key_impl(value)
        if not isinstance(name, str):
            raise _no_way(value)
        return ["prng", name, *_description(encoder, np.asarray(jax.random.key_data(value)))]
    weak = bool(getattr(value, "weak_type", False))
    return ["jax", weak, *_description(encoder, np.asarray(value))]


def read_jax_array(decoder: Decoder, weak: bool, *parts: Any) -> jax.Array:
    """Returns a JAX array on the default device."""
    array = read_array(decoder, *parts)
    wide = jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype
    with jax.enable_x64(True) if wide else contextlib.nullcontext():
        if not weak:
            return jnp.asarray(array)
        number: Any = array.dtype.type(0).item()  # only Python's numbers are weakly typed
        made: jax.Array = jnp.broadcast_to(jnp.asarray(number), array.shape).at[...].set(array)
        return made


def read_prng_keys(decoder: Decoder, name: str, *parts: Any) -> jax.Array:
    """Returns random keys."""
    keys: jax.Array = jax.random.wrap_key_data(jnp.asarray(read_array(decoder, *parts)), impl=name)
    return keys


def _no_way(value: Any) -> Unstorable:
    return Unstorable(
        f"a {type(value).__module__}.{type(value).__qualname__} of dtype {value.dtype} cannot be "
        "stored: there is no name to restore it by; convert it to one of the usual dtypes"
    )
