"""Map and reduce: chunks are summed up, then summaries four at a time, until one is left."""

from __future__ import annotations

import asyncio
from typing import Any

import ember_xcs as xcs
from benchmarks.compound.mocks import awaited, pause, text

CHUNK, GROUP = 60, 4
ARGUMENTS = (" ".join(text("book", k, words=12) for k in range(14)),)


@xcs.host
async def summarise(passage: str, words: int = 5) -> str:
    await pause(0.03, passage, words)
    return text(passage, words=words)


@xcs.host
async def title_of(summary: str) -> str:
    await pause(0.02, summary)
    return text("title", summary, words=2)


def chunks(document: str) -> list[str]:
    return [document[start : start + CHUNK] for start in range(0, len(document), CHUNK)]


def program(document: str) -> dict[str, Any]:
    notes = [summarise(chunk) for chunk in chunks(document)]
    parts = len(notes)
    level = 0
    while len(notes) > 1:
        level += 1
        merged = []
        for start in range(0, len(notes), GROUP):
            group = notes[start : start + GROUP]
            passage = "\n".join(f"- {note}" for note in group)
            merged.append(summarise(f"Merge (level {level}):\n{passage}", words=8))
        notes = merged
    title = title_of(notes[0])
    return {"title": title.title(), "summary": notes[0], "parts": parts}


async def by_hand(document: str) -> dict[str, Any]:
    async def merge(level: int, group: list[asyncio.Task[str]]) -> str:
        passage = "\n".join([f"- {await note}" for note in group])
        return await awaited(summarise, f"Merge (level {level}):\n{passage}", words=8)

    async with asyncio.TaskGroup() as tasks:
        notes = [tasks.create_task(awaited(summarise, chunk)) for chunk in chunks(document)]
        parts, level = len(notes), 0
        while len(notes) > 1:
            level += 1
            notes = [
                tasks.create_task(merge(level, notes[start : start + GROUP]))
                for start in range(0, len(notes), GROUP)
            ]
        summary = await notes[0]
        title = await awaited(title_of, summary)
    return {"title": title.title(), "summary": summary, "parts": parts}
