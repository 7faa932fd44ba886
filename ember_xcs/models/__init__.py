"""Language models: one protocol, a registry, and an operator that calls them.

The package itself can be called, with the name of a registered model and a prompt::

    >>> import ember_xcs as xcs
    >>> from ember_xcs import models
    >>> models("mock", "Name a prime.").model
    'mock'
    >>> poet = models.instance("mock", temperature=0.7)
    >>> answer = models.LLMOperator(poet, xcs.Template("A rhyme on {word}."))
    >>> answer(word="June") == answer("June")
    True

It is not loaded by ``import ember_xcs``, since it needs pydantic; what a provider needs is loaded
when one of its models is made.
"""

from __future__ import annotations

import sys
import types
from typing import Any

from ember_xcs.models._api import Ask, ModelAPI, ModelRequest, ModelResponse, ModelUsage, Price
from ember_xcs.models._llm_operator import LLMOperator
from ember_xcs.models._minilm import MiniLM
from ember_xcs.models._mock import MockModel
from ember_xcs.models._openai_compatible import OpenAICompatible
from ember_xcs.models._registry import BoundModel, available, instance, register
from ember_xcs.models._smollm2 import SmolLM2

__all__ = [
    "BoundModel",
    "LLMOperator",
    "MiniLM",
    "MockModel",
    "ModelAPI",
    "ModelRequest",
    "ModelResponse",
    "ModelUsage",
    "OpenAICompatible",
    "Price",
    "SmolLM2",
    "available",
    "instance",
    "register",
]


class _Models(types.ModuleType):
    """A module that is called to ask a model."""

    def __call__(self, model: str | ModelAPI, request: Ask, /, **params: Any) -> ModelResponse:
        """Returns the answer of a model, and reports to the run what was used."""
        return instance(model, **params)(request)


register("mock", MockModel)
register("smollm2", SmolLM2)
sys.modules[__name__].__class__ = _Models
