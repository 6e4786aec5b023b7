"""`answers`, the shortcut for many requests in flight, agrees with the parser on every stream, however it is cut."""

from __future__ import annotations

from itertools import pairwise
from typing import Final, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metacache.protocol import commands
from metacache.protocol.commands import Command
from metacache.protocol.connection import ProtocolConnection, answer_of
from metacache.protocol.error_lines import Refusal
from metacache.protocol.expectations import Answer, Expectation

LIMIT: Final = 1000

# A command and a reply of the server to it; %b is the opaque.
KINDS: Final[tuple[tuple[Command, bytes], ...]] = (
    (commands.MG_VALUE, b"VA 5 f12 %b\r\nhello\r\n"),
    (commands.MG_VALUE, b"VA 0 f12 %b\r\n\r\n"),
    (commands.MG_VALUE, b"VA 9 f12 %b\r\na\r\nb\r\nEN\r\r\n"),
    (commands.MG_VALUE, b"VA 0 f0 %b W\r\n\r\n"),
    (commands.MG_VALUE, b"VA 3 f1 %b Z X\r\nabc\r\n"),
    (commands.MG_VALUE, b"EN %b\r\n"),
    (commands.MG, b"HD t30 %b\r\n"),
    (commands.MS, b"HD %b\r\n"),
    (commands.MS, b"NS %b\r\n"),
    (commands.MS, b"SERVER_ERROR object too large for cache\r\n"),
    (commands.MS, b"CLIENT_ERROR bad data chunk\r\n"),
    (commands.MD, b"NF %b\r\n"),
    (commands.MA_VALUE, b"VA 2 %b\r\n10\r\n"),
    (commands.MA_VALUE, b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"),
    # Requests without opaque, which are never plain.
    (commands.MN, b"MN\r\n"),
    (commands.ME, b"ME key exp=-1\r\n"),
    (commands.STATS, b"STAT pid 1\r\nEND\r\n"),
    # Replies that no server sends to the command.
    (commands.ME, b"ME other exp=-1\r\n"),
    (commands.MG, b"VA 5 f12 %b\r\nhello\r\n"),
    (commands.MG_VALUE, b"HD %b\r\n"),
    (commands.MG_VALUE, b"VA 5 f12 O9999\r\nhello\r\n"),
    (commands.MG_VALUE, b"VA 2000 f12 %b\r\n"),
    (commands.MG_VALUE, b"VA 1001 f12 %b\r\n" + b"x" * (LIMIT + 1) + b"\r\n"),
    (commands.MG_VALUE, b"VA -1 f12 %b\r\n"),
    (commands.MG_VALUE, b"VA 3 f12 %b\r\nhello\r\n"),
    (commands.MG_VALUE, b"VA %b\r\n"),
    (commands.MG_VALUE, b"EN\r\n"),
    (commands.MD, b"garbage\r\n"),
)

Exchanges: TypeAlias = list[tuple[Command, bytes]]
Outcome: TypeAlias = tuple[list[object], bool, str | None]  # the answers, must_close, the failure


def plain_answer(answer: Answer | Expectation) -> object:
    if isinstance(answer, Refusal):
        return type(answer.error), str(answer.error), answer.closes
    assert isinstance(answer, tuple), "a single request's answer"
    tokens, value = answer
    return [token for token in tokens if token[:1] != b"O"], value  # the shortcut leaves the opaque out


def outcome(
    connection: ProtocolConnection, exchanges: Exchanges, surplus: bytes, cuts: list[int], *, plain: bool
) -> Outcome:
    stream = b""
    for command, reply in exchanges:
        if plain and command.echoes:
            request = connection.send_plain(command, b"xx key", b"body" if command is commands.MS else None)
        else:
            request, _ = connection.send(command, b"xx key", b"body" if command is commands.MS else None)
        opaque = request.split(b"\r\n")[0].rpartition(b" ")[2]
        stream += reply.replace(b"%b", opaque)
    stream += surplus
    found: list[object] = []
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for start, stop in pairwise(edges):
        if stop > start and not connection.must_close:
            data = stream[start:stop]
            answers = connection.answers(data) if plain else [answer_of(each) for each in connection.receive(data)]
            found += map(plain_answer, answers)
    return found, connection.must_close, None if connection.failure is None else str(connection.failure)


@given(
    st.lists(st.sampled_from(KINDS), max_size=8),
    st.sampled_from([b"", b"", b"EN\r\n"]),
    st.lists(st.integers(0), max_size=4),
)
def test_the_shortcut_and_the_parser_agree_on_every_stream_and_every_cut(
    exchanges: Exchanges, surplus: bytes, cuts: list[int]
) -> None:
    quick = outcome(ProtocolConnection(max_reply_size=LIMIT), exchanges, surplus, cuts, plain=True)
    slow = outcome(ProtocolConnection(max_reply_size=LIMIT), exchanges, surplus, cuts, plain=False)
    assert quick == slow


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind[0].name} {kind[1][:20]!r}")
def test_they_agree_on_every_kind_alone_and_among_others_wherever_it_is_cut(kind: tuple[Command, bytes]) -> None:
    # Chance alone does not try each kind in each run.
    for exchanges in ([kind], [KINDS[0], kind, KINDS[5]]):
        length = sum(len(reply) for _, reply in exchanges) + 16
        for cuts in ([], *([at] for at in range(1, min(length, 80)))):
            for surplus in (b"", b"EN\r\n"):
                quick = outcome(ProtocolConnection(max_reply_size=LIMIT), exchanges, surplus, cuts, plain=True)
                slow = outcome(ProtocolConnection(max_reply_size=LIMIT), exchanges, surplus, cuts, plain=False)
                assert quick == slow, (surplus, cuts)


@given(st.lists(st.sampled_from(KINDS[:6]), min_size=1, max_size=300))
def test_good_replies_are_all_answered(exchanges: Exchanges) -> None:
    found, must_close, failure = outcome(ProtocolConnection(max_reply_size=LIMIT), exchanges, b"", [], plain=True)
    assert len(found) == len(exchanges)
    assert (must_close, failure) == (False, None)
