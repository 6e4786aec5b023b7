"""One deadline covers a whole operation: lookup, dial, the wait for another thread, sending, receiving, a retry.

Upper bounds are loose, because a busy machine is slow. A wrong result would take at least twice as long.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from time import monotonic, sleep
from typing import Final

import pytest

from metacache import (
    Batch,
    Client,
    ConnectError,
    Connection,
    MetacacheError,
    Node,
    OperationTimeout,
    PoolTimeout,
    Settings,
)
from metacache.protocol import commands
from metacache.transports.base import Verb
from tests.pool.rig import begin
from tests.scripted import Peer, Script, ScriptedServer, answering, silent
from tests.transports.rig import HIT, client_of, within

pytestmark = pytest.mark.alone

SHORT: Final = 0.2
SHORTLY: Final = Settings(timeout=SHORT)

OPERATIONS: Final[tuple[tuple[Callable[[Client[bytes]], object], bool], ...]] = (
    (lambda client: client.get("key"), False),
    (lambda client: client.get_item("key"), False),
    (lambda client: client.inspect("key"), False),
    (lambda client: client.set("key", b"v"), True),
    (lambda client: client.add("key", b"v"), True),
    (lambda client: client.exists("key"), False),
    (lambda client: client.append("key", b"v"), False),
    (lambda client: client.delete("key"), True),
    (lambda client: client.touch("key", 5), True),
)


@pytest.mark.parametrize(("operation", "is_write"), OPERATIONS)
def test_a_server_that_never_answers_is_a_timeout_at_the_deadline(
    operation: Callable[[Client[bytes]], object], is_write: bool
) -> None:
    with ScriptedServer(silent, answering(HIT)) as server, client_of(server, SHORTLY) as client:
        with within(SHORT * 0.9, SHORT * 5), pytest.raises(OperationTimeout) as raised:
            operation(client)
        assert raised.value.maybe_applied is is_write
        assert client.get("key") == b"right"


def test_a_batch_that_is_never_answered_times_out_at_the_deadline() -> None:
    with ScriptedServer(silent, silent, answering(HIT)) as server, client_of(server, SHORTLY) as client:
        with within(SHORT * 0.9, SHORT * 5):
            reads = client.get_many_outcomes(["a", "b"])
        with within(SHORT * 0.9, SHORT * 5):
            writes = client.set_many_outcomes({"a": b"1", "b": b"2"})
        for outcomes, is_write in ((reads, False), (writes, True)):
            assert [type(error) for error in outcomes.errors.values()] == [OperationTimeout] * 2
            assert [error.maybe_applied for error in outcomes.errors.values()] == [is_write] * 2
        assert client.get("key") == b"right"


def test_a_batch_keeps_replies_that_arrived_before_its_deadline() -> None:
    keys = [f"key-{number}" for number in range(300)]  # more than one window

    def script(peer: Peer) -> None:
        for asked in peer.requests(256):
            asked.answer(b"VA 1 f0", b"x")
        silent(peer)

    with ScriptedServer(script) as server, client_of(server, SHORTLY) as client:
        outcomes = client.get_many_outcomes(keys)
        assert list(outcomes.results) == keys[:256]
        assert list(outcomes.errors) == keys[256:]
        assert {type(error) for error in outcomes.errors.values()} == {OperationTimeout}


def test_the_late_reply_of_a_request_that_timed_out_is_never_the_reply_of_the_next() -> None:
    late = threading.Event()

    def script(peer: Peer) -> None:
        asked = peer.request()
        late.wait(10.0)
        with suppress(OSError):  # the client has closed the connection, as it should
            asked.answer(b"VA 5 f0", b"wrong")

    with ScriptedServer(script, answering(HIT, HIT)) as server, client_of(server, SHORTLY) as client:
        with pytest.raises(OperationTimeout):
            client.get("key")
        late.set()
        assert client.get("key") == b"right"
        assert client.get("key") == b"right"


SLOW: Final = b"VA 90 f0 O1\r\n" + b"x" * 90


def dribble(reply: bytes) -> Script:
    def script(peer: Peer) -> None:
        peer.request()
        with suppress(OSError):  # the client has given up, as it should
            peer.send(reply, chunks=range(1, len(reply)), delay=SHORT / 10)
            silent(peer)

    return script


def test_a_slow_reply_does_not_extend_the_deadline() -> None:
    with ScriptedServer(dribble(SLOW)) as server, client_of(server, SHORTLY) as client:
        with within(SHORT * 0.9, SHORT * 5), pytest.raises(OperationTimeout):
            client.get("key")
        assert "not connected" in repr(client)


def test_a_slow_reply_does_not_extend_the_deadline_of_a_batch() -> None:
    with ScriptedServer(dribble(SLOW)) as server, client_of(server, SHORTLY) as client:
        with within(SHORT * 0.9, SHORT * 5):
            outcomes = client.get_many_outcomes(["a", "b"])
        assert {type(error) for error in outcomes.errors.values()} == {OperationTimeout}


HUGE: Final = b"x" * 20_000_000  # more than the sockets between client and server hold


WRITES: Final[tuple[Callable[[Client[bytes]], object], ...]] = (
    lambda client: client.set("key", HUGE),
    lambda client: client.set_many({"a": HUGE, "b": b"small"}),
)


@pytest.mark.parametrize("write", WRITES)
def test_a_server_that_reads_nothing_does_not_extend_the_deadline(write: Callable[[Client[bytes]], object]) -> None:
    release = threading.Event()

    def deaf(peer: Peer) -> None:
        release.wait(10.0)
        peer.rst()

    with ScriptedServer(deaf, answering(HIT)) as server, client_of(server, SHORTLY) as client:
        with within(SHORT * 0.9, SHORT * 10), pytest.raises(MetacacheError) as raised:
            write(client)
        release.set()
        assert raised.value.maybe_applied
        assert client.get("key") == b"right"


def test_the_retry_of_a_read_keeps_the_deadline() -> None:
    def stale(peer: Peer) -> None:
        peer.request().answer(*HIT)
        peer.request()
        sleep(SHORT / 2)
        peer.fin()

    with ScriptedServer(stale, silent) as server, client_of(server, SHORTLY) as client:
        assert client.get("key") == b"right"
        with within(SHORT * 0.9, SHORT * 4), pytest.raises(OperationTimeout):
            client.get("key")


def test_the_wait_for_another_thread_counts_for_the_deadline() -> None:
    asked, seconds = threading.Event(), 0.4

    def script(peer: Peer) -> None:
        first = peer.request()
        asked.set()
        sleep(seconds * 0.75)
        first.answer(*HIT)
        silent(peer)

    with ScriptedServer(script) as server, client_of(server, Settings(timeout=seconds)) as client:
        other = threading.Thread(target=client.get, args=("key",))
        other.start()
        assert asked.wait(5.0)
        with within(seconds * 0.7, seconds * 1.5), pytest.raises(OperationTimeout):
            client.get("key")
        other.join()


def test_a_connection_that_another_thread_keeps_is_a_pool_timeout_and_nothing_was_sent() -> None:
    asked, release = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        first = peer.request()
        asked.set()
        release.wait(10.0)
        first.answer(*HIT)
        peer.request().answer(*HIT)
        peer.expect_end()

    with ScriptedServer(script) as server, client_of(server, Settings(timeout=10.0)) as client:
        got: list[bytes | None] = []
        other = threading.Thread(target=lambda: got.append(client.get("key")))
        other.start()
        assert asked.wait(5.0)
        hasty = client.with_options(timeout=SHORT)
        with within(SHORT * 0.9, SHORT * 5), pytest.raises(PoolTimeout) as raised:
            hasty.set("key", b"v")
        assert not raised.value.maybe_applied
        with within(SHORT * 0.9, SHORT * 5):
            outcomes = hasty.set_many_outcomes({"a": b"1"})
        assert [(type(error), error.maybe_applied) for error in outcomes.errors.values()] == [(PoolTimeout, False)]
        release.set()
        other.join()
        assert got == [b"right"]
        assert client.get("key") == b"right"


def test_a_deadline_that_has_passed_sends_nothing() -> None:
    with ScriptedServer(answering(HIT, HIT)) as server, client_of(server, Settings(timeout=5.0)) as client:
        assert client.get("key") == b"right"
        with pytest.raises(OperationTimeout, match="before anything was sent") as raised:
            client.with_options(timeout=1e-9).set("key", b"v")
        assert not raised.value.maybe_applied
        assert client.get("key") == b"right"
        assert server.accepted == 1


# --- dialling ------------------------------------------------------------------------------------------------------


@contextmanager
def deaf_listener() -> Generator[Node]:
    """Yield a loopback port with a full backlog: a further SYN is dropped, as by a dead host."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting: list[socket.socket] = []
        try:
            for _ in range(4):
                sock = socket.socket()
                sock.settimeout(0.0)
                sock.connect_ex(listener.getsockname())
                waiting.append(sock)
            yield Node("{}:{}".format(*listener.getsockname()))
        finally:
            for sock in waiting:
                sock.close()


@pytest.mark.parametrize(
    "settings", [Settings(timeout=5.0, connect_timeout=SHORT), Settings(timeout=SHORT, connect_timeout=5.0)]
)
def test_a_host_that_does_not_answer_is_a_connect_error_at_the_sooner_deadline(settings: Settings) -> None:
    with deaf_listener() as node, Client(Connection(node, settings=settings), owns=True) as client:
        with within(SHORT * 0.9, SHORT * 5), pytest.raises(ConnectError, match="no answer within") as raised:
            client.set("key", b"v")
        assert not raised.value.maybe_applied
        with within(SHORT * 0.4, SHORT * 5):  # a batch dials for half of its time
            outcomes = client.get_many_outcomes(["a", "b"])
        assert {type(error) for error in outcomes.errors.values()} == {ConnectError}


def test_an_unanswered_authentication_is_a_connect_error_at_the_deadline() -> None:
    settings = Settings(timeout=5.0, connect_timeout=SHORT, username="user", password="secret")
    with ScriptedServer(silent) as server, client_of(server, settings) as client:
        with (
            within(SHORT * 0.9, SHORT * 5),
            pytest.raises(ConnectError, match="did not answer the authentication") as raised,
        ):
            client.get("key")
        assert "secret" not in str(raised.value)


def test_a_lookup_that_hangs_times_out_and_its_late_answer_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()
    genuine = socket.getaddrinfo
    asked: list[str] = []

    def slow(host: str, port: int, *rest: int, **more: int) -> object:
        if host != "cache.invalid":
            return genuine(host, port, *rest, **more)
        if more.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        asked.append(host)
        answer.wait(10.0)
        return genuine("127.0.0.1", port, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with ScriptedServer(answering(HIT)) as server:
        settings = Settings(timeout=5.0, connect_timeout=SHORT)
        with Client(Connection(Node(f"cache.invalid:{server.port}"), settings=settings), owns=True) as client:
            for _ in range(2):
                with within(SHORT * 0.9, SHORT * 5), pytest.raises(ConnectError, match="not resolved within"):
                    client.get("key")
            assert asked == ["cache.invalid"], "one lookup runs at a time"
            answer.set()
            assert client.get("key") == b"right"


def test_a_batch_reads_bytes_that_arrived_before_the_deadline() -> None:
    batch = Batch(Verb("get_many", commands.MG_VALUE, is_read=True), ["key"], [b"key"], [b"mg key v f"])
    with ScriptedServer(answering(HIT)) as server, Connection(server.node) as connection:
        deadline = monotonic() + 5.0
        exchange = begin(connection, batch, deadline)
        assert not exchange.advance(monotonic())
        exchange.wait(5.0)
        assert exchange.advance(deadline + 1.0)
        assert exchange.outcomes().values == [b"right"]


def test_an_exchange_without_bytes_at_the_deadline_is_a_timeout() -> None:
    batch = Batch(Verb("get_many", commands.MG_VALUE, is_read=True), ["key"], [b"key"], [b"mg key v f"])
    with ScriptedServer(silent) as server, Connection(server.node) as connection:
        deadline = monotonic() + 5.0
        exchange = begin(connection, batch, deadline)
        assert not exchange.advance(monotonic())
        assert exchange.advance(deadline)
        assert isinstance(exchange.outcomes().errors[0], OperationTimeout)
        assert "not connected" in repr(connection)
