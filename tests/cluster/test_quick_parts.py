"""The parts of a batch whose nodes are connected run together. A part that is not finished so goes on alone."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, Final, final
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from metacache.acceleration import exchange_parts, make_exchange
from metacache.cluster import blocking_batch, parallel, quick_parts
from metacache.cluster.parallel import Outcome, exchange_windows
from metacache.cluster.quick_parts import run_quickly
from metacache.operations.batches import GET_MANY, SET_MANY
from metacache.protocol.replies import HD_REPLY, OPAQUES, known_headers, value_header
from metacache.protocol.windows import Replies
from metacache.testing import Memcached
from metacache.transports.base import Batch
from tests.acceleration.test_twins import MANY
from tests.cluster.rig import keys_of
from tests.pool.rig import Call
from tests.scripted import Asked, Peer, Script, ScriptedServer, silent
from tests.transports.rig import within
from tests.transports.test_interrupts import interrupted

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
    time.sleep(0.2)  # longer than the parts wait together
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
    """Return the outcomes of a batch of which *left* parts go on alone after *longest* seconds."""
    unfinished: list[int] = []

    def spy(*arguments: Any, **named: Any) -> object:  # Any: those of run_quickly
        parts = run_quickly(*arguments, **named)
        unfinished.append(-1 if parts is None else len(parts))
        return parts

    with patch.object(blocking_batch, "run_quickly", spy), patch.object(quick_parts, "LONGEST", longest):
        found = client.get_many_outcomes(keys)
    assert unfinished == [left]
    return found


def test_replies_that_arrive_at_once_need_no_exchange() -> None:
    with connected(at_once) as (client, keys):
        found = outcomes_of(client, keys, 0)
        assert found.results == expected(keys)
        assert not found.errors


def test_a_part_of_one_key_needs_no_exchange() -> None:
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
def test_replies_that_arrive_later_need_no_exchange(reply: Reply) -> None:
    with connected(reply) as (client, keys):
        assert outcomes_of(client, keys, 0).results == expected(keys)


@pytest.mark.parametrize("reply", [in_two_pieces, between_two_replies], ids=lambda reply: reply.__name__)
def test_an_exchange_goes_on_after_some_of_the_replies(reply: Reply) -> None:
    with connected(reply) as (client, keys):
        assert outcomes_of(client, keys, 1, longest=0.05).results == expected(keys)


def test_replies_of_more_than_64_kib_need_an_exchange() -> None:
    def long(peer: Peer, asked: list[Asked]) -> None:
        peer.send(b"".join(each.reply(b"VA 30000 f0", b"v" * 30000) for each in asked))

    with connected(long) as (client, keys):
        found = outcomes_of(client, keys, 1)
        assert found.results == {**expected(keys[:COUNT]), **dict.fromkeys(keys[COUNT:], b"v" * 30000)}


def test_an_error_line_is_not_waited_for() -> None:
    def refuse(peer: Peer, asked: list[Asked]) -> None:
        peer.send(whole(asked[:-1]) + b"SERVER_ERROR out of memory\r\n")

    with connected(refuse) as (client, keys), within(0.0, 3.0):
        found = outcomes_of(client, keys, 1, longest=5.0)
        assert {type(error) for error in found.errors.values()} == {ServerError}


def test_an_exchange_waits_for_replies_that_are_late() -> None:
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


# --- the bytes --------------------------------------------------------------------------------------------------------


@final
class Socket:
    """What `exchange_windows` uses of a stream: here one end of a socket pair."""

    def __init__(self, ours: socket.socket) -> None:
        ours.setblocking(False)  # noqa: FBT003
        self.fileno, self.send, self.recv = ours.fileno, ours.send, ours.recv
        self.exchange_once = make_exchange(ours.fileno(), 1 << 20, known_headers, HD_REPLY)

    def unblock(self) -> None:
        """Do nothing: it is non-blocking."""


@contextmanager
def pairs(count: int = 2) -> Generator[list[tuple[socket.socket, socket.socket]]]:
    with ExitStack() as stack:
        opened = [socket.socketpair() for _ in range(count)]
        for pair in opened:
            for each in pair:
                stack.enter_context(each)
        yield opened


@pytest.fixture(params=["compiled", "pure"])
def way(request: pytest.FixtureRequest) -> Generator[str]:
    """Run the test with the primitive, and with the function in Python."""
    if request.param == "pure":
        with patch.object(parallel, "exchange_parts", None):
            yield "pure"
    elif not accelerated:
        pytest.skip("the compiled primitives are not used")
    else:
        yield "compiled"


def exchanged(
    opened: list[tuple[socket.socket, socket.socket]],
    shares: Sequence[Sequence[int]] = ([0], [1]),
    *,
    bodies: list[bytes] | None = None,
    seconds: float = 5.0,
) -> tuple[list[Outcome | None] | None, Replies]:
    count = sum(map(len, shares))
    heads = [b"mg k%d v f" % index for index in range(count)]
    whole_replies = Replies(count)
    verb = GET_MANY if bodies is None else SET_MANY
    batch = Batch(verb, [""] * count, heads, heads, bodies)
    streams: list[Any] = [Socket(ours) for ours, _ in opened]  # Any: in place of streams
    opaques = [(OPAQUES[2 * at], OPAQUES[2 * at + 1]) for at in range(len(shares))]
    found = exchange_windows(
        batch, list(shares), streams, opaques, whole_replies, until=time.monotonic() + seconds, limit=1 << 20
    )
    return None if found is None else list(found), whole_replies


@pytest.mark.usefixtures("way")
def test_a_window_has_its_opaques_and_its_replies_go_to_their_places() -> None:
    with pairs() as opened:

        def answer() -> None:
            assert opened[0][1].recv(999) == b"mg k1 v f O0\r\nmg k2 v f O1\r\n"
            assert opened[1][1].recv(999) == b"mg k0 v f O3\r\n"
            opened[1][1].send(b"EN O3\r\n")
            opened[0][1].send(b"VA 1 f0 O0\r\na\r\nVA 2 f0")
            time.sleep(0.05)
            opened[0][1].send(b" O1\r\nb")
            time.sleep(0.05)
            opened[0][1].send(b"b\r\n")

        call = Call(answer)
        found, replies = exchanged(opened, [[1, 2], [0]])
        call.result()
        assert found == [None, None]
        assert replies.headers == [b"EN", b"VA 1 f0", b"VA 2 f0"]
        assert replies.values == [None, b"a", b"bb"]


@pytest.mark.usefixtures("way")
def test_a_partial_write_is_reported_at_once() -> None:
    with pairs() as opened:
        for ours, _ in opened:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        found, _ = exchanged(opened, bodies=[b"v", b"v" * 60_000])
        assert found is not None
        first, second = found
        assert first == (len(b"mg k0 v f O1\r\nv\r\n"), None, 0)
        assert second is not None
        assert second[0] < 60_000
        assert second[1:] == (None, 0)


@pytest.mark.usefixtures("way")
def test_a_part_that_is_larger_than_a_window_is_not_sent() -> None:
    with pairs() as opened:
        assert exchanged(opened, bodies=[b"v", b"v" * 65536])[0] is None
        assert exchanged(opened, [list(range(257)), [257]])[0] is None
        with pytest.raises(BlockingIOError):
            opened[0][1].recv(1, socket.MSG_DONTWAIT)


@pytest.mark.usefixtures("way")
def test_a_readable_socket_gets_no_request() -> None:
    with pairs() as opened:
        opened[1][1].send(b"surplus")
        assert exchanged(opened)[0] is None
        with pytest.raises(BlockingIOError):
            opened[0][1].recv(1, socket.MSG_DONTWAIT)


@pytest.mark.usefixtures("way")
def test_the_deadline_ends_the_wait() -> None:
    with pairs() as opened:
        sent = len(b"mg k0 v f O1\r\n")
        with within(0.0, 4.0):
            assert exchanged(opened, seconds=0.05)[0] == [(sent, None, 0), (sent, None, 0)]


@pytest.mark.usefixtures("way")
def test_the_end_of_the_bytes_is_reported_with_those_before() -> None:
    with pairs() as opened:

        def answer() -> None:
            opened[0][1].recv(999)
            opened[0][1].send(b"EN")
            for _, theirs in opened:
                theirs.shutdown(socket.SHUT_WR)

        call = Call(answer)
        found, _ = exchanged(opened)
        call.result()
        sent = len(b"mg k0 v f O1\r\n")
        assert found == [(sent, b"EN", 0), (sent, b"", 0)]


@pytest.mark.usefixtures("way")
def test_a_closed_peer_is_reported() -> None:
    with pairs() as opened:
        for _, theirs in opened:
            theirs.shutdown(socket.SHUT_RD)
        assert exchanged(opened)[0] == [(0, None, errno.EPIPE)] * 2


# A socket without an owner is closed by its finalizer; Python drops an exception in a callback of the collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("way")
def test_wherever_a_signal_interrupts_a_batch_its_connections_are_free_and_the_next_batch_is_right(
    shared_memcached: Memcached,
) -> None:
    nodes = [Node(shared_memcached.node.address, name=name) for name in "ab"]
    with Cluster(nodes, settings=Settings(timeout=5.0, pool_size=1)) as cluster:
        client = Client(cluster)
        keys = [*keys_of(cluster, "a", COUNT, "swept"), *keys_of(cluster, "b", COUNT, "swept")]
        client.set_many({key: key.encode() for key in keys})
        for at in range(1, 2000):
            was_interrupted = interrupted(lambda client: client.get_many(keys), client, at)
            with within(0.0, 4.0):  # no connection is still in use
                assert client.get_many([*keys, "none"]) == expected(keys), f"interrupted at point {at}"
            assert [pool.in_use for pool in cluster.statistics.values()] == [0, 0], f"interrupted at point {at}"
            if not was_interrupted:
                assert at > 30
                break


PIECES: Final = st.sampled_from(
    [
        b"EN\r\n",
        b"HD\r\n",
        b"VA 2 f0\r\nab\r\n",
        b"VA 2 f0 O1\r\nab\r\n",
        b"EN O1\r\n",
        b"EN O2\r\n",
        b"VA 4 f0\r\na\r\nb\r\n",
    ]
    + [b"SERVER_ERROR x\r\n", b"VA 2 f0 W\r\nab\r\n", b"VA 2", b"\r\n", b"\n", b"VA 9 f0\r\nERROR\r\n\r\n", b"VA x\r\n"]
)


@pytest.mark.skipif(not accelerated, reason="the compiled primitives are not used")
@MANY
@given(
    pieces=st.lists(PIECES, min_size=1, max_size=6), cut=st.integers(0, 90), count=st.integers(1, 4), ends=st.booleans()
)
def test_both_ways_read_the_same_replies(pieces: list[bytes], cut: int, count: int, ends: bool) -> None:
    data = b"".join(pieces)
    data = data.replace(b"\r\n", b" O0\r\n", 1) if count > 1 else data

    def run() -> tuple[Outcome | None, Replies]:
        with pairs(1) as opened:
            ((ours, theirs),) = opened
            call = Call(lambda: _answer_in_two(theirs, data, cut, ends=ends))
            found, replies = exchanged([(ours, theirs)], [list(range(count))], seconds=0.02)
            call.result()
            assert found is not None
            return found[0], replies

    compiled, filled = run()
    with patch.object(parallel, "exchange_parts", None):
        pure, by_python = run()
    # How far each came may differ, because the primitive sees an unusual reply sooner. A finished part is the same.
    assert (compiled is None) == (pure is None) or not data[cut:]
    if compiled is None and pure is None:
        assert (filled.headers, filled.values) == (by_python.headers, by_python.values)
    for outcome, replies in ((compiled, filled), (pure, by_python)):
        if outcome is not None:
            assert data.startswith(outcome[1] or b"")
            assert replies.headers == [b""] * count


@pytest.mark.skipif(not accelerated, reason="the compiled primitives are not used")
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
            sent = len(b"mg k0 v f O1\r\n")
            assert exchanged(opened)[0] == [(sent, None, 0), (sent, None, 0)]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)
        assert bait.recv(99) == b"of another exchange"


@pytest.mark.skipif(not accelerated, reason="the compiled primitives are not used")
def test_a_closed_exchange_gets_no_request() -> None:
    assert exchange_parts is not None
    with pairs() as opened:
        exchanges: list[Any] = [Socket(ours).exchange_once for ours, _ in opened]  # Any: they are not None
        exchanges[1].close()
        pair = (OPAQUES[0], OPAQUES[1])
        rules: tuple[Any, ...] = (1 << 20, GET_MANY.command.whole, True, {}, value_header, [b"", b""], [None, None])
        heads = [b"a", b"b"]
        assert (
            exchange_parts(exchanges, [[0], [1]], [pair, pair], heads, None, 256, 65536, time.monotonic(), *rules)
            is None
        )


WRONG: Final[Any] = (  # Any: wrong types on purpose
    {0: [1], 5: 0},
    {0: [], 1: [], 2: []},
    {1: [[0]], 2: [None]},
    {1: [[0]], 2: [(OPAQUES[0],)]},
    {1: [[0]], 2: [((b"",) * 3,) * 2]},
    {1: [[0]], 2: [((1, 2, 3, 4),) * 2]},
    {1: [7]},
    {5: "x"},
    {7: "x"},
    {9: set()},
    {11: []},
    {13: ()},
    {14: None},
)


@pytest.mark.skipif(not accelerated, reason="the compiled primitives are not used")
@pytest.mark.parametrize("wrong", WRONG, ids=repr)
def test_wrong_arguments_raise(wrong: Any) -> None:  # Any: as above
    assert exchange_parts is not None
    pair = (OPAQUES[0], OPAQUES[1])
    arguments: list[Any] = [[None], [[0]], [pair], [b"a"], None, 256, 65536, 0.0]  # Any: as above
    arguments += [9, GET_MANY.command.whole, True, {}, value_header, [b""], [None]]
    assert exchange_parts(*arguments) is None  # there is no socket
    for index, argument in wrong.items():
        arguments[index] = argument
    if wrong == {0: [1], 5: 0}:
        assert exchange_parts(*arguments) is None
        return
    with pytest.raises(TypeError):
        exchange_parts(*arguments)
    with pytest.raises(TypeError):
        exchange_parts(*arguments[1:])


UNUSUAL: Final[Any] = (  # Any: as above
    *[(share, [b"a"], None) for share in ([2], [-1], [1 << 70], ["x"], [])],
    *[([0], heads, None) for heads in (["a"], "a")],
    *[([0], [b"a"], bodies) for bodies in ([], [1], "x")],
)


@pytest.mark.skipif(not accelerated, reason="the compiled primitives are not used")
@pytest.mark.parametrize(("share", "heads", "bodies"), UNUSUAL)
def test_requests_that_are_not_plain_are_not_sent(share: Any, heads: Any, bodies: Any) -> None:  # Any: as above
    assert exchange_parts is not None
    with pairs(1) as opened:
        exchanges: list[Any] = [Socket(ours).exchange_once for ours, _ in opened]  # Any: they are not None
        rules: tuple[Any, ...] = (9, GET_MANY.command.whole, True, {}, value_header, [b""], [None])
        pair = (OPAQUES[0], OPAQUES[1])
        until = time.monotonic() + 0.01
        assert exchange_parts(exchanges, [share], [pair], heads, bodies, 256, 65536, until, *rules) is None
        with pytest.raises(BlockingIOError):
            opened[0][1].recv(1, socket.MSG_DONTWAIT)


def _answer_in_two(theirs: socket.socket, data: bytes, cut: int, *, ends: bool) -> None:
    theirs.recv(9999)
    theirs.send(data[:cut])
    if data[cut:]:
        theirs.send(data[cut:])
    if ends:
        theirs.shutdown(socket.SHUT_WR)
