"""A server on loopback, no key in the environment, and nothing left running after a test."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ember_xcs._core.options import reset_execution_options
from ember_xcs._runtime.shutdown import shutdown_pools
from tests.models.server import ChatServer


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_LOG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as chat:
        yield chat


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    reset_execution_options()
    assert shutdown_pools() == []
    left = set(threading.enumerate()) - before
    assert [thread.name for thread in left if thread.name.startswith("ember_xcs")] == []
