"""The readers: host operators that each draft an answer to a question from one passage.

Each looks for another kind of answer, says how sure it is, from 0 to 1, and knows nothing of the
others. In a system of your own, each might be a language model behind a network.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Iterator

from pydantic import BaseModel

import ember_xcs as xcs
from examples.demo.corpus import Passage
from examples.demo.library import Library
from examples.demo.text import (
    listings,
    paragraphs,
    question_terms,
    quote_code,
    sentences,
    terms,
)

SENTENCES = 3
"""How many sentences an answer has, at most."""


class Draft(BaseModel):
    """An answer that a reader proposes.

    Attributes:
        text: The answer; empty where the reader found none.
        source: Where it stands.
        confidence: How sure the reader is, from 0 to 1.
    """

    text: str = ""
    source: str = ""
    confidence: float = 0.0


class Reader(xcs.HostOperator):
    """Drafts an answer from one passage.

    Attributes:
        library: The reference.
        latency_seconds: How long each call waits, as it would for a service far away.
    """

    library: Library
    latency_seconds: float = 0.0

    def forward(self, question: str, passage: Passage) -> Draft:
        """Returns the draft with the highest confidence; an empty one where there is none."""
        if self.latency_seconds:
            time.sleep(self.latency_seconds)
        drafts = self.drafts(question, passage)
        return max(drafts, key=lambda draft: draft.confidence, default=Draft())

    def drafts(self, question: str, passage: Passage) -> Iterator[Draft]:
        """Yields what the passage offers."""
        raise NotImplementedError

    def covered(self, question: str, *texts: str) -> float:
        """Returns which share of the question's terms, by their rarity, is in the texts."""
        return self.library.coverage(question_terms(question), terms("\n".join(texts)))


class Quote(Reader):
    """Quotes the sentences that say most of what the question asks about."""

    def drafts(self, question: str, passage: Passage) -> Iterator[Draft]:
        for place, lines in enumerate(_prose(passage)):
            for start in range(len(lines)):
                text = _excerpt(passage, lines[start:])
                said = self.covered(question, lines[start])
                known = self.covered(question, text, passage.heading)
                sure = 0.5 * said + 0.4 * known - 0.04 * (place + start) - _faults(text)
                yield Draft(text=text, source=passage.source, confidence=max(sure, 0.0))


class Define(Reader):
    """Finds the sentence of which the thing asked about is the subject: "A tuple is ..."."""

    _ASKS = re.compile(r"\s*(?:what(?:'s| is| are| does| do)\b|define\b)", re.IGNORECASE)

    def drafts(self, question: str, passage: Passage) -> Iterator[Draft]:
        share = 1.0 if self._ASKS.match(question) and not _asks_for_syntax(question) else 0.7
        for place, lines in enumerate(_prose(passage)):
            for start, line in enumerate(lines):
                subject = self.covered(question, _subject(line))
                known = self.covered(question, line, passage.heading)
                text = _excerpt(passage, lines[start:])
                sure = share * (0.7 * subject * known + 0.3 * known * (subject > 0))
                sure -= 0.05 * (place + start) + _faults(text)
                yield Draft(text=text, source=passage.source, confidence=max(sure, 0.0))


class ExplainEntry(Reader):
    """Explains a method or attribute that the question names: ``object.__del__(self)``."""

    def drafts(self, question: str, passage: Passage) -> Iterator[Draft]:
        heading = set(re.findall(r"\w+", passage.heading))
        asked = re.findall(r"\w*[A-Za-z]\w*(?:\.\w+)+|__\w+__", question)
        lines = next(_prose(passage), [])
        if lines and any(heading.issuperset(name.split(".")) for name in asked):
            text = _excerpt(passage, lines)
            known = self.covered(question, text, passage.heading)
            sure = 0.4 + 0.6 * known - _faults(text)
            yield Draft(text=text, source=passage.source, confidence=sure)


class Contrast(Reader):
    """Sets two things side by side, each by what the document says of it."""

    _SIDES = re.compile(
        r"\bbetween (.+?) and (.+?)[\s?.!]*$|"
        r"\bhow (?:is|are|do|does) (.+?) differ(?:ent)?(?: from)? (.+?)[\s?.!]*$|"
        r"(\S+) (?:versus|vs\.?) (\S+?)[\s?.!]*$",
        re.IGNORECASE,
    )

    def drafts(self, question: str, passage: Passage) -> Iterator[Draft]:
        found = self._SIDES.search(quote_code(question))
        if not found:
            return
        side, other = (words for words in found.groups() if words)
        lines = _document_subjects(self.library, passage.document)
        scored = [
            [self._about(side, other, line) for line in lines],
            [self._about(other, side, line) for line in lines],
        ]
        best = [max(range(len(lines)), key=scores.__getitem__) for scores in scored]
        sure = min(scores[k] for scores, k in zip(scored, best, strict=True))
        if best[0] != best[1] and sure > 0:
            text = " ".join(lines[k][0] for k in best)
            yield Draft(text=text, source=passage.source, confidence=min(sure, 1.0))

    def _about(self, side: str, other: str, line: tuple[str, frozenset[str]]) -> float:
        """How much a sentence is about one side and not the other."""
        sentence, subject = line
        about_side = self.library.coverage(question_terms(side), subject)
        about_other = self.library.coverage(question_terms(other), subject)
        return about_side - 0.5 * about_other - 0.02 * len(subject) - _faults(sentence)


class QuoteGrammar(Reader):
    """Quotes the productions of the grammar, where the question asks for syntax."""

    def drafts(self, question: str, passage: Passage) -> Iterator[Draft]:
        productions = [block for block in listings(passage.text) if "::=" in block]
        if productions and _asks_for_syntax(question):
            text = "\n\n".join(productions)
            known = self.covered(question, passage.heading, text)
            yield Draft(text=text, source=passage.source, confidence=known)


class ShowCode(Reader):
    """Shows the code of a passage, with the sentence before it, where an example is asked for."""

    _ASKS = re.compile(r"\bexamples?\b|\bshow\b|\bhow (?:do|can|to|would)\b", re.IGNORECASE)

    def drafts(self, question: str, passage: Passage) -> Iterator[Draft]:
        asks = self._ASKS.search(question)
        if not asks:
            return
        share = 0.6 if asks[0].lower().startswith("how") else 1.0
        said = ""
        for block in passage.text.split("\n\n"):
            if not block.startswith(" "):
                said = sentences(block)[-1]
            elif "::=" not in block:
                known = self.covered(question, said, block, passage.heading)
                text = f"{said}\n\n{block}".strip()
                yield Draft(text=text, source=passage.source, confidence=share * known)


READERS: tuple[type[Reader], ...] = (Quote, Define, ExplainEntry, Contrast, QuoteGrammar, ShowCode)

_VERB = re.compile(
    r"\s(?:is|are|yields?|causes?|creates?|returns?|denotes?|represents?|specify|specifies|defines?|"
    r"allows?|tests?|refers?|evaluates?|binds?|contains?|terminates?|continues?|means?|may only|"
    r"can be|provides?|compares?|executes?|has|have|raises?|suspends?|signals?|supports?)\s"
)
_ASIDE = re.compile(
    r"(?:New|Changed|Deprecated|Added|Removed) in version|See |PEP \d+ -|Notes?\b|For full details|"
    r"Programmer\u2019s note|For more "
)
_SENTENCE_ENDS = '.!?:)"\u201d\u2019'
_LEANS_ON_WHAT_WAS_SAID = re.compile(
    r"(?:This|It|These|They|Its|Here|However|Otherwise|But|And|Also|Then|Likewise|Such|In this|"
    r"In that|In either|That|Thus|Hence|Therefore|Additional|For example)\b|\("
)


def _asks_for_syntax(question: str) -> bool:
    return bool(re.search(r"\b(?:syntax|grammar)\b", question, re.IGNORECASE))


def _prose(passage: Passage) -> Iterator[list[str]]:
    """Yields the sentences of each paragraph, but for remarks on versions and pointers."""
    for paragraph in paragraphs(passage.text):
        lines = [
            line
            for line in sentences(paragraph)
            if line[-1] in _SENTENCE_ENDS and not _ASIDE.match(line)
        ]
        if lines:
            yield lines


@functools.cache
def _document_subjects(library: Library, document: str) -> list[tuple[str, frozenset[str]]]:
    """Returns each sentence of a document with the terms of its subject."""
    pages = [passage for passage in library.passages if passage.document == document]
    lines = [line for page in pages for prose in _prose(page) for line in prose]
    return [(line, frozenset(terms(_subject(line)))) for line in lines]


def _subject(sentence: str) -> str:
    """What stands before the verb; for "... is called a generator", what stands behind it."""
    called = re.search(r"\b(?:is|are) (?:also )?called (?:an? )?([\w\s-]+)", sentence)
    verb = _VERB.search(sentence)
    return called[1] if called else sentence[: verb.start()] if verb else ""


def _excerpt(passage: Passage, lines: list[str]) -> str:
    """Returns the first few sentences, with the listing that the last of them announces."""
    text = " ".join(lines[:SENTENCES])
    if not text.endswith(":"):
        return text
    blocks = passage.text.split("\n\n")
    after = next((k for k, block in enumerate(blocks, 1) if block.endswith(lines[-1])), None)
    if after is not None and after < len(blocks) and blocks[after].startswith(" "):
        return f"{text}\n\n{blocks[after]}"
    return text


def _faults(text: str) -> float:
    """How far a text is from one that can stand alone, from 0 to 1."""
    unfinished = 0.2 * text.endswith(":")
    leaning = 0.2 * bool(_LEANS_ON_WHAT_WAS_SAID.match(text))
    return unfinished + leaning + 0.2 * (len(text) < 40) + 0.3 * (text[:1].islower())
