"""What the demo prints: answers, the graph, its regions, a timeline, and times."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import ember_xcs as xcs
from examples.demo.answering import Answer as Written
from examples.demo.program import Answer
from examples.demo.readers import READERS

WIDTH = 96
LEAST_SCORE = 0.3
"""A best draft below this is no answer."""


def print_heading(title: str) -> None:
    """Prints the heading of a section."""
    print(f"\n{title} {'─' * (WIDTH - len(title) - 1)}\n")


def print_text(text: str, indent: str = "  ") -> None:
    """Prints paragraphs wrapped, and code and grammar as they are written."""
    for number, block in enumerate(text.split("\n\n")):
        verbatim = block.startswith(" ")
        print("\n" * bool(number), end="")
        print(textwrap.indent(block, indent) if verbatim else _wrapped(block, indent))


def _wrapped(text: str, indent: str, hanging: str = "") -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + hanging,
        break_on_hyphens=False,
    )


def print_answer(question: str, answer: Answer) -> None:
    """Prints a question, its answer, where it stands and who found it."""
    print(f"? {question}")
    draft, score = answer.draft, float(answer.score)
    if score < LEAST_SCORE:
        print(f"  No answer found: the best draft scores {score:.2f}, under {LEAST_SCORE:.2f}.\n")
        return
    reader = READERS[int(answer.reader)].__name__
    print_text(draft.text)
    source = textwrap.shorten(draft.source, 60, placeholder=" ...")
    print(f"  — {source}; by {reader}, score {score:.2f}\n")


def print_best(question: str, answer: Written, passages: int, samples: int, seconds: float) -> None:
    """Prints a question, the best draft, and what the others are worth."""
    print(f"? {question}")
    print_text(answer.best.text)
    source = textwrap.shorten(answer.best.source, 60, placeholder=" ...")
    scores = ", ".join(f"{score:.2f}" for score in sorted(answer.scores.tolist(), reverse=True))
    print(f"  — from {source}")
    print(f"  {passages} passages, {samples} drafts of each; their scores: {scores}")
    print(f"  {seconds:.1f} s\n")


def print_graph(graph: xcs.XCSGraph) -> None:
    """Prints the table of a graph, its long lines wrapped."""
    for line in graph.describe().splitlines():
        indent = " " * (len(line) - len(line.lstrip()))
        hanging = " " * 8 if indent else "  "
        short = len(line) <= WIDTH
        print(line if short else _wrapped_row(line, indent, hanging))


def _wrapped_row(line: str, indent: str, hanging: str) -> str:
    """Wraps a row of the table without closing up its columns."""
    kept = (
        line[len(indent) :]
        .replace("  ", "\N{NO-BREAK SPACE} ")
        .replace("  ", " \N{NO-BREAK SPACE}")
    )
    return _wrapped(kept, indent, hanging).replace("\N{NO-BREAK SPACE}", " ")


def print_regions(graph: xcs.XCSGraph, regions: Sequence[Sequence[str]]) -> None:
    """Prints which numeric operators were fused into which compiled program."""
    for number, nodes in enumerate(regions, 1):
        operators = [graph.nodes[node].operator for node in nodes]
        equations = [name for operator in operators for name in operator.equations]
        names = " + ".join(operator.name.replace("+", " + ") for operator in operators)
        if names == "numeric":
            names = f"host values chosen by {', '.join(dict.fromkeys(equations))}"
        text = f"{number}  {', '.join(nodes)}: {names}; {len(equations)} equations, one XLA program"
        print(_wrapped(text, "  ", "   "))


def print_timeline(timeline: Sequence[xcs.TimelineEntry], seconds: float, width: int = 46) -> None:
    """Prints, for each node, when its calls ran, and how many."""
    by_node: dict[str, list[xcs.TimelineEntry]] = {}
    for entry in timeline:
        by_node.setdefault(", ".join(entry.node_ids), []).append(entry)
    name_width = max(map(len, by_node))
    for node, entries in by_node.items():
        start = min(entry.start_seconds for entry in entries)
        end = max(entry.end_seconds for entry in entries)
        first = min(int(width * start / seconds), width - 1)
        last = max(first + 1, round(width * end / seconds))
        bar = " " * first + "█" * (last - first)
        calls = f"x {len(entries)}" if entries[0].kind == "call" else "XLA"
        print(f"  {node:<{name_width}}  {calls:>4} ▕{bar:<{width}.{width}}▏{_span(start, end)}")


def _span(start: float, end: float) -> str:
    return f"{1e3 * start:6.1f} - {1e3 * end:.1f} ms"


@dataclass(frozen=True)
class Times:
    """How long the same work took, in seconds.

    Attributes:
        what: What was asked, and how.
        calls: How many calls of host operators it takes.
        sequential: As plain Python, one call after another.
        staged: As a staged function.
    """

    what: str
    calls: int
    sequential: float
    staged: float


def print_times(rows: Iterable[Times]) -> None:
    """Prints times side by side, and how many times faster the staged function was."""
    print(f"  {'':<48}{'calls':>5}{'sequential':>13}{'staged':>11}")
    for row in rows:
        ratio = f"{row.sequential / row.staged:8.1f} x"
        print(f"  {row.what:<48}{row.calls:>5}{row.sequential:>11.3f} s{row.staged:>9.3f} s{ratio}")


def print_columns(names: Iterable[str]) -> None:
    """Prints names as a paragraph."""
    print(textwrap.fill(", ".join(names), WIDTH, initial_indent="  ", subsequent_indent="  "))
