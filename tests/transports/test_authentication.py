"""User and password: sent first on each connection, and never shown in an error, a log line or a repr."""

from __future__ import annotations

import logging
from collections.abc import Generator

import pytest

from metacache import AuthenticationError, ConnectError, Settings, connect, connect_async
from metacache.testing import Memcached
from tests.conftest import start
from tests.scripted import Peer, ScriptedServer, in_turn
from tests.transports.rig import HIT, client_of


@pytest.fixture(scope="module")
def guarded_server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Memcached]:
    passwords = tmp_path_factory.mktemp("auth") / "passwords"
    passwords.write_text("user:secret\n")
    with start("-Y", str(passwords)) as server:
        yield server


def test_user_and_password_are_sent_first(guarded_server: Memcached) -> None:
    with connect(guarded_server.url.replace("//", "//user:secret@")) as client:
        assert client.set("key", b"value")
        assert client.get_many(["key"]) == {"key": b"value"}


@pytest.mark.parametrize("credentials", ["", "gustav:hunter2@", "other:hunter2@"])
def test_with_a_wrong_password_nothing_is_done_and_no_credential_appears_in_errors_or_logs(
    guarded_server: Memcached, credentials: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with connect(guarded_server.url.replace("//", f"//{credentials}")) as client:
        for _ in range(2):
            with pytest.raises(AuthenticationError) as raised:
                client.set("key", b"v")
            assert not raised.value.maybe_applied
            for word in filter(None, credentials.strip("@").split(":")):
                assert word not in str(raised.value)
        outcomes = client.get_many_outcomes(["a", "b"])
        assert all(isinstance(error, AuthenticationError) for error in outcomes.errors.values()) or not credentials
        for word in filter(None, credentials.strip("@").split(":")):
            assert word not in repr(client)
            assert word not in caplog.text


BOTH = pytest.mark.parametrize("blocking", [True, False])


@BOTH
async def test_without_credentials_the_error_says_how_to_set_them(guarded_server: Memcached, *, blocking: bool) -> None:
    error = await refusal(guarded_server.url, blocking=blocking)
    assert "give Settings(username=..., password=...) or memcached://user:password@host" in str(error)


@BOTH
async def test_refused_credentials_are_not_in_the_servers_file(guarded_server: Memcached, *, blocking: bool) -> None:
    error = await refusal(guarded_server.url.replace("//", "//gustav:hunter2@"), blocking=blocking)
    assert "user or password refused: they are not in the server's file (-Y)" in str(error)


async def refusal(url: str, *, blocking: bool) -> AuthenticationError:
    if blocking:
        with connect(url) as client, pytest.raises(AuthenticationError) as raised:
            client.get("key")
        return raised.value
    async with connect_async(url) as waiting:
        with pytest.raises(AuthenticationError) as refused:
            await waiting.get("key")
    return refused.value


def test_a_refused_password_causes_one_dial_per_call() -> None:
    def refusing(peer: Peer) -> None:
        peer.expect(b"set metacache_authentication 0 -1 11\r\nuser secret\r\n")
        peer.send(b"CLIENT_ERROR authentication failure\r\n")
        peer.expect_end()

    settings = Settings(username="user", password="secret")
    with ScriptedServer(refusing, refusing) as server, client_of(server, settings) as client:
        for number in (1, 2):
            with pytest.raises(AuthenticationError):
                client.get("key")
            assert server.accepted == number


def test_each_new_connection_is_authenticated() -> None:
    def once(peer: Peer) -> None:
        peer.expect(b"set metacache_authentication 0 -1 11\r\nuser secret\r\n")
        peer.send(b"STORED\r\n")
        peer.request().answer(*HIT)

    settings = Settings(username="user", password="secret")
    first = in_turn(once, Peer.fin)
    with ScriptedServer(first, in_turn(once, Peer.expect_end)) as server, client_of(server, settings) as client:
        assert client.get("key") == b"right"
        assert client.get("key") == b"right"


@pytest.mark.parametrize("reply", [b"HD\r\n", b"STORED X", b"ERROR\r\n", b"\0\0\r\n"])
def test_an_unexpected_answer_to_the_authentication_is_a_connect_error(reply: bytes) -> None:
    def strange(peer: Peer) -> None:
        peer.request()
        peer.send(reply)
        peer.fin()

    settings = Settings(username="user", password="secret")
    with (
        ScriptedServer(strange) as server,
        client_of(server, settings) as client,
        pytest.raises(ConnectError, match="authentication"),
    ):
        client.get("key")


def test_a_server_without_passwords_stores_no_credentials_and_keeps_its_items(memcached: Memcached) -> None:
    with connect(memcached.url) as client:
        client.set("auth", b"an item")
    with connect(memcached.url.replace("//", "//user:secret@")) as client:
        assert client.get("auth") == b"an item"
        assert client.get("metacache_authentication") is None
        assert client.inspect("metacache_authentication") is None
