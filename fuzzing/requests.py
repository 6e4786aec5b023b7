"""The target of request building: an independent parser reads each request back, and finds what the caller gave."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from typing import Final, Literal, NoReturn, TypeAlias, TypeVar, final

from fuzzing.cursor import Cursor
from fuzzing.strict import LONGEST_KEY, Sent, parse
from metacache import Client, MetacacheError, load_serializer
from metacache.protocol.connection import ProtocolConnection, frame
from metacache.protocol.replies import OPAQUES
from metacache.transports.base import Batch, Operation

R = TypeVar("R")
Key: TypeAlias = str | bytes
Write: TypeAlias = Callable[["Arguments"], object]


@final
class Recorded(BaseException):
    """Ends a call when its bytes are known. A BaseException: the client passes it on unchanged."""

    def __init__(self, data: bytes, keys: list[bytes]) -> None:
        super().__init__(len(data))
        self.data = data
        self.keys = keys


@final
class Recorder:
    """A Transport that raises `Recorded` in place of sending."""

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:  # noqa: ARG002 - of the seam
        raise Recorded(frame(op.head, OPAQUES[7] if op.verb.command.echoes else None, op.body), [op.key])

    def run_batch(self, batch: Batch, /, *, deadline: float) -> NoReturn:  # noqa: ARG002 - of the seam
        connection = ProtocolConnection(max_reply_size=1)
        data, _ = connection.send_window(batch.verb.command, batch.heads, batch.bodies)
        raise Recorded(data, list(batch.keys))

    def close(self) -> None:
        """Do nothing."""


@final
class Arguments:
    """The arguments of one call, from the bytes of an input."""

    def __init__(self, cursor: Cursor) -> None:
        self.prefix = cursor.piece()
        self.long_keys = cursor.number() & 1
        self.keys: list[Key] = [cursor.text() if cursor.number() & 1 else cursor.piece() for _ in range(3)]
        self.key = self.keys[0]
        number = cursor.number(cursor.number() % 10)
        self.number = -number if cursor.number() & 1 else number
        self.ttl = timedelta(microseconds=number) if cursor.number() & 1 and number < 2**60 else self.number
        self.value = cursor.rest()
        hashing: Literal["hash", "error"] = "hash" if self.long_keys else "error"
        self.client = Client(Recorder(), prefix=self.prefix, long_keys=hashing)
        self.counters = Client(Recorder(), load_serializer("int", int), prefix=self.prefix, long_keys=hashing)

    def factory(self) -> bytes:
        """Return the value, as the factory of a get_or_compute."""
        return self.value


VERBS: Final[tuple[Write, ...]] = (
    lambda given: given.client.get(given.key),
    lambda given: given.client.get_item(given.key),
    lambda given: given.client.get_and_touch(given.key, given.ttl),
    lambda given: given.client.touch(given.key, given.ttl),
    lambda given: given.client.exists(given.key),
    lambda given: given.client.inspect(given.key),
    lambda given: given.client.set(given.key, given.value, ttl=given.ttl),
    lambda given: given.client.add(given.key, given.value),
    lambda given: given.client.replace(given.key, given.value, ttl=given.ttl),
    lambda given: given.client.compare_and_set(given.key, given.value, given.number),
    lambda given: given.client.delete(given.key),
    lambda given: given.client.delete(given.key, cas=given.number),
    lambda given: given.client.invalidate(given.key, stale_for=given.ttl),
    lambda given: given.client.append(given.key, given.value),
    lambda given: given.client.get_or_compute(given.key, given.factory, ttl=given.ttl),
    lambda given: given.client.get_many(given.keys),
    lambda given: given.client.get_items(given.keys),
    lambda given: given.client.set_many(dict.fromkeys(given.keys, given.value), ttl=given.ttl),
    lambda given: given.client.delete_many(given.keys),
    lambda given: given.counters.set(given.key, given.number),
    lambda given: given.counters.increment(given.key, given.number),
    lambda given: given.counters.decrement(given.key, given.number),
    lambda given: given.counters.increment(given.key, given.number, initial=given.number, initial_ttl=given.ttl),
)


def build_requests(data: bytes) -> None:
    """Call one verb of a client, and read the bytes that it would send with the strict parser."""
    cursor = Cursor(data)
    verb = cursor.choice(VERBS)
    try:
        given = Arguments(cursor)
    except MetacacheError:
        return
    try:
        verb(given)
    except MetacacheError:
        return
    except Recorded as recorded:
        _check_all(recorded, given)
        return
    raise AssertionError("nothing was sent, and no error was raised")


def _check_all(recorded: Recorded, given: Arguments) -> None:
    sent = parse(recorded.data)
    assert len(sent) == len(recorded.keys), "a request more or less than the caller asked for"
    for each, key in zip(sent, recorded.keys, strict=True):
        _check(each, key, given)


def _check(sent: Sent, key: bytes, given: Arguments) -> None:
    raws = {given.prefix + (each.encode() if isinstance(each, str) else each) for each in _encodable(given.keys)}
    assert key in raws, "the routing key is not the prefix and the key"
    hashed = b"\0h" + sha256(key).digest()
    assert sent.key == key or (given.long_keys and sent.key == hashed), "the key on the wire is another key"
    assert sent.key == hashed or len(key) <= LONGEST_KEY
    if sent.body is not None:
        assert sent.body in (given.value, b"%d" % given.number), "the data block is not the value"
    if b"C" in sent.flags:
        assert int(sent.flags[b"C"]) == given.number, "the request compares another CAS number"
    if b"D" in sent.flags:
        assert int(sent.flags[b"D"]) == given.number, "the delta is another number"


def _encodable(keys: list[Key]) -> list[Key]:
    """Leave out the keys with a lone surrogate, which no request can have."""
    return [key for key in keys if isinstance(key, bytes) or key.isascii() or _is_encodable(key)]


def _is_encodable(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True
