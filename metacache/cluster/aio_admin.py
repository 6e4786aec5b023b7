"""`ask_each`: runs one admin operation on every node of an asyncio cluster, on all at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from metacache.errors import MetacacheError

if TYPE_CHECKING:
    from metacache.cluster.snapshot import Member
    from metacache.nodes import Node
    from metacache.pool.aio import AsyncPool
    from metacache.transports.base import Operation

__all__ = ["ask_each"]

R = TypeVar("R")


async def ask_each(
    members: Mapping[Node, Member[AsyncPool]], operation: Callable[[], Operation[R]]
) -> dict[Node, R | MetacacheError]:
    """Run a new *operation* on each of *members*; return the result or the error, by node."""

    async def ask(member: Member[AsyncPool]) -> R | MetacacheError:
        try:
            return await member.pool.run(operation())
        except MetacacheError as error:
            return error

    return dict(zip(members, await asyncio.gather(*map(ask, members.values())), strict=True))
