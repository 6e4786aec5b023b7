"""A batch on several nodes at once, driven by one thread: write to all, then read whichever is ready.

Knows the exchanges of its parts and who serves them; moves no byte and routes no key.
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

# Seconds after which a batch that has parts under way looks again whether another was handed a connection.
PAUSE: Final = 0.001


@final
class _Part:
    """What one node does of the batch; it waits *until* then for a connection."""

    __slots__ = ("batch", "exchange", "indices", "member", "until", "waiter")

    exchange: Exchange

    def __init__(self, member: Member[Pool], indices: Sequence[int], batch: Batch, until: float) -> None:
        self.member = member
        self.indices = indices
        self.batch = batch
        self.until = until
        self.waiter: Waiter[Stream] | None = None

    def leave(self) -> None:
        """Leave the line, if it stands in one."""
        waiter, self.waiter = self.waiter, None
        if waiter is not None:
            self.member.pool.lending.leave(waiter)


@final
class ClusterExchange:
    """The exchange of a batch over several nodes.

    It is waited for by one descriptor, that of a selector over the descriptors of its parts, which is readable when any
    of them can move. A part whose node has no connection free stands in line for one while the others go on to
    their end: no batch holds a connection of one node because it waits for another's.

    Args:
        batch: all of the requests.
        nodes: which node serves a key now; the results of the parts are reported to it.
        deadline: the time at which every part looks at it.
        now: ``time.monotonic()``.
    """

    __slots__ = (
        "_batch",
        "_deadline",
        "_fresh",
        "_left",
        "_nodes",
        "_now",
        "_replies",
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
        self._left: list[_Part] = []
        self._fresh: list[_Part] = []  # those of them that were never advanced
        self._waiting: list[_Part] = []
        self._waker = Waker()
        self._selector: select.epoll | select.poll | None = None
        self._watched: dict[int, _Part] = {}
        self.wants_write = False

    @override
    def __repr__(self) -> str:
        parts = [*self._left, *self._waiting]
        return f"<ClusterExchange: {', '.join(part.member.node.name for part in parts) or 'done'}>"

    def begin(self) -> None:
        """Start the parts whose nodes have a connection free. Raises ClosedError: nothing was sent."""
        self._assign(range(len(self._batch)))
        self._start_those_with_room()

    def fileno(self) -> int:
        """Return the selector's descriptor, -1 when there is nothing to wait for or `advance` itself waits."""
        is_waited_for = self._left and not self._fresh and not self._waiting
        return _descriptor(self._selector) if is_waited_for and self._selector is not None else -1

    def advance(self, now: float, /) -> bool:
        """Move what bytes can be moved on the nodes that are ready; return True when all are done."""
        self._now = now
        for part in self._ready(now):
            before = part.exchange.fileno()
            if part.exchange.advance(max(now, monotonic())):  # one before it may have been dialled meanwhile
                self._unwatch(before)
                self._left.remove(part)
                self._settle(part)
            else:
                self._watch(part, before)
        if self._waiting:
            self._look_for_room()
        if not self._left and not self._waiting:
            self._close()
        return not self._left and not self._waiting

    def outcomes(self) -> Replies:
        """End the exchange and return a reply or an error for each request."""
        left, self._left = self._left, []
        waiting, self._waiting = self._waiting, []
        for part in left:
            self._settle(part, heard=False)
        for part in waiting:
            self._fail(part, part.member.pool.lending.timed_out(part.batch))
        self._close()
        return self._replies

    # --- parts -------------------------------------------------------------------------------------------------------

    def _assign(self, indices: Sequence[int]) -> None:
        """Have the nodes that serve the requests at *indices* now do a part each, in ascending order of names."""
        batch = part_of(self._batch, indices)
        for assignment in self._nodes.snapshot.assign(batch.keys):
            own = [indices[index] for index in assignment.indices]
            part = part_of(batch, assignment.indices)
            if assignment.error is not None:
                fill_part(self._replies, own, failed_replies(part, assignment.error))
                continue
            # Half of the time at most: what is left is for the requests themselves.
            until = assignment.member.pool.lending.wait_until(self._now, (self._now + self._deadline) / 2)
            self._waiting.append(_Part(assignment.member, own, part, until))

    def _look_for_room(self) -> None:
        """Start what can be started, and end what waited for too long."""
        try:
            self._start_those_with_room()
            if not self._left and self._waiting:
                self._waker.wait(min(POLL, min(part.until for part in self._waiting) - monotonic()))
                self._start_those_with_room()
        except ClosedError as error:
            if not is_own(error):
                raise
            waiting, self._waiting = self._waiting, []
            for part in waiting:
                self._fail(part, part.member.pool.lending.refused(part.batch))
        for part in [part for part in self._waiting if monotonic() >= part.until]:
            self._waiting.remove(part)
            self._fail(part, part.member.pool.lending.timed_out(part.batch))

    def _start_those_with_room(self) -> None:
        for part in tuple(self._waiting):
            if not self._start(part) and part.waiter is None:
                part.waiter = part.member.pool.lending.join(self._waker)
                self._start(part)  # what was put back before it stood in line is not handed over

    def _start(self, part: _Part) -> bool:
        """Start *part* if there is a connection for it; return whether it waits no longer. Raises ClosedError."""
        try:
            exchange = part.member.pool.lending.try_begin(part.batch, part.waiter, self._deadline)
        except ClosedError as error:
            if self._nodes.snapshot.has(part.member) or not is_own(error):
                raise
            self._waiting.remove(part)
            part.leave()
            self._assign(part.indices)  # other nodes were set meanwhile, and this one was drained
            return True
        if exchange is None:
            return False
        part.exchange = exchange
        self._waiting.remove(part)
        self._left.append(part)
        self._fresh.append(part)
        part.leave()
        return True

    def _fail(self, part: _Part, failed: Replies) -> None:
        part.leave()
        fill_part(self._replies, part.indices, failed)

    def _settle(self, part: _Part, *, heard: bool = True) -> None:
        """Take the outcomes of a part; one given up before its end (not *heard*) tells nothing of the node."""
        replies = part.exchange.outcomes()
        found = verdict(replies) if heard else None
        if found is False:
            self._nodes.failed(part.member, self._now)
        elif found:
            self._nodes.succeeded(part.member)
        fill_part(self._replies, part.indices, replies)
        if found is False and (unsent := self._nodes.snapshot.unsent(part.member, replies.errors)):
            self._move([part.indices[at] for at in unsent])

    def _move(self, indices: Sequence[int]) -> None:
        """Have the next nodes serve the requests at *indices*."""
        for index in indices:
            del self._replies.errors[index]
        self._assign(indices)

    # --- waiting -----------------------------------------------------------------------------------------------------

    def _ready(self, now: float) -> Sequence[_Part]:
        if self._selector is None:
            self._selector = _make_selector()
        if self._fresh:
            fresh, self._fresh = self._fresh, []
            # Those that are connected come first, so that their requests are under way while the others are dialled.
            return sorted(fresh, key=_is_unconnected)
        if now >= self._deadline:
            return tuple(self._left)
        pause = min(PAUSE, self._deadline - now) if self._left and self.fileno() < 0 else 0
        is_epoll = _descriptor(self._selector) >= 0
        found = self._selector.poll(pause if is_epoll else pause * 1000)  # seconds, or milliseconds
        return [self._watched[descriptor] for descriptor, _ in found]

    def _watch(self, part: _Part, before: int) -> None:
        # Always anew: a part that dialled again may have the same number for another socket.
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
    except OSError as error:  # this process has no descriptor left, and this one needs none
        if not is_own(error):
            raise
        return select.poll()


def _descriptor(selector: select.epoll | select.poll) -> int:
    """Return the descriptor of an epoll object, -1 for a poll object."""
    fileno = getattr(selector, "fileno", None)
    return -1 if fileno is None else int(fileno())
