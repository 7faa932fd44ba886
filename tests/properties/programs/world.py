"""What random programs run in: operators that answer by content and remember their calls.

Each run of a program has a world of its own. An operator's answer depends on its arguments alone,
and its latency on its arguments and the world, so that runs differ in what ends first, never in
what is answered.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import ember_xcs as xcs

__all__ = ["ASYNC", "Note", "World"]

LATENCIES = (0.0, 0.0, 0.0, 0.0002, 0.001, 0.003)


@dataclasses.dataclass
class Note:
    text: str
    score: int
    tags: list[str]


def digest(*values: Any) -> int:
    return zlib.crc32(repr(values).encode())


def word(number: int, length: int = 3) -> str:
    return "".join("abcq 7"[number // 6**k % 6] for k in range(length))


def ask(text: Any) -> str:
    return word(digest("ask", text))


def draft(text: Any, style: int = 0) -> str:
    return word(digest("draft", text, style), 4)


def rate(value: Any) -> int:
    return digest("rate", value) % 10


def coin(text: Any) -> bool:
    return digest("coin", text) % 2 == 0


def facts(text: Any) -> list[str]:
    number = digest("facts", text)
    return [word(number // (k + 1), 2) for k in range(number % 4)]


def plan(text: Any) -> dict[str, Any]:
    number = digest("plan", text)
    return {
        "name": word(number),
        "n": number % 5,
        "tags": facts(number),
        "table": {"a": number % 3, "k": 1},
    }


def pair_of(text: Any) -> tuple[str, int]:
    return word(digest("pair", text), 2), digest("pair", text) % 4


def note_of(text: Any) -> Note:
    return Note(ask(text), rate(text), facts(text))


def risky(text: Any) -> str:
    if digest("risky", text) % 5 == 0:
        raise ValueError(f"risky {text!r}")
    return word(digest("risky", text), 2)


def doubled(value: Any) -> Any:
    return value * 2


# Which of them are awaited; the others block.
ANSWERS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (ask, draft, rate, coin, facts, plan, pair_of, note_of, risky)
}
ASYNC = frozenset({"ask", "rate", "facts", "risky"})


class World:
    """The operators of one run of a program, and what was asked of them.

    Attributes:
        calls: Which calls began, with what arguments, and how often.
        effects: What had side effects, in the order in which it happened.
        failed: Whether an operator has raised.
        late: Calls that began when the program had ended.
    """

    def __init__(self, seed: int, slow: bool) -> None:
        self.seed, self.slow = seed, slow
        self.calls: Counter[str] = Counter()
        self.effects: list[str] = []
        self.failed = False
        self.late: list[str] = []
        self._ended = False
        self._lock = threading.Lock()

    def names(self, *, awaiting: bool = False) -> dict[str, Any]:
        """Returns what programs find under the names of the operators.

        Args:
            awaiting: Whether the program is a coroutine function. It awaits ``aask``, while
                ``ask`` blocks, since plain functions that it calls cannot await.
        """
        operators = {name: self._operator(name, name in ASYNC and not awaiting) for name in ANSWERS}
        if awaiting:
            operators |= {f"a{name}": self._operator(name, True) for name in ASYNC}
        others = {"emit": self.emit, "Note": Note, "doubled": xcs.pure(doubled)}
        return {**operators, **self._effects(not awaiting), **others}

    def end(self) -> None:
        """Notes that the program has ended: no call is to begin any more."""
        with self._lock:
            self._ended = True

    def emit(self, *values: Any) -> None:
        """Code that is no operator, and acts when it is called."""
        self.act("emit", repr(values))

    def act(self, name: str, what: str) -> int:
        """Notes an effect and returns how many there have been."""
        with self._lock:
            self.effects.append(f"{name} {what}")
            return len(self.effects)

    def begin(self, name: str, args: tuple[Any, ...]) -> float:
        """Notes a call and returns its latency, in seconds."""
        call = f"{name}{args!r}"
        with self._lock:
            self.calls[call] += 1
            if self._ended:
                self.late.append(call)
        return LATENCIES[digest(self.seed, call) % len(LATENCIES)] if self.slow else 0.0

    def answer(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        try:
            return function(*args)
        except ValueError:
            self.failed = True
            raise

    def _operator(self, name: str, awaited: bool) -> Any:
        function = ANSWERS[name]
        world = self

        async def wait(text: Any) -> Any:
            if seconds := world.begin(name, (text,)):
                await asyncio.sleep(seconds)
            return world.answer(function, (text,))

        def block(text: Any) -> Any:
            if seconds := world.begin(name, (text,)):
                time.sleep(seconds)
            return world.answer(function, (text,))

        def block_styled(text: Any, style: int = 0) -> Any:
            if seconds := world.begin(name, (text, style)):
                time.sleep(seconds)
            return world.answer(function, (text, style))

        chosen = wait if awaited else block_styled if name == "draft" else block
        return xcs.host(chosen, name=name)

    def _effects(self, awaited: bool) -> dict[str, Any]:
        """The operators with side effects: one blocks, one is awaited where it can be."""
        world = self

        def log(text: Any) -> int:
            if seconds := world.begin("log", (text,)):
                time.sleep(seconds)
            return world.act("log", repr(text))

        async def risky_log(text: Any) -> int:
            if seconds := world.begin("risky_log", (text,)):
                await asyncio.sleep(seconds)
            world.answer(risky, (text,))
            return world.act("risky_log", repr(text))

        def risky_log_blocking(text: Any) -> int:
            world.begin("risky_log", (text,))
            world.answer(risky, (text,))
            return world.act("risky_log", repr(text))

        other = risky_log if awaited else risky_log_blocking
        return {
            "log": xcs.host(log, side_effects=True),
            "risky_log": xcs.host(other, side_effects=True, name="risky_log"),
        }
