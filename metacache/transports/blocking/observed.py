"""The observed forms of what a `Lending` and its streams call. Reads the clock; the exchanges send and receive."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Protocol, TypeVar

from metacache.transports.blocking.exchange import StreamExchange
from metacache.transports.observed import KEEP_REPLY, Exchanges

if TYPE_CHECKING:
    from metacache.errors import MetacacheError
    from metacache.protocol.windows import Replies
    from metacache.transports.base import Batch, Operation
    from metacache.transports.blocking.exchange import NonBlockingStream

__all__ = ["MakeExchange", "Run", "observed_exchange", "observed_run"]

R = TypeVar("R")


class Run(Protocol):
    """`Transport.run`."""

    def __call__(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        """Run *op*."""
        ...


class MakeExchange(Protocol):
    """Starts a batch on a stream: `StreamExchange`, or the same with an observer."""

    def __call__(
        self,
        batch: Batch,
        stream: NonBlockingStream,
        release: Callable[[Replies], object],
        *,
        node: str,
        deadline: float,
    ) -> StreamExchange:
        """Return the exchange. It calls *release* at its end."""
        ...


def observed_run(run: Run, exchanges: Exchanges) -> Run:
    """Return a function like *run* that reports each request when its reply has arrived, before the reply is read."""
    answered = exchanges.answered

    def observed(op: Operation[R], /, *, deadline: float | None = None) -> R:
        read = op.read
        op.read = KEEP_REPLY
        began = monotonic()
        try:
            reply = run(op, deadline=deadline)
        except BaseException as error:
            op.read = read  # a cluster may run it on another node
            exchanges.failed(op, error, began, monotonic())
            raise
        ended = monotonic()
        op.read = read
        if read is KEEP_REPLY:  # then R is Answer
            return reply, exchanges, began, ended  # type: ignore[return-value]  # pyright: ignore[reportReturnType]
        # `KEEP_REPLY` makes it the reply.
        answered(op, reply, began, ended)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        try:
            return read(reply)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # as above
        except BaseException as error:
            exchanges.unreadable(op, error)
            raise

    return observed


def observed_exchange(exchanges: Exchanges) -> MakeExchange:
    """Return a function that makes exchanges which report their end, and a second attempt."""

    def make(
        batch: Batch,
        stream: NonBlockingStream,
        release: Callable[[Replies], object],
        *,
        node: str,
        deadline: float,
    ) -> StreamExchange:
        began = monotonic()

        def released(replies: Replies) -> None:
            release(replies)  # first: an exception of a signal handler in the observer must not keep the stream
            exchanges.batch_done(batch, replies, began, monotonic())

        def retried(error: MetacacheError) -> None:
            exchanges.retried(batch.verb.name, error)

        return StreamExchange(batch, stream, released, node=node, deadline=deadline, on_retry=retried)

    return make
