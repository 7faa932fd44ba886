"""``async def`` operators, called from plain code and inside a running event loop."""

import asyncio

import pytest

from ember_xcs._core.composition import Parallel, Sequential
from ember_xcs._core.functions import host
from ember_xcs._core.operator import HostOperator, Operator
from ember_xcs.errors import OperatorInputError, OperatorOutputError


@host
async def ask(question: str) -> str:
    await asyncio.sleep(0)
    return question + "?"


class Model(HostOperator):
    mark: str = "!"

    async def forward(self, text: str) -> float:
        await asyncio.sleep(0)
        return text


@host
def twice(text: str) -> str:
    return ask(text) + ask(text)


class Pipeline(Operator):
    def forward(self, text):
        return ask(text) + twice(text)


def test_an_async_operator_called_from_plain_code_gives_its_result():
    assert ask("why") == "why?"


def test_an_async_operator_is_awaited_inside_an_event_loop():
    async def main():
        return await ask("why")

    assert asyncio.run(main()) == "why?"


def test_async_operators_overlap_inside_an_event_loop():
    async def main():
        both = asyncio.Barrier(2)

        @host
        async def meet(x):
            async with both:
                return x

        return await asyncio.wait_for(asyncio.gather(meet(1), meet(2)), 10)

    assert asyncio.run(main()) == [1, 2]


def test_the_result_of_an_async_operator_is_checked():
    with pytest.raises(OperatorOutputError, match="'Model' declares to return float"):
        Model()("text")


def test_the_arguments_of_an_async_operator_are_checked():
    with pytest.raises(OperatorInputError, match=r"'ask' takes \(question\)"):
        ask()


@pytest.mark.parametrize("call", [twice, Pipeline(), Sequential(ask, ask), Parallel(ask, ask)])
def test_plain_operators_get_results_inside_an_event_loop_too(call):
    async def main():
        return call("a")

    assert asyncio.run(main()) == call("a")


def test_coroutines_started_inside_a_plain_operator_await_as_usual():
    @host
    def gather(text: str) -> list:
        async def both():
            return [await ask(text), await ask(text)]

        return asyncio.run(both())

    assert gather("a") == ["a?", "a?"]


def test_an_async_operator_awaits_the_operators_that_it_calls():
    @host
    async def chain(text: str) -> str:
        return await ask(await ask(text))

    async def main():
        return await chain("a")

    assert chain("a") == "a??"
    assert asyncio.run(main()) == "a??"


def test_an_error_of_a_coroutine_is_raised_where_it_is_called():
    @host
    async def fail():
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        fail()


@pytest.mark.parametrize("method", [True, False])
def test_async_operators_are_known_without_being_called(method):
    assert (Model() if method else ask).is_async
    assert (Model() if method else ask).policy.executor == "async"


def test_plain_operators_may_be_called_by_a_coroutine_on_the_loop_that_serves_them():
    @host
    async def outer(text: str) -> str:
        return Sequential(ask, ask)(text) + await ask(text)

    assert outer("a") == "a??a?"
