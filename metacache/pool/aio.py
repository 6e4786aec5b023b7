"""`AsyncPool`: up to ``pool_size`` shared connections to one node, as one transport of one event loop.

It chooses a connection for each request. Only that event loop changes it, so it needs no lock.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial
from operator import attrgetter
from time import monotonic
from typing import TYPE_CHECKING, ClassVar, Final, Self, TypeVar, final

from metacache.copying import refuse_copy
from metacache.errors import ClosedError, ConnectError, InvalidTypeError, MetacacheError
from metacache.marks import override
from metacache.nodes import Node
from metacache.observe import Observer, reporter_of
from metacache.protocol.keys import Key
from metacache.settings import Settings, check_settings
from metacache.transports.aio.connection import AsyncConnection
from metacache.transports.counters import CloseReason, IdleTimes
from metacache.transports.limits import RETRY, Limits

if TYPE_CHECKING:
    from types import TracebackType

    from metacache.pool.statistics import PoolStatistics
    from metacache.protocol.windows import Replies
    from metacache.transports.base import Batch, Operation

__all__ = ["AsyncPool"]

R = TypeVar("R")
DEFAULTS: Final = Settings()

# Requests with more bytes than this go to a connection of their own, so that small requests need not wait for them.
LARGE: Final = 65536

_load_of = attrgetter("load")


def _ignore(_: MetacacheError) -> None:
    pass


@final
class AsyncPool:
    """Up to ``pool_size`` connections to one node, each shared by many tasks of one event loop.

    The pool opens a further connection when each open one has ``max_pipeline`` requests in flight: sent, and without
    a reply. When the pool may open no more, the connection with the fewest requests takes the next one. Requests of one
    event loop iteration leave in one write, up to 256 of them and 64 KiB.

    In a pool of several, one connection is reserved for large requests, which send more than 64 KiB. So a large write
    delays no small request. While that connection cannot be dialled, large requests use the others. The size of a reply
    is not known beforehand: a large one delays the replies behind it on its connection, and new requests go to
    connections with fewer requests.

    Args:
        node: the server.
        settings: sizes, limits, timeouts, TLS, credentials.
        observer: is called with the events of requests and connections; see `Observer`.
        on_failure: called once for each failed dial and each connection that broke.

    Raises InvalidTypeError for wrong arguments.
    """

    RETURNS_ANSWERS: ClassVar = True  # see `returns_answers`

    __reduce_ex__ = refuse_copy
    __slots__ = (
        "__weakref__",
        "_closed",
        "_connections",
        "_current",
        "_failed_at",
        "_for_large",
        "_is_limited",
        "_limits",
        "_make",
        "_max_pipeline",
        "_review_at",
        "_settings",
        "node",
        "observer",
    )

    def __init__(
        self,
        node: Node,
        *,
        settings: Settings = DEFAULTS,
        observer: Observer | None = None,
        on_failure: Callable[[MetacacheError], object] = _ignore,
    ) -> None:
        if not isinstance(node, Node):
            raise InvalidTypeError(f"a pool takes a Node, not {type(node).__name__}")
        check_settings(settings)
        self.node = node
        # A client of this transport has the same observer.
        self.observer = reporter_of(observer)
        self._make = partial(AsyncConnection, node, settings=settings, observer=self.observer, on_failure=on_failure)
        self._settings = settings
        # A single connection takes every request, so its limit must never make `run` choose again.
        self._max_pipeline = settings.max_pipeline if settings.pool_size > 1 else settings.max_in_flight
        self._limits = Limits.of(settings, spare=1 if settings.pool_size > 1 else 0)
        self._review_at = self._limits.next_review(monotonic())
        self._is_limited = self._review_at != math.inf
        self._connections: list[AsyncConnection] = []
        self._for_large: AsyncConnection | None = None
        self._current: AsyncConnection | None = None
        self._failed_at = -math.inf
        self._closed = False

    @override
    def __repr__(self) -> str:
        if self._closed:
            return f"<AsyncPool {self.node.name}: closed>"
        known = self.statistics
        return f"<AsyncPool {self.node.name}: {known.in_use} busy, {known.idle} idle, {known.waiting} waiting>"

    @property
    def statistics(self) -> PoolStatistics:
        """Return a snapshot of the connections, the callers and the counts."""
        from metacache.pool.statistics import PoolStatistics  # late: few programs ask for it

        connections, now = self._all(), monotonic()
        return PoolStatistics(
            size=self._settings.pool_size,
            in_use=sum(connection.load > 0 for connection in connections),
            idle=sum(connection.idle_times is not None for connection in connections),
            waiting=sum(connection.waiting for connection in connections),
            created=sum(connection.counts.dialled for connection in connections),
            discarded={cause: sum(each.counts.discarded[cause] for each in connections) for cause in CloseReason},
            waits=sum(connection.waits.count for connection in connections),
            wait_seconds=sum(connection.waits.seconds(now) for connection in connections),
        )

    def _all(self) -> list[AsyncConnection]:
        return self._connections if self._for_large is None else [*self._connections, self._for_large]

    # --- the transport -----------------------------------------------------------------------------------------------

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> Awaitable[R]:
        """Send *op* on a chosen connection, wait for its reply and return ``op.read(reply)``.

        *deadline*: a ``time.monotonic()`` time; None: ``Settings.timeout`` from now. Raises ClosedError, and what
        `AsyncConnection.run` raises.
        """
        connection = self._current
        is_large = op.body is not None and len(op.body) > LARGE
        if connection is None or connection.in_flight >= self._max_pipeline or is_large or self._is_limited:
            connection = self._choose(op.verb.name, op.given, is_large=is_large)
        return connection.run(op, deadline=deadline)

    def run_batch(self, batch: Batch, /, *, deadline: float) -> Awaitable[Replies]:
        """Send *batch* on one connection, wait for its replies and return a reply or an error for each request.

        *deadline* as in `run`; ``math.inf``: ``Settings.timeout`` from now. Raises ClosedError and ValueTooLargeError
        before a byte is sent. Every other failure is in the replies.
        """
        is_large = batch.bodies is not None and sum(map(len, batch.bodies)) > LARGE
        return self._choose(batch.verb.name, None, is_large=is_large).run_batch(batch, deadline=deadline)

    async def aclose(self) -> None:
        """Close: running requests finish, new ones are refused with ClosedError. Idempotent."""
        self._closed = True
        self._current = None
        for connection in self._all():  # one after the other; meanwhile, requests on the others continue
            await connection.aclose()

    def drop(self) -> None:
        """Close without waiting. Call it in a callback of its loop, or when the loop does not run."""
        self._closed = True
        self._current = None
        for connection in self._all():
            connection.drop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self.aclose()

    # --- choosing ----------------------------------------------------------------------------------------------------

    def _choose(self, operation: str, key: Key | None, *, is_large: bool) -> AsyncConnection:
        if self._closed:
            raise ClosedError("the pool was closed", node=self.node.name, operation=operation, key=key)
        if self._is_limited:
            self._reap()
        if is_large and self._settings.pool_size > 1:
            if self._for_large is None:
                self._for_large = self._new()
            if monotonic() >= self._for_large.failed_at + RETRY:
                return self._for_large
        self._current = self._least_loaded()
        return self._current

    def _least_loaded(self) -> AsyncConnection:
        connections = self._connections
        now = monotonic()
        failed = [each for each in connections if now < each.failed_at + RETRY]
        # The first one with room, in the order of opening. So connections opened for a load peak become idle after it.
        for connection in connections:
            if connection.in_flight < self._max_pipeline and connection not in failed:
                return connection
        if failed:  # the node accepts no further connection, or none at all
            return min((each for each in connections if each not in failed), key=_load_of, default=failed[0])
        if self._limits.may_open(len(connections)):
            connections.append(self._new())
            return connections[-1]
        return min(connections, key=_load_of)

    def _new(self) -> AsyncConnection:
        connection = self._make()
        connection.on_dial_failed = self._note_failed_dial
        return connection

    def _note_failed_dial(self, error: MetacacheError, began: float) -> None:
        self._current = None
        if isinstance(error, ConnectError) and not error.is_local:
            # Several connections may dial a full or dead server at the same time. All fail, and the node is charged
            # only once.
            error.is_local = began < self._failed_at
            self._failed_at = monotonic()

    def _reap(self) -> None:
        now = monotonic()
        if now < self._review_at:
            return
        self._review_at = self._limits.next_review(now)
        idle = [(connection, times) for connection in self._all() if (times := connection.idle_times) is not None]
        idle.sort(key=_last_use)
        for index, cause in self._limits.to_close([times for _, times in idle], now).items():
            idle[index][0].discard(cause)


def _last_use(idle: tuple[AsyncConnection, IdleTimes]) -> float:
    return idle[1].used
