"""An exception that a signal handler or another thread raises inside a client method propagates unchanged.

Also from inside the serializer and the compressor. Their own exceptions are a miss or a SerializationError.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from time import monotonic, sleep
from typing import Any, Final, TypeVar, cast, final

import pytest

from metacache import (
    AsyncClient,
    Batch,
    BatchError,
    Client,
    Connection,
    DecodeError,
    InvalidKeyError,
    MetacacheError,
    Operation,
    OperationTimeout,
    SerializationError,
    Serializer,
    ServerError,
    ValueTooLargeError,
    load_serializer,
)
from metacache.protocol.windows import Replies
from metacache.testing import FakeServer, FakeTransport, Memcached
from tests.client.interrupting import AsyncQuiet, Interrupter, Quiet, driven
from tests.client.rig import PATIENT, Shaped

R = TypeVar("R")


class SoftTimeLimitExceeded(Exception):
    """Like the exception of Celery that a signal handler raises."""


CLASSES: Final[list[type[Exception]]] = [
    SoftTimeLimitExceeded,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    TimeoutError,
    OSError,
    ConnectionResetError,
    RuntimeError,
    RecursionError,
    MemoryError,
    SerializationError,
    DecodeError,
    OperationTimeout,
    ServerError,
    ValueTooLargeError,
    InvalidKeyError,
]
GOOD: Final = "good"
BAD: Final = "bad"


@final
class Numbers:
    """A serializer in Python that refuses some values and some bytes. It always raises on the same line."""

    wire_id = 224
    fingerprint = 77

    def dumps(self, value: int, /) -> bytes:
        if value < 0:
            raise KeyError(value)
        return b"%d" % self._same(value)

    def loads(self, data: bytes, /) -> int:
        return self._same(int(data))

    def _same(self, number: int) -> int:
        return number


@final
class Halved:
    """A compressor in Python: stores every second byte of data that consists of pairs."""

    compressor_id = 14
    min_size = 4

    def compress(self, data: bytes, /) -> bytes:
        return self._half(data) if data == b"1111" else data

    def decompress(self, data: bytes, /) -> bytes:
        if data != b"11":
            raise IndexError("not compressed by this")
        return b"".join(bytes((byte, byte)) for byte in self._half(data * 2))

    def _half(self, data: bytes) -> bytes:
        return data[::2]


Call = Callable[[AsyncClient[int]], Any]
VERBS: Final[Mapping[str, Call]] = {
    "get": lambda client: client.get(GOOD),
    "get with a default": lambda client: client.get(GOOD, "default"),
    "get of what is bad": lambda client: client.get(BAD),
    "get of what is compressed": lambda client: client.get("small"),
    "get_item": lambda client: client.get_item(GOOD),
    "get_item of what is bad": lambda client: client.get_item(BAD),
    "get_many of hits": lambda client: client.get_many([GOOD, "other"]),
    "get_many": lambda client: client.get_many([GOOD, BAD, "absent", "other", "small"]),
    "get_many of bytes": lambda client: client.get_many([b"good", b"a b"]),
    "get_many_outcomes": lambda client: client.get_many_outcomes([BAD, GOOD]),
    "get_items": lambda client: client.get_items([BAD, GOOD, "absent"]),
    "get_and_touch": lambda client: client.get_and_touch(GOOD, 30),
    "get_and_touch of what is bad": lambda client: client.get_and_touch(BAD, 30),
    "exists": lambda client: client.exists(GOOD),
    "exists of what is compressed": lambda client: client.exists("small"),
    "update": lambda client: client.update(GOOD, lambda _: 1),
    "update of what is bad": lambda client: client.update(BAD, lambda _: -1),
    "set": lambda client: client.set("written", 1),
    "set of bytes": lambda client: client.set("a b", 1, ttl=5),
    "set of what is large": lambda client: client.set("written", 1111),
    "set of what is refused": lambda client: client.set("written", -1),
    "add": lambda client: client.add("written", 1),
    "compare_and_set": lambda client: client.compare_and_set("written", 1111, 1),
    "set_many": lambda client: client.set_many({"written": 1, "too": 1}),
    "set_many of what is refused": lambda client: client.set_many({"written": 1, "too": -1}),
    "set_many with a ttl": lambda client: client.set_many({"written": 1111, "too": 2}, ttl=5),
}
SHAPES: Final = ("Client", "AsyncClient")
OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "plain": {},
    "strict, ignoring, packing": {"on_undecodable": "raise", "on_error": "ignore", "compressor": Halved()},
}


@final
class Bench:
    """A client of one kind, on a transport that can be interrupted only while it reads a reply."""

    def __init__(self, quiet: Quiet, shape: str, options: Mapping[str, Any]) -> None:
        self.quiet = quiet
        serializer: Serializer[int] = Numbers()
        if shape == "AsyncClient":
            self.client = AsyncClient(AsyncQuiet(quiet), serializer, **options)
        else:
            self.client = cast("AsyncClient[int]", Shaped(Client(quiet, serializer, **options)))

    def interrupted(self, verb: Call, interrupter: Interrupter) -> object:
        """Run *verb* and interrupt it; return its result or its exception."""
        self.quiet.interrupter = interrupter
        try:
            return interrupter.run(lambda: driven(verb(self.client)))
        except Exception as error:
            return error


@pytest.fixture
def quiet(shared_memcached: Memcached) -> Iterator[Quiet]:
    connection = Connection(shared_memcached.node, settings=PATIENT)
    quiet = Quiet(connection)
    prepare(Client(quiet, Numbers(), compressor=Halved()), Client(quiet, Halves()))
    yield quiet
    connection.close()


def prepare(client: Client[int], raw: Client[bytes]) -> None:
    client.set_many({GOOD: 5, "other": 6, "small": 1111, "a b": 7})
    raw.set(BAD, b"no number")


@final
class Halves:
    """Bytes with the wire id of `Numbers`."""

    wire_id = 224
    fingerprint = 77

    def dumps(self, value: bytes, /) -> bytes:
        return value

    def loads(self, data: bytes, /) -> bytes:
        return data


# A coroutine that is interrupted before its first step is never awaited.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("from_handler", [True, False], ids=["handler", "elsewhere"])
def test_an_exception_that_interrupts_a_method_propagates_unchanged(
    quiet: Quiet, shape: str, options: str, verb: str, *, from_handler: bool
) -> None:
    bench = Bench(quiet, shape, OPTIONS[options])
    # An error of this package whose traceback has a foreign frame comes from the user's transport.
    classes = [class_ for class_ in CLASSES if from_handler or not issubclass(class_, MetacacheError)]
    at = 0
    for at, class_ in enumerate(itertools.cycle(classes), 1):
        error = class_("of the handler")
        interrupter = Interrupter(at, error, also=("Numbers.", "Halved."), from_handler=from_handler)
        outcome = bench.interrupted(VERBS[verb], interrupter)
        if interrupter.left > 0:
            break
        assert outcome is error, f"place {at}, {class_.__name__}: {outcome!r}"
    assert at > 10
    # An exception keeps such a coroutine in a reference cycle. Its warning belongs to this test, not to a later one.
    gc.collect()


# --- exceptions of a serializer ---------------------------------------------------------------------------------------


@final
class Failing:
    """A serializer that always fails on the same line."""

    wire_id = 224
    fingerprint = 77

    def __init__(self, class_: type[Exception]) -> None:
        self._class = class_

    def dumps(self, value: int, /) -> bytes:
        return self._fail(b"%d" % value) if value < 0 else b"%d" % value

    def loads(self, data: bytes, /) -> int:
        return len(self._fail(data)) if data == b"1" else int(data)

    def _fail(self, data: bytes) -> bytes:
        if self._class is RecursionError:
            return self._fail(data)
        raise self._class(str(data))


@pytest.mark.parametrize("class_", CLASSES)
def test_an_exception_of_a_serializer_is_a_miss_or_a_serialization_error(class_: type[Exception]) -> None:
    server = FakeServer()
    client = Client(FakeTransport(server), Failing(class_))
    strict = Client(FakeTransport(server), Failing(class_), on_undecodable="raise")
    client.set_many({"one": 1, "two": 2})
    assert client.get("one") is None
    assert client.get("one", "default") == "default"
    assert client.get_item("one") is None
    assert client.get_and_touch("one", 5) is None
    for _ in range(2):  # the second time, all header lines are known
        assert client.get_many(["one", "two"]) == {"two": 2}
        with pytest.raises(BatchError) as raised:
            strict.get_many(["one", "two"])
        assert raised.value.results == {"two": 2}
        assert {key: type(error) for key, error in raised.value.errors.items()} == {"one": DecodeError}
    assert client.undecodable["decode"] == 6
    with pytest.raises(DecodeError, match="get 'one'"):
        strict.get("one")
    stores: list[Callable[[], object]] = [
        lambda: client.set("key", -1),
        lambda: client.set("key", -1, ttl=5),
        lambda: client.add("key", -1),
    ]
    for store in stores:
        with pytest.raises(SerializationError):
            store()
    with pytest.raises(SerializationError) as refused:
        client.set_many({"one": 1, "bad": -1})
    assert refused.value.key == "bad"
    assert client.get_many(["key", "bad"]) == {}


# --- exceptions of another thread -------------------------------------------------------------------------------------


@final
class Canned:
    """A transport with one reply."""

    def __init__(self, data: bytes, flags: int) -> None:
        self._header = b"VA %d f%d" % (len(data), flags)
        self._data = data

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:  # noqa: ARG002 - the signature of a transport
        read = op.read
        return read(([b"HD"], None) if op.body is not None else (self._header.split(b" "), self._data))

    def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:  # noqa: ARG002 - as above
        replies = Replies(len(batch))
        replies.headers = [b"HD" if batch.bodies else self._header] * len(batch)
        replies.values = [None if batch.bodies else self._data] * len(batch)
        return replies

    def close(self) -> None:
        pass


RAISE_IN_THREAD: Final[Any] = ctypes.pythonapi.PyThreadState_SetAsyncExc  # Any: ctypes has no type for it
NUMBERS: Final = list(range(20_000))
LISTS: Final[Serializer[list[int]]] = load_serializer("msgspec", list[int])
CYCLES: Final[Mapping[str, Callable[[Client[list[int]]], object]]] = {
    "get": lambda client: client.get("key"),
    "get with a default": lambda client: client.get("key", 0),
    "get_many of one": lambda client: client.get_many(["key"]),
    "get_many": lambda client: client.get_many(["a", "b"]),
    "set": lambda client: client.set("key", NUMBERS),
    "set with a ttl": lambda client: client.set("key", NUMBERS, ttl=5),
    "set_many": lambda client: client.set_many({"key": NUMBERS}),
}


@pytest.mark.parametrize("on_error", ["raise", "ignore"])
@pytest.mark.parametrize("class_", [SoftTimeLimitExceeded, ValueError, TypeError, DecodeError, OperationTimeout])
@pytest.mark.parametrize("verb", CYCLES)
def test_an_exception_injected_after_a_c_serializer_is_never_lost(
    verb: str, class_: type[Exception], on_error: Any
) -> None:
    data = LISTS.dumps(NUMBERS)
    transport = Canned(data, 0b1011 << 28 | LISTS.fingerprint << 12 | LISTS.wire_id)
    client = Client(transport, LISTS, on_error=on_error)
    caught: list[Exception] = []
    calls = 0
    is_over = threading.Event()

    def use() -> None:  # not inside of `work`: since Python 3.12, no `try` covers the backward jump of its inner loop
        nonlocal calls
        while not is_over.is_set():
            CYCLES[verb](client)
            calls += 1

    def work() -> None:
        while not is_over.is_set():
            try:
                use()
            except class_ as error:
                caught.append(error)

    worker = threading.Thread(target=work)
    gc.collect()
    gc.disable()  # Python drops an exception that is raised in a callback of the garbage collector
    worker.start()
    try:
        for number in range(1, 11):
            before = calls
            while calls == before and worker.is_alive():  # until the worker is in `use`
                sleep(0.0001)
            RAISE_IN_THREAD(ctypes.c_ulong(worker.ident or 0), ctypes.py_object(class_))
            until = monotonic() + 5.0
            while len(caught) < number and monotonic() < until:
                sleep(0.0001)
            assert len(caught) == number, "the exception was lost"
    finally:
        is_over.set()
        worker.join()
        gc.enable()
    assert client.statistics.errors == 0
    assert client.undecodable["decode"] == 0
