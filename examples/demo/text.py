"""Terms, sentences and the reflowed paragraphs of a passage."""

from __future__ import annotations

import keyword
import re

_STOPWORDS = """
a about after all also an and any are as at be been before being but by can could did do does during
each either for from give given had has have having how i if in into is it its just let many may me
might more most much must my no not of on or other our out per please so some such tell than that
the their them then there these they this those to too under up upon us use used using was we were
what when where whether which while who whom whose why will with within without would you your
happen happens mean means work works make makes explain describe python
"""
STOPWORDS = frozenset(_STOPWORDS.split())
"""Words of English that say nothing about what a text is about."""

_SYNONYMS = {
    "dict": "dictionary",
    "func": "function",
    "str": "string",
    "int": "integer",
    "arg": "argument",
    "args": "argument",
    "param": "parameter",
    "params": "parameter",
    "var": "variable",
    "parens": "parenthesize",
    "destructor": "finalizer",
    "anonymous": "lambda",
    "ternary": "conditional",
    "equality": "equal",
    "identity": "identical",
}

_OPERATORS = r"\*\*=?|//=?|<<=?|>>=?|[-+*/%@&|^<>=!:]=|->|[*@%^~&|]"
_TERM = re.compile(rf"{_OPERATORS}|[^\W\d]\w*(?:\.[^\W\d]\w*)*|\d+")
_SUFFIXES = ("ations", "ation", "ating", "ates", "ated", "ing", "ied", "ies", "ed", "es", "s", "e")


def stem(word: str) -> str:
    """Returns a word without its ending, so that forms of one word are one term."""
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3 and not word.endswith("ss"):
            word = word[: -len(suffix)] + ("y" if suffix in ("ies", "ied") else "")
            break
    return word[:-1] if len(word) > 4 and word[-1] == word[-2] else word


def terms(text: str) -> list[str]:
    """Returns the terms of a text: stems of its words, names as they are, and operators.

    A word of Python in quotation marks, as the reference writes it, or in backticks is a term of
    its own: ``"is"`` is the operator, where ``is`` is a word of English that counts for nothing.
    """
    found: list[str] = []
    for quoted in re.findall(r'"([^"\s]{1,30})"|`([^`\s]{1,30})`', text):
        word = (quoted[0] or quoted[1]).removesuffix("()")
        if keyword.iskeyword(word) or keyword.issoftkeyword(word):
            found.append(f'"{word}"')
    for word in _TERM.findall(text):
        found.extend(_forms(word))
    return found


def title_terms(heading: str) -> list[str]:
    """Returns the terms of a heading: of ``The "pass" statement``, not the verb ``pass``."""
    return [term for term in terms(heading) if f'"{term}"' not in terms(heading)]


def _forms(word: str) -> list[str]:
    """The terms that one word stands for: a dotted name also for its parts."""
    if not (word[0].isalpha() or word[0] == "_"):
        return [word]
    names = [word, *word.split(".")] if "." in word else [word]
    return [_plain(name) for name in names if name.lower() not in STOPWORDS]


def _plain(name: str) -> str:
    if name.startswith("_"):
        return name
    name = name.lower()
    return stem(_SYNONYMS.get(name) or _SYNONYMS.get(name.removesuffix("s")) or name)


_BEFORE_CODE = r"\b(?:the|an?|between|does|do|of|using|use|define|explain|about)\s+$"
_AFTER_CODE = (
    r"\s*(?:\W*$|(?:statement|keyword|operator|expression|clause|loop|block|do|does|mean|work|"
    r"differ|different|versus|vs)\b|and\s+[^\w\s])"
)
_KEYWORDS = "|".join([*keyword.kwlist, "match", "case", "type"])
_BARE_KEYWORD = re.compile(rf"(?<![\w`\"'.])(?:{_KEYWORDS})(?![\w`\"'.(])")


def quote_code(question: str) -> str:
    """Returns a question with the words of Python in it marked in backticks.

    Words such as ``is`` and ``with`` are marked where they stand as a noun would: "the with
    statement", "between is and ==", "what does pass do". Others, such as ``lambda``, can only be
    meant as Python, unless they end the question as a verb: "what does str.strip return?".
    """

    def mark(match: re.Match[str]) -> str:
        word, after = match[0], question[match.end() :]
        named = re.search(_BEFORE_CODE, question[: match.start()], re.IGNORECASE)
        if word.lower() in STOPWORDS:
            is_code = bool(named and re.match(_AFTER_CODE, after, re.IGNORECASE))
        else:
            verb = not named and not after.strip(" ?.!")
            is_code = not verb or question[: match.start()].lower().endswith((" is ", " are "))
        return f"`{word}`" if is_code else word

    return _BARE_KEYWORD.sub(mark, question)


_CUE_WORDS = "difference differ different between versus vs syntax grammar example show"
_CUES = frozenset(map(stem, _CUE_WORDS.split()))
"""What a question asks for, rather than what it asks about."""


def question_terms(question: str) -> list[str]:
    """Returns the terms of what a question asks about."""
    found = terms(quote_code(question))
    return [term for term in found if term not in _CUES] or found


_SENTENCE_END = re.compile(
    r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.)(?<!cf\.)\s+(?=[A-Z\"(_\u201c\u2018])"
)


def sentences(paragraph: str) -> list[str]:
    """Returns the sentences of a paragraph that is one line."""
    return [sentence.strip() for sentence in _SENTENCE_END.split(paragraph) if sentence.strip()]


def paragraphs(text: str) -> list[str]:
    """Returns the paragraphs of prose in a passage, each one line."""
    return [block for block in text.split("\n\n") if block and not block.startswith(" ")]


def listings(text: str) -> list[str]:
    """Returns the indented parts of a passage: code and grammar, as they are written."""
    return [block for block in text.split("\n\n") if block.startswith(" ")]
