"""What ``import ember_xcs`` costs, against ``import jax``: each in a new process, interleaved."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.harness import Row, duration

BAR = 1.2


def seconds(module: str) -> float:
    """The processor time of an import in a new process, in seconds."""
    command = (
        f"import time; start = time.process_time(); import {module}; "
        "print(time.process_time() - start)"
    )
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}  # as users have it
    ran = subprocess.run(
        [sys.executable, "-c", command], env=environment, capture_output=True, check=True, text=True
    )
    return float(ran.stdout)


def rows(quick: bool = False) -> Iterator[Row]:
    modules = ("ember_xcs", "jax", "pydantic")
    for module in modules:  # so that all of them are compiled to bytecode, and in the file cache
        seconds(module)
    found: dict[str, list[float]] = {module: [] for module in modules}
    for _ in range(3 if quick else 15):
        for module in modules:
            found[module].append(seconds(module))
    ours, jax, pydantic = (statistics.median(found[module]) for module in modules)
    detail = f"{duration(ours)} / {duration(jax)}; import pydantic alone {duration(pydantic)}"
    yield Row("import ember_xcs / import jax", ours / jax, BAR, detail=detail)
