"""Python's garbage collector, while many objects are made and none is garbage.

It looks at all young objects again and again, which takes a third of the time in which a large
graph is checked and planned.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

__all__ = ["uncollected"]

_LARGE = 1000


@contextlib.contextmanager
def uncollected(count: int | None = None) -> Iterator[None]:
    """Pauses the collector where about ``count`` things are to be made, if that is many.

    What was made is then among the old objects, without being looked at.

    Args:
        count: How many; None for many.
    """
    is_large = count is None or count > _LARGE
    pauses = is_large and gc.isenabled()
    if pauses:
        gc.disable()
    try:
        yield
    finally:
        if pauses:
            if not gc.get_freeze_count():  # what a program has frozen itself stays so
                gc.freeze()
                gc.unfreeze()  # into the oldest generation
            gc.enable()
