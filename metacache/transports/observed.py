"""Builds the `Exchanged` events of one node for both kinds of transport. Opens no socket and reads no clock.

A transport that has an observer is given other functions when it is made. Without an observer, nothing here runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from metacache.errors import ClosedError, ConnectError, MetacacheError, PoolTimeout, ValueTooLargeError
from metacache.interrupts import clear_frames, is_own
from metacache.observe import Dialled, Exchanged, Reporter, Retried, Waited, new_event

if TYPE_CHECKING:
    from metacache.nodes import Node
    from metacache.protocol.replies import Reply
    from metacache.protocol.windows import Replies
    from metacache.transports.base import Batch, Operation

__all__ = ["KEEP_REPLY", "Answer", "Exchanges", "returns_answers"]

Answer: TypeAlias = "tuple[Reply, Exchanges, float, float]"
"""A reply, what reports the exchanges of its node, and the ``time.monotonic()`` times of the request and of the reply.

An observed transport of this package returns it for an operation whose ``read`` is `KEEP_REPLY`, and leaves the event
of the exchange to its caller. So a client makes both events in one function, and reads the clock less often.
"""

CRLF: Final = 2  # bytes

# As ``Operation.read``: the transport returns the reply itself. `tuple` of a tuple is that tuple, without a copy.
KEEP_REPLY: Final[Callable[[Any], Any]] = tuple  # Any: it stands in for the reader of any result

# These raise before a connection is used, so there was no exchange. A `Waited` event reports a full pool.
_BEFORE: Final = (PoolTimeout, ClosedError, ValueTooLargeError)
_MISS: Final = b"EN"


def returns_answers(transport: object) -> bool:
    """Return whether *transport* returns an `Answer` for `KEEP_REPLY`.

    It asks the class of *transport*: an object that forwards unknown attributes to a transport is a wrapper of a user,
    which may look at results.
    """
    return getattr(type(transport), "RETURNS_ANSWERS", False) and getattr(transport, "observer", None) is not None


@final
class Exchanges:
    """Reports what happens on the connections to one node."""

    __slots__ = ("exchanged", "node", "reporter")

    def __init__(self, node: Node, reporter: Reporter) -> None:
        self.node = node
        self.reporter = reporter
        self.exchanged = reporter.observer.exchanged

    # --- requests ----------------------------------------------------------------------------------------------------

    def answered(self, op: Operation[Any], reply: Reply, began: float, ended: float) -> None:  # Any: any result
        """Report that *op* got *reply*."""
        tokens, data = reply
        verb = op.verb
        body = op.body
        sent = len(op.head) + 2 if body is None else len(op.head) + len(body) + 4
        received = len(b" ".join(tokens)) + 2
        if data is not None:
            received += len(data) + 2
        hits = 1 if _MISS in verb.command.codes and tokens[0] != _MISS else 0
        if hits and data == b"" and is_placeholder(tokens):
            hits = 0
        try:
            self.exchanged(
                new_event(Exchanged, (verb.name, self.node, began, ended - began, sent, received, 1, hits, None))
            )
        except Exception as error:
            self.reporter.failed(error)

    def failed(self, op: Operation[Any], error: BaseException, began: float, ended: float) -> None:  # Any: as above
        """Report that *error* ended *op*."""
        if isinstance(error, _BEFORE):
            return
        sent = 0 if isinstance(error, ConnectError) else len(op.head) + CRLF
        if sent and op.body is not None:
            sent += len(op.body) + CRLF
        self.reporter.exchanged(
            Exchanged(op.verb.name, self.node, began, ended - began, sent, 0, 1, 0, type(error)),
        )

    def unreadable(self, op: Operation[Any], error: BaseException) -> None:  # Any: as above
        """Treat *error* of ``op.read`` as a transport does: add node, operation and key, and clear its frames."""
        if isinstance(error, MetacacheError) and is_own(error):
            error.locate(node=self.node.name, operation=op.verb.name, key=op.given)
        clear_frames(error)

    def batch_done(self, batch: Batch, replies: Replies, began: float, ended: float) -> None:
        """Report that *batch*, all of it on this node, got *replies*."""
        error = next(map(type, replies.errors.values()), None)
        is_sent = not replies.errors or not all(isinstance(each, ConnectError) for each in replies.errors.values())
        answered = len(replies.headers) - replies.headers.count(b"")
        sent = sum(map(len, batch.heads)) + CRLF * len(batch)
        if batch.bodies is not None:
            sent += sum(map(len, batch.bodies)) + CRLF * len(batch)
        blocks = [block for block in replies.values if block is not None]
        received = sum(map(len, replies.headers)) + sum(map(len, blocks)) + CRLF * (answered + len(blocks))
        is_reading = _MISS in batch.verb.command.codes
        hits = answered - replies.headers.count(_MISS) if is_reading else 0
        if hits and b"" in replies.values:
            empty = [header for header, block in zip(replies.headers, replies.values, strict=True) if block == b""]
            hits -= len([header for header in empty if is_placeholder(header.split(b" "))])
        event = Exchanged(
            batch.verb.name,
            self.node,
            began,
            ended - began,
            sent if is_sent else 0,
            received,
            len(batch),
            hits,
            error,
        )
        self.reporter.exchanged(event)

    def batch_failed(self, batch: Batch, error: BaseException, began: float, ended: float) -> None:
        """Report that *error*, such as a cancel, ended *batch* without replies."""
        if isinstance(error, _BEFORE):
            return
        seconds = ended - began
        self.reporter.exchanged(
            Exchanged(batch.verb.name, self.node, began, seconds, 0, 0, len(batch), 0, type(error)),
        )

    # --- connections -------------------------------------------------------------------------------------------------

    def dialled(self, began: float, ended: float, error: BaseException | None) -> None:
        """Report one attempt to open a connection."""
        kind = None if error is None else type(error)
        self.reporter.happened(Dialled(self.node, began, ended - began, kind))

    def waited(self, began: float, ended: float, *, is_served: bool) -> None:
        """Report one wait for a connection."""
        self.reporter.happened(Waited(self.node, began, ended - began, is_served))

    def retried(self, verb: str, error: BaseException) -> None:
        """Report that a request is sent again after *error*."""
        self.reporter.happened(Retried(verb, self.node, type(error)))


def is_placeholder(tokens: list[bytes]) -> bool:
    """Return whether the reply to a read with these *tokens* and an empty value shows a lease placeholder."""
    return b"f0" in tokens and (b"W" in tokens or b"Z" in tokens)
