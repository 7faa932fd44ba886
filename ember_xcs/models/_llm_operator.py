"""``LLMOperator``: a prompt with placeholders, and the model that answers it."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import BaseModel

from ember_xcs._core.operator import HostOperator, Operator
from ember_xcs._core.operator_class import derived, instance_only, kept
from ember_xcs._core.outputs import OutputType, output_type
from ember_xcs._core.pydantic_models import is_model_class
from ember_xcs._core.signature import Signature, record_fields
from ember_xcs._core.template import Template
from ember_xcs.errors import OptionsError
from ember_xcs.models._api import ModelAPI, ModelRequest, ModelResponse, model_name
from ember_xcs.models._registry import BoundModel, found
from ember_xcs.models._retrying import retrying
from ember_xcs.models._talk import Talk

if TYPE_CHECKING:
    from ember_xcs._core.policy import HostPolicy
    from ember_xcs._core.retry import Retry

__all__ = ["LLMOperator"]

Row: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]

_is_plain_call: ContextVar[bool] = ContextVar("ember_xcs_plain_llm_call", default=False)


class LLMOperator(HostOperator):
    """A call of a model: the values of a template in, the answer out.

    The answer is a text, or with ``output`` a record whose numbers are numbers to JAX. Calls are
    coroutines on the I/O loop, or run on threads where the model has no ``agenerate``, or a plain
    ``generate_batch``. Under ``jax.vmap`` the prompts of a batch go to the model's
    ``generate_batch`` together, if it has one, and else are calls at the same time. What each
    answer used is reported to the run.

    Args:
        model: A model, or the name of a registered one.
        prompt: A template, or its text; its placeholders are the inputs.
        output: A pydantic model. The model is told its JSON schema, and its answer is read as JSON,
            as it is or within a fence; one that is not valid is sent back with what is wrong.
        name: What the operator is called in graphs and messages.
        answers: How many answers a model may give until one is valid.
        deterministic: Whether equal prompts give equal answers, so that calls may be merged and
            cached. Only you know: a model at temperature 0 need not be.
        retry: How failed calls are tried again; None for the ``retry`` of the model, if it has one,
            or else for what the options say.
        timeout: The most that one call may take, in seconds.
        max_batch_size: The most prompts that ``generate_batch`` takes at once.
        batch_window_seconds: How long a call that is ready waits for others to be one batch, at
            most.

    Raises:
        OptionsError: No model is registered by that name; or calls are to wait for one another to
            be a batch, and the model has none.
        TypeError: An argument is not of its kind.

    Example:
        >>> from ember_xcs.models import MockModel
        >>> model = MockModel(responses=lambda prompt: prompt.upper())
        >>> shout = LLMOperator(model, "Say {word}!")
        >>> shout(word="yes")
        'SAY YES!'
        >>> class Verdict(BaseModel):
        ...     score: float
        >>> judge = LLMOperator(MockModel(responses=['{"score": 0.5}']), "{text}", Verdict)
        >>> judge("A text.").score
        0.5
    """

    model: Any
    prompt: Template
    output: type[BaseModel] | None
    name: str
    answers: int
    settings: Mapping[str, Any]

    def __init__(
        self,
        model: str | ModelAPI,
        prompt: Template | str = "{prompt}",
        output: type[BaseModel] | None = None,
        name: str | None = None,
        *,
        answers: int = 3,
        deterministic: bool = False,
        retry: Retry | None = None,
        timeout: float | None = None,
        max_batch_size: int | None = None,
        batch_window_seconds: float | None = None,
    ) -> None:
        if output is not None and not is_model_class(output):
            raise TypeError(
                f"LLMOperator: output={output!r} is to be a pydantic model; declare a class that "
                "derives from pydantic.BaseModel, or leave it out for the text."
            )
        if type(answers) is not int or answers < 1:
            raise TypeError(f"LLMOperator: answers={answers!r} is to be an int of at least 1.")
        self.model = _held(found(model))
        self.prompt = prompt if isinstance(prompt, Template) else Template(prompt)
        self.output = output
        self.name = name or type(self).__name__
        self.answers = answers
        self.settings = {
            "deterministic": deterministic or self.deterministic,
            "retry": retry or self.retry or getattr(self.model, "retry", None),
            "timeout_seconds": timeout or self.timeout,
            "max_batch_size": max_batch_size or self.max_batch_size,
            "batch_window_seconds": batch_window_seconds or self.batch_window_seconds,
        }
        if batch_window_seconds and not self.has_batch:
            raise OptionsError(
                f"LLMOperator: batch_window_seconds={batch_window_seconds!r}, and the model "
                f"{model_name(self.model)!r} has no generate_batch for which calls could wait for "
                "one another. Leave it out, or take a model that has one."
            )
        self.policy  # noqa: B018  (a bad setting is an error here, not at the first call)

    @derived
    def is_async(self) -> bool:
        """Whether calls are coroutines."""
        return kept(self, "_xcs_is_async", lambda: _is_async(self.model))

    @derived
    def policy(self) -> HostPolicy:
        """How its calls are to be run; its resource is the model."""
        resource = self.resource or model_name(self.model)
        return dataclasses.replace(super().policy, resource=resource, **self.settings)

    @derived
    def signature(self) -> Signature:
        """The inputs of the template; as outputs, the fields of the record."""
        return kept(self, "_xcs_signature", lambda: _signature(self.prompt, self.output))

    @derived
    def call_parameters(self) -> inspect.Signature:
        """The placeholders of the template."""
        return self.prompt.call_parameters

    @derived
    def output_type(self) -> OutputType:
        """The text, or the record."""
        return kept(self, "_xcs_output_type", lambda: output_type(self.output or str))

    @derived
    def has_batch(self) -> bool:
        """Whether the model answers many prompts at once."""
        return hasattr(self.model, "generate_batch")

    def run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Returns the result of a call that no engine makes: the model tries again by itself."""
        token = _is_plain_call.set(True)
        try:
            return super().run(args, kwargs)
        finally:
            _is_plain_call.reset(token)

    def forward(self, /, *args: Any, **kwargs: Any) -> Any:
        """Returns the answer; a coroutine if the operator is async."""
        talk = self._talk([(args, kwargs)])
        if not self.is_async:
            return self._hold(talk, self._ask)[0]
        return self._first(self._hold_later(talk, self._aask, is_plain=_is_plain_call.get()))

    @instance_only
    def forward_batch(self) -> Callable[..., Any]:
        """The function that returns the answers for lists of values, if the model has one."""
        if not self.has_batch:
            raise AttributeError("forward_batch")
        return self._forward_batch_later if self.is_async else self._forward_batch

    def _forward_batch(self, *columns: list[Any], **named: list[Any]) -> list[Any]:
        return self._hold(self._talk(_rows(columns, named)), self.model.generate_batch)

    async def _forward_batch_later(self, *columns: list[Any], **named: list[Any]) -> list[Any]:
        talk = self._talk(_rows(columns, named))
        return await self._hold_later(talk, self.model.generate_batch, is_plain=False)

    def _talk(self, rows: Sequence[Row]) -> Talk:
        prompts = [self.prompt.forward(*args, **kwargs) for args, kwargs in rows]
        return Talk(self.model, prompts, self.output, self.answers)

    def _ask(self, requests: Sequence[ModelRequest]) -> list[ModelResponse]:
        return [self.model.generate(request) for request in requests]

    async def _aask(self, requests: Sequence[ModelRequest]) -> list[ModelResponse]:
        return [await self.model.agenerate(request) for request in requests]

    async def _first(self, results: Any) -> Any:
        return (await results)[0]

    def _hold(self, talk: Talk, ask: Callable[..., Any]) -> list[Any]:
        """Returns the results of a talk with the model."""
        with _talking(is_plain=_is_plain_call.get()):
            while asked := talk.asked:
                talk.take(ask(asked))
        return talk.results

    async def _hold_later(
        self, talk: Talk, ask: Callable[..., Any], *, is_plain: bool
    ) -> list[Any]:
        """Returns the results of a talk with the model, which is awaited."""
        with _talking(is_plain=is_plain):
            while asked := talk.asked:
                talk.take(await ask(asked))
        return talk.results

    def __xcs_identity__(self) -> Any:
        """What its answers depend on."""
        return self.model, self.prompt, self.output, self.answers


def _held(model: Any) -> Any:
    """A model that is an operator, as a static value: its weights are no leaves of whoever asks."""
    is_tree: bool = isinstance(model, Operator)
    return BoundModel(model, {}) if is_tree else model


def _signature(prompt: Template, output: type[BaseModel] | None) -> Signature:
    returns: Any = output or str
    fields = record_fields(returns)
    outputs = None if fields is None else tuple(fields)
    return dataclasses.replace(prompt.signature, returns=returns, outputs=outputs)


def _is_async(model: Any) -> bool:
    """Whether a model is awaited; one that blocks where it answers many at once is not."""
    batch = getattr(model, "generate_batch", None)
    is_blocking = batch is not None and not inspect.iscoroutinefunction(batch)
    return hasattr(model, "agenerate") and not is_blocking


def _rows(columns: Sequence[list[Any]], named: Mapping[str, list[Any]]) -> list[Row]:
    """Returns the arguments of each call from the lists of all."""
    count = len(next(iter([*columns, *named.values()]), ()))
    return [
        (tuple(column[k] for column in columns), {name: named[name][k] for name in named})
        for k in range(count)
    ]


@contextlib.contextmanager
def _talking(*, is_plain: bool) -> Iterator[None]:
    """Says who tries again; what the model calls in its turn is no plain call because of this."""
    token = _is_plain_call.set(False)
    try:
        with retrying(itself=is_plain):
            yield
    finally:
        _is_plain_call.reset(token)
