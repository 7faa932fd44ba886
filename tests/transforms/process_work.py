"""What the processes of ``pmap`` are given to do: importable functions."""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from pathlib import Path

import ember_xcs as xcs


def square(x: int) -> int:
    return x * x


def pid(x: int) -> int:
    return os.getpid()


def die_at_two(x: int) -> int:
    if x == 2:
        os._exit(3)
    return x


def fail_at_two(x: int) -> int:
    if x == 2:
        raise ValueError("no two")
    return x


def die_once(x: int, folder: str) -> int:
    """Dies at its first call with 2, and marks that in a folder."""
    mark = Path(folder) / "died"
    if x == 2 and not mark.exists():
        mark.touch()
        os._exit(3)
    return x


def die_always(x: int, folder: str) -> int:
    """Dies at each call with 2, and counts these in a folder."""
    if x == 2:
        (Path(folder) / f"call{len(list(Path(folder).iterdir()))}").touch()
        os._exit(3)
    return x


def hang_at_two(x: int) -> int:
    if x == 2:
        time.sleep(600)
    return x


@dataclasses.dataclass
class SlowToArrive:
    """What takes longer to unpickle than a call of ``soon`` may take."""

    number: int

    def __setstate__(self, state: dict[str, int]) -> None:
        time.sleep(0.4)
        self.__dict__.update(state)


class NeverArrives:
    """What can be pickled, and not unpickled."""

    def __setstate__(self, state: object) -> None:
        raise ValueError("it never arrives")

    def __getstate__(self) -> object:
        return "something"


def at_once(item: object) -> object:
    return item


soon = xcs.host(executor="process", timeout=0.2)(at_once)


@functools.partial(xcs.pmap, executor="process")
def decorated(x: int) -> int:
    return x


hangs_at_two = xcs.host(executor="process", timeout=1.0)(hang_at_two)
dies_once = xcs.host(executor="process", deterministic=True)(die_once)
dies_once_stochastic = xcs.host(executor="process")(die_once)
dies_always = xcs.host(executor="process", deterministic=True)(die_always)
