"""Valid replies that are easily misread: placeholders, padded numbers, wrapped times, a CAS of 0, odd flags."""

from __future__ import annotations

from typing import Final

import pytest

from metacache import Client, Connection, MetacacheError, ProtocolError, ServerError, StoreResult
from metacache.serializers import IntSerializer
from tests.scripted import Peer, ScriptedServer, answering, in_turn
from tests.transports.rig import HIT, PATIENT, client_of


@pytest.mark.parametrize("state", [b"W", b"Z"])
def test_the_placeholder_of_a_lease_is_no_value(state: bytes) -> None:
    def script(peer: Peer) -> None:
        asked = peer.request()
        peer.send(b"VA 0 f0 " + asked.opaque + b" " + state + b"\r\n\r\n")
        first, last = peer.requests(2)
        peer.send(first.reply(b"VA 0 f0", b"")[:-4] + b" " + state + b"\r\n\r\n")
        last.answer(b"VA 1 f0", b"x")
        asked = peer.request()
        peer.send(b"VA 0 f0 c5 t9 h0 l0 " + asked.opaque + b" " + state + b"\r\n\r\n")
        peer.expect_end()

    with ScriptedServer(script) as server, client_of(server) as client:
        assert client.get("key", b"default") == b"default"
        assert client.get_many(["a", "b"]) == {"b": b"x"}
        assert client.get_item("key") is None


def test_an_empty_value_is_a_value() -> None:
    with ScriptedServer(answering((b"VA 0 f0", b""))) as server, client_of(server) as client:
        assert client.get("key", b"default") == b""


def test_a_stale_value_is_a_value_and_its_item_says_so() -> None:
    def script(peer: Peer) -> None:
        asked = peer.request()
        peer.send(b"VA 1 f0 c5 t9 h1 l2 " + asked.opaque + b" X W\r\nx\r\n")
        peer.expect_end()

    with ScriptedServer(script) as server, client_of(server) as client:
        item = client.get_item("key")
        assert item is not None
        assert (item.value, item.cas, item.ttl, item.fetched_before, item.idle_seconds) == (b"x", 5, 9, True, 2)
        assert (item.stale, item.won) == (True, True)


TIMES: Final = ((b"t-1", None), (b"t0", 0), (b"t30", 30), (b"t2147483647", 2**31 - 1), (b"t4294967233", 0))


@pytest.mark.parametrize(("token", "ttl"), TIMES)
def test_the_ttl_is_none_without_expiry_and_0_when_it_has_wrapped(token: bytes, ttl: int | None) -> None:
    reply = (b"VA 1 f0 c5 " + token + b" h0 l0", b"x")
    with ScriptedServer(answering(reply)) as server, client_of(server) as client:
        item = client.get_item("key")
        assert item is not None
        assert item.ttl == ttl


@pytest.mark.parametrize(
    "flags", [b"", b"c5", b"f0 c5 t1 h0", b"f0 cx t1 h0 l0", b"f-1 c5 t1 h0 l0", b"f0 c5 t+3 h0 l0"]
)
def test_an_item_without_one_of_its_flags_is_a_protocol_error(flags: bytes) -> None:
    reply = (b"VA 1 " + flags if flags else b"VA 1", b"x")
    with ScriptedServer(answering(reply)) as server, client_of(server) as client, pytest.raises(ProtocolError):
        client.get_item("key")


NUMBERS: Final = ((b"9 ", 9), (b"0", 0), (b"18446744073709551615", 2**64 - 1))


@pytest.mark.parametrize(("data", "number"), NUMBERS)
def test_a_number_is_read_without_its_padding(data: bytes, number: int) -> None:
    replies = ((b"VA %d" % len(data), data), (b"VA %d f0" % len(data), data))
    with ScriptedServer(answering(*replies)) as server, Connection(server.node, settings=PATIENT) as connection:
        counter = Client(connection, IntSerializer())
        assert counter.increment("key") == number
        assert counter.get("key") == number


@pytest.mark.parametrize("data", [b"", b"x", b"+1", b"-1", b"1_0", "٣".encode(), b"1.0", b"0x1", b"1" * 21])
def test_a_malformed_number_is_a_protocol_error(data: bytes) -> None:
    reply = (b"VA %d" % len(data), data)
    with ScriptedServer(answering(reply)) as server, Connection(server.node, settings=PATIENT) as connection:
        with pytest.raises(ProtocolError, match="not a number"):
            Client(connection, IntSerializer()).increment("key")
        assert "idle" in repr(connection), "the reply was whole"


def test_the_cas_of_a_lost_race_is_not_taken_for_one() -> None:
    with ScriptedServer(answering((b"EX c0", None), (b"NF c0", None))) as server, client_of(server) as client:
        assert client.compare_and_set("key", b"v", 7) is StoreResult.EXISTS
        assert client.compare_and_set("key", b"v", 7) is StoreResult.NOT_FOUND


def test_an_update_on_a_server_without_cas_is_refused_before_it_loses_a_write() -> None:
    with ScriptedServer(answering((b"VA 1 f0 c0", b"x"))) as server, client_of(server) as client:
        with pytest.raises(ServerError, match="without CAS"):
            client.update("key", lambda _: b"new")
        assert "idle" in repr(client)


def test_a_base64_key_is_sent_without_the_k_flag() -> None:
    def script(peer: Peer) -> None:
        for _ in range(5):
            asked = peer.request()
            flags = asked.line.split(b" ")[2:]
            assert b"b" in flags
            assert b"k" not in flags
            asked.answer(b"NF" if asked.line.startswith((b"md", b"ms")) else b"EN")
        peer.expect_end()

    with ScriptedServer(script) as server, client_of(server) as client:
        assert client.get("a key") is None
        assert client.get_item("a key") is None
        assert client.delete("a key").value == "not_found"
        assert client.touch("a key", 5) is False
        assert client.compare_and_set("a key", b"v", 5).value == "not_found"


@pytest.mark.parametrize(
    "line",
    [
        b"ME key",
        b"ME key la=1 cas=2 fetch=no cls=1",
        b"ME key la=x cas=2 fetch=no cls=1 size=1",
        b"ME key la=+1 cas=1_0 fetch=no cls=1 size=1",
    ],
)
def test_metadata_that_lacks_a_number_is_a_protocol_error(line: bytes) -> None:
    with ScriptedServer(answering((line, None))) as server, client_of(server) as client, pytest.raises(ProtocolError):
        client.inspect("key")


def test_bytes_that_cannot_be_decoded_leave_the_connection_open() -> None:
    replies = ((b"VA 5 f0", b"hello"), (b"VA 1 f0", b"7"))
    with ScriptedServer(answering(*replies)) as server, Connection(server.node, settings=PATIENT) as connection:
        numbers = Client(connection, IntSerializer())
        assert numbers.get("key") is None
        assert numbers.undecodable["decode"] == 1
        assert numbers.get("key") == 7
        assert server.accepted == 1


def test_with_on_error_miss_a_protocol_error_of_a_read_is_a_miss() -> None:
    strange = in_turn(lambda peer: peer.request().answer(b"ZZ"), Peer.expect_end)
    with ScriptedServer(strange, answering(HIT)) as server, Connection(server.node, settings=PATIENT) as connection:
        lenient = Client(connection, on_error="miss")
        assert lenient.get("key", b"default") == b"default"
        assert lenient.errors_as_misses == {"ProtocolError": 1}
        assert lenient.get("key") == b"right"
        with pytest.raises(MetacacheError):
            lenient.get("")
