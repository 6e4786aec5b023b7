"""Replies as tables: the answer that each line gives, and after which error lines the connection stays open."""

from __future__ import annotations

from typing import Final

import pytest

from metacache.errors import (
    AuthenticationError,
    ClientError,
    ConnectError,
    MetacacheError,
    ProtocolError,
    ServerError,
)
from metacache.protocol import commands
from metacache.protocol.commands import Command
from metacache.protocol.connection import ProtocolConnection
from metacache.protocol.replies import OPAQUES, find_flag, return_flags
from tests.protocol.wire import Outcome, answer, failure, feed, waiting_for

MG, MG_VALUE, MG_CONDITIONAL = commands.MG, commands.MG_VALUE, commands.MG_CONDITIONAL
MS, MD, MD_DROP, MA, MA_VALUE, ME, MN = (
    commands.MS,
    commands.MD,
    commands.MD_DROP,
    commands.MA,
    commands.MA_VALUE,
    commands.ME,
    commands.MN,
)

# The request's opaque is O7.
ANSWERS: Final[tuple[tuple[Command, bytes, str, bytes | None], ...]] = (
    (MG, b"HD O7\r\n", "HD O7", None),
    (MG, b"HD t30 O7\r\n", "HD t30 O7", None),
    (MG, b"EN O7\r\n", "EN O7", None),
    (MG_VALUE, b"VA 5 O7\r\nhello\r\n", "VA 5 O7", b"hello"),
    (MG_VALUE, b"VA 0 O7\r\n\r\n", "VA 0 O7", b""),
    (MG_VALUE, b"VA 0 f0 O7 Z\r\n\r\n", "VA 0 f0 O7 Z", b""),
    (MG_VALUE, b"VA 2 f0 c9 O7 X W\r\n\r\n\r\n", "VA 2 f0 c9 O7 X W", b"\r\n"),
    (MG_VALUE, b"VA 7 f4294967295 t-1 O7\r\nEN O7\r\n\r\n", "VA 7 f4294967295 t-1 O7", b"EN O7\r\n"),
    (MG_VALUE, b"VA 1 kO7 O7\r\nx\r\n", "VA 1 kO7 O7", b"x"),
    (MG_VALUE, b"EN O7\r\n", "EN O7", None),
    (MG_CONDITIONAL, b"HD O7\r\n", "HD O7", None),
    (MG_CONDITIONAL, b"VA 1 O7\r\nx\r\n", "VA 1 O7", b"x"),
    (MS, b"HD O7\r\n", "HD O7", None),
    (MS, b"NS O7\r\n", "NS O7", None),
    (MS, b"EX c0 O7\r\n", "EX c0 O7", None),
    (MS, b"NF O7\r\n", "NF O7", None),
    (MD, b"HD O7\r\n", "HD O7", None),
    (MD, b"NF O7\r\n", "NF O7", None),
    (MD, b"EX O7\r\n", "EX O7", None),
    (MD_DROP, b"NS O7\r\n", "NS O7", None),
    (MA, b"HD O7\r\n", "HD O7", None),
    (MA, b"NF O7\r\n", "NF O7", None),
    (MA, b"NS O7\r\n", "NS O7", None),
    (MA_VALUE, b"VA 2 O7\r\n10\r\n", "VA 2 O7", b"10"),
    (MA_VALUE, b"EX O7\r\n", "EX O7", None),
    (
        ME,
        b"ME key exp=-1 la=3 cas=2 fetch=no cls=1 size=64\r\n",
        "ME key exp=-1 la=3 cas=2 fetch=no cls=1 size=64",
        None,
    ),
    (ME, b"EN\r\n", "EN", None),
    (MN, b"MN\r\n", "MN", None),
    # Releases before 1.6.18 write more spaces than one.
    (MG_VALUE, b"VA 5  O7\r\nhello\r\n", "VA 5  O7", b"hello"),
    (MD, b"NF  O7 \r\n", "NF  O7 ", None),
    (MN, b"MN \r\n", "MN ", None),
    (commands.VERSION, b"VERSION 1.6.18\r\n", "VERSION 1.6.18", None),
    (commands.FLUSH_ALL, b"OK\r\n", "OK", None),
    (commands.VERBOSITY, b"OK\r\n", "OK", None),
    (commands.CACHE_MEMLIMIT, b"OK\r\n", "OK", None),
    (commands.CACHE_MEMLIMIT, b"MEMLIMIT_TOO_SMALL cannot be\r\n", "MEMLIMIT_TOO_SMALL cannot be", None),
    (commands.CACHE_MEMLIMIT, b"MEMLIMIT_ADJUST_FAILED out\r\n", "MEMLIMIT_ADJUST_FAILED out", None),
    (commands.AUTHENTICATE, b"STORED\r\n", "STORED", None),
    (
        commands.CONFIG_GET_CLUSTER,
        b"CONFIG cluster 0 14\r\n1\nhost||11211\n\r\nEND\r\n",
        "CONFIG cluster 0 14",
        b"1\nhost||11211\n",
    ),
)


def _name(value: object) -> str | None:
    return value.name if isinstance(value, Command) else None


@pytest.mark.parametrize(("command", "data", "header", "value"), ANSWERS, ids=_name)
def test_an_answer_is_its_tokens_and_its_value(command: Command, data: bytes, header: str, value: bytes | None) -> None:
    tokens, found = answer(command, data)
    assert tokens in (tuple(header.encode().split(b" ")), tuple(header.encode().split()))
    assert found == value


BLOCKS: Final[tuple[tuple[bytes, tuple[bytes, ...]], ...]] = (
    (b"END\r\n", (b"END",)),
    (b"STAT pid 1\r\nEND\r\n", (b"STAT pid 1", b"END")),
    (b"STAT empty \r\nSTAT spaces a b  c\r\nEND\r\n", (b"STAT empty ", b"STAT spaces a b  c", b"END")),
    (b"RESET\r\n", (b"RESET",)),
    (b"OK\r\n", (b"OK",)),
    (b"PREFIX a get 1\r\nEND\r\n", (b"PREFIX a get 1", b"END")),
)


@pytest.mark.parametrize(("data", "lines"), BLOCKS)
def test_stats_are_lines_up_to_their_end(data: bytes, lines: tuple[bytes, ...]) -> None:
    assert answer(commands.STATS, data) == (lines, None)


def test_flags_are_read_without_code_and_size() -> None:
    assert return_flags(([b"VA", b"5", b"f3", b"O7"], b"")) == [b"f3", b"O7"]
    assert return_flags(([b"HD", b"s5"], None)) == [b"s5"]
    assert find_flag([b"f3", b"O7"], b"O") == b"7"
    assert find_flag([b"W"], b"W") == b""
    assert find_flag([b"f3"], b"c") is None


# --- error lines ---------------------------------------------------------------------------------------------------

# The line, the class of its error, and whether the connection closes after it when it answers an mg, an ms or an admin
# line. After CLIENT_ERROR to an ms it is unknown whether the server swallowed the data block.
ERRORS: Final[tuple[tuple[bytes, type[MetacacheError], bool, bool, bool], ...]] = (
    (b"SERVER_ERROR object too large for cache", ServerError, False, False, False),
    (b"SERVER_ERROR out of memory storing object", ServerError, False, False, False),
    (b"SERVER_ERROR Out of memory during read", ServerError, False, False, False),
    (b"SERVER_ERROR out of memory", ServerError, False, False, False),
    (b"SERVER_ERROR out of memory allocating new item", ServerError, False, False, False),
    (b"SERVER_ERROR refcount overflow during fetch", ServerError, False, False, False),
    (b"SERVER_ERROR out of memory reading request", ServerError, True, True, True),
    (b"SERVER_ERROR backend failure", ServerError, False, False, False),
    (b"SERVER_ERROR lua failure", ServerError, False, False, False),
    (b"SERVER_ERROR active request limit reached", ServerError, False, False, False),
    (b"SERVER_ERROR something new", ServerError, False, False, False),
    (b"SERVER_ERROR", ServerError, False, False, False),
    (b"CLIENT_ERROR cannot increment or decrement non-numeric value", ClientError, False, True, False),
    (b"CLIENT_ERROR invalid flag", ClientError, False, True, False),
    (b"CLIENT_ERROR duplicate flag", ClientError, False, True, False),
    (b"CLIENT_ERROR invalid or duplicate flag", ClientError, False, True, False),
    (b"CLIENT_ERROR bad token in command line format", ClientError, False, True, False),
    (b"CLIENT_ERROR error decoding key", ClientError, False, True, False),
    (b"CLIENT_ERROR opaque token too long", ClientError, False, True, False),
    (b"CLIENT_ERROR bad command line format", ClientError, False, True, False),
    (b"CLIENT_ERROR bad data chunk", ClientError, False, True, False),
    (b"CLIENT_ERROR something new", ClientError, False, True, False),
    (b"CLIENT_ERROR flush_all not allowed", ClientError, False, True, False),
    (b"CLIENT_ERROR unauthenticated", AuthenticationError, True, True, True),
    (b"CLIENT_ERROR authentication failure", AuthenticationError, True, True, True),
    (b"CLIENT_ERROR bad authentication token format", AuthenticationError, True, True, True),
    (b"CLIENT_ERROR parsing request", ClientError, True, True, True),
    (b"CLIENT_ERROR request too long", ClientError, True, True, True),
    (b"ERROR Too many open connections", ConnectError, True, True, True),
)


@pytest.mark.parametrize(("line", "kind", "mg", "ms", "admin"), ERRORS, ids=[str(row[0]) for row in ERRORS])
def test_an_error_line_fails_its_request_and_closes_the_connection_only_if_it_must(
    line: bytes, kind: type[MetacacheError], mg: bool, ms: bool, admin: bool
) -> None:
    for command in (MG, MG_VALUE, MD, MA, MA_VALUE, ME):
        _expect_error(command, line, kind, closes=mg)
    _expect_error(MS, line, kind, closes=ms)
    for command in (commands.FLUSH_ALL, commands.STATS, commands.VERSION, commands.CONFIG_GET_CLUSTER):
        _expect_error(command, line, kind, closes=admin)


def _expect_error(command: Command, line: bytes, kind: type[MetacacheError], *, closes: bool) -> None:
    connection = waiting_for(command)
    connection.expect(MN, None)
    (found, text, does_close), *behind = feed(connection, [line + b"\r\nMN\r\n"])
    assert found is kind
    assert does_close == closes == connection.must_close
    assert behind == ([] if closes else [((b"MN",), None)])
    assert connection.failure is None
    assert "something new" not in str(text), "a text that is not in the table may be part of a value"


def test_the_error_for_a_value_that_does_not_fit_says_that_the_old_value_is_gone() -> None:
    for line in (b"object too large for cache", b"out of memory storing object", b"Out of memory during read"):
        _, text, _ = answer(MS, b"SERVER_ERROR %b\r\n" % line)
        assert "old value is gone" in str(text)


def test_error_closes_the_connection_after_a_meta_command_and_not_after_an_admin_line() -> None:
    for command in (MG, MG_VALUE, MS, MD, MA, ME, MN):
        assert answer(command, b"ERROR\r\n")[::2] == (ProtocolError, True)
    for command in (commands.FLUSH_ALL, commands.STATS, commands.CONFIG_GET_CLUSTER, commands.CACHE_MEMLIMIT):
        assert answer(command, b"ERROR\r\n")[::2] == (ClientError, False)


def test_an_error_never_quotes_text_that_may_be_a_value() -> None:
    _, text, _ = answer(MG_VALUE, b"SERVER_ERROR my secret value\r\n")
    assert "secret" not in str(text)
    assert "16 bytes" in str(text)


# --- several on one connection -------------------------------------------------------------------------------------


def test_replies_come_in_the_order_of_their_requests() -> None:
    connection = ProtocolConnection(max_reply_size=100)
    for command in (MG_VALUE, MS, MN, MG_VALUE):
        connection.send(command, b"")
    finished = feed(connection, [b"VA 1 O0\r\na\r\nHD O1\r\nMN\r\nEN O2\r\n"])
    expected: list[Outcome] = [
        ((b"VA", b"1", b"O0"), b"a"),
        ((b"HD", b"O1"), None),
        ((b"MN",), None),
        ((b"EN", b"O2"), None),
    ]
    assert finished == expected
    assert not connection.must_close


def test_a_reply_that_finished_before_a_broken_one_stays_valid() -> None:
    connection = ProtocolConnection(max_reply_size=100)
    for command in (MG_VALUE, MS):
        connection.send(command, b"")
    assert feed(connection, [b"VA 1 O0\r\na\r\nVA 1 O1\r\na\r\n"]) == [((b"VA", b"1", b"O0"), b"a")]
    assert connection.must_close
    assert connection.failure is not None


def test_the_repr_shows_the_state_and_no_bytes() -> None:
    connection = waiting_for(MG_VALUE)
    connection.receive(b"VA 9 O7\r\nsecret")
    assert repr(connection) == "<ProtocolConnection: 1 expected, 15 bytes held>"
    connection.receive(b"-too-long-\r\n")
    assert repr(connection) == "<ProtocolConnection: must close>"


def test_an_opaque_has_its_four_forms() -> None:
    assert OPAQUES[7] == (b" O7\r\n", b"O7", b"HD O7\r\n", b" O7")


def test_a_reply_without_a_known_code_fails() -> None:
    assert "'ZZ' is not a reply to mg" in failure(MG, [b"ZZ\r\n"])
