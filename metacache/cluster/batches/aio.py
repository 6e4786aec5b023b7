"""A batch on several nodes at once, under an event loop. The twin of `blocking`.

Knows who serves which part; moves no byte and routes no key.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from metacache.cluster.health import HEALTHY
from metacache.cluster.keeper import verdict
from metacache.cluster.table import fill_part, part_of
from metacache.protocol.windows import Replies
from metacache.transports.exchange import FailedExchange

if TYPE_CHECKING:
    from metacache.cluster.keeper import Keeper
    from metacache.cluster.table import Assignment, Table
    from metacache.pool.aio import AsyncPool
    from metacache.transports import Batch

__all__ = ["run_parts"]


async def run_parts(batch: Batch, table: Table[AsyncPool], keeper: Keeper, deadline: float) -> Replies:
    """Send *batch* to all of its nodes at once; return a reply or an error for each request."""
    assignments = table.assign(batch.keys)
    parts = [_run_part(table, keeper, batch, assignment, deadline) for assignment in assignments]
    if len(parts) == 1:
        return await parts[0]
    whole = Replies(len(batch))
    for assignment, part in zip(assignments, await asyncio.gather(*parts), strict=True):
        fill_part(whole, assignment.indices, part)
    return whole


async def _run_part(
    table: Table[AsyncPool], keeper: Keeper, batch: Batch, assignment: Assignment[AsyncPool], deadline: float
) -> Replies:
    member, part = assignment.member, part_of(batch, assignment.indices)
    if assignment.error is not None:
        return FailedExchange(part, assignment.error).outcomes()
    replies = await member.pool.run_batch(part, deadline=deadline)
    if member.health is not HEALTHY and verdict(replies):
        keeper.succeeded(table, member, monotonic())
    return replies
