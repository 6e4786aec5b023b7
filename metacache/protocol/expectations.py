"""What a connection waits for: the reply to one request, a block of admin lines. Batches: `windows`.

Each parses its own bytes and checks them against its request: code, opaque, length. Knows no queue and no buffer; a
doubt is a ProtocolError, after which nothing that follows on the connection can be believed.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from typing import Final, Protocol, TypeAlias, final

from metacache.errors import ProtocolError
from metacache.protocol.commands import Command, Framing
from metacache.protocol.replies import (
    MAX_HEADER,
    Refusal,
    Reply,
    find_flag,
    foreign,
    parse_size,
    refusal,
    strange,
)

__all__ = ["AdminBlock", "Answer", "Expectation", "KeyedReply", "Single", "wrong_opaque"]

Answer: TypeAlias = Reply | Refusal


class Expectation(Protocol):
    """One place in the queue of replies."""

    @property
    def needed(self) -> int:
        """Bytes needed behind the position that `parse` returned before it is worth another try; 0 when finished."""
        ...

    @property
    def closes(self) -> bool:
        """True when a finished expectation leaves a connection that must close."""
        ...

    def parse(self, data: bytes, pos: int, limit: int, /) -> int:
        """Consume *data* from *pos* and return the position behind it. *limit*: the largest value in bytes.

        Raises ProtocolError when the bytes cannot be the reply.
        """
        ...

    def end_of_stream(self) -> bool:
        """Tell whether the end of the connection is itself the answer; finish if so."""
        ...


def _line_end(data: bytes, pos: int) -> int:
    """Return where the header line at *pos* ends, -1 when its CRLF has not come.

    Raises ProtocolError for a line longer than any reply's, and for one that another kind of server begins.
    """
    end = data.find(b"\r\n", pos, pos + MAX_HEADER + 2)
    if end < 0 and (hint := foreign(data, pos)) is not None:
        raise ProtocolError(f"the bytes received are not a reply ({hint}); the connection is closed")
    if end < 0 and len(data) - pos > MAX_HEADER + 1:  # one more may be the CR of a line that just fits
        raise ProtocolError(f"no end of line within {MAX_HEADER} bytes; the connection is closed")
    return end


def _value_end(data: bytes, start: int, size: int) -> int:
    """Return where the data block ends, -1 when it is not complete. Raises ProtocolError when no CRLF follows it."""
    stop = start + size
    if len(data) < stop + 2:
        return -1
    if data[stop : stop + 2] != b"\r\n":
        raise ProtocolError("the data block is not followed by CRLF, so its length was false; the connection is closed")
    return stop


@final
class Single:
    """The reply to one request. *opaque* is the token that must come back, None for a command that has none."""

    __slots__ = ("answer", "closes", "command", "needed", "opaque")

    def __init__(self, command: Command, opaque: bytes | None) -> None:
        self.command = command
        self.opaque = opaque
        self.answer: Answer | None = None
        self.needed = 1
        self.closes = False

    def parse(self, data: bytes, pos: int, limit: int, /) -> int:
        """Consume what is there; see `Expectation`."""
        end = data.find(b"\r\n", pos)
        if not 0 <= end - pos <= MAX_HEADER:
            end = _line_end(data, pos)
            self.needed = len(data) - pos + 1
            return pos
        tokens = data[pos:end].split(b" ")
        code = tokens[0]
        if code not in self.command.codes or (self.opaque is not None and self.opaque not in tokens):
            tokens = self._doubt(data[pos:end])
            if not tokens:
                return end + 2
            code = tokens[0]
        if code != b"VA":
            self.answer = (tokens, None)
            self.needed = 0
            return end + 2
        start = end + 2
        size = parse_size(tokens, limit)
        stop = _value_end(data, start, size)
        if stop < 0:
            self.needed = start + size + 2 - pos
            return pos
        self.answer = (tokens, data[start:stop])
        self.needed = 0
        return stop + 2

    def _doubt(self, header: bytes) -> list[bytes]:
        """Finish with a refusal and return nothing; or return the tokens without the empty ones; or raise."""
        refused = refusal(header, self.command)
        if refused is not None:
            self.answer = refused
            self.closes = refused.closes
            self.needed = 0
            return []
        # Releases before 1.6.18 put surplus spaces into replies.
        tokens = [token for token in header.split(b" ") if token]
        if not tokens or tokens[0] not in self.command.codes:
            raise strange(header, self.command)
        if self.opaque is not None and self.opaque not in tokens:
            raise wrong_opaque(tokens, self.command)
        return tokens

    def end_of_stream(self) -> bool:
        """Tell whether the end is the answer, as it is to ``shutdown``; finish if so."""
        if self.command.ends:
            self.answer = ([b"OK"], None)
            self.needed = 0
        return self.command.ends


def wrong_opaque(tokens: list[bytes], command: Command) -> ProtocolError:
    """Return the error for a reply whose opaque is missing or another's."""
    what = "carries no opaque" if find_flag(tokens[1:], b"O") is None else "carries another request's opaque"
    return ProtocolError(f"a reply to {command.name} {what}; the connection is closed")


@final
class KeyedReply:
    """The reply to ``me``, which carries no opaque and repeats its key instead.

    *head*: the request line without CRLF. ``EN`` repeats nothing.
    """

    __slots__ = ("_keys", "_single", "answer", "closes", "command", "needed")

    def __init__(self, command: Command, head: bytes) -> None:
        self.command = command
        self.answer: Answer | None = None
        self.needed = 1
        self.closes = False
        self._keys = _spellings(head)
        self._single = Single(command, None)

    def parse(self, data: bytes, pos: int, limit: int, /) -> int:
        """Consume what is there; see `Expectation`."""
        single = self._single
        pos = single.parse(data, pos, limit)
        answer = single.answer
        if answer is not None and not isinstance(answer, Refusal):
            code, *tokens = filter(None, answer[0])  # releases before 1.6.18 put surplus spaces into replies
            if code == b"ME" and tokens[:1] not in self._keys:
                raise ProtocolError(f"a reply to {self.command.name} is for another key; the connection is closed")
        self.answer, self.needed, self.closes = answer, single.needed, single.closes
        return pos

    def end_of_stream(self) -> bool:
        """Return False: the end is never the answer."""
        return False


def _spellings(head: bytes) -> tuple[list[bytes], ...]:
    """Return the forms in which a reply may repeat the key of the request line *head*.

    The server repeats a key as the item was stored, plain or as base64, however the request wrote it.
    """
    _, key, *flags = head.split(b" ")
    if b"b" not in flags:
        return [key], [b64encode(key)]
    try:
        return [key], [b64decode(key, validate=True)]
    except binascii.Error:  # the server refuses it
        return ([key],)


@final
class AdminBlock:
    """A reply of several lines: STAT … END, or CONFIG with its data."""

    __slots__ = ("_lines", "_size", "answer", "closes", "command", "needed")

    def __init__(self, command: Command) -> None:
        self.command = command
        self.answer: Answer | None = None
        self.needed = 1
        self.closes = False
        self._lines: list[bytes] = []
        self._size = 0  # of the lines, in bytes

    def parse(self, data: bytes, pos: int, limit: int, /) -> int:
        """Consume what is there; see `Expectation`."""
        while self.needed:
            end = _line_end(data, pos)
            if end < 0:
                self.needed = len(data) - pos + 1
                return pos
            line = data[pos:end]
            if self.command.framing is Framing.CONFIG and line.startswith(b"CONFIG"):
                return self._parse_config(data, pos, end, limit)
            pos = end + 2
            self._take_line(line, limit)
        return pos

    def _take_line(self, line: bytes, limit: int) -> None:
        code = line.split(b" ", 1)[0]
        if code not in self.command.codes:
            answer: Answer | None = refusal(line, self.command)
            if answer is None:
                raise strange(line, self.command)
            self._finish(answer)
        elif code in _BLOCK_LINES:
            self._lines.append(line)
            self._size += len(line) + 2
            if self._size > limit:
                raise ProtocolError(
                    f"the reply to {self.command.name} is longer than {limit} bytes (Settings.max_reply_size); "
                    "the connection is closed"
                )
        else:
            self._finish(([*self._lines, line], None))

    def _parse_config(self, data: bytes, pos: int, end: int, limit: int) -> int:
        # ElastiCache: CONFIG cluster 0 <len>, <len> bytes, CRLF END CRLF.
        tokens = data[pos:end].split(b" ")
        size = parse_size([b"", tokens[-1]], limit)
        tail = data[end + 2 + size : end + 2 + size + 7]
        if not _CONFIG_TAIL.startswith(tail):
            raise ProtocolError("CONFIG data is not followed by END; the connection is closed")
        if len(tail) < len(_CONFIG_TAIL):
            self.needed = end + 2 + size + len(_CONFIG_TAIL) - pos
            return pos
        self._finish((tokens, data[end + 2 : end + 2 + size]))
        return end + 2 + size + len(_CONFIG_TAIL)

    def _finish(self, answer: Answer) -> None:
        self.answer = answer
        self.closes = isinstance(answer, Refusal) and answer.closes
        self.needed = 0

    def end_of_stream(self) -> bool:
        """Return False: the end is never the answer."""
        return False


_BLOCK_LINES: Final = frozenset((b"STAT", b"ITEM", b"PREFIX"))
_CONFIG_TAIL: Final = b"\r\nEND\r\n"
