"""Targets of the reply parser: however a stream is cut, and whichever shortcut reads it, the answers are the same."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Final, TypeAlias

from fuzzing.cursor import Cursor
from metacache.protocol import commands
from metacache.protocol.commands import Command
from metacache.protocol.connection import ProtocolConnection, answer_of
from metacache.protocol.error_lines import Refusal
from metacache.protocol.expectations import Answer, Expectation
from metacache.protocol.replies import OPAQUES, whole_reply
from metacache.protocol.windows import Window

LIMIT: Final = 1000  # bytes of a value
COMMANDS: Final = (
    commands.MG_VALUE,
    commands.MG,
    commands.MS,
    commands.MD,
    commands.MA_VALUE,
    commands.MA,
    commands.ME,
    commands.MN,
    commands.STATS,
    commands.VERSION,
    commands.CONFIG_GET_CLUSTER,
)
IN_WINDOWS: Final = (commands.MG_VALUE, commands.MS, commands.MD)

Outcome: TypeAlias = tuple[list[object], bool]
"""The answers as plain values, and whether the connection must close."""


def parse_replies(data: bytes) -> None:
    """Parse the rest of *data* as replies to some requests: at one time, in pieces, and by the shortcuts."""
    cursor = Cursor(data)
    asked = [cursor.choice(COMMANDS) for _ in range(1 + cursor.number() % 4)]
    places = [cursor.number(2) for _ in range(3)]
    stream = cursor.rest()
    whole = _read(_waiting(asked, plain=False), [stream], plain=False)
    for pieces in (_cut(stream, places), [stream[at : at + 1] for at in range(len(stream))]):
        slow, quick = (_read(_waiting(asked, plain=plain), pieces, plain=plain) for plain in (False, True))
        assert slow == whole, "the parser depends on where the stream is cut"
        assert quick == whole, "the shortcut for many requests disagrees with the parser"
    _check_whole_reply(asked[0], stream)


def parse_windows(data: bytes) -> None:
    """Parse the rest of *data* as replies to a window of a batch: at one time, in pieces and byte by byte."""
    cursor = Cursor(data)
    command, count = cursor.choice(IN_WINDOWS), 1 + cursor.number() % 8
    places = [cursor.number(2) for _ in range(3)]
    stream = cursor.rest()
    whole = _read(_windowed(command, count), [stream], plain=False)
    for pieces in (_cut(stream, places), [stream[at : at + 1] for at in range(len(stream))]):
        assert _read(_windowed(command, count), pieces, plain=False) == whole, "the window depends on where it is cut"


def _waiting(asked: Iterable[Command], *, plain: bool) -> ProtocolConnection:
    connection = ProtocolConnection(max_reply_size=LIMIT)
    for command in asked:
        if plain and command.echoes:
            connection.send_plain(command, b"xx key", None)
        else:
            connection.send(command, b"xx key")
    return connection


def _windowed(command: Command, count: int) -> ProtocolConnection:
    connection = ProtocolConnection(max_reply_size=LIMIT)
    connection.send_window(command, [b"xx key"] * count, None)
    return connection


def _read(connection: ProtocolConnection, pieces: Iterable[bytes], *, plain: bool) -> Outcome:
    found: list[object] = []
    for piece in pieces:
        if connection.must_close or not piece:
            continue
        answers = connection.answers(piece) if plain else [answer_of(each) for each in connection.receive(piece)]
        found += [_plain(answer) for answer in answers]
    return found, connection.must_close


def _plain(answer: Answer | Expectation) -> object:
    if isinstance(answer, Refusal):
        return type(answer.error), str(answer.error), answer.closes
    if isinstance(answer, Window):
        replies = answer.replies
        errors = [(index, type(error), str(error)) for index, error in replies.errors.items()]
        return replies.headers, replies.values, errors, answer.closes
    assert isinstance(answer, tuple), "a finished reply has an answer"
    tokens, value = answer
    return [token for token in tokens if token[:1] != b"O"], value  # the shortcut leaves the opaque out


def _cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]


def _check_whole_reply(command: Command, stream: bytes) -> None:
    """Compare the shortcut for one request at a time with the parser."""
    if not command.echoes:
        return
    quick = whole_reply(stream, OPAQUES[0][0], command, LIMIT)
    if quick is None:
        return
    connection = _waiting([command], plain=False)
    slow = _read(connection, [stream], plain=False)
    assert slow == ([_plain(quick)], False), "the shortcut for one request disagrees with the parser"
