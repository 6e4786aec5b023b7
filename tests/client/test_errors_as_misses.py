"""`on_error="miss"`: failures of servers and network are misses in reads, and are counted. Other errors are raised."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import pytest

from metacache import (
    AsyncClient,
    AuthenticationError,
    BatchError,
    ClientError,
    ClosedError,
    ConnectError,
    ConnectionLost,
    DecodeError,
    InvalidKeyError,
    MetacacheError,
    NodeDownError,
    OperationTimeout,
    PoolTimeout,
    ProtocolError,
    SerializationError,
    ServerError,
    ValueTooLargeError,
)
from metacache.serializers import BytesSerializer, IntSerializer
from tests.client.failing import SHAPES, failing
from tests.client.rig import Clients
from tests.scripted import Peer, ScriptedServer

MISSES: Final = (
    ConnectError,
    ConnectionLost,
    OperationTimeout,
    NodeDownError,
    PoolTimeout,
    ServerError,
    ProtocolError,
)
FAULTS: Final = (
    ClosedError,
    AuthenticationError,
    ClientError,
    InvalidKeyError,
    SerializationError,
    DecodeError,
    ValueTooLargeError,
)

Call = Callable[[AsyncClient[bytes]], Awaitable[object]]
READS: Final[Mapping[str, tuple[Call, object]]] = {
    "get": (lambda client: client.get("k"), None),
    "get with a default": (lambda client: client.get("k", b"default"), b"default"),
    "get_item": (lambda client: client.get_item("k"), None),
    "inspect": (lambda client: client.inspect("k"), None),
    "exists": (lambda client: client.exists("k"), False),
    "get_many": (lambda client: client.get_many(["k"]), {}),
    "get_items": (lambda client: client.get_items(["k"]), {}),
}
WRITES: Final[Mapping[str, Call]] = {
    "set": lambda client: client.set("k", b"v"),
    "add": lambda client: client.add("k", b"v"),
    "replace": lambda client: client.replace("k", b"v"),
    "compare_and_set": lambda client: client.compare_and_set("k", b"v", 1),
    "append": lambda client: client.append("k", b"v"),
    "prepend": lambda client: client.prepend("k", b"v"),
    "delete": lambda client: client.delete("k"),
    "invalidate": lambda client: client.invalidate("k", stale_for=5),
    "touch": lambda client: client.touch("k", 5),
    "get_and_touch": lambda client: client.get_and_touch("k", 5),
    "update": lambda client: client.update("k", lambda _: b"v"),
    "set_many": lambda client: client.set_many({"k": b"v"}),
    "delete_many": lambda client: client.delete_many(["k"]),
}


async def error_of(call: Awaitable[object]) -> MetacacheError:
    """Return the error that *call* raises, or the error of the only key of a batch."""
    with pytest.raises(MetacacheError) as raised:
        await call
    error = raised.value
    if isinstance(error, BatchError):
        assert error.results == {}
        (error,) = error.errors.values()
    return error


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", MISSES)
async def test_a_failure_of_server_or_network_is_a_miss_in_every_read(shape: str, kind: type[MetacacheError]) -> None:
    lenient = failing(shape, kind, BytesSerializer(), on_error="miss")
    for count, (read, miss) in enumerate(READS.values(), 1):
        assert await read(lenient) == miss
        assert lenient.errors_as_misses == {kind.__name__: count}
    assert await lenient.get_many(["a", "b", "c"]) == {}
    assert lenient.errors_as_misses == {kind.__name__: len(READS) + 3}, "each key of a batch counts"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", FAULTS)
async def test_an_error_of_the_program_is_never_a_miss(shape: str, kind: type[MetacacheError]) -> None:
    lenient = failing(shape, kind, BytesSerializer(), on_error="miss")
    for read, _ in READS.values():
        assert type(await error_of(read(lenient))) is kind
    assert lenient.errors_as_misses == {}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [ConnectError, ServerError])
async def test_an_error_of_a_write_is_always_raised(shape: str, kind: type[MetacacheError]) -> None:
    lenient = failing(shape, kind, BytesSerializer(), on_error="miss")
    for name, write in WRITES.items():
        error = await error_of(write(lenient))
        assert (type(error), error.operation, error.key) == (kind, name, "k")
    counters = failing(shape, kind, IntSerializer(), on_error="miss")
    for arithmetic in (counters.increment, counters.decrement):
        assert type(await error_of(arithmetic("k"))) is kind
    assert lenient.errors_as_misses == counters.errors_as_misses == {}


@pytest.mark.parametrize("shape", SHAPES)
async def test_by_default_every_error_is_raised(shape: str) -> None:
    plain = failing(shape, ServerError, BytesSerializer())
    for read, _ in READS.values():
        assert type(await error_of(read(plain))) is ServerError
    assert plain.errors_as_misses == {}


@pytest.mark.parametrize("shape", SHAPES)
async def test_outcomes_have_every_error_and_count_none(shape: str) -> None:
    lenient = failing(shape, ServerError, BytesSerializer(), on_error="miss")
    outcomes = await lenient.get_many_outcomes(["a", "b"])
    assert outcomes.results == {}
    assert {key: (type(error), error.key) for key, error in outcomes.errors.items()} == {
        "a": (ServerError, "a"),
        "b": (ServerError, "b"),
    }
    assert lenient.errors_as_misses == {}


def first_second_and_fourth(refusal: bytes) -> Callable[[Peer], None]:
    """Return a script for four requests: the second is refused with *refusal*, the third gets "busy"."""

    def script(peer: Peer) -> None:
        found, _, _, absent = peer.requests(4)
        found.answer(b"VA 1 f0", b"v")
        peer.send(refusal + b"\r\nSERVER_ERROR busy\r\n")
        absent.answer(b"EN")
        peer.expect_end()

    return script


@pytest.mark.parametrize("kind", ["Connection", "AsyncConnection"])
async def test_a_batch_returns_the_found_values_and_counts_the_errors(kind: str) -> None:
    with ScriptedServer(first_second_and_fourth(b"SERVER_ERROR out of luck")) as server:
        clients = Clients(kind, server.node)
        lenient = clients.blobs(on_error="miss")
        assert await lenient.get_many(["found", "second", "third", "absent"]) == {"found": b"v"}
        assert lenient.errors_as_misses == {"ServerError": 2}
        await clients.aclose()


@pytest.mark.parametrize("kind", ["Connection", "AsyncConnection"])
async def test_one_error_that_cannot_be_a_miss_makes_the_batch_raise_all(kind: str) -> None:
    with ScriptedServer(first_second_and_fourth(b"CLIENT_ERROR bad luck")) as server:
        clients = Clients(kind, server.node)
        lenient = clients.blobs(on_error="miss")
        with pytest.raises(BatchError) as raised:
            await lenient.get_many(["found", "second", "third", "absent"])
        assert raised.value.results == {"found": b"v"}
        assert {key: type(error) for key, error in raised.value.errors.items()} == {
            "second": ClientError,
            "third": ServerError,
        }
        assert lenient.errors_as_misses == {}
        await clients.aclose()
