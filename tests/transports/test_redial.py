"""An idle connection is checked before it is used; a stale one is dialled again, without an error."""

from __future__ import annotations

from collections.abc import Callable
from time import sleep

import pytest

from metacache import Client, ClosedError, Connection, StoreResult
from tests.scripted import Peer, ScriptedServer, answering, in_turn
from tests.transports.rig import HIT, IDLE, client_of


def test_a_connection_is_dialled_when_first_used_and_kept() -> None:
    with ScriptedServer(answering(HIT, HIT)) as server, client_of(server) as client:
        assert (server.accepted, repr(client)) == (
            0,
            f"<Client prefix=b'' on <Connection {server.node.name}: not connected>>",
        )
        assert client.get("key") == b"right"
        assert f"{server.node.name}: idle" in repr(client)
        assert client.get("key") == b"right"
        assert server.accepted == 1


def set_key(client: Client[bytes]) -> StoreResult:
    return client.set("key", b"v")


def add_key(client: Client[bytes]) -> StoreResult:
    return client.add("key", b"v")


@pytest.mark.parametrize("verb", [set_key, add_key])
@pytest.mark.parametrize("end", [Peer.fin, Peer.rst])
def test_an_idle_connection_that_the_server_closed_is_dialled_again_before_a_write(
    verb: Callable[[Client[bytes]], StoreResult], end: Callable[[Peer], None]
) -> None:
    once = in_turn(lambda peer: peer.request().answer(b"HD"), end)
    with ScriptedServer(once, answering((b"HD", None))) as server, client_of(server) as client:
        assert verb(client)
        sleep(IDLE)  # the server's FIN or RST has arrived, and the connection counts as idle
        assert verb(client)
        assert server.accepted == 2


@pytest.mark.parametrize(
    "unasked", [b"EN\r\n", b"ERROR Too many open connections\r\n", b"x", b"VA 5 f0 O1\r\nwrong\r\n"]
)
@pytest.mark.parametrize("many", [False, True])
def test_an_idle_connection_with_unrequested_bytes_is_dialled_again(unasked: bytes, *, many: bool) -> None:
    def chatty(peer: Peer) -> None:
        peer.request().answer(*HIT)
        peer.send(unasked)
        peer.expect_end()

    with ScriptedServer(chatty, answering(HIT)) as server, client_of(server) as client:
        assert client.get("key") == b"right"
        sleep(IDLE)  # the bytes have arrived, and the connection counts as idle
        assert client.get_many(["key"]) == {"key": b"right"} if many else client.get("key") == b"right"
        assert server.accepted == 2


def test_a_closed_connection_does_not_dial() -> None:
    with ScriptedServer(answering(HIT)) as server:
        connection = Connection(server.node)
        client = Client(connection)
        assert client.get("key") == b"right"
        connection.close()
        connection.close()
        with pytest.raises(ClosedError):
            client.get("key")
        with pytest.raises(ClosedError):
            client.set_many({"key": b"v"})
        assert repr(connection) == f"<Connection {server.node.name}: closed>"
