"""What an operator takes and what form its output has, as bindings need to know it."""

from __future__ import annotations

import enum
import functools
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ember_xcs._core.signature import Signature, record_fields

__all__ = ["OutputForm", "Parameters", "output_form", "parameters_of"]


class OutputForm(enum.Enum):
    """How an unmapped edge carries an output."""

    FIELDS = "fields"  # by name: its fields are declared
    WHOLE = "whole"  # by position: it is declared, and is neither record nor mapping
    UNKNOWN = "unknown"  # its value will tell


@dataclass(frozen=True, slots=True)
class Parameters:
    """What an operator takes.

    Attributes:
        names: Its declared fields, in order.
        known: The same as a set.
        required: Those without default.
        in_order: Those that a value without a name may go to, in order: what can be passed by
            position, and required ones.
        open: Whether it takes other names, too.
    """

    names: tuple[str, ...]
    known: frozenset[str]
    required: tuple[str, ...]
    in_order: tuple[str, ...]
    open: bool

    def takes(self, field: str) -> bool:
        """Whether this is a field that it accepts."""
        return self.open or field in self.known

    @property
    def takes_everything(self) -> bool:
        """Whether it declares no fields and accepts any: it then takes all that there is."""
        return self.open and not self.names


def parameters_of(signature: Signature) -> Parameters:
    """Returns what an operator with this signature takes."""
    return _parameters(
        tuple((f.name, f.required, f.positional) for f in signature.fields), signature.open
    )


@functools.lru_cache(maxsize=4096)
def _parameters(fields: tuple[tuple[str, bool, bool], ...], is_open: bool) -> Parameters:
    names = tuple(name for name, _, _ in fields)
    return Parameters(
        names,
        frozenset(names),
        tuple(name for name, required, _ in fields if required),
        tuple(name for name, required, positional in fields if required or positional),
        is_open,
    )


def output_form(signature: Signature) -> OutputForm:
    """Returns how an unmapped edge carries the output of an operator with this signature."""
    if signature.outputs is not None:
        return OutputForm.FIELDS
    return OutputForm.UNKNOWN if _may_be_mapping(signature.returns) else OutputForm.WHOLE


def _may_be_mapping(annotation: Any) -> bool:
    """Whether a value of this type may be a mapping, or a record in disguise."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _may_be_mapping(annotation.__origin__)
    if origin in (typing.Union, types.UnionType):
        return any(_may_be_mapping(part) for part in typing.get_args(annotation))
    if origin is typing.Literal or annotation is None:
        return False
    known = origin or annotation
    if not isinstance(known, type) or known in (object, Any):  # Any is a class since Python 3.11
        return True
    return issubclass(known, Mapping) or record_fields(known) is not None
