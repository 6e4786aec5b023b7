"""The errors of operations and dials that did not finish in time, and whether the node is to blame (``is_local``).

Both kinds of connection use them. Callers pass how late an event loop was; this module reads no clock.
"""

from __future__ import annotations

from typing import Final

from metacache.errors import (
    ConnectError,
    ConnectionLost,
    MetacacheError,
    OperationTimeout,
    PoolTimeout,
    TransportError,
)
from metacache.nodes import Node

__all__ = [
    "MAX_LATE",
    "add_tls_hint",
    "authentication_unanswered",
    "deadline_passed",
    "interrupted",
    "late_reply",
    "late_request",
    "typed_dial_error",
]

# An event loop that runs a timer this many seconds late was blocked. Then a timeout is not the fault of the node.
BLOCKED: Final = 0.05

# At most this many bytes are read after the deadline. It is more than the system's buffers hold, so everything that
# arrived before the deadline is read.
MAX_LATE: Final = 4 << 20


def typed_dial_error(error: Exception, late: float) -> MetacacheError:
    """Return the MetacacheError for a dial that ended with *error*, *late* seconds after its deadline."""
    if not isinstance(error, MetacacheError):
        unexpected = ConnectError(f"the dial failed in an unexpected way ({type(error).__name__})")
        unexpected.__cause__ = error
        return unexpected
    if isinstance(error, ConnectError) and late > BLOCKED:
        error.is_local = True
    return error


def late_reply(late: float = 0.0) -> MetacacheError:
    """Return the error for a request whose reply is incomplete at its deadline.

    *late*: how many seconds after the deadline an event loop noticed it.
    """
    what = "no complete reply within the deadline"
    return _timeout(OperationTimeout, what, late, "is the server or the network overloaded?")


def late_request(in_flight: int | None, late: float) -> MetacacheError:
    """Return the error for a request that was not sent before its deadline.

    *in_flight*: how many requests were in flight; None when there was no connection. *late* as in `late_reply`.
    """
    if in_flight is None:
        return _timeout(ConnectError, "not connected within the deadline", late, "is the node reachable?")
    what = f"not sent within the deadline, {in_flight} requests are in flight"
    return _timeout(PoolTimeout, what, late, "raise max_in_flight, or look for slow requests")


_TLS_HINT: Final = " (it never answered on this connection; does this port speak TLS? use memcacheds://)"


def add_tls_hint(error: BaseException, *, is_tls: bool) -> None:
    """Add a hint to *error* of a new connection that received no byte: a TLS port sends nothing to a plain client."""
    if is_tls or not isinstance(error, ConnectionLost | OperationTimeout):
        return
    if not error.is_local and _TLS_HINT not in error.message:
        error.message += _TLS_HINT
        error.args = (error.message,)


def authentication_unanswered(failure: MetacacheError, node: Node) -> ConnectError:
    """Return the error for a connection whose authentication ended with *failure* instead of an answer."""
    why = f"connected, but the server did not answer the authentication: {failure.message}"
    return ConnectError(why, node=node.name)


def deadline_passed() -> MetacacheError:
    """Return the error for a request whose deadline had passed when the caller made it."""
    error = OperationTimeout("the deadline passed before anything was sent; give a longer timeout")
    error.is_local = True
    return error


def interrupted() -> ConnectionLost:
    """Return the error for requests on a connection whose position a signal's exception made uncertain."""
    error = ConnectionLost("the exchange was interrupted by a signal; the connection is closed")
    error.is_local = True
    return error


def _timeout(kind: type[MetacacheError], what: str, late: float, hint: str) -> MetacacheError:
    is_blocked = late > BLOCKED
    error = kind(f"{what}; {f'the event loop was blocked for {late:.1f} seconds' if is_blocked else hint}")
    if isinstance(error, TransportError):
        error.is_local = is_blocked
    return error
