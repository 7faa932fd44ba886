"""GGUF, the file format of llama.cpp: its metadata, and its tensors as float32.

The file is mapped and not read: of each tensor only what is asked for becomes memory. (The package
``gguf`` takes seconds for the vocabulary of a small model, as it makes an array of each string.
Tests compare every tensor and every field with what it reads.)
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ember_xcs.models._weight_files import WeightsInvalid

__all__ = ["GGUF"]

Floats = npt.NDArray[np.float32]

_MAGIC: Final = b"GGUF"
_ALIGNMENT: Final = 32
_STRING, _ARRAY = 8, 9
_SCALARS: Final = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
_HALF: Final = np.dtype("<f2")


class _Cursor:
    """A place in the file, which moves on with what is read there."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.at = data, 0

    def scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self.data, self.at)
        self.at += struct.calcsize(code)
        return value

    def text(self) -> str:
        length = self.scalar("Q")
        begin, self.at = self.at, self.at + length
        return str(self.data[begin : self.at], "utf-8")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self.array(self.scalar("I"), self.scalar("Q"))
        return self.scalar(_SCALARS[kind])

    def array(self, kind: int, length: int) -> list[Any]:
        if kind in (_STRING, _ARRAY):
            return [self.value(kind) for _ in range(length)]
        layout = f"<{length}{_SCALARS[kind]}"
        found = struct.unpack_from(layout, self.data, self.at)
        self.at += struct.calcsize(layout)
        return list(found)


class _Tensor(NamedTuple):
    kind: int
    shape: tuple[int, ...]
    offset: int


class GGUF:
    """A GGUF file.

    Args:
        file: Where it is.

    Attributes:
        metadata: Its fields by name.
        tensors: What is known of each tensor, by name.

    Raises:
        WeightsInvalid: It is not such a file.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, _Tensor] = {}
        try:
            self._bytes = np.memmap(file, np.uint8, "r")  # a ValueError if the file is empty
            self._read_header(_Cursor(self._bytes.data))
        except (struct.error, KeyError, ValueError) as error:
            raise WeightsInvalid(
                f"{file.name!r} is not a whole GGUF file: its header cannot be read. Get the file "
                "again."
            ) from error

    def _read_header(self, cursor: _Cursor) -> None:
        magic, version = bytes(cursor.data[:4]), struct.unpack_from("<I", cursor.data, 4)[0]
        if magic != _MAGIC or version not in (2, 3):
            raise WeightsInvalid(
                f"{self.file.name!r} begins with {magic!r} and version {version}; a GGUF file "
                "begins with b'GGUF' and version 2 or 3. Give a file of that format."
            )
        cursor.at = 8
        tensors, fields = cursor.scalar("Q"), cursor.scalar("Q")
        for _ in range(fields):
            name = cursor.text()
            self.metadata[name] = cursor.value(cursor.scalar("I"))
        for _ in range(tensors):
            name = cursor.text()
            shape = tuple(cursor.scalar("Q") for _ in range(cursor.scalar("I")))[::-1]
            self.tensors[name] = _Tensor(cursor.scalar("I"), shape, cursor.scalar("Q"))
        alignment = self.metadata.get("general.alignment", _ALIGNMENT)
        self._begin = -(-cursor.at // alignment) * alignment

    def tensor(self, name: str) -> Floats:
        """Returns a tensor as float32, of the shape that its rows and columns have.

        Raises:
            WeightsInvalid: There is none of that name, or it is of a kind that is not known here.
        """
        if name not in self.tensors:
            raise WeightsInvalid(
                f"{self.file.name!r} has no tensor {name!r}; it has {len(self.tensors)} others. "
                "Give a file of a model of the architecture llama."
            )
        kind, shape, offset = self.tensors[name]
        if kind not in _KINDS:
            known = ", ".join(f"{k.name} ({number})" for number, k in _KINDS.items())
            raise WeightsInvalid(
                f"tensor {name!r} of {self.file.name!r} is of the kind {kind}; known here are "
                f"{known}. Convert the file to one of these."
            )
        return self._floats(_KINDS[kind], math.prod(shape), offset).reshape(shape)

    def _floats(self, kind: _Kind, count: int, offset: int) -> Floats:
        blocks = count // kind.length
        begin = self._begin + offset
        raw = self._bytes[begin : begin + blocks * kind.size]
        if raw.size != blocks * kind.size:
            raise WeightsInvalid(f"{self.file.name!r} ends within a tensor. Get the file again.")
        return kind.floats(np.asarray(raw).reshape(blocks, kind.size))


class _Kind(NamedTuple):
    """How a tensor is stored: in blocks of ``length`` numbers, which take ``size`` bytes."""

    name: str
    length: int
    size: int
    floats: Callable[[npt.NDArray[np.uint8]], Floats]


def _halves(blocks: npt.NDArray[np.uint8], at: int) -> Floats:
    """The 16-bit number at this byte of each block, as a column."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(_HALF).astype(np.float32)


def _nibbles(packed: npt.NDArray[np.uint8]) -> Floats:
    """Numbers of four bits: the low halves of all bytes of a block, then the high ones."""
    rows, width = packed.shape
    numbers = np.empty((rows, 2 * width), np.float32)
    np.bitwise_and(packed, 15, out=numbers[:, :width], casting="unsafe")
    np.right_shift(packed, 4, out=numbers[:, width:], casting="unsafe")
    return numbers


def _q4_0(blocks: npt.NDArray[np.uint8]) -> Floats:
    return (_nibbles(blocks[:, 2:]) - np.float32(8)) * _halves(blocks, 0)


def _q4_1(blocks: npt.NDArray[np.uint8]) -> Floats:
    numbers = _nibbles(blocks[:, 4:])
    numbers *= _halves(blocks, 0)
    numbers += _halves(blocks, 2)
    return numbers


def _q8_0(blocks: npt.NDArray[np.uint8]) -> Floats:
    return blocks[:, 2:].view(np.int8) * _halves(blocks, 0)


def _f32(blocks: npt.NDArray[np.uint8]) -> Floats:
    return blocks.view("<f4").astype(np.float32)


def _f16(blocks: npt.NDArray[np.uint8]) -> Floats:
    return blocks.view(_HALF).astype(np.float32)


_KINDS: Final[Mapping[int, _Kind]] = {
    0: _Kind("F32", 1, 4, _f32),
    1: _Kind("F16", 1, 2, _f16),
    2: _Kind("Q4_0", 32, 18, _q4_0),
    3: _Kind("Q4_1", 32, 20, _q4_1),
    8: _Kind("Q8_0", 32, 34, _q8_0),
}
