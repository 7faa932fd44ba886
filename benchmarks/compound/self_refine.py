"""Self-refine (Madaan et al. 2023): a draft, reviews from several sides, a revision, and again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import ember_xcs as xcs
from benchmarks.compound.mocks import awaited, digest, pause, text

ROUNDS, ENOUGH = 4, 7.5
ASPECTS = ("clarity", "accuracy", "brevity", "tone")
ARGUMENTS = ("An email that tells a customer why the order is late.",)


@dataclass
class Review:
    aspect: str
    score: int
    advice: str


@xcs.host
async def draft(task: str) -> str:
    await pause(0.04, task)
    return text(task, words=10)


@xcs.host
async def review(aspect: str, task: str, version: str) -> Review:
    await pause(0.03, aspect, version)
    score = 4 + digest(aspect, task, version) % 6
    return Review(aspect, score, text(aspect, version, words=4))


@xcs.host
async def revise(prompt: str) -> str:
    await pause(0.04, prompt)
    return text(prompt, words=10)


def revision_prompt(task: str, version: str, advice: list[str]) -> str:
    listed = "\n".join(f"{n}. {line}" for n, line in enumerate(advice, 1))
    return f"Task: {task}\nText: {version}\nImprove it:\n{listed}"


def program(task: str) -> dict[str, Any]:
    version = draft(task)
    scores: list[float] = []
    for _ in range(ROUNDS):
        reviews = [review(aspect, task, version) for aspect in ASPECTS]
        mean = sum(r.score for r in reviews) / len(reviews)
        scores.append(mean)
        if mean >= ENOUGH:
            break
        worst = sorted(reviews, key=lambda r: r.score)[:2]
        version = revise(revision_prompt(task, version, [r.advice for r in worst]))
    return {"text": version, "scores": scores, "rounds": len(scores)}


async def by_hand(task: str) -> dict[str, Any]:
    version = await awaited(draft, task)
    scores: list[float] = []
    for _ in range(ROUNDS):
        reviews = await asyncio.gather(*(awaited(review, a, task, version) for a in ASPECTS))
        mean = sum(r.score for r in reviews) / len(reviews)
        scores.append(mean)
        if mean >= ENOUGH:
            break
        worst = sorted(reviews, key=lambda r: r.score)[:2]
        version = await awaited(revise, revision_prompt(task, version, [r.advice for r in worst]))
    return {"text": version, "scores": scores, "rounds": len(scores)}
