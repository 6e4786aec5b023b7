"""Dialling a node: each kind of address, host names, and socket options."""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, Final

import pytest
from typing_extensions import override

from metacache import (
    Batch,
    Client,
    ConnectError,
    Connection,
    Node,
    OperationTimeout,
    Settings,
    connect,
)
from metacache.protocol import commands
from metacache.transports.base import Verb
from metacache.transports.blocking.exchange import StreamExchange
from metacache.transports.resolving import Resolver as Names
from tests.conftest import start
from tests.pool.rig import begin, until
from tests.scripted import Peer, ScriptedServer, answering, in_turn, silent
from tests.transports.rig import HIT, client_of

GET: Final = Verb("get_many", commands.MG_VALUE, is_read=True)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback address")

# --- addresses ---


@needs_ipv6
def test_an_ipv6_address_is_dialled() -> None:
    with ScriptedServer(answering(HIT), host="::1") as server, client_of(server) as client:
        assert server.node.name == f"[::1]:{server.port}"
        assert client.get("key") == b"right"


def test_a_unix_socket_is_dialled() -> None:
    with ScriptedServer(answering(HIT), unix=True) as server, client_of(server) as client:
        assert client.get("key") == b"right"


def test_a_real_server_on_a_unix_socket_is_used() -> None:
    with start(unix=True) as server, connect(server.url) as client:
        assert client.set("key", b"value")
        assert client.get_many(["key", "none"]) == {"key": b"value"}


def test_a_unix_socket_that_is_not_there_is_a_connect_error_that_says_so(tmp_path: Path) -> None:
    with (
        connect(f"memcached+unix://{tmp_path}/none.sock") as client,
        pytest.raises(ConnectError, match="no such socket"),
    ):
        client.get("key")


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_a_closed_port_is_a_connect_error_that_says_so_and_nothing_was_sent() -> None:
    node = Node(f"127.0.0.1:{closed_port()}")
    with client_of(node) as client, pytest.raises(ConnectError, match="refused; is memcached listening") as raised:
        client.set("key", b"v")
    assert raised.value.node == node.name
    assert not raised.value.maybe_applied


# --- names ---


class Resolver:
    """Replaces the public `socket.getaddrinfo`: knows one name, and counts the lookups."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, addresses: Sequence[str]) -> None:
        self._genuine = socket.getaddrinfo
        self.addresses = addresses
        self.asked = 0
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(
        self,
        host: str,
        port: int,
        family: int = 0,
        type: int = 0,  # noqa: A002 - the name in getaddrinfo
        proto: int = 0,
        flags: int = 0,
    ) -> list[object]:
        if host != "cache.invalid":
            return list(self._genuine(host, port, family, type, proto, flags))
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        self.asked += 1
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [found for address in self.addresses for found in self._genuine(address, port, family, type)]


def test_every_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    Resolver(monkeypatch, ["127.0.0.2", "127.0.0.3", "127.0.0.1"])  # only the last has a listener
    with ScriptedServer(answering(HIT)) as server, client_of(Node(f"cache.invalid:{server.port}")) as client:
        assert client.get("key") == b"right"


@needs_ipv6
def test_a_dead_ipv6_address_does_not_hide_a_live_ipv4_one(monkeypatch: pytest.MonkeyPatch) -> None:
    Resolver(monkeypatch, ["::1", "127.0.0.1"])
    with ScriptedServer(answering(HIT)) as server, client_of(Node(f"cache.invalid:{server.port}")) as client:
        assert client.get("key") == b"right"


def test_a_name_whose_addresses_all_fail_is_a_connect_error_that_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    Resolver(monkeypatch, ["127.0.0.2", "127.0.0.1"])
    node = Node(f"cache.invalid:{closed_port()}")
    with client_of(node) as client, pytest.raises(ConnectError, match="refused"):
        client.get("key")


def test_a_name_that_is_not_known_is_a_connect_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    Resolver(monkeypatch, [])
    with (
        client_of(Node("cache.invalid:11211")) as client,
        pytest.raises(ConnectError, match=r"'cache\.invalid' could"),
    ):
        client.get("key")


def test_resolved_addresses_are_kept_while_they_work(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(monkeypatch, ["127.0.0.1"])
    once = in_turn(lambda peer: peer.request().answer(*HIT), Peer.fin)
    with ScriptedServer(once, once, answering(HIT)) as server:
        client = client_of(Node(f"cache.invalid:{server.port}"))
        assert [client.get("key") for _ in range(3)] == [b"right"] * 3
        client.close()
    assert resolver.asked == 1


def test_while_addresses_are_kept_another_lookup_has_half_of_the_time() -> None:
    names = Names(Node("localhost:1"))
    assert names.seconds_to_wait(1.0) == 1.0
    asked = names.start_lookup()
    asked.wait(10.0)
    assert names.addresses_after(asked)
    assert names.seconds_to_wait(1.0) == 0.5
    with pytest.raises(ConnectError, match="no time was left") as raised:
        names.seconds_to_wait(0.0)
    assert raised.value.is_local


def test_a_caller_without_time_does_not_drop_the_resolved_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(monkeypatch, ["127.0.0.1"])
    once = in_turn(lambda peer: peer.request().answer(*HIT), Peer.fin)
    with ScriptedServer(once, answering(HIT)) as server, client_of(Node(f"cache.invalid:{server.port}")) as client:
        assert client.get("key") == b"right"
        until(lambda: _is_refused(client.with_options(timeout=1e-9)))
        assert client.get("key") == b"right"
    assert resolver.asked == 1


def _is_refused(client: Client[bytes]) -> bool:
    try:
        client.get("key")
    except ConnectError:  # the server's FIN has arrived, so the client had to dial
        return True
    except OperationTimeout:  # it has not arrived yet
        return False
    raise AssertionError("it did not fail")


class Late(Resolver):
    """A resolver that answers when the test allows it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, addresses: Sequence[str]) -> None:
        super().__init__(monkeypatch, addresses)
        self.may_answer = threading.Event()

    @override
    def __call__(self, host: str, *rest: Any, **more: Any) -> list[object]:  # Any: as its base
        if host == "cache.invalid" and not more.get("flags", 0):
            assert self.may_answer.wait(10.0)
        return super().__call__(host, *rest, **more)

    def answers(self) -> None:
        """Allow it to answer, and wait until the lookup's thread has ended."""
        self.may_answer.set()
        until(lambda: not any(thread.name == "metacache-resolve" for thread in threading.enumerate()))


def test_a_failed_lookup_that_no_caller_waited_for_does_not_fail_the_next_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolver = Late(monkeypatch, [])
    with ScriptedServer(answering(HIT)) as server, client_of(Node(f"cache.invalid:{server.port}")) as client:
        with pytest.raises(ConnectError, match="was not resolved within"):
            client.with_options(timeout=0.05).get("key")
        resolver.answers()
        resolver.addresses = ["127.0.0.1"]
        assert client.get("key") == b"right"
    assert resolver.asked == 2


def test_addresses_that_arrive_after_the_caller_timed_out_are_used_without_another_lookup(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolver = Late(monkeypatch, ["127.0.0.1"])
    with ScriptedServer(answering(HIT)) as server, client_of(Node(f"cache.invalid:{server.port}")) as client:
        with pytest.raises(ConnectError, match="was not resolved within"):
            client.with_options(timeout=0.05).get("key")
        resolver.answers()
        resolver.addresses = []
        assert client.get("key") == b"right"
    assert resolver.asked == 1


def test_a_name_that_idna_refuses_is_a_connect_error() -> None:
    with (
        client_of(Node("a" * 70 + ".invalid:1")) as client,
        pytest.raises(ConnectError, match="could not be resolved"),
    ):
        client.get("key")


# --- options of the socket ---


@contextmanager
def socket_of(connection: Connection) -> Generator[socket.socket]:
    """Yield the socket of the connection, duplicated from the descriptor of an exchange."""
    exchange = begin(connection, Batch(GET, ["k"], [b"k"], [b"mg k v f"]), float("inf"))
    exchange.advance(monotonic())  # dials
    assert isinstance(exchange, StreamExchange)
    with socket.socket(fileno=socket.dup(exchange.fileno())) as sock:
        yield sock
    exchange.outcomes()


def test_small_requests_are_sent_without_delay() -> None:
    with ScriptedServer(silent) as server, Connection(server.node) as connection, socket_of(connection) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


def test_keepalive_is_set_when_asked_for() -> None:
    settings = Settings(keepalive=30)
    with (
        ScriptedServer(silent) as server,
        Connection(server.node, settings=settings) as connection,
        socket_of(connection) as sock,
    ):
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        if hasattr(socket, "TCP_KEEPIDLE"):  # the names differ between platforms
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 10
