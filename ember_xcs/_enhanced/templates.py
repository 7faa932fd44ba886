"""Which arguments a text with named places reads: only those have to be there."""

from __future__ import annotations

import string
from collections.abc import Iterator
from typing import Any

from ember_xcs._enhanced.construction import fresh

__all__ = ["read_by_template"]


def read_by_template(
    template: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns the arguments of ``template.format`` without those that it does not read.

    Args:
        template: The text.
        name: ``"format"`` or ``"format_map"``.
        args: Those by position; for ``format_map``, the mapping.
        kwargs: Those by name.
    """
    try:
        fields = set(_fields(template))
    except ValueError:  # no valid template: Python itself says so
        return args, kwargs
    if name == "format":
        return args, {key: value for key, value in kwargs.items() if key in fields}
    if len(args) == 1 and type(args[0]) is dict:
        return (fresh({key: value for key, value in args[0].items() if key in fields}),), kwargs
    return args, kwargs


def _fields(template: str) -> Iterator[str]:
    for _, field, spec, _ in string.Formatter().parse(template):
        if field is not None:
            yield field.partition(".")[0].partition("[")[0]
            yield from _fields(spec or "")
