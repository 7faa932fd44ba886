"""Triage of mail: each is sorted, and what is done next depends on it; the mails are independent.

A branch waits for what it asks, so the calls of one mail do not overlap with those after a branch
of the one before, unless the program says that the mails are independent: ``xcs.vmap(handle)``.
"""

from __future__ import annotations

import asyncio
from typing import Any

import ember_xcs as xcs
from benchmarks.compound.mocks import awaited, digest, pause, text

ARGUMENTS = ([text("mail", k, words=8) for k in range(8)],)


@xcs.host
async def classify(mail: str) -> str:
    await pause(0.03, mail)
    return ("complaint", "question", "spam")[digest(mail) % 3]


@xcs.host
async def reply_to(mail: str, tone: str) -> str:
    await pause(0.04, mail, tone)
    return text(mail, tone)


@xcs.host
async def is_polite(reply: str) -> bool:
    await pause(0.02, reply)
    return digest(reply) % 3 > 0


def handle(mail: str) -> dict[str, Any]:
    kind = classify(mail)
    if kind == "spam":
        return {"kind": kind, "reply": None}
    reply = reply_to(mail, "sorry" if kind == "complaint" else "friendly")
    if not is_polite(reply):
        reply = reply_to(mail, "very polite")
    return {"kind": kind, "reply": reply}


def program(mails: list[str]) -> list[dict[str, Any]]:
    return [handle(mail) for mail in mails]


async def by_hand(mails: list[str]) -> list[dict[str, Any]]:
    async def handled(mail: str) -> dict[str, Any]:
        kind = await awaited(classify, mail)
        if kind == "spam":
            return {"kind": kind, "reply": None}
        reply = await awaited(reply_to, mail, "sorry" if kind == "complaint" else "friendly")
        if not await awaited(is_polite, reply):
            reply = await awaited(reply_to, mail, "very polite")
        return {"kind": kind, "reply": reply}

    return await asyncio.gather(*(handled(mail) for mail in mails))
