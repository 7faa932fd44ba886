"""Dates, decimals and the like: values that a text says completely."""

from __future__ import annotations

import datetime
import decimal
import pathlib
import uuid
from typing import TYPE_CHECKING, Any

from ember_xcs._runtime.encoding_rules import Unstorable

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["READ_TEXT", "WRITE_TEXT"]

_MICROSECOND = datetime.timedelta(microseconds=1)


def _from_microseconds(text: str) -> datetime.timedelta:
    return int(text) * _MICROSECOND


# Type, tag, to text, from text.
_TEXTS: tuple[tuple[type, str, Callable[[Any], str], Callable[[str], Any]], ...] = (
    (decimal.Decimal, "decimal", str, decimal.Decimal),
    (uuid.UUID, "uuid", str, uuid.UUID),
    (datetime.date, "date", datetime.date.isoformat, datetime.date.fromisoformat),
    (datetime.time, "time", datetime.time.isoformat, datetime.time.fromisoformat),
    (datetime.datetime, "datetime", datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    (datetime.timedelta, "timedelta", lambda d: str(d // _MICROSECOND), _from_microseconds),
    (type(pathlib.Path()), "path", str, pathlib.Path),
)


def _writer(
    tag: str, to_text: Callable[[Any], str], from_text: Callable[[str], Any]
) -> Callable[[Any, Any], Any]:
    def write(encoder: Any, value: Any) -> Any:
        text = to_text(value)
        if repr(from_text(text)) != repr(value):  # such as a time zone that is more than an offset
            raise Unstorable(
                f"{value!r} cannot be stored: its text {text!r} does not say all of it; convert it "
                "to a string, or to UTC"
            )
        return [tag, encoder.value(text)]

    return write


def _reader(from_text: Callable[[str], Any]) -> Callable[[Any, Any], Any]:
    return lambda decoder, text: from_text(decoder.value(text))


WRITE_TEXT = {cls: _writer(tag, to, back) for cls, tag, to, back in _TEXTS}
READ_TEXT = {tag: _reader(back) for _, tag, _, back in _TEXTS}
