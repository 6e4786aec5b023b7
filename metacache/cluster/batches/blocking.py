"""A batch on several nodes at once, driven by one thread: write to all, then read whichever is ready.

Knows the exchanges of its parts and who serves them; moves no byte and routes no key.
"""

from __future__ import annotations

import contextlib
import selectors
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, final

from typing_extensions import override

from metacache.cluster.keeper import verdict
from metacache.cluster.table import Assignment, fill_part, part_of
from metacache.protocol.windows import Replies
from metacache.transports.exchange import FailedExchange

if TYPE_CHECKING:
    from metacache.cluster.keeper import Keeper
    from metacache.cluster.table import Member, Table
    from metacache.pool.blocking import Pool
    from metacache.transports import Batch, Exchange

__all__ = ["ClusterExchange"]


@final
class _Part:
    """What one node does of the batch."""

    __slots__ = ("exchange", "indices", "member")

    def __init__(self, assignment: Assignment[Pool], exchange: Exchange) -> None:
        self.member: Member[Pool] = assignment.member
        self.indices: Sequence[int] = assignment.indices
        self.exchange = exchange


@final
class ClusterExchange:
    """The exchange of a batch over several nodes.

    It is waited for by one descriptor, that of a selector over the descriptors of its parts, which is readable when any
    of them can move. *deadline*: the time at which every part looks at it.
    """

    __slots__ = (
        "_batch",
        "_deadline",
        "_keeper",
        "_left",
        "_now",
        "_replies",
        "_selector",
        "_table",
        "_watched",
        "wants_write",
    )

    def __init__(self, batch: Batch, table: Table[Pool], keeper: Keeper, *, deadline: float, now: float) -> None:
        self._batch = batch
        self._table = table
        self._keeper = keeper
        self._deadline = deadline
        self._now = now
        self._replies = Replies(len(batch))
        self._left: list[_Part] = []
        self._selector: selectors.BaseSelector | None = None
        # A selector refers to itself: were the parts in it, a batch that is dropped would hold their places.
        self._watched: dict[int, _Part] = {}
        self.wants_write = False

    @override
    def __repr__(self) -> str:
        return f"<ClusterExchange: {', '.join(part.member.node.name for part in self._left) or 'done'}>"

    def add(self, assignment: Assignment[Pool]) -> None:
        """Begin one part. Raises ClosedError and ValueTooLargeError; what else is wrong is in the outcomes."""
        batch = part_of(self._batch, assignment.indices)
        if assignment.error is not None:
            self._settle(_Part(assignment, FailedExchange(batch, assignment.error)))
        else:
            self._left.append(_Part(assignment, assignment.member.pool.begin(batch, deadline=self._deadline)))

    def fileno(self) -> int:
        """Return the selector's descriptor, -1 when there is nothing to wait for."""
        return -1 if self._selector is None or not self._left else _descriptor(self._selector)

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
        if not self._left:
            self._close()
        return not self._left

    def outcomes(self) -> Replies:
        """End the exchange and return a reply or an error for each request."""
        left, self._left = self._left, []
        for part in left:
            self._settle(part, heard=False)
        self._close()
        return self._replies

    def _settle(self, part: _Part, *, heard: bool = True) -> None:
        """Take the outcomes of a part; one given up before its end (not *heard*) tells nothing of the node."""
        replies = part.exchange.outcomes()
        found = verdict(replies) if heard else None
        if found is False:
            self._keeper.failed(self._table, part.member, self._now)
        elif found:
            self._keeper.succeeded(self._table, part.member, self._now)
        fill_part(self._replies, part.indices, replies)

    # --- waiting -----------------------------------------------------------------------------------------------------

    def _ready(self, now: float) -> Sequence[_Part]:
        if self._selector is None:
            self._selector = selectors.DefaultSelector()
            # Those that are connected come first, so that their requests are under way while the others are dialled.
            return sorted(self._left, key=_is_unconnected)
        if now >= self._deadline:
            return tuple(self._left)
        return [self._watched[key.fd] for key, _ in self._selector.select(0)]

    def _watch(self, part: _Part, before: int) -> None:
        # Always anew: a part that dialled again may have the same number for another socket.
        self._unwatch(before)
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if part.exchange.wants_write else 0)
        if self._selector is not None:
            descriptor = part.exchange.fileno()
            self._watched[descriptor] = part
            self._selector.register(descriptor, events)

    def _unwatch(self, descriptor: int) -> None:
        if self._selector is not None:
            with contextlib.suppress(KeyError, ValueError):  # not watched yet, or never connected
                self._selector.unregister(descriptor)
                del self._watched[descriptor]

    def _close(self) -> None:
        selector, self._selector = self._selector, None
        if selector is not None:
            selector.close()


def _is_unconnected(part: _Part) -> bool:
    return part.exchange.fileno() < 0


def _descriptor(selector: selectors.BaseSelector) -> int:
    """Return the descriptor of an epoll or kqueue selector; a platform without either is polled (-1)."""
    fileno = getattr(selector, "fileno", None)
    return -1 if fileno is None else int(fileno())
