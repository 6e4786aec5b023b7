"""Streams that no correct server sends: each is a ProtocolError, and the connection must close."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from typing import Final

import pytest

from metacache.errors import ProtocolError, ServerError
from metacache.protocol import commands
from metacache.protocol.commands import Command
from metacache.protocol.connection import ProtocolConnection
from metacache.protocol.replies import MAX_HEADER
from tests.protocol.wire import answer, cut, failure, feed, opaques_in, outcomes, waiting_for

MG, GET, SET, DELETE, MA, ADD = (
    commands.MG,
    commands.MG_VALUE,
    commands.MS,
    commands.MD,
    commands.MA,
    commands.MA_VALUE,
)


# --- sizes ---------------------------------------------------------------------------------------------------------

SIZES: Final = (
    b"-1",
    b"",
    b"abc",
    b"+3",
    b"1_0",
    "٣".encode(),
    "\uff13".encode(),
    b"0x3",
    b"3.0",
    b"3e1",
    b"3\t",
    b"\t3",
    b"3\r",
    b"\0",
    b"1" * 11,
    b"4294967296",
    b"99999999999999999999",
    b"9999999999",
    b"0000000000003",
)


@pytest.mark.parametrize("size", SIZES)
def test_a_size_that_is_not_a_plain_number_within_the_limit_is_refused(size: bytes) -> None:
    reply = b"VA " + size + b" f0 O7\r\nabc\r\n"
    assert "size" in failure(GET, [reply]) or "announces" in failure(GET, [reply])
    assert failure(GET, cut(reply, range(len(reply))))


@pytest.mark.parametrize("header", [b"VA O7", b"VA", b"VA  O7", b"VA f0 O7"])
def test_a_missing_size_is_refused(header: bytes) -> None:
    connection = waiting_for(GET)
    assert connection.receive(header + b"\r\n") == []
    assert isinstance(connection.failure, ProtocolError)


def test_a_size_above_the_limit_is_refused_before_memory_is_taken() -> None:
    connection = waiting_for(GET, limit=1 << 30)
    tracemalloc.start()
    try:
        assert connection.receive(b"VA 1073741825 f0 O7\r\n") == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "1073741825 bytes, the limit is 1073741824" in str(connection.failure)
    assert peak < 100_000


def test_a_size_at_the_limit_is_taken() -> None:
    assert answer(GET, b"VA 3 f0 O7\r\nabc\r\n", limit=3) == ((b"VA", b"3", b"f0", b"O7"), b"abc")
    assert "announces 3 bytes, the limit is 2" in failure(GET, [b"VA 3 f0 O7\r\nabc\r\n"], limit=2)


@pytest.mark.parametrize("digits", [b"-1", b"", b"abc", b"1_0", b"99999999999"])
def test_the_size_of_a_cluster_configuration_is_checked_too(digits: bytes) -> None:
    assert failure(commands.CONFIG_GET_CLUSTER, [b"CONFIG cluster 0 " + digits + b"\r\n"])


@pytest.mark.parametrize(
    "reply", [b"CONFIG\r\n", b"CONFIG cluster 0 3\r\nabcdef\r\nEND\r\n", b"CONFIG cluster 0 3\r\nabc\r\nSTOP\r\n"]
)
def test_a_malformed_cluster_configuration_is_refused(reply: bytes) -> None:
    assert failure(commands.CONFIG_GET_CLUSTER, [reply])


@pytest.mark.parametrize("block", [b"abcdef\r\n", b"abc\n\r", b"ab\r\n..", b"abc\rX"])
def test_a_data_block_without_crlf_behind_it_is_refused(block: bytes) -> None:
    assert "not followed by CRLF" in failure(GET, [b"VA 3 f0 O7\r\n" + block])


# --- lines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [GET, SET, commands.MN, commands.STATS, commands.VERSION, commands.CONFIG_GET_CLUSTER]
)
def test_a_line_without_end_is_refused_at_the_length_limit(command: Command) -> None:
    chunks = [b"x" * 512] * 20_000  # 10 MB; the parser reads the first chunks only
    connection = waiting_for(command)
    for number, chunk in enumerate(chunks):
        assert connection.receive(chunk) == []
        if connection.must_close:
            assert number < 5
            break
    assert f"within {MAX_HEADER} bytes" in str(connection.failure)
    assert len(repr(connection)) < 100


@pytest.mark.parametrize("cuts", [(), (MAX_HEADER,), (MAX_HEADER + 1,)], ids=str)
def test_a_line_of_the_greatest_length_is_read_wherever_it_is_cut(cuts: Sequence[int]) -> None:
    line = b"HD O7".ljust(MAX_HEADER)
    connection = waiting_for(SET)
    assert len(feed(connection, cut(line + b"\r\n", cuts))) == 1
    assert failure(SET, cut(line + b" \r\n", cuts))


STRANGE: Final = (
    b"ZZ",
    b"zz",
    b"hd O7",
    b"HTTP/1.1 400 Bad Request",
    b"\x15\x03\x01\x00\x02\x02\x28",
    b"\0\0\0",
    b"\0" * 40,
    b"",
    b" ",
    b"HD\tO7",
    b"HDO7",
    b"VALUE k 0 5",
    b"STORED",
    b"hello",
    b"OK",
    b"END",
    b"ME k",
)


@pytest.mark.parametrize("line", STRANGE)
@pytest.mark.parametrize("command", [GET, MG, SET, DELETE, ADD, MA, commands.MN])
def test_a_line_without_a_known_code_is_refused(command: Command, line: bytes) -> None:
    assert f"not a reply to {command.name}" in failure(command, [line + b"\r\n"])


def test_a_strange_line_is_quoted_only_if_it_is_a_status_word() -> None:
    assert failure(GET, [b"STORED\r\n"]).startswith("'STORED' is not a reply to mg")
    assert failure(commands.STATS, [b"NOT_FOUND\r\n"]).startswith("'NOT_FOUND' is not a reply to stats")
    for line in (b"hunter2", b"SECRET VALUE", b"A" * 17, b"A", b"PASS1", b"\xff" * 8, b"SECRET\n"):
        message = failure(GET, [line + b"\r\n"])
        assert message.startswith(f"a line of {len(line)} bytes is not a reply")
        assert line.decode(errors="replace").strip() not in message.split()


# --- the wrong reply -----------------------------------------------------------------------------------------------

IMPOSSIBLE: Final = (
    (GET, b"NF HD NS EX MN ME"),
    (MG, b"VA NF NS EX MN ME"),
    (commands.MG_CONDITIONAL, b"NF NS EX MN ME"),
    (SET, b"EN MN ME"),
    (DELETE, b"EN NS MN ME"),
    (commands.MD_DROP, b"EN MN ME"),
    (MA, b"VA EN MN ME"),
    (ADD, b"HD EN MN ME"),
    (commands.ME, b"HD VA NF NS EX MN"),
    (commands.MN, b"HD VA EN NF NS EX ME"),
    (commands.VERSION, b"HD EN MN OK"),
    (commands.FLUSH_ALL, b"HD EN MN END STORED"),
    (commands.STATS, b"HD EN MN VERSION"),
    (commands.CONFIG_GET_CLUSTER, b"HD EN MN END"),
    (commands.AUTHENTICATE, b"HD EN MN OK NOT_STORED"),
)


@pytest.mark.parametrize(("command", "codes"), IMPOSSIBLE)
def test_a_code_that_cannot_answer_the_command_is_refused(command: Command, codes: bytes) -> None:
    for code in codes.split():
        opaque = b" O7" if command.echoes else b""
        assert failure(command, [code + opaque + b"\r\n"])


@pytest.mark.parametrize(("command", "size"), [(SET, b" 1"), (DELETE, b" 1"), (MG, b" 1"), (MA, b" 1")])
def test_a_value_for_a_command_that_asked_for_none_is_refused(command: Command, size: bytes) -> None:
    assert "a line of" in failure(command, [b"VA" + size + b" O7\r\nx\r\n"])


@pytest.mark.parametrize("opaque", [b"O8", b"O77", b"O", b"o7", b"kO7", b"7"])
@pytest.mark.parametrize("head", [b"VA 1 f0", b"EN"])
def test_the_opaque_of_another_request_is_refused(head: bytes, opaque: bytes) -> None:
    message = failure(GET, [head + b" " + opaque + b"\r\n" + (b"x\r\n" if head.startswith(b"VA") else b"")])
    assert ("another request's opaque" if opaque.startswith(b"O") else "carries no opaque") in message


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (GET, b"EN"),
        (GET, b"VA 1 f0"),
        (SET, b"HD"),
        (SET, b"NS"),
        (SET, b"EX"),
        (DELETE, b"NF"),
        (ADD, b"NF"),
        (MG, b"HD"),
    ],
)
def test_a_reply_without_its_opaque_is_refused(command: Command, reply: bytes) -> None:
    assert "carries no opaque" in failure(command, [reply + b"\r\nx\r\n"])


# --- more than was asked for ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("surplus", [b"EN O7\r\n", b"MN\r\n", b"x", b"\r\n"])
def test_bytes_behind_the_last_reply_close_the_connection_and_leave_the_reply(surplus: bytes) -> None:
    connection = waiting_for(GET)
    assert feed(connection, [b"EN O7\r\n" + surplus]) == [((b"EN", b"O7"), None)]
    assert connection.must_close
    assert connection.failure is None


def test_bytes_before_any_request_are_a_failure() -> None:
    connection = ProtocolConnection(max_reply_size=10)
    assert connection.receive(b"EN\r\n") == []
    assert "4 bytes arrived without a request" in str(connection.failure)


def test_a_second_mn_closes_the_connection() -> None:
    connection = waiting_for(commands.MN)
    assert feed(connection, [b"MN\r\nMN\r\n"]) == [((b"MN",), None)]
    assert connection.must_close


# --- windows -------------------------------------------------------------------------------------------------------


def window_of(command: Command, count: int) -> tuple[ProtocolConnection, bytes, bytes]:
    """Return a connection that waits for a window, and the opaques of its first and last request."""
    connection = ProtocolConnection(max_reply_size=1 << 20)
    sent, _ = connection.send_window(command, [b"mg k"] * count, None)
    first, *last = opaques_in(sent)
    return connection, first, last[0]


def broken_window(command: Command, replies: Sequence[bytes]) -> str:
    """Return the failure of a window with *replies*, one for each request; <1> and <2> stand for the opaques."""
    messages: set[str] = set()
    for cuts in ((), range(1000)):
        connection, first, last = window_of(command, len(replies))
        data = b"".join(replies).replace(b"<1>", first).replace(b"<2>", last)
        assert feed(connection, cut(data, cuts)) == [], "no reply of a doubtful window is handed out"
        assert connection.failure is not None
        messages.add(str(connection.failure))
    (only,) = messages
    return only


HIT, MISS = b"VA 1 f0\r\nx\r\n", b"EN\r\n"
FIRST, LAST = b"VA 1 f0 <1>\r\nx\r\n", b"VA 1 f0 <2>\r\nx\r\n"

BROKEN_WINDOWS: Final[tuple[tuple[Command, tuple[bytes, ...]], ...]] = (
    (GET, (HIT, HIT, LAST)),  # the first without opaque
    (GET, (FIRST, HIT, HIT)),  # the last without opaque
    (GET, (LAST, HIT, FIRST)),
    (GET, (FIRST, HIT, b"EN O999\r\n")),
    (GET, (FIRST, b"NF\r\n", LAST)),
    (GET, (FIRST, b"HD\r\n", LAST)),
    (GET, (FIRST, b"MN\r\n", LAST)),
    (GET, (FIRST, b"VA -1 f0\r\nx\r\n", LAST)),
    (GET, (FIRST, b"VA f0\r\nx\r\n", LAST)),
    (GET, (FIRST, b"VA 2 f0\r\nx\r\n", LAST)),
    (GET, (FIRST, b"VA 0 f0\r\nx\r\n", LAST)),
    (GET, (FIRST, b"VA 99999999 f0\r\nx\r\n", LAST)),
    (GET, (FIRST, b"VA 9999999999 f0\r\nx\r\n", LAST)),
    (GET, (FIRST, b"\r\n", LAST)),
    (GET, (FIRST, b"x\r\n", LAST)),
    (GET, (FIRST, b"x" * 3000, LAST)),
    (SET, (b"HD <1>\r\n", b"EN\r\n", b"HD <2>\r\n")),
    (SET, (b"HD <1>\r\n", b"VA 1\r\nx\r\n", b"HD <2>\r\n")),
    (SET, (b"HD <1>\r\n", b"HD\r\n", b"HD\r\n")),
    (SET, (b"HD <1>\r\n", b"HD\r\n", b"HD O999\r\n")),
    (DELETE, (b"HD <1>\r\n", b"NS\r\n", b"HD <2>\r\n")),
    (ADD, (FIRST, b"EN\r\n", LAST)),
    (ADD, (FIRST, b"HD\r\n", LAST)),
)


@pytest.mark.parametrize(("command", "replies"), BROKEN_WINDOWS)
def test_a_window_with_one_doubtful_reply_fails_as_a_whole(command: Command, replies: Sequence[bytes]) -> None:
    assert broken_window(command, replies)


def test_a_value_above_the_limit_is_refused_within_a_window_when_its_header_was_seen_before() -> None:
    def failure_at(limit: int) -> ProtocolError | None:
        connection = ProtocolConnection(max_reply_size=limit)
        sent, _ = connection.send_window(GET, [b"mg k"] * 4, None)
        first, last = opaques_in(sent)
        feed(connection, [b"EN %b\r\n%bEN %b\r\n" % (first, b"VA 5 f0\r\nhello\r\n" * 2, last)])
        return connection.failure

    assert failure_at(5) is None  # it makes the header known to the next connection
    assert "announces 5 bytes, the limit is 4" in str(failure_at(4))


def test_a_list_of_lines_above_the_limit_is_refused() -> None:
    line = b"STAT pid 1\r\n"
    assert answer(commands.STATS, line * 3 + b"END\r\n", limit=36) == ((*[b"STAT pid 1"] * 3, b"END"), None)
    assert "longer than 36 bytes" in failure(commands.STATS, [line * 4], limit=36)


def test_a_window_with_a_missing_or_a_surplus_reply_is_not_handed_out() -> None:
    connection, first, last = window_of(GET, 4)
    short = b"".join((FIRST, HIT, LAST)).replace(b"<1>", first).replace(b"<2>", last)
    assert feed(connection, [short]) == []
    assert not connection.must_close, "the fourth may still come"
    long = b"".join((FIRST, HIT, HIT, HIT, LAST))
    connection, first, last = window_of(GET, 4)
    assert feed(connection, [long.replace(b"<1>", first).replace(b"<2>", last)]) == []
    assert "carries no opaque" in str(connection.failure)


def test_an_error_in_a_window_is_the_error_of_its_own_request() -> None:
    connection, first, last = window_of(SET, 4)
    data = b"HD <1>\r\nSERVER_ERROR out of memory storing object\r\nNS\r\nHD <2>\r\n".replace(b"<1>", first).replace(
        b"<2>", last
    )
    ((headers, _, indexes, errors, closes),) = feed(connection, [data])
    assert headers == (b"HD", b"", b"NS", b"HD")
    assert indexes == (1,)
    assert isinstance(errors, tuple)
    assert errors[0][0] is ServerError
    assert "old value is gone" in errors[0][1]
    assert closes is connection.must_close is False


def test_an_error_that_closes_the_connection_ends_its_window_and_the_rest_is_ignored() -> None:
    connection, first, last = window_of(SET, 4)
    data = b"HD <1>\r\nCLIENT_ERROR bad data chunk\r\nHD\r\nHD <2>\r\n".replace(b"<1>", first).replace(b"<2>", last)
    (window,) = connection.receive(data)
    ((headers, _, indexes, _, closes),) = outcomes([window])
    assert headers == (b"HD", b"")
    assert indexes == (1,)
    assert closes is connection.must_close is True
