"""What all random programs begin with: imports, state of the module, functions and classes."""

__all__ = ["PRELUDE"]

PRELUDE = '''\
import contextlib
import functools
import itertools
import json
import math
from collections import Counter
from dataclasses import dataclass, replace

import jax.numpy as jnp

TOTAL = 0
SEEN = []
TABLE = {}


class Stop(Exception):
    pass


class scope:
    def __init__(self, name):
        self.name = name

    def __enter__(self):
        emit("enter", self.name)
        return self.name + "!"

    def __exit__(self, kind, error, where):
        emit("exit", self.name, kind)
        return kind is Stop


@contextlib.contextmanager
def managed(name):
    log(name)
    try:
        yield ask(name)
    finally:
        log(name + "-")


def traced(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        result = function(*args, **kwargs)
        return result

    return wrapper


@traced
def traced_ask(s):
    return ask(s) + "t"


def joined(s, x):
    return ask(s + x)


def divided(xs):
    best, score = "", 0
    for x in xs:
        if (n := rate(x)) > score:
            best, score = x, n
    return best, score


def chatter(xs):
    for x in xs:
        reply = ask(x)
        yield reply
        if coin(reply):
            return
    yield from [draft(x, 1) for x in xs]


def deep(s, depth):
    if depth <= 0:
        return rate(s)
    return deep(ask(s), depth - 1) + rate(f"{s}{depth}")


class Agent:
    """Keeps what was said to it."""

    made = 0

    def __init__(self, name):
        self.name = name
        self.history = []
        Agent.made += 1

    def step(self, s):
        reply = ask(f"{self.name} {s}")
        self.history.append(reply)
        return "".join(self.history)[-20:]

    def steps(self, xs):
        return [self.step(x) for x in xs] + self.history
'''
