"""Admin operations on every node: each argument gives a result or a clear error; the connection stays usable."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from typing import Any, Final

import pytest

from metacache import (
    AsyncCluster,
    ClientError,
    Cluster,
    ConnectError,
    InvalidArgumentError,
    InvalidTypeError,
    MetacacheError,
    Node,
    NodeState,
    ProtocolError,
    Settings,
)
from metacache.testing import Memcached
from tests.cluster.rig import NOWHERE
from tests.conftest import start
from tests.scripted import Peer, ScriptedServer

BOTH: Final = pytest.mark.parametrize("blocking", [True, False])
ONE: Final = Settings(timeout=10.0, pool_size=1)


class Asked:
    """A cluster of one kind, through which tests ask all nodes. Every answer is what the first node gave."""

    def __init__(self, nodes: list[Node], settings: Settings, *, blocking: bool) -> None:
        self.cluster = Cluster(nodes, settings=settings) if blocking else AsyncCluster(nodes, settings=settings)

    async def all(self, name: str, *arguments: object) -> Mapping[Node, Any]:  # Any: what the method named returns
        found: Any = getattr(self.cluster, name)(*arguments)  # Any: as above, or a coroutine of it
        answers: Mapping[Node, Any] = found if isinstance(self.cluster, Cluster) else await found  # Any: as above
        return answers

    async def first(self, name: str, *arguments: object) -> Any:  # Any: as above
        return next(iter((await self.all(name, *arguments)).values()))

    async def dumped(self, *keys: str) -> dict[str, str]:
        """Return the lines of the items *keys*. The server lists an item after it has moved it out of its hot list."""
        for _ in range(500):
            found: dict[str, str] = await self.first("stats", "cachedump 1 100")
            if found.keys() == set(keys):
                return found
            await asyncio.sleep(0.01)
        raise AssertionError("the server lists other items")

    @property
    def dials(self) -> int:
        (statistics,) = self.cluster.statistics.values()
        return statistics.created

    async def __aenter__(self) -> Asked:
        return self

    async def __aexit__(self, *_: object) -> None:
        if isinstance(self.cluster, Cluster):
            self.cluster.close()
        else:
            await self.cluster.aclose()


# --- stats -------------------------------------------------------------------------------------------------------

# Each with a name that is in the answer (None: the answer is empty), or a piece of the error.
RESULTS: Final[dict[str, str | None]] = {
    "": "pid",
    "settings": "maxbytes",
    "settings noreply": "maxbytes",
    "items": "items:1:number",
    "slabs": "1:chunk_size",
    "sizes": "sizes_status",
    "extstore": None,
    "cachedump 1 10": "kept",
    "cachedump 1 0": "kept",
    "cachedump 0 1": None,
    "detail on": None,
    "detail dump": "pre",
    "detail off": None,
    "reset": None,
}
# A server that was built with a proxy has a result, which is empty if it is not one.
OF_PROXIES: Final = ("proxy", "proxyfuncs")
REFUSED: Final[dict[str, str]] = {
    "cachedump": "argument is missing or malformed",
    "cachedump 1": "argument is missing or malformed",
    "cachedump 1 x": "bad command line format",
    "cachedump -1 1": "bad command line format",
    "cachedump 99 1": "no such slab class",
    "detail": "takes on, off or dump",
    "detail all": "takes on, off or dump",
    "nonsense": "does not take 'stats', or not with this argument",
    "malloc": "does not take 'stats', or not with this argument",
    "SETTINGS": "does not take 'stats', or not with this argument",
    "a b c d e f g h": "does not take 'stats', or not with this argument",
    "x" * 64: "does not take 'stats', or not with this argument",
}


@BOTH
async def test_every_argument_of_stats_gives_a_result_or_a_clear_error(memcached: Memcached, *, blocking: bool) -> None:
    async with Asked([memcached.node], ONE, blocking=blocking) as asked:
        await asked.first("stats", "detail on")
        store(memcached, {"kept": b"12345", "pre:1": b"x"})
        await asked.dumped("kept", "pre:1")
        for argument, name in RESULTS.items():
            if argument == "detail dump":
                await asked.first("stats", "detail on")
                store(memcached, {"pre:1": b"x"})
            found = await asked.first("stats", argument)
            assert isinstance(found, dict), (argument, found)
            assert name is None or name in found, (argument, found)
            assert name is not None or not found, (argument, found)
            assert await asked.first("ping") is True, argument
        for argument, words in REFUSED.items():
            refused = await asked.first("stats", argument)
            assert isinstance(refused, ClientError), (argument, refused)
            assert words in str(refused), (argument, refused)
            assert await asked.first("ping") is True, argument
        for argument in OF_PROXIES:
            answer = await asked.first("stats", argument)
            refusal = "does not take 'stats', or not with this argument"
            assert answer == {} or (isinstance(answer, ClientError) and refusal in str(answer)), (argument, answer)
            assert await asked.first("ping") is True, argument
        assert asked.dials == 1, "one connection served all of it"


@pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "asyncio"])
async def test_a_ping_of_a_dead_node_counts_against_it(*, blocking: bool) -> None:
    with start() as server, start() as dead:
        nodes = [server.node, dead.node]
        dead.close()
        async with Asked(nodes, ONE, blocking=blocking) as asked:
            answers = await asked.all("ping")
            assert answers[server.node] is True
            assert isinstance(answers[nodes[1]], ConnectError)
            assert asked.cluster.states == {server.node: NodeState.UP, nodes[1]: NodeState.SUSPECT}


def store(server: Memcached, items: Mapping[str, bytes]) -> None:
    """Store *items* by classic commands: meta commands do not count for prefixes."""
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        for key, value in items.items():
            sock.sendall(b"set %b 0 0 %d\r\n%b\r\n" % (key.encode(), len(value), value))
            assert sock.recv(100) == b"STORED\r\n"


@BOTH
async def test_lines_of_items_and_prefixes_are_names_and_values(memcached: Memcached, *, blocking: bool) -> None:
    async with Asked([memcached.node], ONE, blocking=blocking) as asked:
        await asked.first("stats", "detail on")
        store(memcached, {"kept": b"12345", "é": b"1", "pre:1": b"x"})
        dumped = await asked.dumped("kept", "é", "pre:1")
        assert dumped["kept"] == "[5 b; 0 s]"
        assert (await asked.first("stats", "detail dump"))["pre"] == "get 0 hit 0 set 1 del 0"


@BOTH
@pytest.mark.parametrize("argument", ["sizes_enable", "sizes_disable", " sizes_enable ", "sizes_enable x"])
async def test_an_argument_whose_reply_has_no_end_is_refused_before_it_is_sent(
    argument: str, *, blocking: bool
) -> None:
    async with Asked([NOWHERE], ONE, blocking=blocking) as asked:
        with pytest.raises(InvalidArgumentError):
            await asked.all("stats", argument)
        assert asked.dials == 0


@BOTH
@pytest.mark.parametrize("line", [b"STAT name value\r\n", b"STAT\r\n", b"ITEM k [1 b]\r\n", b"PREFIX p get 0\r\n"])
async def test_a_reply_without_end_is_given_up_beyond_max_reply_size(line: bytes, *, blocking: bool) -> None:
    sent = 0

    def endless(peer: Peer) -> None:
        nonlocal sent
        peer.request()
        with contextlib.suppress(OSError):
            while True:
                peer.sock.sendall(line * 1000)
                sent += len(line) * 1000

    with ScriptedServer(endless) as server:
        settings = Settings(timeout=10.0, pool_size=1, max_reply_size=100_000)
        async with Asked([server.node], settings, blocking=blocking) as asked:
            failed = await asked.first("stats")
            assert isinstance(failed, ProtocolError)
            assert "longer than 100000 bytes (Settings.max_reply_size)" in str(failed)
    assert sent < 100_000_000


@BOTH
async def test_a_reply_up_to_max_reply_size_is_whole(*, blocking: bool) -> None:
    lines = [b"STAT %d value\r\n" % number for number in range(100)]

    def counting(peer: Peer) -> None:
        peer.request()
        peer.send(b"".join(lines) + b"END\r\n", chunks=range(1, 500, 7))
        peer.expect_end()

    with ScriptedServer(counting) as server:
        settings = Settings(timeout=10.0, pool_size=1, max_reply_size=sum(map(len, lines)))
        async with Asked([server.node], settings, blocking=blocking) as asked:
            assert len(await asked.first("stats")) == 100


# --- memory and logs ---------------------------------------------------------------------------------------------


@BOTH
async def test_the_memory_of_every_node_is_set(memcached: Memcached, *, blocking: bool) -> None:
    async with Asked([memcached.node, NOWHERE], ONE, blocking=blocking) as asked:
        answers = await asked.all("cache_memlimit", 100)
        assert answers[memcached.node] is True
        assert isinstance(answers[NOWHERE], ConnectError)
        assert (await asked.first("stats", "settings"))["maxbytes"] == str(100 * 2**20)


@BOTH
@pytest.mark.parametrize(("megabytes", "words"), [(1, "at least 8 megabytes"), (7, "8 mega"), (2**31 - 1, "not bytes")])
async def test_memory_that_a_node_refuses_is_its_client_error(
    memcached: Memcached, megabytes: int, words: str, *, blocking: bool
) -> None:
    async with Asked([memcached.node], ONE, blocking=blocking) as asked:
        before = await asked.first("stats", "settings")
        refused = await asked.first("cache_memlimit", megabytes)
        assert isinstance(refused, ClientError)
        assert words in str(refused)
        assert (refused.node, refused.operation) == (memcached.node.name, "cache_memlimit")
        assert (await asked.first("stats", "settings"))["maxbytes"] == before["maxbytes"]
        assert asked.dials == 1


@BOTH
async def test_the_log_of_every_node_is_set(memcached: Memcached, *, blocking: bool) -> None:
    async with Asked([memcached.node, NOWHERE], ONE, blocking=blocking) as asked:
        for level in (2, 0):
            answers = await asked.all("verbosity", level)
            assert answers[memcached.node] is True
            assert isinstance(answers[NOWHERE], MetacacheError)
            assert (await asked.first("stats", "settings"))["verbosity"] == str(level)


@BOTH
@pytest.mark.parametrize("name", ["cache_memlimit", "verbosity"])
async def test_an_argument_that_is_not_a_number_is_refused_before_it_is_sent(name: str, *, blocking: bool) -> None:
    async with Asked([NOWHERE], ONE, blocking=blocking) as asked:
        for wrong in (-1, 2**31, 10**5000):
            with pytest.raises(InvalidArgumentError):
                await asked.all(name, wrong)
        for other in (True, 1.5, "8", None):
            with pytest.raises(InvalidTypeError):
                await asked.all(name, other)
        assert asked.dials == 0
