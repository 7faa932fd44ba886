"""Values as bytes, and back, without running anything that the bytes say.

What is stored is a frame: a mark with the version of the format, the length of a JSON text, the
text, and the raw bytes of arrays beside it. In the text ``null``, booleans, numbers, strings and
objects mean themselves; every other value is a list whose first entry is a tag, such as
``["tuple", 1, 2]``. Nothing is pickled, imported or called by name: a class is looked up among the
modules that are loaded, and its instances are put together from their fields without ``__init__``.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import math
import struct
from typing import TYPE_CHECKING, Any, Final, TypeVar

import jax
import numpy as np

from ember_xcs._runtime.encoding_arrays import (
    read_array,
    read_jax_array,
    read_prng_keys,
    read_scalar,
    write_array,
    write_jax_array,
    write_scalar,
)
from ember_xcs._runtime.encoding_records import read_record, write_record
from ember_xcs._runtime.encoding_rules import Corrupted, Unstorable
from ember_xcs._runtime.encoding_texts import READ_TEXT, WRITE_TEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Decoder", "Encoder", "decode", "encode"]

_MARK: Final = b"XCS1"
_FRAME: Final = struct.Struct("<4sQ")
_DEEPEST: Final = 100
_EXACT_BITS: Final = 63  # beyond these Python limits how many digits it reads or writes

T = TypeVar("T")


def encode(value: Any) -> bytes:
    """Returns a value as bytes that ``decode`` turns into an equal value of the same types.

    Args:
        value: None, numbers, strings, bytes, lists, tuples, dicts, sets, numpy and JAX arrays of
            every dtype, enum members, and dataclasses, named tuples, pydantic models and operators
            whose classes stand at the top level of a module; nested at most 100 deep.

    Raises:
        Unstorable: Something in the value is none of these.

    Example:
        >>> decode(encode({"answer": (42, b"raw")}))
        {'answer': (42, b'raw')}
    """
    encoder = Encoder()
    tree = encoder.value(value)
    text = json.dumps(tree, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return b"".join((_FRAME.pack(_MARK, len(text)), text, *encoder.blobs))


def decode(data: bytes) -> Any:
    """Returns the value that ``encode`` made these bytes from.

    Raises:
        Corrupted: They are not what ``encode`` writes.
        Unstorable: They hold an instance of a class that is not loaded, or has changed since.
    """
    try:
        mark, length = _FRAME.unpack_from(data)
        if mark != _MARK or length > len(data) - _FRAME.size:
            raise ValueError(f"it begins with {data[:12]!r}")
        start = _FRAME.size + length
        tree = json.loads(data[_FRAME.size : start])
        return Decoder(memoryview(data)[start:]).value(tree)
    except (*_MALFORMED, struct.error) as error:
        raise Corrupted(
            f"{len(data)} bytes are not a stored value ({type(error).__name__}: {error}): they are "
            "damaged, or of another version of ember_xcs; drop them"
        ) from error


# What reading a damaged tree can raise: a tag, a shape or a number that makes no sense.
_MALFORMED = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


class Encoder:
    """Turns values into trees for JSON.

    Attributes:
        blobs: Raw bytes that the tree refers to, in the order in which they are stored.
    """

    def __init__(self) -> None:
        self.blobs: list[bytes] = []
        self._stored = 0
        self._depth = 0

    def value(self, value: Any) -> Any:
        """Returns the tree of any value."""
        write = _WRITERS.get(type(value))
        return self.other(value) if write is None else write(self, value)

    def values(self, values: Iterable[Any]) -> list[Any]:
        """Returns the trees of the contents of a container."""
        return self.nested(lambda: [self.value(value) for value in values])

    def nested(self, write: Callable[[], T]) -> T:
        """Returns what ``write`` returns, one level deeper.

        Raises:
            Unstorable: That is too deep; a value that contains itself ends here.
        """
        if self._depth == _DEEPEST:
            raise Unstorable(
                f"a value that is nested more than {_DEEPEST} levels deep, or contains itself, "
                "cannot be stored; return a flatter one"
            )
        self._depth += 1
        try:
            return write()
        finally:
            self._depth -= 1

    def blob(self, data: bytes) -> Any:
        """Returns what stands in the tree for raw bytes."""
        start, self._stored = self._stored, self._stored + len(data)
        self.blobs.append(data)
        return [start, len(data)]

    def entries(self, value: dict[Any, Any]) -> Any:
        """Returns the tree of a dict, in its order."""
        if all(type(key) is str and _is_text(key) for key in value):
            return self.nested(lambda: {key: self.value(item) for key, item in value.items()})
        return ["dict", *self.values(part for item in value.items() for part in item)]

    def members(self, tag: str, value: Iterable[Any]) -> Any:
        """Returns the tree of a set, of plain members in an order that is always the same."""
        return [tag, *sorted(self.values(value), key=json.dumps)]

    def class_reference(self, cls: type) -> Any:
        """Returns what stands in the tree for a class, or None to have it looked up by name."""
        return None

    def other(self, value: Any) -> Any:
        """Returns the tree of a value that its exact type does not decide.

        Raises:
            Unstorable: There is no way to store it.
        """
        if isinstance(value, jax.Array):
            return write_jax_array(self, value)
        if isinstance(value, np.generic):
            return write_scalar(self, value)
        return write_record(self, value)


def _is_text(value: str) -> bool:
    """Whether a string has a UTF-8 form: one with surrogates has none."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _itself(_encoder: Encoder, value: Any) -> Any:
    return value


def _write_str(encoder: Encoder, value: str) -> Any:
    if _is_text(value):
        return value
    return ["str", encoder.blob(value.encode("utf-8", "surrogatepass"))]


def _write_int(_encoder: Encoder, value: int) -> Any:
    return value if value.bit_length() <= _EXACT_BITS else ["int", hex(value)]


def _write_float(_encoder: Encoder, value: float) -> Any:
    return value if math.isfinite(value) else ["float", struct.pack(">d", value).hex()]


def _write_complex(encoder: Encoder, value: complex) -> Any:
    return ["complex", encoder.value(value.real), encoder.value(value.imag)]


def _write_ordered(encoder: Encoder, value: collections.OrderedDict[Any, Any]) -> Any:
    return ["ordered", *encoder.values(part for item in value.items() for part in item)]


_WRITERS: dict[type, Callable[[Any, Any], Any]] = {
    type(None): _itself,
    bool: _itself,
    str: _write_str,
    int: _write_int,
    float: _write_float,
    complex: _write_complex,
    bytes: lambda encoder, value: ["bytes", encoder.blob(value)],
    bytearray: lambda encoder, value: ["bytearray", encoder.blob(bytes(value))],
    list: lambda encoder, value: ["list", *encoder.values(value)],
    tuple: lambda encoder, value: ["tuple", *encoder.values(value)],
    dict: lambda encoder, value: encoder.entries(value),
    collections.OrderedDict: _write_ordered,
    set: lambda encoder, value: encoder.members("set", value),
    frozenset: lambda encoder, value: encoder.members("frozenset", value),
    np.ndarray: write_array,
    **WRITE_TEXT,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Decoder:
    """Turns the trees of an ``Encoder`` into values.

    Attributes:
        stored: The raw bytes that the trees refer to.
    """

    stored: memoryview

    def value(self, tree: Any) -> Any:
        """Returns the value of a tree."""
        if type(tree) is list:
            tag, *parts = tree
            return _READERS[tag](self, *parts)
        if type(tree) is dict:
            return {key: self.value(part) for key, part in tree.items()}
        return tree

    def values(self, trees: Iterable[Any]) -> list[Any]:
        """Returns the values of several trees."""
        return [self.value(tree) for tree in trees]

    def pairs(self, trees: tuple[Any, ...]) -> list[tuple[Any, Any]]:
        """Returns the keys and values of a dict, which follow each other in its tree."""
        parts = self.values(trees)
        return list(zip(parts[::2], parts[1::2], strict=True))

    def blob(self, place: Any) -> bytes:
        """Returns raw bytes that a tree refers to."""
        start, length = place
        if not 0 <= start <= start + length <= len(self.stored):
            raise ValueError(f"bytes {start} to {start + length} of {len(self.stored)}")
        return bytes(self.stored[start : start + length])


_READERS: dict[str, Callable[..., Any]] = {
    "str": lambda decoder, place: decoder.blob(place).decode("utf-8", "surrogatepass"),
    "int": lambda _, text: int(text, 16),
    "float": lambda _, text: struct.unpack(">d", bytes.fromhex(text))[0],
    "complex": lambda decoder, real, imag: complex(decoder.value(real), decoder.value(imag)),
    "bytes": lambda decoder, place: decoder.blob(place),
    "bytearray": lambda decoder, place: bytearray(decoder.blob(place)),
    "list": lambda decoder, *parts: decoder.values(parts),
    "tuple": lambda decoder, *parts: tuple(decoder.values(parts)),
    "dict": lambda decoder, *parts: dict(decoder.pairs(parts)),
    "ordered": lambda decoder, *parts: collections.OrderedDict(decoder.pairs(parts)),
    "set": lambda decoder, *parts: set(decoder.values(parts)),
    "frozenset": lambda decoder, *parts: frozenset(decoder.values(parts)),
    "array": read_array,
    "scalar": read_scalar,
    "jax": read_jax_array,
    "prng": read_prng_keys,
    "record": read_record,
    **READ_TEXT,
}
