"""The errors of storing values."""

from __future__ import annotations

from ember_xcs.errors import XCSError

__all__ = ["Corrupted", "Unstorable"]


class Unstorable(XCSError):
    """Raised when a value cannot be stored or restored, or a call has no content key."""


class Corrupted(XCSError):
    """Raised when stored bytes are not what was stored."""
