"""What a handler of signals raises under an event loop strikes anywhere: nobody hangs, or gets another's value."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import random
import sys
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any, Final, TypeVar, final

import pytest

import metacache
from metacache import (
    AsyncClient,
    AsyncPool,
    ConnectError,
    MetacacheError,
    OperationTimeout,
    Settings,
)
from metacache.cluster.health_tracker import is_node_failure
from metacache.testing import Memcached
from tests.transports.aio_rig import sockets, value_of

T = TypeVar("T")

PACKAGE: Final = str(Path(metacache.__file__).parent)
KEYS: Final = [f"strike:{number}" for number in range(30)]
ITEMS: Final = {key: value_of(key) for key in KEYS}
SETTINGS: Final = Settings(timeout=0.3, connect_timeout=0.3, pool_size=1)


class Strike(BaseException):
    """What the handler raises."""


# Classes that handlers raise, and this package catches for itself.
KINDS: Final = (Strike, RuntimeError, TimeoutError, OSError, ConnectionResetError, ConnectError, OperationTimeout)


@final
class Striker:
    """Raises *kind* at lines of this package that run: first at that of the first gap, then so many lines later.

    Python forgets a trace function that raises; the profile function, which it keeps, sets it again.
    """

    def __init__(self, gaps: Sequence[int], kind: type[BaseException]) -> None:
        self._gaps = list(gaps)
        self._left = self._gaps.pop(0)
        self._kind = kind
        self.raised: list[BaseException] = []

    def __enter__(self) -> None:
        sys.setprofile(self._go_on)
        sys.settrace(self._enter)

    def __exit__(self, *_: object) -> None:
        self._left = 0
        sys.settrace(None)
        sys.setprofile(None)

    def _enter(self, frame: FrameType, _event: str, _: object) -> Any:  # Any: a trace function
        return self._step if frame.f_code.co_filename.startswith(PACKAGE) else None

    def _go_on(self, frame: FrameType, _event: str, _: object) -> None:
        if not self._left or not self.raised or sys.gettrace() is not None:
            return
        each: FrameType | None = frame
        while each is not None:
            each.f_trace = self._enter(each, "", None)
            each = each.f_back
        sys.settrace(self._enter)

    def _step(self, _: FrameType, event: str, __: object) -> Any:  # Any: as above
        if event == "line" and self._left:
            self._left -= 1
            if not self._left:
                self._left = self._gaps.pop(0) if self._gaps else 0
                self.raised.append(self._kind(f"strike {len(self.raised)}"))
                raise self.raised[-1]
        return self._step


class Loop:
    """A loop, what it reports and what its runs end with."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.surfaced: list[BaseException] = []
        loop.set_exception_handler(lambda _, context: self.surfaced.append(context.get("exception", Strike())))

    def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:  # Any: what a coroutine yields is its loop's
        """Run the coroutine, again and again until none of the strikes ends it."""
        while True:
            try:
                return self._loop.run_until_complete(make())
            except BaseException as failure:
                if not is_strike(failure):
                    raise
                self.surfaced.append(failure)


def is_strike(error: BaseException | None) -> bool:
    """Tell whether *error* is a strike, or was raised because of one."""
    return error is not None and ("strike" in str(error) or is_strike(error.__cause__) or is_strike(error.__context__))


async def read_one(client: AsyncClient[bytes], key: str) -> None:
    found = await client.get(key)
    assert found == ITEMS[key], "it is another's value"


async def read_all(client: AsyncClient[bytes]) -> None:
    assert await client.get_many(KEYS) == ITEMS, "it is another's value"


def strike(loop: Loop, client: AsyncClient[bytes], striker: Striker) -> None:
    """Read in several tasks while *striker* strikes; every task ends, and the next reads are right."""

    async def ask() -> list[asyncio.Task[None]]:
        calls = [read_one(client, key) for key in KEYS[:5]]
        return [asyncio.ensure_future(call) for call in (*calls, read_all(client))]

    async def wait(seconds: float) -> set[asyncio.Task[None]]:
        _, hanging = await asyncio.wait(tasks, timeout=seconds)
        return hanging

    tasks = loop.run(ask)
    with striker, contextlib.suppress(*KINDS):
        loop.run(lambda: wait(5.0))
    assert not loop.run(lambda: wait(2.0 * SETTINGS.timeout + 0.5)), "a task waits beyond its deadline"
    for task in tasks:
        failure = task.exception()
        assert failure is None or isinstance(failure, MetacacheError) or is_strike(failure), repr(failure)
        if failure is not None:
            loop.surfaced.append(failure)

    async def ask_again() -> None:
        async with asyncio.timeout(5.0):
            with contextlib.suppress(MetacacheError):  # one may still wait for what was lost
                await read_one(client, KEYS[0])
            await read_all(client)

    loop.run(ask_again)


# A strike while asyncio makes a transport leaves that to the garbage collector, which says so.
LEFT: Final = pytest.mark.filterwarnings("ignore:.*unclosed", "ignore:Exception ignored in")
# Lines between two strikes.
GAPS: Final = (1, 1, 1, 2, 2, 3, 4, 5, 8, 13, 30)


def strike_everywhere(shared_memcached: Memcached, *, is_cold: bool, strikes: int) -> None:
    chance = random.Random(strikes)
    failures: list[MetacacheError] = []

    async def open_client() -> AsyncClient[bytes]:
        client = AsyncClient(AsyncPool(shared_memcached.node, settings=SETTINGS, on_failure=failures.append), owns=True)
        if not is_cold:
            await client.set_many(ITEMS)
        return client

    async def store() -> None:
        async with AsyncClient(AsyncPool(shared_memcached.node), owns=True) as client:
            await client.set_many(ITEMS)

    with asyncio.Runner() as runner:
        runner.run(store())
        before, at, striker = sockets(), 1, None
        while at < 700 and (striker is None or striker.raised):
            loop = Loop(runner.get_loop())
            client = loop.run(open_client)
            striker = Striker([at, *chance.choices(GAPS, k=strikes - 1)], chance.choice(KINDS))
            strike(loop, client, striker)
            loop.run(client.aclose)
            assert not [failure for failure in failures if is_node_failure(failure)], f"at {at}"
            if strikes == 1 and striker.raised:
                assert any(map(is_strike, loop.surfaced)), f"{striker.raised} was swallowed at {at}"
            failures.clear()
            del loop, client
            at += 5 if strikes == 1 else 7
        gc.collect()
        runner.run(asyncio.sleep(0.01))
        assert at > 100, "there was something to strike"
        assert sockets() <= before + 1


@LEFT
@pytest.mark.parametrize("strikes", [1, 2, 3])
@pytest.mark.parametrize("is_cold", [False, True])
def test_exceptions_of_signal_handlers_leave_no_task_waiting_mix_no_values_and_charge_no_node(
    shared_memcached: Memcached, *, is_cold: bool, strikes: int
) -> None:
    # In a thread of its own: after an exception of a trace function a thread may seem to handle it for ever, and every
    # later exception would refer to it.
    with ThreadPoolExecutor(1) as threads:
        threads.submit(strike_everywhere, shared_memcached, is_cold=is_cold, strikes=strikes).result()


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
async def test_values_are_read_in_the_context_of_the_caller(shared_memcached: Memcached) -> None:
    async with AsyncClient(AsyncPool(shared_memcached.node), OfTenant(), owns=True) as client:
        await client.set("context", "x")

        async def ask(name: str) -> tuple[str | None, dict[str, str]]:
            tenant.set(name)
            return await client.get("context"), await client.get_many(["context"])

        found = await asyncio.gather(*(ask(name) for name in "abc"))
        assert found == [(name, {"context": name}) for name in "abc"]


@pytest.mark.both_loops
async def test_an_exception_of_loads_reaches_only_its_own_caller(shared_memcached: Memcached) -> None:
    async with AsyncClient(AsyncPool(shared_memcached.node), Panicking(), owns=True) as client:
        await client.set_many({"panic:good": "good", "panic:bad": "bad"})
        calls = [client.get("panic:bad" if number == 4 else "panic:good") for number in range(10)]
        found = await asyncio.gather(*calls, client.set("panic:other", "x"), return_exceptions=True)
        assert isinstance(found[4], Panic)
        assert found[:4] + found[5:10] == ["good"] * 9
        assert found[10]
