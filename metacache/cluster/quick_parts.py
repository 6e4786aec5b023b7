"""Sends all parts of a batch and reads their replies in one call of compiled code, if each node has a free stream.

Each part is one window. This module decides nothing about an unusual reply: a part that is not finished goes on as a
`StreamExchange`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from metacache.cluster.parts import fill_part
from metacache.protocol.connection import joined
from metacache.transports.batch_windows import is_one_window
from metacache.transports.blocking.exchange import Handed
from metacache.transports.counters import CloseReason

if TYPE_CHECKING:
    from metacache.acceleration import ExchangeParts
    from metacache.cluster.snapshot import Member
    from metacache.pool.blocking import Pool
    from metacache.protocol.windows import Replies
    from metacache.transports.base import Batch
    from metacache.transports.blocking.exchange import StreamExchange
    from metacache.transports.blocking.stream import Stream

__all__ = ["run_quickly"]

# Seconds that the compiled code waits. After that the parts go on one by one, so that a slow node does not keep the
# streams of the others.
LONGEST: Final = 0.02


class QuickPart(Protocol):
    """The part of a batch that one node serves."""

    member: Member[Pool]
    batch: Batch
    indices: Sequence[int]
    exchange: StreamExchange


P = TypeVar("P", bound=QuickPart)


def run_quickly(
    exchange: ExchangeParts, parts: Sequence[P], whole: Replies, *, deadline: float, now: float
) -> list[P] | None:
    """Run *parts* and fill their replies into *whole*. Return those that have an exchange, which is not finished.

    None: no part was sent.
    """
    streams = None if now >= deadline else _take_streams(parts)
    if streams is None:
        return None
    try:
        opaques = [(stream.next_opaque(), stream.next_opaque()) for stream in streams]
        requests = [
            joined(part.batch.heads, part.batch.bodies, 0, len(part.batch.heads), first[3], last[3])
            for part, (first, last) in zip(parts, opaques, strict=True)
        ]
        until = min(deadline, now + LONGEST)
        outcomes = exchange([stream.fileno() for stream in streams], requests, until)
    except BaseException:
        for stream in streams:
            stream.close(CloseReason.BROKEN)
        raise
    if outcomes is None:
        for part, stream in zip(parts, streams, strict=True):
            part.member.pool.lending.put_back(stream, stream.used_at)
        return None
    unfinished: list[P] = []
    for part, stream, pair, (sent, data, error) in zip(parts, streams, opaques, outcomes, strict=True):
        lending = part.member.pool.lending
        replies = None if data is None else lending.read_whole(part.batch, data, pair)
        if replies is None:
            part.exchange = lending.go_on(stream, part.batch, deadline, Handed(pair, sent, data, error))
            unfinished.append(part)
        else:
            lending.put_back(stream, now)
            fill_part(whole, part.indices, replies)
    return unfinished


def _take_streams(parts: Sequence[P]) -> list[Stream] | None:
    """Return a free stream for each of *parts*; None if one cannot be run quickly."""
    streams: list[Stream] = []
    for part in parts:
        stream = part.member.pool.lending.take_connected() if is_one_window(part.batch) else None
        if stream is None:
            for taken, other in zip(streams, parts, strict=False):
                other.member.pool.lending.put_back(taken, taken.used_at)
            return None
        # Not `append`: the frame of a trace function, in the traceback of its exception, would keep that method.
        streams += [stream]
    return streams
