"""Quotes answers from the reference: ``python -m examples.demo.extractive "question" ...``

No model is needed: six readers look for answers in the passages.

The reference that every Python carries is cut into passages, embedded and scored in JAX. The best
passages are chosen by numbers, six readers draft answers from each of them at the same time, and a
numeric score over all drafts picks one. The whole is one staged function; several questions are a
batch of it, under ``vmap``.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pydoc_data.topics import topics
from typing import Any

import ember_xcs as xcs
from examples.demo import report
from examples.demo.library import load_library
from examples.demo.program import Program, ask, make_program

QUESTIONS = (
    "What does the nonlocal statement do?",
    "What is the difference between a list and a tuple?",
    "What is the syntax of a lambda expression?",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Answers the questions on the command line, or three of our own."""
    parsed = _parse(arguments)
    if parsed.list:
        report.print_columns(sorted(topics))
        return
    library = load_library()
    program = make_program(library, parsed.latency)
    passages, words = library.bm25.shape
    print(
        f"The Python {platform.python_version()} language reference: {len(topics)} documents, "
        f"{passages} passages, {words} terms."
    )
    print(_on_latency(parsed.latency))
    _answer(program, parsed.questions)
    _show(program, parsed.questions[0])
    _compare(program, parsed.questions, parsed.latency)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo.extractive",
        description="Quotes answers from the Python language reference.",
    )
    parser.add_argument(
        "questions", nargs="*", metavar="question", help="in quotation marks; several are a batch"
    )
    parser.add_argument(
        "--latency",
        type=float,
        default=0.05,
        metavar="SECONDS",
        help="how long each call of a reader waits, as if it were far away (default: 0.05)",
    )
    parser.add_argument("--list", action="store_true", help="list the documents of the reference")
    parsed = parser.parse_args(arguments)
    if not (math.isfinite(parsed.latency) and 0 <= parsed.latency <= 10):
        parser.error(f"--latency is {parsed.latency:g}; it is a number of seconds from 0 to 10")
    if not all(question.strip() for question in parsed.questions):
        parser.error("a question is empty; ask for example: 'What does yield do?'")
    parsed.questions = parsed.questions or list(QUESTIONS)
    return parsed


def _on_latency(seconds: float) -> str:
    if not seconds:
        return "The readers are local: no latency is simulated."
    return (
        f"Simulated latency: each call of a reader waits {1e3 * seconds:g} ms, as a call to a "
        "remote model would.\nNothing else is simulated. --latency 0 turns the waiting off."
    )


def _answer(program: Program, questions: Sequence[str]) -> None:
    report.print_heading("Answers")
    for question, answer in zip(questions, ask(program, questions), strict=True):
        report.print_answer(question, answer)


def _show(program: Program, question: str) -> None:
    """Prints what the program is made of, and one run of it."""
    lowered = program.one.lower(question)
    report.print_heading("The graph of one question")
    report.print_graph(lowered.graph)
    report.print_heading("The regions: numeric operators, fused")
    report.print_regions(lowered.graph, lowered.regions)
    report.print_heading("One run, in milliseconds from its start")
    result = _measured_run(program, [question])
    report.print_timeline(result.timeline, result.metrics.wall_seconds)


def _compare(program: Program, questions: Sequence[str], latency: float) -> None:
    """Prints the times of the same operators, called one after another and staged."""
    report.print_heading("Time: plain Python, one call after another, and staged")
    waiting = f"{1e3 * latency:g} ms of simulated latency" if latency else "no latency"
    local = make_program(load_library()) if latency else program
    rows = [_times("one question, no latency", local, questions[:1], repeat=5)]
    if latency:
        rows.append(_times(f"one question, {waiting}", program, questions[:1]))
    if len(questions) > 1:
        rows.append(_times(f"{len(questions)} questions by vmap, {waiting}", program, questions))
    report.print_times(rows)


def _times(what: str, program: Program, questions: Sequence[str], repeat: int = 1) -> report.Times:
    result = _measured_run(program, questions)
    sequential = [_seconds(lambda: [program.plain(q) for q in questions]) for _ in range(repeat)]
    staged = [_seconds(lambda: ask(program, questions)) for _ in range(max(repeat, 3))]
    calls = result.metrics.calls["call"]
    return report.Times(what, calls, statistics.median(sequential), statistics.median(staged))


def _measured_run(program: Program, questions: Sequence[str]) -> xcs.ExecutionResult:
    """Runs the graph of the program with every call measured, once it is compiled."""
    if len(questions) == 1:
        graph = program.one.graph(questions[0])
    else:
        graph = program.batch.graph(list(questions))
    inputs = dict(zip(graph.inputs, questions, strict=True))
    xcs.execute_graph(graph, inputs)
    return xcs.execute_graph(graph, inputs, options=xcs.ExecutionOptions(collect_metrics=True))


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
