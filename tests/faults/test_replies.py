"""Servers that answer wrongly: for both clients, each on a connection, in a pool and in a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Final

import pytest

from metacache import (
    ClientError,
    ConnectionLost,
    InvalidKeyError,
    OperationTimeout,
    ProtocolError,
    ServerError,
    Settings,
)
from metacache.serializers import IntSerializer
from metacache.testing import Memcached
from tests.faults.rig import QUICK, every_kind, fails_and_recovers, is_blocking, opened, typed
from tests.scripted import Asked, Peer, ScriptedServer, answering, in_turn
from tests.transports.rig import HIT

CUT: Final = b"VA 100 f0 @\r\n" + b"x" * 40


@every_kind
async def test_a_server_closes_in_the_middle_of_a_value(kind: str) -> None:
    await fails_and_recovers(kind, CUT, Peer.fin, ConnectionLost)


@every_kind
async def test_a_server_resets_in_the_middle_of_a_value(kind: str) -> None:
    await fails_and_recovers(kind, CUT, Peer.rst, ConnectionLost)


@every_kind
@pytest.mark.parametrize("part", [b"V", b"VA 1", b"H", b"HD", b"EN @", b"EN @\r", b"VA 5 f0 @\r\nhello\r"])
async def test_a_reply_ends_in_the_middle_of_its_header(kind: str, part: bytes) -> None:
    await fails_and_recovers(kind, part, Peer.fin, ConnectionLost)


@every_kind
async def test_a_reply_is_cut_at_any_byte(kind: str) -> None:
    value = b"EN\r\nVA 5 f0\r\nhello\r\n"
    whole = len(b"VA 20 f0 O1\r\n") + len(value) + 2

    def script(peer: Peer) -> None:
        for cut in range(1, whole):
            peer.send(peer.request().reply(b"VA 20 f0", value), chunks=[cut], delay=0.001)
        peer.send(peer.request().reply(b"VA 20 f0", value), chunks=range(1, whole))
        peer.expect_end()

    with ScriptedServer(script) as server:
        async with opened(kind, server.node) as client:
            for _ in range(whole):
                assert await client.get("key") == value


@every_kind
async def test_a_slow_reply_does_not_extend_the_deadline(kind: str) -> None:
    def script(peer: Peer) -> None:
        reply = peer.request().reply(b"VA 100 f0", b"x" * 100)
        with contextlib.suppress(OSError):  # the client closes
            peer.send(reply, chunks=range(1, len(reply)), delay=0.02)

    with ScriptedServer(script) as server:
        async with opened(kind, server.node, QUICK) as client:
            began = time.monotonic()
            with pytest.raises(OperationTimeout):
                await client.get("key")
            assert time.monotonic() - began < 1.5


@every_kind
async def test_one_and_a_half_replies_arrive_in_one_packet(kind: str) -> None:
    def script(peer: Peer) -> None:
        replies = b"".join(asked.reply(b"VA 1 f0", asked.line[3:4]) for asked in peer.requests(3))
        middle = len(replies) // 2
        peer.send(replies, chunks=[middle], delay=0.02)
        peer.expect_end()

    with ScriptedServer(script) as server:
        async with opened(kind, server.node) as client:
            if is_blocking(kind):
                assert await client.get_many(["a", "b", "c"]) == {"a": b"a", "b": b"b", "c": b"c"}
            else:
                found = await asyncio.gather(*(client.get(key) for key in "abc"))
                assert found == [b"a", b"b", b"c"]


@every_kind
async def test_a_value_is_longer_than_its_header_says(kind: str) -> None:
    await fails_and_recovers(kind, b"VA 3 f0 @\r\nabcdef\r\n", Peer.expect_end, ProtocolError)


LENGTHS: Final = [b"-1", b"", b"abc", b"+3", b"1_0", "٣".encode(), b"0x3", b" 3", b"3.0"]


@every_kind
@pytest.mark.parametrize("length", LENGTHS, ids=repr)
async def test_a_length_is_not_a_plain_number(kind: str, length: bytes) -> None:
    await fails_and_recovers(kind, b"VA %b f0 @\r\nabc\r\n" % length, Peer.expect_end, ProtocolError)


@every_kind
@pytest.mark.parametrize("length", [b"99999999999999999999", b"4294967296", b"1073741825"])
async def test_a_length_is_gigantic(kind: str, length: bytes) -> None:
    await fails_and_recovers(kind, b"VA %b f0 @\r\nabc" % length, Peer.expect_end, ProtocolError)


@every_kind
async def test_a_header_has_no_end(kind: str) -> None:
    await fails_and_recovers(kind, b"x" * 10_000_000, Peer.expect_end, ProtocolError)


STRANGE: Final = [
    b"ZZ @\r\n",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"\x15\x03\x03\0\x02\x02\x28\r\n",
    b"\0\0\r\n",
    b"\r\n",
]


@every_kind
@pytest.mark.parametrize("reply", STRANGE, ids=repr)
async def test_a_reply_is_of_another_protocol(kind: str, reply: bytes) -> None:
    await fails_and_recovers(kind, reply, Peer.expect_end, ProtocolError)


@every_kind
@pytest.mark.parametrize("reply", [b"NF @\r\n", b"NS @\r\n", b"MN\r\n", b"ME k\r\n", b"HD @\r\n"], ids=repr)
async def test_a_reply_code_is_impossible_for_the_command(kind: str, reply: bytes) -> None:
    await fails_and_recovers(kind, reply, Peer.expect_end, ProtocolError)


@every_kind
@pytest.mark.parametrize("reply", [b"VA 1 @\r\nx\r\n", b"EN @\r\n", b"MN\r\n"], ids=repr)
async def test_a_reply_code_is_impossible_for_a_write(kind: str, reply: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.send(reply.replace(b"@", peer.request().opaque))
        peer.expect_end()

    with ScriptedServer(script) as server:
        async with opened(kind, server.node) as client:
            with pytest.raises(ProtocolError) as raised:
                await client.set("key", b"value")
            assert raised.value.maybe_applied


OPAQUES: Final = [b"EN O9999\r\n", b"EN\r\n", b"VA 5 f0 O9999\r\nwrong\r\n", b"VA 5 f0\r\nwrong\r\n"]


@every_kind
@pytest.mark.parametrize("reply", OPAQUES, ids=repr)
async def test_the_opaque_is_missing_or_that_of_another_request(kind: str, reply: bytes) -> None:
    await fails_and_recovers(kind, reply, Peer.expect_end, ProtocolError)


@every_kind
async def test_bytes_arrive_on_an_idle_connection(kind: str) -> None:
    def script(peer: Peer) -> None:
        peer.request().answer(*HIT)
        time.sleep(0.1)  # in the same packet as the reply, the bytes would be a surplus reply
        peer.send(b"EN\r\n")
        peer.expect_end()

    with ScriptedServer(script, answering(HIT)) as server:
        async with opened(kind, server.node) as client:
            assert await client.get("key") == b"right"
            await asyncio.sleep(0.3)
            assert await client.get("key") == b"right"
        assert server.accepted == 2


@every_kind
async def test_more_replies_arrive_than_requests_were_sent(kind: str) -> None:
    def script(peer: Peer) -> None:
        peer.send(peer.request().reply(*HIT) + b"MN\r\n")
        peer.expect_end()

    with ScriptedServer(script, answering(HIT)) as server:
        async with opened(kind, server.node) as client:
            assert await client.get("key") == b"right"
            assert await client.get("key") == b"right"
        assert server.accepted == 2


@every_kind
async def test_a_server_out_of_memory_fails_one_request_of_a_batch(kind: str) -> None:
    def script(peer: Peer) -> None:
        first, _, third = peer.requests(3)
        peer.send(first.reply(b"HD") + b"SERVER_ERROR out of memory storing object\r\n" + third.reply(b"HD"))
        peer.request().answer(*HIT)
        peer.expect_end()

    with ScriptedServer(script) as server:
        async with opened(kind, server.node) as client:
            outcomes = await client.set_many_outcomes({"a": b"1", "b": b"2", "c": b"3"})
            assert set(outcomes.results) >= {"a", "c"}
            assert isinstance(outcomes.errors["b"], ServerError)
            assert await client.get("key") == b"right"
        assert server.accepted == 1


@every_kind
async def test_a_value_of_a_batch_is_too_large_for_the_server(kind: str, memcached: Memcached) -> None:
    async with opened(kind, memcached.node) as client:
        await client.set("big", b"old")
        values = {"a": b"1", "big": b"x" * 1_100_000, "c": b"3"}
        outcomes = await client.set_many_outcomes(values)
        assert set(outcomes.errors) == {"big"}
        assert await client.get_many(list(values)) == {"a": b"1", "c": b"3"}


@every_kind
async def test_a_batch_is_never_sent_with_the_quiet_flag(kind: str) -> None:
    asked: list[Asked] = []

    def script(peer: Peer) -> None:
        requests = peer.requests(3)
        asked.extend(requests)
        peer.send(requests[0].reply(*HIT) + b"CLIENT_ERROR bad command line format\r\n" + requests[2].reply(*HIT))
        peer.expect_end()

    with ScriptedServer(script) as server:
        async with opened(kind, server.node) as client:
            outcomes = await client.get_many_outcomes(["a", "b", "c"])
            assert outcomes.results == {"a": b"right", "c": b"right"}
            assert isinstance(outcomes.errors["b"], ClientError), "an error line is never a miss"
    assert not any(b"q" in request.line.split()[2:] for request in asked)


@every_kind
@pytest.mark.parametrize("line", [b"CLIENT_ERROR bad data chunk\r\n", b"CLIENT_ERROR bad command line format\r\n"])
async def test_a_server_refuses_the_form_of_a_set(kind: str, line: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(line)
        peer.expect_end()

    with ScriptedServer(script, answering(HIT)) as server:
        async with opened(kind, server.node) as client:
            with pytest.raises(ClientError):
                await client.set("key", b"value")
            assert await client.get("key") == b"right"
        assert server.accepted == 2


TOO_LONG_OR_WRONG: Final[list[str | bytes]] = ["", "x" * 251, "é" * 250, "\ud800", b"x" * 251, "a b" * 80]


@every_kind
async def test_keys_and_arguments_cannot_add_a_request(kind: str, memcached: Memcached) -> None:
    async with opened(kind, memcached.node) as client:
        for key in TOO_LONG_OR_WRONG:
            with pytest.raises(InvalidKeyError):
                await client.get(key)
            with pytest.raises(InvalidKeyError):
                await client.get_many(["good", key])
        for key in ("a v\r\nflush_all\r\n", "a b", "tab\t", "nul\0", "\x7f", b"\r\n"):
            await client.set(key, b"stored")
            assert await client.get(key) == b"stored"
        for ttl in ("1 q", True, 1.5, float("nan"), 2**31, -(2**63)):
            with pytest.raises((ValueError, TypeError)):
                # a wrong type
                await client.set("key", b"value", ttl=ttl)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        assert await client.get("a b") == b"stored"


@every_kind
async def test_a_reply_is_correct_but_misleading(kind: str) -> None:
    script = in_turn(
        lambda peer: peer.request().answer(b"VA 0 f0 W", b""),  # a lease placeholder
        lambda peer: peer.request().answer(b"VA 2", b"9 "),  # a number with padding
        lambda peer: peer.request().answer(b"VA 1 f0 c7 t4294967233 h1 l0", b"1"),  # a ttl that has wrapped
        Peer.expect_end,
    )
    with ScriptedServer(script) as server:
        async with typed(kind, server.node, IntSerializer()) as numbers:
            assert await numbers.get("key") is None
            assert await numbers.decrement("key") == 9
            item = await numbers.get_item("key")
            assert item is not None
            assert item.ttl == 0


@every_kind
async def test_a_large_batch_never_deadlocks_on_full_buffers(kind: str, memcached: Memcached) -> None:
    value = b"x" * 100_000
    keys = [f"key-{number}" for number in range(200)]
    async with opened(kind, memcached.node, Settings(timeout=20.0, pool_size=2)) as client:
        await client.set_many(dict.fromkeys(keys, value))
        found = await client.get_many([*keys, *(f"none-{number}" for number in range(2000))])
        assert all(value == found[key] for key in found)
        assert len(found) >= 150, "most of 20 MB fit into the server"


@every_kind
async def test_a_server_that_stops_reading_ends_a_large_write_at_its_deadline(kind: str) -> None:
    def script(peer: Peer) -> None:
        time.sleep(1.0)
        with contextlib.suppress(OSError):
            while peer.sock.recv(1 << 20):
                pass

    with ScriptedServer(script) as server:
        async with opened(kind, server.node, QUICK) as client:
            began = time.monotonic()
            outcomes = await client.set_many_outcomes({f"k{number}": b"x" * 500_000 for number in range(40)})
            assert time.monotonic() - began < 3
            assert len(outcomes.errors) == 40
