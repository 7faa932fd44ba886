"""Compares a way to run random programs with plain Python, and reports what differs, made small."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.properties.programs.prelude import PRELUDE
from tests.properties.programs.reducing import reduced
from tests.properties.programs.running import Endless, Program, difference
from tests.properties.programs.world import World
from tests.properties.programs.writer import write_program

__all__ = ["Checker", "Fault"]

Run = Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclasses.dataclass
class Fault:
    """A program whose run differs from plain Python.

    Attributes:
        source: The program.
        what: How it differs.
        seed: The world in which it does, which says what is slow.
    """

    source: str
    what: str
    seed: int = 0

    def __str__(self) -> str:
        own = self.source.removeprefix(PRELUDE).strip()
        return f"{self.what}\n{own}"


class Checker:
    """Compares one way to run programs with plain Python.

    Args:
        how: Makes of a function what is to be compared with it.
        folder: Where the programs are written to.
    """

    def __init__(self, how: Run, folder: Path) -> None:
        self.how, self.folder = how, folder

    def fault(self, source: str, seed: int = 0) -> str | None:
        """Returns how a program differs from plain Python; None if it does not, or has no end."""
        program = Program(source, self.folder)
        try:
            watched = program.run(_as_it_is, World(seed, slow=False), watched=True)
            plain = program.run(_as_it_is, World(seed, slow=False))
            plain.raised = watched.raised
            return difference(plain, program.run(self.how, World(seed, slow=True)))
        except Endless:
            return None
        finally:
            program.forget()

    def fault_of_seed(self, seed: int) -> Fault | None:
        """Returns the fault that a random program shows."""
        source = write_program(seed)
        what = self.fault(source, seed)
        return Fault(source, what, seed) if what else None

    def smallest(self, fault: Fault, seconds: float) -> Fault:
        """Returns a smaller program with a fault of the same kind."""
        kind = fault.what.split(":", 1)[0]
        found = [fault.what]

        def fails(source: str) -> bool:
            for seed in (fault.seed, fault.seed + 1):
                what = self._what(source, seed)
                if what and what.startswith(kind):
                    found[0] = what
                    return True
            return False

        return Fault(reduced(fault.source, fails, seconds), found[0], fault.seed)

    def _what(self, source: str, seed: int) -> str | None:
        """The fault of a program that may have lost what it needs to run at all."""
        try:
            return self.fault(source, seed)
        except (AttributeError, NameError, TypeError, ValueError):
            return None


def _as_it_is(function: Callable[..., Any]) -> Callable[..., Any]:
    return function
