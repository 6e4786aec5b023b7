"""Requests as bytes: every meta command with every flag, every admin line, and the arguments that are refused."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Final

import pytest

from metacache.errors import InvalidArgumentError, InvalidTypeError
from metacache.protocol import commands
from metacache.protocol.commands import Request
from metacache.protocol.connection import ProtocolConnection
from metacache.protocol.flags import MAX_FLAGS, REQUEST_FLAGS, Commands, Flag, Token
from metacache.protocol.replies import OPAQUES, opaques_from
from tests import raw_requests
from tests.protocol.wire import wire

Flags = Mapping[str, Token]


def meta_set(key: bytes, flags: Flags) -> Request:
    return raw_requests.meta_set(key, b"value", flags)


# How a request is built, and the bytes before and behind its flags.
META: Final[dict[str, tuple[Callable[[bytes, Flags], Request], bytes, bytes]]] = {
    "mg": (raw_requests.meta_get, b"mg key", b"\r\n"),
    "ms": (meta_set, b"ms key 5", b"\r\nvalue\r\n"),
    "md": (raw_requests.meta_delete, b"md key", b"\r\n"),
    "ma": (raw_requests.meta_arithmetic, b"ma key", b"\r\n"),
}

U32: Final = 2**32 - 1
U64: Final = 2**64 - 1
I32: Final = 2**31 - 1

# Name, token, bytes, the commands that take it, and the flags it needs beside it (protocol.txt, "Meta Get" and others).
FLAGS: Final[tuple[tuple[str, Token, bytes, str, Flags], ...]] = (
    ("base64", True, b"b", "mg ms md ma", {}),
    ("return_key", True, b"k", "mg ms md ma", {}),
    ("opaque", "abc", b"Oabc", "mg ms md ma", {}),
    ("quiet", True, b"q", "mg ms md ma", {}),
    ("proxy_hint", "near", b"Pnear", "mg ms md ma", {}),
    ("router_hint", b"far", b"Lfar", "mg ms md ma", {}),
    ("value", True, b"v", "mg ma", {}),
    ("return_size", True, b"s", "mg", {}),
    ("return_stored_size", True, b"s", "ms", {}),
    ("return_ttl", True, b"t", "mg ma", {}),
    ("return_cas", True, b"c", "mg ms ma", {}),
    ("return_client_flags", True, b"f", "mg", {}),
    ("return_fetched", True, b"h", "mg", {}),
    ("return_idle", True, b"l", "mg", {}),
    ("no_bump", True, b"u", "mg", {}),
    ("ttl", 30, b"T30", "mg ms ma", {}),
    ("stale_ttl", 30, b"T30", "md", {"invalidate": True}),
    ("vivify", 30, b"N30", "mg ma", {}),
    ("vivify_append", 30, b"N30", "ms", {}),
    ("recache", 30, b"R30", "mg", {}),
    ("new_cas", U64, b"E18446744073709551615", "mg ms md ma", {}),
    ("compare_cas", 5, b"C5", "ms md ma", {}),
    ("unless_cas", 5, b"C5", "mg", {}),
    ("client_flags", U32, b"F4294967295", "ms", {}),
    ("dropped_client_flags", 1, b"F1", "md", {"drop_value": True}),
    ("invalidate", True, b"I", "ms md", {}),
    ("mode", "E", b"ME", "ms ma", {}),
    ("initial", 0, b"J0", "ma", {"vivify": 1}),
    ("delta", U64, b"D18446744073709551615", "ma", {}),
    ("drop_value", True, b"x", "md", {}),
)


@pytest.mark.parametrize(("name", "token", "expected", "takers", "beside"), FLAGS, ids=[row[0] for row in FLAGS])
@pytest.mark.parametrize("command", META)
def test_a_flag_is_written_where_it_acts_and_refused_where_it_would_do_nothing(
    command: str, name: str, token: Token, expected: bytes, takers: str, beside: Flags
) -> None:
    build, start, end = META[command]
    if command not in takers.split():
        with pytest.raises(InvalidArgumentError, match=f"{name!r} does nothing on"):
            build(b"key", {name: token})
        return
    request = wire(build(b"key", {name: token, **beside}))
    assert request.startswith(start + b" " + expected)
    assert request.endswith(end)
    if not beside:
        assert request == start + b" " + expected + end


def test_every_flag_of_the_table_has_a_row_here() -> None:
    assert {row[0] for row in FLAGS} == {flag.name for flag in REQUEST_FLAGS}


def test_the_letters_are_those_of_the_protocol() -> None:
    letters = {command: "".join(sorted(_letters(command))) for command in Commands.ALL}
    assert letters == {
        Commands.MG: "CELNOPRTbcfhklqstuv",
        Commands.MS: "CEFILMNOPTbckqs",
        Commands.MD: "CEFILOPTbkqx",
        Commands.MA: "CDEJLMNOPTbckqtv",
    }


def _letters(command: Commands) -> set[str]:
    return {flag.letter.decode() for flag in REQUEST_FLAGS if flag.commands & command}


def test_two_flags_of_one_letter_never_act_on_one_command() -> None:
    for command in Commands.ALL:
        letters = [flag.letter for flag in REQUEST_FLAGS if flag.commands & command]
        assert len(letters) == len(set(letters)), command


# --- tokens --------------------------------------------------------------------------------------------------------

I32_TOKENS: Final = ((-1, 0, 1, I32), (-2, I32 + 1, -(2**63), 2**64))
U32_TOKENS: Final = ((0, 1, U32), (-1, U32 + 1))
U64_TOKENS: Final = ((0, 1, U64), (-1, U64 + 1))
CAS_TOKENS: Final = ((1, U64), (0, -1, U64 + 1))
TEXT_31: Final[tuple[tuple[Token, ...], tuple[Token, ...]]] = (
    ("", "x", "x" * 31, "é", b"\xff\x80"),
    ("x" * 32, "a b", "a\r\nflush_all", "a\t", "a\0", "\x7f", b"a\n", "é" * 16),
)
TEXT_64: Final[tuple[tuple[Token, ...], tuple[Token, ...]]] = (
    ("", "x" * 64),
    ("x" * 65, "a b", "a\r\nb", b"\0", "\x7f"),
)
MODES: Final[tuple[tuple[Token, ...], tuple[Token, ...]]] = (
    ("E", "A", "P", "R", "S", "I", "D", "+", "-", b"E"),
    ("", "EE", "E\n", " ", "1", "é", b"\r"),
)

TOKENS: Final[dict[str, tuple[tuple[Token, ...], tuple[Token, ...]]]] = {
    "opaque": TEXT_31,
    "proxy_hint": TEXT_64,
    "router_hint": TEXT_64,
    "mode": MODES,
    "ttl": I32_TOKENS,
    "stale_ttl": I32_TOKENS,
    "vivify": I32_TOKENS,
    "vivify_append": I32_TOKENS,
    "recache": I32_TOKENS,
    "new_cas": U64_TOKENS,
    "compare_cas": CAS_TOKENS,
    "unless_cas": CAS_TOKENS,
    "client_flags": U32_TOKENS,
    "dropped_client_flags": U32_TOKENS,
    "initial": U64_TOKENS,
    "delta": U64_TOKENS,
}
_FLAGS_BY_NAME: Final = {flag.name: flag for flag in REQUEST_FLAGS}
_TAKERS: Final = {row[0]: (row[3].split(), row[4]) for row in FLAGS}


def build_with(name: str, token: object) -> Request:
    takers, beside = _TAKERS[name]
    # Arguments that a type checker would refuse.
    return META[takers[0]][0](b"key", {name: token, **beside})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]


def test_every_flag_with_a_token_has_its_range_here() -> None:
    assert set(TOKENS) == {flag.name for flag in REQUEST_FLAGS if flag.token is not None}


@pytest.mark.parametrize("name", TOKENS)
def test_a_token_within_its_range_is_written_unchanged(name: str) -> None:
    for token in TOKENS[name][0]:
        written = (
            str(token).encode() if isinstance(token, int) else token if isinstance(token, bytes) else token.encode()
        )
        assert b" " + _FLAGS_BY_NAME[name].letter + written in wire(build_with(name, token))


@pytest.mark.parametrize("name", TOKENS)
def test_a_token_out_of_its_range_is_refused(name: str) -> None:
    for token in TOKENS[name][1]:
        with pytest.raises(InvalidArgumentError, match=name):
            build_with(name, token)


@pytest.mark.parametrize("flag", REQUEST_FLAGS, ids=lambda flag: flag.name)
def test_a_token_of_a_wrong_type_is_refused(flag: Flag) -> None:
    numeric = flag.token is not None and isinstance(TOKENS[flag.name][0][0], int)
    wrong: tuple[object, ...] = (1.0, None, b"1", "1 q", True, False) if numeric else (1, 0, 1.5, None)
    if flag.token is None:
        wrong = (*wrong, "x", b"")
    elif not numeric:
        wrong = (*wrong, True, False)
    for token in wrong:
        with pytest.raises(InvalidTypeError, match=flag.name):
            build_with(flag.name, token)


def test_a_lone_surrogate_in_an_opaque_is_replaced() -> None:
    assert wire(raw_requests.meta_get(b"key", {"opaque": "\ud800"})) == b"mg key O?\r\n"


# --- flags together ------------------------------------------------------------------------------------------------

TOGETHER: Final[tuple[tuple[str, Flags, bytes], ...]] = (
    ("mg", {}, b"mg key\r\n"),
    ("mg", {"value": False, "ttl": 1}, b"mg key T1\r\n"),
    ("mg", {"return_ttl": True, "ttl": 60}, b"mg key t T60\r\n"),
    ("mg", {"ttl": 60, "return_ttl": True}, b"mg key T60 t\r\n"),
    ("mg", {"value": True, "return_client_flags": True, "opaque": "9"}, b"mg key v f O9\r\n"),
    ("ms", {"mode": "A", "vivify_append": 0}, b"ms key 5 MA N0\r\nvalue\r\n"),
    ("md", {"invalidate": True, "stale_ttl": -1}, b"md key I T-1\r\n"),
    ("md", {"drop_value": True, "stale_ttl": 3}, b"md key x T3\r\n"),
    ("ma", {"vivify": 5, "initial": 7, "delta": 0, "mode": "-"}, b"ma key N5 J7 D0 M-\r\n"),
)


@pytest.mark.parametrize(("command", "flags", "expected"), TOGETHER)
def test_flags_are_written_in_the_order_given(command: str, flags: Flags, expected: bytes) -> None:
    assert wire(META[command][0](b"key", flags)) == expected


REFUSED: Final[tuple[tuple[str, Flags, str], ...]] = (
    ("mg", {"nonsense": True}, "no request flag is called 'nonsense'"),
    ("mg", {"nonsense": False}, "no request flag is called 'nonsense'"),
    ("mg", {"base64": True, "return_key": True}, "base64 and return_key"),
    ("md", {"return_key": True, "base64": True}, "base64 and return_key"),
    ("md", {"stale_ttl": 5}, "only beside invalidate or drop_value"),
    ("md", {"dropped_client_flags": 5}, "only beside drop_value"),
    ("md", {"dropped_client_flags": 5, "drop_value": False}, "only beside drop_value"),
    ("ma", {"initial": 5}, "only beside vivify"),
)


@pytest.mark.parametrize(("command", "flags", "why"), REFUSED)
def test_flags_that_would_mislead_or_do_nothing_are_refused(command: str, flags: Flags, why: str) -> None:
    with pytest.raises(InvalidArgumentError, match=why):
        META[command][0](b"key", flags)


def test_more_flags_than_every_server_takes_are_refused() -> None:
    plain: list[str] = [flag.name for flag in REQUEST_FLAGS if flag.commands & Commands.MG and flag.token is None]
    flags: dict[str, Token] = dict.fromkeys((name for name in plain if name != "base64"), True)
    flags |= {"opaque": "", "proxy_hint": "", "router_hint": "", "ttl": 1, "vivify": 1, "recache": 1}
    assert len(flags) == MAX_FLAGS
    assert wire(raw_requests.meta_get(b"key", flags)).count(b" ") == MAX_FLAGS + 1
    with pytest.raises(InvalidArgumentError, match="17 flags"):
        raw_requests.meta_get(b"key", {**flags, "new_cas": 1})


# --- the commands without flags ------------------------------------------------------------------------------------

LINES: Final = (
    (commands.meta_noop(), b"mn\r\n"),
    (commands.version(), b"version\r\n"),
    (commands.stats(), b"stats\r\n"),
    (commands.stats("settings"), b"stats settings\r\n"),
    (commands.stats("detail dump"), b"stats detail dump\r\n"),
    (commands.stats(" reset "), b"stats reset\r\n"),
    (commands.flush_all(), b"flush_all\r\n"),
    (commands.flush_all(0), b"flush_all\r\n"),
    (commands.flush_all(10), b"flush_all 10\r\n"),
    (commands.verbosity(0), b"verbosity 0\r\n"),
    (commands.verbosity(2), b"verbosity 2\r\n"),
    (commands.cache_memlimit(64), b"cache_memlimit 64\r\n"),
    (commands.config_get_cluster(), b"config get cluster\r\n"),
    (commands.authenticate("user", "pass word"), b"set metacache_authentication 0 -1 14\r\nuser pass word\r\n"),
    (commands.authenticate("user", "é"), b"set metacache_authentication 0 -1 7\r\nuser \xc3\xa9\r\n"),
)


@pytest.mark.parametrize(("request_", "expected"), LINES, ids=[str(line[1]) for line in LINES])
def test_a_line_without_flags(request_: Request, expected: bytes) -> None:
    assert wire(request_) == expected


# Arguments that a type checker would refuse.
BAD_LINES: Final[tuple[Callable[[], Request], ...]] = (
    lambda: commands.stats("settings\r\nflush_all"),
    lambda: commands.stats("x" * 65),
    lambda: commands.stats("\ud800"),
    lambda: commands.stats(None),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    lambda: commands.stats(b"items"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    lambda: commands.flush_all(-1),
    lambda: commands.flush_all(2**31),
    lambda: commands.flush_all(1.5),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    lambda: commands.flush_all(0.0),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    lambda: commands.flush_all(None),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    lambda: commands.flush_all(""),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    lambda: commands.flush_all("0 noreply"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    lambda: commands.flush_all(delay=True),
    lambda: commands.flush_all(delay=False),
    lambda: commands.verbosity(-1),
    lambda: commands.verbosity(level=True),
    lambda: commands.verbosity("1 noreply"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    lambda: commands.cache_memlimit(0),
    lambda: commands.cache_memlimit(2**31),
    lambda: commands.cache_memlimit(8.0),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
)


@pytest.mark.parametrize("build", BAD_LINES)
def test_a_bad_argument_of_an_admin_line_is_refused(build: Callable[[], Request]) -> None:
    with pytest.raises(InvalidArgumentError):
        build()


# --- requests on a connection --------------------------------------------------------------------------------------


def test_a_connection_puts_its_opaque_behind_the_flags_of_a_request() -> None:
    connection = ProtocolConnection(max_reply_size=1, first_opaque=4)
    get = raw_requests.meta_get(b"k", {"value": True})
    store = raw_requests.meta_set(b"k", b"v", {"ttl": 1})
    assert connection.send(get.command, get.head)[0] == b"mg k v O4\r\n"
    assert connection.send(store.command, store.head, store.body)[0] == b"ms k 1 T1 O5\r\nv\r\n"
    assert connection.send(commands.MN, b"mn")[0] == b"mn\r\n"
    assert connection.send(commands.ME, b"me k")[0] == b"me k\r\n"
    assert connection.send(commands.VERSION, b"version")[0] == b"version\r\n"


def test_a_window_has_opaques_on_its_first_and_last_request() -> None:
    connection = ProtocolConnection(max_reply_size=1)
    three, _ = connection.send_window(commands.MG_VALUE, [b"mg a v", b"mg b v", b"mg c v"], None)
    assert three == b"mg a v O0\r\nmg b v\r\nmg c v O1\r\n"
    one, _ = connection.send_window(commands.MS, [b"ms a 1"], [b"x"])
    assert one == b"ms a 1 O3\r\nx\r\n"
    two, _ = connection.send_window(commands.MS, [b"ms a 1", b"ms b 0"], [b"x", b""])
    assert two == b"ms a 1 O4\r\nx\r\nms b 0 O5\r\n\r\n"


def test_opaques_go_round_and_never_grow_beyond_what_every_server_takes() -> None:
    connection = ProtocolConnection(max_reply_size=1, first_opaque=2**40 + 1)
    seen = [connection.next_opaque()[1] for _ in range(5000)]
    assert len(set(seen)) == 2048
    assert seen[:2048] == seen[2048:4096]
    assert max(map(len, seen)) <= 32


def test_a_connection_keeps_no_opaques_of_its_own() -> None:
    tracemalloc.start()
    connections = [ProtocolConnection(max_reply_size=1, first_opaque=number * 97) for number in range(20)]
    for connection in connections:
        for _ in range(5000):
            connection.next_opaque()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used < 2_000 * len(connections)


@pytest.mark.parametrize("first", [0, 1, 63, 64, 2047, 2048, 5000, 65535])
def test_a_connection_takes_all_opaques_in_turn_from_its_first_one(first: int) -> None:
    taken = list(islice(opaques_from(first), 2 * len(OPAQUES)))
    assert taken == [OPAQUES[(first + number) % len(OPAQUES)] for number in range(2 * len(OPAQUES))]


def test_the_opaques_are_all_different_and_each_has_four_forms() -> None:
    assert len(set(OPAQUES)) == len(OPAQUES) == 2048
    assert OPAQUES[7] == (b" O7\r\n", b"O7", b"HD O7\r\n", b" O7")
    assert OPAQUES[-1] == (b" O2047\r\n", b"O2047", b"HD O2047\r\n", b" O2047")
