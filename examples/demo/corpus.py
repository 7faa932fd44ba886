"""The Python language reference, as every Python carries it, cut into passages.

``pydoc_data.topics`` holds about 80 documents in plain text. A document is cut at its headings and
at the entries that it describes (``object.__del__(self)`` and the indented text under it), and a
long section between paragraphs. Many sections stand in several documents: each is kept once, where
the document is shortest.
"""

from __future__ import annotations

import ast
import functools
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pydoc_data.topics import topics

from pydantic import BaseModel

PASSAGE_CHARACTERS = 700
"""About how long a passage is, at most, before it is cut between two paragraphs."""


class Passage(BaseModel):
    """A part of the reference.

    Attributes:
        source: The document and the headings over the passage: ``"lambda: Lambdas"``.
        text: Paragraphs with an empty line between them. Prose is one line; code and grammar are
            indented and as they were written.
    """

    source: str
    text: str

    @property
    def document(self) -> str:
        """The name of the document: ``"lambda"``."""
        return self.source.partition(": ")[0]

    @property
    def heading(self) -> str:
        """The headings over the passage, without the name of the document."""
        return self.source.partition(": ")[2]


@functools.cache
def load_passages() -> tuple[Passage, ...]:
    """Returns the passages of the whole reference."""
    seen: set[str] = set()
    passages = []
    for topic in sorted(topics, key=lambda name: (len(topics[name]), name)):
        for heading, text in _sections(topics[topic]):
            words = re.sub(r"\W+", " ", text)
            if words not in seen and len(words) > 40:
                seen.add(words)
                passages.append(Passage(source=f"{topic}: {heading}", text=text))
    return tuple(passages)


@dataclass
class _Cutter:
    """Where in a document the cutting is."""

    headings: list[str] = field(default_factory=list)
    entry: str = ""
    entry_indent: int = 0
    blocks: list[str] = field(default_factory=list)

    def cut(self) -> Iterator[tuple[str, str]]:
        """Yields what has come together, if anything has, and begins anew."""
        if self.blocks:
            titles = dict.fromkeys(filter(None, [*self.headings, self.entry]))
            yield ", ".join(titles), "\n\n".join(self.blocks)
            self.blocks = []


def _sections(document: str) -> Iterator[tuple[str, str]]:
    """Yields the heading and the text of each passage of a document."""
    at = _Cutter()
    blocks = [block.rstrip() for block in re.split(r"\n\s*\n", document) if block.strip()]
    for number, block in enumerate(blocks):
        before = blocks[number - 1] if number else ""
        after = blocks[number + 1] if number + 1 < len(blocks) else ""
        title = _title(block)
        body = block
        if title or _is_entry(block, before, after):
            yield from at.cut()
            _enter(at, block, title)
            body = _under_title(block) if title else ""
        elif at.entry and _indent(block) <= at.entry_indent:
            yield from at.cut()
            at.entry = ""
        kept = _reflowed(body, before)
        is_prose = not kept.startswith(" ")
        if is_prose and sum(map(len, at.blocks)) + len(kept) > PASSAGE_CHARACTERS:
            yield from at.cut()
        at.blocks += filter(None, [kept])
    yield from at.cut()


_UNDERLINES = '*=-~^"'
"""What is under a heading, by its level."""


def _enter(at: _Cutter, block: str, title: str) -> None:
    if not title:
        at.entry, at.entry_indent = re.sub(r"\s+", " ", block).strip(), _indent(block)
        return
    at.entry = ""
    level = _UNDERLINES.index(block.lstrip("\n").split("\n")[1][0])
    at.headings = [*at.headings[:level], *[""] * (level - len(at.headings)), title]


def _title(block: str) -> str:
    """The heading that a block begins with: a line over a line of equal length of one sign."""
    lines = block.lstrip("\n").split("\n")
    underlined = len(lines) > 1 and re.fullmatch(r"([*=\-~^\"])\1{2,}", lines[1])
    return _clean(lines[0]) if underlined and len(lines[1]) >= len(lines[0]) else ""


def _under_title(block: str) -> str:
    return "\n".join(block.lstrip("\n").split("\n")[2:])


def _is_entry(block: str, before: str, after: str) -> bool:
    """Whether a block names what the deeper text under it describes."""
    names = (
        r"\s*(?:class |exception |async )?[\w.\[\]]+(?:\(.*\))?|\s*\w+(?:\[.*\]| in | not in ).*"
    )
    looks_so = all(re.fullmatch(names, line) for line in block.strip("\n").split("\n"))
    return (
        looks_so
        and _indent(after) > _indent(block)
        and not block.endswith(":")
        and not (before.endswith(":") and _indent(before) < _indent(block))
    )


def _reflowed(block: str, before: str) -> str:
    """Returns prose as one line without markup, and code and grammar indented by four."""
    if not block or re.match(r"\s*(?:[|+]|\[\d+\]|-\[|=+$)", block):
        return ""  # a table, a footnote, a line across the page
    if _is_verbatim(block, before):
        return textwrap.indent(textwrap.dedent(block), "    ")
    line = re.sub(r"(?<=\w)-\n\s*(?=[a-z])", "-", block)
    line = re.sub(r"\s+", " ", line).strip()
    return (
        "" if re.fullmatch(r"(?:Note|See also|Warning|Changed|Example):?", line) else _clean(line)
    )


def _is_verbatim(block: str, before: str) -> bool:
    if "::=" in block or ">>>" in block:
        return True
    if not block.startswith(" ") or re.match(r"\s*(?:[*-]|\d+\.|\(\w\)) ", block):
        return False
    introduced = before.endswith(":") and _indent(block) > _indent(before)
    if introduced and not re.search(r"(?:Note|See also|Warning):$", before):
        return True
    return _is_code(textwrap.dedent(block))


def _is_code(text: str) -> bool:
    try:
        return bool(ast.parse(text).body)
    except (SyntaxError, ValueError):
        return False


def _clean(line: str) -> str:
    """Returns a line without the marks of emphasis and of footnotes."""
    line = re.sub(r"(?<![\w*\"'])\*\*(\S[^*\"]*)\*\*(?![\w*])", r"\1", line)
    line = re.sub(r"(?<![\w*\"'])\*([A-Za-z_](?:[^*\"]*[\w)])?)\*(?![\w*])", r"\1", line)
    line = re.sub(r"\s*\[\d+\](?=[\s.,)]|$)", "", line)
    return re.sub(r"^[*•] ", "", line)


def _indent(block: str) -> int:
    lines = [line for line in block.split("\n") if line.strip()]
    return min((len(line) - len(line.lstrip()) for line in lines), default=0)
