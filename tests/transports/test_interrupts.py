"""An exception of a signal handler (such as KeyboardInterrupt) in an exchange: the next calls return right values.

It propagates unchanged. A connection at an uncertain position is closed. No slot leaks, and no lock stays held.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Final

import pytest

import metacache
from metacache import Client, Connection, Settings, accelerated, connect
from metacache.testing import Memcached
from tests.conftest import start
from tests.scripted import Peer, ScriptedServer, answering, in_turn, silent
from tests.transports.rig import HIT, client_of


class Interrupt(BaseException):
    """Stands for KeyboardInterrupt, which would end the test run."""


# --- real signals ----------------------------------------------------------------------------------------------------


@contextmanager
def alarm(seconds: float) -> Generator[None]:
    """Raise Interrupt in a signal handler after *seconds*."""

    def handle(_: int, __: FrameType | None) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


SOON: Final = 0.05
HUGE: Final = b"x" * 20_000_000  # more than the sockets between client and server hold

WAITING: Final[tuple[Callable[[Client[bytes]], object], ...]] = (
    lambda client: client.get("key"),
    lambda client: client.set("key", b"v"),
    lambda client: client.get_many(["a", "b"]),
    lambda client: client.set_many({"a": b"1", "b": b"2"}),
)


@pytest.mark.parametrize("operation", WAITING)
def test_a_signal_while_waiting_for_a_reply_closes_the_connection(operation: Callable[[Client[bytes]], object]) -> None:
    with ScriptedServer(silent, answering(HIT)) as server, client_of(server) as client:
        with alarm(SOON), pytest.raises(Interrupt):
            operation(client)
        assert "not connected" in repr(client)
        assert client.get("key") == b"right"


SENDING: Final[tuple[Callable[[Client[bytes]], object], ...]] = (
    lambda client: client.set("key", HUGE),
    lambda client: client.set_many({"a": HUGE, "b": b"small"}),
)


@pytest.mark.parametrize("operation", SENDING)
def test_a_signal_while_sending_closes_the_connection(operation: Callable[[Client[bytes]], object]) -> None:
    release = threading.Event()

    def deaf(peer: Peer) -> None:
        release.wait(10.0)
        peer.rst()

    with ScriptedServer(deaf, answering(HIT)) as server, client_of(server) as client:
        with alarm(SOON), pytest.raises(Interrupt):
            operation(client)
        release.set()
        assert client.get("key") == b"right"


def test_a_signal_in_the_middle_of_a_reply_closes_the_connection() -> None:
    def half(peer: Peer) -> None:
        asked = peer.request()
        peer.send(asked.reply(b"VA 10 f0", b"wrong")[:-2])
        silent(peer)

    with ScriptedServer(half, answering(HIT)) as server, client_of(server) as client:
        with alarm(SOON), pytest.raises(Interrupt):
            client.get("key")
        assert client.get("key") == b"right"


def test_a_signal_while_waiting_for_another_thread_keeps_its_connection_open() -> None:
    asked, release = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        first = peer.request()
        asked.set()
        release.wait(10.0)
        first.answer(*HIT)
        answering(HIT)(peer)

    with ScriptedServer(script) as server, client_of(server) as client:
        got: list[bytes | None] = []
        other = threading.Thread(target=lambda: got.append(client.get("key")))
        other.start()
        assert asked.wait(5.0)
        with alarm(SOON), pytest.raises(Interrupt):
            client.get("key")
        release.set()
        other.join()
        assert got == [b"right"]
        assert client.get("key") == b"right"
        assert server.accepted == 1


def test_a_signal_during_a_dial_leaves_a_usable_client() -> None:
    settings = Settings(timeout=5.0, connect_timeout=5.0, username="user", password="secret")

    def half(peer: Peer) -> None:
        peer.request()
        silent(peer)

    accepting = in_turn(lambda peer: peer.request().answer(b"STORED"), answering(HIT))
    with ScriptedServer(half, accepting) as server, client_of(server, settings) as client:
        with alarm(SOON), pytest.raises(Interrupt):
            client.get("key")
        assert client.get("key") == b"right"


# --- an interrupt at each point where CPython runs signal handlers ----------------------------------------------------

PACKAGE: Final = str(Path(metacache.__file__).parent)


class Injector:
    """Raises Interrupt at the *at*-th point inside the package at which CPython runs signal handlers.

    These points are on entering a function and after a call of C code, whose result is lost.
    """

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if event in ("call", "c_return") and frame.f_code.co_filename.startswith(PACKAGE):
            self.left -= 1
            if self.left == 0:
                sys.setprofile(None)
                raise Interrupt


def interrupted(operation: Callable[[Client[bytes]], object], client: Client[bytes], at: int) -> bool:
    """Run *operation* with *client*, interrupted at its *at*-th point; return whether it had that many points."""
    injector = Injector(at)
    sys.setprofile(injector)
    try:
        operation(client)
    except Interrupt:
        pass
    finally:
        sys.setprofile(None)
    return injector.left <= 0


# Values that arrive in one piece and in several. Cold: on a connection that is not dialled yet.
SWEPT: Final[dict[str, Callable[[Client[bytes]], object]]] = {
    "get": lambda client: client.get("small"),
    "get in pieces": lambda client: client.get("large"),
    "miss": lambda client: client.get("none"),
    "set": lambda client: client.set("other", b"v"),
    "set in pieces": lambda client: client.set("other", b"v" * 900_000),
    "get_many": lambda client: client.get_many(["small", "large", "none"]),
    "set_many": lambda client: client.set_many({"other": b"1", "another": b"2"}),
    "delete": lambda client: client.delete("other"),
}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Generator[Memcached]:
    """Return a server with a password, so that a connection without authentication would be refused."""
    passwords = tmp_path_factory.mktemp("auth") / "passwords"
    passwords.write_text("user:secret\n")
    with start("-Y", str(passwords)) as server:
        with connect(server.url.replace("//", "//user:secret@")) as client:
            client.set_many({"small": b"small:value", "large": b"large:" + b"x" * 300_000})
        yield server


# A socket without an owner is closed by its finalizer; Python drops an exception in a callback of the collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", SWEPT)
@pytest.mark.parametrize("cold", [False, True], ids=["warm", "cold"])
def test_wherever_a_signal_interrupts_a_call_the_next_calls_are_right(
    guarded: Memcached, name: str, *, cold: bool
) -> None:
    settings = Settings(timeout=5.0, username="user", password="secret")
    client = Client(Connection(guarded.node, settings=settings), owns=True)
    operation = SWEPT[name]
    for at in range(1, 2000):
        if cold:
            client.close()
            client = Client(Connection(guarded.node, settings=settings), owns=True)
        else:
            client.get("small")
        was_interrupted = interrupted(operation, client, at)
        start_of_next = monotonic()
        assert client.get("small") == b"small:value", f"interrupted at point {at}"
        assert client.get_many(["none", "small"]) == {"small": b"small:value"}
        assert client.get("none") is None
        assert monotonic() - start_of_next < 4.0, "the connection was still in use"
        if not was_interrupted:
            assert at > (5 if accelerated else 10)  # a compiled exchange has fewer points
            break
    client.close()


def test_an_interrupted_client_leaks_no_socket(guarded: Memcached) -> None:
    settings = Settings(timeout=5.0, username="user", password="secret")

    def open_sockets() -> int:
        gc.collect()
        return sum(os.readlink(path).startswith("socket:") for path in _descriptors())

    before = open_sockets()
    for at in range(20, 120, 7):
        with Client(Connection(guarded.node, settings=settings), owns=True) as client:
            client.get("small")
            operation = SWEPT["get in pieces"]
            interrupted(operation, client, at)
    assert open_sockets() == before


def _descriptors() -> list[str]:
    paths = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return [path for path in paths if _is_open(path)]


def _is_open(path: str) -> bool:
    with suppress(OSError):
        os.readlink(path)
        return True
    return False
