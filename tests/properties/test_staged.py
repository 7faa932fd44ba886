"""A staged function gives what the same steps give in plain Python, where vmap is a loop."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from hypothesis import given, settings
from hypothesis import strategies as st

import ember_xcs as xcs
from tests.properties.graphs import Calls, mixed, plain

SIZE = 3


class Operators:
    """Host operators that count their calls."""

    def __init__(self) -> None:
        self.calls = calls = Calls()

        @xcs.host
        def score(value: int) -> int:
            calls.note("score")
            return mixed(value, 1)

        @xcs.host
        async def rate(text: str) -> int:
            calls.note("rate")
            return mixed(len(text), int(text[1:]))

        @xcs.host
        def write(value: int, other: int) -> str:
            calls.note("write")
            return f"t{mixed(value, other)}"

        self.score, self.rate, self.write = score, rate, write


@dataclasses.dataclass(frozen=True)
class Step:
    """One step: what it does, with which earlier values."""

    kind: str
    reads: tuple[int, ...]


# What each kind of step reads and gives: a number, a text, or several of them.
KINDS: dict[str, tuple[tuple[str, ...], str]] = {
    "add": (("number", "number"), "number"),
    "score": (("number",), "number"),
    "rate": (("text",), "number"),
    "write": (("number", "number"), "text"),
    "spread": (("number", "number"), "numbers"),
    "map_add": (("numbers", "number"), "numbers"),
    "map_score": (("numbers",), "numbers"),
    "map_write": (("numbers", "number"), "texts"),
    "map_rate": (("texts",), "numbers"),
    "map_chain": (("numbers", "number"), "numbers"),
    "sum": (("numbers",), "number"),
    "pick": (("numbers",), "number"),
    "best": (("texts", "numbers"), "text"),
    "sorted": (("texts", "numbers"), "texts"),
    "choose": (("number", "text", "text"), "text"),
}


class Staged:
    """The steps as JAX sees them."""

    def __init__(self, operators: Operators) -> None:
        self.op = operators

    def add(self, x, y):
        return mixed(x, y)

    def score(self, x):
        return self.op.score(x)

    def rate(self, text):
        return self.op.rate(text)

    def write(self, x, y):
        return self.op.write(x, y)

    def spread(self, x, y):
        return jax.vmap(lambda k: mixed(x, y, k))(jnp.arange(SIZE))

    def map_add(self, xs, y):
        return jax.vmap(mixed, (0, None))(xs, y)

    def map_score(self, xs):
        return jax.vmap(self.op.score)(xs)

    def map_write(self, xs, y):
        return jax.vmap(self.op.write, (0, None))(xs, y)

    def map_rate(self, texts):
        return jax.vmap(self.op.rate)(texts)

    def map_chain(self, xs, y):
        return jax.vmap(lambda x: mixed(self.op.rate(self.op.write(mixed(x, y), x)), x))(xs)

    def sum(self, xs):
        return jnp.sum(xs) % 10_007

    def pick(self, xs):
        return xs[1]

    def best(self, texts, xs):
        return texts[jnp.argmax(xs)]

    def sorted(self, texts, xs):
        return texts[jnp.argsort(-xs, stable=True)]

    def choose(self, x, one, other):
        return jnp.where(x % 2 == 0, one, other)


class Eager(Staged):
    """The steps as plain Python: lists and loops."""

    def spread(self, x, y):
        return [mixed(x, y, k) for k in range(SIZE)]

    def map_add(self, xs, y):
        return [mixed(x, y) for x in xs]

    def map_score(self, xs):
        return [self.op.score(x) for x in xs]

    def map_write(self, xs, y):
        return [self.op.write(x, y) for x in xs]

    def map_rate(self, texts):
        return [self.op.rate(text) for text in texts]

    def map_chain(self, xs, y):
        return [mixed(self.op.rate(self.op.write(mixed(x, y), x)), x) for x in xs]

    def sum(self, xs):
        return sum(xs) % 10_007

    def best(self, texts, xs):
        return texts[xs.index(max(xs))]

    def sorted(self, texts, xs):
        return [texts[k] for k in sorted(range(SIZE), key=lambda k: -xs[k])]

    def choose(self, x, one, other):
        return one if x % 2 == 0 else other


@st.composite
def programs(draw: st.DrawFn, max_steps: int = 10) -> tuple[list[Step], list[int]]:
    """Steps over two numbers, and which values are returned."""
    types = ["number", "number"]
    steps = []
    for _ in range(draw(st.integers(1, max_steps))):
        possible = [kind for kind, (reads, _) in KINDS.items() if set(reads) <= set(types)]
        kind = draw(st.sampled_from(possible))
        reads, gives = KINDS[kind]
        steps.append(
            Step(
                kind,
                tuple(
                    draw(st.sampled_from([k for k, found in enumerate(types) if found == wanted]))
                    for wanted in reads
                ),
            )
        )
        types.append(gives)
    returned = draw(st.lists(st.integers(0, len(types) - 1), min_size=1, max_size=4))
    return steps, returned


def run(machine: Staged, case: tuple[list[Step], list[int]], a: Any, b: Any) -> list[Any]:
    steps, returned = case
    values = [a, b]
    for step in steps:
        values.append(getattr(machine, step.kind)(*(values[k] for k in step.reads)))
    return [values[k] for k in returned]


@given(programs(), st.sampled_from(["sequential", "parallel", "auto"]))
@settings(max_examples=40)
def test_staged_is_eager(case, scheduler) -> None:
    operators = Operators()
    expected = run(Eager(operators), case, 2, 3)
    counts = operators.calls.counts.copy()
    staged = xcs.jit.trace(lambda a, b: run(Staged(operators), case, a, b))
    for again in range(2):
        operators.calls.counts.clear()
        with xcs.execution_options(scheduler=scheduler):
            assert plain(staged(2, 3)) == expected, again
        assert operators.calls.counts == counts


@given(programs(max_steps=6), st.sampled_from([0, None]))
@settings(max_examples=30)
def test_staged_under_vmap_is_a_loop(case, axis) -> None:
    operators = Operators()
    lanes = [2, 5, 9]
    rows = [run(Eager(operators), case, a, 3 if axis is None else a) for a in lanes]
    expected = [list(column) for column in zip(*rows, strict=True)]
    numbers = jnp.array(lanes)

    @xcs.jit.trace
    def mapped(a, b):
        return jax.vmap(lambda a, b: run(Staged(operators), case, a, b), (0, axis))(a, b)

    result = mapped(numbers, 3 if axis is None else numbers)
    assert plain(result) == expected


@given(programs(max_steps=8))
@settings(max_examples=20)
def test_the_graph_of_a_staged_function_gives_the_same_without_passes(case) -> None:
    operators = Operators()
    expected = run(Eager(operators), case, 2, 3)
    staged = xcs.jit.trace(lambda a, b: run(Staged(operators), case, a, b))
    for passes in ((), ("fusion",), ("common_subexpressions", "dead_nodes")):
        with xcs.execution_options(passes=passes):
            assert plain(staged(2, 3)) == expected
