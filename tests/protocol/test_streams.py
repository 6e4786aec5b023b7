"""Any split of the stream gives the same replies: single replies, windows, lists of lines.

The values are full of bytes that look like protocol. A parser that searches in the wrong place finds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metacache.protocol import commands
from metacache.protocol.blocks import LARGE_BLOCK
from metacache.protocol.commands import Command
from metacache.protocol.connection import ProtocolConnection
from metacache.protocol.error_lines import Refusal
from metacache.protocol.replies import OPAQUES, half_reply, whole_reply
from tests.protocol.wire import LIMIT, Outcome, cut, feed, opaques_in

Script: TypeAlias = Callable[[ProtocolConnection], bytes]
"""Puts requests on a connection and returns the replies of a server to them."""

TRAPS: Final = (
    b"",
    b"\r\n",
    b"END\r\n",
    b"MN\r\n",
    b"VA 5\r\n",
    b"EN\r\n",
    b"\r\nEN\r\n",
    b"HD",
    b"HD O0\r\n",
    b"VA 1 O1\r\nx\r\n",
    b"\r",
    b"\n",
    b"\n\r",
    b"x",
    b"plain",
    b"\r\n\r\n",
    b"SERVER_ERROR out of memory\r\n",
    b"VA 5 f0\r\nhello\r\nVA 2 f0\r\n",
)

GET_HEAD: Final = b"mg k v f"


def value(data: bytes, flags: bytes = b" f0", state: bytes = b"") -> bytes:
    """Return the reply for a hit; ``@`` stands for the opaque and its space."""
    return b"VA %d%b@%b\r\n%b\r\n" % (len(data), flags, state, data)


def config(data: bytes) -> bytes:
    """Return the reply to ``config get cluster``."""
    return b"CONFIG cluster 0 %d\r\n%b\r\nEND\r\n" % (len(data), data)


def placed(replies: Sequence[bytes], opaques: Sequence[bytes]) -> bytes:
    """Return *replies*, each with its opaque, or without one where the opaque is empty."""
    # The placeholder is replaced in the header only: a value may hold the same byte.
    pieces: list[bytes] = []
    for reply, opaque in zip(replies, opaques, strict=True):
        header, end, rest = reply.partition(b"\r\n")
        pieces.append(header.replace(b"@", b" " + opaque if opaque else b"") + end + rest)
    return b"".join(pieces)


def single(command: Command, reply: bytes) -> Script:
    def script(connection: ProtocolConnection) -> bytes:
        sent, _ = connection.send(command, b"")
        opaques = opaques_in(sent)
        return placed([reply], opaques or [b""])

    return script


def window(command: Command, replies: Sequence[bytes]) -> Script:
    def script(connection: ProtocolConnection) -> bytes:
        sent, _ = connection.send_window(command, [b"mg k"] * len(replies), None)
        first, *last = opaques_in(sent)
        return placed(replies, [first, *[b""] * (len(replies) - 2), *last])

    return script


def sequence(scripts: Iterable[Script]) -> Script:
    return lambda connection: b"".join([script(connection) for script in scripts])


def outcome(
    script: Script, cuts: Iterable[int], change: Callable[[bytes], bytes] = bytes
) -> tuple[list[Outcome], bool]:
    """Return the outcomes of the replies of *script* when split at *cuts*, and whether the connection must close."""
    connection = ProtocolConnection(max_reply_size=LIMIT)
    data = change(script(connection))
    return feed(connection, cut(data, cuts)), connection.must_close


# --- recorded replies, cut at each position ------------------------------------------------------------------------

GET, SET, DELETE, ADD = commands.MG_VALUE, commands.MS, commands.MD, commands.MA_VALUE

RECORDED: Final[tuple[Script, ...]] = (
    single(GET, value(b"hello")),
    single(GET, value(b"")),
    single(GET, value(b"END\r\n", state=b" X W")),
    single(GET, b"EN@\r\n"),
    single(SET, b"HD@\r\n"),
    single(SET, b"EX c0@\r\n"),
    single(ADD, value(b"10", b"")),
    single(commands.ME, b"ME key exp=-1 la=3 cas=2 fetch=no cls=1 size=64\r\n"),
    single(commands.MN, b"MN\r\n"),
    single(SET, b"SERVER_ERROR object too large for cache\r\n"),
    single(SET, b"CLIENT_ERROR bad data chunk\r\n"),
    single(GET, b"CLIENT_ERROR error decoding key\r\n"),
    single(commands.STATS, b"STAT pid 1\r\nSTAT empty \r\nSTAT x END\r\nEND\r\n"),
    single(commands.CONFIG_GET_CLUSTER, b"CONFIG cluster 0 14\r\n1\nhost||11211\n\r\nEND\r\n"),
    single(commands.CONFIG_GET_CLUSTER, b"ERROR\r\n"),
    single(commands.VERSION, b"VERSION 1.6.18\r\n"),
    single(commands.CACHE_MEMLIMIT, b"MEMLIMIT_TOO_SMALL no\r\n"),
    window(GET, [value(b"a"), value(b"b"), b"EN@\r\n", value(b"VA 5\r\n"), value(b"c")]),
    window(GET, [value(b"a"), value(b"\r\n"), value(b"b"), value(b"EN\r\n"), b"EN@\r\n"]),
    window(GET, [value(b"a"), b"SERVER_ERROR refcount overflow during fetch\r\n", value(b"b")]),
    window(GET, [value(b"a")]),
    window(GET, [b"EN@\r\n", b"EN@\r\n"]),
    window(SET, [b"HD@\r\n", b"NS@\r\n", b"SERVER_ERROR out of memory storing object\r\n", b"HD@\r\n", b"HD@\r\n"]),
    window(DELETE, [b"HD@\r\n", b"HD@\r\n", b"NF@\r\n", b"HD@\r\n"]),
    window(ADD, [value(b"1", b""), b"NF@\r\n", value(b"2", b"")]),
)


@pytest.mark.parametrize("script", RECORDED)
def test_a_recorded_reply_is_the_same_wherever_it_is_cut(script: Script) -> None:
    expected = outcome(script, ())
    size = len(script(ProtocolConnection(max_reply_size=LIMIT)))
    assert len(expected[0]) == 1, "the script is one whole reply"
    for place in range(1, size):
        assert outcome(script, [place]) == expected, f"cut at {place}"
    assert outcome(script, range(size)) == expected, "byte by byte"


def test_replies_in_one_packet_keep_their_order_when_the_last_is_incomplete() -> None:
    scripts = [single(GET, value(b"a")), single(SET, b"HD@\r\n"), single(GET, b"EN@\r\n"), single(GET, value(b"b"))]
    connection = ProtocolConnection(max_reply_size=LIMIT)
    data = sequence(scripts)(connection)
    half = len(data) - 4
    assert len(feed(connection, [data[:half]])) == 3
    assert feed(connection, [data[half:]]) == [((b"VA", b"1", b"f0", b"O3"), b"b")]
    assert not connection.must_close


# --- any stream, any split -----------------------------------------------------------------------------------------

values = st.one_of(
    st.sampled_from(TRAPS), st.lists(st.sampled_from(TRAPS), max_size=4).map(b"".join), st.binary(max_size=40)
)
hits = st.builds(
    value, values, st.sampled_from([b" f0", b" f3 c18446744073709551615 t-1"]), st.sampled_from([b"", b" W", b" Z X"])
)
middle_errors = st.sampled_from([b"SERVER_ERROR out of memory\r\n", b"SERVER_ERROR backend failure\r\n"])
get_replies = st.one_of(hits, hits, hits, st.just(b"EN@\r\n"), middle_errors)
set_replies = st.one_of(st.sampled_from([b"HD@\r\n"] * 3 + [b"NS@\r\n", b"EX c0@\r\n", b"NF@\r\n"]), middle_errors)
closing = st.sampled_from([b"CLIENT_ERROR bad data chunk\r\n", b"SERVER_ERROR out of memory reading request\r\n"])
stat_lines = st.lists(st.sampled_from([b"STAT a 1\r\n", b"STAT b \r\n", b"STAT c x END\r\n"]), max_size=4).map(b"".join)

singles = st.one_of(
    st.builds(single, st.just(GET), get_replies),
    st.builds(single, st.just(SET), st.one_of(set_replies, closing)),
    st.builds(single, st.just(commands.MN), st.just(b"MN\r\n")),
    st.builds(single, st.just(commands.STATS), stat_lines.map(lambda lines: lines + b"END\r\n")),
    st.builds(single, st.just(commands.CONFIG_GET_CLUSTER), values.map(config)),
)
windows = st.one_of(
    st.builds(window, st.just(GET), st.lists(get_replies, min_size=1, max_size=8)),
    st.builds(window, st.just(SET), st.lists(set_replies, min_size=1, max_size=8)),
    st.builds(window, st.just(SET), st.lists(st.one_of(set_replies, closing), min_size=1, max_size=8)),
)
streams = st.lists(st.one_of(singles, windows), min_size=1, max_size=4).map(sequence)
cuts = st.one_of(st.lists(st.integers(0, 2000), max_size=12), st.just(range(2000)))


@settings(max_examples=300, deadline=None)
@given(script=streams, places=cuts)
def test_any_split_of_the_stream_gives_the_same_replies(script: Script, places: Sequence[int]) -> None:
    assert outcome(script, places) == outcome(script, ())


@settings(max_examples=200, deadline=None)
@given(stored=st.lists(st.one_of(st.none(), values), min_size=1, max_size=12), places=cuts)
def test_a_window_gives_each_request_its_own_value(stored: list[bytes | None], places: Sequence[int]) -> None:
    connection = ProtocolConnection(max_reply_size=LIMIT)
    replies = [b"EN@\r\n" if data is None else value(data) for data in stored]
    data = window(GET, replies)(connection)
    (headers, found, indexes, *_), *behind = feed(connection, cut(data, places))
    assert found == tuple(stored)
    assert headers == tuple(b"EN" if data is None else b"VA %d f0" % len(data) for data in stored)
    assert (indexes, behind, connection.must_close) == ((), [], False)


# --- broken streams ------------------------------------------------------------------------------------------------

changes = st.one_of(
    st.tuples(st.just("drop"), st.integers(0, 400), st.integers(1, 8)),
    st.tuples(st.just("double"), st.integers(0, 400), st.integers(1, 8)),
    st.tuples(
        st.just("put"), st.integers(0, 400), st.sampled_from([*TRAPS, b"0", b"9", b" ", b"O", b"-", b"\0", b"x" * 2050])
    ),
)


def changed(data: bytes, kind: str, place: int, what: int | bytes) -> bytes:
    place %= len(data) + 1
    if isinstance(what, bytes):
        return data[:place] + what + data[place:]
    end = place + what
    return data[:place] + (b"" if kind == "drop" else data[place:end] * 2) + data[end:]


@settings(max_examples=500, deadline=None)
@given(script=streams, places=cuts, change=changes)
def test_a_broken_stream_fails_in_the_same_way_however_it_is_split(
    script: Script, places: Sequence[int], change: tuple[str, int, int | bytes]
) -> None:
    def breaking(data: bytes) -> bytes:
        return changed(data, *change)

    assert outcome(script, places, breaking) == outcome(script, (), breaking)


# --- the shortcut --------------------------------------------------------------------------------------------------

SHORTCUT: Final[tuple[tuple[Command, bytes], ...]] = (
    (GET, value(b"hello")),
    (GET, value(b"\r\nO7\r\n")),
    (GET, value(b"")),
    (GET, b"EN@\r\n"),
    (GET, value(b"x", state=b" W")),
    (commands.MG, b"HD@\r\n"),
    (commands.MG, b"HD t5@\r\n"),
    (commands.MG, b"EN@\r\n"),
    (commands.MG_CONDITIONAL, b"HD@\r\n"),
    (SET, b"HD@\r\n"),
    (SET, b"NS@\r\n"),
    (SET, b"EX c0@\r\n"),
    (DELETE, b"NF@\r\n"),
    (ADD, value(b"10", b"")),
    (ADD, b"NF@\r\n"),
    (commands.ME, b"EN\r\n"),
    (commands.ME, b"ME k exp=-1\r\n"),
    (commands.MN, b"MN\r\n"),
    (commands.STATS, b"END\r\n"),
    (commands.STATS, b"STAT\r\nEND\r\n"),
    (commands.STATS, b"STAT\r\n"),
    (commands.STATS, b"PREFIX\r\n"),
    (commands.FLUSH_ALL, b"OK\r\n"),
    (commands.VERSION, b"VERSION 1\r\n"),
    (commands.CONFIG_GET_CLUSTER, b"CONFIG\r\n"),
    (GET, b"VA@\r\n"),
    (GET, b"VA @\r\n\r\n"),
    (GET, b"VA 0@\r\n"),
    (ADD, b"EN@\r\n"),
    (GET, b"HD@\r\n"),
    (SET, value(b"x")),
    (GET, b"VA 5 " + b"x" * 3000 + b"@\r\nhello\r\n"),
    (GET, value(b"x", b" f0\r")),
    (commands.MG, value(b"x")),
)


def check_shortcut(command: Command, data: bytes, limit: int = LIMIT) -> bool:
    """Return whether the shortcut takes *data*; fail unless the parser gives the same reply then."""
    opaque = OPAQUES[7] if command.echoes else None
    short = whole_reply(data, opaque[0] if opaque else b"\r\n", command, limit)
    connection = ProtocolConnection(max_reply_size=limit)
    expectation = connection.expect(command, opaque)
    connection.receive(data)
    if short is None:
        return False
    assert not connection.must_close
    assert repr(connection) == "<ProtocolConnection: 0 expected, 0 bytes held>"
    assert expectation.answer is not None
    assert not isinstance(expectation.answer, Refusal)
    (tokens, found), (short_tokens, short_found) = expectation.answer, short
    assert [token for token in tokens if token != b"O7"] == [token for token in short_tokens if token != b"O7"]
    assert found == short_found
    return True


@pytest.mark.parametrize(("command", "reply"), SHORTCUT)
def test_the_shortcut_never_contradicts_the_parser_on_known_replies(command: Command, reply: bytes) -> None:
    data = reply.replace(b"@", b" O7" if command.echoes else b"")
    check_shortcut(command, data)
    for place in range(len(data)):
        check_shortcut(command, data[:place])


def test_the_shortcut_takes_the_usual_replies() -> None:
    usual = (
        (GET, value(b"hello")),
        (GET, value(b"a\r\nb")),
        (GET, b"EN@\r\n"),
        (SET, b"HD@\r\n"),
        (DELETE, b"NF@\r\n"),
    )
    for command, reply in usual:
        assert check_shortcut(command, reply.replace(b"@", b" O7"))


@settings(max_examples=600, deadline=None)
@given(which=st.sampled_from(SHORTCUT), edits=st.lists(changes, max_size=3), limit=st.sampled_from([LIMIT, 3]))
def test_the_shortcut_never_contradicts_the_parser(
    which: tuple[Command, bytes], edits: list[tuple[str, int, int | bytes]], limit: int
) -> None:
    command, reply = which
    data = reply.replace(b"@", b" O7" if command.echoes else b"")
    for edit in edits:
        data = changed(data, *edit)
    check_shortcut(command, data, limit)


# --- the shortcut for a large value that has not arrived completely --------------------------------------------------

BIG: Final = b"\r\nVA 2 f0 O7\r\n" * (LARGE_BLOCK // 10)
HALVES: Final[tuple[tuple[Command, bytes], ...]] = (
    *SHORTCUT,
    (GET, value(BIG)),
    (GET, value(BIG, b"")),
    (GET, value(BIG[:LARGE_BLOCK])),
    (GET, value(BIG[: LARGE_BLOCK - 1])),
    (GET, value(BIG, b" f0 c7 t-1 s5")),
    (GET, value(BIG, state=b" W")),
    (GET, value(BIG, b" f0 O8")),
    (GET, b"VA %d f0@\r\n%b" % (len(BIG), BIG + b"x\r\n")),  # longer than announced
    (GET, b"VA %d f0@\r\n%b" % (len(BIG) + 1, BIG + b"\r\n")),  # shorter
    (GET, b"VA %d f0@\r\n%b" % (LIMIT + 1, BIG)),
    (SET, value(BIG)),
    (commands.MG, value(BIG)),
    (commands.CONFIG_GET_CLUSTER, config(BIG)),
)


def check_half(command: Command, data: bytes, place: int, limit: int = LIMIT) -> bool:
    """Return whether the shortcut takes the first *place* bytes of *data*; fail unless it ends as the parser does."""
    opaque = OPAQUES[7] if command.echoes else None
    half = half_reply(data[:place], opaque[0] if opaque else b"\r\n", command, limit)
    if half is None:
        return False
    tokens, block = half
    rest = memoryview(data)[place:][: block.left]
    connection = ProtocolConnection(max_reply_size=limit)
    expectation = connection.expect(command, opaque)
    connection.receive(data[:place])
    assert connection.block is not None
    assert connection.block.left == block.left
    if len(rest) < block.left:
        return True
    connection.receive(bytes(rest))
    block.room[:] = rest
    block.advance(len(rest))
    found = block.end(b"\r\n")
    if found is None:
        assert expectation.answer is None
        assert "not followed by CRLF" in str(connection.failure)
        return True
    answer = expectation.answer
    assert answer is not None
    assert not isinstance(answer, Refusal)
    assert [token for token in answer[0] if token != b"O7"] == [token for token in tokens if token != b"O7"]
    assert answer[1] == found
    return True


@pytest.mark.parametrize(("command", "reply"), HALVES)
def test_the_shortcut_for_large_values_never_contradicts_the_parser_on_known_replies(
    command: Command, reply: bytes
) -> None:
    data = reply.replace(b"@", b" O7" if command.echoes else b"")
    for place in {*range(min(len(data), 80)), len(data) // 2, len(data) - 3, len(data) - 2, len(data) - 1, len(data)}:
        check_half(command, data, max(place, 0))


def test_the_shortcut_for_large_values_takes_the_usual_ones() -> None:
    data = value(BIG).replace(b"@", b" O7")
    begin = data.index(b"\r\n") + 2
    assert all(check_half(GET, data, place) for place in (begin, begin + 1, 5000, len(data) - 2, len(data) - 1))
    assert not check_half(GET, data, begin - 1)
    assert not check_half(GET, data, len(data))


@settings(max_examples=400, deadline=None)
@given(
    which=st.sampled_from(HALVES),
    edits=st.lists(changes, max_size=3),
    place=st.integers(0, 100) | st.integers(0, 40_000),
    limit=st.sampled_from([LIMIT, LARGE_BLOCK + 100, 3]),
)
def test_the_shortcut_for_large_values_never_contradicts_the_parser(
    which: tuple[Command, bytes], edits: list[tuple[str, int, int | bytes]], place: int, limit: int
) -> None:
    command, reply = which
    data = reply.replace(b"@", b" O7" if command.echoes else b"")
    for edit in edits:
        data = changed(data, *edit)
    check_half(command, data, place, limit)
