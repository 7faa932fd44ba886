"""Prompt text as an operator, so that prompts can be staged."""

from __future__ import annotations

import inspect
import keyword
import re
import string
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from ember_xcs._core import calls
from ember_xcs._core.jax_state import under_jax_trace
from ember_xcs._core.operator import HostOperator, Kind
from ember_xcs._core.operator_class import derived, kept
from ember_xcs._core.plumbing import Glue
from ember_xcs._core.signature import Field, Signature
from ember_xcs.errors import OperatorInputError

__all__ = ["Template"]


class Template(HostOperator):
    r"""Text with placeholders, as in ``str.format``; an operator from their values to the text.

    A placeholder is a name, with attributes, keys and a format as in ``{doc.title}``,
    ``{docs[0]}`` and ``{score:.2f}``; its name is an input field. ``{{`` and ``}}`` are braces.
    Values are passed by name, or by position in the order in which the names first appear. A
    template of several fields takes one mapping, too: ``Parallel(q=..., a=...) >> template``.

    Args:
        text: The text.

    Raises:
        ValueError: The text is malformed, or a placeholder has no name.

    Example:
        >>> prompt = Template("Q: {q}\nSources: {n:03d}")
        >>> print(prompt(q="Why?", n=7))
        Q: Why?
        Sources: 007
        >>> prompt.signature.names
        ('q', 'n')
    """

    text: str
    executor: ClassVar[str | None] = "inline"
    deterministic: ClassVar[bool] = True

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"Template takes a text, and was given a {type(text).__name__}.")
        self.text = text
        self.signature  # noqa: B018  (a malformed text is an error here, not at the first call)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Returns the text for these values.

        Raises:
            OperatorInputError: A value is missing, has no placeholder, or does not fit its format.
        """
        if len(args) != 1 or kwargs or len(self.signature.fields) < 2:
            return super().__call__(*args, **kwargs)
        given = args[0]
        if issubclass(type(given), Mapping):
            return super().__call__(**given)
        if issubclass(type(given), _NO_MAPPINGS) or not _is_staged():
            return super().__call__(given)
        return _FromMapping(self)(given)

    def forward(self, /, *args: Any, **kwargs: Any) -> str:
        """Returns the text with the values in it."""
        values = self.call_parameters.bind(*args, **kwargs).arguments
        try:
            return self.text.format_map(values)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise OperatorInputError(
                f"{self!r} cannot format its values: {type(error).__name__}: {error}. They are "
                + ", ".join(f"{k}: {type(v).__name__}" for k, v in values.items())
                + "."
            ) from error

    @derived
    def kind(self) -> Kind:
        """``"glue"``."""
        return "glue"

    @derived
    def signature(self) -> Signature:
        """A field for each name among the placeholders."""
        return kept(self, "_xcs_signature", lambda: _signature(self.text))

    @derived
    def call_parameters(self) -> inspect.Signature:
        """A parameter for each field."""
        return kept(self, "_xcs_parameters", lambda: _parameters(self.signature.names))

    def __repr__(self) -> str:
        return f"Template({self.text!r})"


_NO_MAPPINGS = (str, bytes, bool, int, float, complex, list, tuple, type(None))


def _is_staged() -> bool:
    """Whether a value may stand for a mapping that only the run will know."""
    return calls.current_recorder() is not None or under_jax_trace()


class _FromMapping(Glue, HostOperator):
    """A template of several fields, given one mapping that only the run knows."""

    template: Template

    def forward(self, values: Any) -> str:
        """Returns the text with the values in it."""
        if not isinstance(values, Mapping):
            names = ", ".join(self.template.signature.names)
            raise OperatorInputError(
                f"{self.template!r} was given a {type(values).__name__}; a template of several "
                f"fields takes one value for each ({names}), or one mapping that has them. Pass "
                "them by name, or return a dict from what comes before."
            )
        return self.template(**values)  # type: ignore[no-any-return]

    @derived
    def name(self) -> str:
        """The name of the template."""
        return self.template.name


def _signature(text: str) -> Signature:
    fields = tuple(Field(name) for name in dict.fromkeys(_names(text, text)))
    return Signature(fields, returns=str)


def _parameters(names: tuple[str, ...]) -> inspect.Signature:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature([inspect.Parameter(name, kind) for name in names])


def _names(text: str, whole: str) -> Iterator[str]:
    """Yields the root name of each placeholder, those inside formats too."""
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ValueError(
            f"template {whole!r} is malformed: {error}. A literal brace is written {{{{ or }}}}."
        ) from None
    for _, placeholder, format_spec, _ in parts:
        if placeholder is None:
            continue
        yield _root(placeholder, whole)
        yield from _names(format_spec or "", whole)


def _root(placeholder: str, whole: str) -> str:
    root = re.split(r"[.\[]", placeholder, maxsplit=1)[0]
    if root.isidentifier() and not keyword.iskeyword(root):
        return root
    raise ValueError(
        f"template {whole!r} has the placeholder {{{placeholder}}}, whose name is not a Python "
        "identifier: placeholders are named, as in {question}, for the input fields that they are."
        " A literal brace is written {{ or }}."
    )
