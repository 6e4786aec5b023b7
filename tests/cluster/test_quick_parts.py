"""A batch whose nodes are connected runs in compiled code. What that cannot finish goes on in Python, node by node."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final
from unittest.mock import patch

import pytest

from metacache import (
    Client,
    Cluster,
    ConnectionLost,
    MetacacheError,
    Node,
    OperationTimeout,
    Outcomes,
    ProtocolError,
    ServerError,
    Settings,
    StoreResult,
    accelerated,
)
from metacache.acceleration import exchange_parts
from metacache.cluster import blocking_batch, quick_parts
from metacache.cluster.quick_parts import run_quickly
from tests.cluster.rig import keys_of
from tests.scripted import Asked, Peer, Script, ScriptedServer, silent

pytestmark = pytest.mark.skipif(not accelerated, reason="the compiled primitives are not used")

COUNT: Final = 3  # keys of each node
QUICK: Final = Settings(timeout=0.5)
PATIENT: Final = Settings(timeout=20.0)
Reply = Callable[[Peer, list[Asked]], None]


def whole(asked: list[Asked]) -> bytes:
    """Return a hit for each request: the value is its key."""
    return b"".join(each.reply(b"VA %d f0" % len(key), key) for each in asked for key in [each.line.split()[1]])


def at_once(peer: Peer, asked: list[Asked]) -> None:
    peer.send(whole(asked))


def in_two_pieces(peer: Peer, asked: list[Asked]) -> None:
    peer.send(whole(asked), chunks=[9], delay=0.1)


def between_two_replies(peer: Peer, asked: list[Asked]) -> None:
    peer.send(whole(asked[:1]))
    time.sleep(0.1)
    peer.send(whole(asked[1:]))


def late(peer: Peer, asked: list[Asked]) -> None:
    time.sleep(0.2)  # longer than the compiled code waits
    peer.send(whole(asked))


def reset(peer: Peer, _: list[Asked]) -> None:
    peer.rst()


def end(peer: Peer, _: list[Asked]) -> None:
    peer.fin()


def an_error_line(peer: Peer, asked: list[Asked]) -> None:
    peer.send(whole(asked[:1]) + b"SERVER_ERROR out of memory\r\n" + whole(asked[2:]))


def another_opaque(peer: Peer, asked: list[Asked]) -> None:
    peer.send(whole(asked[:-1]) + b"EN O99999\r\n")


def nothing(peer: Peer, _: list[Asked]) -> None:
    silent(peer)


def surplus(peer: Peer, asked: list[Asked]) -> None:
    peer.send(whole(asked) + b"EN\r\n")


def serve(peer: Peer, count: int = COUNT) -> None:
    """Answer every batch of *count* requests at once, until the client ends the connection."""
    with contextlib.suppress(AssertionError, ConnectionResetError):
        while True:
            at_once(peer, peer.requests(count))


def script_of(*replies: Reply) -> Script:
    """Return a script that answers one batch with each of *replies*, and waits for the end."""

    def script(peer: Peer) -> None:
        for reply in replies:
            reply(peer, peer.requests(COUNT))
        if replies[-1] not in (reset, end, nothing):
            peer.expect_end()

    return script


@contextmanager
def connected(reply: Reply, *more: Script, settings: Settings = PATIENT) -> Generator[tuple[Client[bytes], list[str]]]:
    """Yield a client of two connected nodes and keys of both. Node b answers the next batch with *reply*."""
    with (
        ScriptedServer(serve) as a,
        ScriptedServer(script_of(at_once, reply), *more) as b,
        Cluster([Node(a.node.address, name="a"), Node(b.node.address, name="b")], settings=settings) as cluster,
    ):
        client = Client(cluster)
        keys = [*keys_of(cluster, "a", COUNT), *keys_of(cluster, "b", COUNT)]
        assert client.get_many(keys) == expected(keys)
        yield client, keys


def expected(keys: list[str]) -> dict[str, bytes]:
    return {key: key.encode() for key in keys}


def outcomes_of(client: Client[bytes], keys: list[str], left: int, longest: float = 5.0) -> Outcomes[str, bytes]:
    """Return the outcomes of a batch of which compiled code leaves *left* parts to Python after *longest* seconds."""
    unfinished: list[int] = []

    def spy(*arguments: Any, **named: Any) -> object:  # Any: those of run_quickly
        parts = run_quickly(*arguments, **named)
        unfinished.append(-1 if parts is None else len(parts))
        return parts

    with patch.object(blocking_batch, "run_quickly", spy), patch.object(quick_parts, "LONGEST", longest):
        found = client.get_many_outcomes(keys)
    assert unfinished == [left]
    return found


def test_replies_that_arrive_at_once_need_no_python() -> None:
    with connected(at_once) as (client, keys):
        found = outcomes_of(client, keys, 0)
        assert found.results == expected(keys)
        assert not found.errors


def test_a_part_of_one_key_needs_no_python() -> None:
    def serve_one(peer: Peer) -> None:
        serve(peer, 1)

    with (
        ScriptedServer(serve_one) as a,
        ScriptedServer(serve_one) as b,
        Cluster([Node(a.node.address, name="a"), Node(b.node.address, name="b")], settings=PATIENT) as cluster,
    ):
        client = Client(cluster)
        keys = [*keys_of(cluster, "a", 1), *keys_of(cluster, "b", 1)]
        assert client.get_many(keys) == expected(keys)
        assert outcomes_of(client, keys, 0).results == expected(keys)


@pytest.mark.parametrize("reply", [in_two_pieces, between_two_replies], ids=lambda reply: reply.__name__)
def test_replies_that_arrive_later_are_read_in_python(reply: Reply) -> None:
    with connected(reply) as (client, keys):
        assert outcomes_of(client, keys, 1).results == expected(keys)


def test_python_waits_for_replies_that_are_late() -> None:
    with connected(late) as (client, keys), patch.object(quick_parts, "LONGEST", 0.01):
        assert client.get_many(keys) == expected(keys)


@pytest.mark.parametrize("reply", [reset, end], ids=lambda reply: reply.__name__)
def test_a_broken_connection_is_dialled_again_for_reads(reply: Reply) -> None:
    with connected(reply, script_of(at_once)) as (client, keys):
        assert outcomes_of(client, keys, 1).results == expected(keys)


@pytest.mark.parametrize(
    ("reply", "error", "failed"),
    [(an_error_line, ServerError, 1), (another_opaque, ProtocolError, 1), (nothing, OperationTimeout, 3)],
    ids=lambda each: getattr(each, "__name__", str(each)),
)
def test_a_failure_of_one_node_fails_only_its_keys(reply: Reply, error: type[MetacacheError], failed: int) -> None:
    with connected(reply, settings=QUICK) as (client, keys):
        found = outcomes_of(client, keys, 1)
        assert {*found.results, *found.errors} == set(keys)
        assert found.errors.keys() <= set(keys[COUNT:])
        assert len(found.errors) >= failed
        assert {type(each) for each in found.errors.values()} == {error}
        assert all(value == key.encode() for key, value in found.results.items())


def test_bytes_that_no_request_asked_for_close_the_connection() -> None:
    with connected(surplus, script_of(at_once)) as (client, keys):
        assert outcomes_of(client, keys, 1).results == expected(keys)
        assert outcomes_of(client, keys, -1).results == expected(keys)


def test_a_write_to_a_broken_connection_may_have_been_applied() -> None:
    def serve_a(peer: Peer) -> None:
        at_once(peer, peer.requests(COUNT))
        peer.send(b"".join([asked.reply(b"HD") for asked in peer.requests(COUNT)]))
        peer.expect_end()

    def serve_b(peer: Peer) -> None:
        at_once(peer, peer.requests(COUNT))
        peer.requests(COUNT)
        peer.rst()

    with (
        ScriptedServer(serve_a) as a,
        ScriptedServer(serve_b) as b,
        Cluster([Node(a.node.address, name="a"), Node(b.node.address, name="b")], settings=PATIENT) as cluster,
    ):
        client = Client(cluster)
        keys = [*keys_of(cluster, "a", COUNT), *keys_of(cluster, "b", COUNT)]
        client.get_many(keys)
        found = client.set_many_outcomes(dict.fromkeys(keys, b"v"))
        assert found.results == dict.fromkeys(keys[:COUNT], StoreResult.STORED)
        assert found.errors.keys() == set(keys[COUNT:])
        for error in found.errors.values():
            assert isinstance(error, ConnectionLost)
            assert error.maybe_applied


@pytest.mark.alone
def test_an_exception_of_a_signal_handler_closes_the_connections() -> None:
    def handler(_: int, __: FrameType | None) -> None:
        raise TimeoutError("handler")

    with (
        connected(nothing, script_of(at_once)) as (client, keys),
        patch.object(quick_parts, "LONGEST", 10.0),
    ):
        before = signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        try:
            with pytest.raises(TimeoutError, match="handler"):
                client.get_many(keys)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)
        assert client.get_many(keys[COUNT:]) == expected(keys[COUNT:])


# --- the primitive ----------------------------------------------------------------------------------------------------


@contextmanager
def pairs() -> Generator[list[tuple[socket.socket, socket.socket]]]:
    opened = [socket.socketpair() for _ in range(2)]
    yield opened
    for pair in opened:
        for each in pair:
            each.close()


def exchanged(
    opened: list[tuple[socket.socket, socket.socket]], requests: list[bytes], seconds: float = 5.0
) -> list[tuple[int, bytes | None, int]] | None:
    assert exchange_parts is not None
    return exchange_parts([ours.fileno() for ours, _ in opened], requests, time.monotonic() + seconds)


def test_a_partial_write_is_reported_at_once() -> None:
    with pairs() as opened:
        found = exchanged(opened, [b"a", b"x" * 10_000_000])
        assert found is not None
        assert found[0] == (1, None, 0)
        assert 0 < found[1][0] < 10_000_000
        assert found[1][1:] == (None, 0)
        assert opened[0][1].recv(9) == b"a"


def test_a_readable_socket_gets_no_request() -> None:
    with pairs() as opened:
        opened[1][1].send(b"surplus")
        assert exchanged(opened, [b"a", b"b"]) is None
        opened[0][1].setblocking(False)  # noqa: FBT003
        with pytest.raises(BlockingIOError):
            opened[0][1].recv(1)
    assert exchange_parts is not None
    assert exchange_parts([-1], [b"a"], time.monotonic()) is None


def test_the_deadline_ends_the_wait() -> None:
    with pairs() as opened:
        began = time.monotonic()
        assert exchanged(opened, [b"a", b"bc"], 0.05) == [(1, None, 0), (2, None, 0)]
        assert time.monotonic() - began < 4


@pytest.mark.alone
def test_a_socket_that_a_signal_handler_replaces_is_not_read() -> None:
    other, bait = socket.socketpair()
    with pairs() as opened, other, bait:
        other.send(b"of another exchange")

        def handler(_: int, __: FrameType | None) -> None:
            # As a handler that forks: the child closes the sockets, and opens others with their numbers.
            os.dup2(bait.fileno(), opened[0][0].fileno())

        before = signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        try:
            assert exchanged(opened, [b"a", b"bc"]) == [(1, None, 0), (2, None, 0)]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)
        assert bait.recv(99) == b"of another exchange"


def test_a_closed_peer_is_reported() -> None:
    with pairs() as opened:
        for _, theirs in opened:
            theirs.shutdown(socket.SHUT_RD)
        found = exchanged(opened, [b"a", b"b"])
        assert found == [(0, None, errno.EPIPE)] * 2


@pytest.mark.parametrize("arguments", [(), ([1], [b""], None), ([1], ["a"], 0.0), (["1"], [b"a"], 0.0), ([], [], 0.0)])
def test_wrong_arguments_raise(arguments: Any) -> None:  # Any: wrong types on purpose
    assert exchange_parts is not None
    with pytest.raises(TypeError):
        exchange_parts(*arguments)
