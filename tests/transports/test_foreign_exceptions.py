"""An exception of a signal handler, or one injected by another thread, in the middle of an operation.

It propagates unchanged, whatever its class. Because of it nothing is sent again, no node is charged, and a caller that
keeps the exception keeps no connection.
"""

from __future__ import annotations

import ctypes
import gc
import random
import signal
import ssl
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any, Final

import attrs
import pytest

import metacache
from metacache import (
    BatchError,
    Client,
    ClosedError,
    Cluster,
    ConnectError,
    ConnectionLost,
    MetacacheError,
    Node,
    NodeState,
    OperationTimeout,
    Pool,
    PoolTimeout,
    ProtocolError,
    ServerError,
    Settings,
    Transport,
)
from metacache.serializers import IntSerializer
from metacache.testing import Memcached
from metacache.transports.blocking.connection import Connection
from tests.certificates import options_of_a_server, trusting
from tests.conftest import start
from tests.transports.test_dialing import closed_port

PACKAGE: Final = str(Path(metacache.__file__).parent)
PATIENT: Final = Settings(timeout=5.0)

Make = Callable[[], BaseException]

CLASSES: Final[dict[str, Make]] = {
    "TimeoutError": TimeoutError,
    "TimeoutError with arguments": lambda: TimeoutError("timed out"),
    "OSError": OSError,
    "OSError with an errno": lambda: OSError(104, "Connection reset by peer"),
    "BlockingIOError": lambda: BlockingIOError(11, "Resource temporarily unavailable"),
    "InterruptedError": InterruptedError,
    "ConnectionResetError": ConnectionResetError,
    "BrokenPipeError": lambda: BrokenPipeError(32, "Broken pipe"),
    "ssl.SSLError": lambda: ssl.SSLError(1, "a TLS error"),
    "ssl.SSLWantReadError": lambda: ssl.SSLWantReadError(2, "more is needed"),
    "Exception": lambda: Exception("SoftTimeLimitExceeded"),
    "ValueError": lambda: ValueError("wrong"),
    "TypeError": lambda: TypeError("wrong"),
    "IndexError": lambda: IndexError("pop from an empty deque"),
    "KeyError": lambda: KeyError("missing"),
    "RuntimeError": lambda: RuntimeError("release unlocked lock"),
    "KeyboardInterrupt": KeyboardInterrupt,
    "StopIteration": lambda: StopIteration("of the handler"),
    "ConnectError": lambda: ConnectError("refused"),
    "ConnectionLost": lambda: ConnectionLost("lost"),
    "OperationTimeout": lambda: OperationTimeout("late"),
    "ProtocolError": lambda: ProtocolError("strange"),
    "ServerError": lambda: ServerError("out of memory"),
    "ClosedError": lambda: ClosedError("closed"),
    "PoolTimeout": lambda: PoolTimeout("full"),
}

# Methods of sockets, of TLS and of poll: the system calls.
SYSTEM: Final = frozenset(
    (
        "send",
        "recv",
        "write",
        "read",
        "connect",
        "poll",
        "settimeout",
        "close",
        "do_handshake",
        "setsockopt",
        "register",
        "run",  # of a compiled exchange
    )
)


class Interruption:
    """Raises at the *at*-th of the chosen points inside the package, and keeps its exception.

    With *only*, the points are before and after each call of those functions. Without, they are the points at which
    CPython runs signal handlers: on entering a function, and after a call of C code, whose result is lost.
    """

    def __init__(self, at: int, make: Make, only: frozenset[str] | None = None) -> None:
        self.left = at
        self._make = make
        self._only = only
        self.raised: BaseException | None = None

    def __call__(self, frame: FrameType, event: str, called: Any) -> None:  # Any: a function of C code
        if not self._is_point(frame, event, called):
            return
        self.left -= 1
        if self.left == 0:
            sys.setprofile(None)
            signal.raise_signal(signal.SIGALRM)

    def handle(self, _: int, __: FrameType | None) -> None:
        self.raised = self._make()
        raise self.raised

    def _is_point(self, frame: FrameType, event: str, called: Any) -> bool:  # Any: as above
        if self._only is not None:
            is_near = frame.f_code.co_filename.startswith(PACKAGE) or "/ssl.py" in frame.f_code.co_filename
            return is_near and event in ("c_call", "c_return") and called.__name__ in self._only
        # Python drops an exception in a finalizer.
        is_dropped = "__del__" in (frame.f_code.co_name, frame.f_back and frame.f_back.f_code.co_name)
        return event in ("call", "c_return") and frame.f_code.co_filename.startswith(PACKAGE) and not is_dropped


def interrupted(operation: Callable[[], object], interruption: Interruption) -> BaseException | None:
    """Run *operation*; return its exception, if any."""
    before = signal.signal(signal.SIGALRM, interruption.handle)
    gc.disable()  # Python drops an exception in a callback of the collector
    sys.setprofile(interruption)
    try:
        operation()
    except BaseException as error:
        return error
    finally:
        sys.setprofile(None)
        gc.enable()
        signal.signal(signal.SIGALRM, before)
    return None


@pytest.fixture(autouse=True)
def _collected() -> Generator[None]:
    """Collect the objects that kept exceptions refer to, while the warning filters of this test apply."""
    yield
    gc.collect()


# --- clients under test ----------------------------------------------------------------------------------------------


@attrs.frozen
class Subject:
    """A client of integers, its transport and its server."""

    client: Client[int]
    transport: Transport
    server: Memcached

    def check_states(self) -> None:
        if isinstance(self.transport, Cluster):
            assert set(self.transport.states.values()) == {NodeState.UP}

    def check_slots(self) -> None:
        """Check that every slot of each pool is free."""
        if isinstance(self.transport, Pool):
            known = [self.transport.statistics]
        elif isinstance(self.transport, Cluster):
            known = [*self.transport.statistics.values()]
        else:
            return
        assert [(each.in_use, each.waiting) for each in known] == [(0, 0)] * len(known)


TRANSPORTS: Final[dict[str, Callable[[Memcached, Settings], Transport]]] = {
    "connection": lambda server, settings: Connection(server.node, settings=settings),
    "pool": lambda server, settings: Pool(server.node, settings=attrs.evolve(settings, pool_size=2)),
    "cluster": lambda server, settings: Cluster(
        [server.node], settings=attrs.evolve(settings, pool_size=1, on_node_down="next")
    ),
}


@contextmanager
def subject(server: Memcached, kind: str, settings: Settings = PATIENT) -> Generator[Subject]:
    transport = TRANSPORTS[kind](server, settings)
    with Client(transport, IntSerializer(), owns=True) as client:
        yield Subject(client, transport, server)


# The operations that are interrupted; "increment" adds one to the number.
ONE: Final[dict[str, Callable[[Client[int], str], object]]] = {
    "increment": lambda client, key: client.increment(key),
    "get": lambda client, key: client.get(key),
    "get_many": lambda client, key: client.get_many([key, "other"]),
    "set_many": lambda client, key: client.set_many({key: 10, "another": 6}),
    "delete": lambda client, _: client.delete("absent"),
}
POSSIBLE: Final = {True: (10, 11), False: (10,)}


def sweep(
    server: Memcached, kind: str, name: str, make: Make, *, cold: bool, only: frozenset[str] | None, settings: Settings
) -> int:
    """Interrupt an operation at each point; return the number of points."""
    operation = ONE[name]
    kept: list[BaseException] = []
    with subject(server, kind, settings) as reading:
        for at in range(1, 2000):
            key = f"foreign:{at}"  # a new key, because the server may see the interrupted request later
            reading.client.set_many({key: 10, "other": 5})
            with subject(server, kind, settings) as tested:
                if not cold:
                    assert tested.client.get(key) == 10
                interruption = Interruption(at, make, only)
                caught = interrupted(partial(operation, tested.client, key), interruption)
                if interruption.raised is None or caught is None:
                    assert caught is interruption.raised, f"at point {at}: the exception is lost"
                    return at - 1
                point = f"at point {at}"
                assert caught is interruption.raised, f"{point}: {caught!r} propagated"
                kept.append(caught)
                if isinstance(caught, MetacacheError):
                    assert (caught.node, caught.maybe_applied) == (None, False), point
                tested.check_states()
                began = monotonic()
                assert tested.client.get(key) in POSSIBLE[name == "increment"], point
                assert tested.client.get_many(["other", key]).keys() == {"other", key}, point
                assert monotonic() - began < PATIENT.timeout / 2, f"{point}: the caught exception keeps a connection"
                assert reading.client.get(key) in POSSIBLE[name == "increment"], point
                tested.check_slots()
    raise AssertionError("the operation has no end")


# A socket without an owner is closed by its finalizer; Python drops an exception in a callback of the collector.
LEFT: Final = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@LEFT
@pytest.mark.parametrize("class_", CLASSES)
@pytest.mark.parametrize("name", ["increment", "get", "set_many"])
def test_an_exception_before_or_after_a_system_call_propagates_unchanged(
    shared_memcached: Memcached, name: str, class_: str
) -> None:
    for kind, cold in (("connection", False), ("cluster", False), ("pool", True)):
        points = sweep(shared_memcached, kind, name, CLASSES[class_], cold=cold, only=SYSTEM, settings=PATIENT)
        # On a stream that was just used, a compiled exchange is the only call: one point before it and one after it.
        assert points >= (8 if cold else 2)


@LEFT
@pytest.mark.parametrize("turn", range(4))
@pytest.mark.parametrize("name", ONE)
@pytest.mark.parametrize("kind", TRANSPORTS)
def test_an_exception_wherever_python_handles_signals_propagates_unchanged(
    shared_memcached: Memcached, kind: str, name: str, turn: int
) -> None:
    chosen = list(CLASSES.values())
    number = iter(range(turn * 7, 10_000_000))
    sweep(
        shared_memcached,
        kind,
        name,
        lambda: chosen[next(number) % len(chosen)](),
        cold=bool(turn % 2),
        only=None,
        settings=PATIENT,
    )


@LEFT
@pytest.mark.parametrize(
    ("name", "class_"),
    [
        ("get", "StopIteration"),
        ("get", "ConnectError"),
        ("set_many", "ConnectError"),
        ("set_many", "OSError with an errno"),
    ],
)
def test_an_exception_wherever_a_dial_fails_propagates_unchanged(name: str, class_: str) -> None:
    for at in range(1, 1000):
        with Client(Pool(Node(f"127.0.0.1:{closed_port()}")), IntSerializer(), owns=True) as client:
            interruption = Interruption(at, CLASSES[class_])
            caught = interrupted(partial(ONE[name], client, "key"), interruption)
        if interruption.raised is None:
            assert isinstance(caught, ConnectError | BatchError)
            assert at > 50
            return
        assert caught is interruption.raised, f"at point {at}: {caught!r} propagated"
    raise AssertionError("the operation has no end")


@LEFT
@pytest.mark.parametrize("class_", ["TimeoutError", "OSError with an errno", "ssl.SSLWantReadError", "ConnectError"])
def test_an_exception_during_a_tls_call_propagates_unchanged(tmp_path: Path, class_: str) -> None:
    with start(*options_of_a_server(tmp_path)) as server:
        settings = attrs.evolve(PATIENT, tls=trusting())
        for cold in (False, True):
            assert sweep(server, "pool", "increment", CLASSES[class_], cold=cold, only=SYSTEM, settings=settings) > 4


# --- real signals ----------------------------------------------------------------------------------------------------


@attrs.define
class Alarms:
    """Counts the exceptions of a handler, and those that Python dropped because they were raised in a finalizer."""

    make: Make
    raised: int = 0
    dropped: int = 0

    def handle(self, _: int, __: FrameType | None) -> None:
        self.raised += 1
        raise self.make()

    @contextmanager
    def installed(self) -> Generator[None]:
        before, hook = signal.signal(signal.SIGALRM, self.handle), sys.unraisablehook

        def drop(_: sys.UnraisableHookArgs) -> None:
            self.dropped += 1

        sys.unraisablehook = drop
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)
            sys.unraisablehook = hook


ALARMS: Final = ["TimeoutError", "BlockingIOError", "ConnectionResetError", "Exception", "OperationTimeout"]


@LEFT
@pytest.mark.parametrize("class_", ALARMS)
@pytest.mark.parametrize("kind", TRANSPORTS)
@pytest.mark.alone
def test_frequent_alarms_repeat_no_increment_and_every_alarm_propagates(
    shared_memcached: Memcached, kind: str, class_: str
) -> None:
    alarms = Alarms(CLASSES[class_])
    chance = random.Random(1)
    kept: list[BaseException] = []
    done = began = 0
    with subject(shared_memcached, kind) as tested:
        tested.client.set("alarms", 0)
        with alarms.installed():
            end = monotonic() + 0.7
            while monotonic() < end or alarms.raised <= 100:
                began += 1
                try:
                    signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.00002, 0.0006))
                    tested.client.increment("alarms")
                    tested.client.get_many(["alarms", "absent"])
                    signal.setitimer(signal.ITIMER_REAL, 0.0)
                    done += 1
                except BaseException as error:
                    kept.append(error)
        number = tested.client.get("alarms")
        assert number is not None
        # A busy server may count an interrupted request later.
        later = tested.client.get_many(["alarms"])["alarms"]
        assert done <= number <= later <= began, "an increment was lost or doubled"
        expected = alarms.make()
        assert {(type(error), error.args) for error in kept} == {(type(expected), expected.args)}
        assert alarms.raised == len(kept) + alarms.dropped, "an alarm was lost"
        tested.check_states()
        tested.check_slots()


class JobTimeout(TimeoutError):
    """A class that makes its own message, because only a class can be injected."""

    def __init__(self) -> None:
        super().__init__("the job took too long")


class JobServer(ServerError):  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]  # only checkers refuse it
    def __init__(self) -> None:
        super().__init__("the job's own")


@LEFT
@pytest.mark.parametrize("class_", [TimeoutError, ServerError, JobTimeout, JobServer])
@pytest.mark.alone
def test_exceptions_that_another_thread_injects_propagate_unchanged(
    shared_memcached: Memcached, class_: type[TimeoutError | ServerError]
) -> None:
    kept: list[BaseException] = []
    calls = 0
    chance = random.Random(1)
    stopped = threading.Event()
    with subject(shared_memcached, "pool") as tested:
        tested.client.set("injected", 0)

        def use() -> None:  # since Python 3.12, no `try` covers the backward jump of a loop inside of it
            nonlocal calls
            while not stopped.is_set():
                tested.client.increment("injected")
                calls += 1

        def work() -> None:
            while not stopped.is_set():
                try:
                    use()
                except (MetacacheError, TimeoutError) as error:
                    kept.append(error)

        thread = threading.Thread(target=work)
        thread.start()

        def wait(more_calls: int, more_kept: int) -> None:
            end_of_calls, end_of_kept = calls + more_calls, len(kept) + more_kept
            while calls < end_of_calls and len(kept) < end_of_kept and thread.is_alive():
                time.sleep(0.0001)

        for _ in range(300):
            wait(1, 1000)  # it is in `use`: elsewhere, an exception ends the thread
            time.sleep(chance.uniform(0.0, 0.0005))
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(class_))
            wait(2, 1)  # it comes out, or two calls end: then Python dropped it in a finalizer
        stopped.set()
        thread.join()
        assert len(kept) > 200
        assert {type(error) for error in kept} == {class_}
        tested.check_slots()


# --- kept exceptions -------------------------------------------------------------------------------------------------


def test_an_error_that_the_caller_keeps_does_not_keep_a_connection(shared_memcached: Memcached) -> None:
    with subject(shared_memcached, "pool", attrs.evolve(PATIENT, max_value_size=100)) as tested:
        kept: list[BaseException] = []
        for value in (10**200, 1):
            try:
                tested.client.set_many({"a": value, "b": value})
                tested.client.set("a", value)
            except (MetacacheError, BatchError) as error:
                kept.append(error)
        tested.check_slots()
        assert kept
