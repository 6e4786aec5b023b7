"""A server that sends bytes without end, or reads them slowly, does not extend a deadline."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Final

import attrs
import pytest

from metacache import Client, Cluster, Connection, MetacacheError, OperationTimeout, Settings, Transport
from metacache.testing import Memcached
from tests.certificates import serving, trusting
from tests.conftest import start
from tests.pool.rig import until
from tests.scripted import Peer, Script, ScriptedServer, in_turn

pytestmark = pytest.mark.alone

SHORT: Final = 0.05
GRACE: Final = 5.0  # seconds for a busy machine; a call that hangs takes longer
SETTINGS: Final = Settings(timeout=SHORT, connect_timeout=5.0)
CHUNK: Final = b"x" * 65536
LARGE: Final = 100_000_000


def endless(head: bytes, chunk: bytes = CHUNK) -> Script:
    """Answer the first request with *head*, then send *chunk* repeatedly until the client closes."""

    def script(peer: Peer) -> None:
        asked = peer.request()
        end = monotonic() + 5.0
        with suppress(OSError):
            peer.send(head.replace(b"OPAQUE", asked.opaque))
            while monotonic() < end:
                peer.send(chunk)
        assert monotonic() < end, "the client did not stop reading"

    return script


VALUE: Final = endless(b"VA 1000000000 f0 OPAQUE\r\n")
READS: Final[dict[str, tuple[Script, Callable[[Client[bytes]], object]]]] = {
    "get": (VALUE, lambda client: client.get("key")),
    "get_item": (VALUE, lambda client: client.get_item("key")),
    "get_many": (VALUE, lambda client: client.get_many_outcomes(["a", "b"]).errors["a"]),
    "many replies": (
        endless(b"VA 1 f0 OPAQUE\r\nx\r\n", b"VA 10000000 f0\r\n" + bytes(10_000_000) + b"\r\n"),
        lambda client: client.get_many_outcomes([str(number) for number in range(5000)]).errors["4999"],
    ),
}


def timed(function: Callable[[], object]) -> object:
    """Return the result or the error of *function*; check that it takes no longer than the deadline and `GRACE`."""
    began = monotonic()
    try:
        return function()
    except MetacacheError as error:
        return error
    finally:
        taken = monotonic() - began
        assert taken < SHORT + GRACE, f"it took {taken:.2f} seconds"


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("tls", [None, serving], ids=["plain", "tls"])
def test_a_reply_without_end_is_late_at_the_deadline(name: str, tls: Callable[[], ssl.SSLContext] | None) -> None:
    script, use = READS[name]
    settings = attrs.evolve(SETTINGS, tls=trusting() if tls else None)
    scripts = in_turn(lambda peer: peer.request().answer(b"EN"), script)
    with (
        ScriptedServer(scripts, tls=tls and tls()) as server,
        Client(Connection(server.node, settings=settings), owns=True) as client,
    ):
        assert client.with_options(timeout=5.0).get("first") is None
        assert isinstance(timed(lambda: use(client)), OperationTimeout)


def test_statistics_without_end_are_late_at_the_deadline() -> None:
    script = endless(b"", b"STAT name value\r\n" * 1000)
    with ScriptedServer(script) as server, Cluster([server.node], settings=SETTINGS) as cluster:
        found: list[object] = []
        timed(lambda: found.extend(cluster.stats().values()))
        assert [type(error) for error in found] == [OperationTimeout]


WRITES: Final[dict[str, Callable[[Client[bytes]], object]]] = {
    "set": lambda client: client.set("key", b"x" * LARGE),
    "set_many": lambda client: client.set_many_outcomes({"key": b"x" * LARGE, "b": b""}).errors["key"],
    "one of many": lambda client: client.set_many_outcomes(
        {str(number): b"x" * 1_000_000 for number in range(100)}
    ).errors["99"],
}


@pytest.mark.parametrize("name", WRITES)
def test_a_write_that_a_slow_server_takes_byte_by_byte_is_late_at_the_deadline(name: str) -> None:
    def slow(peer: Peer) -> None:
        peer.request().answer(b"EN")
        end = monotonic() + 3 * GRACE
        with suppress(OSError):
            while peer.sock.recv(4096) and monotonic() < end:
                time.sleep(0.0005)
        assert monotonic() < end, "the client did not stop writing"

    with ScriptedServer(slow) as server, Client(Connection(server.node, settings=SETTINGS), owns=True) as client:
        assert client.with_options(timeout=5.0).get("first") is None
        error = timed(lambda: WRITES[name](client))
        assert isinstance(error, OperationTimeout)
        assert error.maybe_applied == (name != "one of many")


TRANSPORTS: Final[dict[str, Callable[[Memcached, Settings], Transport]]] = {
    "connection": lambda server, settings: Connection(server.node, settings=settings),
    "cluster": lambda server, settings: Cluster([server.node], settings=settings),
}


@pytest.mark.parametrize("kind", TRANSPORTS)
def test_values_of_many_megabytes_are_stored_and_read_or_time_out(kind: str) -> None:
    """Use both a timeout that is too short for such values, and one that is long enough."""
    with start("-I", "200m", "-m", "1000") as server:
        transport = TRANSPORTS[kind](server, Settings(timeout=20.0))
        with Client(transport, owns=True) as client:
            value = b"v" * LARGE
            assert client.set("large", value)
            assert client.get("large") == value
            assert client.get_many(["large", "none"]) == {"large": value}
            assert client.set_many({"large": value, "small": b"s"})
            hasty = client.with_options(timeout=SHORT / 5)
            for use in (
                lambda: hasty.get("large"),
                lambda: hasty.set("other", value),
                lambda: hasty.get_many_outcomes(["large", "small"]).errors.get("large"),
            ):
                assert isinstance(timed(use), OperationTimeout)
            until(lambda: client.get_many_outcomes(["small", "large"]).results == {"small": b"s", "large": value})


def test_a_reply_that_arrived_before_the_deadline_is_read() -> None:
    """A value in the system's buffers is not lost because the thread was late, up to `MAX_LATE` bytes."""
    size = 100_000

    def script(peer: Peer) -> None:
        asked = peer.request()
        asked.answer(b"VA %d f0" % size, b"x" * size)
        peer.expect_end()

    with ScriptedServer(script) as server, Client(Connection(server.node), owns=True) as client:
        assert client.get("key") == b"x" * size
