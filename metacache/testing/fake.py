"""A fake memcached in memory, and two transports that use it, for tests without a server and without a network.

The fake reads requests and writes replies as bytes, and the transports parse the replies with the real protocol code.
It supports the requests that this client sends. For other requests use a real server (`Memcached`).
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar, final

import attrs
from typing_extensions import override

from metacache.errors import ClosedError, MetacacheError
from metacache.protocol.connection import ProtocolConnection
from metacache.protocol.error_lines import Refusal
from metacache.protocol.expectations import Answer, Expectation
from metacache.protocol.windows import Replies
from metacache.transports.base import Batch, Operation
from metacache.transports.blocking.exchange import StreamExchange, drive_exchange
from metacache.transports.counters import CloseReason

__all__ = ["AsyncFakeTransport", "FakeServer", "FakeTransport"]

R = TypeVar("R")

MAX_RELATIVE: Final = 60 * 60 * 24 * 30
U64: Final = 2**64
CHUNK: Final = 512 * 1024  # a server stores a larger item in several chunks, and does no arithmetic on it


@final
@attrs.define
class _Item:
    value: bytes
    flags: int
    cas: int
    expires: float | None
    used: float
    fetched: bool = False
    stale: bool = False
    won: bool = False  # a reader has got W: later ones get Z


# The flags of a request by letter. The token of a flag without one is b"".
_Flags = Mapping[bytes, bytes]


@final
class FakeServer:
    """Executes meta commands on a dict: bytes in, bytes out.

    Args:
        clock: returns the time in seconds since 1970. A clock of a test should begin at ``time.time()``: the client
            uses that clock to send a TTL beyond 30 days as the time of its end.
        max_value_size: a larger value (in bytes) is refused, and the old value is deleted, as by a real server.
    """

    def __init__(self, clock: Callable[[], float] = time.time, *, max_value_size: int = 1_048_000) -> None:
        self._clock = clock
        self._max_value_size = max_value_size
        self._items: dict[bytes, _Item] = {}
        self._cas = 0

    def answer(self, data: bytes) -> bytes:
        """Return the replies to the complete requests in *data*."""
        replies: list[bytes] = []
        while data:
            line, _, data = data.partition(b"\r\n")
            name, *tokens = line.split(b" ")
            body = b""
            if name == b"ms":
                size = int(tokens.pop(1))
                body, data = data[:size], data[size + 2 :]
            flags = {token[:1]: token[1:] for token in tokens[1:]}
            key = b64decode(tokens[0]) if b"b" in flags else b"".join(tokens[:1])
            command = _COMMANDS.get(name)
            opaque = b" O" + flags[b"O"] if b"O" in flags else b""
            replies.append(b"ERROR\r\n" if command is None else command(self, key, flags, body, opaque))
        return b"".join(replies)

    # --- commands ----------------------------------------------------------------------------------------------------

    def _mg(self, key: bytes, flags: _Flags, _: bytes, opaque: bytes) -> bytes:
        item = self._find(key)
        is_new = item is None
        if item is None:
            if b"N" not in flags:
                return b"EN" + opaque + b"\r\n"
            item = self._store(key, b"", 0, None)
        reply = b"VA %d" % len(item.value) if b"v" in flags else b"HD"
        wins = False
        # From left to right, as the server does: `t` before `N` shows that a new item has no TTL.
        for letter, token in flags.items():
            if letter == b"T" or (letter == b"N" and is_new):
                item.expires = self._expiry(token)
            elif letter == b"R":
                wins = wins or self._recaches(item, token, is_new=is_new)
            else:
                reply += self._return_flag(item, letter)
        reply += opaque + self._marks(item, wins=wins or is_new) + b"\r\n"
        item.fetched, item.used = True, self._clock()
        return reply + (item.value + b"\r\n" if b"v" in flags else b"")

    def _recaches(self, item: _Item, token: bytes, *, is_new: bool) -> bool:
        """Return whether less is left of the item than *token*: then the reader is to store it again."""
        before = self._expiry(token)
        if is_new or item.won or item.expires is None or before is None:
            return False
        return math.ceil(item.expires - self._clock()) < math.ceil(before - self._clock())

    def _marks(self, item: _Item, *, wins: bool) -> bytes:
        """Return Z, X and W. The first reader of a stale item wins, and of several readers only one."""
        wins = wins or (item.stale and not item.won)
        marks = b" Z" * item.won + b" X" * item.stale + b" W" * wins
        item.won = item.won or wins
        return marks

    def _ms(self, key: bytes, flags: _Flags, body: bytes, opaque: bytes) -> bytes:
        item = self._find(key)
        mode = flags.get(b"M", b"S")
        if len(body) > self._max_value_size:
            self._items.pop(key, None)
            return b"SERVER_ERROR object too large for cache\r\n"
        code = self._refusal(item, mode, flags) or self._put(key, item, mode, flags, body)
        return code + opaque + b"\r\n"

    def _put(self, key: bytes, item: _Item | None, mode: bytes, flags: _Flags, body: bytes) -> bytes:
        if item is None or mode not in (b"A", b"P"):
            self._store(key, body, int(flags.get(b"F", b"0")), self._expiry(flags.get(b"T", b"0")))
            return b"HD"
        grown = item.value + body if mode == b"A" else body + item.value
        if len(grown) > self._max_value_size:
            return b"NS"
        self._store(key, grown, item.flags, item.expires)
        return b"HD"

    def _refusal(self, item: _Item | None, mode: bytes, flags: _Flags) -> bytes | None:
        """Return the code with which a store is refused; None if it is not."""
        if mode == b"E":
            return None if item is None else b"NS"
        if mode in (b"R", b"A", b"P") and item is None:
            return b"NF" if mode == b"R" and b"C" in flags else b"NS"
        if b"C" not in flags:
            return None
        return b"NF" if item is None else None if item.cas == int(flags[b"C"]) else b"EX"

    def _md(self, key: bytes, flags: _Flags, _: bytes, opaque: bytes) -> bytes:
        item = self._find(key)
        if item is None:
            return b"NF" + opaque + b"\r\n"
        if b"C" in flags and item.cas != int(flags[b"C"]):
            return b"EX" + opaque + b"\r\n"
        if b"I" in flags:
            item.stale, item.won, item.cas = True, False, self._next_cas()
            if b"T" in flags:
                item.expires = self._expiry(flags[b"T"])
        else:
            del self._items[key]
        return b"HD" + opaque + b"\r\n"

    def _ma(self, key: bytes, flags: _Flags, _: bytes, opaque: bytes) -> bytes:
        item = self._find(key)
        if item is None and b"N" in flags:
            item = self._store(key, flags.get(b"J", b"0"), 0, self._expiry(flags[b"N"]))
        elif item is None:
            return b"NF" + opaque + b"\r\n"
        elif (number := _number_in(key, item)) is None:
            return b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"
        else:
            self._add_delta(key, item, number, flags)
        item = self._items[key]
        digits = item.value.strip()
        start = b"VA %d" % len(digits) if b"v" in flags else b"HD"
        returned = b"".join(self._return_flag(item, letter) for letter in flags)
        return start + returned + opaque + b"\r\n" + (digits + b"\r\n" if b"v" in flags else b"")

    def _add_delta(self, key: bytes, item: _Item, old: int, flags: _Flags) -> None:
        delta = int(flags.get(b"D", b"1"))
        down = flags.get(b"M", b"I") in (b"D", b"-")
        number = b"%d" % (max(old - delta, 0) if down else (old + delta) % U64)
        if len(number) > len(item.value):
            self._store(key, number, item.flags, item.expires)  # a new item, to which T does not apply
            return
        item.value, item.cas = number.ljust(len(item.value)), self._next_cas()
        if b"T" in flags:
            item.expires = self._expiry(flags[b"T"])

    def _me(self, key: bytes, _: _Flags, __: bytes, ___: bytes) -> bytes:
        item = self._find(key)
        if item is None:
            return b"EN\r\n"
        fetched = b"yes" if item.fetched else b"no"
        size = 56 + len(key) + len(item.value)
        return b"ME %b exp=-1 la=%d cas=%d fetch=%b cls=1 size=%d\r\n" % (
            key,
            self._idle(item),
            item.cas,
            fetched,
            size,
        )

    def _mn(self, _: bytes, __: _Flags, ___: bytes, ____: bytes) -> bytes:
        return b"MN\r\n"

    # --- items -------------------------------------------------------------------------------------------------------

    def _find(self, key: bytes) -> _Item | None:
        item = self._items.get(key)
        if item is not None and item.expires is not None and item.expires <= self._clock():
            del self._items[key]
            return None
        return item

    def _store(self, key: bytes, value: bytes, flags: int, expires: float | None) -> _Item:
        item = self._items[key] = _Item(value, flags, self._next_cas(), expires, self._clock())
        return item

    def _next_cas(self) -> int:
        self._cas += 1
        return self._cas

    def _expiry(self, token: bytes) -> float | None:
        number = int(token)
        if number == 0:
            return None
        return number if number > MAX_RELATIVE else self._clock() + number

    def _idle(self, item: _Item) -> int:
        return int(self._clock() - item.used)

    def _return_flag(self, item: _Item, letter: bytes) -> bytes:
        """Return the return flag for *letter*; nothing if it is not one."""
        tokens = {
            b"f": item.flags,
            b"c": item.cas,
            b"t": -1 if item.expires is None else math.ceil(item.expires - self._clock()),
            b"s": len(item.value),
            b"h": item.fetched,
            b"l": self._idle(item),
        }
        return b" %b%d" % (letter, tokens[letter]) if letter in tokens else b""


def _number_in(key: bytes, item: _Item) -> int | None:
    """Return the number that a server parses from an item with C's strtoull; None if it finds none.

    White space and a sign may come before the number. It ends at white space, at a NUL, or at the end of the value.
    """
    found = _leading_number(item.value)
    digits = found[2].lstrip(b"0") if found else b""
    if not found or len(digits) > 20 or _size(key, item) > CHUNK:
        return None
    number = int(digits or b"0")
    if number >= U64:
        return None
    number = -number % U64 if found[1] == b"-" else number
    # Only for a number in the upper half does the server check that there is no minus before a NUL.
    return None if number >= U64 // 2 and b"-" in item.value.partition(b"\0")[0] else number


_leading_number = re.compile(rb"\s*([+-]?)(\d+)(?=[\s\0]|\Z)").match


def _size(key: bytes, item: _Item) -> int:
    """Return the number of bytes that an item takes in a server, with header, key and CAS."""
    return 56 + len(key) + 1 + (4 if item.flags else 0) + len(item.value) + 2


_Command = Callable[[FakeServer, bytes, _Flags, bytes, bytes], bytes]
_COMMANDS: Final[dict[bytes, _Command]] = {
    b"mg": FakeServer._mg,
    b"ms": FakeServer._ms,
    b"md": FakeServer._md,
    b"ma": FakeServer._ma,
    b"me": FakeServer._me,
    b"mn": FakeServer._mn,
}


@final
class _FakeStream:
    """A fake of the stream that an exchange reads and writes."""

    is_tls = False

    def __init__(self, server: FakeServer) -> None:
        self.protocol = ProtocolConnection(max_reply_size=1 << 30)
        self._server = server
        self._arrived = b""

    def prepare(self, _: float, /) -> bool:
        return True

    def fileno(self) -> int:
        return -1

    def write(self, data: memoryview, /) -> int:
        self._arrived += self._server.answer(bytes(data))
        return len(data)

    def read(self) -> tuple[int, Sequence[Expectation]] | None:
        arrived, self._arrived = self._arrived, b""
        return (len(arrived), self.protocol.receive(arrived)) if arrived else None

    def failed(self, error: BaseException, /) -> MetacacheError | None:
        return error if isinstance(error, MetacacheError) else None

    def close(self, _: CloseReason, /) -> None:
        pass


@final
class FakeTransport:
    """A Transport for a FakeServer: ``Client(FakeTransport(), serializer)`` behaves as with a real server.

    Attributes:
        server: the FakeServer: the one that was passed, which other transports may use too, or a new one.
        operations: the names of the operations and batches that were run, in order.
    """

    def __init__(self, server: FakeServer | None = None) -> None:
        self.server = server or FakeServer()
        self.operations: list[str] = []
        self._closed = False

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:  # noqa: ARG002 - it never waits
        """Run *op*; return its result. Raises ClosedError, and the errors in the replies of the server."""
        self._record(op.verb.name)
        stream = _FakeStream(self.server)
        data, expectation = stream.protocol.send(op.verb.command, op.head, op.body)
        stream.protocol.receive(self.server.answer(data))
        try:
            return op.read(_reply_of(expectation.answer, stream.protocol.failure))
        except MetacacheError as error:
            raise error.locate(node="fake", operation=op.verb.name, key=op.given)  # noqa: B904 - the same error

    def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        """Run *batch*; return its replies and errors. Raises ClosedError."""
        self._record(batch.verb.name)
        stream = _FakeStream(self.server)
        return drive_exchange(StreamExchange(batch, stream, lambda _: None, node="fake", deadline=deadline), deadline)

    def close(self) -> None:
        """Close the transport: later operations raise ClosedError. Idempotent."""
        self._closed = True

    @override
    def __repr__(self) -> str:
        return f"<FakeTransport: {len(self.operations)} operations>"

    def _record(self, name: str) -> None:
        if self._closed:
            raise ClosedError("the transport is closed", node="fake", operation=name)
        self.operations.append(name)


@final
class AsyncFakeTransport:
    """An AsyncTransport for a FakeServer: ``AsyncClient(AsyncFakeTransport(), serializer)``, in every event loop.

    ``server`` and ``operations`` are as in `FakeTransport`. The server executes a request when the call is awaited.
    Then the event loop runs the other tasks for one iteration before the call returns. So tests see races between
    tasks, and a cancelled call may have been applied.
    """

    def __init__(self, server: FakeServer | None = None) -> None:
        self._inner = FakeTransport(server)
        self.server = self._inner.server
        self.operations = self._inner.operations

    async def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        """Run *op*; return its result. Raises ClosedError, and the errors in the replies of the server."""
        try:
            return self._inner.run(op, deadline=deadline)
        finally:
            await asyncio.sleep(0)

    async def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        """Run *batch*; return its replies and errors. Raises ClosedError."""
        try:
            return self._inner.run_batch(batch, deadline=deadline)
        finally:
            await asyncio.sleep(0)

    async def aclose(self) -> None:
        """Close the transport: later operations raise ClosedError. Idempotent."""
        self._inner.close()

    @override
    def __repr__(self) -> str:
        return f"<AsyncFakeTransport: {len(self.operations)} operations>"


def _reply_of(answer: Answer | None, failure: MetacacheError | None) -> tuple[list[bytes], bytes | None]:
    if isinstance(answer, Refusal):
        raise answer.error
    if answer is None:
        raise failure or RuntimeError("the fake server returned an incomplete reply")
    return answer
