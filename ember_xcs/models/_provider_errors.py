"""What goes wrong with a server as our errors: without what was sent.

What the server says is left out, because servers repeat keys and prompts; of it only the short
names of the kind of error and of the parameter at fault are passed on.
"""

from __future__ import annotations

import datetime
import email.utils
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ember_xcs.errors import (
    AuthenticationFailed,
    InvalidRequest,
    ModelError,
    RateLimited,
    ResponseInvalid,
    ServiceUnavailable,
)

__all__ = ["not_json", "not_sendable", "refusal", "retry_after_of", "unreachable"]

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,47}")

_Kind = type[ModelError]
_BY_STATUS: Final[dict[int, tuple[_Kind, str, str]]] = {
    401: (AuthenticationFailed, "refused the key", "Check api_key= or OPENAI_API_KEY"),
    403: (AuthenticationFailed, "refused what the key may do", "Use a key with that permission"),
    408: (ServiceUnavailable, "waited too long for the request", "Try again"),
    409: (ServiceUnavailable, "was busy with a conflicting request", "Try again"),
    429: (RateLimited, "has had too many requests", "Set retry=, or an xcs.Limit for the model"),
}
_REFUSED: Final = (
    InvalidRequest,
    "refused the request",
    "Check the name of the model, the parameters, and the length of the prompt",
)
_FAILED: Final = (ServiceUnavailable, "failed", "Try again, or set retry=")


def unreachable(model: str) -> ModelError:
    """Returns the error of a server that did not answer, or not to the end."""
    return ServiceUnavailable(
        f"the server of model {model!r} could not be reached, or ended the connection before "
        "it had answered. Check base_url, or try again.",
        model,
    )


def not_json(model: str) -> ModelError:
    """Returns the error of a server that says it sends JSON, and does not."""
    return ResponseInvalid(
        f"the server of model {model!r} sent an answer that is not JSON. Check that base_url "
        "leads to a server of OpenAI's chat protocol, or try again.",
        model,
    )


def not_sendable(error: Exception, model: str) -> ModelError:
    """Returns the error of a request that cannot be written down."""
    return InvalidRequest(
        f"the request to model {model!r} could not be sent: {type(error).__name__} in the client. "
        "Check that its parameters are JSON, without NaN, and that the key is plain text.",
        model,
    )


def refusal(
    status: int, headers: Mapping[str, str], body: bytes, model: str, key: str | None
) -> ModelError:
    """Returns the error of a server that answered with a status of failure.

    Args:
        status: The status.
        headers: The headers of the answer.
        body: The answer.
        model: The name of the model.
        key: The key, which no message may have.
    """
    known = _FAILED if status >= 500 else _REFUSED
    kind, what, remedy = _BY_STATUS.get(status, known)
    names = "".join(f", {label} {name}" for label, name in _names(body, key))
    return kind(
        f"the server of model {model!r} {what} (HTTP {status}{names}). {remedy}.",
        model,
        status,
        retry_after_of(headers),
    )


def _names(body: bytes, key: str | None) -> Iterator[tuple[str, str]]:
    """Yields the names in an error of the server that cannot be a prompt or a key."""
    said = _error_in(body)
    for label, field in (("type", "type"), ("code", "code"), ("parameter", "param")):
        name = said.get(field)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            continue
        if not (key and key in name):
            yield label, name


def _error_in(body: bytes) -> Mapping[str, Any]:
    """What a server says of an error; empty where it does not say it in JSON."""
    try:
        said = json.loads(body)
    except ValueError:
        return {}
    if isinstance(said, dict):
        said = said.get("error", said)
    return said if isinstance(said, dict) else {}


def retry_after_of(headers: Mapping[str, str]) -> float | None:
    """Returns how long a server asks to wait, in seconds; None if it does not say.

    Example:
        >>> retry_after_of({"retry-after": "1.5"})
        1.5
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        seconds = _number(headers.get(name), unit)
        if seconds is not None:
            return seconds
    return _until(headers.get("retry-after"))


def _number(text: str | None, unit: float) -> float | None:
    try:
        seconds = float(text or "") / unit
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _until(date: str | None) -> float | None:
    """How long it is until a date of HTTP."""
    try:
        then = email.utils.parsedate_to_datetime(date or "")
    except ValueError:
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=datetime.UTC)
    return max((then - datetime.datetime.now(datetime.UTC)).total_seconds(), 0.0)
