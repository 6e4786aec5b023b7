"""A batch on several nodes, driven by one thread: send to all nodes, then read from each node that is ready.

It waits for descriptors. The exchanges of its parts send and receive, and the snapshot of the nodes routes the keys.
"""

from __future__ import annotations

import select
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Final, final

from metacache.cluster.parts import fill_part, part_of, take, verdict
from metacache.cluster.quick_parts import run_quickly
from metacache.errors import ClosedError
from metacache.interrupts import is_own
from metacache.marks import override
from metacache.protocol.windows import Replies
from metacache.transports.batch_windows import failed_replies
from metacache.transports.blocking.checkout import POLL, Waker

if TYPE_CHECKING:
    from metacache.cluster.membership import Membership
    from metacache.cluster.snapshot import Assignment, Member
    from metacache.pool.blocking import Pool
    from metacache.transports.base import Batch
    from metacache.transports.blocking.checkout import Waiter
    from metacache.transports.blocking.exchange import StreamExchange
    from metacache.transports.blocking.stream import Stream

__all__ = ["ClusterExchange"]

# While some parts run and others wait for a connection, look for connections this often, in seconds.
PAUSE: Final = 0.001


@final
class _Part:
    """The part of the batch that one node serves. It waits for a connection *until* then.

    ``watched``: the descriptor that is registered for it, and the events.
    """

    __slots__ = ("batch", "exchange", "indices", "member", "until", "waiter", "watched")

    exchange: StreamExchange

    def __init__(self, member: Member[Pool], indices: Sequence[int], batch: Batch, until: float) -> None:
        self.member = member
        self.indices = indices
        self.batch = batch
        self.until = until
        self.waiter: Waiter[Stream] | None = None
        self.watched: tuple[int, int] = (-1, 0)

    def leave(self) -> None:
        """Leave the queue for a connection, if the part is in one."""
        waiter, self.waiter = self.waiter, None
        if waiter is not None:
            self.member.pool.lending.leave(waiter)


@final
class ClusterExchange:
    """The exchange of a batch over several nodes.

    `wait` waits until any part can go on. A part whose node has no free connection waits in the queue for one, while
    the other parts run to their end. So no batch holds a connection of one node because it waits for a connection of
    another.

    Args:
        batch: all of the requests.
        nodes: which node serves a key now; the results of the parts are reported to it.
        deadline: the ``time.monotonic()`` time at which the rest fails.
        now: ``time.monotonic()``.
    """

    __slots__ = (
        "_batch",
        "_deadline",
        "_fresh",
        "_nodes",
        "_now",
        "_poll",
        "_ready",
        "_replies",
        "_running",
        "_waiting",
        "_waker",
        "_watched",
    )

    def __init__(self, batch: Batch, nodes: Membership[Pool], *, deadline: float, now: float) -> None:
        self._batch = batch
        self._nodes = nodes
        self._deadline = deadline
        self._now = now
        self._replies = Replies(len(batch.heads))
        self._running: list[_Part] = []
        self._fresh: list[_Part] = []  # parts to advance without waiting: new ones, and those without a descriptor
        self._waiting: list[_Part] = []
        self._waker = Waker()
        # Not `selectors`: its `unregister` hides every OSError, also one of a signal handler. Not epoll: for the few
        # descriptors of a batch it needs more system calls, and a descriptor of its own.
        self._poll = select.poll()
        self._watched: dict[int, _Part] = {}
        self._ready: Sequence[_Part] = ()

    @override
    def __repr__(self) -> str:
        parts = [*self._running, *self._waiting]
        return f"<ClusterExchange: {', '.join(part.member.node.name for part in parts) or 'done'}>"

    def begin(self) -> None:
        """Start the parts whose nodes have a free connection. Raises ClosedError before anything is sent."""
        assignments = self._nodes.snapshot.assign(self._batch.keys)
        if not self._run_quickly(assignments):
            self._add_parts(self._batch, range(len(self._batch.heads)), assignments)
            self._start_waiting()

    def _run_quickly(self, assignments: Sequence[Assignment[Pool]]) -> bool:
        """Run all parts together, if each node has a free stream; return False if nothing was sent."""
        left = run_quickly(self._batch, assignments, self._replies, deadline=self._deadline, now=self._now)
        if left is None:
            return False
        for assignment, stream, handed in left:
            part = self._part(self._batch, assignment.indices, assignment)
            part.exchange = assignment.member.pool.lending.go_on(stream, part.batch, self._deadline, handed)
            self._running.append(part)
            self._fresh.append(part)
        if not self._nodes.snapshot.is_all_healthy:
            unfinished = [assignment for assignment, _, _ in left]
            for assignment in assignments:
                if assignment not in unfinished:
                    self._nodes.succeeded(assignment.member)
        return True

    def wait(self, seconds: float, /) -> None:
        """Wait until a part can go on, at most that many seconds."""
        if self._fresh or not self._running:
            return  # `advance` starts the fresh parts, and waits for connections
        seconds = min(seconds, PAUSE) if self._waiting else seconds
        self._ready = self._readable(seconds)

    def advance(self, now: float, /) -> bool:
        """Send and receive on the nodes that are ready; return True when all parts are done."""
        self._now = now
        for part in self._take_ready(now):
            if part.exchange.advance(max(now, monotonic())):  # a part before it may have dialled meanwhile
                self._unwatch(part)
                self._running.remove(part)
                self._settle(part)
            else:
                self._watch(part)
        if self._waiting:
            self._wait_for_connections()
        return not self._running and not self._waiting

    def outcomes(self) -> Replies:
        """End the exchange and return a reply or an error for each request."""
        left, self._running = self._running, []
        waiting, self._waiting = self._waiting, []
        for part in left:
            self._settle(part, heard=False)
        for part in waiting:
            self._fail(part, part.member.pool.lending.timed_out(part.batch))
        return self._replies

    # --- parts -------------------------------------------------------------------------------------------------------

    def _assign(self, indices: Sequence[int]) -> None:
        """Make a part for each node that serves requests at *indices* now, in ascending order of node names."""
        batch = part_of(self._batch, indices)
        self._add_parts(batch, indices, self._nodes.snapshot.assign(batch.keys))

    def _add_parts(self, batch: Batch, indices: Sequence[int], assignments: Sequence[Assignment[Pool]]) -> None:
        """Let the parts of *batch*, which has the requests at *indices*, wait for connections."""
        for assignment in assignments:
            own = indices if len(assignment.indices) == len(indices) else take(indices, assignment.indices)
            part = self._part(batch, own, assignment)
            if assignment.error is None:
                self._waiting.append(part)
            else:
                fill_part(self._replies, own, failed_replies(part.batch, assignment.error))

    def _part(self, batch: Batch, own: Sequence[int], assignment: Assignment[Pool]) -> _Part:
        # It waits half of the time at most: the rest is for the requests themselves.
        until = assignment.member.pool.lending.wait_until(self._now, (self._now + self._deadline) / 2)
        return _Part(assignment.member, own, part_of(batch, assignment.indices), until)

    def _wait_for_connections(self) -> None:
        """Start the parts that can start, and fail those that have waited too long."""
        try:
            self._start_waiting()
            if not self._running and self._waiting:
                self._waker.wait(min(POLL, min(part.until for part in self._waiting) - monotonic()))
                self._start_waiting()
        except ClosedError as error:
            if not is_own(error):
                raise
            waiting, self._waiting = self._waiting, []
            for part in waiting:
                self._fail(part, part.member.pool.lending.refused(part.batch))
        for part in [part for part in self._waiting if monotonic() >= part.until]:
            self._waiting.remove(part)
            self._fail(part, part.member.pool.lending.timed_out(part.batch))

    def _start_waiting(self) -> None:
        for part in tuple(self._waiting):
            if not self._start(part) and part.waiter is None:
                part.waiter = part.member.pool.lending.join(self._waker)
                self._start(part)  # a connection put back before it joined the queue is not handed over

    def _start(self, part: _Part) -> bool:
        """Start *part* if there is a connection for it; return whether it has ended its wait. Raises ClosedError."""
        try:
            exchange = part.member.pool.lending.try_begin(part.batch, part.waiter, self._deadline)
        except ClosedError as error:
            if self._nodes.snapshot.has(part.member) or not is_own(error):
                raise
            self._waiting.remove(part)
            part.leave()
            self._assign(part.indices)  # other nodes were set meanwhile, and this pool was drained
            return True
        if exchange is None:
            return False
        part.exchange = exchange
        self._waiting.remove(part)
        self._running.append(part)
        self._fresh.append(part)
        part.leave()
        return True

    def _fail(self, part: _Part, failed: Replies) -> None:
        part.leave()
        fill_part(self._replies, part.indices, failed)

    def _settle(self, part: _Part, *, heard: bool = True) -> None:
        """Take the outcomes of a part. Without *heard* it was abandoned, and says nothing about its node."""
        replies = part.exchange.outcomes()
        found = verdict(replies) if heard else None
        if found is False:
            self._nodes.failed(part.member, self._now)
        elif found:
            self._nodes.succeeded(part.member)
        fill_part(self._replies, part.indices, replies)
        if found is False and (unsent := self._nodes.snapshot.unsent(part.member, replies.errors)):
            self._nodes.note_retry(part.member.node, self._batch.verb.name, next(iter(replies.errors.values())))
            self._move([part.indices[at] for at in unsent])

    def _move(self, indices: Sequence[int]) -> None:
        """Let the next-ranked nodes serve the requests at *indices*."""
        for index in indices:
            del self._replies.errors[index]
        self._assign(indices)

    # --- waiting -----------------------------------------------------------------------------------------------------

    def _take_ready(self, now: float) -> Sequence[_Part]:
        ready, self._ready = self._ready, ()
        if self._fresh:
            fresh, self._fresh = self._fresh, []
            ready = self._readable(0.0) if self._watched else ()
            # Connected ones first: their requests run while the others dial.
            return [*ready, *sorted(fresh, key=_is_unconnected)] if ready or len(fresh) > 1 else fresh
        return tuple(self._running) if now >= self._deadline else ready

    def _readable(self, seconds: float) -> Sequence[_Part]:
        """Return the parts whose descriptors are ready within *seconds*."""
        return [self._watched[descriptor] for descriptor, _ in self._poll.poll(max(seconds, 0.0) * 1000)]

    def _watch(self, part: _Part) -> None:
        descriptor = part.exchange.fileno()
        if descriptor < 0:  # a server in this process: there is nothing to wait for, so advance it again
            self._unwatch(part)
            self._fresh.append(part)
            return
        watched = (descriptor, select.POLLIN | (select.POLLOUT if part.exchange.wants_write else 0))
        if watched != part.watched:
            self._unwatch(part)
            self._poll.register(*watched)
            self._watched[descriptor] = part
            part.watched = watched

    def _unwatch(self, part: _Part) -> None:
        descriptor, _ = part.watched
        if descriptor >= 0:
            part.watched = (-1, 0)
            del self._watched[descriptor]
            self._poll.unregister(descriptor)


def _is_unconnected(part: _Part) -> bool:
    return part.exchange.fileno() < 0
