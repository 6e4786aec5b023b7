"""`ask_each`: runs one admin operation on every node of a blocking cluster, each in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from metacache.errors import MetacacheError

if TYPE_CHECKING:
    from metacache.cluster.snapshot import Member
    from metacache.nodes import Node
    from metacache.pool.blocking import Pool
    from metacache.transports.base import Operation

__all__ = ["ask_each"]

R = TypeVar("R")


def ask_each(
    members: Mapping[Node, Member[Pool]], operation: Callable[[], Operation[R]]
) -> dict[Node, R | MetacacheError]:
    """Run a new *operation* on each of *members*; return the result or the error, by node."""

    def ask(member: Member[Pool]) -> R | MetacacheError:
        try:
            return member.pool.run(operation())
        except MetacacheError as error:
            return error

    from concurrent.futures import ThreadPoolExecutor  # late: it starts slowly

    with ThreadPoolExecutor(len(members), "metacache-admin") as threads:
        return dict(zip(members, threads.map(ask, members.values()), strict=True))
