"""Helpers of the protocol tests: bytes in, answers out as plain values, which ``==`` compares."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from metacache.protocol.commands import Command, Request
from metacache.protocol.connection import ProtocolConnection, frame
from metacache.protocol.error_lines import Refusal
from metacache.protocol.expectations import Answer, Expectation, ExpectedReply
from metacache.protocol.replies import OPAQUES
from metacache.protocol.windows import Window

LIMIT: Final = 1 << 20

Outcome: TypeAlias = tuple[object, ...]
"""One answer as plain values: tokens and data block, or the class and text of an error and whether it closes.

A window: headers, values, indexes of the errors, the errors, whether it closes.
"""


def wire(request: Request) -> bytes:
    """Return the bytes of *request* without an opaque."""
    return frame(request.head, None, request.body)


def opaques_in(sent: bytes) -> list[bytes]:
    """Return the opaque tokens of the requests in *sent*, in order."""
    return [b"O" + digits for digits in re.findall(rb" O([0-9]+)(?=[ \r])", sent)]


def plain(answer: Answer | None) -> Outcome:
    """Return *answer* as plain values."""
    if answer is None:
        return ("nothing",)
    if isinstance(answer, Refusal):
        return (type(answer.error), str(answer.error), answer.closes)
    return (tuple(answer[0]), answer[1])


def outcomes(finished: Iterable[Expectation]) -> list[Outcome]:
    """Return the outcome of each of *finished*."""
    return [_outcome(expectation) for expectation in finished]


def _outcome(expectation: Expectation) -> Outcome:
    if isinstance(expectation, ExpectedReply):
        return plain(expectation.answer)
    assert isinstance(expectation, Window)
    replies = expectation.replies
    errors = tuple((type(error), str(error)) for error in replies.errors.values())
    return (tuple(replies.headers), tuple(replies.values), tuple(replies.errors), errors, expectation.closes)


def feed(connection: ProtocolConnection, chunks: Iterable[bytes]) -> list[Outcome]:
    """Give *connection* the chunks until it must close; return the finished replies, in order."""
    finished: list[Outcome] = []
    for chunk in chunks:
        if connection.must_close:
            break
        finished += outcomes(connection.receive(chunk))
    return finished


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Return *data* cut at each of *places*."""
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(edges) if start < stop]


def waiting_for(command: Command, *, limit: int = LIMIT, opaque: int = 7) -> ProtocolConnection:
    """Return a connection that waits for one reply to *command*, with the opaque O7 if it echoes."""
    connection = ProtocolConnection(max_reply_size=limit)
    connection.expect(command, OPAQUES[opaque] if command.echoes else None)
    return connection


def answer(command: Command, data: bytes, *, limit: int = LIMIT) -> Outcome:
    """Return the only answer in *data*."""
    connection = waiting_for(command, limit=limit)
    finished = feed(connection, [data])
    assert connection.failure is None, connection.failure
    assert len(finished) == 1
    return finished[0]


def failure(command: Command, chunks: Sequence[bytes], *, limit: int = LIMIT) -> str:
    """Return the text of the ProtocolError that *chunks* cause."""
    connection = waiting_for(command, limit=limit)
    assert feed(connection, chunks) == []
    assert connection.must_close
    assert connection.failure is not None
    return str(connection.failure)
