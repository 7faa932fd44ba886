"""The arguments of an operator, from the values of its input fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ember_xcs._core.signature import Signature

__all__ = ["call_arguments"]


def call_arguments(
    signature: Signature, fields: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns the positional and keyword arguments that pass these values.

    By position goes what can, up to the first field that has no value; the rest by name.

    Args:
        signature: What the operator takes.
        fields: The values by input field; those without one are left to their defaults.
    """
    if signature.style == "inputs":
        return (), {"inputs": dict(fields)}
    named = dict(fields)
    args = []
    for field in signature.fields:
        if not field.positional:
            continue
        if field.name not in named:
            break
        args.append(named.pop(field.name))
    return tuple(args), named
