"""Chooses the node that serves a key, probes nodes that are down, and makes second attempts, for both clusters.

These are coroutines that await only their effects. The blocking cluster drives them, and the asyncio cluster awaits
them. The clusters send operations to healthy nodes without this module, except `AsyncCluster` with
``on_node_down="next"``. This module opens no socket, takes no lock and reads no clock.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol, TypeVar

from metacache.cluster import admin
from metacache.cluster.health import is_node_failure
from metacache.cluster.membership import Membership
from metacache.cluster.snapshot import Member
from metacache.errors import ClientError, ClosedError, ConnectError, MetacacheError, NodeDownError, ServerError
from metacache.interrupts import is_own
from metacache.transports.base import Operation

__all__ = ["Effects", "may_run_again", "probe", "run"]

P = TypeVar("P")
R = TypeVar("R")


class Effects(Protocol[P]):
    """The effects that these coroutines may await, and the clock."""

    def now(self) -> float:
        """Return ``time.monotonic()``."""
        ...

    def run(self, member: Member[P], op: Operation[R], /, *, deadline: float) -> Awaitable[R]:
        """Run *op* on the pool of *member*. Count a failure of the node before raising it."""
        ...


async def run(nodes: Membership[P], effects: Effects[P], op: Operation[R], deadline: float) -> R:
    """Run *op* on the node that serves its key; run it on another node if certainly nothing was sent.

    Raises NodeDownError when no node serves the key, ClosedError, and what the pool raises.
    """
    while True:
        member = await _server(nodes, effects, op, deadline)
        try:
            result = await effects.run(member, op, deadline=deadline)
        except (ServerError, ClientError) as error:
            if is_own(error):
                nodes.succeeded(member)  # an error line is a reply too
            raise
        except MetacacheError as error:
            if not is_own(error) or not may_run_again(nodes, member, op.verb.name, error):
                raise
        else:
            nodes.succeeded(member)
            return result


def may_run_again(nodes: Membership[P], member: Member[P], verb: str, error: MetacacheError) -> bool:
    """Return whether an operation that failed on *member* was certainly not sent, and another node serves its key now.

    If so, report the second attempt of *verb*. Call it after the failure *error* is counted. A ClosedError of a node
    that left the set comes from its closed pool.
    """
    if isinstance(error, ClosedError):
        is_possible = not (error.maybe_applied or nodes.is_closed or nodes.snapshot.has(member))
    else:
        is_possible = isinstance(error, ConnectError) and nodes.snapshot.is_moved(member)
    if is_possible:
        nodes.note_retry(member.node, verb, error)
    return is_possible


async def _server(nodes: Membership[P], effects: Effects[P], op: Operation[R], deadline: float) -> Member[P]:
    """Return the member that serves *op*. If its owner is down and due for a probe, probe it first."""
    nodes.check_open(op.verb.name, op.given)
    snapshot = nodes.snapshot
    owner = snapshot.owner(op.key)
    if snapshot.is_down(owner):
        await probe(nodes, effects, owner, deadline)
    try:
        return nodes.snapshot.server(op.key)  # after the probe, during which other nodes may have been set
    except NodeDownError as error:
        if is_own(error):
            error.locate(operation=op.verb.name, key=op.given)
        raise


async def probe(nodes: Membership[P], effects: Effects[P], member: Member[P], deadline: float) -> bool:
    """Ask *member*, which is down, whether it answers, if that is due; return True if it does.

    One caller probes at a time. The others get False immediately.
    """
    now = effects.now()
    if now >= deadline or not nodes.start_probe(member, now):
        return False
    is_answered: bool | None = None
    try:
        # The probe gets half of the time. The other half is for the operation.
        is_answered = await effects.run(member, admin.probe(), deadline=(now + deadline) / 2)
    except MetacacheError as error:
        if not is_own(error):
            raise
        is_answered = False if is_node_failure(error) else None
    finally:
        nodes.end_probe(member, effects.now(), is_answered)
    return is_answered is True
