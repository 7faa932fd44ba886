"""The end of a process whose runs have left work behind."""

from __future__ import annotations

import subprocess
import sys

import pytest

LEAVING = """
import jax, jax.numpy as jnp, threading
import ember_xcs as xcs

begun = threading.Event()

@xcs.host
def compiles(x: str) -> float:
    def long(x):
        begun.set()
        for k in range({equations}):
            x = jnp.sin(x @ x + k)
        return x.sum()

    return float(jax.jit(long)(jnp.ones((4, 4))))

try:
    with xcs.execution_options(timeout_seconds=0.3):
        xcs.jit.trace(lambda x: compiles(x))("x")
except xcs.ExecutionTimeout:
    begun.wait(30)
    print("leaving")
"""


@pytest.mark.slow
@pytest.mark.parametrize("equations", [600])
def test_a_compilation_that_was_left_behind_does_not_abort_the_process(equations) -> None:
    code = LEAVING.format(equations=equations)
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (found.stdout, found.stderr, found.returncode) == ("leaving\n", "", 0)


def test_a_call_that_was_left_behind_does_not_hold_up_the_end() -> None:
    code = (
        "import threading, ember_xcs as xcs\n"
        "hangs = xcs.host(lambda x: threading.Event().wait())\n"
        "try:\n"
        "    with xcs.execution_options(timeout_seconds=0.1):\n"
        "        xcs.jit.trace(lambda x: hangs(x))('x')\n"
        "except xcs.ExecutionTimeout:\n"
        "    print('leaving')\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (found.stdout, found.returncode) == ("leaving\n", 0)
