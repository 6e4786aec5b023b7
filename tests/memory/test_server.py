"""The embedded server by itself: memory, expiry, the shortest path, statistics, and requests in pieces."""

from __future__ import annotations

import itertools
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metacache.errors import InvalidArgumentError
from metacache.memory.server import MemoryServer, MemorySession
from metacache.memory.store import StoredItem
from metacache.sessions import Step


def joined(replied: bytes | list[Step]) -> bytes:
    assert isinstance(replied, bytes), "no fault is armed"
    return replied


def stats_of(server: MemoryServer, argument: bytes = b"") -> dict[str, str]:
    lines = server.answer(b"stats %b\r\n" % argument).decode().splitlines()
    assert lines.pop() == "END"
    return {name: value for _, name, value in (line.split(" ", 2) for line in lines)}


def test_the_least_recently_used_items_are_evicted() -> None:
    server = MemoryServer(memory_limit=200_000, max_item_size=100_000)
    value = b"x" * 40_000
    session = server.open()
    for key in (b"a", b"b", b"c", b"d"):
        session.receive(b"ms %b 40000\r\n%b\r\n" % (key, value))
    for asked in (b"v f O1", b"v t"):  # on the shortest path, and on the other
        assert b"EN" not in joined(session.receive(b"mg a %b\r\n" % asked))
    session.receive(b"ms e 40000\r\n%b\r\n" % value)
    found = {key: server.answer(b"mg %b\r\n" % key) for key in (b"a", b"b", b"c", b"d", b"e")}
    assert found == {key: b"EN\r\n" if key == b"b" else b"HD\r\n" for key in found}
    assert stats_of(server)["evictions"] == "1"
    assert int(stats_of(server)["bytes"]) <= 200_000


def test_a_lower_memory_limit_evicts() -> None:
    server = MemoryServer()
    session = server.open()
    for number in range(12):
        session.receive(b"ms k%d 1000000\r\n%b\r\n" % (number, b"x" * 1_000_000))
    assert server.answer(b"cache_memlimit 8\r\n") == b"OK\r\n"
    assert int(stats_of(server)["curr_items"]) == 8
    assert server.answer(b"mg k0\r\nmg k11\r\n") == b"EN\r\nHD\r\n"


def test_a_delayed_flush_happens_at_its_time() -> None:
    now = [1_800_000_000.0]
    server = MemoryServer(lambda: now[0])
    server.answer(b"ms k 1\r\n1\r\n")
    assert server.answer(b"flush_all 10\r\n") == b"OK\r\n"
    now[0] += 9
    assert server.answer(b"mg k v f O1\r\n") == b"VA 1 f0 O1\r\n1\r\n"
    now[0] += 1
    assert server.answer(b"mg k v f O1\r\n") == b"EN O1\r\n"
    server.answer(b"ms k 1\r\n2\r\n")
    assert server.answer(b"mg k v\r\n") == b"VA 1\r\n2\r\n"


STATES = (
    b"",
    b"ms k 3 F7\r\nabc\r\n",
    b"ms k 3 T5\r\nabc\r\n",
    b"ms k 3 T-1\r\nabc\r\n",
    b"ms k 3\r\nabc\r\nmd k I\r\n",
    b"mg k N30\r\n",
    b"ms aw== 3 b\r\nabc\r\n",
)


@pytest.mark.parametrize("state", STATES)
def test_the_shortest_path_gives_the_replies_of_the_whole_server(state: bytes) -> None:
    letters = [
        b" ".join(chosen) for count in (1, 2, 3, 4) for chosen in itertools.permutations(b"v f c s".split(), count)
    ]
    tails = [
        b" O1\r\n",
        b" O" + b"1" * 31 + b"\r\n",
        b" O" + b"1" * 32 + b"\r\n",
        b" O1\n",
        b" Ox\r\n",
        b" O\r\n",
        b" O1 q\r\n",
    ]
    now = 1_800_000_000.0
    for asked, tail in itertools.product(letters, tails):
        request = b"mg k " + asked + tail
        replies: list[object] = []
        for pieces in ([request], [request[:1], request[1:]]):  # a request in pieces does not take the shortest path
            server = MemoryServer(lambda: now)
            session = server.open()
            session.receive(state)
            replies.append(b"".join(joined(session.receive(piece)) for piece in pieces))
            item = server.store.items.get(b"k")
            replies[-1] = (replies[-1], item and (item.fetched, item.used), stats_of(server)["get_hits"])
        assert replies[0] == replies[1], request


KEYS = st.sampled_from([b"k", b"n"])


def get_line(key: bytes, asked: bytes, tail: bytes) -> bytes:
    return b"mg %b %b%b\r\n" % (key, asked, tail)


def set_request(key: bytes, flags: bytes, body: bytes) -> bytes:
    return b"ms %b %d%b\r\n%b\r\n" % (key, len(body), flags, body)


def with_key(line: bytes, key: bytes) -> bytes:
    return line % key


REQUESTS = st.one_of(
    st.builds(
        get_line,
        KEYS,
        st.sampled_from([b"v", b"v f", b"v f c", b"c v s", b"v v", b"f", b"v N30", b"v T9", b"v t", b"v h", b"v R40"]),
        st.sampled_from([b" O7", b"", b" O2048", b" Ox", b" q"]),
    ),
    st.builds(
        set_request,
        KEYS,
        st.sampled_from([b"", b" O7", b" F5 O7", b" F5 T9 O7", b" T9 F5", b" F1 F2", b" T-1 O7", b" MA O7", b" I C1"]),
        st.sampled_from([b"", b"8", b"10", b"abc", b"x" * 1000]),
    ),
    st.builds(with_key, st.sampled_from([b"md %b I\r\n", b"md %b\r\n", b"ma %b O7\r\n"]), KEYS),
    st.sampled_from([b"ms k 1\r\nab\r\n", b"flush_all\r\n", b"flush_all 4\r\n", b"mg  k v O7\r\n", b"mg k v\0 O7\r\n"]),
)


def state_of(server: MemoryServer) -> object:
    """Return everything that a request may change, the items in the order of their use."""
    store = server.store
    fields = [name for name in StoredItem.__slots__ if name != "head"]
    items = [tuple(getattr(item, name) for name in fields) for item in store.items.values()]
    return items, store.used, stats_of(server)


@settings(max_examples=80, deadline=None)
@given(
    batches=st.lists(st.tuples(st.lists(REQUESTS, min_size=1, max_size=3), st.sampled_from([0, 0, 0, 3])), max_size=25)
)
def test_the_short_paths_give_the_replies_of_the_whole_server(batches: list[tuple[list[bytes], int]]) -> None:
    now = 1_800_000_000.0
    short, whole = (
        MemoryServer(lambda: now, memory_limit=3000, max_item_size=1500, max_value_size=999) for _ in range(2)
    )
    sessions = short.open(), whole.open()
    for requests, seconds in batches:
        now += seconds
        # The get before and after each batch is one whose reply may be kept.
        for data in (b"mg k v f O7\r\n", b"".join(requests), b"mg k v f O7\r\n"):
            # The rest of the server gets what arrives in pieces.
            replies = joined(sessions[1].receive(data[:1])) + joined(sessions[1].receive(data[1:]))
            assert joined(sessions[0].receive(data)) == replies, data
        assert state_of(short) == state_of(whole), requests
        assert {item.head for item in short.store.items.values() if item.head} == set(short.store.hits)


CHANGES = (
    *(b"ms k 3 O7\r\nnew\r\n", b"ms k 1 MA\r\n9\r\n", b"ms k 1 I C1\r\n9\r\n", b"ma k\r\n", b"ma k D99 MD\r\n"),
    *(
        b"md k\r\n",
        b"md k I\r\n",
        b"md k x\r\n",
        b"mg k R40\r\n",
        b"mg k T-1\r\n",
        b"flush_all\r\n",
        b"flush_all 0\r\n",
    ),
    b"ms n 2400\r\n" + b"x" * 2400 + b"\r\n",  # evicts k
)


@pytest.mark.parametrize("asked", [b"v f", b"v c f"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_an_item_removes_its_kept_reply(change: bytes, asked: bytes) -> None:
    get = b"mg k " + asked + b" O7\r\n"
    replies: list[list[object]] = []
    for pieces in (0, 1):
        server = MemoryServer(lambda: 1_800_000_000.0, memory_limit=2500, max_item_size=2500)
        session = server.open()
        session.receive(b"ms k 2 F5 T9\r\n41\r\n")
        replies.append([])
        for request in (get, get, change, get, get):
            parts = [request[:pieces], request[pieces:]] if pieces else [request]
            replies[-1].append(b"".join(joined(session.receive(part)) for part in parts))
        replies[-1].append(state_of(server))
    assert replies[0] == replies[1]


def test_a_kept_reply_goes_with_its_item() -> None:
    server = MemoryServer(lambda: 1_800_000_000.0)
    session = server.open()
    for number in range(100):
        session.receive(b"ms k%d 1\r\na\r\nmg k%d v\r\n" % (number, number))
        session.receive(b"mg k%d v f O1\r\n" % number)
    assert len(server.store.hits) == 100
    for number in range(50):
        session.receive(b"md k%d\r\n" % number)
    assert len(server.store.hits) == 50
    server.restart()
    assert not server.store.hits


def test_threads_that_read_while_others_write_get_whole_replies() -> None:
    server = MemoryServer()

    def write(value: bytes) -> None:
        session = server.open()
        for number in range(1500):
            session.receive(b"ms k 8 F%b O1\r\n%b\r\n" % (value, value * 8))
            if number % 3 == 0:
                session.receive(b"md k\r\n")

    def read() -> set[bytes]:
        session = server.open()
        return {joined(session.receive(b"mg k v f O1\r\n")) for _ in range(4000)}

    with ThreadPoolExecutor(4) as threads:
        writers = [threads.submit(write, value) for value in (b"1", b"2")]
        readers = [threads.submit(read) for _ in range(2)]
    for writer in writers:
        writer.result()
    seen = readers[0].result() | readers[1].result()
    assert seen <= {b"EN O1\r\n", b"VA 8 f1 O1\r\n11111111\r\n", b"VA 8 f2 O1\r\n22222222\r\n"}
    assert int(stats_of(server)["cmd_get"]) == 8000


def test_threads_that_read_do_not_disturb_lists_of_items_and_evictions() -> None:
    """A get on the shortest path moves its item without the lock."""
    server = MemoryServer(memory_limit=64 * 1024, max_item_size=2048)
    lines = [b"mg k%d v f O1\r\n" % number for number in range(300)]

    def store_all(session: MemorySession) -> None:
        for number in range(300):
            session.receive(b"ms k%d 200 O1\r\n%b\r\n" % (number, b"x" * 200))

    def read(stopped: threading.Event) -> None:
        session = server.open()
        while not stopped.is_set():
            for line in lines:
                session.receive(line)

    store_all(server.open())
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    stopped = threading.Event()
    try:
        with ThreadPoolExecutor(2) as threads:
            readers = [threads.submit(read, stopped) for _ in range(2)]
            try:
                session = server.open()
                for _ in range(100):
                    for line in (b"lru_crawler metadump all", b"stats items", b"stats slabs"):
                        assert joined(session.receive(line + b"\r\n")).endswith(b"END\r\n")
                    store_all(session)
            finally:
                stopped.set()
        for reader in readers:
            reader.result()
    finally:
        sys.setswitchinterval(interval)
    assert server.store.counts.evictions > 0
    assert server.store.used == sum(item.total_size for item in server.store.items.values())


@given(st.data())
def test_requests_in_any_pieces_get_the_same_replies(data: st.DataObject) -> None:
    stream = (
        b"ms k 12 T9\r\nab\r\nmg k v\r\n\r\nmg k v O1\r\nms k 2000000\r\n"
        + b"x" * 50
        + b"\r\n"
        + b"\r\nma n N0 J5 v\r\n"
        b"md k\r\nms k -1\r\nbogus\r\nstats sizes\r\nmn\r\n"
    ).replace(b"2000000", b"50")
    session = MemoryServer().open()
    whole = session.receive(stream)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    session = MemoryServer().open()
    edges = [0, *cuts, len(stream)]
    assert b"".join(joined(session.receive(stream[a:b])) for a, b in itertools.pairwise(edges)) == whole


def test_a_refused_value_is_not_kept_in_memory_while_it_arrives() -> None:
    session = MemoryServer().open()
    assert session.receive(b"ms k 2000000000\r\n") == b"SERVER_ERROR object too large for cache\r\n"
    for _ in range(10):
        assert session.receive(b"x" * 1_000_000) == b""
    assert len(session._held) == 0


@pytest.mark.parametrize("line", [b"get k", b"gets k", b"incr k 1", b"delete k", b"touch k 1", b"gat 1 k"])
def test_classic_data_commands_are_errors(line: bytes) -> None:
    assert MemoryServer().answer(line + b"\r\nmn\r\n") == b"ERROR\r\nMN\r\n"


def test_statistics_and_the_dump_describe_the_items() -> None:
    server = MemoryServer(lambda: 1_800_000_000.0)
    server.answer(b"ms k 3 T100\r\nabc\r\nms YSBi 1 b\r\nx\r\nmg k v f O1\r\nmg k\r\nmg none\r\nmd none\r\nma k\r\n")
    known = stats_of(server)
    assert {name: known[name] for name in ("curr_items", "cmd_get", "get_hits", "get_misses", "delete_misses")} == {
        "curr_items": "2",
        "cmd_get": "3",
        "get_hits": "2",
        "get_misses": "1",
        "delete_misses": "1",
    }
    assert known["limit_maxbytes"] == "67108864"
    assert stats_of(server, b"settings")["item_size_max"] == "1048576"
    assert stats_of(server, b"items")["items:1:number"] == "2"
    assert stats_of(server, b"slabs")["1:chunk_size"] == "96"
    assert server.answer(b"stats reset\r\n") == b"RESET\r\n"
    assert stats_of(server)["cmd_get"] == "0"
    assert server.answer(b"lru_crawler metadump all\r\n") == (
        b"key=a%20b exp=-1 la=1800000000 cas=2 fetch=no cls=1 size=63\n"
        b"key=k exp=1800000100 la=1800000000 cas=1 fetch=yes cls=1 size=63\nEND\r\n"
    )


def test_flags_of_later_releases() -> None:
    server = MemoryServer()
    assert server.answer(b"ms k 3 MA N60 s c E77\r\nabc\r\n") == b"HD s3 c77\r\n"
    assert server.answer(b"mg k t c\r\n") == b"HD t60 c77\r\n"
    assert server.answer(b"ms k 2 MA s\r\nde\r\n") == b"HD s5\r\n"
    assert server.answer(b"md k x F5 E80\r\n") == b"HD\r\n"
    assert server.answer(b"mg k v f t c\r\n") == b"VA 0 f5 t-1 c80\r\n\r\n"
    assert server.answer(b"mg k v C80\r\nmg k v C81\r\n") == b"HD\r\nVA 0\r\n\r\n"


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(InvalidArgumentError):
        MemoryServer(memory_limit=10)
    with pytest.raises(InvalidArgumentError):
        MemoryServer(max_item_size=1)
    with pytest.raises(InvalidArgumentError):
        MemoryServer(max_value_size=-1)
