"""`Stampede.background`: an old value is refreshed beside the caller, which gets the old one immediately."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from metacache import Source, Stampede
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


async def test_a_closed_client_starts_no_task() -> None:
    fake = Rig("asyncio", FakeServer())
    client = fake.texts()
    await client.set("k", "old", ttl=30)
    background = client._background
    await client.aclose()

    async def recipe() -> None: ...

    assert not background.start(recipe)
