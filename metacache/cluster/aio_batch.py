"""A batch on several nodes at the same time, under an event loop.

It splits the batch into one part for each node, and merges their replies. The snapshot chooses the node of each key.
The pools send and receive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from metacache.cluster.parts import fill_part, part_of, verdict
from metacache.protocol.windows import Replies
from metacache.transports.batch_windows import failed_replies

if TYPE_CHECKING:
    from metacache.cluster.membership import Membership
    from metacache.cluster.snapshot import Assignment
    from metacache.errors import MetacacheError
    from metacache.pool.aio import AsyncPool
    from metacache.transports.base import Batch

__all__ = ["run_parts"]


async def run_parts(batch: Batch, nodes: Membership[AsyncPool], deadline: float) -> Replies:
    """Send *batch* to all of its nodes at the same time; return a reply or an error for each request.

    With ``on_node_down="next"``, requests that were certainly not sent go to the next-ranked node if their node is down
    now.
    """
    assignments = nodes.snapshot.assign(batch.keys)
    # Start all parts before the first await. A pool that is closed later lets them finish.
    parts = [_begin_part(nodes, batch, assignment, deadline) for assignment in assignments]
    answered = [await parts[0]] if len(parts) == 1 else await asyncio.gather(*parts)
    whole = Replies(len(batch))
    unsent: list[int] = []
    for assignment, replies in zip(assignments, answered, strict=True):
        fill_part(whole, assignment.indices, replies)
        if replies.errors:
            again = nodes.snapshot.unsent(assignment.member, replies.errors)
            unsent += [assignment.indices[at] for at in again]
            if again:
                nodes.note_retry(assignment.member.node, batch.verb.name, replies.errors[again[0]])
    if unsent:
        unsent.sort()  # they come from several nodes
        for index in unsent:
            del whole.errors[index]
        fill_part(whole, unsent, await run_parts(part_of(batch, unsent), nodes, deadline))
    return whole


def _begin_part(
    nodes: Membership[AsyncPool], batch: Batch, assignment: Assignment[AsyncPool], deadline: float
) -> Awaitable[Replies]:
    part = part_of(batch, assignment.indices)
    if assignment.error is not None:
        return _failed(part, assignment.error)
    return _finish_part(nodes, assignment, assignment.member.pool.run_batch(part, deadline=deadline))


async def _failed(part: Batch, error: MetacacheError) -> Replies:
    return failed_replies(part, error)


async def _finish_part(
    nodes: Membership[AsyncPool], assignment: Assignment[AsyncPool], running: Awaitable[Replies]
) -> Replies:
    replies = await running
    if not nodes.snapshot.is_all_healthy and verdict(replies):
        nodes.succeeded(assignment.member)
    return replies
