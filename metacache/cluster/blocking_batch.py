"""A batch on several nodes, driven by one thread: send to all nodes, then read from each node that is ready.

It waits for descriptors. The exchanges of its parts send and receive, and the snapshot of the nodes routes the keys.
"""

from __future__ import annotations

import select
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Final, final

from typing_extensions import override

from metacache.cluster.parts import fill_part, part_of, verdict
from metacache.errors import ClosedError
from metacache.interrupts import ignoring, is_own
from metacache.protocol.windows import Replies
from metacache.transports.batch_windows import failed_replies
from metacache.transports.blocking.checkout import POLL, Waker

if TYPE_CHECKING:
    from metacache.cluster.membership import Membership
    from metacache.cluster.snapshot import Member
    from metacache.pool.blocking import Pool
    from metacache.transports.base import Batch
    from metacache.transports.blocking.checkout import Waiter
    from metacache.transports.blocking.exchange import Exchange
    from metacache.transports.blocking.stream import Stream

__all__ = ["ClusterExchange"]

# While some parts run and others wait for a connection, look for connections this often, in seconds.
PAUSE: Final = 0.001


@final
class _Part:
    """The part of the batch that one node serves. It waits for a connection *until* then."""

    __slots__ = ("batch", "exchange", "indices", "member", "until", "waiter")

    exchange: Exchange

    def __init__(self, member: Member[Pool], indices: Sequence[int], batch: Batch, until: float) -> None:
        self.member = member
        self.indices = indices
        self.batch = batch
        self.until = until
        self.waiter: Waiter[Stream] | None = None

    def leave(self) -> None:
        """Leave the queue for a connection, if the part is in one."""
        waiter, self.waiter = self.waiter, None
        if waiter is not None:
            self.member.pool.lending.leave(waiter)


@final
class ClusterExchange:
    """The exchange of a batch over several nodes.

    Its driver waits for one descriptor: that of a selector, which is readable when any part can go on. A part whose
    node has no free connection waits in the queue for one, while the other parts run to their end. So no batch holds a
    connection of one node because it waits for a connection of another.

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
        "_replies",
        "_running",
        "_selector",
        "_waiting",
        "_waker",
        "_watched",
        "wants_write",
    )

    def __init__(self, batch: Batch, nodes: Membership[Pool], *, deadline: float, now: float) -> None:
        self._batch = batch
        self._nodes = nodes
        self._deadline = deadline
        self._now = now
        self._replies = Replies(len(batch))
        self._running: list[_Part] = []
        self._fresh: list[_Part] = []  # parts that were never advanced
        self._waiting: list[_Part] = []
        self._waker = Waker()
        self._selector: select.epoll | select.poll | None = None
        self._watched: dict[int, _Part] = {}
        self.wants_write = False

    @override
    def __repr__(self) -> str:
        parts = [*self._running, *self._waiting]
        return f"<ClusterExchange: {', '.join(part.member.node.name for part in parts) or 'done'}>"

    def begin(self) -> None:
        """Start the parts whose nodes have a free connection. Raises ClosedError before anything is sent."""
        self._assign(range(len(self._batch)))
        self._start_waiting()

    def fileno(self) -> int:
        """Return the selector's descriptor; -1 when there is nothing to wait for, or `advance` itself waits."""
        is_waited_for = self._running and not self._fresh and not self._waiting
        return _descriptor(self._selector) if is_waited_for and self._selector is not None else -1

    def advance(self, now: float, /) -> bool:
        """Send and receive on the nodes that are ready; return True when all parts are done."""
        self._now = now
        for part in self._ready(now):
            before = part.exchange.fileno()
            if part.exchange.advance(max(now, monotonic())):  # a part before it may have dialled meanwhile
                self._unwatch(before)
                self._running.remove(part)
                self._settle(part)
            else:
                self._watch(part, before)
        if self._waiting:
            self._wait_for_connections()
        if not self._running and not self._waiting:
            self._close()
        return not self._running and not self._waiting

    def outcomes(self) -> Replies:
        """End the exchange and return a reply or an error for each request."""
        left, self._running = self._running, []
        waiting, self._waiting = self._waiting, []
        for part in left:
            self._settle(part, heard=False)
        for part in waiting:
            self._fail(part, part.member.pool.lending.timed_out(part.batch))
        self._close()
        return self._replies

    # --- parts -------------------------------------------------------------------------------------------------------

    def _assign(self, indices: Sequence[int]) -> None:
        """Make a part for each node that serves requests at *indices* now, in ascending order of node names."""
        batch = part_of(self._batch, indices)
        for assignment in self._nodes.snapshot.assign(batch.keys):
            own = [indices[index] for index in assignment.indices]
            part = part_of(batch, assignment.indices)
            if assignment.error is not None:
                fill_part(self._replies, own, failed_replies(part, assignment.error))
                continue
            # Half of the time at most: the rest is for the requests themselves.
            until = assignment.member.pool.lending.wait_until(self._now, (self._now + self._deadline) / 2)
            self._waiting.append(_Part(assignment.member, own, part, until))

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

    def _ready(self, now: float) -> Sequence[_Part]:
        if self._selector is None:
            self._selector = _make_selector()
        if self._fresh:
            fresh, self._fresh = self._fresh, []
            # Connected ones first: their requests run while the others dial.
            return sorted(fresh, key=_is_unconnected)
        if now >= self._deadline:
            return tuple(self._running)
        pause = min(PAUSE, self._deadline - now) if self._running and self.fileno() < 0 else 0
        is_epoll = _descriptor(self._selector) >= 0
        found = self._selector.poll(pause if is_epoll else pause * 1000)  # seconds, or milliseconds
        return [self._watched[descriptor] for descriptor, _ in found]

    def _watch(self, part: _Part, before: int) -> None:
        # Register it again each time: after another dial the same number may be another socket.
        self._unwatch(before)
        # The values of poll; those of epoll are the same.
        events = select.POLLIN | (select.POLLOUT if part.exchange.wants_write else 0)
        if self._selector is not None:
            descriptor = part.exchange.fileno()
            self._watched[descriptor] = part
            self._selector.register(descriptor, events)

    def _unwatch(self, descriptor: int) -> None:
        if self._selector is not None and self._watched.pop(descriptor, None) is not None:
            with ignoring(OSError):  # a closed descriptor is removed by the kernel
                self._selector.unregister(descriptor)

    def _close(self) -> None:
        selector, self._selector = self._selector, None
        close = getattr(selector, "close", None)  # a poll object has none
        if close is not None:
            close()


def _is_unconnected(part: _Part) -> bool:
    return part.exchange.fileno() < 0


# Not `selectors`: its `unregister` hides every OSError, also one of a signal handler.
def _make_selector() -> select.epoll | select.poll:
    if not hasattr(select, "epoll"):
        return select.poll()
    try:
        return select.epoll()
    except OSError as error:  # this process has no descriptor left; a poll object needs none
        if not is_own(error):
            raise
        return select.poll()


def _descriptor(selector: select.epoll | select.poll) -> int:
    """Return the descriptor of an epoll object, -1 for a poll object."""
    fileno = getattr(selector, "fileno", None)
    return -1 if fileno is None else int(fileno())
