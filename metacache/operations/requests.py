"""Builds the request of each method with one key, together with the function that reads the reply. No I/O.

All arguments are checked here, so an invalid one raises before anything is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from typing import Final, Generic, TypeVar, final

from metacache.acceleration import make_builder
from metacache.errors import InvalidArgumentError, InvalidKeyError, MetacacheError, ValueTooLargeError
from metacache.interrupts import fails_again, is_injected
from metacache.operations.answers import read_delete, read_done, read_metadata, read_number, read_store
from metacache.operations.arguments import DEFAULT, MAX_RELATIVE, Default, Ttl, check_cas, exptime, ttl_seconds, u64
from metacache.operations.options import Options
from metacache.operations.readers import ItemState, Precheck, Reader, read_touch
from metacache.operations.results import DeleteResult, Item, Metadata, StoreResult
from metacache.protocol import commands
from metacache.protocol.commands import MAX_BODY, Command
from metacache.protocol.flags import Commands, Token, encode_flags, numeric_flag
from metacache.protocol.keys import MAX_KEY, Key, KeyEncoder
from metacache.protocol.replies import Reply
from metacache.serializers.frame import dumps_error, not_bytes_error
from metacache.serializers.plain import BytesSerializer, IntSerializer, StrSerializer
from metacache.transports.base import Operation, Verb

__all__ = ["Operations"]

T = TypeVar("T")
D = TypeVar("D")
R = TypeVar("R")

GET: Final = Verb("get", commands.MG_VALUE, is_read=True)
GET_ITEM: Final = Verb("get_item", commands.MG_VALUE, is_read=True)
GET_AND_TOUCH: Final = Verb("get_and_touch", commands.MG_VALUE)
TOUCH: Final = Verb("touch", commands.MG)
EXISTS: Final = Verb("exists", commands.MG, is_read=True)
INSPECT: Final = Verb("inspect", commands.ME, is_read=True)
SET: Final = Verb("set", commands.MS)
ADD: Final = Verb("add", commands.MS)
REPLACE: Final = Verb("replace", commands.MS)
COMPARE_AND_SET: Final = Verb("compare_and_set", commands.MS)
APPEND: Final = Verb("append", commands.MS)
PREPEND: Final = Verb("prepend", commands.MS)
DELETE: Final = Verb("delete", commands.MD)
INVALIDATE: Final = Verb("invalidate", commands.MD)
INCREMENT: Final = Verb("increment", commands.MA_VALUE)
DECREMENT: Final = Verb("decrement", commands.MA_VALUE)
UPDATE_READ: Final = Verb("update", commands.MG_VALUE, is_read=True)
UPDATE_STORE: Final = Verb("update", commands.MS)


def _extra_verbs(command: Command, *verbs: Verb, is_read: bool = False) -> dict[Verb, Verb]:
    return {verb: Verb(verb.name, command, is_read=is_read) for verb in verbs}


# The additional requests of methods that need several.
PRECHECKS: Final = _extra_verbs(commands.MG, APPEND, PREPEND, is_read=True)
RENEWALS: Final = _extra_verbs(commands.MG, INCREMENT, DECREMENT)
DELETES: Final = _extra_verbs(commands.MD, TOUCH, GET_AND_TOUCH, APPEND, PREPEND, *RENEWALS.values())

# The constant parts of requests, encoded once. The letters come from the flag table.
_VALUE: Final[dict[str, Token]] = {"value": True, "return_client_flags": True}
_ITEM: Final[dict[str, Token]] = {"return_cas": True, "return_ttl": True, "return_fetched": True, "return_idle": True}
_NO_VALUE: Final[dict[str, Token]] = {"return_size": True, "return_client_flags": True}
VALUE_FLAGS: Final = encode_flags(Commands.MG, _VALUE)
ITEM_FLAGS: Final = encode_flags(Commands.MG, _VALUE | _ITEM)
STATE_FLAGS: Final = encode_flags(Commands.MG, _VALUE | {"return_cas": True})
EXISTS_FLAGS: Final = encode_flags(Commands.MG, _NO_VALUE)
PRECHECK_FLAGS: Final = encode_flags(Commands.MG, _NO_VALUE | {"return_cas": True})
ARITHMETIC_FLAGS: Final = encode_flags(Commands.MA, {"value": True})
INVALIDATE_FLAGS: Final = encode_flags(Commands.MD, {"invalidate": True})
MODE_ADD: Final = encode_flags(Commands.MS, {"mode": "E"})
MODE_REPLACE: Final = encode_flags(Commands.MS, {"mode": "R"})
EXTEND_MODES: Final = {
    APPEND: encode_flags(Commands.MS, {"mode": "A"}),
    PREPEND: encode_flags(Commands.MS, {"mode": "P"}),
}
MODE_DECREMENT: Final = encode_flags(Commands.MA, {"mode": "D"})
CLIENT_FLAGS: Final = numeric_flag("client_flags")
TTL: Final = numeric_flag("ttl")
CAS: Final = numeric_flag("compare_cas")
DELTA: Final = numeric_flag("delta")
VIVIFY: Final = numeric_flag("vivify")
INITIAL: Final = numeric_flag("initial")

_GET: Final = b"mg %b" + VALUE_FLAGS

# The part of a `set` after the key depends only on the size of the body. It is cached for sizes below this.
CACHED_TAILS: Final = 1024


@lru_cache(maxsize=64)
def _tails(_: int, __: Ttl) -> list[bytes | None]:
    """Return the cache, by size, for these client flags and this default TTL. Clients share it: their parts are equal.

    A new list of this length is a fifth of the cost of a client.
    """
    return [None] * CACHED_TAILS


@final
class error_context:  # noqa: N801 - reads as a phrase: with error_context(GET, key)
    """Add the operation and the key to every MetacacheError that is raised inside."""

    __slots__ = ("_key", "_verb")

    def __init__(self, verb: Verb, key: Key | None = None) -> None:
        self._verb = verb
        self._key = key

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object, /) -> None:
        if isinstance(error, MetacacheError) and not is_injected(error):
            error.locate(operation=self._verb.name, key=self._key if isinstance(self._key, str | bytes) else None)


def operation(
    verb: Verb, given: Key | None, key: bytes, head: bytes, body: bytes | None, read: Callable[[Reply], R]
) -> Operation[R]:
    """Return an operation. `get` and `set` assign the attributes themselves, which is faster than a call."""
    op: Operation[R] = Operation()
    op.verb, op.given, op.key, op.head, op.body, op.read = verb, given, key, head, body, read
    return op


def check_size(size: int) -> None:
    """Raise ValueTooLargeError if a data block of *size* bytes is too large for the protocol."""
    if size > MAX_BODY:
        raise ValueTooLargeError(f"the encoded value has {size} bytes; the protocol takes at most {MAX_BODY}")


@final
class Operations(Generic[T]):
    """Builds the operations of one client.

    Args:
        reader: reads the values, and has the frame that encodes them.
        options: prefix, default_ttl, long_keys.
        clock: ``time.time``, for a TTL beyond 30 days, which is sent as a time since 1970.
    """

    __slots__ = (
        "_build_get",
        "_build_set",
        "_clock",
        "_dumps",
        "_has_tails",
        "_is_raw",
        "_options",
        "_plain_prefix",
        "frame",
        "is_relative",
        "keys",
        "read_value",
        "reader",
        "tails",
    )

    def __init__(self, reader: Reader[T], options: Options, clock: Callable[[], float]) -> None:
        frame = reader.frame
        self.reader = reader
        self.frame = frame
        self._dumps = frame.dumps
        # A bytes value needs no call of dumps, which would cost 350 of the 16,000 instructions of a set.
        self._is_raw = frame.is_raw
        self._options = options
        self._clock = clock
        self.keys = KeyEncoder(options.prefix, hash_long=options.long_keys == "hash")
        # One bound method, which an observed client recognises.
        self.read_value = reader.value
        self.tails = _tails(frame.flags, options.default_ttl)
        self.is_relative = options.default_ttl is None or ttl_seconds(options.default_ttl) <= MAX_RELATIVE
        self._plain_prefix = self.keys.text
        self._has_tails = self.is_relative and frame.compressor is None
        # The usual cases of `get` and `set`, or None. See metacache/acceleration.py.
        prefix = self.keys.prefix
        kind: type[Operation[T | None]] = Operation
        reads = make_builder(kind, GET, prefix, b"mg ", VALUE_FLAGS, self.read_value)
        store_kind: type[Operation[StoreResult]] = Operation
        stores = make_builder(store_kind, SET, prefix, b"ms ", self.tails, read_store, self._dumps, is_raw=self._is_raw)
        self._build_get = None if reads is None else reads.get
        self._build_set = None if stores is None or not self._has_tails else stores.set

    # --- reading -----------------------------------------------------------------------------------------------------

    def get(self, key: Key, default: D) -> Operation[T | D]:
        """Return ``mg key v f``."""
        if self._build_get is not None and default is None:
            built = self._build_get(key)
            if built is not None:
                return built  # type: ignore[return-value]  # pyright: ignore[reportReturnType]  # D is None
        # Repeats the rule of KeyEncoder.plain for a str, as `set` does. A test compares all three.
        text = self._plain_prefix
        raw: bytes | None
        if text is not None and type(key) is str and key.isprintable() and " " not in key and key:
            raw = (text + key).encode()
        else:
            raw = self.keys.plain(key)
        read = self.read_value if default is None else self.reader.value_or(default)
        if raw is None or len(raw) > MAX_KEY:
            # `Reader.value` returns None on a miss; D is None then.
            return self._read(  # pyright: ignore[reportReturnType]
                GET,
                key,
                VALUE_FLAGS,
                read,  # type: ignore[arg-type]
            )
        op: Operation[T | D] = Operation()
        op.verb = GET
        op.given = key
        op.key = raw
        op.head = _GET % raw
        op.body = None
        op.read = read  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]  # as above
        return op

    def _read(self, verb: Verb, key: Key, flags: bytes, read: Callable[[Reply], R]) -> Operation[R]:
        with error_context(verb, key):
            raw, token, base64 = self.keys.encode(key)
            return operation(verb, key, raw, b"mg %b%b%b" % (token, base64, flags), None, read)

    def get_item(self, key: Key) -> Operation[Item[T] | None]:
        """Return ``mg key v f c t h l``."""
        return self._read(GET_ITEM, key, ITEM_FLAGS, self.reader.item)

    def read_for_update(self, key: Key) -> Operation[ItemState[T] | None]:
        """Return ``mg key v f c`` for `update`."""
        return self._read(UPDATE_READ, key, STATE_FLAGS, self.reader.guarded_state)

    def get_and_touch(self, key: Key, ttl: Ttl) -> Operation[ItemState[T] | None]:
        """Return ``mg key T… v f c``."""
        with error_context(GET_AND_TOUCH, key):
            flags = TTL % exptime(ttl, self._clock()) + STATE_FLAGS
            return self._read(GET_AND_TOUCH, key, flags, self.reader.touched_state)

    def touch(self, key: Key, ttl: Ttl, verb: Verb = TOUCH) -> Operation[ItemState[None] | None]:
        """Return ``mg key T… s f c``. *verb* is TOUCH or a value of RENEWALS."""
        with error_context(verb, key):
            return self._read(verb, key, TTL % exptime(ttl, self._clock()) + PRECHECK_FLAGS, read_touch)

    def precheck(self, key: Key, verb: Verb) -> Operation[Precheck | None]:
        """Return ``mg key s f c`` for *verb*, which is APPEND or PREPEND."""
        return self._read(PRECHECKS[verb], key, PRECHECK_FLAGS, self.reader.precheck)

    def exists(self, key: Key) -> Operation[bool]:
        """Return ``mg key s f``."""
        return self._read(EXISTS, key, EXISTS_FLAGS, self.reader.exists)

    def inspect(self, key: Key) -> Operation[Metadata | None]:
        """Return ``me key``. Raises InvalidKeyError for a key that needs base64, which not every release can read."""
        with error_context(INSPECT, key):
            raw, token, base64 = self.keys.encode(key)
            if base64:
                raise InvalidKeyError("inspect does not support a key with a space or control byte, or a hashed key")
            return operation(INSPECT, key, raw, b"me " + token, None, read_metadata)

    # --- writing -----------------------------------------------------------------------------------------------------

    def set(self, key: Key, value: T, ttl: Ttl | Default) -> Operation[StoreResult]:
        """Return ``ms key size F… [T…]``."""
        encoded: bytes | None = None
        if self._build_set is not None and ttl is DEFAULT:
            try:
                built = self._build_set(key, value)
            except Exception as error:
                if not fails_again(self._dumps, value, error):
                    raise
                raise dumps_error(value, error).locate(operation=SET.name, key=key) from None
            if type(built) is Operation:
                return built
            if built is not None and type(built) is not bytes:
                raise not_bytes_error(built).locate(operation=SET.name, key=key)
            encoded = built
        # Repeats the rule of KeyEncoder.plain for a str: a call would cost 3.5 % of a set. A test compares both.
        text = self._plain_prefix
        raw: bytes | None
        if text is not None and type(key) is str and key.isprintable() and " " not in key and key:
            raw = (text + key).encode()
        else:
            raw = self.keys.plain(key)
        if raw is None or len(raw) > MAX_KEY or ttl is not DEFAULT or not self._has_tails:
            return self._store(SET, key, value, ttl)
        body: bytes
        if encoded is not None:
            body = encoded
        elif self._is_raw and type(value) is bytes:
            body = value  # type: ignore[assignment]  # mypy does not narrow a T
        else:
            dumps = self._dumps
            try:
                body = dumps(value)
            except Exception as error:
                if not fails_again(dumps, value, error):
                    raise
                raise dumps_error(value, error).locate(operation=SET.name, key=key) from None
            if type(body) is not bytes:
                raise not_bytes_error(body).locate(operation=SET.name, key=key)
        size = len(body)
        tail = self.tails[size] if size < CACHED_TAILS else None
        if tail is None:
            with error_context(SET, key):
                tail = self.tail(size)
        op: Operation[StoreResult] = Operation()
        op.verb = SET
        op.given = key
        op.key = raw
        op.head = b"".join((b"ms ", raw, tail))
        op.body = body
        op.read = read_store
        return op

    def tail(self, size: int) -> bytes:
        """Return the part of a plain set after the key; cache it for small sizes. Raises ValueTooLargeError.

        A part with a TTL beyond 30 days is not cached: it is sent as a time since 1970, which changes with each set.
        """
        check_size(size)
        tail = b" %d" % size + CLIENT_FLAGS % self.frame.flags + self.ttl_flag(DEFAULT)
        if size < CACHED_TAILS and self.is_relative:
            self.tails[size] = tail
        return tail

    def add(self, key: Key, value: T, ttl: Ttl | Default) -> Operation[StoreResult]:
        """Return ``ms key size F… [T…] ME``."""
        return self._store(ADD, key, value, ttl, MODE_ADD)

    def replace(self, key: Key, value: T, ttl: Ttl | Default) -> Operation[StoreResult]:
        """Return ``ms key size F… [T…] MR``."""
        return self._store(REPLACE, key, value, ttl, MODE_REPLACE)

    def compare_and_set(self, key: Key, value: T, cas: int, ttl: Ttl | Default) -> Operation[StoreResult]:
        """Return ``ms key size F… [T…] C…``."""
        with error_context(COMPARE_AND_SET, key):
            return self._store(COMPARE_AND_SET, key, value, ttl, CAS % check_cas(cas))

    def store_for_update(self, key: Key, value: T, ttl: Ttl | Default, cas: int | None) -> Operation[StoreResult]:
        """Return the store of `update`: an add if there was no item (*cas* is None), else a compare-and-set."""
        return self._store(UPDATE_STORE, key, value, ttl, MODE_ADD if cas is None else CAS % cas)

    def _store(self, verb: Verb, key: Key, value: T, ttl: Ttl | Default, more: bytes = b"") -> Operation[StoreResult]:
        with error_context(verb, key):
            raw, token, base64 = self.keys.encode(key)
            ttl_flag = self.ttl_flag(ttl)
            flags, body = self.frame.encode(value)
            check_size(len(body))
            head = b"ms %b %d%b%b%b%b" % (token, len(body), base64, CLIENT_FLAGS % flags, ttl_flag, more)
            return operation(verb, key, raw, head, body, read_store)

    def ttl_flag(self, ttl: Ttl | Default) -> bytes:
        """Return the T flag of a store; an empty one if the item never expires."""
        number = exptime(self._options.default_ttl if ttl is DEFAULT else ttl, self._clock())
        return TTL % number if number else b""

    def extension(self, verb: Verb, key: Key, value: T) -> Callable[[int], Operation[StoreResult]]:
        """Return a function that returns ``ms key size MA C…`` (MP for PREPEND) for a CAS. Checks all arguments."""
        with error_context(verb, key):
            self._require_builtin(verb, "bytes or str", BytesSerializer, StrSerializer)
            raw, token, base64 = self.keys.encode(key)
            _, body = self.frame.encode(value)
            check_size(len(body))
            head = b"ms %b %d%b%b" % (token, len(body), base64, EXTEND_MODES[verb])
            return lambda cas: operation(verb, key, raw, head + CAS % cas, body, read_store)

    def delete(self, key: Key, cas: int | None) -> Operation[DeleteResult]:
        """Return ``md key [C…]``."""
        with error_context(DELETE, key):
            return self._delete(DELETE, key, b"" if cas is None else CAS % check_cas(cas), read_delete)

    def remove(self, key: Key, cas: int, verb: Verb) -> Operation[DeleteResult]:
        """Return ``md key C…`` for *verb*."""
        return self._delete(DELETES[verb], key, CAS % cas, read_delete)

    def release_win(self, key: Key, precheck: Precheck, verb: Verb) -> Operation[bool]:
        """Return ``md key C… I`` for *verb*, so that the next reader of the stale item gets the win flag.

        Its result is `Reader.can_extend` of the precheck.
        """
        flags = CAS % precheck.cas + INVALIDATE_FLAGS
        return self._delete(DELETES[verb], key, flags, lambda _: self.reader.can_extend(precheck.flags))

    def _delete(self, verb: Verb, key: Key, flags: bytes, read: Callable[[Reply], R]) -> Operation[R]:
        raw, token, base64 = self.keys.encode(key)
        return operation(verb, key, raw, b"md %b%b%b" % (token, base64, flags), None, read)

    def invalidate(self, key: Key, stale_for: int | timedelta) -> Operation[bool]:
        """Return ``md key I T…``."""
        with error_context(INVALIDATE, key):
            flags = INVALIDATE_FLAGS + TTL % exptime(ttl_seconds(stale_for, "stale_for"), self._clock(), "stale_for")
            return self._delete(INVALIDATE, key, flags, read_done)

    # --- arithmetic --------------------------------------------------------------------------------------------------

    def arithmetic(
        self, verb: Verb, key: Key, delta: int, initial: int | None, initial_ttl: Ttl | Default, ttl: Ttl | Default
    ) -> Operation[int | None]:
        """Return ``ma key v D… [MD] [N… J…]``. *verb* is INCREMENT or DECREMENT.

        It never has the flag T. The server applies T to the old item and loses it when a new item replaces the old one.
        That happens if the number gains a digit, or if another request, such as a read, uses the item. The reply shows
        the new TTL nevertheless.
        """
        with error_context(verb, key):
            self._require_builtin(verb, "int", IntSerializer)
            raw, token, base64 = self.keys.encode(key)
            flags = ARITHMETIC_FLAGS + DELTA % u64(delta, "delta") + (MODE_DECREMENT if verb is DECREMENT else b"")
            lifetime = self._initial_lifetime(initial, initial_ttl, ttl)
            if initial is not None:
                flags += VIVIFY % lifetime + INITIAL % u64(initial, "initial")
            return operation(verb, key, raw, b"ma %b%b%b" % (token, base64, flags), None, read_number)

    def _initial_lifetime(self, initial: int | None, initial_ttl: Ttl | Default, ttl: Ttl | Default) -> int:
        """Return the expiration time of a number that arithmetic creates. Checks all three arguments."""
        if initial_ttl is DEFAULT:
            return exptime(self._options.default_ttl if ttl is DEFAULT else ttl, self._clock())
        if initial is None:
            raise InvalidArgumentError("initial_ttl is the TTL of a number that is created: pass initial too")
        if ttl is not DEFAULT:
            raise InvalidArgumentError("ttl is for every number, initial_ttl only for a created one: pass one of them")
        return exptime(initial_ttl, self._clock(), "initial_ttl")

    def _require_builtin(self, verb: Verb, wanted: str, *serializers: type) -> None:
        # The type system sees only T: a Client[int] may have any serializer of int.
        if not isinstance(self.frame.serializer, serializers) or self.frame.compressor is not None:
            raise InvalidArgumentError(f"{verb.name} needs the built-in serializer of {wanted}, and no compressor")
