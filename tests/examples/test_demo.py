"""The demo: what it finds, that its three forms agree, and what it prints."""

import re
import time

import numpy as np
import pytest

from examples.demo import numeric
from examples.demo.corpus import load_passages
from examples.demo.extractive import main
from examples.demo.library import Library, load_library
from examples.demo.program import Answer, Program, ask, make_program
from examples.demo.readers import READERS
from examples.demo.report import LEAST_SCORE
from examples.demo.text import question_terms, quote_code, terms

# The question, the document that answers it, and a part of the answer.
KNOWN = [
    ("What does nonlocal do?", "nonlocal", "nearest enclosing scope"),
    ("What is the syntax of a lambda expression?", "lambda", 'lambda_expr ::= "lambda"'),
    ("When is __del__ called?", "customization", "about to be destroyed"),
    ("How are dictionary displays evaluated?", "dict", "from left to right"),
    ("How are default parameter values evaluated?", "function", "from left to right"),
    ("What does str.strip do?", "string-methods", "leading and trailing characters removed"),
    ("What does pass do?", "pass", "null operation"),
    ("What is the difference between a list and a tuple?", "typesseq", "Tuples are immutable"),
    ("What is the difference between is and ==?", "comparisons", "the same object"),
    ("What does dict.get return?", "typesmapping", "else default"),
    ("Can I use await outside a coroutine?", "async", "in the body of a coroutine function"),
]
NONSENSE = ["How do I make pizza?", "Who won the world cup in 2010?", "Blorf snarg quux?"]
QUESTIONS = [question for question, *_ in KNOWN]


@pytest.fixture(scope="module")
def library() -> Library:
    return load_library()


@pytest.fixture(scope="module")
def program(library: Library) -> Program:
    return make_program(library)


def _same(one: Answer, other: Answer) -> bool:
    alike = (one.draft.text, one.draft.source) == (other.draft.text, other.draft.source)
    return alike and int(one.reader) == int(other.reader) and bool(
        np.allclose([one.score, one.share], [other.score, other.share], rtol=1e-4, atol=1e-6)
    )  # fmt: skip


def test_the_passages_are_cut_from_the_whole_reference_and_kept_once() -> None:
    passages = load_passages()
    texts = [re.sub(r"\W+", " ", passage.text) for passage in passages]
    assert len(texts) == len(set(texts)) > 400
    assert not [passage.source for passage in passages if len(passage.text) > 5000]


def test_prose_is_free_of_markup() -> None:
    (nonlocal_,) = [
        p for p in load_passages() if p.source.startswith("nonlocal") and "::=" in p.text
    ]
    prose = [line for line in nonlocal_.text.split("\n\n") if not line.startswith(" ")]
    assert prose
    assert not [line for line in prose if "\n" in line or "**" in line]


def test_words_of_python_are_told_from_words_of_english() -> None:
    assert quote_code("What is the difference between is and ==?") == (
        "What is the difference between `is` and ==?"
    )
    assert question_terms("What does the with statement do?") == ['"with"', "statement"]
    assert terms("It is with us") == []


def _bm25(documents: list[list[str]], query: list[str], k1: float = 1.2, b: float = 0.75):
    """BM25 from its definition, a term at a time."""
    length = np.array([len(document) for document in documents])
    scores = np.zeros(len(documents))
    for term in set(query):
        frequency = np.array([document.count(term) for document in documents])
        containing = (frequency > 0).sum()
        idf = np.log(1 + (len(documents) - containing + 0.5) / (containing + 0.5))
        norm = k1 * (1 - b + b * length / length.mean())
        scores += idf * frequency * (k1 + 1) / (frequency + norm)
    return scores


def test_the_weights_of_the_passages_are_bm25(library: Library) -> None:
    documents = [terms(f"{p.heading}\n{p.text}") for p in library.passages]
    query = question_terms("How are default parameter values evaluated?")
    asked = np.minimum(library.count(query), 1)
    np.testing.assert_allclose(library.bm25 @ asked, _bm25(documents, query), rtol=1e-3, atol=1e-4)


def test_the_shortlist_is_the_best_in_order() -> None:
    assert numeric.shortlist(np.array([0.1, 3.0, 2.0, 5.0]), 3).tolist() == [3, 1, 2]


@pytest.mark.parametrize(("question", "document", "part"), KNOWN)
def test_a_question_is_answered_from_the_right_document(
    program: Program, question: str, document: str, part: str
) -> None:
    answer = program.one(question)
    assert answer.draft.source.startswith(f"{document}: ")
    assert part in answer.draft.text
    assert float(answer.score) >= LEAST_SCORE


@pytest.mark.parametrize("question", NONSENSE)
def test_a_question_about_something_else_is_not_answered(program: Program, question: str) -> None:
    assert float(program.one(question).score) < LEAST_SCORE


@pytest.mark.parametrize("question", QUESTIONS + NONSENSE)
def test_an_answer_stands_in_the_reference(program: Program, question: str) -> None:
    draft = program.one(question).draft
    document = draft.source.partition(": ")[0]
    text = " ".join(p.text for p in load_passages() if p.document == document)
    words = re.sub(r"\s+", " ", text)
    lines = re.split(r"(?<=[.:])\s+", re.sub(r"\s+", " ", draft.text).strip())
    assert [line for line in lines if line not in words] == []


@pytest.mark.parametrize("question", QUESTIONS[:4] + NONSENSE[:1])
def test_staged_answers_are_those_of_plain_python(program: Program, question: str) -> None:
    assert _same(program.one(question), program.plain(question))


def test_a_batch_gives_what_each_question_gives_alone(program: Program) -> None:
    questions = QUESTIONS[:5] + NONSENSE[:1]
    batch = ask(program, questions)
    assert len(batch) == len(questions)
    alone = [program.one(question) for question in questions]
    assert all(_same(one, other) for one, other in zip(batch, alone, strict=True))


def test_waiting_readers_wait_together(library: Library) -> None:
    """24 calls of 0.2 seconds: together they take about 0.2, one after another 4.8."""
    slow = make_program(library, latency_seconds=0.2)
    slow.one(QUESTIONS[0])
    start = time.perf_counter()
    slow.one(QUESTIONS[1])
    assert time.perf_counter() - start < len(READERS) * 4 * 0.2 / 2


def test_the_command_answers_and_shows_how(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--latency", "0", "What does pass do?", "How do I make pizza?"])
    printed = capsys.readouterr().out
    for part in (
        "no latency is simulated",
        "? What does pass do?",
        '"pass" is a null operation',
        '— pass: The "pass" statement; by Define, score',
        "No answer found",
        "XCSGraph 'answer': 1",
        "relevance_shortlist: relevance + shortlist;",
        "embed_draft          x 24",
        "sequential",
        "2 questions by vmap, no latency",
    ):
        assert part in printed
    assert max(map(len, printed.splitlines())) <= 100


def test_the_command_says_which_latency_is_simulated(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--latency", "0.01", "What does pass do?"])
    printed = capsys.readouterr().out
    assert "Simulated latency: each call of a reader waits 10 ms" in printed
    assert "one question, 10 ms of simulated latency" in printed


def test_the_command_lists_the_documents(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--list"])
    assert "lambda" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--latency", "-1"], "--latency is -1; it is a number of seconds from 0 to 10"),
        (["--latency", "soon"], "invalid float value: 'soon'"),
        (["  "], "a question is empty"),
    ],
)
def test_the_command_says_what_is_wrong_with_its_arguments(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert complaint in capsys.readouterr().err
