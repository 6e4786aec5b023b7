"""An exception at each request of a call: a cancellation, or what a signal handler raises. No lease stays behind.

The exception comes before the request is sent, or after its reply has been read. The one limit: a call that is
interrupted after its ask may have won, and then the key is blocked until its lease is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs
import pytest

from metacache import AsyncClient, Stampede
from tests.caching.rig import Rig

POLICY: Final = Stampede(lease=30, jitter=0.0)
IMMEDIATE: Final = Stampede(lease=30, wait=0, on_busy="raise")


class Stop(BaseException):
    """What a signal handler raises."""


@attrs.frozen
class World:
    """What one call works with."""

    rig: Rig
    client: AsyncClient[str]
    key: str

    def factory(self) -> Callable[[], Awaitable[str]]:
        async def make() -> str:
            return "new"

        return self.rig.factory(make)

    async def many(self, should_cache: Callable[[str], bool] | None = None) -> object:
        async def make(keys: Sequence[str]) -> Mapping[str, str]:
            return dict.fromkeys(keys, "new")

        keys = [self.key, f"{self.key}b"]
        factory = self.rig.many_factory(make)
        return await self.client.get_or_compute_many(keys, factory, policy=POLICY, should_cache=should_cache)


async def one(world: World) -> object:
    return await world.client.get_or_compute(world.key, world.factory(), policy=POLICY)


async def one_unwanted(world: World) -> object:
    return await world.client.get_or_compute(world.key, world.factory(), policy=POLICY, should_cache=lambda _: False)


async def many(world: World) -> object:
    return await world.many()


async def many_unwanted(world: World) -> object:
    return await world.many(lambda value: not value)


async def many_partly_unwanted(world: World) -> object:
    wanted = iter([True, False])
    return await world.many(lambda _: next(wanted))


async def refresh(world: World) -> object:
    client: Any = getattr(world.client, "_client", world.client)  # Any: a Client behind the adapter, or an AsyncClient
    found = client.cached(world.key, policy=POLICY)(world.factory()).refresh()
    return found if world.rig.is_blocking else await found


Form: TypeAlias = Callable[[World], Awaitable[object]]
FORMS: Final[list[Form]] = [one, one_unwanted, many, many_unwanted, many_partly_unwanted, refresh]


def is_ask(head: str) -> bool:
    return head == "get_or_compute_many" or (head.startswith("mg ") and " N" in head)


@pytest.mark.parametrize("state", ["absent", "old"])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("form", FORMS)
async def test_an_interruption_at_each_request_leaves_no_lease(
    both: Rig, key: str, form: Form, moment: str, state: str
) -> None:
    error = Stop if both.is_blocking else asyncio.CancelledError
    number, is_done = 0, False
    while not is_done:
        world = World(both, both.texts(), f"{key}:{number}")
        keys = (world.key, f"{world.key}b")
        if state == "old":
            await world.client.set_many(dict.fromkeys(keys, "old"), ttl=3600)
            for each in keys:
                await world.client.invalidate(each, stale_for=3600)
        heads = interrupt(both, moment, number, error)
        try:
            await form(world)
            is_done = True
        except error:
            assert len(heads) > number
        both.transport.hook = both.transport.after = None
        if is_done or (moment == "after" and is_ask(heads[number])):
            number += 1
            continue
        for each in keys:  # a lease that was left behind raises BusyError, or leaves an old value with its mark
            assert await world.client.get_or_compute(each, world.factory(), policy=IMMEDIATE) in ("new", "old"), heads
            assert both.remaining(each)[1] == "", heads
        number += 1
    assert number > 2


def interrupt(rig: Rig, moment: str, at: int, error: type[BaseException]) -> list[str]:
    """Raise *error* before or after the operation number *at* from now; return the list of all heads to come."""
    heads: list[str] = []

    def hook(_: int, head: str) -> None:
        if moment == "before":
            heads.append(head)
        if len(heads) == at + 1:
            raise error

    def after(_: int, head: str) -> None:
        if moment == "after":
            heads.append(head)
            if len(heads) == at + 1:
                raise error

    rig.transport.hook = hook if moment == "before" else None
    rig.transport.after = after
    return heads
