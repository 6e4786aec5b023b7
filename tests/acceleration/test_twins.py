"""Each primitive gives what its function in Python gives, for arbitrary input.

METACACHE_EXAMPLES sets the number of examples of each test.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from itertools import pairwise
from time import monotonic
from typing import Any, Final
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metacache import ClientOptions, MetacacheError, Node, RendezvousRouter
from metacache.acceleration import make_exchange, read_window
from metacache.client.core import Core
from metacache.operations.arguments import DEFAULT
from metacache.operations.options import options_of
from metacache.operations.requests import CACHED_TAILS, Operations
from metacache.protocol import commands, replies, windows
from metacache.protocol.commands import Command
from metacache.protocol.connection import ProtocolConnection
from metacache.protocol.replies import HD_REPLY, NO_OPAQUE, OPAQUES, Opaque, known_headers, value_header, whole_reply
from metacache.routing import rendezvous
from metacache.serializers import Serializer
from metacache.serializers.builtin import BYTES, INT, JSON, STR
from metacache.transports.base import Operation

pytestmark = pytest.mark.usefixtures("primitives")

MANY: Final = settings(max_examples=int(os.environ.get("METACACHE_EXAMPLES", "200")))

# --- building ---------------------------------------------------------------------------------------------------------

PLAIN: Final = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1)
KEYS: Final = st.one_of(
    PLAIN,
    PLAIN.map(str.encode),
    st.text(),
    st.binary(),
    st.integers(240, 255).map(lambda size: "k" * size),
    st.text("ab \x7f\x80\ud800é", max_size=4),
    st.sampled_from([1, None, True, bytearray(b"k"), ("k",)]),
)
PREFIXES: Final = st.one_of(
    st.just(""), PLAIN, st.text("ab \x7fé", max_size=4), st.binary(max_size=4), st.just("p" * 200)
)


class Text(str):
    __slots__ = ()


VALUES: Final = st.one_of(
    st.binary(),
    st.text(),
    st.integers(),
    st.none(),
    st.sampled_from(
        [b"", b"v" * (CACHED_TAILS - 1), b"v" * CACHED_TAILS, Text("s"), bytearray(b"x"), object(), "\ud800"]
    ),
)
SERIALIZERS: Final[dict[str, Serializer[Any]]] = {  # Any: each is of its own type
    "bytes": BYTES.build(bytes),
    "str": STR.build(str),
    "int": INT.build(int),
    "json": JSON.build(dict[str, int]),
}
OPTIONS: Final = [
    ClientOptions(),
    ClientOptions(default_ttl=5),
    ClientOptions(default_ttl=40 * 86400),
    ClientOptions(long_keys="hash"),
]


def operations(name: str, prefix: str | bytes, options: ClientOptions, *, is_pure: bool) -> Operations[object]:
    given_options: dict[str, Any] = {**options, "prefix": prefix}  # Any: options of several types
    serializer: Serializer[object] = SERIALIZERS[name]
    # `Core.of` is generic, and the type of T is not known here.
    made: Operations[object] = Core.of(serializer, options_of(given_options)).operations  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    made._clock = lambda: 1_000_000.0
    if is_pure:
        made._build_get = made._build_set = None
    return made


def outcome(method: Any, *arguments: object) -> object:  # Any: a method of Operations
    try:
        op: Operation[Any] = method(*arguments)  # Any: the result is not read
    except MetacacheError as error:
        return type(error), str(error), error.operation, error.key
    read: Any = op.read  # Any: functions have names
    return op.verb, op.given, op.key, op.head, op.body, read.__name__, str(type(op.given)), str(type(op.body))


@MANY
@given(prefix=PREFIXES, keys=st.lists(KEYS, max_size=5), default=st.sampled_from([None, b"d"]))
def test_a_get_is_built_as_in_python(prefix: str | bytes, keys: list[object], default: object) -> None:
    try:
        pure = operations("bytes", prefix, ClientOptions(), is_pure=True)
    except MetacacheError:
        return  # the prefix is refused
    compiled = operations("bytes", prefix, ClientOptions(), is_pure=False)
    for key in keys:
        assert outcome(compiled.get, key, default) == outcome(pure.get, key, default)


@MANY
@given(
    name=st.sampled_from(sorted(SERIALIZERS)),
    prefix=PREFIXES,
    options=st.sampled_from(OPTIONS),
    items=st.lists(st.tuples(KEYS, VALUES), max_size=5),
    ttl=st.sampled_from([DEFAULT, DEFAULT, None, 7]),
)
def test_a_set_is_built_as_in_python(
    name: str, prefix: str | bytes, options: ClientOptions, items: list[tuple[object, object]], ttl: object
) -> None:
    try:
        pure = operations(name, prefix, options, is_pure=True)
    except MetacacheError:
        return  # the prefix is refused
    compiled = operations(name, prefix, options, is_pure=False)
    for key, value in [*items, *items]:  # the second time, the tail of the size is known
        assert outcome(compiled.set, key, value, ttl) == outcome(pure.set, key, value, ttl)


def test_plain_keys_and_values_are_built_by_the_primitive() -> None:
    # A TTL that no other test uses: clients with equal flags and TTL share their tails.
    made = operations("str", "p:", ClientOptions(default_ttl=12_345), is_pure=False)
    assert made._build_get is not None
    assert made._build_set is not None
    assert made._build_get("k") is not None
    assert made._build_get("é") is None
    assert made._build_set("k", "v") == b"v"  # no tail of this size is known
    made.set("k", "v", DEFAULT)
    built = made._build_set("k", "v")
    assert not isinstance(built, bytes | None)
    assert (built.key, built.head, built.body) == (
        b"p:k",
        made.set("é", "v", DEFAULT).head.replace("é".encode(), b"k"),
        b"v",
    )


# --- one reply --------------------------------------------------------------------------------------------------------

LIMIT: Final = 1000
LONG: Final = b"x" * (LIMIT + 1)
MOST: Final = 65536  # bytes of one read
STORE: Final = (commands.MS.whole, commands.MS.has_value, MOST)
ALL: Final = (
    commands.MG_VALUE,
    commands.MG,
    commands.MG_CONDITIONAL,
    commands.MS,
    commands.MD,
    commands.MA_VALUE,
    commands.MN,
)
LINES: Final = st.sampled_from(
    [b"HD", b"VA 3 f1", b"VA 0 f1", b"VA 3 f1 W", b"VA 1001 f1", b"VA 03 f1", b"VA -1", b"VA 99999999999", b"VA", b"EN"]
    + [b"NS", b"MN", b"SERVER_ERROR out of memory", b"", b"VA 3 f1 \r", b"V\nA 3", b"x" * 3000]
)
ENDS: Final = st.sampled_from([b" O7\r\n", b" O7\r\n", b" O7\r\n", b"\r\n", b" O8\r\n", b" O7\n", b" O7 W\r\n", b""])
BODIES: Final = st.one_of(
    st.just(b""),
    st.just(b"abc\r\n"),
    st.just(b"abc"),
    st.just(b"\r\n"),
    st.just(b"x" * 1001 + b"\r\n"),
    st.binary(max_size=9),
)
NEAR: Final = st.sampled_from(
    [b"HD O7\r\n", b"HD O8\r\n", b"EN O7\r\n", b"EN O8\r\n", b"HD O7\r\nx", b"HD\r\n"]
    + [b"VA 3 f1 O7\r\nabc\r\n", b"VA 3 f1 O8\r\nabc\r\n", b"VA 3 f1 O7\r\nabcxx", b"VA 3 f1 O7\r\nabc\r\nx"]
    + [b"VA 3 f1\r\nabc\r\n", b"VA 1001 f1 O7\r\n" + b"x" * 1001 + b"\r\n"]
)
REPLIES: Final = st.one_of(NEAR, st.tuples(LINES, ENDS, BODIES).map(b"".join), st.binary(max_size=40))


@contextmanager
def pair() -> Generator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0)
        theirs.settimeout(5)
        yield ours, theirs


@MANY
@given(
    command=st.sampled_from(ALL), data=REPLIES, body=st.none() | st.binary(max_size=9), echoes=st.booleans(),
    is_known=st.booleans(),
)  # fmt: skip
@example(command=commands.MG_VALUE, data=b"VA 3 f1 O7\r\nabcxx", body=None, echoes=True, is_known=True)
@example(command=commands.MG_VALUE, data=b"VA 3 f1 O8\r\nabc\r\n", body=None, echoes=True, is_known=True)
@example(command=commands.MG_VALUE, data=b"VA 1001 f1 O7\r\n%b\r\n" % LONG, body=None, echoes=True, is_known=True)
def test_a_reply_is_read_as_in_python(
    command: Command, data: bytes, body: bytes | None, echoes: bool, is_known: bool
) -> None:
    opaque: Opaque = OPAQUES[7] if echoes else NO_OPAQUE
    with pair() as (ours, theirs):
        exchange = make_exchange(ours.fileno(), LIMIT, known_headers, HD_REPLY)
        assert exchange is not None
        expected = whole_reply(data, opaque[0], command, LIMIT)
        known_headers.clear()
        if is_known:
            for line in (data.partition(opaque[0])[0], b"VA 3 f1", b"VA 1001 f1"):
                value_header(line)
        theirs.sendall(data)
        rules = (command.whole, command.has_value, MOST)
        found = exchange.run(b"xx k", body, opaque[0], *rules, monotonic() + (5 if data else 0))
        request = b"xx k" + opaque[0] + (b"" if body is None else body + b"\r\n")
        assert exchange.sent == len(request)
        assert theirs.recv(100) == request
        if found is None:
            assert exchange.data == (data or None)
            assert not is_known or expected is None
        else:
            assert found == expected


def test_the_end_of_the_stream_and_an_unfinished_request_are_handed_over() -> None:
    with pair() as (ours, theirs):
        exchange = make_exchange(ours.fileno(), LIMIT, known_headers, HD_REPLY)
        assert exchange is not None
        big = b"x" * 10_000_000
        assert exchange.run(b"ms k", big, b"\r\n", *STORE, monotonic() + 5) is None
        assert 0 < exchange.sent < len(big)
        assert exchange.data is None
        assert exchange.run(b"mg k", None, b"\r\n", *STORE, monotonic() + 5) is None
        assert (exchange.sent, exchange.data) == (0, None)  # the socket's buffer is full
        theirs.close()
        with pytest.raises(OSError, match="Broken pipe"):
            exchange.run(b"mg k", None, b"\r\n", *STORE, monotonic() + 5)
    with pair() as (ours, theirs):
        exchange = make_exchange(ours.fileno(), LIMIT, known_headers, HD_REPLY)
        assert exchange is not None
        theirs.shutdown(socket.SHUT_WR)
        assert exchange.run(b"mg k", None, b"\r\n", *STORE, monotonic() + 5) is None
        assert (exchange.sent, exchange.data) == (6, b"")
        exchange.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            exchange.run(b"mg k", None, b"\r\n", *STORE, monotonic() + 5)


@pytest.mark.parametrize("most", [1, 5, 18, 1024, 65536])
def test_no_more_is_received_than_was_asked_for(most: int) -> None:
    reply = b"VA 3 f1 O7\r\nabc\r\n"
    with pair() as (ours, theirs):
        exchange = make_exchange(ours.fileno(), LIMIT, known_headers, HD_REPLY)
        assert exchange is not None
        value_header(b"VA 3 f1")
        theirs.sendall(reply)
        rules = (commands.MG_VALUE.whole, commands.MG_VALUE.has_value, most)
        found = exchange.run(b"mg k", None, OPAQUES[7][0], *rules, monotonic() + 5)
        if most < len(reply):
            assert (found, exchange.data) == (None, reply[:most])
        else:
            assert found == ([b"VA", b"3", b"f1"], b"abc")


@pytest.mark.parametrize("most", [-1, 0, 65537, 1 << 70])
def test_a_wrong_number_of_bytes_is_refused_before_anything_is_sent(most: int) -> None:
    with pair() as (ours, theirs):
        exchange = make_exchange(ours.fileno(), LIMIT, known_headers, HD_REPLY)
        assert exchange is not None
        with pytest.raises((ValueError, OverflowError)):
            exchange.run(b"mg k", None, b"\r\n", *STORE[:2], most, monotonic() + 5)
        theirs.settimeout(0)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)


def test_arguments_of_other_types_are_left_to_python() -> None:
    with pair() as (ours, _):
        exchange = make_exchange(ours.fileno(), LIMIT, known_headers, HD_REPLY)
        assert exchange is not None
        strange: Any = bytearray(b"mg k")  # Any: a wrong type on purpose
        assert exchange.run(strange, None, b"\r\n", *STORE, monotonic() + 5) is None
        assert (exchange.sent, exchange.data) == (0, None)


# --- a window ---------------------------------------------------------------------------------------------------------

# %m: the opaque of the first and the last request; nothing between them.
USUAL: Final = st.sampled_from([b"VA 3 f1%m\r\nabc\r\n", b"VA 0 f1%m\r\n\r\n", b"EN%m\r\n", b"HD%m\r\n", b"NS%m\r\n"])
PIECES: Final = st.one_of(
    USUAL,
    USUAL,
    USUAL,
    st.sampled_from(
        [b"VA 3 f1\r\nabc\r\n", b"VA 3 f1\r\na\r\nb\r\n", b"EN\r\n", b"HD\r\n", b"NS\r\n", b"VA 3 f1 W\r\nabc\r\n"]
    ),
    st.sampled_from(
        [b"VA 3 f1 %b\r\nabc\r\n", b"EN %b\r\n", b"HD %b\r\n", b"VA 0 f1 %b\r\n\r\n", b"VA 3 f1 %b W\r\nabc\r\n"]
    ),
    REPLIES,
)


def window_outcome(command: Command, pieces: list[bytes], count: int, cuts: list[int], *, is_pure: bool) -> object:
    """Return what a window of *count* requests makes of *pieces*."""
    known_headers.clear()
    replies.known_sizes.clear()
    connection = ProtocolConnection(max_reply_size=LIMIT)
    bodies = [b"v"] * count if command is commands.MS else None
    sent, window = connection.send_window(command, [b"xx k"] * count, bodies)
    opaques = [word for word in sent.split() if word.startswith(b"O")]
    ends = {0: b" " + opaques[0], count - 1: b" " + opaques[-1]}
    pieces = [piece.replace(b"%m", ends.get(index, b"")) for index, piece in enumerate(pieces)]
    marks = iter([*opaques, *[b"O1"] * len(pieces)])
    stream = b"".join(piece.replace(b"%b", next(marks)) if b"%b" in piece else piece for piece in pieces)
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    with patch.object(windows, "read_window", None if is_pure else read_window):
        for start, stop in pairwise(edges):
            if start < stop and connection.failure is None and not connection.must_close:
                connection.receive(stream[start:stop])
    if connection.failure is not None:
        return connection.failure.message
    errors = {index: repr(error) for index, error in window.replies.errors.items()}
    return window.replies.headers, window.replies.values, errors, connection.must_close, window.needed == 0


@MANY
@given(
    command=st.sampled_from([commands.MG_VALUE, commands.MS, commands.MD]),
    pieces=st.lists(PIECES, min_size=1, max_size=6),
    more=st.sampled_from([0, 0, 0, 1, 2]),
    cuts=st.lists(st.integers(0, 4000), max_size=4),
)
def test_a_window_is_read_as_in_python(command: Command, pieces: list[bytes], more: int, cuts: list[int]) -> None:
    count = len(pieces) + more
    expected = window_outcome(command, pieces, count, cuts, is_pure=True)
    assert window_outcome(command, pieces, count, cuts, is_pure=False) == expected


# --- routing ----------------------------------------------------------------------------------------------------------

WEIGHTS: Final = st.one_of(st.sampled_from([0.0, 1.0, 2.0]), st.floats(1e-200, 1e200), st.floats(0.01, 100))
TOPOLOGY: Final = st.lists(WEIGHTS, min_size=1, max_size=12).filter(any)


@MANY
@given(weights=TOPOLOGY, keys=st.lists(st.binary(max_size=300), max_size=10), text=st.text())
def test_keys_are_routed_as_in_python(weights: list[float], keys: list[bytes], text: str) -> None:
    nodes = [Node(f"n{index}", weight=weight) for index, weight in enumerate(weights)]
    compiled = RendezvousRouter(nodes)
    with patch.object(rendezvous, "make_owners", return_value=None):
        pure = RendezvousRouter(nodes)
    assert compiled._owners is not None
    assert pure._owners is None
    assert list(map(compiled.pick, keys)) == list(map(pure.pick, keys))
    assert compiled.split(keys) == pure.split(keys)
    encodable = text.encode(errors="ignore").decode()
    assert compiled.split([encodable, *keys]) == pure.split([encodable, *keys])
    assert compiled.pick(encodable) == pure.pick(encodable)
