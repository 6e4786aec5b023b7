"""`on_error="ignore"`: if servers or the network fail, reads miss and writes return FAILED. Both are counted."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import timedelta
from types import FrameType
from typing import Any, Final, TypeVar, cast, final

import pytest

from metacache import (
    AsyncClient,
    BatchError,
    Client,
    ClientError,
    DeleteResult,
    InvalidArgumentError,
    InvalidKeyError,
    MetacacheError,
    Operation,
    OperationTimeout,
    SerializationError,
    ServerError,
    StoreResult,
    ValueTooLargeError,
    Zlib,
)
from metacache.protocol.windows import Replies
from metacache.serializers import BytesSerializer, IntSerializer
from metacache.transports.base import Batch
from tests.client.failing import SHAPES, failing
from tests.client.rig import Clients, Shaped
from tests.client.test_errors_as_misses import FAULTS, MISSES, READS, error_of
from tests.scripted import Peer, ScriptedServer

R = TypeVar("R")

Call = Callable[[AsyncClient[Any]], Awaitable[object]]
FAILED: Final = StoreResult.FAILED
NOT_DELETED: Final = DeleteResult.FAILED
# The result of a write whose error is ignored.
WRITES: Final[Mapping[str, tuple[Call, object]]] = {
    "set": (lambda client: client.set("k", 5), FAILED),
    "set with a ttl": (lambda client: client.set(b"k", 5, ttl=5), FAILED),
    "add": (lambda client: client.add("k", 5), FAILED),
    "replace": (lambda client: client.replace("k", 5), FAILED),
    "compare_and_set": (lambda client: client.compare_and_set("k", 5, 1), FAILED),
    "delete": (lambda client: client.delete("k"), NOT_DELETED),
    "delete with a cas": (lambda client: client.delete("k", cas=1), NOT_DELETED),
    "invalidate": (lambda client: client.invalidate("k", stale_for=timedelta(seconds=5)), False),
    "touch": (lambda client: client.touch("k", 5), False),
    "get_and_touch": (lambda client: client.get_and_touch("k", 5), None),
    "increment": (lambda client: client.increment("k"), None),
    "increment with a ttl": (lambda client: client.increment("k", 2, ttl=5), None),
    "increment with initial": (lambda client: client.increment("k", 2, initial=7), 7),
    "increment with initial 0": (lambda client: client.increment("k", 2, initial=0), 0),
    "decrement": (lambda client: client.decrement("k"), None),
    "decrement with initial": (lambda client: client.decrement("k", 2, initial=7, ttl=5), 7),
    "set_many": (lambda client: client.set_many({"k": 5}), {"k": FAILED}),
    "delete_many": (lambda client: client.delete_many(["k"]), {"k": NOT_DELETED}),
}
CONCATENATIONS: Final[Mapping[str, tuple[Call, object]]] = {
    "append": (lambda client: client.append("k", b"v"), FAILED),
    "prepend": (lambda client: client.prepend("k", b"v"), FAILED),
}
OUTCOMES: Final[Mapping[str, Callable[[AsyncClient[int]], Awaitable[Any]]]] = {
    "get_many_outcomes": lambda client: client.get_many_outcomes(["k"]),
    "set_many_outcomes": lambda client: client.set_many_outcomes({"k": 5}),
    "delete_many_outcomes": lambda client: client.delete_many_outcomes(["k"]),
}


# Any: the methods in the tables belong to clients of several types.
def numbers(shape: str, kind: type[MetacacheError], on_error: Any) -> AsyncClient[Any]:
    return failing(shape, kind, IntSerializer(), on_error=on_error)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", MISSES)
async def test_a_failure_of_server_or_network_is_ignored_in_every_method(
    shape: str, kind: type[MetacacheError]
) -> None:
    client = numbers(shape, kind, "ignore")
    for count, (call, result) in enumerate((*READS.values(), *WRITES.values()), 1):
        returned = await call(client)
        assert returned == result
        assert type(returned) is type(result)
        assert client.errors_as_misses == {kind.__name__: count}
        assert client.statistics.errors == count
    blobs = failing(shape, kind, BytesSerializer(), on_error="ignore")
    for call, result in CONCATENATIONS.values():
        assert await call(blobs) is result
    assert blobs.errors_as_misses == {kind.__name__: 2}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", FAULTS)
async def test_an_error_of_the_program_is_never_ignored(shape: str, kind: type[MetacacheError]) -> None:
    client = numbers(shape, kind, "ignore")
    for call, _ in (*READS.values(), *WRITES.values()):
        assert type(await error_of(call(client))) is kind
    assert client.errors_as_misses == {}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", MISSES)
async def test_update_always_raises(shape: str, kind: type[MetacacheError]) -> None:
    client = numbers(shape, kind, "ignore")
    assert type(await error_of(client.update("k", lambda _: 5))) is kind
    assert client.errors_as_misses == {}
    assert client.statistics.errors == 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("on_error", ["raise", "miss"])
async def test_every_write_raises_with_other_policies(shape: str, on_error: str) -> None:
    client = numbers(shape, OperationTimeout, on_error)
    for call, _ in WRITES.values():
        assert type(await error_of(call(client))) is OperationTimeout
    assert client.errors_as_misses == {}


@pytest.mark.parametrize("shape", SHAPES)
async def test_outcomes_have_every_error_with_ignore_too(shape: str) -> None:
    client = numbers(shape, ServerError, "ignore")
    for number, call in enumerate(OUTCOMES.values(), 1):
        outcomes = await call(client)
        assert outcomes.results == {}
        assert {key: type(error) for key, error in outcomes.errors.items()} == {"k": ServerError}
        assert client.statistics.errors == number
    assert client.errors_as_misses == {}


@pytest.mark.parametrize("shape", SHAPES)
async def test_an_error_before_the_request_is_raised(shape: str) -> None:
    client = numbers(shape, ServerError, "ignore")
    for call in (client.set("", 5), client.get(""), client.set_many({"": 5})):
        assert type(await error_of(call)) is InvalidKeyError
    for call in (client.set("k", 5, ttl=-1), client.increment("k", -1), client.touch("k", 0)):
        assert type(await error_of(call)) is InvalidArgumentError
    for call in (client.set("k", cast("int", "5")), client.set_many({"k": cast("int", "5")})):
        assert type(await error_of(call)) is SerializationError
    packing = failing(
        shape, ServerError, BytesSerializer(), on_error="ignore", compressor=Zlib(max_decompressed_size=9)
    )
    assert type(await error_of(packing.set("k", b"v" * 10_000))) is ValueTooLargeError
    assert client.statistics.errors == packing.statistics.errors == 0


def test_failed_is_falsy() -> None:
    assert not FAILED
    assert not NOT_DELETED


def first_and_last(refusal: bytes) -> Callable[[Peer], None]:
    """Return a script for three stores: the second is refused with *refusal*."""

    def script(peer: Peer) -> None:
        first, _, last = peer.requests(3)
        first.answer(b"HD")
        peer.send(refusal + b"\r\n")
        last.answer(b"NS")
        peer.expect_end()

    return script


@pytest.mark.parametrize("kind", ["Connection", "AsyncConnection"])
async def test_a_batch_has_failed_for_each_key_that_failed(kind: str) -> None:
    with ScriptedServer(first_and_last(b"SERVER_ERROR out of luck")) as server:
        clients = Clients(kind, server.node)
        client = clients.blobs(on_error="ignore")
        assert await client.set_many({"a": b"1", "b": b"2", "c": b"3"}) == {
            "a": StoreResult.STORED,
            "b": FAILED,
            "c": StoreResult.NOT_STORED,
        }
        assert client.errors_as_misses == {"ServerError": 1}
        await clients.aclose()


@pytest.mark.parametrize("kind", ["Connection", "AsyncConnection"])
async def test_one_error_that_cannot_be_ignored_makes_the_batch_raise(kind: str) -> None:
    def script(peer: Peer) -> None:
        first, _, last = peer.requests(3)
        first.answer(b"HD")
        peer.send(b"CLIENT_ERROR bad luck\r\n")
        last.answer(b"NF")
        peer.expect_end()

    with ScriptedServer(script) as server:
        clients = Clients(kind, server.node)
        client = clients.blobs(on_error="ignore")
        with pytest.raises(BatchError) as raised:
            await client.delete_many(["a", "b", "c"])
        assert raised.value.results == {"a": DeleteResult.DELETED, "c": DeleteResult.NOT_FOUND}
        assert {key: type(error) for key, error in raised.value.errors.items()} == {"b": ClientError}
        assert client.errors_as_misses == {}
        await clients.aclose()


# --- interruptions are never ignored ---------------------------------------------------------------------------------


class Wrapper:
    """A user's transport that raises errors, or is interrupted by a signal handler that raises one."""

    def __init__(self, *, is_interrupted: bool) -> None:
        self._is_interrupted = is_interrupted

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:  # noqa: ARG002 - the signature of a transport
        self._fail()
        raise AssertionError(op)

    def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:  # noqa: ARG002 - as above
        self._fail()
        raise AssertionError(batch)

    def _fail(self) -> None:
        if self._is_interrupted:
            signal.raise_signal(signal.SIGALRM)
        raise OperationTimeout

    def close(self) -> None:
        pass


@final
class AsyncWrapper:
    """The asyncio form of `Wrapper`."""

    def __init__(self, wrapper: Wrapper) -> None:
        self._wrapper = wrapper

    async def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        return self._wrapper.run(op, deadline=deadline)

    async def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        return self._wrapper.run_batch(batch, deadline=deadline)

    async def aclose(self) -> None:
        pass


def wrapped(shape: str, *, is_interrupted: bool) -> AsyncClient[Any]:  # Any: as above
    wrapper = Wrapper(is_interrupted=is_interrupted)
    if shape == "AsyncClient":
        return AsyncClient(AsyncWrapper(wrapper), IntSerializer(), on_error="ignore")
    return cast("AsyncClient[int]", Shaped(Client(wrapper, IntSerializer(), on_error="ignore")))


@pytest.fixture(params=["with arguments", "without"])
def raised_by_handler(request: pytest.FixtureRequest) -> Iterator[MetacacheError]:
    error = OperationTimeout("of the handler") if request.param == "with arguments" else OperationTimeout()

    def handle(_: int, __: FrameType | None) -> None:
        raise error

    before = signal.signal(signal.SIGALRM, handle)
    yield error
    signal.signal(signal.SIGALRM, before)


EVERY: Final[Mapping[str, Call]] = {
    **{name: call for name, (call, _) in (*READS.items(), *WRITES.items())},
    **OUTCOMES,
    "update": lambda client: client.update("k", lambda _: 5),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("verb", EVERY)
async def test_an_error_that_a_signal_handler_raises_is_not_ignored(
    raised_by_handler: MetacacheError, shape: str, verb: str
) -> None:
    client = wrapped(shape, is_interrupted=True)
    with pytest.raises(OperationTimeout) as raised:
        await EVERY[verb](client)
    assert raised.value is raised_by_handler
    assert client.errors_as_misses == {}
    assert client.statistics.errors == 0


@pytest.mark.parametrize("shape", SHAPES)
async def test_an_error_that_a_wrapper_raises_is_ignored(shape: str) -> None:
    client = wrapped(shape, is_interrupted=False)
    for number, (call, result) in enumerate((*READS.values(), *WRITES.values()), 1):
        assert await call(client) == result
        assert client.errors_as_misses == {"OperationTimeout": number}
