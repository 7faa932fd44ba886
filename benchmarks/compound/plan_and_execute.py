"""Plan and execute (Kim et al. 2024): a plan of tool calls, each with the results that it needs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import ember_xcs as xcs
from benchmarks.compound.mocks import awaited, digest, pause, sleep, text

ARGUMENTS = ("Plan a weekend in Lisbon for two, by train from Porto, below 400 euros.",)

STEPS = [
    {"id": "trains", "tool": "search", "input": "trains from Porto to Lisbon"},
    {"id": "hotels", "tool": "search", "input": "hotels in Lisbon"},
    {"id": "weather", "tool": "forecast", "input": "Lisbon"},
    {"id": "museums", "tool": "search", "input": "museums open if {weather}"},
    {"id": "fare", "tool": "extract", "input": "the fare in: {trains}"},
    {"id": "rate", "tool": "extract", "input": "the nightly rate in: {hotels}"},
    {"id": "total", "tool": "calculate", "input": "2 * {fare} + 2 * {rate}"},
    {"id": "route", "tool": "search", "input": "route from {hotels} to {museums}"},
]


@xcs.host
async def make_plan(goal: str) -> str:
    await pause(0.03, goal)
    return json.dumps({"goal": goal, "steps": STEPS})


@xcs.host
def search(query: str) -> str:
    sleep(0.04, query)
    return text(query)


@xcs.host
def forecast(place: str) -> str:
    sleep(0.02, place)
    return text("weather", place, words=1)


@xcs.host
async def extract(request: str) -> str:
    await pause(0.02, request)
    return str(20 + digest(request) % 60)


@xcs.host
def calculate(expression: str) -> str:
    sleep(0.01, expression)
    left, right = (part.split("*") for part in expression.split("+"))
    return str(int(left[0]) * int(left[1]) + int(right[0]) * int(right[1]))


@xcs.host
async def answer(goal: str, notes: str) -> str:
    await pause(0.03, goal, notes)
    return text(goal, notes, words=10)


TOOLS = {"search": search, "forecast": forecast, "extract": extract, "calculate": calculate}


def program(goal: str) -> dict[str, Any]:
    plan = json.loads(make_plan(goal))
    results: dict[str, str] = {}
    for step in plan["steps"]:
        tool = TOOLS[step["tool"]]
        results[step["id"]] = tool(step["input"].format(**results))
    notes = "\n".join(f"{name}: {result}" for name, result in results.items())
    summary = answer(plan["goal"], notes)
    if int(results["total"]) > 400:
        summary = f"Too dear! {summary}"
    return {"answer": summary, "results": results}


async def by_hand(goal: str) -> dict[str, Any]:
    plan = json.loads(await awaited(make_plan, goal))
    running: dict[str, asyncio.Task[str]] = {}

    async def perform(step: dict[str, str]) -> str:
        needed = {n: await running[n] for n in running if f"{{{n}}}" in step["input"]}
        return await awaited(TOOLS[step["tool"]], step["input"].format(**needed))

    async with asyncio.TaskGroup() as tasks:
        for step in plan["steps"]:
            running[step["id"]] = tasks.create_task(perform(step))
    results = {name: task.result() for name, task in running.items()}
    notes = "\n".join(f"{name}: {result}" for name, result in results.items())
    summary = await awaited(answer, plan["goal"], notes)
    if int(results["total"]) > 400:
        summary = f"Too dear! {summary}"
    return {"answer": summary, "results": results}
