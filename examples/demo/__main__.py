"""Answers questions from the Python language reference: ``python -m examples.demo "question" ...``

The reference that every Python carries is cut into passages. MiniLM chooses those that mean what
was asked, SmolLM2 writes several drafts from each of them as one batch, and the best is chosen by
how sure the model was, by a judge and by how near the answer is to the question. Both models run
here, in JAX; nothing is sent anywhere.

With ``EMBER_XCS_BASE_URL`` and ``EMBER_XCS_MODEL`` set, the same program asks a model on a server
that speaks OpenAI's protocol (its key is in ``OPENAI_API_KEY``).
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Sequence
from pydoc_data.topics import topics
from typing import Any

import ember_xcs as xcs
from ember_xcs import models
from examples.demo import report
from examples.demo.answering import READ, make_answering
from examples.demo.language import Language, local_language, remote_language
from examples.demo.library import load_library

QUESTIONS = (
    "What is the difference between a list and a tuple?",
    "What does the nonlocal statement do?",
)
BASE_URL, MODEL = "EMBER_XCS_BASE_URL", "EMBER_XCS_MODEL"


def main(arguments: Sequence[str] | None = None) -> None:
    """Answers the questions on the command line, or two of our own."""
    parsed = _parse(arguments)
    begun = time.perf_counter()
    library = load_library()
    language = _language(parsed)
    embedder = None if parsed.fast else models.MiniLM()
    program = make_answering(library, language, embedder, parsed.samples)
    print(
        f"The Python {platform.python_version()} language reference: {len(topics)} documents, "
        f"{len(library.passages)} passages.\nPassages are found by their words"
        f"{', and chosen by MiniLM' if embedder else ''}. Drafts are written and judged by\n"
        f"{language.name}. Ready after {time.perf_counter() - begun:.1f} s. The first answer takes "
        "longer: it is compiled.\n"
    )
    for question in parsed.questions:
        _answer(program, question, parsed.seed, parsed.samples)
    _show(program, parsed.questions[-1], parsed.seed)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo",
        description="Answers from the Python language reference, by a language model.",
        epilog=f"{BASE_URL} and {MODEL} name a model on a server, in place of the local one.",
    )
    parser.add_argument("questions", nargs="*", metavar="question", help="in quotation marks")
    parser.add_argument(
        "--fast", action="store_true", help="choose passages by their words alone, without MiniLM"
    )
    parser.add_argument(
        "--samples", type=int, default=4, help="drafts of each passage, from 1 to 8 (default: 4)"
    )
    parser.add_argument("--seed", type=int, default=0, help="what the drafts depend on")
    parsed = parser.parse_args(arguments)
    if not 1 <= parsed.samples <= 8:
        parser.error(f"--samples is {parsed.samples}; it is a number from 1 to 8")
    if not 0 <= parsed.seed < 2**31:
        parser.error(f"--seed is {parsed.seed}; it is a number from 0 to {2**31 - 1}")
    if not all(question.strip() for question in parsed.questions):
        parser.error("a question is empty; ask for example: 'What does yield do?'")
    server = [name for name in (BASE_URL, MODEL) if os.environ.get(name)]
    if len(server) == 1:
        parser.error(f"{server[0]} is set alone; set both {BASE_URL} and {MODEL}, or neither")
    parsed.server = bool(server)
    parsed.questions = parsed.questions or list(QUESTIONS)
    return parsed


def _language(parsed: argparse.Namespace) -> Language:
    if not parsed.server:
        return local_language(models.SmolLM2())
    key = os.environ.get("OPENAI_API_KEY")
    return remote_language(
        models.OpenAICompatible(os.environ[MODEL], os.environ[BASE_URL], api_key=key)
    )


def _answer(program: Any, question: str, seed: int, samples: int) -> None:
    begun = time.perf_counter()
    answer = program(question, seed)
    seconds = time.perf_counter() - begun
    report.print_best(question, answer, READ, samples, seconds)


def _show(program: Any, question: str, seed: int) -> None:
    """Prints what the program is made of, and one run of it."""
    lowered = program.lower(question, seed)
    report.print_heading("The regions: numeric operators, fused")
    report.print_regions(lowered.graph, lowered.regions)
    report.print_heading("One run, in milliseconds from its start")
    graph = program.graph(question, seed)
    inputs = dict(zip(graph.inputs, (question, seed), strict=True))
    options = xcs.ExecutionOptions(collect_metrics=True)
    result = xcs.execute_graph(graph, inputs, options=options)
    report.print_timeline(result.timeline, result.metrics.wall_seconds, width=40)


if __name__ == "__main__":
    try:
        main()
    except ImportError as error:  # the models are not installed: the message says how to
        sys.exit(str(error))
