"""String annotations that name nothing."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

import ember_xcs as xcs

if TYPE_CHECKING:
    from somewhere import Document


@xcs.host
def reads(document: Document) -> float:
    return 0.5


@xcs.host
def writes(text: str) -> Document:
    return text


@xcs.host(out=float)
def declared(text: str) -> Document:
    return 0.5


@dataclasses.dataclass
class Page:
    score: float
    document: Document


@xcs.host
def opens(text: str) -> Page:
    return Page(0.5, text)


class Writer(xcs.HostOperator):
    def forward(self, text: str) -> Document:
        return text


@pytest.mark.parametrize("operator", [writes, Writer()], ids=["function", "operator"])
@pytest.mark.parametrize("way", ["plain", "trace"])
def test_a_return_annotation_that_names_nothing_is_an_error_with_a_remedy(operator, way) -> None:
    call = operator if way == "plain" else xcs.jit.trace(operator)
    with pytest.raises(TypeError, match=r"'Document', which cannot be resolved.*TYPE_CHECKING"):
        call("text")


def test_a_field_of_a_returned_record_that_names_nothing_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"'Page' is annotated 'Document'"):
        opens("text")


def test_what_out_declares_needs_no_annotation() -> None:
    assert xcs.jit.trace(lambda text: declared(text) * 2)("text") == 1.0


def test_a_parameter_that_names_nothing_leaves_the_other_annotations_as_they_are() -> None:
    assert xcs.jit.trace(lambda text: reads(text) * 2)("text") == 1.0
    assert reads.signature.returns is float


def test_any_is_a_host_value() -> None:
    @xcs.host
    def whatever(text: str) -> Any:
        return [text]

    assert whatever("a") == ["a"]
