"""Values of metacache are safe for other clients: pymemcache and pylibmc neither unpickle nor decompress them.

pylibmc has no wheel for Python 3.12 and later: there, only pymemcache reads.

Those clients use the low five bits of the client flags. The tests store a pickle that leaves a trace when it is
loaded.
"""

from __future__ import annotations

import itertools
import pickle
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any, Final, TypeAlias

import attrs
import msgspec
import pytest
from pymemcache.client.base import Client as PymemcacheClient
from pymemcache.serde import CompressedSerde, pickle_serde
from typing_extensions import override

from metacache import Client, Pool, Serializer, Zlib, available_serializers, load_serializer
from metacache.operations.requests import operation
from metacache.serializers.frame import Frame
from metacache.serializers.wire_ids import is_wire_id
from metacache.testing import Memcached
from metacache.transports.base import Verb
from tests import raw_requests

TRACES: Final[list[str]] = []


def leave_trace() -> str:
    TRACES.append("unpickled")
    return "unpickled"


class Trap:
    @override
    def __reduce__(self) -> tuple[Callable[[], str], tuple[()]]:
        return leave_trace, ()


PAYLOADS: Final = tuple(pickle.dumps(Trap(), protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1))
TEXT: Final = PAYLOADS[0].decode("ascii")


class Note(msgspec.Struct):
    text: str
    data: bytes


@attrs.frozen
class Page:
    text: str
    data: bytes


# A value of each serializer that contains the payload, as raw bytes if the format can hold them.
# Any: values of several types.
VALUES: Final[tuple[tuple[str, Any, Any], ...]] = (
    *(("bytes", bytes, payload) for payload in PAYLOADS),
    ("str", str, TEXT),
    ("int", int, 8_000_000_000_000),
    ("int", int, -1),
    ("json", str, TEXT),
    ("json", dict[str, str], {TEXT: TEXT}),
    ("msgspec", bytes, PAYLOADS[-1]),
    ("msgspec", Note, Note(TEXT, PAYLOADS[-1])),
    ("msgspec-json", Note, Note(TEXT, PAYLOADS[-1])),
    ("msgspec-json", str, TEXT),
    ("orjson", Page, Page(TEXT, PAYLOADS[-1])),
    ("attrs", Page, Page(TEXT, PAYLOADS[-1])),
    ("pydantic", str, TEXT),
    ("pydantic", dict[str, str], {TEXT: TEXT}),
)


class Raw:
    """A serializer that stores bytes unchanged, with any wire_id and fingerprint."""

    def __init__(self, wire_id: int, fingerprint: int) -> None:
        self.wire_id = wire_id
        self.fingerprint = fingerprint

    def dumps(self, value: bytes, /) -> bytes:
        return value

    def loads(self, data: bytes, /) -> bytes:
        return data


@attrs.frozen
class Unwrapping:
    """A compressor with any id that stores only the payload of a longer value."""

    compressor_id: int
    min_size: int = 0

    def compress(self, data: bytes, /) -> bytes:
        return data.rstrip(b"\n")

    def decompress(self, data: bytes, /) -> bytes:
        return data + b"\n"


Readers: TypeAlias = dict[str, Callable[[str], object]]
INFLATED: Final[list[bytes]] = []


def inflate(data: bytes) -> bytes:
    INFLATED.append(data)
    return zlib.decompress(data)


@pytest.fixture(scope="module")
def readers(shared_memcached: Memcached) -> Iterator[Readers]:
    """Functions that read a key with another client, by the name of the client."""
    server = shared_memcached
    host, _, port = server.node.name.rpartition(":")
    plain = PymemcacheClient((host, int(port)), serde=pickle_serde)
    compressed = PymemcacheClient((host, int(port)), serde=CompressedSerde(decompress=inflate))
    with ExitStack() as stack:
        stack.callback(plain.close)
        stack.callback(compressed.close)
        yield {"pymemcache": plain.get, "pymemcache, compressing": compressed.get, **with_pylibmc(server, stack)}


def with_pylibmc(server: Memcached, stack: ExitStack) -> Readers:
    """Return how pylibmc reads a key; nothing where it is not installed."""
    if find_spec("pylibmc") is None:
        return {}
    import pylibmc

    client = pylibmc.Client([server.node.name])
    stack.callback(client.disconnect_all)

    def get(key: str) -> object:
        try:
            return client.get(key)
        except pylibmc.Error:
            return None

    return {"pylibmc": get}


def check_safe(readers: Readers, key: str, data: bytes, allowed: tuple[type, ...]) -> None:
    """Check that each other client returns *data*, its value or a decoding error, and runs no code."""
    for name, get in readers.items():
        try:
            found = get(key)
        except (UnicodeDecodeError, ValueError):
            found = None
        assert TRACES == [], name
        assert INFLATED == [], name
        assert found is None or type(found) in allowed, name
        if isinstance(found, bytes):
            assert found == data, name
        elif isinstance(found, str):
            assert found.encode() == data, name
        elif isinstance(found, int):
            assert found == int(data), name


@pytest.fixture(autouse=True)
def no_trace() -> None:
    TRACES.clear()
    INFLATED.clear()


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_the_payload_runs_in_the_other_clients(shared_memcached: Memcached, readers: Readers, payload: bytes) -> None:
    """With its own flags, each other client runs the payload, and decompresses it if the flags say so."""
    for flags, data in ((1, payload), (9, zlib.compress(payload))):
        with Pool(shared_memcached.node) as pool:
            store(pool, "trap", flags, data)
        for name, get in readers.items():
            TRACES.clear()
            if flags == 1 or name != "pymemcache":
                assert get("trap") == "unpickled"
                assert TRACES == ["unpickled"]
    assert INFLATED != []


def store(pool: Pool, key: str, flags: int, data: bytes) -> None:
    request = raw_requests.meta_set(key.encode(), data, {"client_flags": flags})
    pool.run(
        operation(Verb("set", request.command), key.encode(), b"", request.head, request.body, lambda reply: reply)
    )


@pytest.mark.parametrize("compressor", [None, Zlib(min_size=0)], ids=["plain", "compressed"])
@pytest.mark.parametrize(("name", "type_", "value"), VALUES)
def test_values_of_every_serializer_are_safe(
    shared_memcached: Memcached, readers: Readers, name: str, type_: Any, value: Any, compressor: Zlib | None
) -> None:
    serializer: Serializer[Any] = load_serializer(name, type_)
    with Client(Pool(shared_memcached.node), serializer, compressor=compressor, owns=True) as client:
        assert client.set("safe", value)
        assert client.get("safe") == value
    _, data = Frame(serializer, compressor=compressor).encode(value)
    check_safe(readers, "safe", data, (bytes, str, int))


def test_every_serializer_is_tested() -> None:
    assert {name for name, _, _ in VALUES} == {info.name for info in available_serializers()}


WIRE_IDS: Final = [wire_id for wire_id in range(256) if is_wire_id(wire_id)]


@pytest.mark.parametrize("wire_id", WIRE_IDS)
@pytest.mark.parametrize("compressor_id", [None, *range(1, 16)])
def test_raw_pickles_under_any_wire_id_are_safe(
    shared_memcached: Memcached, readers: Readers, wire_id: int, compressor_id: int | None
) -> None:
    compressor = None if compressor_id is None else Unwrapping(compressor_id)
    fingerprints = (1, 0x1234, 0xFFFF) if wire_id in (224, 240) else (0, 1, 0xFFFF)
    for fingerprint, payload in itertools.product(fingerprints, (PAYLOADS[0], PAYLOADS[-1])):
        serializer = Raw(wire_id, fingerprint)
        value = payload if compressor is None else payload + b"\n"
        with Client(Pool(shared_memcached.node), serializer, compressor=compressor, owns=True) as client:
            assert client.set("raw", value)
            assert client.get("raw") == value
        check_safe(readers, "raw", payload, (bytes, str))
