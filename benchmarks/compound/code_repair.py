"""Generate, test, repair: three candidates, their tests, the best one repaired until it passes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import ember_xcs as xcs
from benchmarks.compound.mocks import awaited, digest, pause, sleep, text

CANDIDATES, REPAIRS = 3, 3
TESTS = ("empty", "one", "many", "negative")
ARGUMENTS = ("Merge two sorted lists.",)


@dataclass
class Outcome:
    test: str
    passed: bool
    output: str


@dataclass
class Attempt:
    code: str
    outcomes: list[Outcome]

    @property
    def passed(self) -> int:
        return sum(outcome.passed for outcome in self.outcomes)


@xcs.host
async def generate(task: str, number: int) -> str:
    await pause(0.04, task, number)
    return f"def solve(a, b):\n    # {text(task, number)}\n    return a"


@xcs.host
def run_test(code: str, test: str) -> Outcome:
    sleep(0.02, code, test)
    passed = digest(test, code) % 2 > 0
    return Outcome(test, passed, "" if passed else f"AssertionError: {text(code, test, words=2)}")


@xcs.host
async def repair(prompt: str) -> str:
    await pause(0.04, prompt)
    return f"def solve(a, b):\n    # {text(prompt)}\n    return b"


def attempt(code: str) -> Attempt:
    outcomes = []
    for test in TESTS:
        outcomes.append(run_test(code, test))  # noqa: PERF401  (as people write it)
    return Attempt(code, outcomes)


def repair_prompt(found: Attempt) -> str:
    failures = [f"{o.test}: {o.output}" for o in found.outcomes if not o.passed]
    return f"{found.code}\n\nThese tests fail:\n" + "\n".join(failures)


def program(task: str) -> dict[str, Any]:
    codes = [generate(task, number) for number in range(CANDIDATES)]
    attempts = [attempt(code) for code in codes]
    best = max(attempts, key=lambda a: a.passed)
    repairs = 0
    while best.passed < len(TESTS) and repairs < REPAIRS:
        repairs += 1
        best = max(best, attempt(repair(repair_prompt(best))), key=lambda a: a.passed)
    return {"code": best.code, "passed": best.passed, "repairs": repairs}


async def by_hand(task: str) -> dict[str, Any]:
    async def attempted(code: str) -> Attempt:
        outcomes = await asyncio.gather(*(awaited(run_test, code, test) for test in TESTS))
        return Attempt(code, outcomes)

    async def first(number: int) -> Attempt:
        return await attempted(await awaited(generate, task, number))

    attempts = await asyncio.gather(*(first(number) for number in range(CANDIDATES)))
    best = max(attempts, key=lambda a: a.passed)
    repairs = 0
    while best.passed < len(TESTS) and repairs < REPAIRS:
        repairs += 1
        code = await awaited(repair, repair_prompt(best))
        best = max(best, await attempted(code), key=lambda a: a.passed)
    return {"code": best.code, "passed": best.passed, "repairs": repairs}
