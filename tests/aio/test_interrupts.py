"""What a handler of signals raises under an event loop strikes anywhere: nobody hangs, or gets another's value."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import sys
from pathlib import Path
from types import FrameType
from typing import Any, Final, final

import pytest

import metacache
from metacache import AsyncClient, AsyncPool, MetacacheError, Settings
from metacache.testing import Memcached
from tests.aio.rig import value_of

PACKAGE: Final = str(Path(metacache.__file__).parent)
KEYS: Final = [f"strike:{number}" for number in range(30)]
ITEMS: Final = {key: value_of(key) for key in KEYS}
SETTINGS: Final = Settings(timeout=0.3, connect_timeout=0.3, pool_size=1)


class Strike(BaseException):
    """What the handler raises."""


@final
class Striker:
    """Raises at the *at*-th line of this package that runs."""

    def __init__(self, at: int) -> None:
        self._left = at
        self.struck = False

    def __enter__(self) -> None:
        sys.settrace(self._enter)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _enter(self, frame: FrameType, _event: str, _: object) -> Any:  # Any: a trace function
        return self._step if frame.f_code.co_filename.startswith(PACKAGE) else None

    def _step(self, _: FrameType, event: str, __: object) -> Any:  # Any: as above
        if event == "line" and not self.struck:
            self._left -= 1
            if self._left == 0:
                self.struck = True
                raise Strike
        return self._step


async def read_one(client: AsyncClient[bytes], key: str) -> None:
    assert await client.get(key) == ITEMS[key]


async def read_all(client: AsyncClient[bytes]) -> None:
    assert await client.get_many(KEYS) == ITEMS


def strike_once(loop: asyncio.AbstractEventLoop, client: AsyncClient[bytes], striker: Striker) -> None:
    """Read in several tasks while *striker* strikes; then every task ends, and the next reads are right."""

    async def ask() -> list[asyncio.Task[None]]:
        calls = [read_one(client, key) for key in KEYS[:5]]
        return [asyncio.ensure_future(call) for call in (*calls, read_all(client))]

    tasks = loop.run_until_complete(ask())
    with striker, contextlib.suppress(Strike):
        loop.run_until_complete(asyncio.wait(tasks, timeout=5.0))
    while True:
        with contextlib.suppress(Strike):
            _, hanging = loop.run_until_complete(asyncio.wait(tasks, timeout=5.0))
            break
    assert not hanging
    for task in tasks:
        failure = task.exception()
        assert failure is None or isinstance(failure, MetacacheError | Strike), repr(failure)

    async def ask_again() -> None:
        async with asyncio.timeout(5.0):
            with contextlib.suppress(MetacacheError):  # one may still wait for what was lost
                await read_one(client, KEYS[0])
            await read_all(client)

    loop.run_until_complete(ask_again())


def say_nothing(_: asyncio.AbstractEventLoop, __: dict[str, Any]) -> None:  # Any: as asyncio has it
    """Take no notice of the strikes that hit a callback of the loop."""


# A strike while asyncio makes a transport leaves that to the garbage collector, which says so.
LEFT: Final = pytest.mark.filterwarnings("ignore:.*unclosed", "ignore:Exception ignored in")


@pytest.mark.parametrize("is_cold", [False, pytest.param(True, marks=LEFT)])
def test_a_strike_anywhere_leaves_nobody_waiting_and_gives_nobody_another_s_value(
    shared_memcached: Memcached, *, is_cold: bool
) -> None:
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        loop.set_exception_handler(say_nothing)
        at, struck = 1, True
        while struck and at < 700:

            async def open_client() -> AsyncClient[bytes]:
                client = AsyncClient(AsyncPool(shared_memcached.node, settings=SETTINGS), owns=True)
                if not is_cold:
                    await client.set_many(ITEMS)
                return client

            client = loop.run_until_complete(open_client())
            if is_cold and at == 1:
                loop.run_until_complete(client.set_many(ITEMS))
            striker = Striker(at)
            strike_once(loop, client, striker)
            loop.run_until_complete(client.aclose())
            struck = striker.struck
            at += 5 if is_cold else 1
        assert at > 100, "there was something to strike"
    gc.collect()


tenant: Final = contextvars.ContextVar("tenant", default="nobody")


@final
class OfTenant:
    """A serializer that looks at the caller's context."""

    wire_id = 96
    fingerprint = 0

    def dumps(self, value: str, /) -> bytes:
        return value.encode()

    def loads(self, _: bytes, /) -> str:
        return tenant.get()


class Panic(BaseException):
    """What a serializer in another language may raise."""


@final
class Panicking:
    """A serializer that one value is too much for."""

    wire_id = 128
    fingerprint = 0

    def dumps(self, value: str, /) -> bytes:
        return value.encode()

    def loads(self, data: bytes, /) -> str:
        if data == b"bad":
            raise Panic
        return data.decode()


@pytest.mark.both_loops
async def test_values_are_read_in_the_context_of_who_asked(shared_memcached: Memcached) -> None:
    async with AsyncClient(AsyncPool(shared_memcached.node), OfTenant(), owns=True) as client:
        await client.set("context", "x")

        async def ask(name: str) -> tuple[str | None, dict[str, str]]:
            tenant.set(name)
            return await client.get("context"), await client.get_many(["context"])

        found = await asyncio.gather(*(ask(name) for name in "abc"))
        assert found == [(name, {"context": name}) for name in "abc"]


@pytest.mark.both_loops
async def test_what_reading_one_value_raises_is_its_caller_s_alone(shared_memcached: Memcached) -> None:
    async with AsyncClient(AsyncPool(shared_memcached.node), Panicking(), owns=True) as client:
        await client.set_many({"panic:good": "good", "panic:bad": "bad"})
        calls = [client.get("panic:bad" if number == 4 else "panic:good") for number in range(10)]
        found = await asyncio.gather(*calls, client.set("panic:other", "x"), return_exceptions=True)
        assert isinstance(found[4], Panic)
        assert found[:4] + found[5:10] == ["good"] * 9
        assert found[10]
