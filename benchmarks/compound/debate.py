"""Debate with a judge (Du et al. 2023): both sides speak each round, three judges score them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import ember_xcs as xcs
from benchmarks.compound.mocks import awaited, digest, pause, sleep, text

ROUNDS = 3
SIDES = ("for", "against")
JUDGES = ("logic", "evidence", "style")
ARGUMENTS = ("Cities should ban private cars.",)


@xcs.host
def search(query: str) -> list[str]:
    sleep(0.02, query)
    return [text(query, k, words=4) for k in range(3)]


@xcs.host
async def argue(prompt: str) -> str:
    await pause(0.03, prompt)
    return text(prompt)


@xcs.host
async def judge(aspect: str, transcript: str) -> str:
    await pause(0.03, aspect, transcript)
    number = digest(aspect, transcript)
    return json.dumps({"for": number % 10, "against": number // 10 % 10, "why": text(number)})


@xcs.host
async def conclude(motion: str, reasons: str) -> str:
    await pause(0.03, motion, reasons)
    return text(motion, reasons, words=10)


def speech_prompt(motion: str, side: str, facts: list[str], transcript: list[str]) -> str:
    said = "\n".join(transcript) or "(nothing yet)"
    listed = "; ".join(facts)
    return f"Motion: {motion}\nYou speak {side} it. Facts: {listed}\nSo far:\n{said}\nYour turn:"


def program(motion: str) -> dict[str, Any]:
    facts = {side: search(f"arguments {side}: {motion}") for side in SIDES}
    transcript: list[str] = []
    for turn in range(ROUNDS):
        speeches = {}
        for side in SIDES:
            speeches[side] = argue(speech_prompt(motion, side, facts[side], transcript))
        for side, speech in speeches.items():
            transcript.append(f"[{turn + 1}] {side}: {speech}")
    whole = "\n".join(transcript)
    verdicts = [json.loads(judge(aspect, whole)) for aspect in JUDGES]
    totals = {side: sum(verdict[side] for verdict in verdicts) for side in SIDES}
    if totals["for"] == totals["against"]:
        return {"winner": None, "totals": totals}
    reasons = "\n".join(f"{a}: {v['why']}" for a, v in zip(JUDGES, verdicts, strict=True))
    winner = max(totals, key=lambda side: totals[side])
    return {"winner": winner, "totals": totals, "conclusion": conclude(motion, reasons)}


async def by_hand(motion: str) -> dict[str, Any]:
    found = await asyncio.gather(*(awaited(search, f"arguments {s}: {motion}") for s in SIDES))
    facts = dict(zip(SIDES, found, strict=True))
    transcript: list[str] = []
    for turn in range(ROUNDS):
        prompts = [speech_prompt(motion, side, facts[side], transcript) for side in SIDES]
        speeches = await asyncio.gather(*(awaited(argue, prompt) for prompt in prompts))
        for side, speech in zip(SIDES, speeches, strict=True):
            transcript.append(f"[{turn + 1}] {side}: {speech}")
    whole = "\n".join(transcript)
    replies = await asyncio.gather(*(awaited(judge, aspect, whole) for aspect in JUDGES))
    verdicts = [json.loads(reply) for reply in replies]
    totals = {side: sum(verdict[side] for verdict in verdicts) for side in SIDES}
    if totals["for"] == totals["against"]:
        return {"winner": None, "totals": totals}
    reasons = "\n".join(f"{a}: {v['why']}" for a, v in zip(JUDGES, verdicts, strict=True))
    winner = max(totals, key=lambda side: totals[side])
    conclusion = await awaited(conclude, motion, reasons)
    return {"winner": winner, "totals": totals, "conclusion": conclusion}
