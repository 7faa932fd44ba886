"""Records among the arguments of a compiled function are taken apart, whatever came before."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import pydantic
import pytest

import ember_xcs as xcs


def fresh_dataclass():
    @dataclasses.dataclass
    class Page:
        score: float
        text: str

    return Page


def fresh_frozen_dataclass():
    @dataclasses.dataclass(frozen=True, slots=True)
    class Page:
        score: float
        text: str

    return Page


def fresh_model():
    class Page(pydantic.BaseModel):
        score: float
        text: str

    return Page


MAKERS = [fresh_dataclass, fresh_frozen_dataclass, fresh_model]


@pytest.mark.parametrize("fresh", MAKERS)
def test_the_first_call_computes_with_the_fields_of_a_record(fresh) -> None:
    page = fresh()(score=1.5, text="a")
    shout = xcs.host(lambda p: f"{type(p).__name__} {p.text}!")
    program = xcs.jit.trace(lambda p: (shout(p), p.score * 2, p))
    text, doubled, same = program(page)
    assert (text, float(doubled)) == ("Page a!", 3.0)
    assert type(same) is type(page)
    assert (float(same.score), same.text) == (1.5, "a")


@pytest.mark.parametrize("fresh", MAKERS)
def test_records_in_records_and_containers_are_taken_apart_too(fresh) -> None:
    inner = fresh()

    @dataclasses.dataclass
    class Book:
        pages: list

    book = Book([inner(score=k, text="x") for k in (1.0, 2.0)])
    ask = xcs.host(lambda text: text + "?")
    program = xcs.jit.trace(lambda b: (ask(b.pages[1].text), sum(p.score for p in b.pages)))
    text, total = program(book)
    assert (text, float(total)) == ("x?", 3.0)


@pytest.mark.parametrize("mode", ["auto", "trace", "structural"])
def test_a_record_is_the_same_in_each_mode(mode) -> None:
    page = fresh_dataclass()(score=1.5, text="a")
    shout = xcs.host(lambda text: text + "!")
    assert xcs.jit(lambda p: shout(p.text), mode=mode)(page) == "a!"


def test_a_record_of_numbers_makes_a_numeric_function() -> None:
    @dataclasses.dataclass
    class Point:
        x: float
        y: float

    norm = xcs.jit(lambda p: jnp.hypot(p.x, p.y))
    assert float(norm(Point(3.0, 4.0))) == 5.0
    assert norm.is_numeric


def test_a_record_that_holds_more_than_its_fields_stays_whole() -> None:
    @dataclasses.dataclass
    class Page:
        text: str

        def __post_init__(self):
            self.length = len(self.text)

    length = xcs.host(lambda p: p.length)
    assert xcs.jit.trace(length)(Page("abc")) == 3
