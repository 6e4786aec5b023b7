"""Sends one window of requests on each of several streams and reads their replies, without an exchange for each.

It does the usual case: every node answers soon, and every reply is plain. It decides nothing about an unusual reply: it
reports how far it came, and a `StreamExchange` goes on.
"""

from __future__ import annotations

import errno
import math
import select
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeAlias, final

from metacache.acceleration import exchange_parts
from metacache.cluster.parts import fill_part, take
from metacache.interrupts import is_own
from metacache.protocol.connection import joined
from metacache.protocol.replies import known_sizes, value_header
from metacache.protocol.windows import Window
from metacache.transports.batch_windows import MAX_REQUESTS, MAX_WINDOW

if TYPE_CHECKING:
    from metacache.protocol.replies import Opaque
    from metacache.protocol.windows import Replies
    from metacache.transports.base import Batch
    from metacache.transports.blocking.stream import Stream

__all__ = ["Outcome", "exchange_windows"]

RECEIVE: Final = 65536  # bytes of one recv; a part with longer replies is not finished here

TOO_LARGE: Final = bytes(MAX_WINDOW + 1)

Opaques: TypeAlias = tuple["Opaque", "Opaque"]
Outcome: TypeAlias = tuple[int, bytes | None, int]
"""Of a part that is not finished: bytes that were sent, those that were received (``b""``: the end), and the errno."""

NOTHING: Final[Outcome] = (0, None, 0)


def exchange_windows(
    batch: Batch,
    shares: Sequence[Sequence[int]],
    streams: Sequence[Stream],
    opaques: Sequence[Opaques],
    whole: Replies,
    *,
    until: float,
    limit: int,
) -> Sequence[Outcome | None] | None:
    """Run the requests of *batch* at each of *shares* on its stream, with its first and last opaque.

    Fills the replies of each part that is finished into *whole*, and returns None in its place. It waits *until* then.
    *limit*: of the bytes of a value. After an exception, the position of every stream is uncertain.

    None: nothing was sent, because a part is larger than a window, or a stream is closed or has surplus bytes.
    """
    if exchange_parts is not None:
        command = batch.verb.command
        exchanges = [stream.exchange_once for stream in streams]
        requests = (shares, opaques, batch.heads, batch.bodies, MAX_REQUESTS, MAX_WINDOW)
        rules = (limit, command.whole, command.has_value, known_sizes, value_header)
        return exchange_parts(exchanges, *requests, until, *rules, whole.headers, whole.values)
    return _Windows(batch, shares, streams, opaques, whole, limit).exchange(until)


@final
class _Windows:
    """The windows of `exchange_windows`, in Python."""

    __slots__ = ("_batch", "_limit", "_opaques", "_outcomes", "_poll", "_shares", "_streams", "_waiting", "_whole")

    def __init__(
        self,
        batch: Batch,
        shares: Sequence[Sequence[int]],
        streams: Sequence[Stream],
        opaques: Sequence[Opaques],
        whole: Replies,
        limit: int,
    ) -> None:
        self._batch = batch
        self._shares = shares
        self._streams = streams
        self._opaques = opaques
        self._whole = whole
        self._limit = limit
        self._outcomes: list[Outcome | None] = []
        self._poll = select.poll()
        self._waiting: dict[int, int] = {}  # descriptor -> index of the part

    def exchange(self, until: float) -> Sequence[Outcome | None] | None:
        """See `exchange_windows`."""
        # No `map` here and below: calling a function of Python from C costs 400 instructions more.
        batch = self._batch
        windows = [_joined(batch, share, pair) for share, pair in zip(self._shares, self._opaques, strict=True)]
        if max(map(len, windows)) > MAX_WINDOW:
            return None
        for at, stream in enumerate(self._streams):
            stream.unblock()
            descriptor = stream.fileno()
            self._waiting[descriptor] = at
            self._poll.register(descriptor, select.POLLIN)
        if self._poll.poll(0):
            return None
        self._outcomes += [_send(stream, window) for stream, window in zip(self._streams, windows, strict=True)]
        if self._outcomes == [(len(window), None, 0) for window in windows]:
            self._receive_all(until)
        return self._outcomes

    def _receive_all(self, until: float) -> None:
        while self._waiting:
            ready = self._poll.poll(max(math.ceil((until - monotonic()) * 1000), 0))
            for descriptor, _ in ready:
                if self._receive(self._waiting[descriptor]):
                    self._poll.unregister(descriptor)
                    del self._waiting[descriptor]
            if not ready:
                return

    def _receive(self, at: int) -> bool:
        """Receive once from a stream; return whether that was all that this module receives from it."""
        sent, before, _ = self._outcomes[at] or NOTHING
        try:
            chunk = self._streams[at].recv(RECEIVE)
        except OSError as error:
            if not is_own(error):
                raise
            if isinstance(error, BlockingIOError):
                return False
            self._outcomes[at] = (sent, before, 0 if before else error.errno or errno.EIO)
            return True
        data = before + chunk if before else chunk
        self._outcomes[at] = (sent, data, 0)
        if chunk and not _may_be_whole(data, self._opaques[at][1]):
            return False
        if chunk and self._read_whole(at, data):
            self._outcomes[at] = None
        return True

    def _read_whole(self, at: int, data: bytes) -> bool:
        """Fill in the replies of a part; return False if *data* is not all of them, or one is unusual."""
        share = self._shares[at]
        window = Window(self._batch.verb.command, len(share), *self._opaques[at])
        if not window.split_whole(data, self._limit):
            return False
        fill_part(self._whole, share, window.replies)
        return True


# Not a method: with a profiler, the frame of one would keep the streams after a signal's exception.
def _joined(batch: Batch, share: Sequence[int], opaques: Opaques) -> bytes:
    """Return the bytes of the requests at *share*; at least those of their bodies if they are too large."""
    bodies = None if batch.bodies is None else take(batch.bodies, share)
    if len(share) > MAX_REQUESTS or (bodies is not None and sum(map(len, bodies)) > MAX_WINDOW):
        return TOO_LARGE
    first, last = opaques
    return joined(take(batch.heads, share), bodies, 0, len(share), first[3], last[3])


def _send(stream: Stream, window: bytes) -> Outcome:
    try:
        return stream.send(window), None, 0
    except OSError as error:
        if not is_own(error):
            raise
        return 0, None, 0 if isinstance(error, BlockingIOError) else error.errno or errno.EIO


def _may_be_whole(data: bytes, last: Opaque) -> bool:
    """Return whether *data* may be all replies, or has a reply that only the parser reads."""
    return (data.endswith(b"\r\n") and data.rfind(last[3]) >= 0) or b"ERROR" in data or len(data) >= RECEIVE
