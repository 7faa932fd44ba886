"""What the first run of a process has to load."""

from __future__ import annotations

import subprocess
import sys

import pytest

GRAPH = """
graph = xcs.XCSGraph("g")
answer, double = graph.add_node(ask, "answer"), graph.add_node(twice, "double")
graph.connect(answer, double.inputs["x"])
assert float(xcs.execute_graph(graph, {"x": 1.0}, scheduler="parallel")["double"]) == 4.0
"""
STAGED = "assert float(xcs.jit.trace(lambda x: ask(x) * 2)(1.0)) == 4.0"
MAPPED = "assert [float(y) for y in xcs.vmap(ask)([1.0, 2.0])] == [2.0, 3.0]"


@pytest.mark.parametrize("program", [GRAPH, STAGED, MAPPED], ids=["graph", "staged", "mapped"])
def test_a_run_without_options_does_not_load_pydantic(program: str) -> None:
    text = f"""
import sys
import ember_xcs as xcs

@xcs.host
def ask(x) -> float:
    return float(x) + 1

@xcs.pure
def twice(x):
    return x * 2

{program}
assert "ember_xcs._core.execution_options" not in sys.modules
assert "pydantic" not in sys.modules
"""
    ran = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
