"""The target of the compiled primitives: each gives what its Python function gives. Without them, it does nothing."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from fuzzing.cursor import Cursor
from fuzzing.seams import Seam, use_python
from metacache import MetacacheError, Node, RendezvousRouter, load_serializer
from metacache.acceleration import make_exchange
from metacache.client.core import Core
from metacache.cluster import parts
from metacache.operations import answers, batches, readers, requests
from metacache.operations.arguments import DEFAULT
from metacache.operations.options import Options
from metacache.protocol import commands, connection, windows
from metacache.protocol.connection import ProtocolConnection
from metacache.protocol.replies import HD_REPLY, OPAQUES, known_headers, value_header, whole_reply
from metacache.protocol.windows import Replies, Window
from metacache.routing import rendezvous
from metacache.transports import batch_windows
from metacache.transports.base import Batch, Operation

__all__ = ["compare_primitives"]

LIMIT: Final = 1000  # bytes of a value
COUNTED: Final = 300  # requests of a batch at most
Call: TypeAlias = Callable[[], object]


def _nothing(*_: object, **__: object) -> None:
    """Return None, as a function that makes no primitive."""


# What `use_python` replaces, and by what.
SEAMS: Final[tuple[Seam, ...]] = (
    (sys.modules[__name__], "make_exchange", _nothing),
    (answers, "count_lines", None),
    (batches, "encode_items", None),
    (batches, "encode_keys", None),
    (connection, "join_window", None),
    (batch_windows, "total_size", None),
    (parts, "place_items", None),
    (parts, "take_items", None),
    (readers, "found_values", None),
    (rendezvous, "make_owners", _nothing),
    (requests, "make_builder", _nothing),
    (windows, "read_window", None),
)


def compare_primitives(data: bytes) -> None:
    """Do something with the primitives, which the bytes choose, and the same without them."""
    cursor = Cursor(data)
    make = cursor.choice(MAKERS)
    call = make(cursor)
    compiled = _outcome(call)
    with use_python(SEAMS):
        assert _outcome(call) == compiled, "a primitive disagrees with Python"


def _outcome(call: Call) -> object:
    try:
        return call()
    except MetacacheError as error:
        return type(error), str(error), error.operation, error.key


# --- requests ---------------------------------------------------------------------------------------------------------


def _keys(cursor: Cursor) -> list[str | bytes]:
    """Return keys: most are plain and of one type, so that primitives take them."""
    kind, count = cursor.number(), cursor.number() % 12
    keys: list[str | bytes] = [b"%d" % index for index in range(count)]
    for _ in range(cursor.number() % 3):
        keys.append(cursor.text() if cursor.number() & 1 else cursor.piece())
    return [key.decode("ascii", "replace") if isinstance(key, bytes) else key for key in keys] if kind & 1 else keys


def _core(name: str, prefix: bytes) -> Core[Any]:  # Any: the serializer chooses the type of the values
    types: dict[str, type[Any]] = {"bytes": bytes, "str": str}  # Any: as above
    # Any: as above. `Core.of` is generic, and the type of T is not known here.
    core: Core[Any] = Core.of(load_serializer(name, types[name]), Options(prefix=prefix))  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    core.operations._clock = lambda: 1e6
    return core


def _shown(batch: Batch) -> object:
    return list(batch.given), batch.keys, batch.heads, batch.bodies


def _key_batches(cursor: Cursor) -> Call:
    prefix, keys = cursor.piece(), _keys(cursor)
    method = cursor.choice(("get_many", "get_items", "delete_many"))
    return lambda: _shown(getattr(_core("bytes", prefix).batches, method)(keys).batch)


def _item_batches(cursor: Cursor) -> Call:
    prefix, keys, name = cursor.piece(), _keys(cursor), cursor.choice(("bytes", "str"))
    ttl = cursor.choice((DEFAULT, None, 7))
    sizes = [cursor.number() for _ in keys]
    values = [b"v" * size if name == "bytes" or size == 255 else "v" * size for size in sizes]
    items = dict(zip(keys, values, strict=True))
    return lambda: _shown(_core(name, prefix).batches.set_many(items, ttl).batch)


def _single_requests(cursor: Cursor) -> Call:
    prefix, keys = cursor.piece(), _keys(cursor)

    def build() -> list[object]:
        operations = _core("bytes", prefix).operations
        built: list[Operation[Any]] = [operations.get(key, None) for key in keys]  # Any: the results are not read
        # Again: the second time, the tail of the size is known.
        built += [operations.set(key, b"v" * len(key), DEFAULT) for key in [*keys, *keys]]
        return [(op.verb, op.given, op.key, op.head, op.body) for op in built]

    return build


def _windows_sent(cursor: Cursor) -> Call:
    count = 1 + cursor.number(2) % COUNTED
    heads = [b"x" * cursor.number() for _ in range(count)]
    bodies = [b"v" * cursor.number(2) for _ in range(count)] if cursor.number() & 1 else None
    batch = Batch(batches.SET_MANY, [""] * count, heads, heads, bodies)

    def send() -> list[object]:
        cutter, protocol = batch_windows.Windows(batch, is_tls=bool(count & 1)), ProtocolConnection(max_reply_size=1)
        sent: list[object] = []
        while not cutter.is_done:
            sent.append(batch_windows.build_window(protocol, batch, *cutter.cut())[0])
        return sent

    return send


# --- replies ----------------------------------------------------------------------------------------------------------


def _windows_received(cursor: Cursor) -> Call:
    command, count = cursor.choice((commands.MG_VALUE, commands.MS, commands.MD)), 1 + cursor.number() % 8
    place, stream = cursor.number(2), cursor.rest()

    def receive() -> object:
        protocol = ProtocolConnection(max_reply_size=LIMIT)
        _, window = protocol.send_window(command, [b"xx k"] * count, None)
        for piece in (stream[:place], stream[place:]):
            if piece and not protocol.must_close:
                protocol.receive(piece)
        return _window(window), protocol.must_close

    return receive


def _window(window: Window) -> object:
    replies = window.replies
    errors = [(index, type(error), str(error)) for index, error in replies.errors.items()]
    return replies.headers, replies.values, errors, window.closes


def _results(cursor: Cursor) -> Call:
    name, own = cursor.choice(("bytes", "str")), b"f%d" % _core("bytes", b"").operations.frame.flags
    lines = [
        cursor.choice((b"VA %d " + own, b"EN", b"", b"HD", b"VA %d f0 W", b"NS")) for _ in range(cursor.number() % 9)
    ]
    values = [cursor.piece() if b"%d" in line else None for line in lines]
    headers = [line if value is None else line % len(value) for line, value in zip(lines, values, strict=True)]

    def read() -> object:
        core, replies = _core(name, b""), Replies()
        replies.headers, replies.values = headers, values
        keys = [f"k{index}" for index in range(len(headers))]
        errors: dict[str, MetacacheError] = {}
        found = [core.operations.reader.values(keys, replies, errors) for _ in range(2)]
        stores = {b"HD": 1, b"NS": 2}
        stored = answers._by_code(keys, replies, stores) if stores.keys() >= set(headers) - {b""} else None
        return found, sorted(errors), core.statistics, stored

    return read


def _one_reply(cursor: Cursor) -> Call:
    command = cursor.choice((commands.MG_VALUE, commands.MG, commands.MS, commands.MA_VALUE))
    stream, suffix = cursor.rest(), OPAQUES[7][0]
    value_header(stream.partition(suffix)[0])  # the primitive reads only values whose header line is known

    def read() -> object:
        if not stream:
            return whole_reply(stream, suffix, command, LIMIT)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            exchange = make_exchange(ours.fileno(), LIMIT, known_headers, HD_REPLY)
            if exchange is None:
                return whole_reply(stream, suffix, command, LIMIT)
            theirs.sendall(stream)
            rules = (command.whole, command.has_value, 65536)
            reply = exchange.run(b"xx k", None, suffix, *rules, time.monotonic() + 5)
            assert reply is not None or exchange.data == stream
        # None: the Python code goes on from there.
        return whole_reply(stream, suffix, command, LIMIT) if reply is None else reply

    return read


# --- nodes ------------------------------------------------------------------------------------------------------------


def _routing(cursor: Cursor) -> Call:
    weights = [cursor.choice((1.0, 2.0, 0.0, 1e-9 + cursor.number(2) / 7)) for _ in range(1 + cursor.number() % 6)]
    keys = [cursor.piece() for _ in range(cursor.number() % 16)]

    def route() -> object:
        router = RendezvousRouter([Node(f"n{index}", weight=weight) for index, weight in enumerate(weights)])
        return router.split(keys), [router.pick(key) for key in keys]

    return route


def _parts(cursor: Cursor) -> Call:
    count = 1 + cursor.number() % 40
    indices = sorted({cursor.number() % count for _ in range(cursor.number() % 40)})

    def fill() -> object:
        numbers = [b"%d" % index for index in range(count)]
        whole, part = Replies(count), Replies()
        part.headers = list(parts.take(numbers, indices))
        part.values = list(parts.take(tuple(part.headers), range(len(indices))))
        parts.fill_part(whole, indices, part)
        return whole.headers, whole.values

    return fill


MAKERS: Final[tuple[Callable[[Cursor], Call], ...]] = (
    _key_batches,
    _item_batches,
    _single_requests,
    _windows_sent,
    _windows_received,
    _results,
    _one_reply,
    _routing,
    _parts,
)
