"""A client checks its transport, serializer and compressor when it is made; the error names what it needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs
import pytest

from metacache import (
    AsyncClient,
    AsyncCluster,
    AsyncConnection,
    AsyncPool,
    Client,
    Cluster,
    Connection,
    InvalidArgumentError,
    InvalidTypeError,
    Node,
    Pool,
    Zlib,
    connect,
    connect_async,
)
from metacache.serializers import BytesSerializer
from metacache.testing import FakeTransport
from tests.client.rig import AsyncCounted, Counted

NODE: Final = Node("127.0.0.1:1")

# Any, here and below: wrong types on purpose.
BLOCKING: Final[tuple[Any, ...]] = (Connection(NODE), Pool(NODE), Cluster([NODE]), Counted(Pool(NODE)), FakeTransport())
ASYNC: Final[tuple[Any, ...]] = (
    AsyncConnection(NODE),
    AsyncPool(NODE),
    AsyncCluster([NODE]),
    AsyncCounted(AsyncPool(NODE)),
)
NEITHER: Final[tuple[Any, ...]] = (None, "memcached://127.0.0.1:1", b"", 7, NODE, object())


class Forwarding:
    """A user's wrapper that forwards everything with __getattr__."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def name_of(part: object) -> str:
    return type(part).__name__


@pytest.mark.parametrize("transport", BLOCKING, ids=name_of)
def test_a_client_accepts_any_transport_with_the_methods(transport: Any) -> None:
    forwarding: Any = Forwarding(transport)
    Client(transport)
    Client(forwarding)
    message = f"^AsyncClient takes an AsyncConnection, .*, not {name_of(transport)}; that is for Client$"
    with pytest.raises(InvalidTypeError, match=message):
        AsyncClient(transport)


@pytest.mark.parametrize("transport", ASYNC, ids=name_of)
def test_an_asyncio_client_accepts_any_transport_with_its_methods(transport: Any) -> None:
    forwarding: Any = Forwarding(transport)
    AsyncClient(transport)
    AsyncClient(forwarding)
    message = f"^Client takes a Connection, .*, not {name_of(transport)}; that is for AsyncClient$"
    with pytest.raises(InvalidTypeError, match=message):
        Client(transport)


@pytest.mark.parametrize("transport", NEITHER, ids=name_of)
def test_the_error_for_a_wrong_transport_names_the_right_ones(transport: Any) -> None:
    with pytest.raises(InvalidTypeError, match=rf"a Pool or .*, not {name_of(transport)}; connect\(url\) makes"):
        Client(transport)
    with pytest.raises(InvalidTypeError, match=rf"an AsyncPool or .*, not {name_of(transport)}; connect_async\(url\)"):
        AsyncClient(transport)


def test_a_class_instead_of_an_instance_is_refused() -> None:
    wrong: tuple[Any, Any] = (Pool, AsyncPool)
    with pytest.raises(InvalidTypeError, match="not the class Pool"):
        Client(wrong[0])
    with pytest.raises(InvalidTypeError, match="not the class AsyncPool"):
        AsyncClient(wrong[1])


class Part:
    """A serializer or compressor with the given fields; the other fields are valid."""

    wire_id: Any = 96
    fingerprint: Any = 0
    compressor_id: Any = 9
    min_size: Any = 1

    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)

    def dumps(self, value: bytes, /) -> bytes:
        return value

    def loads(self, data: bytes, /) -> bytes:
        return data

    compress = decompress = loads


URL: Final = "memcached://127.0.0.1:1"


def make_client(**options: Any) -> object:
    return Client(Pool(NODE), **options)


def make_async_client(**options: Any) -> object:
    return AsyncClient(AsyncPool(NODE), **options)


def by_url(**options: Any) -> object:
    return connect(URL, bytes, **options)


def by_url_async(**options: Any) -> object:
    return connect_async(URL, bytes, **options)


MAKERS: Final = (make_client, make_async_client, by_url, by_url_async)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("field", ["wire_id", "fingerprint"])
def test_the_ids_of_a_serializer_must_be_ints(make: Callable[..., object], field: str) -> None:
    make(serializer=Part())
    for wrong in ("1", True, None, 1.0):
        with pytest.raises(InvalidTypeError, match=rf"{field} is a whole number, not {name_of(wrong)}$"):
            make(serializer=Part(**{field: wrong}))
    for wrong in (-1, 1 << 16, 10**5000):
        with pytest.raises(InvalidArgumentError, match=rf"{field} is [01] to \d+, not "):
            make(serializer=Part(**{field: wrong}))


@pytest.mark.parametrize("make", MAKERS)
def test_an_object_that_is_not_a_compressor_is_refused(make: Callable[..., object]) -> None:
    make(compressor=Part())
    make(compressor=None)
    wrong: Any
    for wrong in (1, True, "zlib", BytesSerializer(), Zlib):
        with pytest.raises(
            InvalidTypeError, match=r"^compressor must be a Compressor, such as Zlib\(\), or None, not "
        ):
            make(compressor=wrong)
    for field in ("compressor_id", "min_size"):
        for wrong in ("1", True, None, 1.5):
            with pytest.raises(InvalidTypeError, match=rf"{field} is a whole number, not {name_of(wrong)}$"):
                make(compressor=Part(**{field: wrong}))
        for wrong in (-1, -(10**5000)):
            with pytest.raises(InvalidArgumentError, match=rf"{field} is .*, not "):
                make(compressor=Part(**{field: wrong}))
    with pytest.raises(InvalidArgumentError, match="a compressor_id is 1 to 15, not 16"):
        make(compressor=Part(compressor_id=16))


ZLIB: Final[dict[str, tuple[Any, ...]]] = {
    "min_size": (-1, -(10**5000)),
    "max_decompressed_size": (0, -1),
    "level": (0, 10, 99, -1, 10**5000),
}


@pytest.mark.parametrize("field", ZLIB)
def test_the_arguments_of_zlib_are_checked(field: str) -> None:
    wrong: Any
    for wrong in ZLIB[field]:
        with pytest.raises(InvalidArgumentError, match=rf"^Zlib\.{field} is (at least \d|1 to 9), not "):
            Zlib(**{field: wrong})
    for wrong in ("1", 1.5, True, None):
        with pytest.raises(InvalidTypeError, match=rf"^Zlib\.{field} is a whole number, not {name_of(wrong)}$"):
            Zlib(**{field: wrong})
    with pytest.raises(InvalidArgumentError):
        attrs.evolve(Zlib(), **{field: -1})
