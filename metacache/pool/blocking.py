"""`Pool`: many connections to one node as one transport, lent to one thread at a time.

Lends, waits and discards; moves no bytes. What to do is decided in `state`, this does it: connections are dialled and
closed outside of any lock, by the thread that needs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final, Self, TypeVar, final

from typing_extensions import override

from metacache.copying import refuse_copy
from metacache.errors import ClosedError, ConnectError, InvalidTypeError, OperationTimeout, PoolTimeout
from metacache.interrupts import clear_frames, is_own
from metacache.nodes import Node
from metacache.pool.state import Decision, Limits, Open, PoolStatistics, Refuse, Wait
from metacache.protocol.keys import Key
from metacache.settings import Settings, check_settings
from metacache.transports.blocking.checkout import Checkout, IdleStack, Waiter, Waker
from metacache.transports.blocking.connection import Connection
from metacache.transports.blocking.exchange import FailedExchange
from metacache.transports.counters import CountRegistry
from metacache.transports.forking import forget_in_children

if TYPE_CHECKING:
    from types import TracebackType

    from metacache.protocol.windows import Replies
    from metacache.transports.base import Batch, Exchange, Operation

__all__ = ["Pool"]

R = TypeVar("R")
DEFAULTS: Final = Settings()


@final
class Pool:
    """Up to ``pool_size`` connections to one node. Any number of threads may share it; each has a connection to itself.

    The connection used last is used next. When all are in use callers wait, in order, until their deadline or for
    ``pool_wait`` seconds. A connection that the server closed meanwhile is dialled anew within the same call.

    Args:
        source: the node, or what makes the connections, without waiting; one made in vain is dropped.
        settings: sizes and limits; with a node also what its connections keep to.
    """

    __reduce_ex__ = refuse_copy
    __slots__ = (
        "__weakref__",
        "_failed_at",
        "_idle",
        "_is_limited",
        "_ledger",
        "_lender",
        "_limits",
        "_make",
        "_name",
        "_round_at",
        "_settings",
        "_wait_seconds",
        "_waiters",
        "_waits",
    )

    def __init__(self, source: Node | Callable[[], Connection], *, settings: Settings = DEFAULTS) -> None:
        if not isinstance(source, Node) and not callable(source):
            raise InvalidTypeError(f"a pool is made of a Node or a function, not {type(source).__name__}")
        check_settings(settings)
        self._name: str | None = None
        self._make: Callable[[], Connection] = source if callable(source) else self._of(source, settings)
        self._settings = settings
        self._limits = Limits.of(settings)
        self._round_at = self._limits.next_round(monotonic())
        self._is_limited = self._round_at != math.inf
        self._ledger = CountRegistry()
        self._waits = 0
        self._wait_seconds = 0.0
        self._failed_at = -math.inf
        self._lender: Checkout[Connection] = Checkout(self._new, settings.pool_size, may_make=self._may_open)
        self._refer()
        forget_in_children(self)

    def _of(self, node: Node, settings: Settings) -> Callable[[], Connection]:
        self._name = node.name
        return partial(Connection, node, settings=settings)

    def _refer(self) -> None:
        self._idle = self._lender.shelf
        self._waiters = self._lender.waiters

    def _new(self) -> Connection:
        connection = self._make()
        self._name = connection.node.name
        self._ledger.enter(connection, connection.tally)
        return connection

    @override
    def __repr__(self) -> str:
        if self._lender.is_closed:
            return f"<Pool {self._name}: closed>"
        known = self.statistics
        return f"<Pool {self._name}: {known.in_use} busy, {known.idle} idle, {known.waiting} waiting>"

    @property
    def statistics(self) -> PoolStatistics:
        """What it has done and how it stands, as a frozen value."""
        idle, in_use = self._lender.standing()
        total = self._ledger.total()
        return PoolStatistics(
            size=self._settings.pool_size,
            in_use=in_use,
            idle=sum(connection.age is not None for connection in idle),
            waiting=self._lender.waiting,
            created=total.dialled,
            discarded=total.discarded,
            waits=self._waits,
            wait_seconds=self._wait_seconds,
        )

    # --- the transport -----------------------------------------------------------------------------------------------

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        """Send *op* on a connection that is free, wait for its reply and return what ``op.read`` makes of it.

        *deadline*: a ``time.monotonic()`` time; None: ``Settings.timeout`` from now. Raises ClosedError, PoolTimeout
        when no connection became free in time, and what `Connection.run` raises.
        """
        connection: Connection | None
        began = handed_at = 0.0
        try:
            try:
                connection = self._idle.pop()
            except IndexError as error:
                if not is_own(error):
                    raise
                began = monotonic()
                deadline = began + self._settings.timeout if deadline is None else deadline
                connection, handed_at = self._wait(deadline, op.verb.name, op.given)
            shelf: IdleStack[Connection] | None = None
            try:
                result = connection.run(op, deadline=deadline)
            except BaseException as error:
                shelf = self._shelf_after(error, connection, began, handed_at)
                raise
            finally:
                # Calls of C code only until it is back: no exception of a signal handler comes in between.
                (self._idle if shelf is None else shelf).append(connection)
                if self._waiters:
                    self._lender.serve()
            if self._is_limited:
                self._look_round()
            return result
        except BaseException as error:
            connection = None  # first, without a call: a caller may keep the error, and with it this frame
            clear_frames(error)
            raise

    def _shelf_after(
        self, error: BaseException, connection: Connection, began: float, handed_at: float
    ) -> IdleStack[Connection]:
        """Return where to put *connection*, for which a caller waited from *began* on, after it raised *error*."""
        if isinstance(error, ConnectError) and is_own(error):
            self._note_failed_dial(error, connection)
            return self._lender.shelf_of_failed()
        if isinstance(error, OperationTimeout) and is_own(error) and handed_at - began > monotonic() - handed_at:
            error.is_local = True  # the wait for the connection took more than half of the time
        return self._lender.shelf

    def _note_failed_dial(self, error: ConnectError, connection: Connection) -> None:
        if error.is_local:
            return
        # Threads that dial a full server, or one that went away, at the same time all fail: that is one event.
        error.is_local = connection.dialled < self._failed_at
        self._failed_at = monotonic()

    def begin(self, batch: Batch, /, *, deadline: float) -> Exchange:
        """Start *batch* on a connection that is free; it is in use until the exchange ends.

        *deadline* as in `run`; ``math.inf``: ``Settings.timeout`` from now. Raises ClosedError and ValueTooLargeError;
        all else that goes wrong is in the outcomes.
        """
        deadline = monotonic() + self._settings.timeout if deadline == math.inf else deadline
        try:
            connection = self._idle.pop()
        except IndexError as error:
            if not is_own(error):
                raise
            try:
                connection, _ = self._wait(deadline, batch.verb.name, None)
            except PoolTimeout as full:
                if not is_own(full):
                    raise
                return FailedExchange(batch, full)
        return self._start(connection, batch, deadline)

    def _start(self, connection: Connection, batch: Batch, deadline: float) -> Exchange:
        try:
            exchange = connection.begin_lent(batch, deadline, partial(self._take_back, connection))
        except BaseException:
            self._put_back(connection)
            raise
        if isinstance(exchange, FailedExchange):
            self._take_back(connection, exchange.outcomes())
        return exchange

    def _take_back(self, connection: Connection, replies: Replies) -> None:
        """Take back the *connection* on which a batch ended with *replies*."""
        self._put_back(connection, _failed_dial(replies) if replies.errors else None)

    # --- a batch that also waits for other pools ---------------------------------------------------------------------

    def try_begin(self, batch: Batch, waiter: Waiter[Connection] | None, *, deadline: float) -> Exchange | None:
        """Start *batch* if a connection is free, or was handed to *waiter*; else return None. Raises ClosedError."""
        if self._lender.is_closed:
            raise self._refusal(batch.verb.name, None)
        connection = self._lender.look() if waiter is None else self._lender.collect(waiter)
        return None if connection is None else self._start(connection, batch, deadline)

    def join(self, bell: Waker) -> Waiter[Connection]:
        """Stand in line for a connection; *bell* is rung when there is one."""
        self._waits += 1
        return self._lender.join(bell)

    def leave(self, waiter: Waiter[Connection]) -> None:
        """Leave the line."""
        self._lender.leave(waiter)
        self._count_wait(waiter.began)

    def wait_until(self, now: float, deadline: float) -> float:
        """Return when who comes at *now* stops waiting for a connection."""
        return self._limits.wait_until(now, deadline)

    def failed(self, batch: Batch) -> FailedExchange:
        """Return *batch* as it ends when no connection comes free in time: PoolTimeout for each request."""
        return FailedExchange(batch, self._full(batch.verb.name, None))

    def closed(self, batch: Batch) -> FailedExchange:
        """Return *batch* as it ends when the pool is closed: ClosedError for each request."""
        return FailedExchange(batch, self._refusal(batch.verb.name, None))

    def close(self) -> None:
        """Close. What runs is let finish, what waits or comes is refused with ClosedError. Closing twice is nothing."""
        self._lender.close()
        self._refer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    # --- lending -----------------------------------------------------------------------------------------------------

    def _put_back(self, connection: Connection, failure: ConnectError | None = None) -> None:
        """Take back a *connection*, which could not be dialled if there is a *failure*."""
        shelf = self._lender.shelf
        if failure is not None:
            self._note_failed_dial(failure, connection)
            shelf = self._lender.shelf_of_failed()
        shelf.append(connection)
        if self._waiters:
            self._lender.serve()
        if self._is_limited:
            self._look_round()

    def _checkout(self, now: float, until: float) -> Decision:
        return self._limits.checkout(
            opened=self._lender.opened,
            now=now,
            until=until,
            # No generator: Python turns a StopIteration of a signal handler in one into another error.
            connected=sum([connection.is_connected for connection in self._lender.all()]),
            failed_at=self._failed_at,
        )

    def _may_open(self) -> bool:
        now = monotonic()
        return isinstance(self._checkout(now, now), Open)

    def _wait(self, deadline: float, operation: str, key: Key | None) -> tuple[Connection, float]:
        """Return a connection when there is one, and the time then. Raises ClosedError and PoolTimeout."""
        began = monotonic()
        until = self._limits.wait_until(began, deadline)
        waited = False
        try:
            while not self._lender.is_closed:
                now = monotonic()
                decision = self._checkout(now, until)
                if isinstance(decision, Refuse):
                    raise self._full(operation, key)
                waited = waited or isinstance(decision, Wait)
                connection = self._lender.take(decision.until if isinstance(decision, Wait) else now)
                if connection is not None:
                    return connection, monotonic()
            raise self._refusal(operation, key)
        finally:
            if waited:
                self._waits += 1
                self._count_wait(began)

    def _count_wait(self, began: float) -> None:
        # Python switches threads after calls only: none stands between reading the sum and writing it.
        waited = monotonic() - began
        self._wait_seconds += waited

    def _refusal(self, operation: str, key: Key | None) -> ClosedError:
        return ClosedError("the pool was closed", node=self._name, operation=operation, key=key)

    def _full(self, operation: str, key: Key | None) -> PoolTimeout:
        told = f"all {self._settings.pool_size} connections stayed in use; raise pool_size, or look for what is slow"
        if self._lender.opened < self._settings.pool_size:
            told = "all connections stayed in use, and no further one could be made; has the server free ones (-c)?"
        return PoolTimeout(told, node=self._name, operation=operation, key=key)

    def _look_round(self) -> None:
        if monotonic() >= self._round_at:
            self.reap()

    def reap(self) -> None:
        """Close connections that are idle or open for too long; done from time to time as the pool is used."""
        now = monotonic()
        self._round_at = self._limits.next_round(now)
        # One that is taken while this looks is in use and so not idle: it stays.
        dated = [(connection, age) for connection in tuple(self._idle) if (age := connection.age) is not None]
        for index, cause in self._limits.discard([age for _, age in dated], now).items():
            dated[index][0].discard(cause)

    def reset_after_fork(self) -> None:
        """In a forked child: forget what is lent to threads of the parent, and locks that nobody will release."""
        self._lender.reset()
        self._refer()


def _failed_dial(replies: Replies) -> ConnectError | None:
    """Return why there was no connection, if so."""
    return next((error for error in replies.errors.values() if isinstance(error, ConnectError)), None)
