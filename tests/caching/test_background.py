"""`Stampede.background`: an old value is refreshed beside the caller, which gets the old one immediately."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from metacache import AsyncClient, Source, Stampede
from metacache.client.aio_background import Background
from metacache.serializers import StrSerializer
from metacache.testing import FakeServer
from tests.caching.rig import Rig


class Absent(LookupError):
    """A failure of a factory."""


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as made:
        yield made


@pytest.fixture
def fake(kind: str) -> Rig:
    return Rig(kind, FakeServer())


def policy_of(rig: Rig, executor: ThreadPoolExecutor) -> Stampede:
    return Stampede(
        background=executor if rig.is_blocking else True, refresh_ahead=timedelta(seconds=50), wait=0.2, jitter=0.0
    )


async def settle(rig: Rig, key: str, value: bytes) -> None:
    """Wait until *key* has *value*."""
    deadline = time.monotonic() + 5
    while rig.remaining(key)[0] != value:
        assert time.monotonic() < deadline, rig.remaining(key)
        await asyncio.sleep(0.005)


async def test_the_caller_gets_the_old_value_immediately(fake: Rig, executor: ThreadPoolExecutor) -> None:
    client, gate, threads = fake.texts(), fake.gate(), list[int]()
    await client.set("k", "old", ttl=30)

    async def make() -> str:
        threads.append(threading.get_ident())
        await gate.wait()
        return "new"

    policy = policy_of(fake, executor)
    found = await client.get_or_compute_item("k", fake.factory(make), ttl=100, policy=policy)
    assert (found.value, found.source) == ("old", Source.HIT)
    again = await client.get_or_compute_item("k", fake.factory(make), ttl=100, policy=policy)
    assert again.value == "old"
    gate.open()
    await settle(fake, "k", b"new")
    assert len(threads) == 1
    assert fake.is_blocking == (threads[0] != threading.get_ident())


async def test_without_an_old_value_the_caller_computes(fake: Rig, executor: ThreadPoolExecutor) -> None:
    async def make() -> str:
        return "new"

    found = await fake.texts().get_or_compute_item("k", fake.factory(make), policy=policy_of(fake, executor))
    assert (found.value, found.source) == ("new", Source.COMPUTED)


async def test_a_failure_in_the_background_keeps_the_old_value(
    fake: Rig, executor: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    client, failed = fake.texts(), fake.gate()
    await client.set("k", "old", ttl=30)

    async def fail() -> str:
        failed.open()
        raise Absent("secret")

    policy = policy_of(fake, executor)
    assert await client.get_or_compute("k", fake.factory(fail), ttl=100, policy=policy) == "old"
    await failed.wait()
    for _ in range(200):
        if "Absent" in caplog.text:
            break
        await asyncio.sleep(0.005)
    assert client.statistics.factory_failures == {"Absent": 1}
    assert fake.remaining("k")[:2] == (b"old", "XW")
    assert "Absent" in caplog.text
    assert "secret" not in caplog.text


async def test_an_executor_that_is_shut_down_leaves_the_work_to_the_caller() -> None:
    fake = Rig("blocking", FakeServer())
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    await fake.texts().set("k", "old", ttl=30)

    async def make() -> str:
        return "new"

    found = await fake.texts().get_or_compute_item("k", fake.factory(make), ttl=100, policy=policy_of(fake, executor))
    assert (found.value, found.source) == ("new", Source.COMPUTED)


@pytest.mark.parametrize("has_begun", [True, False])
async def test_aclose_cancels_the_tasks_and_gives_their_leases_back(
    executor: ThreadPoolExecutor, has_begun: bool
) -> None:
    fake = Rig("asyncio", FakeServer())
    client = fake.texts(prefix="p:")
    await client.set("k", "old", ttl=30)
    cancelled: list[str] = []

    async def make() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append("cancelled")
            raise
        return "new"

    view = client.with_options(timeout=5.0)
    assert await view.get_or_compute("k", make, ttl=100, policy=policy_of(fake, executor)) == "old"
    if has_begun:
        await asyncio.sleep(0.01)
    await view.aclose()  # closing a view ends nothing
    assert len(client._background) == 1
    await client.aclose()
    assert cancelled == ["cancelled"]
    assert fake.remaining("p:k")[:2] == (b"old", "XW")
    assert len(asyncio.all_tasks()) == 1


@pytest.fixture
def elsewhere() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs in another thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


POLICY = Stampede(background=True, refresh_ahead=timedelta(seconds=50), jitter=0.0)


def refreshing(ended: list[str]) -> Callable[[], Coroutine[None, None, str]]:
    """Return a factory that notes how it ends."""

    async def make() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return "new"

    return make


async def in_loop(loop: asyncio.AbstractEventLoop, call: Coroutine[Any, Any, str]) -> str:  # Any: of no use here
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call, loop))


@pytest.mark.parametrize("has_begun", [True, False])
async def test_aclose_cancels_the_tasks_of_loops_in_other_threads(
    elsewhere: asyncio.AbstractEventLoop, has_begun: bool
) -> None:
    fake, ended = Rig("asyncio", FakeServer()), list[str]()
    client = AsyncClient(fake.transport, StrSerializer(), owns=True)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]  # the hooked transport of an asyncio rig
    await client.set("k", "old", ttl=30)

    async def begin() -> str:
        found = await client.get_or_compute("k", refreshing(ended), ttl=100, policy=POLICY)
        if not has_begun:
            time.sleep(0.1)
        return found

    call = asyncio.create_task(in_loop(elsewhere, begin()))
    while not len(client._background):
        await asyncio.sleep(0.001)
    if has_begun:
        assert await call == "old"
        await asyncio.sleep(0.02)
    await client.aclose()
    assert ended == ["cancelled"]
    assert fake.remaining("k")[:2] == (b"old", "XW")  # a transport that was closed first would have refused this
    assert await call == "old"
    assert len(client._background) == 0


async def test_aclose_waits_for_a_busy_loop_for_its_timeout(elsewhere: asyncio.AbstractEventLoop) -> None:
    fake, ended, gate = Rig("asyncio", FakeServer()), list[str](), threading.Event()
    client = fake.texts(timeout=0.1)
    await client.set("k", "old", ttl=30)
    assert await in_loop(elsewhere, client.get_or_compute("k", refreshing(ended), ttl=100, policy=POLICY)) == "old"
    await asyncio.sleep(0.02)
    elsewhere.call_soon_threadsafe(gate.wait, 5)
    began = time.monotonic()
    await client.aclose()
    assert 0.05 < time.monotonic() - began < 5
    assert not ended
    gate.set()
    for _ in range(1000):
        if ended:
            break
        await asyncio.sleep(0.005)
    assert ended == ["cancelled"]


async def test_aclose_does_not_wait_for_loops_that_do_not_run() -> None:
    fake = Rig("asyncio", FakeServer())
    client, ended = fake.texts(), list[str]()
    await client.set("k", "old", ttl=30)

    def run_and_stop() -> tuple[asyncio.AbstractEventLoop, str]:
        loop = asyncio.new_event_loop()
        return loop, loop.run_until_complete(client.get_or_compute("k", refreshing(ended), ttl=100, policy=POLICY))

    def continue_and_close(loop: asyncio.AbstractEventLoop) -> None:
        loop.run_until_complete(asyncio.sleep(0.05))
        loop.close()

    loop, found = await asyncio.to_thread(run_and_stop)
    assert (found, len(client._background)) == ("old", 1)
    began = time.monotonic()
    await client.aclose()
    assert time.monotonic() - began < 0.5
    await asyncio.to_thread(continue_and_close, loop)
    assert len(client._background) == 0


async def test_a_client_that_is_closed_while_a_task_starts_starts_none() -> None:
    background = Background(1.0)
    await background.aclose()
    ran: list[str] = []

    async def recipe() -> None:
        ran.append("ran")

    assert not background.start(recipe)
    await asyncio.sleep(0.01)
    assert not ran
    assert len(background) == 0


async def test_a_forked_child_leaves_the_tasks_to_its_parent() -> None:
    fake = Rig("asyncio", FakeServer())
    client = fake.texts()
    await client.set("k", "old", ttl=30)
    assert await client.get_or_compute("k", refreshing([]), ttl=100, policy=POLICY) == "old"
    await asyncio.sleep(0.01)
    child = os.fork()
    if child == 0:
        os._exit(len(client._background))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(client._background) == 1
    await client.aclose()


async def test_a_closed_client_starts_no_task() -> None:
    fake = Rig("asyncio", FakeServer())
    client = fake.texts()
    await client.set("k", "old", ttl=30)
    background = client._background
    await client.aclose()

    async def recipe() -> None: ...

    assert not background.start(recipe)
