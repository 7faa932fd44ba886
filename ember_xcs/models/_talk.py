"""Several requests to one model, until each has an answer that can be read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ember_xcs.errors import ResponseInvalid
from ember_xcs.models._api import ModelRequest, ModelResponse, model_name
from ember_xcs.models._registry import report
from ember_xcs.models._structured import Unreadable, ask_again, ask_for, read

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel

__all__ = ["Talk"]


class Talk:
    """What is still to be asked, and what came of the rest.

    Whoever holds the talk asks what is in ``asked`` and hands the responses to ``take``, until
    nothing is asked any more. It makes no difference whether that is awaited.

    Args:
        model: The model.
        prompts: What it is asked.
        output: The record that each answer is to be; None for texts.
        answers: How often each prompt may be asked.

    Attributes:
        results: What was answered so far, in the order of the prompts.
    """

    def __init__(
        self, model: Any, prompts: Sequence[str], output: type[BaseModel] | None, answers: int
    ) -> None:
        self._model, self._output, self._left = model, output, answers
        requests = [ModelRequest(prompt=prompt) for prompt in prompts]
        if output is not None:
            requests = [ask_for(request, output) for request in requests]
        self._pending = dict(enumerate(requests))
        self._problem = ""
        self.results: list[Any] = [None] * len(requests)

    @property
    def asked(self) -> list[ModelRequest]:
        """What is to be asked now.

        Raises:
            ResponseInvalid: Something is, and it was asked often enough.
        """
        if self._pending and not self._left:
            raise self._gave_up()
        return list(self._pending.values())

    def take(self, responses: Sequence[ModelResponse]) -> None:
        """Reads the responses to what is asked, after reporting what they used.

        Raises:
            TypeError: They are not responses, or not as many as were asked for.
        """
        found = self._checked(list(responses))
        self._left -= 1
        for place, response in zip(list(self._pending), found, strict=True):
            try:
                self.results[place] = self._read(response)
            except Unreadable as error:
                self._problem = str(error)
                again = ask_again(self._pending[place], response.text, self._problem)
                self._pending[place] = again
            else:
                del self._pending[place]

    def _read(self, response: ModelResponse) -> Any:
        return response.text if self._output is None else read(response.text, self._output)

    def _checked(self, found: list[Any]) -> list[ModelResponse]:
        wrong = next((r for r in found if not isinstance(r, ModelResponse)), None)
        if wrong is None and len(found) == len(self._pending):
            return [report(response) for response in found]
        given = f"{len(found)} responses" if wrong is None else f"a {type(wrong).__name__}"
        raise TypeError(
            f"model {model_name(self._model)!r} was asked {len(self._pending)} requests and "
            f"returned {given}; a model returns one models.ModelResponse for each."
        )

    def _gave_up(self) -> ResponseInvalid:
        wanted = "text" if self._output is None else self._output.__name__
        name = model_name(self._model)
        return ResponseInvalid(
            f"model {name!r} gave as many answers as it may, and none is a valid {wanted}: "
            f"{self._problem}. Make the prompt or the fields plainer, or set answers= higher.",
            name,
        )
