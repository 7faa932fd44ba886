"""Retrieval with reranking and citations: queries, documents, scores, quotes, an answer."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import ember_xcs as xcs
from benchmarks.compound.mocks import awaited, digest, pause, sleep, text

KEPT = 4
ARGUMENTS = ("Why did the bridge at Tacoma fall?",)


@dataclass(frozen=True)
class Document:
    id: str
    body: str


@xcs.host
async def rewrite(question: str) -> str:
    await pause(0.03, question)
    return json.dumps([f"{question} {text(question, k, words=2)}" for k in range(3)])


@xcs.host
def search(query: str) -> list[Document]:
    sleep(0.03, query)
    numbers = {digest(query, k) % 17 for k in range(5)}
    return [Document(f"d{number}", text("document", number, words=9)) for number in sorted(numbers)]


@xcs.host
async def relevance(question: str, passage: str) -> float:
    await pause(0.02, question, passage)
    return digest(question, passage) % 1000 / 1000


@xcs.host
async def quote(question: str, passage: str) -> str:
    await pause(0.02, question, passage)
    return " ".join(passage.split()[:4])


@xcs.host
async def write(prompt: str) -> str:
    await pause(0.04, prompt)
    return f"{text(prompt, words=9)} [1] [3]."


def answer_prompt(question: str, quotes: list[str]) -> str:
    sources = "\n".join(f"[{n}] {found}" for n, found in enumerate(quotes, 1))
    return f"Answer with citations.\n\nSources:\n{sources}\n\nQuestion: {question}"


def program(question: str) -> dict[str, Any]:
    queries = [question, *json.loads(rewrite(question))]
    documents = {}
    for found in [search(query) for query in queries]:
        for document in found:
            documents[document.id] = document
    scores = {key: relevance(question, d.body) for key, d in documents.items()}
    ranked = sorted(documents.values(), key=lambda d: (-scores[d.id], d.id))[:KEPT]
    quotes = [quote(question, document.body) for document in ranked]
    answer = write(answer_prompt(question, quotes))
    cited = [d.id for n, d in enumerate(ranked, 1) if f"[{n}]" in answer]
    return {"answer": answer, "cited": cited, "found": len(documents)}


async def by_hand(question: str) -> dict[str, Any]:
    ratings: dict[str, asyncio.Task[float]] = {}

    async def find(query: str) -> list[Document]:
        found = await awaited(search, query)
        for d in found:  # rated as soon as it is found, while other searches go on
            if d.id not in ratings:
                ratings[d.id] = tasks.create_task(awaited(relevance, question, d.body))
        return found

    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(find(question))
        more = json.loads(await awaited(rewrite, question))
        searches = [first, *(tasks.create_task(find(query)) for query in more)]
    documents = {d.id: d for found in searches for d in found.result()}
    scores = {key: rating.result() for key, rating in ratings.items()}
    ranked = sorted(documents.values(), key=lambda d: (-scores[d.id], d.id))[:KEPT]
    quotes = await asyncio.gather(*(awaited(quote, question, d.body) for d in ranked))
    answer = await awaited(write, answer_prompt(question, quotes))
    cited = [d.id for n, d in enumerate(ranked, 1) if f"[{n}]" in answer]
    return {"answer": answer, "cited": cited, "found": len(documents)}
