"""A client of `connect_async` under many event loops: in turn, at the same time, in threads; and under no loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import warnings
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, Final

import pytest
import trio
from anyio.from_thread import start_blocking_portal

from metacache import (
    AsyncClient,
    AsyncCluster,
    AsyncConnection,
    AsyncPool,
    ClosedError,
    InvalidArgumentError,
    Node,
    NodeState,
    Settings,
    connect_async,
)
from metacache.testing import Memcached
from tests.loops import new_uvloop
from tests.scripted import ScriptedServer, silent
from tests.transports.aio_rig import run_alone, sockets

Loops = Callable[[], asyncio.AbstractEventLoop]
Client = AsyncClient[bytes]

LOOPS: Final[dict[str, Loops]] = {"asyncio": asyncio.new_event_loop, "uvloop": new_uvloop}
MANY: Final = 40
SETTINGS: Final = Settings(timeout=10.0, connect_timeout=10.0)


@pytest.fixture(params=LOOPS)
def new_loop(request: pytest.FixtureRequest) -> Loops:
    return LOOPS[request.param]


@pytest.fixture(name="client")
def closed_client(shared_memcached: Memcached) -> Iterator[Client]:
    """A client that is closed after the test; then no socket is left."""
    before = sockets()
    client = connect_async(shared_memcached.url, settings=SETTINGS)
    yield client
    asyncio.run(client.aclose())
    gc.collect()
    assert sockets() <= before


async def use(client: Client) -> None:
    await client.set("loops", b"v")
    assert await client.get("loops") == b"v"
    assert await client.get_many(["loops"]) == {"loops": b"v"}
    assert await client.update("loops", lambda value: value or b"") == b"v"


def run_in(new_loop: Loops, coroutine: Coroutine[Any, Any, None]) -> None:  # Any: what a coroutine yields is its loop's
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(coroutine)


def in_thread(work: Callable[[], object]) -> Callable[[], None]:
    """Start *work* in a thread; return a function that joins the thread and raises the exception of *work*."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as failure:
            failures.append(failure)

    def join() -> None:
        thread.join(20.0)
        assert not thread.is_alive()
        if failures:
            raise failures[0]

    thread = threading.Thread(target=run)
    thread.start()
    return join


# --- loops that end --------------------------------------------------------------------------------------------------


def test_every_loop_of_a_runner_has_its_own_connections_which_end_with_it(client: Client, new_loop: Loops) -> None:
    before = sockets()
    for _ in range(MANY):
        run_in(new_loop, use(client))
        assert sockets() <= before


def test_of_loops_made_and_closed_by_hand_only_the_last_keeps_a_connection(client: Client) -> None:
    before = sockets()
    for _ in range(MANY):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(use(client))
        loop.close()
        assert sockets() <= before + 1


def test_the_next_use_closes_the_connections_of_a_loop_that_was_closed_by_hand(client: Client) -> None:
    async def main() -> None:
        await use(client)
        before = sockets()
        other = asyncio.new_event_loop()
        await asyncio.to_thread(other.run_until_complete, use(client))
        await asyncio.to_thread(other.close)
        assert sockets() == before + 1
        await client.get("loops")
        assert sockets() == before

    asyncio.run(main())


def test_no_loop_of_a_runner_leaves_a_warning(shared_memcached: Memcached) -> None:
    body = """
        import asyncio, gc, sys
        from metacache import connect_async
        client = connect_async(sys.argv[1])
        for _ in range(5):
            asyncio.run(client.set("key", b"v"))
            with asyncio.Runner() as runner:
                assert runner.run(client.get("key")) == b"v"
        del client
        gc.collect()
        print("done")
    """
    assert run_alone(body, shared_memcached.url) == "done\n"


def test_tasks_that_are_cancelled_at_the_end_of_their_loop_leave_nothing(client: Client, new_loop: Loops) -> None:
    async def leave_tasks() -> None:
        tasks.extend(asyncio.ensure_future(use(client)) for _ in range(20))
        await asyncio.sleep(0)

    tasks: list[asyncio.Future[None]] = []
    before = sockets()
    for _ in range(10):
        run_in(new_loop, leave_tasks())
        assert sockets() <= before


def test_an_async_generator_that_uses_the_client_when_its_loop_ends_can_do_so(client: Client, new_loop: Loops) -> None:
    async def reading() -> AsyncGenerator[None]:
        try:
            yield
        finally:
            for _ in range(5):
                await use(client)
                found.append(await client.get("loops"))
                await asyncio.sleep(0)

    async def main() -> None:
        await use(client)
        generators.append(reading())
        await anext(generators[0])

    found: list[bytes | None] = []
    generators: list[AsyncGenerator[None]] = []
    before = sockets()
    run_in(new_loop, main())
    assert found == [b"v"] * 5
    assert sockets() <= before


# --- loops at the same time ------------------------------------------------------------------------------------------


def test_threads_with_loops_of_their_own_share_a_client(client: Client, new_loop: Loops) -> None:
    async def work() -> None:
        for _ in range(10):
            await asyncio.gather(*(use(client) for _ in range(5)))

    ends = [in_thread(lambda: run_in(new_loop, work())) for _ in range(4)]
    for end in ends:
        end()


def test_a_web_framework_s_test_client_has_a_loop_for_each_portal(client: Client) -> None:
    before = sockets()
    for _ in range(5):
        with start_blocking_portal() as portal:
            portal.call(use, client)
            with start_blocking_portal() as other:
                other.call(use, client)
            portal.call(use, client)
        assert sockets() <= before


def test_a_loop_that_runs_in_a_task_of_another_uses_the_client_too(client: Client) -> None:
    async def main() -> None:
        await use(client)
        outer = asyncio.get_running_loop()
        asyncio._set_running_loop(None)  # as libraries do that run a nested loop
        try:
            asyncio.run(use(client))
        finally:
            asyncio._set_running_loop(outer)
        await use(client)

    asyncio.run(main())


def test_closing_reaches_the_loops_that_run_in_other_threads(shared_memcached: Memcached, new_loop: Loops) -> None:
    before = sockets()
    client = connect_async(shared_memcached.url, settings=SETTINGS)
    in_use, go_on = threading.Barrier(4), threading.Event()
    refused: list[ClosedError] = []

    async def work() -> None:
        await use(client)
        in_use.wait(10.0)
        while not go_on.is_set():
            await asyncio.sleep(0.005)
        try:
            await view.get("loops")
        except ClosedError as error:
            refused.append(error)

    async def close() -> None:
        await use(client)
        in_use.wait(10.0)
        with_all = sockets()
        async with asyncio.timeout(5.0):
            await client.aclose()
        assert sockets() <= with_all - 4, "the connections of all loops are closed, and these run on"

    view = client.with_options(default_ttl=5)
    ends = [in_thread(lambda: run_in(new_loop, work())) for _ in range(3)]
    run_in(new_loop, close())
    go_on.set()
    for end in ends:
        end()
    assert len(refused) == 3
    assert sockets() <= before


def test_closing_waits_for_a_blocked_loop_no_longer_than_the_timeout(shared_memcached: Memcached) -> None:
    client = connect_async(shared_memcached.url, settings=Settings(timeout=0.2))
    in_use, go_on = threading.Event(), threading.Event()

    async def work() -> None:
        await use(client)
        in_use.set()
        assert go_on.wait(10.0)  # it blocks its loop

    async def close() -> None:
        began = asyncio.get_running_loop().time()
        await client.aclose()
        assert 0.1 < asyncio.get_running_loop().time() - began < 2.0

    end = in_thread(lambda: asyncio.run(work()))
    assert in_use.wait(10.0)
    asyncio.run(close())
    go_on.set()
    end()


def test_a_close_lets_requests_in_another_loop_finish(shared_memcached: Memcached) -> None:
    items = {f"loops:{number}": b"x" * 1000 for number in range(3000)}
    client = connect_async(shared_memcached.url, settings=SETTINGS)
    under_way = threading.Event()

    async def work() -> None:
        batch = asyncio.ensure_future(client.set_many(items))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        under_way.set()
        assert all((await batch).values())

    end = in_thread(lambda: asyncio.run(work()))
    assert under_way.wait(10.0)
    asyncio.run(client.aclose())
    end()


# --- the end of a client ---------------------------------------------------------------------------------------------


def drop(holder: list[Client]) -> list[str]:
    """Drop the only reference to a client; return the warnings."""
    gc.collect()  # the garbage of other tests has its own warnings
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        holder.clear()
        gc.collect()
    return [str(each.message) for each in caught if each.category is ResourceWarning]


WARNING: Final = "unclosed <AsyncClient prefix='user:' on 127.0.0.1:{port}>: await its aclose(), or use async with"


def test_a_client_that_is_dropped_while_its_loop_runs_closes_its_connections_and_warns(
    shared_memcached: Memcached, new_loop: Loops
) -> None:
    async def main() -> None:
        before = sockets()
        holder = [connect_async(shared_memcached.url, settings=SETTINGS, prefix="user:")]
        await use(holder[0])
        assert sockets() == before + 1
        assert drop(holder) == [WARNING.format(port=shared_memcached.node.name.split(":")[1])]
        await asyncio.sleep(0.01)
        assert sockets() == before

    run_in(new_loop, main())


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_client_that_is_dropped_when_its_loop_does_not_run_closes_its_connections_and_warns(
    shared_memcached: Memcached, *, is_closed: bool
) -> None:
    loop = asyncio.new_event_loop()
    holder = [connect_async(shared_memcached.url, settings=SETTINGS, prefix="user:")]
    loop.run_until_complete(use(holder[0]))
    if is_closed:
        loop.close()
    before = sockets()
    assert drop(holder) == [WARNING.format(port=shared_memcached.node.name.split(":")[1])]
    assert sockets() == before - 1
    loop.close()


def test_a_view_keeps_the_connections_of_a_client_that_is_dropped(shared_memcached: Memcached) -> None:
    async def main() -> None:
        await use(view)
        assert drop(holder) == []
        await use(view)

    holder = [connect_async(shared_memcached.url, settings=SETTINGS)]
    view = holder[0].with_options(default_ttl=5)
    asyncio.run(main())


def test_a_client_whose_loops_have_ended_is_dropped_without_a_warning(shared_memcached: Memcached) -> None:
    holder = [connect_async(shared_memcached.url)]
    asyncio.run(use(holder[0]))
    assert drop(holder) == []
    assert drop([connect_async(shared_memcached.url)]) == []


def test_a_client_keeps_no_reference_to_a_loop_that_has_ended(shared_memcached: Memcached) -> None:
    async def main() -> weakref.ref[asyncio.AbstractEventLoop]:
        await use(client)
        return weakref.ref(asyncio.get_running_loop())

    client = connect_async(shared_memcached.url)
    ended = asyncio.run(main())
    gc.collect()
    assert ended() is None


async def test_a_cancelled_close_leaves_no_connection(memcached: Memcached) -> None:
    client = connect_async(memcached.url, settings=SETTINGS)
    await use(client)
    before = sockets()
    memcached.freeze()
    call = asyncio.ensure_future(client.get("loops"))
    await asyncio.sleep(0.01)
    closing = asyncio.ensure_future(client.aclose())
    await asyncio.sleep(0.01)
    closing.cancel()
    await asyncio.wait([closing, call])
    assert isinstance(call.exception(), ClosedError)
    await asyncio.sleep(0.01)
    assert sockets() == before - 1
    memcached.thaw()


# --- nodes -----------------------------------------------------------------------------------------------------------


def test_each_loop_has_its_own_view_of_a_node_s_health() -> None:
    async def look() -> None:
        for _ in range(3):
            with contextlib.suppress(OSError):
                await client.get("key")
        assert f"127.0.0.1:1 {NodeState.DOWN.value}" in repr(client)

    client = connect_async("memcached://127.0.0.1:1")
    asyncio.run(look())
    asyncio.run(look())


def test_the_watch_of_a_source_of_nodes_ends_with_its_loop(shared_memcached: Memcached) -> None:
    async def main() -> None:
        await use(client)
        assert [task.get_name() for task in asyncio.all_tasks()].count("metacache-watch") == 1

    port = shared_memcached.node.name.split(":")[1]
    before = sockets()
    client = connect_async(f"memcached+dns://127.0.0.1:{port}", settings=SETTINGS)
    for _ in range(5):
        asyncio.run(main())
        assert sockets() <= before
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    watches = [task for task in asyncio.all_tasks(loop) if task.get_name() == "metacache-watch"]
    asyncio.run(client.aclose())
    loop.run_until_complete(asyncio.wait(watches))
    loop.close()


# --- no loop ---------------------------------------------------------------------------------------------------------

NODE: Final = Node("127.0.0.1:1")
CLIENTS: Final[dict[str, Callable[[], Client]]] = {
    "connect_async": lambda: connect_async("memcached://127.0.0.1:1"),
    "connect_async, dns": lambda: connect_async("memcached+dns://127.0.0.1:1"),
    "AsyncConnection": lambda: AsyncClient(AsyncConnection(NODE), owns=True),
    "AsyncPool": lambda: AsyncClient(AsyncPool(NODE), owns=True),
    "AsyncCluster": lambda: AsyncClient(AsyncCluster([NODE, Node("127.0.0.1:1", name="b")]), owns=True),
}
VERBS: Final[dict[str, Callable[[Client], Awaitable[object]]]] = {
    "get": lambda client: client.get("key"),
    "get_many": lambda client: client.get_many([f"key:{number}" for number in range(20)]),
    "set": lambda client: client.set("key", b"v"),
    "set_many": lambda client: client.set_many({f"key:{number}": b"v" for number in range(20)}),
    "append": lambda client: client.append("key", b"v"),
    "delete": lambda client: client.delete("key"),
    "update": lambda client: client.update("key", lambda _: b"v"),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", CLIENTS)
def test_without_a_running_loop_a_verb_names_the_missing_loop(kind: str, verb: str) -> None:
    client = CLIENTS[kind]()
    call = VERBS[verb](client).__await__()
    with pytest.raises(InvalidArgumentError, match=r"needs a running asyncio event loop.*under trio"):
        call.send(None)
    with pytest.raises(StopIteration):
        client.aclose().send(None)


@pytest.mark.parametrize("kind", CLIENTS)
def test_under_trio_a_verb_names_the_missing_loop(kind: str) -> None:
    async def main() -> None:
        async with CLIENTS[kind]() as client:
            with pytest.raises(InvalidArgumentError, match="under trio"):
                await client.get("key")

    trio.run(main)


async def ask_every_node(cluster: AsyncCluster) -> None:
    for ask in (cluster.ping, cluster.version, cluster.stats):
        with pytest.raises(InvalidArgumentError, match="under trio"):
            await ask()


def test_under_trio_the_verbs_of_a_cluster_name_the_missing_loop() -> None:
    trio.run(ask_every_node, AsyncCluster([NODE]))


def test_a_client_that_is_used_by_asyncio_is_closed_under_trio(shared_memcached: Memcached) -> None:
    before = sockets()
    client = connect_async(shared_memcached.url, settings=SETTINGS)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(use(client))
    trio.run(client.aclose)
    loop.close()
    assert sockets() <= before


def test_a_server_that_never_answers_does_not_keep_a_loop_from_ending(new_loop: Loops) -> None:
    async def main() -> None:
        call = asyncio.ensure_future(client.get("key"))
        await asyncio.sleep(0.02)
        del call

    with ScriptedServer(silent) as server:
        client = connect_async(f"memcached://{server.node}", settings=SETTINGS)
        run_in(new_loop, main())
