"""One connection of the protocol, sans-IO: requests out as bytes, bytes in as answers, in order.

Knows the queue of expected replies, the receive buffer and the opaques; knows no socket and no clock. It changes over
time and is guarded by whoever owns it: one request or batch at a time (blocking), or one event loop (asyncio).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Final, TypeAlias, final

from typing_extensions import override

from metacache.errors import ConnectError, ProtocolError
from metacache.protocol.commands import MN, Command, Framing
from metacache.protocol.expectations import AdminBlock, KeyedReply, Single
from metacache.protocol.replies import OPAQUES, Opaque, foreign, known_headers, refusal, value_header
from metacache.protocol.windows import LONGEST_SPLIT, Window

if TYPE_CHECKING:
    from metacache.protocol.expectations import Answer, Expectation

__all__ = ["LARGE", "ProtocolConnection", "answer_of", "frame", "pieces"]

CRLF: Final = b"\r\n"
LARGE: Final = 1 << 18  # bytes; above, a copy of the body costs more than two further writes

_BLOCKS: Final = (Framing.STATS, Framing.CONFIG)

One: TypeAlias = Single | KeyedReply | AdminBlock
"""The expectation of one request's reply."""

_Plain: TypeAlias = tuple[Command, Opaque]
"""What is expected for a plain request: its command and opaque; a `Single` once it takes a closer look."""


@final
class ProtocolConnection:
    """Frame requests and match what arrives to them.

    Args:
        max_reply_size: a reply announcing a larger value (bytes) is a ProtocolError before memory is taken.
        first_opaque: where in the table this connection's opaques start. Different starts let a reply that strayed
            from one connection to another (a proxy, an inherited socket) be recognised.

    ``has_heard`` turns True with the first bytes that `receive` takes. ``must_close`` turns True when the stream
    position is in doubt or bytes came that were not asked for. ``failure`` is the ProtocolError that everything still
    waiting gets. ``next_opaque`` gives the next opaque, for a caller that frames a request itself and reads its reply
    with `whole_reply`.
    """

    __slots__ = (
        "_expected",
        "_held",
        "_held_size",
        "_limit",
        "_needed",
        "_split_limit",
        "failure",
        "has_heard",
        "must_close",
        "next_opaque",
    )

    def __init__(self, *, max_reply_size: int, first_opaque: int = 0) -> None:
        self._limit = max_reply_size
        self._split_limit = min(max_reply_size, LONGEST_SPLIT)
        start = first_opaque % len(OPAQUES)
        self.next_opaque = cycle(OPAQUES[start:] + OPAQUES[:start]).__next__
        self._expected: list[Expectation | _Plain] = []
        self._held: list[bytes] = []
        self._held_size = 0
        self._needed = 0
        self.failure: ProtocolError | None = None
        self.has_heard = False
        self.must_close = False

    @override
    def __repr__(self) -> str:
        state = "must close" if self.must_close else f"{len(self._expected)} expected, {self._held_size} bytes held"
        return f"<ProtocolConnection: {state}>"

    def send(self, command: Command, head: bytes, body: bytes | None = None) -> tuple[bytes, One]:
        """Return the bytes of one request and the expectation that will hold its answer."""
        opaque = self.next_opaque() if command.echoes else None
        return frame(head, opaque, body), self.expect(command, opaque, head)

    def expect(self, command: Command, opaque: Opaque | None, head: bytes = b"") -> One:
        """Queue and return the expectation of a reply to a request that the caller framed itself.

        *head*: the request line, for a command whose reply repeats the key; without it the key is not checked.
        """
        expectation: One
        if command.framing in _BLOCKS:
            expectation = AdminBlock(command)
        elif command.framing is Framing.KEYED and head:
            expectation = KeyedReply(command, head)
        else:
            expectation = Single(command, opaque and opaque[1])
        self._expected.append(expectation)
        return expectation

    def send_plain(self, command: Command, head: bytes, body: bytes | None) -> bytes:
        """Return the bytes of one request that echoes its opaque; its answer comes from `answers` only.

        For many requests in flight: what is expected is a pair, a fifth of the price of an object.
        """
        opaque = self.next_opaque()
        self._expected.append((command, opaque))
        return head + opaque[0] if body is None else b"".join((head, opaque[0], body, CRLF))

    def send_window(
        self, command: Command, heads: Sequence[bytes], bodies: Sequence[bytes] | None
    ) -> tuple[bytes, Window]:
        """Return the bytes of a window of requests, opaques on the first and the last, and its expectation."""
        first, last = self.next_opaque(), self.next_opaque()
        marked = list(heads)
        marked[-1] += b" " + last[1]
        if len(marked) > 1:
            marked[0] += b" " + first[1]
        window = Window(command, len(marked), first if len(marked) > 1 else last, last)
        self._expected.append(window)
        return _joined(marked, bodies), window

    def answers(self, data: bytes) -> list[Answer | Expectation]:
        """As `receive`, but for each single request the answer itself."""
        expected = self._expected
        is_plain = expected and type(expected[0]) is tuple  # a window splits its bytes by itself
        if self._held or not is_plain or len(data) > self._split_limit:
            return list(map(answer_of, self.receive(data)))
        lines = data.split(CRLF)
        rest = lines.pop()  # not a line yet
        plain, used = self._plain_answers(lines)
        del expected[: len(plain)]
        if used == len(lines) and not rest:
            return plain
        rest = data[sum(map(len, lines[:used])) + 2 * used :]
        return [*plain, *map(answer_of, self.receive(rest, after=len(plain)))]

    def _plain_answers(self, lines: list[bytes]) -> tuple[list[Answer | Expectation], int]:
        """Return the answers that *lines* begin with, as far as there is no doubt, and how many lines they are.

        The shortcut for nearly all replies, a third of the price of the incremental parser, which it never contradicts.
        """
        known = known_headers
        found: list[Answer | Expectation] = []
        at = 0
        try:
            for plain in self._expected:
                if type(plain) is not tuple:
                    break
                command, opaque = plain
                line = lines[at]
                header = line.removesuffix(opaque[3])
                if header == line:
                    break  # it is not there
                try:
                    size, tokens = known[header]
                except KeyError:
                    size, tokens = value_header(header)
                if size >= 0:
                    value = lines[at + 1]
                    if len(value) != size or not command.has_value:
                        break  # the value holds a CRLF, or was not asked for
                    found.append((tokens, value))
                    at += 2
                elif header in command.whole:
                    found.append((tokens, None))
                    at += 1
                else:
                    break
        except IndexError:
            pass  # the rest has not come yet
        return found, at

    def receive(self, data: bytes, *, after: int = 0) -> list[Expectation]:
        """Take bytes in; return the expectations they finish, in order. *after*: so many were finished by them before.

        After it `must_close` and `failure` may be set. What was finished before a failure is valid.
        """
        self.has_heard = True
        if self._held:
            self._held.append(data)
            self._held_size += len(data)
            if self._held_size < self._needed:
                return []
            data = b"".join(self._held)
            self._held.clear()
            self._held_size = 0
        expected = self._expected
        finished: list[Expectation] = []
        pos = 0
        try:
            while pos < len(data):
                if not expected:
                    self._refuse_surplus(data[pos:], len(finished) + after)
                    break
                expectation = self._first()
                pos = expectation.parse(data, pos, self._limit)
                if expectation.needed:
                    self._hold(data[pos:], expectation.needed)
                    break
                del expected[0]
                finished.append(expectation)
                if expectation.closes:
                    self.must_close = True
                    break
        except ProtocolError as error:
            self.failure = error
            self.must_close = True
        return finished

    def _first(self) -> Expectation:
        first = self._expected[0]
        if isinstance(first, tuple):
            command, opaque = first
            first = self._expected[0] = Single(command, opaque[1])
        return first

    def _hold(self, rest: bytes, needed: int) -> None:
        self._held.append(rest)
        self._held_size = len(rest)
        self._needed = needed

    def _refuse_surplus(self, surplus: bytes, finished: int) -> None:
        # The answers before the surplus stand; the connection does not.
        self.must_close = True
        if not finished:
            refused = refusal(surplus.partition(CRLF)[0], MN)
            is_full = refused is not None and isinstance(refused.error, ConnectError)
            hint = refused.error.message if refused is not None and is_full else foreign(surplus)
            why = f" ({hint})" if hint else ""
            raise ProtocolError(f"{len(surplus)} bytes came that were not asked for{why}; the connection is closed")

    def end_of_stream(self) -> list[Expectation]:
        """Take the end of the connection; return what it finishes (a shutdown). Whatever else is expected is lost."""
        self.must_close = True
        if self._expected and (first := self._first()).end_of_stream():
            del self._expected[0]
            return [first]
        return []


def answer_of(finished: Expectation) -> Answer | Expectation:
    """Return the answer to a single request; a window of many is its own."""
    if isinstance(finished, One) and finished.answer is not None:
        return finished.answer
    return finished


def frame(head: bytes, opaque: Opaque | None, body: bytes | None) -> bytes:
    """Return the bytes of one request."""
    suffix = CRLF if opaque is None else opaque[0]
    return head + suffix if body is None else b"".join((head, suffix, body, CRLF))


def pieces(head: bytes, opaque: Opaque | None, body: bytes | None, sent: int = 0) -> tuple[bytes | memoryview, ...]:
    """Return the bytes of one request as pieces to send one after the other, without the first *sent* bytes.

    A large body is a piece of its own, and not copied.
    """
    if body is None or len(body) <= LARGE:
        whole = memoryview(frame(head, opaque, body))[sent:]
        return (whole,) if whole else ()
    assert not sent, "a large body is sent in pieces from the start"
    return (frame(head, opaque, None), body, CRLF)


def _joined(heads: Sequence[bytes], bodies: Sequence[bytes] | None) -> bytes:
    if bodies is None:
        return CRLF.join(heads) + CRLF
    pieces = [b""] * (2 * len(heads))
    pieces[::2] = heads
    pieces[1::2] = bodies
    return CRLF.join(pieces) + CRLF
