"""Another kind of server on the port: the error asks the right question, and quotes nothing that the server sent."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

import pytest
from typing_extensions import override

from metacache import AsyncClient, BatchError, MetacacheError, Node, Settings
from metacache.testing import Memcached
from tests.certificates import serving
from tests.client.rig import KINDS, Clients

SECRET: Final = "canary"  # a part of everything that these servers send
TLS: Final = "does this port speak TLS? use memcacheds://"
OTHER: Final = "is this memcached?"


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Generator[int]:
    """Serve each connection in its own thread; yield the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                sock, _ = listener.accept()
                threading.Thread(target=one, args=(sock,), daemon=True).start()

    def one(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            serve(sock)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10.0)


class Handler(BaseHTTPRequestHandler):
    """The HTTP server of the standard library, which replies to a line that is not a request."""

    error_content_type = SECRET

    @override
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def http() -> Generator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join(10.0)


def saying(greeting: bytes, answer: bytes = b"", *, pause: float = 0.0) -> Callable[[socket.socket], None]:
    """Return a server that sends *greeting* after *pause* seconds, and *answer* for everything that it receives."""

    def serve(sock: socket.socket) -> None:
        time.sleep(pause)
        sock.sendall(greeting)
        while sock.recv(65536):
            sock.sendall(answer)

    return serve


def closing(answer: bytes) -> Callable[[socket.socket], None]:
    """Return a server that sends *answer* for the first bytes, and closes in order."""

    def serve(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(answer)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass

    return serve


def tls(sock: socket.socket) -> None:
    """Use TLS, like a server of the standard library."""
    with contextlib.suppress(ssl.SSLError):
        serving().wrap_socket(sock, server_side=True)


SAID: Final = SECRET.encode()
HTML: Final = b"<!DOCTYPE HTML>\n<html>" + SAID + b"</html>\n"
ALERT: Final = b"\x15\x03\x01\x00\x02\x02\x46"
SERVERS: Final[dict[str, tuple[Callable[[], contextlib.AbstractContextManager[int]], str]]] = {
    "http": (http, OTHER),
    "http/1.1": (
        lambda: listening(closing(b"HTTP/1.1 400 Bad Request\r\nServer: " + SAID + b"\r\n\r\n" + HTML)),
        OTHER,
    ),
    "html only": (lambda: listening(closing(HTML)), OTHER),
    "redis": (lambda: listening(saying(b"", b"-ERR unknown command 'mg', with args: '" + SAID + b"'\r\n")), OTHER),
    "redis with a password": (lambda: listening(saying(b"", b"-NOAUTH Authentication required.\r\n")), OTHER),
    "ssh": (lambda: listening(saying(b"SSH-2.0-" + SAID + b"\r\n")), OTHER),
    "ssh that waits": (lambda: listening(saying(b"SSH-2.0-" + SAID + b"\r\n", pause=0.05)), OTHER),
    "ssh without CR": (lambda: listening(saying(b"SSH-2.0-" + SAID + b"\n")), OTHER),
    "smtp": (lambda: listening(saying(b"220 " + SAID + b" ESMTP\r\n", b"500 what?\r\n")), OTHER),
    "pop3": (lambda: listening(saying(b"+OK " + SAID + b"\r\n", b"-ERR\r\n")), OTHER),
    "imap": (lambda: listening(saying(b"* OK " + SAID + b"\r\n", b"* BAD\r\n")), OTHER),
    "tls": (lambda: listening(tls), TLS),
    "tls that closes": (lambda: listening(closing(b"")), TLS),
    "a tls alert": (lambda: listening(closing(ALERT)), TLS),
    "a tls alert, and on": (lambda: listening(saying(b"", ALERT)), TLS),
    "tls that waits": (lambda: listening(saying(b"")), TLS),
}
VERBS: Final[dict[str, Callable[[AsyncClient[bytes]], Awaitable[object]]]] = {
    "get": lambda client: client.get("key"),
    "set": lambda client: client.set("key", b"v"),
    "get_many": lambda client: client.get_many(["key", "other"]),
    "set_many": lambda client: client.set_many({"key": b"v" * 100, "other": b"w"}),
    "inspect": lambda client: client.inspect("key"),
}


async def failures(client: AsyncClient[bytes], verb: str) -> list[MetacacheError]:
    try:
        await VERBS[verb](client)
    except BatchError as error:
        return [error, *error.errors.values()]
    except MetacacheError as error:
        return [error]
    raise AssertionError("no such server has an answer")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SERVERS)
async def test_the_error_asks_what_kind_of_server_it_is(kind: str, name: str) -> None:
    serve, question = SERVERS[name]
    settings = Settings(timeout=0.25 if "waits" in name else 5.0)
    with serve() as port:
        for verb in VERBS:
            clients = Clients(kind, Node(f"127.0.0.1:{port}"), settings)
            for error in await failures(clients.blobs(), verb):
                assert question in str(error), (verb, str(error))
                assert SECRET not in str(error), (verb, str(error))
                assert str(error).count("does this port speak TLS?") <= 1
            await clients.aclose()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", ["tls", "tls that closes", "a tls alert", "tls that waits", "redis", "ssh", "http/1.1"]
)
async def test_the_error_asks_the_same_with_credentials(kind: str, name: str) -> None:
    serve, question = SERVERS[name]
    seconds = 0.25 if "waits" in name else 5.0
    settings = Settings(timeout=2 * seconds, connect_timeout=seconds, username="root", password=SECRET)
    with serve() as port:
        for verb in ("get", "set_many"):
            clients = Clients(kind, Node(f"127.0.0.1:{port}"), settings)
            for error in await failures(clients.blobs(), verb):
                assert question in str(error), (verb, str(error))
                assert SECRET not in str(error), (verb, str(error))
            await clients.aclose()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", VERBS)
async def test_the_error_asks_whether_the_memcached_uses_tls(tls_server: Memcached, kind: str, verb: str) -> None:
    clients = Clients(kind, tls_server.node, Settings(timeout=0.5))
    for error in await failures(clients.blobs(), verb):
        assert TLS in str(error)
    await clients.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_the_error_asks_nothing_about_a_server_that_replied_before(memcached: Memcached, kind: str) -> None:
    clients = Clients(kind, memcached.node, Settings(timeout=0.1))
    client = clients.blobs()
    assert await client.set("key", b"v")
    memcached.freeze()
    for error in await failures(client, "get"):
        assert TLS not in str(error)
    memcached.thaw()
    await clients.aclose()
