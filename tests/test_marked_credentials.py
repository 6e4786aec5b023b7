"""A unique user and password are in no text that metacache makes while connections fail in every way.

The texts: errors with all errors that they refer to, pickles of errors, log records of every logger, warnings, and the
reprs of the objects that hold the credentials. Also the local variables in metacache's frames, which Python's own
traceback does not show but some error reporters do.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import logging
import pickle
import socket
import ssl
import traceback
import warnings
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias

import pytest

import metacache
from metacache import (
    AsyncClient,
    AsyncCluster,
    AsyncConnection,
    AsyncPool,
    BatchError,
    Client,
    Cluster,
    Connection,
    MetacacheError,
    Node,
    Pool,
    Settings,
    connect,
    connect_async,
)
from metacache.serializers import StrSerializer
from metacache.testing import Memcached
from metacache.transports.blocking.dialer import Dialer
from tests.certificates import serving, trusting
from tests.conftest import start
from tests.scripted import Peer, Script, ScriptedServer, silent
from tests.test_credentials import linked, texts_of

USER: Final = "canaryuser7391"
PASSWORD: Final = "canarypassword2846"
MARKS: Final = (USER, PASSWORD)
ROOT: Final = Path(metacache.__file__).parent

Place: TypeAlias = tuple[Node, Settings]


def settings_of(**changes: object) -> Settings:
    values = {"timeout": 0.3, "connect_timeout": 0.3, "pool_size": 1, "username": USER, "password": PASSWORD, **changes}
    return Settings(**values)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # names of many types


def reveals(text: str | bytes) -> bool:
    """Return whether *text* has one of the marks, or half of one."""
    lower = text.lower() if isinstance(text, str) else text.decode("latin-1").lower()
    return any(mark[:10] in lower or mark[-10:] in lower for mark in MARKS)


def locals_of(error: BaseException) -> Iterator[str]:
    """Return the local variables that an error reporter finds in metacache's frames."""
    for each in linked(error):
        for frame, _ in traceback.walk_tb(each.__traceback__):
            if ROOT in Path(frame.f_code.co_filename).parents:
                where = f"{frame.f_code.co_filename}:{frame.f_code.co_name}"
                yield from (f"{where}: {name} = {value!r}" for name, value in frame.f_locals.items())


def shown_by(error: BaseException, *, with_locals: bool = True) -> Iterator[str | bytes]:
    yield from texts_of(error)
    for each in linked(error):
        yield from getattr(each, "__notes__", [])
        if isinstance(each, MetacacheError):
            yield pickle.dumps(each)
            yield repr(vars(copy.copy(each)))
        if isinstance(each, BatchError):
            for one in each.errors.values():
                yield from shown_by(one, with_locals=with_locals)
    if with_locals:
        yield from locals_of(error)


# --- how connections fail ----------------------------------------------------------------------------------------


def after_authentication(*replies: bytes) -> Script:
    """Return a script that reads the credentials, sends *replies* and closes."""

    def script(peer: Peer) -> None:
        peer.request()
        for reply in replies:
            peer.send(reply)
        peer.fin()

    return script


def echoing(peer: Peer) -> None:
    """Send back what the client sends: another program listens on the port."""
    asked = peer.request()
    peer.send(asked.line + b"\r\n" + (asked.body or b"") + b"\r\n")
    peer.fin()


def reset(peer: Peer) -> None:
    peer.request()
    peer.rst()


SCRIPTS: Final[dict[str, Script]] = {
    "silence": silent,
    "echo": echoing,
    "reset": reset,
    "end": after_authentication(),
    "refused": after_authentication(b"CLIENT_ERROR authentication failure\r\n"),
    "malformed": after_authentication(b"CLIENT_ERROR bad authentication token format\r\n"),
    "echo in CLIENT_ERROR": after_authentication(f"CLIENT_ERROR {USER} {PASSWORD}\r\n".encode()),
    "echo in SERVER_ERROR": after_authentication(f"SERVER_ERROR {USER} {PASSWORD}\r\n".encode()),
    "echo in ERROR": after_authentication(f"ERROR {PASSWORD}\r\n".encode()),
    "echo of the password": after_authentication(f"{PASSWORD}\r\n".encode()),
    "echo in capitals": after_authentication(f"{PASSWORD.upper()}\r\n".encode()),
    "accepted, then echo": after_authentication(b"STORED\r\n", f"VA 99999999999 {PASSWORD}\r\n".encode()),
    "HTTP": after_authentication(f"HTTP/1.1 400 Bad Request\r\n\r\n{USER}:{PASSWORD}\r\n".encode()),
}


@contextmanager
def serving_often(script: Script, tls: ssl.SSLContext | None = None) -> Generator[Node]:
    """A server that runs *script* for each of many connections. Its own failures do not matter here."""
    server = ScriptedServer(*[script] * 50, tls=tls)
    try:
        yield server.node
    finally:
        with contextlib.suppress(Exception):
            server.__exit__(None, None, None)


@contextmanager
def failing(way: str, where: Path) -> Generator[Place]:
    """A node whose connections fail in the way *way*, and the settings."""
    if way in SCRIPTS:
        with serving_often(SCRIPTS[way]) as node:
            yield node, settings_of()
    elif way == "certificate":
        with serving_often(silent, serving("other.invalid")) as node:
            yield node, settings_of(tls=trusting())
    elif way == "real server":
        file = where / "passwords"
        file.write_text("someone:else\n")
        with start("-Y", str(file)) as server:
            yield server.node, settings_of()
    else:
        yield ADDRESSES[way], settings_of()


REPEATING: Final = {way for way in SCRIPTS if "echo" in way or way == "HTTP"}
ADDRESSES: Final = {
    "no server": Node("127.0.0.1:1"),
    "no such name": Node("nothing.invalid"),
    "no unix socket": Node("unix:/nothing/here"),
}
WAYS: Final = (*SCRIPTS, *ADDRESSES, "certificate", "real server")


# --- the clients -------------------------------------------------------------------------------------------------

Found: TypeAlias = list[object]  # errors, and objects that hold the credentials


def fail_blocking(node: Node, settings: Settings) -> Found:
    """Use a blocking client on each kind of transport; return the errors and the objects."""
    found: Found = []
    for transport in (Connection(node, settings=settings), Pool(node, settings=settings), cluster_of(node, settings)):
        client = Client(transport, StrSerializer(), owns=True)
        found += [transport, client]
        for call in blocking_calls(client):
            try:
                call()
            except Exception as error:
                found.append(error)
    return found


def blocking_calls(client: Client[str]) -> list[Callable[[], object]]:
    return [
        lambda: client.get("key"),
        lambda: client.set("key", "value"),
        lambda: client.get_many(["a", "b"]),
        lambda: client.set_many({"a": "x", "b": "y"}),
        lambda: client.get_or_compute("key", lambda: "value"),
        client.close,
        lambda: client.get("key"),
    ]


def cluster_of(node: Node, settings: Settings) -> Cluster:
    return Cluster([node], settings=settings)


async def fail_waiting(node: Node, settings: Settings) -> Found:
    """The asyncio form of `fail_blocking`."""
    found: Found = []
    transports = (
        AsyncConnection(node, settings=settings),
        AsyncPool(node, settings=settings),
        AsyncCluster([node], settings=settings),
    )
    for transport in transports:
        client = AsyncClient(transport, StrSerializer(), owns=True)
        found += [transport, client]
        for call in waiting_calls(client):
            try:
                await call()
            except Exception as error:
                found.append(error)
    return found


def waiting_calls(client: AsyncClient[str]) -> list[Callable[[], Awaitable[object]]]:
    async def value() -> str:
        return "value"

    return [
        lambda: client.get("key"),
        lambda: client.set("key", "value"),
        lambda: client.get_many(["a", "b"]),
        lambda: client.set_many({"a": "x", "b": "y"}),
        lambda: client.get_or_compute("key", value),
        client.aclose,
        lambda: client.get("key"),
    ]


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("way", WAYS)
async def test_no_text_contains_a_credential(
    way: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, *, blocking: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    with failing(way, tmp_path) as (node, settings), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        found = [settings, *(fail_blocking(node, settings) if blocking else await fail_waiting(node, settings))]
        errors = [each for each in found if isinstance(each, BaseException)]
        assert len(errors) >= 12, "most calls fail"
        for error in errors:
            logging.getLogger("of.the.program").error("failed: %s", error, exc_info=error)
        # A reply is in local variables, as values are. A server that repeats the credentials has them already.
        is_repeated = way in REPEATING
        texts = [text for error in errors for text in shown_by(error, with_locals=not is_repeated)]
        texts += [text for each in found for text in (repr(each), str(each))]
        texts += [logging.Formatter().format(record) for record in caplog.records]
        texts += [repr(vars(record)) for record in caplog.records]
        texts += [str(each.message) for each in warned]
    assert [text for text in texts if reveals(text)] == []


def test_a_failed_send_leaves_no_credential_in_local_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    dial = Dialer.dial

    def dial_and_shut(dialer: Dialer, deadline: float) -> socket.socket:
        sock = dial(dialer, deadline)
        assert isinstance(sock, socket.socket)
        sock.shutdown(socket.SHUT_WR)
        return sock

    monkeypatch.setattr(Dialer, "dial", dial_and_shut)
    with serving_often(silent) as node, Connection(node, settings=settings_of()) as connection:
        with pytest.raises(BatchError) as caught:
            Client(connection, StrSerializer()).get_many(["a", "b"])
        error = caught.value.errors["a"]
        assert any("_send_all" in text for text in locals_of(error))
        assert [text for text in shown_by(error) if reveals(text)] == []


async def test_an_unclosed_client_warns_without_credentials(memcached: Memcached) -> None:
    url = memcached.url.replace("//", f"//{USER}:{PASSWORD}@")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for number in range(2):
            client = connect_async(url, settings=settings_of(username=None, password=None))
            if number:
                await client.set("key", b"v")
            del client
            gc.collect()
        connect(url)
        gc.collect()
    assert warned, "an unclosed asyncio client warns"
    assert [str(each.message) for each in warned if reveals(f"{each.message} {each.source!r}")] == []


def test_the_search_finds_a_mark_in_each_kind_of_text() -> None:
    def raising() -> None:
        try:
            raise ValueError(PASSWORD)
        except ValueError:
            raise MetacacheError("nothing") from None

    with pytest.raises(MetacacheError) as caught:
        raising()
    assert any(map(reveals, shown_by(caught.value)))
    assert any(map(reveals, shown_by(BatchError("x", errors={"k": MetacacheError(USER)}))))
    assert any(map(reveals, shown_by(MetacacheError("x", key=USER.upper()))))
    assert not any(map(reveals, shown_by(MetacacheError("nothing"))))
