"""The errors that metacache raises: one class tree; each error names its node, operation and key.

A message contains no credential, no value, and no bytes of a reply that may be a value. Of the attributes, only
`BatchError.results` holds values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Self, TypeVar, final

from metacache.marks import override

__all__ = [
    "AuthenticationError",
    "BatchError",
    "BusyError",
    "ClientError",
    "ClosedError",
    "ConflictError",
    "ConnectError",
    "ConnectionLost",
    "DecodeError",
    "InvalidArgumentError",
    "InvalidKeyError",
    "InvalidKeyTypeError",
    "InvalidTypeError",
    "MetacacheError",
    "NodeDownError",
    "OperationTimeout",
    "PoolTimeout",
    "ProtocolError",
    "SerializationError",
    "SerializerConflict",
    "SerializerNotFound",
    "ServerError",
    "TransportError",
    "ValueTooLargeError",
]

_K = TypeVar("_K", bound=str | bytes)

# A message shows at most this many characters of a key. The attribute has the whole key.
_KEY_LIMIT = 80


class MetacacheError(Exception):
    """The base class of all errors of metacache.

    Attributes:
        node: the name of the server (``host:port``); None if no server was involved.
        operation: the method that was called (``"get"``); None if no method was called.
        key: the key as the caller gave it, without prefix; None if the error is not about one key.
        maybe_applied: True if a write was sent and its result is unknown: the server may have applied it.

    An error can be pickled and copied; a copy has no ``__cause__``.
    """

    def __init__(
        self,
        message: str = "",
        *,
        node: str | None = None,
        operation: str | None = None,
        key: str | bytes | None = None,
        maybe_applied: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.node = node
        self.operation = operation
        self.key = key
        self.maybe_applied = maybe_applied

    @override
    def __str__(self) -> str:
        return f"{_text(self)} (the write may have been applied)" if self.maybe_applied else _text(self)

    def locate(self, *, node: str | None = None, operation: str | None = None, key: str | bytes | None = None) -> Self:
        """Set those of node, operation and key that are still None; return the error itself."""
        self.node = self.node if self.node is not None else node
        self.operation = self.operation if self.operation is not None else operation
        self.key = self.key if self.key is not None else key
        return self


def _text(error: MetacacheError) -> str:
    """Return the text of *error* without the note on ``maybe_applied``, which stands once at the end of a message."""
    context = error.operation or ""
    if error.key is not None:
        context = f"{context} {_key_text(error.key)}".lstrip()
    if error.node is not None:
        context = f"{context} on {error.node}" if context else error.node
    return f"{context}: {error.message}" if context else error.message


def _key_text(key: str | bytes) -> str:
    return repr(key) if len(key) <= _KEY_LIMIT else f"{key[:_KEY_LIMIT]!r}… ({len(key)} long)"


class InvalidKeyError(MetacacheError, ValueError):
    """The key is empty, too long for the protocol, or cannot be encoded. Nothing was sent."""


@final
class InvalidKeyTypeError(InvalidKeyError, TypeError):
    """The key is not a str or bytes. Nothing was sent."""


class InvalidArgumentError(MetacacheError, ValueError):
    """An argument other than the key has an invalid value. Nothing was sent."""


@final
class InvalidTypeError(InvalidArgumentError, TypeError):
    """An argument other than the key has the wrong type. Nothing was sent."""


@final
class ValueTooLargeError(MetacacheError):
    """The encoded value is larger than ``Settings.max_value_size`` or the protocol allows. It was not sent."""


@final
class ConflictError(MetacacheError):
    """`update`, `append` or `prepend`: another writer was first in every attempt. The item has that writer's value."""


class SerializationError(MetacacheError):
    """The value could not be encoded. It was not sent."""


@final
class DecodeError(SerializationError):
    """The stored bytes could not be decoded to the client's type (only with ``on_undecodable="raise"``).

    The connection stays open.
    """


class SerializerNotFound(MetacacheError, LookupError):
    """There is no usable serializer plugin of that name. The message says what to install."""


@final
class SerializerConflict(SerializerNotFound):
    """Two distributions offer the same serializer name or the same wire_id. The message names both."""


@final
class ServerError(MetacacheError):
    """The server replied SERVER_ERROR: it understood the command and could not execute it.

    A store that failed because the value is too large, or for lack of memory, deletes the old value of the key.
    """


@final
class ClientError(MetacacheError):
    """The server replied CLIENT_ERROR, or refused an administrative command: the request was invalid."""


@final
class AuthenticationError(MetacacheError):
    """The server requires a user name and password, or refused the given ones. The connection is closed."""


@final
class ProtocolError(MetacacheError):
    """The reply does not match the request, or is not a valid meta reply. The connection is closed."""


class TransportError(MetacacheError, OSError):
    """Sending or receiving failed. If that closed the connection, the next operation opens another one.

    Attributes:
        is_local: True if the cause is on the client's side, so that the health of the node does not change: the
            deadline was over before the operation began, the event loop was blocked, a signal interrupted the
            operation, or this process had no file descriptor or memory left.
    """

    is_local: bool = False


@final
class ConnectError(TransportError):
    """A connection could not be opened (name, dial, TLS, deadline, server full). The request was not sent."""


@final
class ConnectionLost(TransportError):
    """The connection was lost before the reply was complete."""


@final
class OperationTimeout(TransportError, TimeoutError):
    """The reply was not complete within the operation's deadline.

    A blocking client closes the connection. An asyncio client keeps it, and drops the late reply.
    """


@final
class NodeDownError(TransportError):
    """The node is marked as down, so the operation failed immediately. Nothing was sent."""


@final
class PoolTimeout(MetacacheError, TimeoutError):
    """No connection became free within the operation's deadline. Nothing was sent."""


@final
class ClosedError(MetacacheError):
    """The client or transport is closed."""


@final
class BusyError(MetacacheError):
    """Another caller computes the value of the key: it did not end within the wait, or it is the caller itself."""


@final
class BatchError(MetacacheError):
    """Some keys of a batch failed.

    Attributes:
        results: the results of the keys that succeeded: values of `get_many`, `StoreResult` of `set_many`, …
        errors: the errors of the keys that failed. Each error has its own ``maybe_applied``.
    """

    def __init__(
        self,
        message: str = "",
        *,
        results: Mapping[_K, object] | None = None,
        errors: Mapping[_K, MetacacheError] | None = None,
        operation: str | None = None,
    ) -> None:
        self.results: dict[str | bytes, object] = dict((results or {}).items())
        self.errors: dict[str | bytes, MetacacheError] = dict((errors or {}).items())
        super().__init__(
            message or _summary(self.results, self.errors),
            operation=operation,
            # No generators here: Python turns a StopIteration of a signal handler in one into another error.
            maybe_applied=True in [error.maybe_applied for error in self.errors.values()],
        )


def _summary(results: Mapping[str | bytes, object], errors: Mapping[str | bytes, MetacacheError]) -> str:
    causes = Counter([(type(error).__name__, error.node) for error in errors.values()])
    counts = ", ".join([f"{count} {name}" + (f" at {node}" if node else "") for (name, node), count in causes.items()])
    # An iterator and not a generator: Python drops an exception of a signal handler while it closes a generator.
    first = _text(next(iter(errors.values()))) if errors else "None"
    return f"{len(errors)} of {len(errors) + len(results)} keys failed: {counts}; the first: {first}"
