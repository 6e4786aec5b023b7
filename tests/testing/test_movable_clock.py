"""The clock of a test: it shows the real time plus its moves, and may stand still."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from metacache import Client, InvalidArgumentError, connect
from metacache.memory.registry import forget_server, server_named
from metacache.testing import FakeServer, FakeTransport, MovableClock


def test_a_clock_shows_the_real_time_plus_its_moves() -> None:
    clock = MovableClock()
    assert clock() == pytest.approx(time.time(), abs=5)
    clock.advance(60)
    clock.advance(timedelta(hours=1))
    assert clock() == pytest.approx(time.time() + 3660, abs=5)
    assert repr(clock) == "<MovableClock: 3660 seconds ahead>"


def test_a_stopped_clock_stands_still_until_it_is_moved() -> None:
    clock = MovableClock()
    clock.advance(10)
    clock.stop()
    first = clock()
    time.sleep(0.01)
    assert clock() == first
    clock.advance(0.5)
    assert clock() == first + 0.5
    with pytest.raises(InvalidArgumentError, match="stopped already"):
        clock.stop()


@pytest.mark.parametrize("by", [-1, float("nan"), timedelta(seconds=-1), True, "60"])
def test_a_wrong_move_is_refused(by: object) -> None:
    with pytest.raises((InvalidArgumentError, TypeError)):
        # a wrong type
        MovableClock().advance(by)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_clock_moves_the_time_of_an_embedded_server() -> None:
    clock = MovableClock()
    clock.stop()
    client = Client(FakeTransport(FakeServer(clock)))
    client.set("k", b"v", ttl=60)
    clock.advance(59.9)
    assert client.get("k") == b"v"
    clock.advance(0.1)
    assert client.get("k") is None


def test_a_forgotten_name_gets_a_new_server_and_open_clients_keep_the_old_one() -> None:
    with connect("memory://to-forget", int) as before:
        before.set("n", 1)
        old = server_named("to-forget")
        forget_server("to-forget")
        forget_server("to-forget")
        with connect("memory://to-forget", int) as after:
            assert after.get("n") is None
        assert before.get("n") == 1
        assert server_named("to-forget") is not old
    forget_server("to-forget")
