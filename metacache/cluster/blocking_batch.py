"""A batch on several nodes at the same time, driven by one thread.

It waits for the sockets of all parts together, and advances those that are ready. The exchanges of the parts send and
receive. The snapshot chooses the node of each key. A part whose node has no free connection waits in the queue of that
node's pool.
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

# While some parts run and others wait for connections, the batch checks the waiting ones after this many seconds.
PAUSE: Final = 0.001


@final
class _Part:
    """The requests of the batch that one node serves. It waits for a connection until the time *until*."""

    __slots__ = ("batch", "exchange", "indices", "member", "until", "waiter")

    exchange: Exchange

    def __init__(self, member: Member[Pool], indices: Sequence[int], batch: Batch, until: float) -> None:
        self.member = member
        self.indices = indices
        self.batch = batch
        self.until = until
        self.waiter: Waiter[Stream] | None = None

    def leave(self) -> None:
        """Leave the queue of the pool, if it waits there."""
        waiter, self.waiter = self.waiter, None
        if waiter is not None:
            self.member.pool.lending.leave(waiter)


@final
class ClusterExchange:
    """The exchange of a batch over several nodes.

    Its descriptor is that of a selector over the descriptors of its parts. It is readable when a part can send or
    receive. While a part waits for a connection, the other parts run to their ends and return their connections. So no
    batch keeps a connection of one node while it waits for a connection of another node.

    Args:
        batch: all the requests.
        nodes: the nodes and their health. The results of the parts change the health.
        deadline: a ``time.monotonic()`` time. Requests without a reply fail then.
        now: the current time (``time.monotonic()``).
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
        self._fresh: list[_Part] = []  # the running parts that were never advanced
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
        """Return the selector's descriptor; -1 when the batch is done, or when `advance` itself waits."""
        is_waited_for = self._running and not self._fresh and not self._waiting
        return _descriptor(self._selector) if is_waited_for and self._selector is not None else -1

    def advance(self, now: float, /) -> bool:
        """Advance the parts whose sockets are ready; return True when every request has its reply or error."""
        self._now = now
        for part in self._ready(now):
            before = part.exchange.fileno()
            if part.exchange.advance(max(now, monotonic())):  # an earlier part may have dialled, which takes time
                self._unwatch(before)
                self._running.remove(part)
                self._finish(part)
            else:
                self._watch(part, before)
        if self._waiting:
            self._start_or_fail_waiting()
        if not self._running and not self._waiting:
            self._close()
        return not self._running and not self._waiting

    def outcomes(self) -> Replies:
        """End the exchange and return a reply or an error for each request."""
        running, self._running = self._running, []
        waiting, self._waiting = self._waiting, []
        for part in running:
            self._finish(part, is_finished=False)
        for part in waiting:
            self._fail(part, part.member.pool.lending.timed_out(part.batch))
        self._close()
        return self._replies

    # --- parts -------------------------------------------------------------------------------------------------------

    def _assign(self, indices: Sequence[int]) -> None:
        """Make a part for each node that serves some of the requests at *indices*, in ascending order of names."""
        batch = part_of(self._batch, indices)
        for assignment in self._nodes.snapshot.assign(batch.keys):
            own = [indices[index] for index in assignment.indices]
            part = part_of(batch, assignment.indices)
            if assignment.error is not None:
                fill_part(self._replies, own, failed_replies(part, assignment.error))
                continue
            # Wait for half of the time at most. The other half is for the requests.
            until = assignment.member.pool.lending.wait_until(self._now, (self._now + self._deadline) / 2)
            self._waiting.append(_Part(assignment.member, own, part, until))

    def _start_or_fail_waiting(self) -> None:
        """Start the waiting parts that got a connection, and fail those that have waited for too long."""
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
                # Try again: a connection that was put back before the part joined the queue is not handed to it.
                self._start(part)

    def _start(self, part: _Part) -> bool:
        """Start *part* if there is a connection for it; return False if it still waits. Raises ClosedError."""
        try:
            exchange = part.member.pool.lending.try_begin(part.batch, part.waiter, self._deadline)
        except ClosedError as error:
            if self._nodes.snapshot.has(part.member) or not is_own(error):
                raise
            self._waiting.remove(part)
            part.leave()
            self._assign(part.indices)  # `set_nodes` has removed its node in the meantime
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

    def _finish(self, part: _Part, *, is_finished: bool = True) -> None:
        """Take the outcomes of *part*. If it was given up (not *is_finished*), they say nothing about its node."""
        replies = part.exchange.outcomes()
        found = verdict(replies) if is_finished else None
        if found is False:
            self._nodes.failed(part.member, self._now)
        elif found:
            self._nodes.succeeded(part.member)
        fill_part(self._replies, part.indices, replies)
        if found is False and (unsent := self._nodes.snapshot.unsent(part.member, replies.errors)):
            self._move([part.indices[at] for at in unsent])

    def _move(self, indices: Sequence[int]) -> None:
        """Assign the requests at *indices* to the nodes that serve them now."""
        for index in indices:
            del self._replies.errors[index]
        self._assign(indices)

    # --- waiting -----------------------------------------------------------------------------------------------------

    def _ready(self, now: float) -> Sequence[_Part]:
        if self._selector is None:
            self._selector = _make_selector()
        if self._fresh:
            fresh, self._fresh = self._fresh, []
            # Advance the connected parts first. Their requests are then on the way while the other parts dial.
            return sorted(fresh, key=_is_unconnected)
        if now >= self._deadline:
            return tuple(self._running)
        pause = min(PAUSE, self._deadline - now) if self._running and self.fileno() < 0 else 0
        is_epoll = _descriptor(self._selector) >= 0
        found = self._selector.poll(pause if is_epoll else pause * 1000)  # seconds, or milliseconds
        return [self._watched[descriptor] for descriptor, _ in found]

    def _watch(self, part: _Part, before: int) -> None:
        # Register again even if the number is unchanged: a part that dialled may have the same number for a new socket.
        self._unwatch(before)
        # The values of poll; those of epoll are the same.
        events = select.POLLIN | (select.POLLOUT if part.exchange.wants_write else 0)
        if self._selector is not None:
            descriptor = part.exchange.fileno()
            self._watched[descriptor] = part
            self._selector.register(descriptor, events)

    def _unwatch(self, descriptor: int) -> None:
        if self._selector is not None and self._watched.pop(descriptor, None) is not None:
            with ignoring(OSError):  # it was closed, and so removed
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
