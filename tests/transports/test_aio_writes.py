"""The writes of a link: how many requests and how many bytes leave in one write."""

from __future__ import annotations

import math
import sys
from typing import Final

import pytest

from metacache import Settings
from metacache.nodes import Node
from metacache.transports.aio.link import Link
from metacache.transports.aio.pending import AnyPending, RequestQueue, new_pending
from metacache.transports.aio.write_buffer import WriteBuffer
from tests.transports.aio_rig import OPERATIONS, Recorder

SETTINGS: Final = Settings(max_in_flight=1000)


def ignore(*_: object) -> None:
    pass


def sets_of(size: int, count: int) -> list[AnyPending]:
    """Return *count* pending replies to sets of *size* bytes."""
    queue = RequestQueue(Node("localhost"))
    made: list[AnyPending] = []
    for _ in range(count):
        pending: AnyPending = new_pending()
        op = OPERATIONS.set("key", b"x" * size, None)
        pending.queue, pending.work, pending.plain, pending.read = queue, op, op, op.read
        pending.deadline, pending.made_at = math.inf, 0.0
        pending.answer = pending.waiter = None
        made.append(pending)
    return made


@pytest.mark.parametrize(("size", "sent"), [(1, [256, 44]), (10_000, [6, 1] * 42 + [6])])
async def test_one_write_takes_256_requests_and_64_kib_at_most(size: int, sent: list[int]) -> None:
    link, recorder, waiting = Link(SETTINGS, ignore, ignore, ignore), Recorder(), sets_of(size, 300)
    link.connection_made(recorder)
    while waiting:
        link.write(waiting)
    assert [data.count(b"ms ") for data in recorder.writes] == sent
    assert all(len(data) <= 65536 for data in recorder.writes)
    assert link.requests == 300


async def test_a_large_value_is_written_in_pieces_behind_its_request_line() -> None:
    link, recorder, waiting = Link(SETTINGS, ignore, ignore, ignore), Recorder(), sets_of(600_000, 1)
    link.connection_made(recorder)
    link.write(waiting)
    assert [len(data) for data in recorder.writes[1:]] == [262_144, 262_144, 600_000 - 2 * 262_144 + 2]
    assert recorder.writes[-1].endswith(b"x\r\n")


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_large_value_is_released_when_it_is_written_or_the_link_is_lost(*, is_lost: bool) -> None:
    buffer: WriteBuffer[object] = WriteBuffer()
    body = bytes(300_000)
    before = sys.getrefcount(body)
    buffer.fill(body, object())
    assert sys.getrefcount(body) > before
    if is_lost:
        buffer.clear()
    else:
        assert not buffer.write_pieces(ignore, lambda: True)
    assert buffer.pending is None
    assert sys.getrefcount(body) == before
