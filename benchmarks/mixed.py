"""A staged program of host calls and numeric code, against its critical path.

Eight answers are asked for at once (100 ms each), each is embedded on the host as soon as it is
there (50 ms), the embeddings are scored, and the best answer is chosen.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

import ember_xcs as xcs
from benchmarks.harness import Row, compare, duration, ratio_row

ASK_SECONDS, EMBED_SECONDS, SAMPLES = 0.1, 0.05, 8
BAR = 1.05
VECTOR = jax.ShapeDtypeStruct((16,), jnp.float32)


@xcs.host
def ask(question: str, sample: int) -> str:
    time.sleep(ASK_SECONDS)
    return f"{question} {sample}"


@xcs.host(out=VECTOR)
def embed(text: str) -> np.ndarray:
    time.sleep(EMBED_SECONDS)
    return np.full(16, len(text) % 7 + int(text.split()[-1]), np.float32)


def scores(vectors: jax.Array) -> jax.Array:
    return jax.nn.softmax(vectors @ vectors.mean(axis=0))


def best_of(question: str) -> str:
    answers = jax.vmap(lambda sample: ask(question, sample))(jnp.arange(SAMPLES))
    vectors = jax.vmap(embed)(answers)
    return answers[jnp.argmax(scores(vectors))]


def staged() -> Callable[[str], str]:
    return xcs.jit.trace(best_of)


def critical_path() -> None:
    time.sleep(ASK_SECONDS)
    time.sleep(EMBED_SECONDS)


def first_call() -> float:
    """The time of the very first call, in seconds; for a new process."""
    jax.block_until_ready(jnp.zeros(1) + 1)  # JAX's own start is not ours
    function = staged()
    start = time.perf_counter()
    assert function("why?") == "why? 7"
    return time.perf_counter() - start


def compiles() -> float:
    """The time that JAX needs to stage and compile the numeric parts, in seconds; likewise."""
    jax.block_until_ready(jnp.zeros(1) + 1)
    samples = jnp.arange(SAMPLES)
    start = time.perf_counter()
    jax.block_until_ready(jax.jit(lambda: jnp.arange(SAMPLES))())
    before = time.perf_counter() - start
    vectors = jnp.ones((SAMPLES, 16)) * samples[:, None]
    start = time.perf_counter()
    jax.block_until_ready(jax.jit(lambda v: jnp.argmax(scores(v)))(vectors))
    return before + time.perf_counter() - start


def in_new_process(name: str, repeats: int) -> float:
    """The median of a function of this module, each time in a new process."""
    command = f"from benchmarks import mixed; print(mixed.{name}())"
    found = [
        float(
            subprocess.run([sys.executable, "-c", command], capture_output=True, check=True).stdout
        )
        for _ in range(repeats)
    ]
    return float(np.median(found))


def rows(quick: bool = False) -> Iterator[Row]:
    function = staged()
    assert function("why?") == "why? 7"
    sides = {"staged": lambda: function("why?"), "critical path": critical_path}
    times = compare(3 if quick else 21, sides)
    yield ratio_row("mixed program, second call", times, "staged", "critical path", BAR)
    repeats = 3 if quick else 7
    first, compiling = in_new_process("first_call", repeats), in_new_process("compiles", repeats)
    path = ASK_SECONDS + EMBED_SECONDS
    yield Row(
        "mixed program, first call / critical path",
        first / path,
        detail=f"{duration(first)} / {duration(path)}",
    )
    yield Row(
        "mixed program, first call, beyond the critical path",
        (first - path) * 1e3,
        unit="ms",
        detail=f"jax.jit of the numeric parts alone: {duration(compiling)}",
    )
