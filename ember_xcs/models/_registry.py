"""Models by name."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ember_xcs._core.operator_class import instance_only
from ember_xcs._core.options import suggestion
from ember_xcs._core.usage import record_usage
from ember_xcs.errors import OptionsError
from ember_xcs.models._api import Ask, ModelAPI, ModelResponse, model_name, request_of

__all__ = ["BoundModel", "available", "found", "instance", "register", "report"]

Factory = Callable[[], ModelAPI]


class _Entry:
    """A registered model, which is made when it is first asked for."""

    def __init__(self, factory: Factory) -> None:
        self._factory = factory
        self._lock = threading.Lock()
        self._model: ModelAPI | None = None

    def model(self) -> ModelAPI:
        with self._lock:
            if self._model is None:
                self._model = self._factory()
            return self._model


_entries: dict[str, _Entry] = {}


def register(name: str, factory: Factory) -> None:
    """Gives a model a name; a name that is taken gets the new one.

    Args:
        name: The name.
        factory: Returns the model. It is called once, when the name is first used.

    Raises:
        TypeError: ``factory`` cannot be called; a model itself is given as ``lambda: model``.
        ValueError: The name is empty.

    Example:
        >>> from ember_xcs import models
        >>> models.register("oracle", lambda: models.MockModel(responses=["Yes."]))
        >>> models("oracle", "Really?").text
        'Yes.'
    """
    if not name:
        raise ValueError(f"register({name!r}, ...): the name of a model is a text, not empty.")
    given: Any = factory
    if not callable(given) or isinstance(given, BoundModel):
        raise TypeError(
            f"register({name!r}, factory) was given a {type(factory).__name__}; it takes a "
            "function that returns the model, such as lambda: model."
        )
    _entries[name] = _Entry(factory)


def available() -> tuple[str, ...]:
    """Returns the names that models are registered by, sorted.

    Example:
        >>> "mock" in available()
        True
    """
    return tuple(sorted(_entries))


def instance(model: str | ModelAPI, /, **params: Any) -> BoundModel:
    """Returns a model with parameters for all its requests.

    Args:
        model: The name of a registered model, or a model.
        **params: Such as ``temperature``. What a request says itself comes first.

    Raises:
        OptionsError: No model is registered by that name.
        TypeError: ``model`` is neither a name nor a model.

    Example:
        >>> poet = instance("mock", temperature=0.7)
        >>> poet("A rhyme?").text == poet("A rhyme?").text
        True
    """
    return BoundModel(found(model), params)


def found(model: str | ModelAPI) -> ModelAPI:
    """Returns the model of a name, or the model that was given.

    Raises:
        OptionsError: No model is registered by that name.
        TypeError: It is neither a name nor a model.
    """
    if isinstance(model, str):
        entry = _entries.get(model)
        if entry is None:
            raise OptionsError(
                f"no model is registered as {model!r}{suggestion(model, _entries)}; registered "
                f"are {', '.join(map(repr, available()))}. models.register(name, factory) adds one."
            )
        return entry.model()
    if not (hasattr(model, "generate") or hasattr(model, "agenerate")):
        raise TypeError(
            f"{type(model).__name__} is not a model: it has neither generate nor agenerate. Give "
            "a registered name, or an object with these methods (models.ModelAPI)."
        )
    return model


class BoundModel:
    """A model with parameters for all its requests; what ``instance`` returns.

    A call of it gives the response, and reports to the run it is part of what was used.

    Attributes:
        model: The model.
        params: The parameters.

    Example:
        >>> BoundModel(found("mock"), {"temperature": 0})("Hello").model
        'mock'
    """

    def __init__(self, model: ModelAPI, params: Mapping[str, Any]) -> None:
        self.model = model
        self.params = dict(params)

    @property
    def name(self) -> str:
        """The name of the model."""
        return model_name(self.model)

    @property
    def retry(self) -> Any:
        """How the model's calls are tried again."""
        return getattr(self.model, "retry", None)

    def __call__(self, request: Ask, **params: Any) -> ModelResponse:
        """Returns the answer, and reports what was used."""
        return report(self.generate(request_of(request).binding(params)))

    def generate(self, request: Ask) -> ModelResponse:
        """Returns the answer, while the calling thread waits."""
        return self.model.generate(request_of(request).binding(self.params))

    async def _agenerate(self, request: Ask) -> ModelResponse:
        return await self.model.agenerate(request_of(request).binding(self.params))

    @instance_only
    def agenerate(self) -> Any:
        """The coroutine function that returns the answer."""
        return self._agenerate if self._has("agenerate") else self._missing("agenerate")

    @instance_only
    def generate_batch(self) -> Any:
        """The function that returns the answers of many requests, if the model has one."""
        if not self._has("generate_batch"):
            return self._missing("generate_batch")
        is_async = inspect.iscoroutinefunction(self.model.generate_batch)  # type: ignore[attr-defined]
        return self._agenerate_batch if is_async else self._generate_batch

    def _has(self, method: str) -> bool:
        return callable(getattr(self.model, method, None))

    def _missing(self, method: str) -> Any:
        raise AttributeError(f"model {self.name!r} has no {method}")

    def _generate_batch(self, requests: Sequence[Ask]) -> Any:
        bound = [request_of(request).binding(self.params) for request in requests]
        return self.model.generate_batch(bound)  # type: ignore[attr-defined]

    async def _agenerate_batch(self, requests: Sequence[Ask]) -> Any:
        return await self._generate_batch(requests)

    def __xcs_identity__(self) -> Any:
        """What its answers depend on."""
        return self.model, self.params

    def __repr__(self) -> str:
        params = "".join(f", {name}={value!r}" for name, value in self.params.items())
        return f"instance({self.name!r}{params})"


def report(response: ModelResponse) -> ModelResponse:
    """Returns a response after telling the run of this call what it used."""
    tokens = 0 if response.usage is None else response.usage.tokens
    record_usage(tokens=tokens, cost=response.cost)
    return response
