"""Tree of thoughts (Yao et al. 2023): proposals, their values, the best two are carried on."""

from __future__ import annotations

import asyncio

import ember_xcs as xcs
from benchmarks.compound.mocks import awaited, digest, pause, text

DEPTH, PROPOSALS, BREADTH = 3, 3, 2
ARGUMENTS = ("Make 24 of 4, 9, 10 and 13.",)


@xcs.host
async def propose(problem: str, thought: str, number: int) -> str:
    await pause(0.03, problem, thought, number)
    return text(problem, thought, number, words=3)


@xcs.host
async def value(problem: str, thought: str) -> dict[str, float]:
    await pause(0.02, problem, thought)
    return {"sure": digest(thought) % 97 / 97, "likely": digest(problem, thought) % 53 / 53}


@xcs.host
async def answer(problem: str, thoughts: str) -> str:
    await pause(0.03, problem, thoughts)
    return f"{problem} {text(thoughts)}"


def program(problem: str) -> dict[str, object]:
    frontier = [("", 0.0)]
    for depth in range(DEPTH):
        candidates = []
        for thoughts, _ in frontier:
            for number in range(PROPOSALS):
                step = propose(problem, thoughts, number)
                path = f"{thoughts}\n{depth + 1}. {step}".strip()
                rating = value(problem, path)
                candidates.append((path, 2 * rating["sure"] + rating["likely"]))
        frontier = sorted(candidates, key=lambda c: c[1], reverse=True)[:BREADTH]
    best, score = frontier[0]
    return {"answer": answer(problem, best), "steps": best.split("\n"), "score": round(score, 3)}


async def by_hand(problem: str) -> dict[str, object]:
    async def candidate(depth: int, thoughts: str, number: int) -> tuple[str, float]:
        step = await awaited(propose, problem, thoughts, number)
        path = f"{thoughts}\n{depth + 1}. {step}".strip()
        rating = await awaited(value, problem, path)
        return path, 2 * rating["sure"] + rating["likely"]

    frontier = [("", 0.0)]
    for depth in range(DEPTH):
        candidates = await asyncio.gather(
            *(candidate(depth, path, n) for path, _ in frontier for n in range(PROPOSALS))
        )
        frontier = sorted(candidates, key=lambda c: c[1], reverse=True)[:BREADTH]
    best, score = frontier[0]
    final = await awaited(answer, problem, best)
    return {"answer": final, "steps": best.split("\n"), "score": round(score, 3)}
