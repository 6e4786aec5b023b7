"""A batch on several nodes at once, under an event loop. The twin of `blocking`.

Knows who serves which part; moves no byte and routes no key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING

from metacache.cluster.health import HEALTHY
from metacache.cluster.health_tracker import verdict
from metacache.cluster.table import fill_part, part_of
from metacache.protocol.windows import Replies
from metacache.transports.batch_windows import failed_replies

if TYPE_CHECKING:
    from metacache.cluster.health_tracker import HealthTracker
    from metacache.cluster.table import Assignment, Table
    from metacache.errors import MetacacheError
    from metacache.pool.aio import AsyncPool
    from metacache.transports.base import Batch

__all__ = ["run_parts"]


async def run_parts(
    batch: Batch, table_now: Callable[[], Table[AsyncPool]], keeper: HealthTracker, deadline: float
) -> Replies:
    """Send *batch* to all of its nodes at once; return a reply or an error for each request.

    *table_now* returns who serves a key now. What surely was not sent to a node that is down by then goes to the next
    one, where keys move.
    """
    table = table_now()
    assignments = table.assign(batch.keys)
    # All begin now: a pool that is closed a moment later lets them finish.
    parts = [_begin_part(table, keeper, batch, assignment, deadline) for assignment in assignments]
    answered = [await parts[0]] if len(parts) == 1 else await asyncio.gather(*parts)
    whole = Replies(len(batch))
    moved: list[int] = []
    for assignment, replies in zip(assignments, answered, strict=True):
        fill_part(whole, assignment.indices, replies)
        if replies.errors:
            moved += [assignment.indices[at] for at in table.unsent(assignment.member, replies.errors)]
    if moved:
        moved.sort()  # those of several nodes
        for index in moved:
            del whole.errors[index]
        fill_part(whole, moved, await run_parts(part_of(batch, moved), table_now, keeper, deadline))
    return whole


def _begin_part(
    table: Table[AsyncPool], keeper: HealthTracker, batch: Batch, assignment: Assignment[AsyncPool], deadline: float
) -> Awaitable[Replies]:
    part = part_of(batch, assignment.indices)
    if assignment.error is not None:
        return _failed(part, assignment.error)
    return _finish_part(table, keeper, assignment, assignment.member.pool.run_batch(part, deadline=deadline))


async def _failed(part: Batch, error: MetacacheError) -> Replies:
    return failed_replies(part, error)


async def _finish_part(
    table: Table[AsyncPool], keeper: HealthTracker, assignment: Assignment[AsyncPool], under_way: Awaitable[Replies]
) -> Replies:
    member, replies = assignment.member, await under_way
    if member.health is not HEALTHY and verdict(replies):
        keeper.succeeded(table, member, monotonic())
    return replies
