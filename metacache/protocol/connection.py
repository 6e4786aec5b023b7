"""The protocol state of one connection: turns requests into bytes, and received bytes into answers, in order.

It keeps the queue of expected replies, the incomplete reply and the opaques. It opens no socket and reads
no clock. Its owner guards it: one request or batch at a time (blocking), or one event loop (asyncio).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar, final

from metacache.acceleration import frame_requests, join_window, read_answers
from metacache.errors import ConnectError, ProtocolError
from metacache.marks import override
from metacache.protocol.commands import MN, Command
from metacache.protocol.error_lines import refusal, server_hint
from metacache.protocol.expectations import ExpectedReply
from metacache.protocol.replies import Opaque, known_headers, opaques_from, value_header
from metacache.protocol.windows import LONGEST_SPLIT, Window

if TYPE_CHECKING:
    from metacache.protocol.blocks import Block
    from metacache.protocol.expectations import Answer, Expectation

__all__ = ["LARGE", "ProtocolConnection", "answer_of", "frame", "joined", "pieces"]

CRLF: Final = b"\r\n"
LARGE: Final = 1 << 18  # bytes of a data block above which two more writes cost less than a copy

P = TypeVar("P")

_Plain: TypeAlias = tuple[Command, Opaque]
"""The queue entry of a plain request. It becomes an `ExpectedReply` if the shortcut cannot read the reply."""


@final
class ProtocolConnection:
    """Frames requests, and matches received bytes to them.

    Args:
        max_reply_size: a reply that announces a larger value (in bytes) is a ProtocolError before memory is allocated.
        first_opaque: the index in the table at which the opaques of this connection start. With different starts,
            connections detect a reply of another connection (a faulty proxy may send one, and so may a forked child
            on a socket that it inherited).

    ``has_heard`` is True once bytes were received. ``must_close`` is True when the position in the stream is uncertain,
    or when bytes arrived without a request. ``block`` is the large data block that is being received, None if there is
    none. ``failure`` is the ProtocolError for all requests that still wait.
    ``next_opaque`` returns the next opaque, for a caller that frames a request itself and reads its reply with
    `whole_reply` or `half_reply`. Then ``block`` stays None.
    """

    __slots__ = (
        "_expected",
        "_held",
        "_held_size",
        "_limit",
        "_needed",
        "_opaques",
        "_split_limit",
        "block",
        "failure",
        "has_heard",
        "must_close",
        "next_opaque",
    )

    def __init__(self, *, max_reply_size: int, first_opaque: int = 0) -> None:
        self._limit = max_reply_size
        self._split_limit = min(max_reply_size, LONGEST_SPLIT)
        self._opaques = opaques_from(first_opaque)
        self.next_opaque = self._opaques.__next__
        self._expected: list[Expectation | _Plain] = []
        self._held: list[bytes] = []
        self._held_size = 0
        self._needed = 0
        self.block: Block | None = None
        self.failure: ProtocolError | None = None
        self.has_heard = False
        self.must_close = False

    @override
    def __repr__(self) -> str:
        state = "must close" if self.must_close else f"{len(self._expected)} expected, {self._held_size} bytes held"
        return f"<ProtocolConnection: {state}>"

    # --- requests out ------------------------------------------------------------------------------------------------

    def send(self, command: Command, head: bytes, body: bytes | None = None) -> tuple[bytes, ExpectedReply]:
        """Return the bytes of one request, and its expected reply, which `receive` completes."""
        opaque = self.next_opaque() if command.echoes else None
        return frame(head, opaque, body), self.expect(command, opaque, head)

    def expect(self, command: Command, opaque: Opaque | None, head: bytes = b"") -> ExpectedReply:
        """Queue and return the expected reply to a request that the caller framed itself.

        *head*: the request line, for a command whose reply repeats the key. Without it, the key is not checked.
        """
        expected = ExpectedReply(command, None if opaque is None else opaque[1], head)
        self._expected.append(expected)
        return expected

    def send_plain(self, command: Command, head: bytes, body: bytes | None) -> bytes:
        """Return the bytes of one request with an opaque. Only `answers` returns its answer.

        For many requests in flight: a pair in the queue costs a fifth of an `ExpectedReply`.
        """
        opaque = self.next_opaque()
        self._expected.append((command, opaque))
        return head + opaque[0] if body is None else b"".join((head, opaque[0], body, CRLF))

    def move_plain(self, waiting: list[P], in_flight: list[P], room: int, largest: int) -> tuple[bytes, int]:
        """Move plain requests from *waiting* to *in_flight*, as `send_plain` for each; return the bytes and number.

        Only where compiled primitives are used. See `frame_requests` in metacache/acceleration.py.
        """
        assert frame_requests is not None, "the caller looked"
        return frame_requests(waiting, in_flight, self._expected, self._opaques, room, largest, CRLF)

    def send_window(
        self,
        command: Command,
        heads: Sequence[bytes],
        bodies: Sequence[bytes] | None,
        start: int = 0,
        stop: int | None = None,
    ) -> tuple[bytes, Window]:
        """Return the bytes of a window of the requests from *start* to *stop*, and the window.

        The first and the last request of the window get an opaque.
        """
        stop = len(heads) if stop is None else stop
        return self.resend_window(command, heads, bodies, start, stop, (self.next_opaque(), self.next_opaque()))

    def resend_window(
        self,
        command: Command,
        heads: Sequence[bytes],
        bodies: Sequence[bytes] | None,
        start: int,
        stop: int,
        opaques: tuple[Opaque, Opaque],
    ) -> tuple[bytes, Window]:
        """Return what `send_window` returns, for opaques that the caller took."""
        first, last = opaques
        window = Window(command, stop - start, first, last)
        data = joined(heads, bodies, start, stop, first[3], last[3])
        self._expected.append(window)
        return data, window

    # --- bytes in ----------------------------------------------------------------------------------------------------

    def answers(self, data: bytes) -> list[Answer | Expectation]:
        """Parse received bytes as `receive` does; return the answers of single requests, and finished windows."""
        expected = self._expected
        if self._held or len(data) > self._split_limit:
            return list(map(answer_of, self.receive(data)))
        if read_answers is not None:
            plain, position = read_answers(data, expected, known_headers, value_header)
            if position == len(data):
                return plain
            return [*plain, *map(answer_of, self.receive(data[position:], before=len(plain)))]
        if not expected or type(expected[0]) is not tuple:  # a window splits its bytes itself
            return list(map(answer_of, self.receive(data)))
        lines = data.split(CRLF)
        rest = lines.pop()  # not a line yet
        count = len(lines)
        plain, used = self._plain_answers(lines)
        del expected[: len(plain)]
        if used == count and not rest:
            return plain
        rest = data[sum(map(len, lines[:used])) + 2 * used :]
        return [*plain, *map(answer_of, self.receive(rest, before=len(plain)))]

    def _plain_answers(self, lines: list[bytes]) -> tuple[list[Answer | Expectation], int]:
        """Return the answers at the beginning of *lines* that are certain, and the number of their lines.

        The shortcut for many requests in flight: it saves 48 % of a get and 22 % of a set of 64 tasks. The parser reads
        the rest. A test checks that both give the same answers.
        """
        known, count = known_headers, len(lines)
        lines.append(b"")  # the reply that has not arrived: a line without an opaque
        found: list[Answer | Expectation] = []
        at = 0
        for plain in self._expected:
            if type(plain) is not tuple:
                break
            command, opaque = plain
            line = lines[at]
            header = line.removesuffix(opaque[3])
            if header == line:
                break  # the opaque is missing, or flags follow it
            try:
                size, tokens = known[header]
            except KeyError:  # as in `whole_reply`
                size, tokens = value_header(header)
            if size >= 0:
                value = lines[at + 1]
                if len(value) != size or at + 1 == count or not command.has_value:
                    break  # the value contains a CRLF, or is incomplete, or the request did not ask for a value
                found.append((tokens, value))
                at += 2
            elif header in command.whole:
                found.append((tokens, None))
                at += 1
            else:
                break
        return found, at

    def receive(self, data: bytes, *, before: int = 0) -> list[Expectation]:
        """Parse received bytes; return the replies that they complete, in order. Sets `must_close` and `failure`.

        *before*: the number of replies that earlier bytes of the same read completed. Replies that were completed
        before a failure are valid.
        """
        self.has_heard = True
        block = self.block
        if block is not None:
            data = _pour(data, block)
            if block.left:
                return []
        elif self._held:
            self._held.append(data)
            self._held_size += len(data)
            if self._held_size < self._needed:
                return []
            data = b"".join(self._held)
            self._held.clear()
            self._held_size = 0
        return self._finish(data, before)

    @property
    def room(self) -> memoryview | None:
        """Where to receive the next bytes, while a large data block arrives; else None: pass them to `receive`."""
        return None if self.block is None else self.block.room

    def fill(self, count: int) -> list[Expectation]:
        """Count *count* bytes as received into `room`; return what `receive` returns. They are not copied again."""
        block = self.block
        assert block is not None, "there was room"
        block.advance(count)
        return [] if block.left else self._finish(b"", 0)

    def drop(self) -> None:
        """Keep no value of the reply whose ``block`` is being received, because its caller has given it up."""
        first = self._expected[0]
        assert not isinstance(first, tuple), "the parser has begun to read it"
        first.drop()
        self.block = first.block

    def _finish(self, data: bytes, before: int) -> list[Expectation]:
        finished: list[Expectation] = []
        try:
            self._parse(data, finished, before)
        except ProtocolError as error:
            self.failure = error
            self.must_close = True
        return finished

    def _parse(self, data: bytes, finished: list[Expectation], before: int) -> None:
        """Move the replies that *data* completes from the queue to *finished*; keep the bytes after them."""
        expected = self._expected
        pos = 0
        while pos < len(data) or self.block is not None:
            if not expected:
                self.must_close = True  # the replies before the surplus are valid
                if not finished and not before:
                    raise _surplus(data[pos:])
                return
            first = expected[0]
            if isinstance(first, tuple):
                command, opaque = first
                first = expected[0] = ExpectedReply(command, opaque[1])
            self.block = None
            pos = first.parse(data, pos, self._limit)
            if first.needed:
                self.block = first.block
                self._hold(data[pos:], first.needed)
                return
            del expected[0]
            finished.append(first)
            if first.closes:
                self.must_close = True
                return

    def _hold(self, rest: bytes, needed: int) -> None:
        if not rest:
            return
        self._held.append(rest)
        self._held_size = len(rest)
        self._needed = needed


def _pour(data: bytes, block: Block) -> bytes:
    """Copy *data* into *block* until the block is complete; return the bytes that are left."""
    view = memoryview(data)
    while view and block.left:
        room = block.room
        taken = min(len(room), len(view))
        room[:taken] = view[:taken]
        block.advance(taken)
        view = view[taken:]
    return data[len(data) - len(view) :]


def _surplus(data: bytes) -> ProtocolError:
    """Return the error for *data*, which arrived while no reply was expected."""
    refused = refusal(data.partition(CRLF)[0], MN)
    # A full server sends its error line before any request.
    is_full = refused is not None and isinstance(refused.error, ConnectError)
    hint = refused.error.message if refused is not None and is_full else server_hint(data)
    why = f" ({hint})" if hint else ""
    return ProtocolError(f"{len(data)} bytes arrived without a request{why}; the connection is closed")


def answer_of(finished: Expectation) -> Answer | Expectation:
    """Return the answer of a single request's *finished* reply; return a window unchanged."""
    if isinstance(finished, ExpectedReply) and finished.answer is not None:
        return finished.answer
    return finished


def frame(head: bytes, opaque: Opaque | None, body: bytes | None) -> bytes:
    """Return the bytes of one request."""
    suffix = CRLF if opaque is None else opaque[0]
    return head + suffix if body is None else b"".join((head, suffix, body, CRLF))


def pieces(head: bytes, opaque: Opaque | None, body: bytes | None, sent: int = 0) -> tuple[bytes | memoryview, ...]:
    """Return the bytes of one request, without the first *sent* bytes, as pieces to send one after the other.

    A large body is a piece of its own, so that nothing copies it.
    """
    if body is None or len(body) <= LARGE:
        whole = memoryview(frame(head, opaque, body))[sent:]
        return (whole,) if whole else ()
    assert not sent, "a large body is sent in pieces from the start"
    return (frame(head, opaque, None), body, CRLF)


def joined(
    heads: Sequence[bytes], bodies: Sequence[bytes] | None, start: int, stop: int, first: bytes, last: bytes
) -> bytes:
    """Return the bytes of the window from *start* to *stop*.

    *first* is behind the first head if there are several, and *last* behind the last one.
    """
    data = None if join_window is None else join_window(heads, bodies, start, stop, first, last)
    if data is not None:
        return data
    marked = list(heads[start:stop])
    marked[-1] += last
    if len(marked) > 1:
        marked[0] += first
    if bodies is None:
        return CRLF.join(marked) + CRLF
    pieces = [b""] * (2 * len(marked))
    pieces[::2] = marked
    pieces[1::2] = bodies[start:stop]
    return CRLF.join(pieces) + CRLF
