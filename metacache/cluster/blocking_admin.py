"""`ask_each`: one admin operation on every node, in a thread for each. Knows pools; knows no health and no table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from metacache.errors import MetacacheError

if TYPE_CHECKING:
    from metacache.cluster.table import Member
    from metacache.nodes import Node
    from metacache.pool.blocking import Pool
    from metacache.transports.base import Operation

__all__ = ["ask_each"]

R = TypeVar("R")


def ask_each(
    members: Mapping[Node, Member[Pool]], operation: Callable[[], Operation[R]]
) -> dict[Node, R | MetacacheError]:
    """Run an operation made by *operation* on each of *members*; return the result or the error of each."""

    def ask(member: Member[Pool]) -> R | MetacacheError:
        try:
            return member.pool.run(operation())
        except MetacacheError as error:
            return error

    with ThreadPoolExecutor(len(members), "metacache-admin") as threads:
        return dict(zip(members, threads.map(ask, members.values()), strict=True))
