"""Exceptions of signal handlers anywhere in the asyncio client: no task hangs or gets a foreign value."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import itertools
import linecache
import random
import sys
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final, TypeVar, final

import attrs
import pytest

import metacache
from metacache import (
    AsyncClient,
    AsyncConnection,
    AsyncPool,
    ConnectError,
    ConnectionLost,
    MetacacheError,
    Node,
    OperationTimeout,
    Settings,
    TransportError,
)
from metacache.cluster.health import is_node_failure
from metacache.testing import Memcached
from storms.lag import SleeperLag
from tests.scripted import Peer, ScriptedServer
from tests.transports.aio_rig import sockets, until, value_of

T = TypeVar("T")

PACKAGE: Final = str(Path(metacache.__file__).parent)
KEYS: Final = [f"interrupt:{number}" for number in range(30)]
ITEMS: Final = {key: value_of(key) for key in KEYS}
SETTINGS: Final = Settings(timeout=0.6, connect_timeout=0.6, pool_size=1)
# Seconds. A machine whose threads wake so late may also answer later than the timeouts above.
LATE: Final = 0.1


class Interrupt(BaseException):
    """An exception of a signal handler."""


# Classes that handlers raise, and that this package also catches for its own purposes.
KINDS: Final = (Interrupt, RuntimeError, TimeoutError, OSError, ConnectionResetError, ConnectError, OperationTimeout)


@final
class Injector:
    """Raises *kind* while lines of this package run: after as many lines as the first of *gaps*, then of the next.

    Python removes a trace function that raises. It keeps the profile function, which sets the trace function again.
    """

    def __init__(self, gaps: Sequence[int], kind: type[BaseException]) -> None:
        self._gaps = list(gaps)
        self._left = self._gaps.pop(0)
        self._kind = kind
        self.raised: list[BaseException] = []

    def __enter__(self) -> None:
        self._before = sys.gettrace()  # that of coverage
        sys.setprofile(self._go_on)
        sys.settrace(self._enter)

    def __exit__(self, *_: object) -> None:
        self._left = 0
        sys.settrace(self._before)
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
                self.raised.append(self._kind(f"injected {len(self.raised)}"))
                raise self.raised[-1]
        return self._step


class Loop:
    """An event loop; collects the exceptions that it reports and those that end its runs."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.surfaced: list[BaseException] = []
        loop.set_exception_handler(lambda _, context: self.surfaced.append(context.get("exception", Interrupt())))

    def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:  # Any: what a coroutine yields is its loop's
        """Run the coroutine until it ends; repeat it when an injected exception ended the loop."""
        while True:
            try:
                return self._loop.run_until_complete(make())
            except BaseException as failure:
                if not is_injected(failure):
                    raise
                self.surfaced.append(failure)


def is_injected(error: BaseException | None) -> bool:
    """Return whether *error* was injected, or was raised because of an injected one."""
    return error is not None and (
        "injected" in str(error) or is_injected(error.__cause__) or is_injected(error.__context__)
    )


async def read_one(client: AsyncClient[bytes], key: str) -> None:
    found = await client.get(key)
    assert found == ITEMS[key], "a foreign value"


async def read_all(client: AsyncClient[bytes]) -> None:
    assert await client.get_many(KEYS) == ITEMS, "a foreign value"


def read_while(loop: Loop, client: AsyncClient[bytes], injector: Injector) -> None:
    """Read in several tasks while *injector* raises; check that every task ends."""

    async def ask() -> list[asyncio.Task[None]]:
        calls = [read_one(client, key) for key in KEYS[:5]]
        return [asyncio.ensure_future(call) for call in (*calls, read_all(client))]

    async def wait(seconds: float) -> set[asyncio.Task[None]]:
        _, hanging = await asyncio.wait(tasks, timeout=seconds)
        return hanging

    tasks = loop.run(ask)
    with injector, contextlib.suppress(*KINDS):
        loop.run(lambda: wait(5.0))
    assert not loop.run(lambda: wait(2.0 * SETTINGS.timeout + 0.5)), "a task waits beyond its deadline"
    for task in tasks:
        failure = task.exception()
        assert failure is None or isinstance(failure, MetacacheError) or is_injected(failure), repr(failure)
        if failure is not None:
            loop.surfaced.append(failure)


def read_again(loop: Loop, client: AsyncClient[bytes]) -> None:
    """Check that the next reads are right."""

    async def ask_again() -> None:
        async with asyncio.timeout(5.0):
            with contextlib.suppress(MetacacheError):  # this request may still meet the broken connection
                await read_one(client, KEYS[0])
            await read_all(client)

    loop.run(ask_again)


# An exception while asyncio makes a transport leaves it to the garbage collector, which warns.
LEFT: Final = pytest.mark.filterwarnings("ignore:.*unclosed", "ignore:Exception ignored in")
# Lines between two exceptions.
GAPS: Final = (1, 1, 1, 2, 2, 3, 4, 5, 8, 13, 30)


def inject(loop: Loop, node: Node, injector: Injector, *, is_cold: bool) -> None:
    """Read with a new client of *node* while *injector* raises; check that the client goes on, and charges no node."""
    failures: list[MetacacheError] = []

    async def open_client() -> AsyncClient[bytes]:
        client = AsyncClient(AsyncPool(node, settings=SETTINGS, on_failure=failures.append), owns=True)
        if not is_cold:
            await client.set_many(ITEMS)
        return client

    client = loop.run(open_client)
    try:
        read_while(loop, client, injector)
        read_again(loop, client)
    finally:
        loop.run(client.aclose)
    charged = [failure for failure in failures if is_node_failure(failure)]
    assert not charged, charged


def repeat_if_late(case: Callable[[], None]) -> None:
    """Run *case*. If it fails while the machine is late, its time limits say nothing: run it again."""
    for is_last in (False, False, False, True):
        lag = SleeperLag()
        lag.start()
        try:
            case()
        except (AssertionError, MetacacheError, TimeoutError):
            if lag.worst < LATE or is_last:
                raise
        else:
            return
        finally:
            lag.stop()


def inject_everywhere(shared_memcached: Memcached, *, is_cold: bool, count: int) -> None:
    chance = random.Random(count)
    node = shared_memcached.node
    raised: list[BaseException] = []
    surfaced: list[BaseException] = []

    async def store() -> None:
        async with AsyncClient(AsyncPool(node), owns=True) as client:
            await client.set_many(ITEMS)

    def run_case(gaps: Sequence[int], kind: type[BaseException]) -> None:
        loop, injector = Loop(runner.get_loop()), Injector(gaps, kind)
        inject(loop, node, injector, is_cold=is_cold)
        raised[:], surfaced[:] = injector.raised, loop.surfaced

    with asyncio.Runner() as runner:
        runner.run(store())
        before, at = sockets(), 1
        while at < 700 and (at == 1 or raised):
            gaps, kind = [at, *chance.choices(GAPS, k=count - 1)], chance.choice(KINDS)
            repeat_if_late(partial(run_case, gaps, kind))
            if count == 1 and raised:
                assert any(map(is_injected, surfaced)), f"{raised} was swallowed at {at}"
            surfaced.clear()
            at += 5 if count == 1 else 7
        raised.clear()
        gc.collect()
        runner.run(asyncio.sleep(0.01))
        assert at > 100, "the code under test has some lines"
        assert sockets() <= before + 1


@LEFT
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("is_cold", [False, True])
def test_exceptions_of_signal_handlers_leave_no_task_waiting_mix_no_values_and_charge_no_node(
    shared_memcached: Memcached, *, is_cold: bool, count: int
) -> None:
    # In a thread of its own: after an exception of a trace function, the thread's later exceptions may refer to it
    # forever.
    with ThreadPoolExecutor(1) as threads:
        threads.submit(inject_everywhere, shared_memcached, is_cold=is_cold, count=count).result()


@final
class Strike:
    """Raises *kind* once, before a line of the function *name*: the first one for which *is_there* returns True."""

    def __init__(self, name: str, is_there: Callable[[FrameType], bool], kind: type[BaseException]) -> None:
        self._name = name
        self._is_there = is_there
        self._kind = kind
        self.has_raised = False

    def __enter__(self) -> None:
        self._before = sys.gettrace()  # that of coverage
        sys.settrace(self._enter)

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _enter(self, frame: FrameType, _event: str, _: object) -> Any:  # Any: a trace function
        return self._step if frame.f_code.co_name == self._name else None

    def _step(self, frame: FrameType, event: str, __: object) -> Any:  # Any: as above
        if event == "line" and not self.has_raised and self._is_there(frame):
            self.has_raised = True
            raise self._kind("injected")
        return self._step


def surfaced_in(scenario: Callable[[], Coroutine[Any, Any, None]]) -> list[str]:  # Any: as in `Loop`
    """Run *scenario* in a loop; return the exceptions that the loop reports, as texts."""

    def run() -> list[str]:
        with asyncio.Runner() as runner:
            loop = Loop(runner.get_loop())
            runner.run(scenario())
            return list(map(str, loop.surfaced))

    with ThreadPoolExecutor(1) as threads:  # as above
        return threads.submit(run).result()


def lose(line: int) -> bool:
    """Interrupt the handling of a lost connection before its *line*-th line; return whether it has so many.

    Check that afterwards no request is in flight, and that no timer runs again and again.
    """
    lines = itertools.count(1)
    strike = Strike("_lost", lambda _: next(lines) == line, Interrupt)
    settings = attrs.evolve(SETTINGS, timeout=0.1)

    def close(peer: Peer) -> None:
        peer.requests(2)
        peer.fin()

    async def scenario() -> None:
        connection = AsyncConnection(server.node, settings=settings)
        client = AsyncClient(connection)
        with strike:
            calls = [client.set(key, b"value") for key in KEYS[:2]]
            found = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(each, TransportError) for each in found), found
        await until(lambda: not connection.load and not connection._timer._timers)
        assert connection.in_flight == 0

    with ScriptedServer(close) as server:
        surfaced = surfaced_in(scenario)
    assert surfaced == ["injected"] * strike.has_raised
    return strike.has_raised


def test_a_lost_connection_has_no_requests_in_flight_although_a_signal_interrupted_its_loss() -> None:
    assert len(list(itertools.takewhile(lose, itertools.count(1)))) > 10


@pytest.mark.parametrize("kind", [Interrupt, RuntimeError, OSError], ids=lambda kind: kind.__name__)
def test_the_loop_reports_an_exception_of_a_signal_handler_once(kind: type[BaseException]) -> None:
    def sends(frame: FrameType) -> bool:
        return "_sock.send(" in linecache.getline(frame.f_code.co_filename, frame.f_lineno)

    def answer(peer: Peer) -> None:
        peer.request().answer(b"EN")
        peer.expect_end()

    async def scenario() -> None:
        async with AsyncConnection(server.node, settings=SETTINGS) as connection:
            client = AsyncClient(connection)
            assert await client.get("key") is None
            with Strike("write", sends, kind), pytest.raises(ConnectionLost):
                await client.set("key", b"value")
            await asyncio.sleep(0.01)

    with ScriptedServer(answer) as server:
        assert surfaced_in(scenario) == ["injected"]


tenant: Final = contextvars.ContextVar("tenant", default="none")


@final
class OfTenant:
    """A serializer that reads a context variable."""

    wire_id = 96
    fingerprint = 0

    def dumps(self, value: str, /) -> bytes:
        return value.encode()

    def loads(self, _: bytes, /) -> str:
        return tenant.get()


class Panic(BaseException):
    """An exception like that of a serializer written in another language."""


@final
class Panicking:
    """A serializer that fails for one value."""

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
