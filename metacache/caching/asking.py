"""The requests of `get_or_compute`: ask for a value or the right to compute it, store by CAS, give the right back.

Pure. The server decides who computes: ``mg N`` makes an empty item, the placeholder, and gives its CAS and the win
(``W``) to one caller; later callers see ``Z`` (protocol.txt, "Meta Get", and its section on stale items). Every store
is guarded by the CAS that was read before the computation began.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar, final

from metacache.caching.policy import Plan
from metacache.errors import DecodeError, ServerError
from metacache.interrupts import fails_again, is_own
from metacache.operations.answers import read_delete, read_done, read_store
from metacache.operations.arguments import exptime
from metacache.operations.policies import MISS, Miss
from metacache.operations.readers import is_placeholder
from metacache.operations.requests import CAS, CLIENT_FLAGS, TTL, Operations, check_size, error_context, operation
from metacache.operations.results import DeleteResult, StoreResult
from metacache.operations.tallies import ReadCounts
from metacache.protocol import commands
from metacache.protocol.flags import Commands, encode_flags, numeric_flag
from metacache.protocol.keys import K, Key, WireKey
from metacache.protocol.replies import Reply, flag_number, flag_ttl
from metacache.transports.base import Batch, Operation, Verb

if TYPE_CHECKING:
    from typing_extensions import TypeIs

__all__ = ["Asked", "Asking", "is_asked", "read_cas"]

T = TypeVar("T")

ASK: Final = Verb("get_or_compute", commands.MG_VALUE, is_read=True)
ASK_MANY: Final = Verb("get_or_compute_many", commands.MG_VALUE, is_read=True)
SHORTEN: Final = Verb("get_or_compute", commands.MG)
SHORTEN_MANY: Final = Verb("get_or_compute_many", commands.MG)
STORE: Final = Verb("get_or_compute", commands.MS)
REMOVE: Final = Verb("get_or_compute", commands.MD)
STORE_MANY: Final = Verb("get_or_compute_many", commands.MS)
REMOVE_MANY: Final = Verb("get_or_compute_many", commands.MD)

ASK_FLAGS: Final = encode_flags(
    Commands.MG, {"value": True, "return_client_flags": True, "return_cas": True, "return_ttl": True}
)
VIVIFY: Final = numeric_flag("vivify")
RECACHE: Final = numeric_flag("recache")
CAS_FLAGS: Final = encode_flags(Commands.MG, {"return_cas": True})
INVALIDATE: Final = encode_flags(Commands.MD, {"invalidate": True})


class Asked(NamedTuple, Generic[T]):
    """The reply to an ask that is not simply a fresh value.

    Attributes:
        value: the T; MISS for a placeholder and for a value that cannot be decoded.
        cas: the CAS of the item; 0 when the server runs without CAS.
        left: seconds that the item has left, infinity if it never expires.
        won: this caller is to compute the value.
        taken: another caller computes it.
        is_stale: the item is marked stale.
        is_placeholder: there is no value yet.
        failure: in a strict client, why the value cannot be decoded.
    """

    value: T | Miss
    cas: int
    left: float
    won: bool
    taken: bool
    is_stale: bool
    is_placeholder: bool
    failure: DecodeError | None

    def as_taken(self) -> Asked[T]:
        """Return the same as other callers see it."""
        return self._replace(won=False, taken=self.won or self.taken)


def is_asked(found: T | Asked[T]) -> TypeIs[Asked[T]]:
    """Return whether *found* is what the server says of an item, and not simply its value."""
    return type(found) is Asked


@final
class Asking(Generic[T]):
    """The requests of one client.

    Args:
        ops: encodes keys and values, and reads values.
        counts: counts fresh values.
        clock: ``time.time``.
    """

    __slots__ = ("_clock", "_counts", "_loads", "_own", "_reader", "ops")

    def __init__(self, ops: Operations[T], counts: ReadCounts, clock: Callable[[], float]) -> None:
        self.ops = ops
        self._reader = ops.reader
        self._counts = counts
        self._clock = clock
        self._loads = ops.frame.loads
        self._own = b"f%d" % ops.frame.flags

    def encode(self, key: Key) -> WireKey:
        """Return *key* as it is sent. Raises InvalidKeyError."""
        with error_context(ASK, key):
            return self.ops.keys.encode(key)

    @staticmethod
    def flags(plan: Plan) -> bytes:
        """Return what follows the key of an ask."""
        return ASK_FLAGS + VIVIFY % plan.lease + (RECACHE % plan.recache if plan.recache else b"")

    def ask_many(self, wires: Mapping[K, WireKey], flags: bytes) -> Batch:
        """mg key v f c t N… [R…], for each."""
        heads = [b"mg %b%b%b" % (token, base64, flags) for _, token, base64 in wires.values()]
        return Batch(ASK_MANY, list(wires), [raw for raw, _, _ in wires.values()], heads)

    def ask(self, key: Key, wire: WireKey, flags: bytes, verb: Verb = ASK) -> Operation[T | Asked[T]]:
        """mg key v f c t N… [R…]."""
        raw, token, base64 = wire
        return operation(verb, key, raw, b"mg %b%b%b" % (token, base64, flags), None, self.read)

    def read(self, reply: Reply) -> T | Asked[T]:
        """Return the value if it is fresh and no flag is set on it; else what the server says of it."""
        tokens, data = reply
        try:
            _, _, flags, _, _ = tokens
        except ValueError:
            flags = None  # W, Z or X follow
        if flags == self._own and data is not None:
            loads = self._loads
            try:
                value = loads(data)
            except Exception as error:
                if not fails_again(loads, data, error):
                    raise
            else:
                self._counts.hits += 1
                return value
        return self.asked(tokens, data)

    def asked(self, tokens: list[bytes], data: bytes | None) -> Asked[T]:
        """Return what the server says of an item."""
        if data is None:
            raise ServerError("the server has no leases: it answered an mg with N by a miss")
        flags = tokens[2:]
        value: T | Miss = MISS
        failure = None
        try:
            value = self._reader.read(flags, data)
        except DecodeError as error:
            if not is_own(error):
                raise
            failure = error
        return Asked(
            value=value,
            cas=flag_number(flags, b"c"),
            left=_left(flags),
            won=b"W" in flags,
            taken=b"Z" in flags,
            is_stale=b"X" in flags,
            is_placeholder=is_placeholder(flags, data),
            failure=failure,
        )

    def store(self, key: Key, wire: WireKey, value: T, life: int | None, cas: int) -> Operation[StoreResult]:
        """ms key size F… [T…] C…. Raises SerializationError and ValueTooLargeError."""
        raw, head, body = self.store_parts(key, wire, value, life, cas)
        return operation(STORE, key, raw, head, body, read_store)

    def store_parts(self, key: Key, wire: WireKey, value: T, life: int | None, cas: int) -> tuple[bytes, bytes, bytes]:
        """Return the routing key, the request line and the data block of `store`."""
        with error_context(STORE, key):
            raw, token, base64 = wire
            flags, body = self.ops.frame.encode(value)
            check_size(len(body))
            return (
                raw,
                b"ms %b %d%b%b%b%b"
                % (
                    token,
                    len(body),
                    base64,
                    CLIENT_FLAGS % flags,
                    self.ops.ttl_flag(life),
                    CAS % cas,
                ),
                body,
            )

    def shorten(self, key: Key, wire: WireKey, life: int) -> Operation[int | None]:
        """mg key T… c. Its result is the CAS, None when there is no item."""
        return operation(SHORTEN, key, wire[0], self.shorten_head(wire, life), None, read_cas)

    def shorten_head(self, wire: WireKey, life: int) -> bytes:
        """Return the request line of `shorten`."""
        _, token, base64 = wire
        return b"mg %b%b%b%b" % (token, base64, TTL % exptime(life, self._clock()), CAS_FLAGS)

    @staticmethod
    def invalidate(key: Key, wire: WireKey) -> Operation[bool]:
        """md key I: whatever was computed before is not stored any more, and the next reader wins."""
        raw, token, base64 = wire
        return operation(REMOVE, key, raw, b"md %b%b%b" % (token, base64, INVALIDATE), None, read_done)

    def remove(self, key: Key, wire: WireKey, cas: int) -> Operation[DeleteResult]:
        """md key C…."""
        return operation(REMOVE, key, wire[0], self.remove_head(wire, cas), None, read_delete)

    @staticmethod
    def remove_head(wire: WireKey, cas: int) -> bytes:
        """Return the request line of `remove`."""
        _, token, base64 = wire
        return b"md %b%b%b" % (token, base64, CAS % cas)

    def remove_any(self, key: Key, wire: WireKey) -> Operation[bool]:
        """md key: for a server without CAS."""
        raw, token, base64 = wire
        return operation(REMOVE, key, raw, b"md %b%b" % (token, base64), None, read_done)

    def give_back(self, key: Key, wire: WireKey, cas: int, left: float | None) -> Operation[DeleteResult]:
        """md key C… I [T…]: the next reader wins. *left*: seconds the item is to live; None: as long as it has."""
        return operation(REMOVE, key, wire[0], self.give_back_head(wire, cas, left), None, read_delete)

    def give_back_head(self, wire: WireKey, cas: int, left: float | None) -> bytes:
        """Return the request line of `give_back`."""
        _, token, base64 = wire
        life = b"" if left is None else TTL % (0 if left == math.inf else exptime(max(int(left), 1), self._clock()))
        return b"md %b%b%b%b%b" % (token, base64, CAS % cas, INVALIDATE, life)


def read_cas(reply: Reply) -> int | None:
    """Return the CAS in a reply to mg; None for a miss."""
    tokens, _ = reply
    return None if tokens[0] == b"EN" else flag_number(tokens[1:], b"c")


def _left(flags: list[bytes]) -> float:
    left = flag_ttl(flags)
    return math.inf if left is None else left
