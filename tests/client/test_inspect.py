"""`inspect` has no opaque, so the client checks that the key in the reply is the requested key."""

from __future__ import annotations

import base64

import pytest

from metacache import ConnectionLost, Metadata, ProtocolError
from metacache.protocol import commands
from metacache.protocol.commands import Request
from tests import raw_requests
from tests.client.rig import KINDS, Clients, ask
from tests.scripted import Peer, Script, ScriptedServer

REST = b"exp=-1 la=3 cas=7 fetch=no cls=1 size=64"


def answering(*lines: bytes) -> Script:
    def script(peer: Peer) -> None:
        for line in lines:
            peer.request()
            peer.send(line + b"\r\n")
        peer.expect_end()

    return script


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "line",
    [
        b"ME secret " + REST,
        b"ME ke " + REST,
        b"ME key1 " + REST,
        b"ME KEY " + REST,
        b"ME a2V5Cg== " + REST,
        b"ME  " + REST,
        b"ME " + REST,
        b"ME " + REST + b" key",
        b"ME exp=key " + REST,
        b"ME",
        b"ME ",
    ],
)
async def test_metadata_of_another_key_closes_the_connection(kind: str, line: bytes) -> None:
    with ScriptedServer(answering(line), answering(b"ME key " + REST)) as server:
        clients = Clients(kind, server.node)
        client = clients.blobs()
        with pytest.raises(ProtocolError, match="a reply to me is for another key; the connection is closed") as failed:
            await client.inspect("key")
        assert (failed.value.operation, failed.value.key) == ("inspect", "key")
        assert "secret" not in str(failed.value)
        found = await client.inspect("key")
        assert isinstance(found, Metadata)
        assert found.cas == 7
        assert server.accepted == 2
        await clients.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_metadata_is_returned_for_each_spelling_of_the_key(kind: str) -> None:
    lines = (b"ME key " + REST, b"ME " + base64.b64encode(b"key") + b" " + REST, b"ME  key  " + REST, b"EN")
    with ScriptedServer(answering(*lines)) as server:
        clients = Clients(kind, server.node)
        client = clients.blobs()
        for _ in lines[:3]:
            found = await client.inspect("key")
            assert found is not None
            assert found.cas == 7
        assert await client.inspect("key") is None
        await clients.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_requests_behind_metadata_of_another_key_fail(kind: str) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(b"ME secret " + REST + b"\r\nME key " + REST + b"\r\n")
        peer.expect_end()

    with ScriptedServer(script) as server:
        clients = Clients(kind, server.node)
        with pytest.raises((ProtocolError, ConnectionLost)):
            await clients.blobs().inspect("key")
        await clients.aclose()


@pytest.mark.parametrize("key", ["plain", "ä", "a=b", "ME", "EN", "b"])
async def test_a_real_server_returns_the_stored_spelling_of_the_key(clients: Clients, key: str) -> None:
    client = clients.blobs()
    token = base64.b64encode(key.encode())
    for head in (b"ms %b 1 b" % token, b"ms %b 1" % key.encode()):
        assert ask(clients.node, Request(commands.MS, head, b"x"))[0] == [b"HD"]
        found = await client.inspect(key)
        assert found is not None
        assert found.cas > 0
        for asked in (b"me %b" % key.encode(), b"me %b b b" % token):
            assert ask(clients.node, Request(commands.ME, asked))[0][0] == b"ME"
    assert await client.delete(key)
    assert await client.inspect(key) is None


def test_a_custom_me_request_is_checked_too() -> None:
    with ScriptedServer(answering(b"ME secret " + REST)) as server, pytest.raises(ProtocolError, match="another key"):
        ask(server.node, raw_requests.meta_debug(b"key"))
