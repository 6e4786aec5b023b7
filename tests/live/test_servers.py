"""Real servers that are frozen, killed, restarted, or started with unusual options."""

from __future__ import annotations

from collections.abc import Callable
from time import sleep
from typing import Final

import pytest

from metacache import (
    Client,
    ClientError,
    ConnectError,
    Connection,
    MetacacheError,
    OperationTimeout,
    ServerError,
    Settings,
    StoreResult,
    connect,
)
from metacache.operations.requests import operation
from metacache.protocol import commands
from metacache.protocol.commands import Request
from metacache.protocol.replies import Reply
from metacache.testing import Memcached
from metacache.transports.base import Verb
from tests.conftest import start
from tests.transports.rig import IDLE

QUICK: Final = Settings(timeout=0.3)


def admin(connection: Connection, request: Request) -> Reply:
    """Run a request that no client method sends; return its reply."""
    verb = Verb(request.command.name, request.command)
    return connection.run(operation(verb, None, b"", request.head, None, lambda reply: reply))


# --- frozen, killed, restarted -----------------------------------------------------------------------------------


def test_a_frozen_server_is_a_timeout_and_its_late_reply_is_dropped(memcached: Memcached) -> None:
    with connect(memcached.url, settings=QUICK) as client:
        assert client.set_many({"a": b"value of a", "b": b"value of b"})
        memcached.freeze()
        with pytest.raises(OperationTimeout) as read:
            client.get("a")
        with pytest.raises(MetacacheError) as written:
            client.set("b", b"new")
        memcached.thaw()
        assert not read.value.maybe_applied
        assert written.value.maybe_applied or isinstance(written.value, ConnectError)
        patient = client.with_options(timeout=5.0)
        for _ in range(3):
            assert patient.get("a") == b"value of a"
            assert patient.get("b") in (b"value of b", b"new")
            assert patient.get_many(["b", "a"])["a"] == b"value of a"


def test_a_batch_to_a_frozen_server_times_out_for_every_key(memcached: Memcached) -> None:
    with connect(memcached.url, settings=QUICK) as client:
        assert client.set("a", b"value of a")
        memcached.freeze()
        outcomes = client.set_many_outcomes({"a": b"new", "b": b"new"})
        memcached.thaw()
        assert {type(error) for error in outcomes.errors.values()} == {OperationTimeout}
        assert all(error.maybe_applied for error in outcomes.errors.values())
        assert client.with_options(timeout=5.0).get("none") is None


RESTARTED: Final[tuple[Callable[[Client[bytes]], object], ...]] = (
    lambda client: client.get("key"),
    lambda client: client.get_many(["a", "b"]),
    lambda client: client.set("key", b"v"),
    lambda client: client.set_many({"a": b"1"}),
    lambda client: client.delete("key"),
    lambda client: client.append("key", b"v"),
)


@pytest.mark.parametrize("operation_", RESTARTED)
def test_a_restart_between_two_requests_goes_unnoticed(
    memcached: Memcached, operation_: Callable[[Client[bytes]], object]
) -> None:
    with connect(memcached.url, settings=Settings(timeout=5.0)) as client:
        assert client.set("key", b"v")
        memcached.restart()
        sleep(IDLE)  # long enough that the client checks the connection before it uses it
        operation_(client)
        assert client.set("key", b"right")
        assert client.get("key") == b"right"


def test_a_killed_server_is_a_connect_error_until_it_is_restarted(memcached: Memcached) -> None:
    # In a cluster, the fourth and later operations would fail fast.
    with Client(Connection(memcached.node, settings=Settings(timeout=5.0)), owns=True) as client:
        assert client.set("key", b"v")
        memcached.kill()
        for _ in range(3):
            with pytest.raises(ConnectError, match="refused"):
                client.get("key")
            with pytest.raises(ConnectError, match="refused"):
                client.set("key", b"v")
        memcached.restart()
        assert client.get("key") is None
        assert client.set("key", b"v")


# --- unusual options -----------------------------------------------------------------------------------------------


def test_a_server_without_cas_returns_cas_0_and_update_is_refused() -> None:
    with start("-C") as server, connect(server.url) as client:
        assert client.set("key", b"v")
        item = client.get_item("key")
        assert item is not None
        assert item.cas == 0
        assert client.compare_and_set("key", b"new", 5) is StoreResult.EXISTS
        with pytest.raises(ServerError, match="without CAS"):
            client.update("key", lambda _: b"new")
        assert client.get("key") == b"v"


def test_a_server_that_refuses_flush_all_keeps_the_connection() -> None:
    with start("-F") as server, Connection(server.node) as connection:
        client = Client(connection)
        assert client.set("key", b"v")
        with pytest.raises(ClientError, match="flush_all not allowed"):
            admin(connection, commands.flush_all())
        assert "idle" in repr(connection)
        assert client.get("key") == b"v"


def test_the_administrative_commands_get_the_expected_replies(memcached: Memcached) -> None:
    with Connection(memcached.node) as connection:
        assert admin(connection, commands.version())[0][0] == b"VERSION"
        lines, _ = admin(connection, commands.stats())
        assert lines[-1] == b"END"
        assert any(line.startswith(b"STAT curr_connections ") for line in lines)
        assert admin(connection, commands.stats("reset")) == ([b"RESET"], None)
        assert admin(connection, commands.stats("items")) == ([b"END"], None)
        assert admin(connection, commands.verbosity(0)) == ([b"OK"], None)
        assert admin(connection, commands.cache_memlimit(64)) == ([b"OK"], None)
        assert admin(connection, commands.cache_memlimit(1))[0][0] == b"MEMLIMIT_TOO_SMALL"
        assert admin(connection, commands.meta_noop()) == ([b"MN"], None)
        for refused in (commands.config_get_cluster(), commands.stats("nonsense")):
            with pytest.raises(ClientError):
                admin(connection, refused)
        client = Client(connection)
        assert client.set("key", b"v")
        assert admin(connection, commands.flush_all()) == ([b"OK"], None)
        assert client.get("key") is None


def test_a_full_server_is_a_connect_error_and_not_a_protocol_error() -> None:
    settings = Settings(timeout=2.0)
    with start("-c", "40", "-t", "1") as server:
        clients = [Client(Connection(server.node, settings=settings), owns=True) for _ in range(80)]
        failures: list[str] = []
        for client in clients:
            try:
                client.get("key")
            except MetacacheError as error:
                failures.append(type(error).__name__)
        assert set(failures) <= {"ConnectError", "ConnectionLost", "OperationTimeout"}
        assert failures, "forty connections are not eighty"
        for client in clients:
            client.close()
