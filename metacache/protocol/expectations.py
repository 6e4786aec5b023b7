"""The parser of replies: reads the reply to one request, and checks it against that request.

It takes received bytes in any pieces, and checks code, opaque, key and length. The shortcuts in `replies`, `windows`
and `connection` pass every reply that they do not fully understand to this parser. The buffer of incomplete replies and
the queue of requests are in `connection`.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from typing import Final, Protocol, TypeAlias, final

from metacache.errors import ProtocolError
from metacache.protocol.blocks import LARGE_BLOCK, Block, DroppedBlock, ReceivedBlock
from metacache.protocol.commands import Command
from metacache.protocol.error_lines import Refusal, refusal, server_hint, unexpected_line
from metacache.protocol.replies import MAX_HEADER, Reply, find_flag, parse_size

__all__ = ["Answer", "Expectation", "ExpectedReply", "wrong_size"]

Answer: TypeAlias = Reply | Refusal
"""How one request ends: with a reply, or with an error line."""

# These begin one line of several. The last line begins with another code.
_LISTED: Final = frozenset((b"STAT", b"ITEM", b"PREFIX"))

# A data block follows a header line with these codes: the index of the token with its size, the bytes after the block.
_DATA_BLOCKS: Final = {b"VA": (1, b"\r\n"), b"CONFIG": (-1, b"\r\nEND\r\n")}


class Expectation(Protocol):
    """An entry in the queue of a connection: the reply to one request, or the replies to a window of requests."""

    @property
    def needed(self) -> int:
        """The number of bytes after the position that `parse` returned that the next call needs; 0: finished."""
        ...

    @property
    def block(self) -> Block | None:
        """The large data block that is being received; None if there is none. `parse` is called when it is complete."""
        ...

    @property
    def closes(self) -> bool:
        """True when it is finished and the connection must close because of its answer."""
        ...

    def drop(self) -> None:
        """Keep no value of a large data block from now on, because the caller has given the request up."""
        ...

    def parse(self, data: bytes, pos: int, limit: int, /) -> int:
        """Read *data* from *pos* on; return the position after the bytes read. *limit*: the largest value in bytes.

        Raises ProtocolError if the bytes cannot be the reply. The connection must close then.
        """
        ...


@final
class ExpectedReply:
    """The reply to one request.

    Args:
        command: the kind of request, which says which codes are possible.
        opaque: the token that the reply must repeat; None when the request has none.
        head: the request line, for a command whose reply repeats the key; without it the key is not checked.

    ``answer`` is None until the reply is complete.
    """

    __slots__ = ("_head", "_lines", "_size", "_tokens", "answer", "block", "closes", "command", "needed", "opaque")

    _tokens: list[bytes]  # of the header line before ``block``

    def __init__(self, command: Command, opaque: bytes | None, head: bytes = b"") -> None:
        self.command = command
        self.opaque = opaque
        self.answer: Answer | None = None
        self.needed = 1
        self.block: Block | None = None
        self.closes = False
        self._head = head
        self._lines: list[bytes] = []
        self._size = 0  # of the lines, in bytes

    def parse(self, data: bytes, pos: int, limit: int, /) -> int:
        """Read what has arrived; see `Expectation`."""
        if self.block is not None:
            return self._end_block(self.block, pos)
        while True:
            end = _line_end(data, pos)
            if end < 0:
                self.needed = len(data) - pos + 1
                return pos
            line = data[pos:end]
            tokens = line.split(b" ")
            code = tokens[0]
            if code not in self.command.codes or (self.opaque is not None and self.opaque not in tokens):
                return self._finish(self._refusal(line, tokens), end + 2)
            if code in _DATA_BLOCKS:
                return self._parse_data(data, pos, end, tokens, limit)
            if code not in _LISTED:
                break
            self._keep(line, limit)
            pos = end + 2
        if code == b"ME" and self._head:
            _check_key(tokens, self._head)
        return self._finish(([*self._lines, line] if self._lines else tokens, None), end + 2)

    def _finish(self, answer: Answer, pos: int) -> int:
        self.answer = answer
        self.closes = isinstance(answer, Refusal) and answer.closes
        self.needed = 0
        return pos

    def _refusal(self, line: bytes, tokens: list[bytes]) -> Refusal:
        """Return the meaning of the error line *line*. Raises ProtocolError if it is not an error line."""
        refused = refusal(line, self.command)
        if refused is not None:
            return refused
        if tokens[0] not in self.command.codes:
            raise unexpected_line(line, self.command)
        what = "carries no opaque" if find_flag(tokens[1:], b"O") is None else "carries another request's opaque"
        raise ProtocolError(f"a reply to {self.command.name} {what}; the connection is closed")

    def _parse_data(self, data: bytes, pos: int, end: int, tokens: list[bytes], limit: int) -> int:
        """Read the data block after the header line that ends at *end*."""
        at, closing = _DATA_BLOCKS[tokens[0]]
        size = parse_size(tokens[0], tokens[at] if len(tokens) > 1 else b"", limit)
        start, stop = end + 2, end + 2 + size
        behind = stop + len(closing)
        if len(data) < behind:
            self.needed = behind - pos
            if size < LARGE_BLOCK:
                return pos
            self._tokens = tokens
            self.block = ReceivedBlock(behind - start, memoryview(data)[start:])
            return len(data)
        if data[stop:behind] != closing:
            raise wrong_size(tokens[0])
        return self._finish((tokens, data[start:stop]), behind)

    def _end_block(self, block: Block, pos: int) -> int:
        self.block = None
        value = block.end(_DATA_BLOCKS[self._tokens[0]][1])
        if value is None:
            raise wrong_size(self._tokens[0])
        return self._finish((self._tokens, value), pos)

    def drop(self) -> None:
        """See `Expectation`."""
        if isinstance(self.block, ReceivedBlock) and self.block.left > LARGE_BLOCK:
            self.block = DroppedBlock(self.block.left)

    def _keep(self, line: bytes, limit: int) -> None:
        self._lines.append(line)
        self._size += len(line) + 2
        if self._size > limit:
            raise ProtocolError(
                f"the reply to {self.command.name} is longer than {limit} bytes (Settings.max_reply_size); "
                "the connection is closed"
            )


def wrong_size(code: bytes) -> ProtocolError:
    """Return the error for a data block of *code* that does not end where its header line says."""
    what = "CRLF" if code == b"VA" else "END"
    return ProtocolError(
        f"the data block of {code.decode()} is not followed by {what}, so its size is wrong; the connection is closed"
    )


def _line_end(data: bytes, pos: int) -> int:
    """Return the end of the line at *pos*; -1 while its CRLF has not arrived.

    Raises ProtocolError for a line longer than any header, and for a line that only another kind of server sends.
    """
    end = data.find(b"\r\n", pos, pos + MAX_HEADER + 2)
    if end >= 0:
        return end
    hint = server_hint(data, pos)
    if hint is not None:
        raise ProtocolError(f"the bytes received are not a reply ({hint}); the connection is closed")
    if len(data) - pos > MAX_HEADER + 1:  # one more byte may be the CR of a line of MAX_HEADER bytes
        raise ProtocolError(f"no end of line within {MAX_HEADER} bytes; the connection is closed")
    return -1


def _check_key(tokens: list[bytes], head: bytes) -> None:
    """Raise ProtocolError when the reply *tokens* to ``me`` repeat another key than that of the request line *head*.

    ``me`` takes no opaque, so the key is the only proof that the reply belongs to the request.
    """
    key = next(filter(None, tokens[1:]), b"")  # releases before 1.6.18 write more spaces than one
    if key not in _spellings(head):
        raise ProtocolError("a reply to me is for another key; the connection is closed")


def _spellings(head: bytes) -> tuple[bytes, ...]:
    """Return the forms in which a reply may repeat the key of the request line *head*.

    The server repeats a key as the item was stored, plain or as base64, however the request wrote it.
    """
    _, key, *flags = head.split(b" ")
    if b"b" not in flags:
        return key, b64encode(key)
    try:
        return key, b64decode(key, validate=True)
    except binascii.Error:  # the server answers such a request with an error line
        return (key,)
