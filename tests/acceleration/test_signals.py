"""A signal during a compiled exchange runs its Python handler, and the handler's exception propagates unchanged."""

from __future__ import annotations

import random
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import monotonic
from types import FrameType
from typing import Final

import pytest

from metacache import Client, Connection, MetacacheError, OperationTimeout, Settings, StoreResult
from metacache.testing import Memcached
from tests.scripted import Peer, ScriptedServer, answering, silent

pytestmark = [pytest.mark.usefixtures("primitives"), pytest.mark.alone]

ROUNDS: Final = 1000
PATIENT: Final = Settings(timeout=20.0)
# What a handler raises: classes that the exchange itself raises too, with and without arguments.
RAISED: Final[tuple[Callable[[], Exception], ...]] = (
    lambda: TimeoutError("handler"),
    lambda: OSError(9, "handler"),
    lambda: BrokenPipeError(32, "handler"),
    ValueError,
    lambda: OperationTimeout("handler"),
)


@contextmanager
def handling(handler: Callable[[int, FrameType | None], None]) -> Generator[None]:
    """Install *handler* for SIGALRM. What it raises in a finalizer is dropped: Python cannot raise it there."""
    before, hook = signal.signal(signal.SIGALRM, handler), sys.unraisablehook
    sys.unraisablehook = _drop
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
        sys.unraisablehook = hook


def _drop(_: object) -> None:
    """Drop the exception."""


@pytest.mark.parametrize("make", RAISED, ids=lambda make: type(make()).__name__)
def test_the_handlers_exception_comes_out_of_the_wait_unchanged(make: Callable[[], Exception]) -> None:
    raised = make()

    def handler(_: int, __: FrameType | None) -> None:
        raise raised

    with ScriptedServer(silent, answering((b"VA 5 f0", b"right"))) as server:
        client = Client(Connection(server.node, settings=PATIENT), owns=True)
        with handling(handler):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(type(raised)) as caught:
                client.get("key")
            assert caught.value is raised
        assert "not connected" in repr(client)
        assert client.get("key") == b"right"
        client.close()


def test_a_handler_that_returns_does_not_disturb_the_exchange() -> None:
    runs: list[int] = []
    release = threading.Event()

    def handler(number: int, _: FrameType | None) -> None:
        runs.append(number)
        if len(runs) == 5:
            release.set()

    def script(peer: Peer) -> None:
        asked = peer.request()
        assert release.wait(10.0)
        asked.answer(b"VA 5 f0", b"right")
        silent(peer)

    with ScriptedServer(script) as server:
        client = Client(Connection(server.node, settings=PATIENT), owns=True)
        with handling(handler):
            signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
            assert client.get("key") == b"right"
        assert len(runs) >= 5
        client.close()


def test_signals_do_not_extend_the_deadline() -> None:
    with ScriptedServer(silent) as server:
        client = Client(Connection(server.node, settings=Settings(timeout=0.3)), owns=True)
        with handling(lambda _, __: None):
            signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
            began = monotonic()
            with pytest.raises(OperationTimeout):
                client.get("key")
            assert monotonic() - began < 2.0
        client.close()


def test_signals_at_random_moments_never_give_the_value_of_another_request(memcached: Memcached) -> None:
    raised: list[Exception] = []

    def handler(_: int, __: FrameType | None) -> None:
        raised.append(random.choice(RAISED)())
        raise raised[-1]

    client = Client(Connection(memcached.node, settings=PATIENT), owns=True)
    keys = [f"signals:{number}" for number in range(50)]

    def work() -> None:
        # Again after a second: Python drops what is raised in a finalizer.
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.002), 1.0)
        while True:
            for key in keys:
                assert client.set(key, key.encode()) is StoreResult.STORED
                found = client.get(key)
                assert found == key.encode()

    random.seed(16)
    with handling(handler):
        for _ in range(ROUNDS):
            with pytest.raises((OSError, ValueError, MetacacheError)) as caught:
                work()
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            assert caught.value is raised[-1]
            raised.clear()
    for key in keys:
        client.set(key, b"end of " + key.encode())
        assert client.get(key) == b"end of " + key.encode()
    client.close()
