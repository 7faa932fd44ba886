"""Self-consistency (Wang et al. 2023): eight chains of thought, and what most of them say."""

from __future__ import annotations

import asyncio
import re
from collections import Counter

import ember_xcs as xcs
from benchmarks.compound.mocks import awaited, digest, pause, text

SAMPLES = 8
ARGUMENTS = ("A train leaves at 14:05 and arrives at 16:50. How many minutes does it take?",)


@xcs.host
async def think(prompt: str, sample: int) -> str:
    await pause(0.03, prompt, sample)
    answer = 165 if digest(prompt, sample) % 4 else 225
    return f"{text(prompt, sample)}.\nAnswer: {answer} minutes"


@xcs.host
async def explain(question: str, answer: str) -> str:
    await pause(0.03, question, answer)
    return f"It is {answer}, since {text(question, answer)}."


def prompt_for(question: str) -> str:
    return f"Think step by step, then write 'Answer:' and the answer.\n\nQuestion: {question}\n"


def final_answer(reply: str) -> str:
    match = re.search(r"Answer:\s*(\d+)", reply)
    return match.group(1) if match else ""


def program(question: str) -> dict[str, object]:
    replies = []
    for sample in range(SAMPLES):
        replies.append(think(prompt_for(question), sample))  # noqa: PERF401  (as people write it)
    votes = Counter(final_answer(reply) for reply in replies)
    answer, count = votes.most_common(1)[0]
    if count <= SAMPLES // 2:
        return {"answer": None, "votes": dict(votes)}
    why = explain(question, answer)
    return {"answer": answer, "confidence": count / SAMPLES, "why": why, "votes": dict(votes)}


async def by_hand(question: str) -> dict[str, object]:
    prompt = prompt_for(question)
    replies = await asyncio.gather(*(awaited(think, prompt, k) for k in range(SAMPLES)))
    votes = Counter(final_answer(reply) for reply in replies)
    answer, count = votes.most_common(1)[0]
    if count <= SAMPLES // 2:
        return {"answer": None, "votes": dict(votes)}
    why = await awaited(explain, question, answer)
    return {"answer": answer, "confidence": count / SAMPLES, "why": why, "votes": dict(votes)}
