"""A report: an outline; each section is researched, written and checked; then an introduction."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass
from typing import Any

import ember_xcs as xcs
from benchmarks.compound.mocks import awaited, digest, pause, sleep, text

ARGUMENTS = ("Heat pumps in old houses",)


@dataclass
class Section:
    heading: str
    body: str
    doubts: int


@xcs.host
async def outline(topic: str) -> str:
    await pause(0.03, topic)
    return json.dumps({"headings": [text(topic, k, words=2) for k in range(5)]})


@xcs.host
def research(query: str) -> list[str]:
    sleep(0.03, query)
    return [text(query, k, words=5) for k in range(3)]


@xcs.host
async def write(prompt: str) -> str:
    await pause(0.04, prompt)
    return text(prompt, words=12)


@xcs.host
async def check(body: str, source: str) -> int:
    await pause(0.02, body, source)
    return digest(body, source) % 2


@xcs.host
async def introduce(topic: str, bodies: str) -> str:
    await pause(0.03, topic, bodies)
    return text(topic, bodies, words=8)


def section(topic: str, heading: str) -> Section:
    sources = research(f"{topic}: {heading}")
    listed = "\n".join(sources)
    body = write(f"Write about {heading!r}, for a report on {topic}, from these:\n{listed}")
    doubts = check(body, listed) + check(body.lower(), heading)
    return Section(heading, body, doubts)


def program(topic: str) -> dict[str, Any]:
    headings = json.loads(outline(topic))["headings"]
    sections = [section(topic, heading) for heading in headings]
    opening = introduce(topic, "\n\n".join(s.body for s in sections))
    parts = [f"## {s.heading.title()}\n\n{s.body}" for s in sections]
    return {
        "report": "\n\n".join([f"# {topic}", opening, *parts]),
        "doubtful": [s.heading for s in sections if s.doubts > 1],
        "sections": [asdict(s) for s in sections],
    }


async def by_hand(topic: str) -> dict[str, Any]:
    async def written(heading: str) -> tuple[str, str]:
        listed = "\n".join(await awaited(research, f"{topic}: {heading}"))
        prompt = f"Write about {heading!r}, for a report on {topic}, from these:\n{listed}"
        return listed, await awaited(write, prompt)

    async def checked(heading: str, text: asyncio.Task[tuple[str, str]]) -> Section:
        listed, body = await text
        doubts = await asyncio.gather(
            awaited(check, body, listed), awaited(check, body.lower(), heading)
        )
        return Section(heading, body, sum(doubts))

    headings = json.loads(await awaited(outline, topic))["headings"]
    async with asyncio.TaskGroup() as tasks:
        texts = [tasks.create_task(written(heading)) for heading in headings]
        checks = [
            tasks.create_task(checked(heading, found))
            for heading, found in zip(headings, texts, strict=True)
        ]
        bodies = [(await found)[1] for found in texts]
        opening = await awaited(introduce, topic, "\n\n".join(bodies))
    sections = [found.result() for found in checks]
    parts = [f"## {s.heading.title()}\n\n{s.body}" for s in sections]
    return {
        "report": "\n\n".join([f"# {topic}", opening, *parts]),
        "doubtful": [s.heading for s in sections if s.doubts > 1],
        "sections": [asdict(s) for s in sections],
    }
