"""The target of asyncio links: requests of many tasks on one socket, with compiled primitives and without them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import cache
from itertools import chain, pairwise, repeat
from time import monotonic
from typing import Any, Final, cast, final
from unittest.mock import patch

from typing_extensions import override

from fuzzing.cursor import Cursor
from fuzzing.seams import Seam, use_python
from metacache import AsyncConnection, MetacacheError, Node, Settings, load_serializer
from metacache.client.core import Core
from metacache.operations.options import Options
from metacache.protocol import connection as protocol_connection
from metacache.protocol.replies import Reply, known_headers, known_sizes
from metacache.transports.aio import connection as aio_connection
from metacache.transports.aio import link as aio_link
from metacache.transports.aio import pending as aio_pending
from metacache.transports.aio.link import Link
from metacache.transports.aio.pending import AnyPending, PendingReply, Waiter
from metacache.transports.base import Operation

__all__ = ["SEAMS", "Recorder", "share_a_link"]

# The primitives of asyncio.
SEAMS: Final[tuple[Seam, ...]] = (
    (aio_connection, "new_pending", PendingReply),
    (aio_connection, "queue_request", None),
    (aio_link, "frame_requests", None),
    (aio_link, "give_answers", None),
    (aio_pending, "new_pending", PendingReply),
    (aio_pending, "new_waiter", Waiter),
    (aio_pending, "wake_tasks", None),
    (protocol_connection, "read_answers", None),
)
SETTINGS: Final = Settings(max_in_flight=12, max_reply_size=1000, timeout=1e6)
DEADLINES: Final = (None, 1e4, 0.0, -1.0)  # seconds from now
SIZES: Final = (0, 3, 300, 20_000, 70_000)  # bytes of values: some are written alone
# `Core.of` is generic, and pyright does not know the type.
CORE: Final[Core[bytes]] = Core.of(load_serializer("bytes", bytes), Options())  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
OPERATIONS: Final = CORE.operations


def share_a_link(data: bytes) -> None:
    """Write requests that the bytes choose on one link, and give it the rest as replies, with and without primitives.

    A ``%`` in the rest stands for the opaque of the next request.
    """
    compiled = _loop().run_until_complete(_outcome(Cursor(data)))
    with use_python(SEAMS):
        assert _loop().run_until_complete(_outcome(Cursor(data))) == compiled, "a primitive disagrees with Python"


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


@final
class Recorder(asyncio.Transport):
    """A transport that sends every write immediately, and keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    @override
    def get_write_buffer_size(self) -> int:
        return 0

    @override
    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass

    @override
    def abort(self) -> None:
        pass


async def _outcome(cursor: Cursor) -> object:
    """Return what the link writes, and what each request gets."""
    known_headers.clear()
    known_sizes.clear()
    connection = AsyncConnection(Node("localhost:1"), settings=SETTINGS)
    lost: list[tuple[str, str]] = []

    def note_loss(_: Link, error: MetacacheError) -> None:
        lost.append((type(error).__name__, str(error)))

    with patch.object(aio_link, "getrandbits", return_value=5):
        link = Link(SETTINGS, lambda _, __: None, lambda _: None, note_loss)
    transport = Recorder()
    link.connection_made(transport)
    made = list(_requests(cursor, connection))
    cuts = [cursor.number(2) for _ in range(cursor.number() % 4)]
    waiting = connection._queue.waiting
    link.write(waiting)
    written = len(link.in_flight), link.requests, len(waiting), transport.writes[:]
    stream = _with_opaques(cursor.rest(), b"".join(transport.writes))
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for start, stop in pairwise(edges):
        if start < stop:
            link.data_received(stream[start:stop])
    connection.drop()
    return written, [_shown(each) for each in made], lost, link.is_lost, link.requests, len(link.in_flight)


def _requests(cursor: Cursor, connection: AsyncConnection) -> Iterator[AnyPending]:
    """Queue some requests; give some of them up."""
    now = monotonic()
    for _ in range(1 + cursor.number() % 16):
        kind, seconds = cursor.number(), cursor.choice(DEADLINES)
        pending: Any = connection.run(  # Any: the annotation says Awaitable
            _operation(kind), deadline=None if seconds is None else now + seconds
        )
        if kind & 8:
            pending.abandon()
        yield pending


def _operation(kind: int) -> Operation[Any]:  # Any: operations of several results
    key = f"key{kind % 3}"
    by_kind: tuple[Operation[Any], ...] = (  # Any: as above
        OPERATIONS.get(key, None),
        OPERATIONS.set(key, b"v" * SIZES[kind % len(SIZES)], None),
        OPERATIONS.delete(key, None),
        OPERATIONS.touch(key, 7),
    )
    return by_kind[(kind >> 4) % len(by_kind)]


def _with_opaques(replies: bytes, written: bytes) -> bytes:
    marks = chain((word for word in written.split() if word.startswith(b"O")), repeat(b"O1"))
    first, *pieces = replies.split(b"%")
    return b"".join([first, *chain.from_iterable(zip(marks, pieces, strict=False))])


def _shown(pending: AnyPending) -> object:
    answer = pending.answer
    if isinstance(answer, BaseException):
        return type(answer), str(answer)
    if isinstance(answer, tuple):
        tokens, value = cast("Reply", answer)  # cast: no other answer is a tuple
        return [token for token in tokens if token[:1] != b"O"], value  # a shortcut leaves the opaque out
    return repr(answer)
