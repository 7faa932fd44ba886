"""Every test of the runtime ends with no thread, process or loop left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ember_xcs._core.options import reset_execution_options
from ember_xcs._runtime.processes import processes
from ember_xcs._runtime.shutdown import shutdown_pools


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    kept, processes.close = processes.close, lambda timeout_seconds=5.0: []  # slow to start
    try:
        yield
        reset_execution_options()
        assert shutdown_pools() == []
        assert set(threading.enumerate()) <= before
    finally:
        processes.close = kept


@pytest.fixture(autouse=True, scope="session")
def no_process_left_behind() -> Iterator[None]:
    yield
    assert processes.close() == []
