"""Runs all parts of a batch together, if each node has a free connected stream.

This takes fewer calls than an exchange for each part. A part that is not finished goes on as a `StreamExchange`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from metacache.cluster.parallel import exchange_windows
from metacache.transports.blocking.exchange import Handed
from metacache.transports.counters import CloseReason

if TYPE_CHECKING:
    from metacache.cluster.snapshot import Assignment
    from metacache.pool.blocking import Pool
    from metacache.protocol.windows import Replies
    from metacache.transports.base import Batch
    from metacache.transports.blocking.stream import Stream

__all__ = ["Unfinished", "run_quickly"]

# Seconds of the wait. After that the parts go on one by one, so that a slow node does not keep the streams of the
# others.
LONGEST: Final = 0.02

Unfinished = tuple["Assignment[Pool]", "Stream", Handed]
"""A part that is not finished: its stream is in use, and `Lending.go_on` makes an exchange of the rest."""


def run_quickly(
    batch: Batch, parts: Sequence[Assignment[Pool]], whole: Replies, *, deadline: float, now: float
) -> list[Unfinished] | None:
    """Run *parts* of *batch* and fill their replies into *whole*. Return those that are not finished.

    None: no part was sent.
    """
    streams = None if now >= deadline else _take_streams(parts)
    if streams is None:
        return None
    try:
        opaques = [(stream.next_opaque(), stream.next_opaque()) for stream in streams]
        shares = [part.indices for part in parts]
        limit = parts[0].member.pool.lending.max_reply
        until = min(deadline, now + LONGEST)
        outcomes = exchange_windows(batch, shares, streams, opaques, whole, until=until, limit=limit)
    except BaseException:
        for stream in streams:
            stream.close(CloseReason.BROKEN)
        raise
    if outcomes is None:
        _put_back(parts, streams)
        return None
    unfinished: list[Unfinished] = []
    for part, stream, pair, outcome in zip(parts, streams, opaques, outcomes, strict=True):
        if outcome is None:
            part.member.pool.lending.put_back(stream, now)
        else:
            unfinished += [(part, stream, Handed(pair, *outcome))]
    return unfinished


def _take_streams(parts: Sequence[Assignment[Pool]]) -> list[Stream] | None:
    """Return a free stream for each of *parts*; None if one has none, or if no node serves it."""
    streams: list[Stream] = []
    for part in parts:
        stream = part.member.pool.lending.take_connected() if part.error is None else None
        if stream is None:
            _put_back(parts, streams)
            return None
        # Not `append`: the frame of a trace function, in the traceback of its exception, would keep that method.
        streams += [stream]
    return streams


def _put_back(parts: Sequence[Assignment[Pool]], streams: Sequence[Stream]) -> None:
    """Put back *streams*, which were not used."""
    for part, stream in zip(parts, streams, strict=False):
        part.member.pool.lending.put_back(stream, stream.used_at)
