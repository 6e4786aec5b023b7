"""Every error metacache raises: one tree, each naming node, operation and key.

Knows nothing of sockets, protocol or serializers. Never holds a value, a credential, or the bytes of a reply
that may be a value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Self, TypeVar, final

from typing_extensions import override

__all__ = [
    "AuthenticationError",
    "BatchError",
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

# A key in a message is cut after this many characters; the attribute keeps the whole of it.
_KEY_SHOWN = 80


class MetacacheError(Exception):
    """The root of every error raised here.

    Attributes:
        node: name of the server the operation went to (``host:port``), None when none was involved.
        operation: the verb that was called (``"get"``), None outside a verb.
        key: the key as the caller gave it, without prefix; None when no single key is meant.
        maybe_applied: True when a write was sent and its outcome is unknown: the server may have applied it.

    Survives ``pickle`` and ``copy``; ``__cause__`` is not carried along.
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
        return f"{_said(self)} (the write may have been applied)" if self.maybe_applied else _said(self)

    def locate(self, *, node: str | None = None, operation: str | None = None, key: str | bytes | None = None) -> Self:
        """Fill in what is not known yet of node, operation and key; return self."""
        self.node = self.node if self.node is not None else node
        self.operation = self.operation if self.operation is not None else operation
        self.key = self.key if self.key is not None else key
        return self


def _said(error: MetacacheError) -> str:
    """Return the text of *error* but for its note about a write, which stands once, at the end of a whole message."""
    what = error.operation or ""
    if error.key is not None:
        what = f"{what} {_shown(error.key)}".lstrip()
    if error.node is not None:
        what = f"{what} on {error.node}" if what else error.node
    return f"{what}: {error.message}" if what else error.message


def _shown(key: str | bytes) -> str:
    return repr(key) if len(key) <= _KEY_SHOWN else f"{key[:_KEY_SHOWN]!r}… ({len(key)} long)"


class InvalidKeyError(MetacacheError, ValueError):
    """The key cannot travel: empty, too long for the wire, or not encodable. Nothing was sent."""


@final
class InvalidKeyTypeError(InvalidKeyError, TypeError):
    """The key is neither str nor bytes. Nothing was sent."""


class InvalidArgumentError(MetacacheError, ValueError):
    """An argument other than the key is out of its range. Nothing was sent."""


@final
class InvalidTypeError(InvalidArgumentError, TypeError):
    """An argument other than the key has the wrong type. Nothing was sent."""


@final
class ValueTooLargeError(MetacacheError):
    """The encoded value is larger than ``Settings.max_value_size`` or the protocol allows. Nothing was sent."""


@final
class ConflictError(MetacacheError):
    """`update`, `append` or `prepend` lost its race in every attempt. The item holds another writer's value."""


class SerializationError(MetacacheError):
    """The value could not be turned into bytes. Nothing was sent."""


@final
class DecodeError(SerializationError):
    """The stored bytes are not a value of the client's type (only with ``on_undecodable="raise"``).

    The connection is untouched: the fault lies above the wire.
    """


class SerializerNotFound(MetacacheError, LookupError):
    """No serializer plugin of that name can be used; the message says what to install."""


@final
class SerializerConflict(SerializerNotFound):
    """Two distributions claim the same serializer name or the same wire_id; the message names both."""


@final
class ServerError(MetacacheError):
    """The server answered SERVER_ERROR: it understood the command and could not do it.

    A value that is too large, or that found no memory, leaves the key without its old value.
    """


@final
class ClientError(MetacacheError):
    """The server answered CLIENT_ERROR (or refused an admin line): the request was not acceptable to it."""


@final
class AuthenticationError(MetacacheError):
    """The server wants a user and password, or refused the ones given. The connection is closed."""


@final
class ProtocolError(MetacacheError):
    """The reply cannot belong to the request, or is no meta reply at all. The connection is closed."""


class TransportError(MetacacheError, OSError):
    """Bytes could not be moved. A connection that this closed is dialled anew by the next operation.

    Attributes:
        is_local: True when the cause lies on this side (the caller's time was used up before anything was tried, this
            process had no descriptor or memory left, its event loop was held up, or a signal struck): it says nothing
            of the node, whose health stays as it is.
    """

    is_local: bool = False


@final
class ConnectError(TransportError):
    """No connection could be made (name, dial, TLS, deadline, server full). Nothing was sent."""


@final
class ConnectionLost(TransportError):
    """The connection broke before the reply was complete."""


@final
class OperationTimeout(TransportError, TimeoutError):
    """The reply was not complete within the operation's deadline.

    The connection is closed; under an event loop it lives on, and the late reply is dropped.
    """


@final
class NodeDownError(TransportError):
    """The node is marked down and the operation was failed fast. Nothing was sent."""


@final
class PoolTimeout(MetacacheError, TimeoutError):
    """No connection became free within the operation's deadline. Nothing was sent."""


@final
class ClosedError(MetacacheError):
    """The client or transport was closed before. Nothing was sent."""


@final
class BusyError(MetacacheError):
    """Another caller computes the value of the key: it did not end within the wait, or it is the caller itself."""


@final
class BatchError(MetacacheError):
    """Some keys of a batch failed.

    Attributes:
        results: what succeeded, by the caller's key: values of `get_many`, `StoreResult` of `set_many`, …
        errors: what failed, by the caller's key; each error says for itself whether a write may have been applied.
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
            maybe_applied=any(error.maybe_applied for error in self.errors.values()),
        )


def _summary(results: Mapping[str | bytes, object], errors: Mapping[str | bytes, MetacacheError]) -> str:
    causes = Counter((type(error).__name__, error.node) for error in errors.values())
    counts = ", ".join(f"{count} {name}" + (f" at {node}" if node else "") for (name, node), count in causes.items())
    # No generator that is left half-way: Python drops an exception of a signal handler while it closes one.
    first = _said(next(iter(errors.values()))) if errors else "None"
    return f"{len(errors)} of {len(errors) + len(results)} keys failed: {counts}; the first: {first}"
