"""A chain of prompts, each about the last answer: nothing overlaps, however it is run."""

from __future__ import annotations

import ember_xcs as xcs
from benchmarks.compound.mocks import awaited, pause, sleep, text

STYLES = ("plainly", "in one line", "for a child", "formally", "as a question")
ARGUMENTS = ("The mitochondrion is the powerhouse of the cell.",)


@xcs.host
async def rewrite(style: str, passage: str) -> str:
    await pause(0.005, style, passage)
    return text(style, passage)


@xcs.host
def spell(passage: str) -> str:
    sleep(0.003, passage)
    return passage.capitalize()


def program(passage: str) -> list[str]:
    versions = [passage]
    for style in STYLES * 2:
        prompt = f"Say it {style}: {versions[-1]}"
        corrected = spell(rewrite(style, prompt))
        if corrected in versions:
            break
        versions.append(corrected)
    return versions


async def by_hand(passage: str) -> list[str]:
    versions = [passage]
    for style in STYLES * 2:
        prompt = f"Say it {style}: {versions[-1]}"
        corrected = await awaited(spell, await awaited(rewrite, style, prompt))
        if corrected in versions:
            break
        versions.append(corrected)
    return versions
