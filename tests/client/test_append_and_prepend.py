"""`append` and `prepend` extend an item that this client can read, exactly once, and change no other item."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, TypeAlias, TypeVar

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from metacache import (
    AsyncClient,
    AsyncCluster,
    Client,
    Cluster,
    ConflictError,
    Connection,
    DecodeError,
    InvalidArgumentError,
    Node,
    Pool,
    Serializer,
    ServerError,
    Settings,
    StoreResult,
    Transport,
    ValueTooLargeError,
    Zlib,
)
from metacache.protocol.flags import Token
from metacache.serializers import BytesSerializer, StrSerializer
from metacache.testing import FakeServer, Memcached
from tests.client.rig import KINDS, PATIENT, Clients, ask, lease, store
from tests.client.states import FLAGS, MAGIC, STATES, TTL, Seen, all_items, look, put
from tests.client.watched import FAKES, REAL, on_a_fake, on_a_memcached
from tests.conftest import start
from tests.raw_requests import meta_delete, meta_get

T = TypeVar("T")

STORED, NOT_STORED = StoreResult.STORED, StoreResult.NOT_STORED


async def grown(client: AsyncClient[T], verb: str, key: str, value: T) -> object:
    """Return the result of the call, or the class of its error."""
    try:
        return await getattr(client, verb)(key, value)
    except DecodeError as error:
        located = (error.operation, error.key, error.maybe_applied) == (verb, key, False) and error.node is not None
        return DecodeError if located else error


# --- every item -------------------------------------------------------------------------------------------------------


def expected(state: str, flags: str, wire_id: int, *, strict: bool) -> object:
    """Return the expected result of append and prepend. It states the rule independently of the code."""
    value, is_stale, _ = STATES[state]
    if value is None or (value == b"" and is_stale and flags == "none"):
        return NOT_STORED  # a lease, or an item that looks like one
    if FLAGS[flags] not in (0, MAGIC | wire_id, MAGIC | 0x1234 << 12 | wire_id):
        return DecodeError if strict else NOT_STORED
    return NOT_STORED if is_stale else STORED


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("verb", ["append", "prepend"])
@pytest.mark.parametrize(("serializer", "more"), [(BytesSerializer(), b"+"), (StrSerializer(), "+")])
async def test_every_item_is_extended_or_unchanged(
    clients: Clients, key: str, verb: str, serializer: Serializer[T], more: T, *, strict: bool
) -> None:
    client = clients.make(serializer, on_undecodable="raise" if strict else "miss")
    wrong: list[object] = []
    undecodable = 0
    for number, (state, flags) in enumerate(all_items()):
        case = f"{key}:{number}"
        put(clients.node, case, state, flags)
        result = await grown(client, verb, case, more)
        wanted = expected(state, flags, serializer.wire_id, strict=strict)
        undecodable += expected(state, flags, serializer.wire_id, strict=True) is DecodeError
        seen = look(clients.node, case)
        if result is not wanted or not is_right(seen, state, flags, verb, grew=wanted is STORED):
            wrong.append((state, flags, result, seen))
    assert wrong == []
    assert sum(client.undecodable.values()) == undecodable


def is_right(seen: Seen | None, state: str, flags: str, verb: str, *, grew: bool) -> bool:
    """Check that the item is extended or unchanged: value, flags, TTL, stale mark and win flag."""
    value, is_stale, is_taken = STATES[state]
    body = value or b""
    if grew:
        body = body + b"+" if verb == "append" else b"+" + body
    is_leased = value is None and not is_stale
    marks = {b"X", b"Z" if is_taken else b"W"} if is_stale else {b"Z"} if is_leased else set[bytes]()
    if seen is None or not TTL - 10 < seen.ttl <= TTL:
        return False
    return (seen.value, seen.client_flags) == (body, FLAGS[flags]) and not seen.marks ^ marks


async def test_an_absent_item_takes_one_request_and_stays_absent(clients: Clients, key: str) -> None:
    assert await clients.blobs().append(key, b"v") is NOT_STORED
    assert await clients.make(StrSerializer()).prepend(key, "v") is NOT_STORED
    assert clients.sent == ["append", "prepend"]
    assert look(clients.node, key) is None


async def test_undecodable_items_are_counted_by_cause_as_in_reads(clients: Clients, key: str) -> None:
    blobs = clients.blobs()
    for flags in ("bytes zlib", "bytes unknown", "str", "another client 16"):
        put(clients.node, key, "fresh", flags)
        await blobs.append(key, b"+")
    counts = dict.fromkeys(blobs.undecodable, 0) | {"compressor": 2, "wire_id": 1, "foreign_flags": 1}
    assert blobs.undecodable == counts


@pytest.mark.parametrize("more", [b"", b"+", b"\r\nEN\r\n", b"x" * 10_000])
async def test_any_bytes_can_be_appended(blobs: AsyncClient[bytes], key: str, more: bytes) -> None:
    await blobs.set(key, b"body")
    assert await blobs.append(key, more) is STORED
    assert await blobs.prepend(key, more) is STORED
    assert await blobs.get(key) == more + b"body" + more


async def test_append_takes_keys_of_every_kind(clients: Clients, key: str) -> None:
    blobs = clients.make(BytesSerializer(), prefix="p ", long_keys="hash")
    for odd in (key, key.encode(), f"{key} b", f"{key}\x00\n", f"{key} é", "k" * 300 + key, b"\xff" * 200):
        await blobs.set(odd, b"1")
        assert await blobs.append(odd, b"2") is STORED
        assert await blobs.prepend(odd, b"0") is STORED
        assert await blobs.get(odd) == b"012"


async def test_invalid_arguments_are_refused_before_the_first_request(clients: Clients, key: str) -> None:
    blobs = clients.blobs()
    with pytest.raises(ValueError, match="append"):
        await blobs.append("k" * 251, b"v")
    with pytest.raises(InvalidArgumentError, match="no compressor"):
        await clients.make(BytesSerializer(), compressor=Zlib()).append(key, b"v")
    assert clients.sent == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_value_beyond_the_clients_own_limit_changes_nothing(shared_memcached: Memcached, kind: str) -> None:
    clients = Clients(kind, shared_memcached.node, Settings(timeout=10.0, max_value_size=10))
    key = f"growing:limit:{kind}"
    store(clients.node, key, b"body")
    with pytest.raises(ValueTooLargeError):
        await clients.blobs().append(key, b"x" * 11)
    seen = look(clients.node, key)
    assert seen is not None
    assert seen.value == b"body"
    await clients.aclose()


async def test_an_item_that_would_exceed_the_servers_limit_is_unchanged(blobs: AsyncClient[bytes], key: str) -> None:
    await blobs.set(key, b"x" * 1_000_000)
    assert await blobs.append(key, b"y" * 100_000) is NOT_STORED
    assert await blobs.get(key) == b"x" * 1_000_000


async def test_a_value_beyond_the_servers_limit_leaves_no_value(blobs: AsyncClient[bytes], key: str) -> None:
    await blobs.set(key, b"body")
    with pytest.raises(ServerError, match="too large") as raised:
        await blobs.append(key, b"y" * 2_000_000)
    assert (raised.value.operation, raised.value.key) == ("append", key)
    assert await blobs.get(key) is None
    assert await blobs.set(key, b"new") is STORED


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_without_cas_is_refused_before_anything_is_added(kind: str) -> None:
    with start("-C") as server:
        clients = Clients(kind, server.node)
        blobs = clients.blobs()
        await blobs.set("k", b"body")
        clients.sent.clear()
        for verb in ("append", "prepend"):
            with pytest.raises(ServerError, match="without CAS") as raised:
                await getattr(blobs, verb)("k", b"+")
            assert (raised.value.operation, raised.value.key) == (verb, "k")
            assert raised.value.node == server.node.name
            assert not raised.value.maybe_applied
        assert clients.sent == ["append", "prepend"], "one exchange each"
        assert await blobs.get("k") == b"body"
        assert await blobs.append("none", b"+") is NOT_STORED
        await clients.aclose()


# --- other writers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["append", "prepend"])
@pytest.mark.parametrize("kind", REAL)
async def test_append_gives_up_if_other_writers_are_always_first(
    shared_memcached: Memcached, kind: str, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metacache.operations.recipes.LONGEST_PAUSE", 0)
    watched = on_a_memcached(kind, shared_memcached)
    key = f"growing:never:{kind}:{verb}"
    store(shared_memcached.node, key, b"0")

    def come_first(number: int, is_done: bool) -> None:
        if number % 2 == 1 and not is_done:
            store(shared_memcached.node, key, b"%d" % number)

    watched.hook = come_first
    with pytest.raises(ConflictError, match="in each of 64 attempts") as raised:
        await getattr(watched.make(BytesSerializer()), verb)(key, b"+")
    assert (raised.value.operation, raised.value.key, raised.value.maybe_applied) == (verb, key, False)
    assert watched.sent == [verb] * 128
    seen = look(shared_memcached.node, key)
    assert seen is not None
    assert seen.value == b"127"
    await watched.aclose()


# What another writer does between the precheck and the append, the value after it, and the result of the append.
Rival = tuple[Callable[[Node, str], object], bytes | None, StoreResult]
RIVALS: Final[Mapping[str, Rival]] = {
    "stores": (lambda node, key: store(node, key, b"new"), b"new+", STORED),
    "stores the same": (lambda node, key: store(node, key, b"body"), b"body+", STORED),
    "appends": (lambda node, key: store(node, key, b"-", mode="A"), b"body-+", STORED),
    "touches": (lambda node, key: ask(node, meta_get(key.encode(), {"ttl": 50})), b"body+", STORED),
    "reads": (lambda node, key: look(node, key), b"body+", STORED),
    "deletes": (lambda node, key: delete(node, key), None, NOT_STORED),
    "takes a lease": (lambda node, key: retaken(node, key), b"", NOT_STORED),
    "marks it stale": (lambda node, key: delete(node, key, invalidate=True), b"body", NOT_STORED),
    "compresses": (lambda node, key: store(node, key, b"x", client_flags=FLAGS["bytes zlib"]), b"x", NOT_STORED),
    "stores json": (lambda node, key: store(node, key, b"{}", client_flags=FLAGS["json"]), b"{}", NOT_STORED),
}


def delete(node: Node, key: str, **flags: Token) -> None:
    ask(node, meta_delete(key.encode(), flags))


def retaken(node: Node, key: str) -> None:
    delete(node, key)
    lease(node, key)


@pytest.mark.parametrize("rival", RIVALS)
@pytest.mark.parametrize("kind", REAL)
async def test_the_change_of_another_writer_is_not_lost(shared_memcached: Memcached, kind: str, rival: str) -> None:
    watched = on_a_memcached(kind, shared_memcached)
    node, key = shared_memcached.node, f"growing:rival:{kind}:{rival.replace(' ', '-')}"
    act, value, result = RIVALS[rival]
    store(node, key, b"body")

    def intervene(number: int, is_done: bool) -> None:
        if (number, is_done) == (0, True):
            act(node, key)

    watched.hook = intervene
    assert await watched.make(BytesSerializer()).append(key, b"+") is result
    seen = look(node, key)
    assert (None if seen is None else seen.value) == value
    await watched.aclose()


ItemState: TypeAlias = tuple[bytes, int, float | None, bool, bool] | None
"""Value, client flags, end of the TTL, whether it is stale, and whether it is a lease or its win flag is consumed."""


@dataclass
class Rivals:
    """Other writers that act by a plan before each request of the client. Checks what each request changed."""

    server: FakeServer
    plan: list[list[str]]
    grown: int = 0
    wrong: list[object] = field(default_factory=list)
    before: ItemState = None

    def act(self, number: int, is_done: bool) -> None:
        """Before a request, follow the plan; after it, check its effect."""
        if is_done:
            self.judge(number, held(self.server))
            return
        for request in self.plan.pop(0) if self.plan else []:
            self.server.answer(REQUESTS[request])
        self.before = held(self.server)

    def judge(self, number: int, after: ItemState) -> None:
        if after != self.before and after == extended(self.before):
            self.grown += 1
        elif after not in (self.before, with_its_win_moved(self.before)):
            self.wrong.append((number, self.before, after))


REQUESTS: Final = {
    "store": b"ms k 3 T50\r\nnew\r\n",
    "store own": b"ms k 3 F%d\r\nown\r\n" % FLAGS["bytes"],
    "store nothing": b"ms k 0\r\n\r\n",
    "store json": b"ms k 2 F%d\r\n{}\r\n" % FLAGS["json"],
    "store compressed": b"ms k 2 F%d T90\r\nzz\r\n" % FLAGS["bytes zlib"],
    "append": b"ms k 1 MA\r\n-\r\n",
    "delete": b"md k\r\n",
    "invalidate": b"md k I T30\r\n",
    "read": b"mg k v\r\n",
    "touch": b"mg k T500\r\n",
    "lease": b"mg k N30\r\n",
}


def held(server: FakeServer) -> ItemState:
    item = server.store.items.get(b"k")
    return item and (item.value, item.flags, item.expires, item.stale, item.won)


def extended(item: ItemState) -> ItemState:
    """Return *item* after an append, or unchanged if append must not change it."""
    if item is None or item[1] not in (0, FLAGS["bytes"], FLAGS["bytes shaped"]) or item[3] or item[4]:
        return item
    return (item[0] + b"+", *item[1:])


def with_its_win_moved(item: ItemState) -> ItemState:
    """Return a stale item after a precheck consumed the win flag, or after it was released."""
    return (*item[:4], not item[4]) if item is not None and item[3] else item


@pytest.mark.parametrize("kind", FAKES)
@given(plan=st.lists(st.lists(st.sampled_from(sorted(REQUESTS)), max_size=4), min_size=1, max_size=10))
@hypothesis_settings(max_examples=300, deadline=None)
def test_no_interleaving_damages_an_item(kind: str, plan: list[list[str]]) -> None:
    server = FakeServer(clock=lambda: 1_000_000.0)
    rivals = Rivals(server, plan)
    watched = on_a_fake(kind, server)
    watched.hook = rivals.act
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metacache.operations.recipes.LONGEST_PAUSE", 0)
        result = asyncio.run(append(watched.make(BytesSerializer())))
    assert rivals.wrong == []
    assert (rivals.grown, result) in ((1, STORED), (0, NOT_STORED))


async def append(blobs: AsyncClient[bytes]) -> StoreResult:
    return await blobs.append("k", b"+")


# --- many writers at the same time ------------------------------------------------------------------------------------

TRANSPORTS: Final[Mapping[str, Callable[[Node], Transport]]] = {
    "Connection": lambda node: Connection(node, settings=PATIENT),
    "Pool": lambda node: Pool(node, settings=Settings(timeout=10.0, pool_size=8)),
    "Cluster": lambda node: Cluster([node], settings=Settings(timeout=10.0, pool_size=8)),
}


@pytest.mark.parametrize("kind", TRANSPORTS)
def test_concurrent_threads_append_and_prepend_each_value_once(shared_memcached: Memcached, kind: str) -> None:
    with Client(TRANSPORTS[kind](shared_memcached.node), StrSerializer(), owns=True) as texts:
        key = f"growing:threads:{kind}"
        texts.set(key, "|", ttl=1000)

        def work(worker: int) -> list[StoreResult]:
            verbs = itertools.cycle((texts.append, texts.prepend))
            return [next(verbs)(key, f"<{worker}.{number}>") for number in range(25)]

        with ThreadPoolExecutor(8) as pool:
            assert all(result is STORED for results in pool.map(work, range(8)) for result in results)
        item = texts.get_item(key)
    assert item is not None
    assert item.ttl is not None
    before, after = item.value.split("|")
    words = Counter(re.findall(r"<[0-9.]+>", item.value))
    assert words == Counter(f"<{worker}.{number}>" for worker in range(8) for number in range(25))
    assert len(re.findall("<", before)) == 8 * 12
    assert len(re.findall("<", after)) == 8 * 13


async def test_concurrent_tasks_append_each_value_once(shared_memcached: Memcached) -> None:
    async with AsyncCluster([shared_memcached.node], settings=PATIENT) as cluster:
        texts = cluster.client(str)
        await texts.set("growing:tasks", "|")
        words = [f"<{number}>" for number in range(150)]
        results = await asyncio.gather(*(texts.append("growing:tasks", word) for word in words))
        assert results == [STORED] * 150
        assert Counter(re.findall("<[0-9]+>", await texts.get("growing:tasks", ""))) == Counter(words)
