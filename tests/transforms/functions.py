"""Functions that several tests of ``vmap`` map."""

import asyncio

import ember_xcs as xcs


@xcs.host
def shout(text: str) -> str:
    return text.upper()


@xcs.host
def length(text: str) -> float:
    return float(len(text))


@xcs.host
def square(x: float) -> float:
    return x * x


def exclaimed(text):
    return text + "!" if len(text) > 1 else text


async def exclaimed_later(text):
    await asyncio.sleep(0)
    return exclaimed(text)
