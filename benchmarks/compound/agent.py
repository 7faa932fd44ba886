"""A chatty agent with a history: it calls tools until it answers, and each message is moderated."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import ember_xcs as xcs
from benchmarks.compound.mocks import awaited, digest, pause, sleep, text

TURNS = 6
ARGUMENTS = ("Which of our orders of last week are late, and why?",)

Message = dict[str, str]


@xcs.host
async def chat(messages: list[Message]) -> str:
    await pause(0.04, messages)
    if len(messages) >= 2 + 3 * 2:
        return json.dumps({"answer": text(messages, words=9)})
    inputs = [text(messages, k, words=2) for k in range(1 + digest(messages) % 3)]
    calls = [{"tool": ("orders", "carrier")[digest(i) % 2], "input": i} for i in inputs]
    return json.dumps({"thought": text(messages, words=3), "calls": calls})


@xcs.host
def orders(query: str) -> list[dict[str, Any]]:
    sleep(0.03, query)
    return [{"order": digest(query, k) % 100, "late": digest(query, k) % 2 == 0} for k in range(3)]


@xcs.host
def carrier(query: str) -> dict[str, Any]:
    sleep(0.03, query)
    return {"status": text(query, words=2)}


@xcs.host
async def moderate(message: str) -> bool:
    await pause(0.03, message)
    return digest(message) % 50 == 0


TOOLS = {"orders": orders, "carrier": carrier}


def program(question: str) -> dict[str, Any]:
    history = [{"role": "system", "content": "You help."}, {"role": "user", "content": question}]
    flags = [moderate(question)]
    for _ in range(TURNS):
        reply = chat(history)
        history.append({"role": "assistant", "content": reply})
        flags.append(moderate(reply))
        action = json.loads(reply)
        if "answer" in action:
            break
        results = {}
        for call in action["calls"]:
            results[call["input"]] = TOOLS[call["tool"]](call["input"])
        history.append({"role": "tool", "content": json.dumps(results)})
    else:
        action = {"answer": "I give up."}
    return {
        "answer": action["answer"],
        "flagged": any(flags),
        "turns": len(flags) - 1,
        "log": history,
    }


async def by_hand(question: str) -> dict[str, Any]:
    history = [{"role": "system", "content": "You help."}, {"role": "user", "content": question}]
    async with asyncio.TaskGroup() as tasks:
        flags = [tasks.create_task(awaited(moderate, question))]
        for _ in range(TURNS):
            reply = await awaited(chat, history)
            history.append({"role": "assistant", "content": reply})
            flags.append(tasks.create_task(awaited(moderate, reply)))
            action = json.loads(reply)
            if "answer" in action:
                break
            asked = action["calls"]
            found = await asyncio.gather(*(awaited(TOOLS[c["tool"]], c["input"]) for c in asked))
            results = {c["input"]: result for c, result in zip(asked, found, strict=True)}
            history.append({"role": "tool", "content": json.dumps(results)})
        else:
            action = {"answer": "I give up."}
    flagged = any(flag.result() for flag in flags)
    return {"answer": action["answer"], "flagged": flagged, "turns": len(flags) - 1, "log": history}
