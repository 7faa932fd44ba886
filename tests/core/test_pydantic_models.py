"""Pydantic models are told apart whether or not pydantic is loaded."""

from __future__ import annotations

import subprocess
import sys

import pydantic
import pytest

from ember_xcs._core.pydantic_models import is_model, is_model_class, validation_errors


class _Score(pydantic.BaseModel):
    value: float


def test_a_model_and_its_class_are_told_apart() -> None:
    score = _Score(value=1.0)
    assert (is_model_class(_Score), is_model_class(score)) == (True, False)
    assert (is_model(score), is_model(_Score)) == (True, False)


@pytest.mark.parametrize("value", [None, 3, "text", int, dict[str, int], {"value": 1.0}])
def test_other_values_are_no_models(value: object) -> None:
    assert not is_model_class(value)
    assert not is_model(value)


def test_the_error_of_an_invalid_value_is_the_one_of_pydantic() -> None:
    with pytest.raises(validation_errors()) as raised:
        _Score(value="high")
    assert type(raised.value) is pydantic.ValidationError


def _printed(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_program_without_models_or_options_never_loads_pydantic() -> None:
    code = """
import sys
import ember_xcs as xcs
from ember_xcs._core.pydantic_models import is_model_class, validation_errors
xcs.jit(lambda x: x + 1)(1.0)
print(is_model_class(int), validation_errors(), "pydantic" in sys.modules)
"""
    assert _printed(code) == "False () False"


def test_a_model_defined_after_the_library_was_imported_validates_inputs() -> None:
    code = """
import ember_xcs as xcs
import pydantic
class Question(pydantic.BaseModel):
    text: str
def ask(question: Question) -> str:
    return type(question).__name__ + question.text
print(xcs.host(ask)({"text": "?"}))
"""
    assert _printed(code) == "Question?"


def test_the_options_are_a_pydantic_model_of_the_facade() -> None:
    import ember_xcs as xcs

    assert issubclass(xcs.ExecutionOptions, pydantic.BaseModel)
    with pytest.raises(AttributeError, match="no attribute 'ExecutionOption'"):
        _ = xcs.ExecutionOption
