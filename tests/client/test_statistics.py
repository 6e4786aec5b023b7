"""`client.statistics`: what each method counts, on every transport, and that no count is lost."""

from __future__ import annotations

import dis
import pkgutil
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from time import monotonic
from types import CodeType, FrameType
from typing import Final, TypeVar, final

import attrs
import pytest

import metacache
from metacache import (
    AsyncClient,
    BatchError,
    Client,
    ClientStatistics,
    ClosedError,
    ConnectError,
    DecodeError,
    InvalidArgumentError,
    InvalidKeyError,
    MetacacheError,
    Operation,
    OperationTimeout,
    SerializationError,
)
from metacache.operations.policies import READ, ErrorPolicy, UndecodablePolicy
from metacache.operations.readers import Reader
from metacache.operations.statistics import Counts, count_one
from metacache.protocol.replies import Reply
from metacache.serializers import BytesSerializer, JsonSerializer, StrSerializer
from metacache.serializers.frame import Frame, Undecodable
from tests.client.failing import SHAPES, Failing, failing
from tests.client.rig import Clients, lease, store

R = TypeVar("R")
NOTHING: Final = ClientStatistics(hits=0, misses=0, stale=0, undecodable=0, errors=0)


def counted(hits: int = 0, misses: int = 0, stale: int = 0, undecodable: int = 0, errors: int = 0) -> ClientStatistics:
    return attrs.evolve(NOTHING, hits=hits, misses=misses, stale=stale, undecodable=undecodable, errors=errors)


Call = Callable[[AsyncClient[bytes], str], Awaitable[object]]
# Each of these reads one key.
READS: Final[Mapping[str, Call]] = {
    "get": lambda client, key: client.get(key),
    "get with a default": lambda client, key: client.get(key, "default"),
    "get of bytes": lambda client, key: client.get(key.encode()),
    "get_item": lambda client, key: client.get_item(key),
    "get_many": lambda client, key: client.get_many([key]),
    "get_many again": lambda client, key: client.get_many([key]),
    "get_many of bytes": lambda client, key: client.get_many([key.encode()]),
    "get_many_outcomes": lambda client, key: client.get_many_outcomes([key]),
    "get_items": lambda client, key: client.get_items([key]),
    "get_and_touch": lambda client, key: client.get_and_touch(key, 1000),
    "exists": lambda client, key: client.exists(key),
}
# None of these is a read.
OTHERS: Final[Mapping[str, Call]] = {
    "inspect": lambda client, key: client.inspect(key),
    "touch": lambda client, key: client.touch(key, 1000),
    "set": lambda client, key: client.set(key, b"v"),
    "add": lambda client, key: client.add(key, b"v"),
    "replace": lambda client, key: client.replace(key, b"v"),
    "compare_and_set": lambda client, key: client.compare_and_set(key, b"v", 1),
    "append": lambda client, key: client.append(key, b"v"),
    "update": lambda client, key: client.update(key, lambda value: value or b"v"),
    "set_many": lambda client, key: client.set_many({key: b"v"}),
    "invalidate": lambda client, key: client.invalidate(key, stale_for=30),
    "delete": lambda client, key: client.delete(key),
    "delete_many": lambda client, key: client.delete_many([key]),
}


@pytest.mark.parametrize("value", [b"value", b"", b"1" * 100_000], ids=["small", "empty", "large"])
async def test_a_read_that_returns_a_value_is_a_hit(clients: Clients, key: str, value: bytes) -> None:
    client = clients.blobs()
    await client.set(key, value)
    for number, read in enumerate(READS.values(), 1):
        await read(client, key)
        assert client.statistics == counted(hits=number)


async def test_a_stored_none_is_a_hit(clients: Clients, key: str) -> None:
    client = clients.make(JsonSerializer[None](None))
    await client.set(key, None)
    assert await client.get_many([key]) == {key: None}
    await client.get(key)
    await client.get(key, "default")
    assert client.statistics == counted(hits=3)


async def test_a_read_that_finds_nothing_is_a_miss(clients: Clients, key: str) -> None:
    client = clients.blobs()
    for number, read in enumerate(READS.values(), 1):
        await read(client, key)
        assert client.statistics == counted(misses=number)


async def test_a_lease_is_a_miss(clients: Clients, key: str) -> None:
    client = clients.blobs()
    for number, (name, read) in enumerate(READS.items(), 1):
        lease(clients.node, f"{key}:{name}".replace(" ", "_"))
        await read(client, f"{key}:{name}".replace(" ", "_"))
        assert client.statistics == counted(misses=number)


async def test_a_stale_value_is_a_hit_and_counts_as_stale(clients: Clients, key: str) -> None:
    client = clients.blobs()
    await client.set(key, b"v")
    await client.invalidate(key, stale_for=30)
    for number, read in enumerate(READS.values(), 1):
        await read(client, key)
        assert client.statistics == counted(hits=number, stale=number)


@pytest.mark.parametrize("on_undecodable", ["miss", "raise"])
async def test_an_undecodable_value_is_neither_a_hit_nor_a_miss(
    clients: Clients, key: str, on_undecodable: str
) -> None:
    client = clients.blobs(on_undecodable="raise" if on_undecodable == "raise" else "miss")
    store(clients.node, key, b"v", client_flags=7)
    for number, read in enumerate(READS.values(), 1):
        try:
            await read(client, key)
        except (DecodeError, BatchError):
            assert on_undecodable == "raise"
        assert client.statistics == counted(undecodable=number)
    assert sum(client.undecodable.values()) == len(READS)


async def test_methods_that_are_not_reads_count_nothing(clients: Clients, key: str) -> None:
    client = clients.blobs()
    for call in (*OTHERS.values(), *OTHERS.values()):
        await call(client, key)
    assert client.statistics == NOTHING
    texts = clients.make(StrSerializer())
    store(clients.node, key, b"v", client_flags=7)
    await texts.update(key, lambda _: "v")
    assert texts.statistics == counted(undecodable=1)


async def test_a_batch_counts_each_key(clients: Clients, key: str) -> None:
    client = clients.blobs()
    found = [f"{key}:{number}" for number in range(50)]
    await client.set_many(dict.fromkeys(found, b"value"))
    await client.invalidate(found[7], stale_for=30)
    store(clients.node, found[8], b"v", client_flags=7)
    lease(clients.node, f"{key}:lease")
    absent = [f"{key}:absent:{number}" for number in range(30)]
    keys = [*found, f"{key}:lease", *absent]
    expected = counted(hits=49, stale=1, undecodable=1, misses=31)
    for read in (client.get_many, client.get_many, client.get_items, client.get_many_outcomes):
        before = client.statistics
        await read(keys)
        assert client.statistics - before == expected
    before = client.statistics
    await client.get_many(found[10:])
    assert client.statistics - before == counted(hits=40)


async def test_views_share_the_counts_and_other_clients_do_not(clients: Clients, key: str) -> None:
    client, other = clients.blobs(), clients.blobs()
    view = client.with_options(prefix="other:", on_error="ignore")
    await client.get(key)
    await view.get(key)
    await view.with_options(on_error="miss").get(key)
    assert client.statistics == view.statistics == counted(misses=3)
    assert other.statistics == NOTHING


ALL: Final[Mapping[str, Call]] = {
    **{name: call for name, call in READS.items() if "again" not in name},
    **OTHERS,
    "delete_many_outcomes": lambda client, key: client.delete_many_outcomes([key]),
    "set_many_outcomes": lambda client, key: client.set_many_outcomes({key: b"v"}),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("on_error", ["raise", "miss", "ignore"])
@pytest.mark.parametrize("kind", [OperationTimeout, ConnectError])
async def test_each_failed_call_is_one_error_and_not_a_miss(
    shape: str, on_error: str, kind: type[MetacacheError]
) -> None:
    client = failing(shape, kind, BytesSerializer(), on_error="raise").with_options(
        on_error="miss" if on_error == "miss" else "ignore" if on_error == "ignore" else "raise"
    )
    for number, call in enumerate(ALL.values(), 1):
        with suppress(kind, BatchError):
            await call(client, "key")
        assert client.statistics == counted(errors=number)
    await client.set_many_outcomes({"a": b"", "b": b""})
    assert client.statistics == counted(errors=len(ALL) + 2), "each key of a batch counts"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [ClosedError, InvalidKeyError, InvalidArgumentError, SerializationError])
async def test_an_error_of_the_program_is_not_counted(shape: str, kind: type[MetacacheError]) -> None:
    client = failing(shape, kind, BytesSerializer(), on_error="ignore")
    for call in ALL.values():
        with suppress(kind, BatchError):
            await call(client, "key")
    with pytest.raises(InvalidKeyError):
        await client.get("")
    assert client.statistics == NOTHING


def test_snapshots_are_frozen_and_can_be_subtracted() -> None:
    one, other = counted(hits=5, misses=2, errors=1), counted(hits=2, stale=0, errors=1)
    assert one - other == counted(hits=3, misses=2)
    assert one != other
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        one.hits = 6  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


# --- no count is lost -------------------------------------------------------------------------------------------------


@final
class Canned:
    """A transport with a value for "hit", an undecodable value for "bad", and no other items."""

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:  # noqa: ARG002 - the signature of a transport
        read = op.read
        if op.key == b"hit":
            return read(([b"VA", b"1", b"f0"], b"v"))
        if op.key == b"stale":
            return read(([b"VA", b"1", b"f0", b"X"], b"v"))
        return read(([b"VA", b"1", b"f7"], b"v") if op.key == b"bad" else ([b"EN"], None))

    run_batch = Failing(OperationTimeout).run_batch

    def close(self) -> None:
        pass


@pytest.fixture
def hurried() -> Iterator[None]:
    """Make the interpreter switch threads as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


THREADS: Final = 4
ROUNDS: Final = 100_000


@final
class Counters:
    """The counting parts of a client without the client, so that threads often run them at the same time."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.undecodable = UndecodablePolicy(strict=False)
        self.names: dict[str, int] = {}
        self.errors = ErrorPolicy("miss", self.counts, self.names)
        self._reader = Reader(Frame(BytesSerializer(), reads_plain=True), self.undecodable, self.counts)
        self._found = Undecodable("decode")
        self._error = (OperationTimeout("for the test"),)
        own = Frame(BytesSerializer()).flags
        self._hit: Reply = ([b"VA", b"1", b"f%d" % own], b"v")
        self._stale: Reply = ([b"VA", b"1", b"f%d" % own, b"X"], b"v")
        self._miss: Reply = ([b"EN"], None)

    def use(self) -> None:
        self._reader.value(self._hit)
        self._reader.value(self._miss)
        self._reader.value(self._stale)
        self.counts.add_reads(2, 1)

    def record(self) -> None:
        self.undecodable.record(self._found)

    def fail(self) -> None:
        self.errors.count(self._error)
        self.errors.suppresses_all(READ, self._error)

    def name(self) -> None:
        count_one(self.names, "OperationTimeout")

    def totals(self) -> list[int]:
        counts = self.counts
        names = self.names.get("OperationTimeout", 0)
        return [counts.hits, counts.misses, counts.stale, counts.errors, names, self.undecodable.counts["decode"]]


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    ("use", "expected"),
    [
        (Counters.use, [4, 2, 1, 0, 0, 0]),
        (Counters.record, [0, 0, 0, 0, 0, 1]),
        (Counters.fail, [0, 0, 0, 1, 1, 0]),
        (Counters.name, [0, 0, 0, 0, 1, 0]),
    ],
    ids=["reads", "undecodable", "errors", "names"],
)
def test_threads_lose_no_count(use: Callable[[Counters], None], expected: list[int]) -> None:
    counters = Counters()

    def work() -> None:
        for _ in range(ROUNDS):
            use(counters)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.totals() == [THREADS * ROUNDS * each for each in expected]


@pytest.mark.usefixtures("hurried")
def test_threads_that_share_a_client_lose_no_count() -> None:
    client = Client(Canned(), on_error="miss")

    def work() -> None:
        for _ in range(1_000):
            client.get("hit")
            client.get("stale", None)
            client.get("absent")
            client.get("bad")
            client.get_many(["a", "b"])

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = THREADS * 1_000
    expected = ClientStatistics(hits=2 * total, misses=total, stale=total, undecodable=total, errors=2 * total)
    assert client.statistics == expected
    assert client.undecodable["foreign_flags"] == total
    assert client.errors_as_misses == {"OperationTimeout": 2 * total}


def test_a_signal_handler_that_counts_loses_no_count_and_never_waits() -> None:
    client = Client(Canned(), on_error="miss")
    rounds = [0, 0]

    def use(who: int) -> None:
        rounds[who] += 1
        client.get("hit")
        client.get("absent")
        client.get("bad")
        client.get_many(["a"])

    def handle(_: int, __: FrameType | None) -> None:
        use(1)

    before = signal.signal(signal.SIGALRM, handle)
    try:
        now = monotonic()
        while monotonic() < now + 1.0 or (rounds[1] <= 100 and monotonic() < now + 60.0):
            # One alarm per round: with a repeating timer, handlers would pile up on a slow machine.
            signal.setitimer(signal.ITIMER_REAL, 0.00002 + rounds[0] % 40 * 0.00001)
            use(0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    total = sum(rounds)
    assert rounds[1] > 100
    assert client.statistics == counted(hits=total, misses=total, undecodable=total, errors=total)
    assert client.undecodable["foreign_flags"] == client.errors_as_misses["OperationTimeout"] == total


# --- why no count is lost ---------------------------------------------------------------------------------------------

COUNTERS: Final = frozenset(Counts.__slots__)
# The instructions at which CPython 3.11 to 3.14 may run other threads and signal handlers.
YIELDS: Final = ("CALL", "PRECALL", "JUMP_BACKWARD", "RESUME", "SEND", "YIELD", "FOR_ITER", "JUMP_ABSOLUTE")


def codes_of(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes_of(constant)


def interrupted_counts(code: CodeType) -> list[str]:
    """Return the counters between whose load and store *code* lets other threads run."""
    found: list[str] = []
    since: dict[object, bool] = {}
    for step in dis.get_instructions(code):
        if step.opname.startswith(YIELDS):
            since = dict.fromkeys(since, True)
        elif step.opname == "LOAD_ATTR" and step.argval in COUNTERS:
            since[step.argval] = False
        elif step.opname == "STORE_ATTR" and step.argval in COUNTERS and since.pop(step.argval, False):
            found.append(f"{code.co_qualname}: {step.argval}")
    return found


def test_nothing_runs_between_the_load_and_the_store_of_a_counter() -> None:
    checked = 0
    for module in pkgutil.walk_packages(metacache.__path__, "metacache."):
        if module.name == "metacache.__main__":
            continue
        source = import_module(module.name).__spec__
        assert source is not None
        assert source.loader is not None
        code = source.loader.get_code(module.name)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]
        assert isinstance(code, CodeType)
        for each in codes_of(code):
            assert interrupted_counts(each) == []
            checked += sum(
                step.opname == "STORE_ATTR" and step.argval in COUNTERS for step in dis.get_instructions(each)
            )
    assert checked > 10


def test_the_bytecode_check_finds_a_call_in_between() -> None:
    def bad(counts: Counts, values: list[int]) -> None:
        counts.hits += len(values)

    def good(counts: Counts, values: list[int]) -> None:
        number = len(values)
        counts.hits += number

    assert interrupted_counts(bad.__code__) != []
    assert interrupted_counts(good.__code__) == []
