"""What a host result is stored as, and what it is stored under."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any, Final

from ember_xcs._core.operator import Operator
from ember_xcs._runtime.encoding import decode, encode
from ember_xcs._runtime.encoding_rules import Corrupted, Unstorable
from ember_xcs._runtime.identity import IdentityEncoder, digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Corrupted", "Unstorable", "content_key", "decode", "encode"]

# Bytecode means something to one version of Python only.
_VERSION: Final = f"1 {sys.implementation.cache_tag}"


def content_key(
    operator: Operator | Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> str:
    """Returns the SHA-256, in hexadecimal, of all that the result of a call depends on.

    Those are the code of the operator (``identity`` says how much of it), its fields, and the
    arguments: by content, so that an edited function, another field and another argument each
    give another key, in every process the same. How an argument is passed, by position or by name,
    makes no difference; neither does the order of a dict or a set.

    Args:
        operator: What is called: an operator, or any callable.
        args: Its positional arguments.
        kwargs: Its keyword arguments.

    Raises:
        Unstorable: Some of it cannot be told by its content, such as an open socket.

    Example:
        >>> def double(x):
        ...     return 2 * x
        >>> content_key(double, (1,), {}) == content_key(double, (), {"x": 1})
        True
        >>> content_key(double, (1,), {}) == content_key(double, (1.0,), {})
        False
    """
    encoder = IdentityEncoder()
    try:
        return digest(
            [_VERSION, encoder.value(operator), _arguments(encoder, operator, args, kwargs)]
        )
    except Unstorable as error:
        name = getattr(operator, "name", None) or getattr(operator, "__qualname__", operator)
        raise Unstorable(f"a call of {name} has no content key: {error}") from None


def _arguments(
    encoder: IdentityEncoder, operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """The arguments by parameter, or as they are where they do not fit: the call itself says so."""
    try:
        bound = _parameters(operator).bind(*args, **kwargs)
    except (TypeError, ValueError):  # some built-in functions have no signature
        return ["as passed", *encoder.values((tuple(args), dict(kwargs)))]
    return ["bound", encoder.value(dict(bound.arguments))]


def _parameters(operator: Any) -> inspect.Signature:
    if isinstance(operator, Operator):
        return operator.call_parameters
    return inspect.signature(operator)
