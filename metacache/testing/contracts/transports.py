"""`TransportContract` and `AsyncTransportContract`: the tests that every transport and transport wrapper must pass.

Both run the same checks. A blocking transport is called from many threads, and an asyncio transport from many tasks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import ClassVar, Final, TypeAlias, TypeVar, final

import attrs

from metacache.client.aio import AsyncClient
from metacache.errors import ClosedError, MetacacheError, ServerError
from metacache.marks import override
from metacache.memory.server import MemoryServer
from metacache.nodes import MemoryAddress, Node
from metacache.operations.batches import GET_MANY
from metacache.operations.requests import GET, SET, operation
from metacache.protocol.replies import Reply
from metacache.protocol.windows import Replies
from metacache.serializers import BytesSerializer, IntSerializer
from metacache.settings import Settings
from metacache.testing.served import ServedMemory
from metacache.transports.base import AsyncTransport, Batch, Operation, Transport

__all__ = ["AsyncTransportContract", "TransportContract"]

R = TypeVar("R")

_SETTINGS: Final = Settings(timeout=4.0, connect_timeout=4.0)
_SOON: Final = 0.2  # seconds: a deadline
_LATE: Final = 2.0  # seconds after which a call with that deadline has ignored it
_WORKERS: Final = 16
_VALUES: Final = (b"", b"\0", b"EN\r\n", b"VA 5 f0\r\nhello\r\nEN\r\n", b"x" * 100_000)


@final
class _InThreads:
    """A blocking transport as an AsyncTransport: each call runs in a thread of its own."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self._threads = ThreadPoolExecutor(_WORKERS)

    async def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        return await self._call(partial(self._inner.run, op, deadline=deadline))

    async def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        return await self._call(partial(self._inner.run_batch, batch, deadline=deadline))

    async def aclose(self) -> None:
        await self._call(self._inner.close)

    async def _call(self, call: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


@final
@attrs.frozen
class _Bench:
    """A transport to check, clients on it, and the embedded server behind it."""

    server: MemoryServer
    transport: AsyncTransport
    client: AsyncClient[bytes]
    numbers: AsyncClient[int]


_Check: TypeAlias = Callable[[_Bench], Awaitable[None]]


class _Checks:
    """The tests of both contracts."""

    in_process: ClassVar[bool] = False

    def _opened(self, node: Node, settings: Settings) -> AsyncTransport:
        raise NotImplementedError

    def _check(self, check: _Check) -> None:
        async def run() -> None:
            async with self._bench() as bench, asyncio.timeout(30):
                await check(bench)

        asyncio.run(run())

    @asynccontextmanager
    async def _bench(self) -> AsyncGenerator[_Bench]:
        server = MemoryServer()
        served = None if self.in_process else ServedMemory(server)
        node = Node(MemoryAddress(server), name="contract") if served is None else served.node
        transport = self._opened(node, _SETTINGS)
        try:
            clients = AsyncClient(transport, BytesSerializer()), AsyncClient(transport, IntSerializer())
            yield _Bench(server, transport, *clients)
        finally:
            server.faults.clear()
            await transport.aclose()
            if served is not None:
                served.close()

    def test_each_method_of_a_client_works(self) -> None:
        """Reads, writes and arithmetic have the results that the server gave."""
        self._check(_each_method_works)

    def test_values_are_not_changed(self) -> None:
        """Values that are empty, large, or look like replies come back the same."""
        self._check(_values_are_not_changed)

    def test_the_result_is_what_the_operation_reads(self) -> None:
        """``run`` returns the object that ``op.read`` returns."""
        self._check(_result_is_what_is_read)

    def test_a_batch_has_a_reply_for_each_request(self) -> None:
        """Replies are in the order of the requests, and a miss has no value."""
        self._check(_batch_has_all_replies)

    def test_a_server_error_is_raised_and_the_next_call_works(self) -> None:
        """An error line of the server is a ServerError of its own request."""
        self._check(_server_error_is_raised)

    def test_a_failed_part_of_a_batch_fails_alone(self) -> None:
        """An error line in a batch is the error of one request. ``run_batch`` does not raise."""
        self._check(_part_fails_alone)

    def test_a_batch_on_a_lost_connection_has_an_error_for_each_request(self) -> None:
        """``run_batch`` does not raise when the connection is lost."""
        self._check(_lost_batch_has_errors)

    def test_a_value_that_is_cut_is_never_returned(self) -> None:
        """A value that arrives in part is an error, or is read again completely."""
        self._check(_cut_value_is_not_returned)

    def test_a_write_is_never_sent_twice(self) -> None:
        """A write whose reply is lost raises, says that it may have been applied, and is applied once."""
        self._check(_write_is_sent_once)

    def test_a_deadline_is_obeyed(self) -> None:
        """A call with a deadline fails at the deadline with a MetacacheError that is a TimeoutError."""
        self._check(_deadline_is_obeyed)

    def test_a_deadline_of_a_batch_is_obeyed(self) -> None:
        """A batch with a deadline has an error for each request at the deadline."""
        self._check(_batch_deadline_is_obeyed)

    def test_an_exception_of_a_reader_propagates_unchanged(self) -> None:
        """What ``op.read`` raises reaches the caller, and the transport works on."""
        self._check(_reader_may_raise)

    def test_operations_and_batches_are_not_changed(self) -> None:
        """A transport sends an operation and leaves it unchanged."""
        self._check(_operations_are_not_changed)

    def test_concurrent_calls_get_their_own_values(self) -> None:
        """Threads, or tasks, that share the transport never get the value of another call."""
        self._check(_concurrent_calls_get_their_own)

    def test_a_closed_transport_refuses(self) -> None:
        """After a close, which may be repeated, ``run`` and ``run_batch`` raise ClosedError."""
        self._check(_closed_transport_refuses)


class TransportContract(_Checks):
    """Tests of a blocking transport or wrapper. Subclass it in a test module, with a name that begins with ``Test``.

    Attributes:
        in_process: True: the node is an embedded server in this process; False: one on a loopback port.
    """

    def transport(self, node: Node, settings: Settings) -> Transport:
        """Return a new transport for *node*. A wrapper wraps ``Pool(node, settings=settings)``."""
        raise NotImplementedError("override transport(self, node, settings)")

    @override
    def _opened(self, node: Node, settings: Settings) -> AsyncTransport:
        return _InThreads(self.transport(node, settings))


class AsyncTransportContract(_Checks):
    """Tests of an asyncio transport or wrapper, as `TransportContract`. Each test runs an event loop of its own."""

    def transport(self, node: Node, settings: Settings) -> AsyncTransport:
        """Return a new transport for *node*. A wrapper wraps ``AsyncPool(node, settings=settings)``."""
        raise NotImplementedError("override transport(self, node, settings)")

    @override
    def _opened(self, node: Node, settings: Settings) -> AsyncTransport:
        return self.transport(node, settings)


# --- the checks ------------------------------------------------------------------------------------------------------


async def _each_method_works(bench: _Bench) -> None:
    client, numbers = bench.client, bench.numbers
    assert await client.get("key") is None, "get of an absent key is not None"
    assert await client.set("key", b"value", ttl=100), "set did not store"
    assert await client.get("key") == b"value", "get does not return what set stored"
    assert not await client.add("key", b"other"), "add replaced an item"
    item = await client.get_item("key")
    assert item is not None, "get_item does not find what set stored"
    assert await client.compare_and_set("key", b"new", item.cas), "compare_and_set with the right CAS did not store"
    assert not await client.compare_and_set("key", b"newer", item.cas), "compare_and_set with an old CAS stored"
    assert await client.touch("key", 50) is True, "touch does not find the item"
    assert await numbers.increment("n", initial=5) == 5, "increment does not create the number"
    assert await numbers.increment("n", 2) == 7, "increment does not add"
    assert await client.delete("key"), "delete does not find the item"
    assert await client.get("key") is None, "get finds a deleted item"


async def _values_are_not_changed(bench: _Bench) -> None:
    for value in _VALUES:
        await bench.client.set("key", value)
        found = await bench.client.get("key")
        assert found == value, f"a value of {len(value)} bytes came back as {_size(found)}"


async def _result_is_what_is_read(bench: _Bench) -> None:
    wanted = object()

    def read(_: Reply) -> object:
        return wanted

    assert await bench.transport.run(_get(read)) is wanted, "run returns something else than op.read"


async def _batch_has_all_replies(bench: _Bench) -> None:
    values = {f"key-{number}": b"%d" % number * (number % 7) for number in range(300)}
    assert all((await bench.client.set_many(values)).values()), "set_many did not store all"
    asked = [key for number in range(300) for key in (f"key-{number}", f"none-{number}")]
    assert await bench.client.get_many(asked) == values, "get_many does not return what set_many stored"
    replies = await bench.transport.run_batch(_batch("none", "key-1", "key-2"), deadline=time.monotonic() + 4)
    assert replies.values == [None, b"1", b"22"], f"the values of a batch are {replies.values}"
    assert replies.errors == {}, "a batch without failures has errors"
    assert all((await bench.client.delete_many(values)).values()), "delete_many did not delete all"


async def _server_error_is_raised(bench: _Bench) -> None:
    bench.server.faults.on("mg").error("SERVER_ERROR out of memory")
    error = await _failure(lambda: bench.client.get("key"))
    assert isinstance(error, ServerError), f"an error line of the server became {error!r}"
    assert await bench.client.set("key", b"1"), "the call after a server error fails"


async def _part_fails_alone(bench: _Bench) -> None:
    await bench.client.set_many({"a": b"1", "b": b"2", "c": b"3"})
    bench.server.faults.on("mg", n=2).error("SERVER_ERROR out of memory")
    replies = await bench.transport.run_batch(_batch("a", "b", "c"), deadline=time.monotonic() + 4)
    assert set(replies.errors) == {1}, f"requests {set(replies.errors)} failed, not only request 1"
    assert isinstance(replies.errors[1], ServerError), f"the error is {replies.errors[1]!r}"
    assert (replies.values[0], replies.values[2]) == (b"1", b"3"), "the other requests lost their values"


async def _lost_batch_has_errors(bench: _Bench) -> None:
    bench.server.faults.on("mg", times=None).reset()
    replies = await bench.transport.run_batch(_batch("a", "b", "c"), deadline=time.monotonic() + 4)
    assert set(replies.errors) == {0, 1, 2}, f"only requests {set(replies.errors)} of 3 have errors"
    assert all(isinstance(error, MetacacheError) for error in replies.errors.values()), "an error is foreign"
    bench.server.faults.clear()
    assert await bench.client.get("a") is None, "the call after a lost connection fails"


async def _cut_value_is_not_returned(bench: _Bench) -> None:
    value = b"value " * 1000
    await bench.client.set("key", value)
    for times in (1, 2, 3):
        bench.server.faults.on("mg", times=times).close_mid_value()
        try:
            found = await bench.client.get("key")
        except MetacacheError:
            pass
        else:
            assert found == value, f"a value of {len(value)} bytes was cut and returned as {_size(found)}"
        bench.server.faults.clear()


async def _write_is_sent_once(bench: _Bench) -> None:
    await bench.numbers.set("n", 1)
    bench.server.faults.on("ma").close()
    error = await _failure(lambda: bench.numbers.increment("n"))
    assert isinstance(error, MetacacheError), f"an increment whose reply was lost raised {error!r}"
    assert error.maybe_applied, "the error of an increment that was sent says that it was not applied"
    found = await bench.numbers.get("n")
    assert found == 2, f"one increment of 1 made {found}"


async def _deadline_is_obeyed(bench: _Bench) -> None:
    bench.server.faults.on("mg").stop_reading()
    began = time.monotonic()
    error = await _failure(lambda: bench.transport.run(_get(lambda reply: reply), deadline=began + _SOON))
    taken = time.monotonic() - began
    assert taken < _LATE, f"a call with a deadline of {_SOON} s took {taken:.1f} s: is the deadline forwarded?"
    assert isinstance(error, MetacacheError), f"the call raised {error!r}"
    assert isinstance(error, TimeoutError), f"the call raised {error!r}, which is no TimeoutError"


async def _batch_deadline_is_obeyed(bench: _Bench) -> None:
    bench.server.faults.on("mg").stop_reading()
    began = time.monotonic()
    replies = await bench.transport.run_batch(_batch("a", "b"), deadline=began + _SOON)
    taken = time.monotonic() - began
    assert taken < _LATE, f"a batch with a deadline of {_SOON} s took {taken:.1f} s: is the deadline forwarded?"
    assert set(replies.errors) == {0, 1}, f"requests {set(replies.errors)} of 2 have errors"


async def _reader_may_raise(bench: _Bench) -> None:
    raised = ZeroDivisionError("raised by a reader")

    def read(_: Reply) -> object:
        raise raised

    assert await _failure(lambda: bench.transport.run(_get(read))) is raised, "another exception than that of op.read"
    assert await bench.client.get("key") is None, "the call after an exception of op.read fails"


async def _operations_are_not_changed(bench: _Bench) -> None:
    body = b"value"
    op = operation(SET, "key", b"key", b"ms key 5", body, lambda reply: reply)
    fields = ("verb", "given", "key", "head", "body", "read")
    before = [getattr(op, field) for field in fields]
    for _ in range(2):
        await bench.transport.run(op)
        assert [getattr(op, field) for field in fields] == before, "run changed the operation"
    batch = _batch("a", "b")
    lists = (list(batch.given), list(batch.keys), list(batch.heads))
    await bench.transport.run_batch(batch, deadline=time.monotonic() + 4)
    assert (list(batch.given), list(batch.keys), list(batch.heads)) == lists, "run_batch changed the batch"


async def _concurrent_calls_get_their_own(bench: _Bench) -> None:
    async def work(name: str) -> None:
        value = name.encode() * 50
        await bench.client.set(name, value)
        for _ in range(15):
            found = await bench.client.get(name)
            assert found == value, f"the caller of {name} got {_size(found)}"
            many = await bench.client.get_many([name, "none"])
            assert many == {name: value}, f"the batch of {name} got the values of another call"

    await asyncio.gather(*(work(f"worker-{number}-") for number in range(_WORKERS)))


async def _closed_transport_refuses(bench: _Bench) -> None:
    await bench.client.set("key", b"value")
    await bench.transport.aclose()
    await bench.transport.aclose()
    error = await _failure(lambda: bench.transport.run(_get(lambda reply: reply)))
    assert isinstance(error, ClosedError), f"run after a close raised {error!r}"
    error = await _failure(lambda: bench.transport.run_batch(_batch("a"), deadline=time.monotonic() + 4))
    assert isinstance(error, ClosedError), f"run_batch after a close raised {error!r}"


# --- helpers ---------------------------------------------------------------------------------------------------------


def _get(read: Callable[[Reply], R]) -> Operation[R]:
    return operation(GET, "key", b"key", b"mg key v", None, read)


def _batch(*keys: str) -> Batch:
    return Batch(GET_MANY, keys, [key.encode() for key in keys], [b"mg %b v" % key.encode() for key in keys])


async def _failure(call: Callable[[], Awaitable[object]]) -> BaseException | None:
    """Return what *call* raises; None if it succeeds."""
    try:
        await call()
    except Exception as error:
        return error
    return None


def _size(value: bytes | None) -> str:
    return "a miss" if value is None else f"{len(value)} other bytes"
