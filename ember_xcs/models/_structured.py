"""Answers as records: what a model is told about their form, and how they are read."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from ember_xcs._core.arguments import validation_problems

if TYPE_CHECKING:
    from ember_xcs.models._api import Message, ModelRequest

__all__ = ["Unreadable", "ask_again", "ask_for", "read"]

_FENCE = re.compile(r"```(?:json)?[ \t]*\r?\n(.*?)```", re.DOTALL | re.IGNORECASE)


class Unreadable(ValueError):
    """Raised when an answer is not the record that was asked for; says what is wrong with it."""


def ask_for(request: ModelRequest, output: type[BaseModel]) -> ModelRequest:
    """Returns a request that says, before all else, which form the answer is to have."""
    schema = json.dumps(output.model_json_schema(), ensure_ascii=False)
    form: Message = {
        "role": "system",
        "content": "Answer with one JSON object that fits this JSON Schema, and with nothing "
        f"else: {schema}",
    }
    return request.preceded_by(form)


def ask_again(request: ModelRequest, answer: str, problem: str) -> ModelRequest:
    """Returns a request that goes on after an answer that was not of the right form."""
    return request.followed_by(
        {"role": "assistant", "content": answer},
        {
            "role": "user",
            "content": f"That is not valid: {problem}. Answer again, with the JSON object alone.",
        },
    )


def read(answer: str, output: type[BaseModel]) -> Any:
    """Returns the record in an answer, which is JSON as it is or within a fence.

    Raises:
        Unreadable: There is none, or it is not valid.
    """
    fenced = _FENCE.search(answer)
    try:
        return output.model_validate_json(fenced[1] if fenced else answer)
    except ValidationError as error:
        problem = validation_problems(error)
    raise Unreadable(problem)  # outside the `except`: that error would show the answer
