"""The readers: host operators that each draft an answer to a question from one passage.

Each looks for another kind of answer, says how sure it is, from 0 to 1, and knows nothing of the
others. In a system of your own, each might be a language model behind a network.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

from pydantic import BaseModel

import ember_xcs as xcs
from examples.demo.corpus import Passage
from examples.demo.library import Library
from examples.demo.text import listings, paragraphs, sentences, terms

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
        return self.library.coverage(terms(question), terms("\n".join(texts)))


class Quote(Reader):
    """Quotes the sentences that say most of what the question asks about."""

    def drafts(self, question: str, passage: Passage) -> Iterator[Draft]:
        lines = [s for p in paragraphs(passage.text) for s in sentences(p) if not _is_aside(s)]
        for start in range(len(lines)):
            for stop in range(start + 1, min(start + SENTENCES, len(lines)) + 1):
                text = " ".join(lines[start:stop])
                said = self.covered(question, text)
                known = self.covered(question, text, passage.heading)
                sure = 0.5 * said + 0.4 * known - 0.03 * start - 0.02 * (stop - start)
                yield Draft(text=text, source=passage.source, confidence=max(sure, 0.0))


class Define(Reader):
    """Finds the sentence of which the thing asked about is the subject: "A tuple is ..."."""

    _VERB = re.compile(
        r"\s(is|are|yields?|causes?|creates?|returns?|denotes?|represents?|specif(?:y|ies)|"
        r"defines?|allows?|tests?|refers?|evaluates?|binds?|contains?|terminates?|continues?|"
        r"means?|may only|can be|provides?|compares?|executes?|has|have|raises?|suspends?)\s"
    )

    def drafts(self, question: str, passage: Passage) -> Iterator[Draft]:
        asks = re.match(r"\s*what(?:'s| is| are| does| do)\b|\s*define\b", question, re.I)
        for number, paragraph in enumerate(paragraphs(passage.text)):
            lines = sentences(paragraph)
            for position, line in enumerate(lines):
                verb = self._VERB.search(line)
                if verb is None or _is_aside(line):
                    continue
                subject = self.covered(question, line[: verb.start()])
                rest = self.covered(question, line, passage.heading)
                sure = (0.75 if asks else 0.5) * subject * rest + 0.25 * rest * bool(subject)
                sure -= 0.04 * (number + position) + 0.01 * (verb.start() > 60)
                yield Draft(
                    text=" ".join(lines[position : position + SENTENCES]),
                    source=passage.source,
                    confidence=max(sure, 0.0),
                )


class ExplainEntry(Reader):
    """Explains a method or attribute that the question names: ``object.__del__(self)``."""

    def drafts(self, question: str, passage: Passage) -> Iterator[Draft]:
        entry = passage.heading.rpartition(", object.")[2] or passage.heading
        names = {name for name in re.findall(r"[\w.]*\w", passage.heading) if name}
        asked = set(re.findall(r"[A-Za-z_][\w.]*\w", question))
        named = {name for name in asked if name in names or f"str.{name}" in names
                 or f"object.{name}" in names}  # fmt: skip
        prose = paragraphs(passage.text)
        if not prose or not any("_" in name or "." in name for name in named | {entry} & names):
            return
        text = " ".join(sentences(prose[0])[:SENTENCES])
        known = self.covered(question, text, passage.heading)
        yield Draft(text=text, source=passage.source, confidence=0.4 + 0.6 * known)


class QuoteGrammar(Reader):
    """Quotes the productions of the grammar, where the question asks for syntax."""

    _ASKS = re.compile(r"\b(syntax|grammar|written|write|production|form)\b", re.I)

    def drafts(self, question: str, passage: Passage) -> Iterator[Draft]:
        productions = [block for block in listings(passage.text) if "::=" in block]
        if not productions or not self._ASKS.search(question):
            return
        asked = self._ASKS.sub("", question)
        text = "\n\n".join(productions)
        named = " ".join(re.findall(r"(\w+)\s*::=", text)).replace("_", " ")
        known = self.covered(asked, passage.heading, named)
        yield Draft(text=text, source=passage.source, confidence=0.2 + 0.8 * known)


class ShowCode(Reader):
    """Shows the code of a passage, with the sentence before it, where an example is asked for."""

    _ASKS = re.compile(r"\b(examples?|show|how (?:do|can|to|would)|code)\b", re.I)

    def drafts(self, question: str, passage: Passage) -> Iterator[Draft]:
        asked = self._ASKS.sub("", question)
        share = 1.0 if re.search(r"\bexamples?|show\b", question, re.I) else 0.6
        if asked == question:
            return
        said = ""
        for block in passage.text.split("\n\n"):
            if not block.startswith(" "):
                said = sentences(block)[-1]
            elif "::=" not in block:
                known = self.covered(asked, said, block, passage.heading)
                text = f"{said}\n\n{block}"
                yield Draft(text=text, source=passage.source, confidence=share * known)


class FollowReference(Reader):
    """Follows "see section X" to the section, and quotes what it begins with."""

    def drafts(self, question: str, passage: Passage) -> Iterator[Draft]:
        by_title = {}
        for other in reversed(self.library.passages):
            by_title[other.heading.rpartition(", ")[2]] = other
        for title in re.findall(r"[Ss]ee(?: also)?(?: section)? ([A-Z][\w ]+)", passage.text):
            found = next((t for t in by_title if title.startswith(t)), None)
            prose = paragraphs(by_title[found].text) if found else []
            if prose:
                text = " ".join(sentences(prose[0])[:SENTENCES])
                known = self.covered(question, text, by_title[found].heading)
                yield Draft(text=text, source=by_title[found].source, confidence=0.8 * known)


READERS = (Quote, Define, ExplainEntry, QuoteGrammar, ShowCode, FollowReference)


def _is_aside(sentence: str) -> bool:
    """Whether a sentence is about versions, or points elsewhere."""
    aside = r"(?:New|Changed|Deprecated|Added|Removed) in version|See also|PEP \d+ -|Note:?$"
    return bool(re.match(aside, sentence)) or len(sentence) < 20
