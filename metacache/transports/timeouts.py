"""What is told of an operation that got no reply in time, and whether it says something of the node. Pure.

Knows how late an event loop was; knows neither loop nor connection.
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

__all__ = ["MAX_LATE", "advise", "failed_dial", "had_no_time", "interrupted", "late_reply", "late_request"]

# A loop that runs a timer so many seconds late was held up: what it missed it says nothing of the node for.
HELD_UP: Final = 0.05

# Bytes that are read after the deadline at most: more than the system holds of what arrived before it.
MAX_LATE: Final = 4 << 20


def failed_dial(error: Exception, late: float) -> MetacacheError:
    """Return the error of a dial that ended with *error*, *late* seconds after its deadline."""
    if not isinstance(error, MetacacheError):
        unexpected = ConnectError(f"the dial failed in an unexpected way ({type(error).__name__})")
        unexpected.__cause__ = error
        return unexpected
    if isinstance(error, ConnectError) and late > HELD_UP:
        error.is_local = True
    return error


def late_reply(late: float = 0.0) -> MetacacheError:
    """Return the error for a request whose reply is not complete; *late*: so many seconds late a loop noticed this."""
    told = "no complete reply within the deadline"
    return _held_up(OperationTimeout, told, late, "is the server or the network overloaded?")


def late_request(in_flight: int | None, late: float) -> MetacacheError:
    """Return the error for one that was not sent: *in_flight* others were, None when there is no connection."""
    if in_flight is None:
        return _held_up(ConnectError, "not connected within the deadline", late, "is the node reachable?")
    told = f"not sent within the deadline, {in_flight} requests are in flight"
    return _held_up(PoolTimeout, told, late, "raise max_in_flight, or look for what is slow")


_ADVICE: Final = " (it never answered on this connection; does this port speak TLS? use memcacheds://)"
_ADVISED: Final = (ConnectionLost, OperationTimeout)


def advise(error: BaseException, *, is_tls: bool) -> None:
    """Add advice to *error* when a new connection brought no byte: a port that speaks TLS is so silent."""
    if isinstance(error, _ADVISED) and not error.is_local and not is_tls and _ADVICE not in error.message:
        error.message += _ADVICE
        error.args = (error.message,)


def had_no_time() -> MetacacheError:
    """Return the error for one whose deadline was over when it was asked for."""
    error = OperationTimeout("the deadline passed before anything was sent; give a longer timeout")
    error.is_local = True
    return error


def interrupted() -> ConnectionLost:
    """Return the error for requests of which a signal's exception made the stream position uncertain."""
    error = ConnectionLost("the exchange was interrupted by a signal; the connection is closed")
    error.is_local = True
    return error


def _held_up(kind: type[MetacacheError], told: str, late: float, hint: str) -> MetacacheError:
    is_held_up = late > HELD_UP
    error = kind(f"{told}; {f'the event loop was held up for {late:.1f} seconds' if is_held_up else hint}")
    if isinstance(error, TransportError):
        error.is_local = is_held_up
    return error
