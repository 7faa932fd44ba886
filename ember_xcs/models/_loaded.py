"""Operators whose weights come from a file."""

from __future__ import annotations

import copyreg
from typing import Any, Self

from ember_xcs._core.operator import Operator

__all__ = ["Loaded"]

_ORIGIN = "_xcs_origin"  # no field: a copy with other weights has none


class Loaded(Operator):
    """An operator that is pickled as the file and settings it was made from.

    A copy with other weights, such as a trained one, is pickled with them. A plain copy is the
    operator itself, which does not change.
    """

    @property
    def origin(self) -> tuple[str | None, dict[str, Any]] | None:
        """The file (None for the one in the package) and settings; None for other weights."""
        origin: tuple[str | None, dict[str, Any]] | None = self.__dict__.get(_ORIGIN)
        return origin

    def _comes_from(self, file: Any, **settings: Any) -> None:
        self.__dict__[_ORIGIN] = None if file is None else str(file), settings

    def __reduce__(self) -> Any:
        if self.origin is None:
            return copyreg.__newobj__, (type(self),), self.__getstate__()  # type: ignore[attr-defined]
        return _made, (type(self), *self.origin)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self


def _made(cls: type[Any], file: str | None, settings: dict[str, Any]) -> Any:
    return cls(file, **settings)
