"""The special methods that Python calls on values: one table for whoever has to know them all."""

from __future__ import annotations

from typing import Final

__all__ = ["ON_VALUES"]

_BINARY: Final = (
    "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor",
    "lshift", "rshift", "divmod",
)  # fmt: skip
_OTHERS: Final = (
    "neg", "pos", "abs", "invert", "round", "eq", "ne", "lt", "le", "gt", "ge", "hash", "bool",
    "len", "contains", "getitem", "iter", "next", "reversed", "str", "repr", "format", "bytes",
    "int", "float", "complex", "index",
)  # fmt: skip

ON_VALUES: Final = frozenset(
    [f"__{prefix}{name}__" for name in _BINARY for prefix in ("", "r", "i")]
    + [f"__{name}__" for name in _OTHERS]
)
"""What operators, comparison, truth, conversion, reading and showing call."""
