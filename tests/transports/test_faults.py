"""Faults of a server on one connection, and the result for the caller of a blocking client.

The caller gets a typed error and never a foreign value. A connection at an uncertain position is closed. No write is
sent twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import pytest

from metacache import (
    Client,
    ClientError,
    Cluster,
    ConnectError,
    Connection,
    ConnectionLost,
    MetacacheError,
    Pool,
    ProtocolError,
    ServerError,
    StoreResult,
    Transport,
)
from metacache.serializers import IntSerializer
from tests.scripted import Asked, Peer, Script, ScriptedServer, answering, in_turn, silent
from tests.transports.rig import HIT, PATIENT, client_of, within

Verb: TypeAlias = Callable[[Client[bytes]], object]


def filled(asked: Asked, reply: bytes) -> bytes:
    """Return *reply* with the opaque in place of ``@``."""
    return reply.replace(b"@", asked.opaque)


def broken(reply: bytes, end: Callable[[Peer], None]) -> Script:
    """Return a script that answers one request with *reply* and then calls *end*."""

    def script(peer: Peer) -> None:
        peer.send(filled(peer.request(), reply))
        end(peer)

    return script


# The reply to one request, how the server continues, and the error of a get.
LOST: Final = (
    (b"", Peer.fin),
    (b"", Peer.rst),
    (b"VA 100 f0 @\r\n" + b"x" * 40, Peer.fin),
    (b"VA 100 f0 @\r\n" + b"x" * 40, Peer.rst),
    (b"VA 5 f0 @\r\nhello", Peer.fin),
    (b"VA 5 f0 @\r\nhello\r", Peer.fin),
    (b"VA 1", Peer.fin),
    (b"V", Peer.fin),
    (b"EN", Peer.fin),
    (b"EN @", Peer.fin),
    (b"EN @\r", Peer.fin),
)
DISTRUSTED: Final = (
    b"VA 3 f0 @\r\nabcdef\r\n",
    b"VA -1 f0 @\r\n\r\n", b"VA @\r\n", b"VA f0 @\r\n", b"VA abc f0 @\r\nabc\r\n", b"VA +3 f0 @\r\nabc\r\n",
    b"VA 1_0 f0 @\r\n0123456789\r\n", "VA ٣ f0 @\r\nabc\r\n".encode(), b"VA 0x3 f0 @\r\nabc\r\n",
    b"VA 99999999999999999999 f0 @\r\n", b"VA 4294967296 f0 @\r\n",
    b"x" * 4096,
    b"ZZ @\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x03\x00\x02\x02\x28\r\n", b"\0\0\0\r\n", b"\r\n",
    b"NF @\r\n", b"HD @\r\n", b"MN\r\n", b"NS @\r\n", b"ME k\r\n", b"STORED\r\n",
    b"EN O9999\r\n", b"EN\r\n", b"VA 5 f0 O9999\r\nwrong\r\n", b"VA 5 f0\r\nwrong\r\n",
    b"ERROR\r\n",
)  # fmt: skip
FAULTS: Final[tuple[tuple[bytes, Callable[[Peer], None], type[MetacacheError]], ...]] = (
    *((reply, end, ConnectionLost) for reply, end in LOST),
    *((reply, Peer.expect_end, ProtocolError) for reply in DISTRUSTED),
    (b"SERVER_ERROR out of memory reading request\r\n", Peer.fin, ServerError),
    (b"ERROR Too many open connections\r\n", Peer.fin, ConnectError),
)


@pytest.mark.parametrize(("reply", "end", "error"), FAULTS)
def test_a_get_that_is_answered_wrongly_is_an_error_and_the_next_one_is_right(
    reply: bytes, end: Callable[[Peer], None], error: type[MetacacheError]
) -> None:
    with ScriptedServer(broken(reply, end), answering(HIT)) as server, client_of(server) as client:
        with pytest.raises(error) as raised:
            client.get("key")
        assert (raised.value.node, raised.value.operation, raised.value.key) == (server.node.name, "get", "key")
        assert not raised.value.maybe_applied
        assert client.get("key") == b"right"
        assert server.accepted == 2


@pytest.mark.parametrize(("reply", "end", "error"), FAULTS)
def test_a_batch_that_is_answered_wrongly_is_an_error_for_each_key_and_the_next_get_is_right(
    reply: bytes, end: Callable[[Peer], None], error: type[MetacacheError]
) -> None:
    def script(peer: Peer) -> None:
        first, *_ = peer.requests(3)
        peer.send(filled(first, reply))
        end(peer)

    with ScriptedServer(script, answering(HIT)) as server, client_of(server) as client:
        outcomes = client.get_many_outcomes(["a", "b", "c"])
        assert outcomes.results == {}
        assert list(outcomes.errors) == ["a", "b", "c"]
        assert isinstance(outcomes.errors["a"], error)
        for key, failure in outcomes.errors.items():
            assert isinstance(failure, error | ConnectionLost)
            assert (failure.node, failure.operation, failure.key) == (server.node.name, "get_many", key)
            assert not failure.maybe_applied
        assert client.get("key") == b"right"


# --- writes --------------------------------------------------------------------------------------------------------


WRITES: Final[tuple[Verb, ...]] = (
    lambda client: client.set("key", b"v"),
    lambda client: client.set("a key", b"v"),
    lambda client: client.add("key", b"v"),
    lambda client: client.replace("key", b"v"),
    lambda client: client.compare_and_set("key", b"v", 5),
    lambda client: client.delete("key"),
    lambda client: client.invalidate("key", stale_for=5),
    lambda client: client.touch("key", 5),
    lambda client: client.get_and_touch("key", 5),
)
UNSURE: Final[tuple[tuple[bytes, Callable[[Peer], None], type[MetacacheError]], ...]] = (
    (b"", Peer.fin, ConnectionLost),
    (b"", Peer.rst, ConnectionLost),
    (b"H", Peer.fin, ConnectionLost),
    (b"HD @", Peer.fin, ConnectionLost),
    (b"HD O9999\r\n", Peer.expect_end, ProtocolError),
    (b"HD\r\n", Peer.expect_end, ProtocolError),
    (b"MN\r\n", Peer.expect_end, ProtocolError),
    (b"ZZ @\r\n", Peer.expect_end, ProtocolError),
    (b"x" * 4096, Peer.expect_end, ProtocolError),
)


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize(("reply", "end", "error"), UNSURE)
def test_a_write_that_is_answered_wrongly_says_that_it_may_have_been_applied(
    write: Verb, reply: bytes, end: Callable[[Peer], None], error: type[MetacacheError]
) -> None:
    with ScriptedServer(broken(reply, end), answering(HIT)) as server, client_of(server) as client:
        with pytest.raises(error) as raised:
            write(client)
        assert raised.value.maybe_applied
        assert "may have been applied" in str(raised.value)
        assert client.get("key") == b"right"


def _then_broken(script: Script) -> Script:
    return in_turn(lambda peer: peer.request().answer(*HIT), script)


# Both read the item first, with a request that changes nothing.
GROWTHS: Final[tuple[Verb, ...]] = (
    lambda client: client.append("key", b"v"),
    lambda client: client.prepend("a key", b"v"),
)


def _after_a_read(script: Script) -> Script:
    return in_turn(lambda peer: peer.request().answer(b"HD s3 f0 c7"), script)


@pytest.mark.parametrize("grow", GROWTHS)
@pytest.mark.parametrize(("reply", "end", "error"), UNSURE)
def test_append_and_prepend_may_have_been_applied_only_after_their_read(
    grow: Verb, reply: bytes, end: Callable[[Peer], None], error: type[MetacacheError]
) -> None:
    for script, is_unsure in ((_after_a_read(broken(reply, end)), True), (broken(reply, end), False)):
        with ScriptedServer(script, answering(HIT)) as server, client_of(server) as client:
            with pytest.raises(error) as raised:
                grow(client)
            assert raised.value.maybe_applied is is_unsure
            assert client.get("key") == b"right"


@pytest.mark.parametrize("grow", GROWTHS)
def test_an_append_is_never_sent_twice(grow: Verb) -> None:
    with ScriptedServer(_after_a_read(broken(b"", Peer.fin)), answering(HIT)) as server, client_of(server) as client:
        with pytest.raises(ConnectionLost):
            grow(client)
        assert client.get("key") == b"right"  # the only request of the second script


@pytest.mark.parametrize("grow", GROWTHS)
def test_the_read_before_an_append_is_sent_again_after_a_stale_connection(grow: Verb) -> None:
    stale = _then_broken(broken(b"", Peer.fin))
    with ScriptedServer(stale, _after_a_read(answering((b"HD", None)))) as server, client_of(server) as client:
        assert client.get("key") == b"right"
        assert grow(client) is StoreResult.STORED


@pytest.mark.parametrize("write", WRITES)
def test_a_write_on_a_connection_that_turns_out_stale_is_never_sent_twice(write: Verb) -> None:
    stale = _then_broken(broken(b"", Peer.fin))
    with ScriptedServer(stale, answering(HIT)) as server, client_of(server) as client:
        assert client.get("key") == b"right"
        with pytest.raises(ConnectionLost) as raised:
            write(client)
        assert raised.value.maybe_applied
        assert client.get("key") == b"right"  # the only request of the second script


def test_arithmetic_on_a_connection_that_turns_out_stale_is_never_sent_twice() -> None:
    stale = in_turn(lambda peer: peer.request().answer(b"VA 1", b"1"), broken(b"", Peer.fin))
    with ScriptedServer(stale, answering((b"VA 1", b"7"))) as server, Connection(server.node) as connection:
        counter = Client(connection, IntSerializer())
        assert counter.increment("key") == 1
        with pytest.raises(ConnectionLost) as raised:
            counter.increment("key")
        assert raised.value.maybe_applied
        assert counter.increment("key") == 7


def test_a_batch_of_writes_on_a_connection_that_turns_out_stale_is_never_sent_twice() -> None:
    def stale(peer: Peer) -> None:
        peer.request().answer(*HIT)
        peer.requests(2)
        peer.fin()

    with ScriptedServer(stale, answering(HIT)) as server, client_of(server) as client:
        assert client.get("key") == b"right"
        outcomes = client.set_many_outcomes({"a": b"1", "b": b"2"})
        assert [type(error) for error in outcomes.errors.values()] == [ConnectionLost] * 2
        assert all(error.maybe_applied for error in outcomes.errors.values())
        assert client.get("key") == b"right"


# --- reads on a stale connection -----------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [Peer.fin, Peer.rst])
@pytest.mark.parametrize("reply", [b"", b"VA 1", b"VA 100 f0 @\r\nxxx"])
def test_a_read_on_a_connection_that_turns_out_stale_is_sent_again_on_a_new_one(
    reply: bytes, end: Callable[[Peer], None]
) -> None:
    stale = _then_broken(broken(reply, end))
    with ScriptedServer(stale, answering(HIT)) as server, client_of(server) as client:
        assert client.get("key") == b"right"
        assert client.get("key") == b"right"
        assert server.accepted == 2


def test_a_read_is_sent_again_only_once() -> None:
    stale = _then_broken(broken(b"", Peer.fin))
    with ScriptedServer(stale, broken(b"", Peer.fin), answering(HIT)) as server, client_of(server) as client:
        assert client.get("key") == b"right"
        with pytest.raises(ConnectionLost):
            client.get("key")
        assert server.accepted == 2
        assert client.get("key") == b"right"


def test_a_read_that_meets_a_protocol_error_is_not_sent_again() -> None:
    stale = _then_broken(broken(b"ZZ @\r\n", Peer.expect_end))
    with ScriptedServer(stale, answering(HIT)) as server, client_of(server) as client:
        assert client.get("key") == b"right"
        with pytest.raises(ProtocolError):
            client.get("key")
        assert server.accepted == 1
        assert client.get("key") == b"right"


@pytest.mark.parametrize("timeout", [None, 5.0])
@pytest.mark.parametrize("kind", ["connection", "pool", "cluster"])
def test_a_batch_of_reads_on_a_connection_that_turns_out_stale_is_sent_again_on_a_new_one(
    kind: str, timeout: float | None
) -> None:
    def stale(peer: Peer) -> None:
        peer.request().answer(*HIT)
        first, *_ = peer.requests(3)
        first.answer(b"VA 5 f0", b"wrong")
        peer.fin()

    def fresh(peer: Peer) -> None:
        for asked in peer.requests(3):
            asked.answer(b"VA 1 f0", asked.line[3:4])
        peer.expect_end()

    with ScriptedServer(stale, fresh) as server:
        made: dict[str, Callable[[], Transport]] = {
            "connection": lambda: Connection(server.node, settings=PATIENT),
            "pool": lambda: Pool(server.node, settings=PATIENT),
            "cluster": lambda: Cluster([server.node], settings=PATIENT),
        }
        with Client(made[kind](), owns=True, timeout=timeout) as client, within(0.0, 2.0):
            assert client.get("key") == b"right"
            assert client.get_many(["a", "b", "c"]) == {"a": b"a", "b": b"b", "c": b"c"}


def test_a_batch_of_reads_that_the_server_refused_is_not_sent_again() -> None:
    def refusing(peer: Peer) -> None:
        peer.request().answer(*HIT)
        peer.requests(3)
        peer.send(b"SERVER_ERROR out of memory reading request\r\n")
        peer.fin()

    with ScriptedServer(refusing, answering(HIT)) as server, client_of(server) as client:
        assert client.get("key") == b"right"
        outcomes = client.get_many_outcomes(["a", "b", "c"])
        assert [type(error) for error in outcomes.errors.values()] == [ServerError, ConnectionLost, ConnectionLost]
        assert server.accepted == 1
        assert client.get("key") == b"right"


# --- errors that leave the connection open -------------------------------------------------------------------------


def test_a_server_error_leaves_the_connection_open() -> None:
    def script(peer: Peer) -> None:
        for line in (b"SERVER_ERROR out of memory storing object\r\n", b"SERVER_ERROR whatever\r\n"):
            peer.request()
            peer.send(line)
        peer.request()
        peer.send(b"CLIENT_ERROR bad token in command line format\r\n")
        peer.request().answer(*HIT)
        peer.expect_end()

    with ScriptedServer(script) as server, client_of(server) as client:
        with pytest.raises(ServerError, match="old value is gone"):
            client.set("key", b"v")
        with pytest.raises(ServerError):
            client.get("key")
        with pytest.raises(ClientError):
            client.delete("key")
        assert client.get("key") == b"right"


@pytest.mark.parametrize("line", [b"CLIENT_ERROR bad data chunk", b"CLIENT_ERROR bad command line format"])
def test_a_client_error_to_a_set_closes_the_connection(line: bytes) -> None:
    with ScriptedServer(broken(line + b"\r\n", Peer.expect_end), answering(HIT)) as server, client_of(server) as client:
        with pytest.raises(ClientError):
            client.set("key", b"v")
        assert client.get("key") == b"right"


def test_an_error_line_in_a_batch_belongs_to_one_key() -> None:
    def script(peer: Peer) -> None:
        a, _, c, d = peer.requests(4)
        a.answer(b"HD")
        peer.send(b"SERVER_ERROR out of memory storing object\r\n")
        c.answer(b"NS")
        d.answer(b"HD")
        peer.request().answer(*HIT)
        peer.expect_end()

    with ScriptedServer(script) as server, client_of(server) as client:
        outcomes = client.set_many_outcomes(dict.fromkeys("abcd", b"v"))
        assert outcomes.results == {"a": StoreResult.STORED, "c": StoreResult.NOT_STORED, "d": StoreResult.STORED}
        (error,) = outcomes.errors.values()
        assert isinstance(error, ServerError)
        assert (error.key, error.maybe_applied) == ("b", False)
        assert client.get("key") == b"right"


def test_after_a_client_error_in_a_batch_of_writes_the_later_writes_may_have_been_applied() -> None:
    def script(peer: Peer) -> None:
        a, *_ = peer.requests(4)
        a.answer(b"HD")
        peer.send(b"CLIENT_ERROR bad data chunk\r\nHD\r\nHD\r\n")
        peer.expect_end()

    with ScriptedServer(script, answering(HIT)) as server, client_of(server) as client:
        outcomes = client.set_many_outcomes(dict.fromkeys("abcd", b"v"))
        assert outcomes.results == {"a": StoreResult.STORED}
        assert [type(outcomes.errors[key]) for key in "bcd"] == [ClientError, ConnectionLost, ConnectionLost]
        assert [outcomes.errors[key].maybe_applied for key in "bcd"] == [False, True, True]
        assert client.get("key") == b"right"


# --- unrequested bytes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("surplus", [b"MN\r\n", b"EN O9999\r\n", b"VA 5 f0 O9999\r\nwrong\r\n", b"x"])
def test_bytes_behind_the_last_reply_leave_it_valid_and_close_the_connection(surplus: bytes) -> None:
    first = broken(b"VA 5 f0 @\r\nright\r\n" + surplus, Peer.expect_end)
    with ScriptedServer(first, answering(HIT)) as server, client_of(server) as client:
        assert client.get("key") == b"right"
        assert client.get("key") == b"right"
        assert server.accepted == 2


def test_bytes_behind_the_last_reply_of_a_batch_leave_it_valid_and_close_the_connection() -> None:
    def script(peer: Peer) -> None:
        a, b = peer.requests(2)
        peer.send(a.reply(b"VA 1 f0", b"a") + b.reply(b"VA 1 f0", b"b") + b"EN\r\n")
        peer.expect_end()

    with ScriptedServer(script, answering(HIT)) as server, client_of(server) as client:
        assert client.get_many(["a", "b"]) == {"a": b"a", "b": b"b"}
        assert client.get("key") == b"right"


# --- before the first reply ----------------------------------------------------------------------------------------


def test_a_full_server_is_a_connect_error_and_its_error_line_is_not_taken_for_a_reply() -> None:
    def full(peer: Peer) -> None:
        peer.send(b"ERROR Too many open connections\r\n")
        peer.fin()

    with ScriptedServer(full, full, answering(HIT)) as server, client_of(server) as client:
        with pytest.raises(ConnectError, match="no free connection"):
            client.set("key", b"v")
        outcomes = client.get_many_outcomes(["a", "b"])
        assert all(isinstance(error, ConnectError | ConnectionLost) for error in outcomes.errors.values())
        assert client.get("key") == b"right"


def test_an_error_line_sent_before_the_whole_value_was_read_is_the_error() -> None:
    def script(peer: Peer) -> None:
        peer.sock.recv(1024)
        peer.send(b"SERVER_ERROR out of memory reading request\r\n")
        peer.fin()  # with unread bytes, so the kernel sends a reset

    with ScriptedServer(script, script, answering(HIT)) as server, client_of(server) as client:
        with pytest.raises(ServerError, match="out of memory reading request"):
            client.set("key", b"x" * 20_000_000)
        outcomes = client.set_many_outcomes({"key": b"x" * 20_000_000})
        assert [type(error) for error in outcomes.errors.values()] == [ServerError]
        assert client.get("key") == b"right"


def test_a_value_that_arrives_byte_by_byte_is_complete() -> None:
    stored = b"END\r\nMN\r\nVA 5\r\nEN\r\n"

    def script(peer: Peer) -> None:
        reply = peer.request().reply(b"VA %d f0" % len(stored), stored)
        peer.send(reply, chunks=range(1, len(reply)))
        silent(peer)

    with ScriptedServer(script) as server, client_of(server) as client:
        assert client.get("key") == stored
