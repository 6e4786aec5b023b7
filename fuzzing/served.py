"""The target of the embedded server's request parser: it answers every stream, however that is cut, in its grammar."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Final, TypeAlias

from fuzzing.cursor import Cursor
from metacache.memory.server import MemoryServer
from metacache.sessions import Ending

NOW: Final = 1_700_000_000.0  # seconds since 1970
LONGEST_LINE: Final = 2048  # a longer line is refused or not, depending on how it arrives, as by memcached
MEMORY: Final = 1 << 20  # bytes

Outcome: TypeAlias = tuple[bytes, bool, list[tuple[bytes, bytes]]]
"""The replies, whether the server closed the connection, and its items."""

_dumped = re.compile(rb"^key=[^\r\n]*\n", re.MULTILINE).sub
_is_line = re.compile(
    rb"(HD|EN|NS|EX|NF|MN|ME|OK|END|RESET|ERROR|CLIENT_ERROR|SERVER_ERROR|VERSION|STAT|MEMLIMIT_TOO_SMALL|BUSY"
    rb"|BADCLASS|NOTFULL|UNSAFE|SAME|STORED|DELETED|TOUCHED)([ a-zA-Z0-9%._-][^\n]*)?"
).fullmatch


def serve_requests(data: bytes) -> None:
    """Send *data* to an embedded server at one time and in pieces; check its replies and its memory."""
    cursor = Cursor(data)
    places = [cursor.number(2) for _ in range(3)]
    stream = cursor.rest()
    whole = _serve([stream])
    _check_grammar(whole[0])
    if len(stream) > LONGEST_LINE:
        return
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    for pieces in ([stream[a:b] for a, b in pairwise(edges)], [stream[at : at + 1] for at in range(len(stream))]):
        assert _serve(pieces) == whole, "the server depends on where the stream is cut"


def _serve(pieces: Iterable[bytes]) -> Outcome:
    server = MemoryServer(lambda: NOW, memory_limit=MEMORY)
    session = server.open()
    replies, closed = b"", False
    for piece in pieces:
        steps = session.receive(piece)
        for step in [steps] if isinstance(steps, bytes) else steps:
            if isinstance(step, bytes):
                replies += step
            closed = closed or isinstance(step, Ending)
    assert server.store.used <= MEMORY, "the items take more memory than the limit"
    return replies, closed, [(key, item.value) for key, item in server.store.items.items()]


def _check_grammar(replies: bytes) -> None:
    """Raise AssertionError unless *replies* are complete lines and data blocks."""
    replies = _dumped(b"", replies)  # memcached ends the lines of a metadump with LF alone
    while replies:
        line, end, replies = replies.partition(b"\r\n")
        assert end, "a reply without a line end"
        words = line.split(b" ")
        if words[0] != b"VA":
            assert _is_line(line), "a line that is no reply"
            continue
        size = int(words[1])
        assert replies[size : size + 2] == b"\r\n", "a value of another length than its header says"
        replies = replies[size + 2 :]
