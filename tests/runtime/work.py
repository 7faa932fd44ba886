"""What processes are given to do: importable functions."""

from __future__ import annotations

import os
import time
from typing import Any

import ember_xcs as xcs


def square(x: int) -> int:
    return x * x


def pid(_: Any = None) -> int:
    return os.getpid()


def fail(x: int) -> int:
    raise ValueError(f"no {x}")


def die(x: Any = None) -> None:
    os._exit(3)


def hang(x: Any = None) -> None:
    time.sleep(600)


def unpicklable(x: Any = None) -> Any:
    return lambda: x


class Strange(Exception):
    """An exception that pickles and does not unpickle."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__("strange")


def fail_strangely(x: Any = None) -> None:
    raise Strange(1, 2)


class Squares(xcs.HostOperator):
    """Squares numbers in a process, and says in which, and how many together."""

    executor = "process"

    def forward(self, x: int) -> tuple[int, int, int]:
        return x * x, os.getpid(), 1

    def forward_batch(self, x: list[int]) -> list[Any]:
        return [(v * v, os.getpid(), len(x)) if v else ValueError("none") for v in x]
