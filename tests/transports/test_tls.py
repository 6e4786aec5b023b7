"""TLS: certificates are verified, idle connections are kept, and every write ends where a request ends."""

from __future__ import annotations

import gc
import itertools
import os
import socket
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor
from time import sleep
from types import FrameType
from typing import Any

import pytest

from metacache import ConnectError, Settings, connect
from metacache.testing import Memcached
from tests.certificates import serving, trust, trusting
from tests.scripted import Peer, ScriptedServer, answering, in_turn, silent
from tests.transports.rig import HIT, IDLE, client_of


def test_values_are_sent_over_tls_and_the_connection_is_kept(tls_server: Memcached) -> None:
    with connect(tls_server.url, settings=Settings(tls=trusting(), timeout=5.0)) as client:
        for size in (0, 1, 16_384, 16_385, 300_000):
            assert client.set("key", b"x" * size)
            assert client.get("key") == b"x" * size


def test_an_idle_tls_connection_is_kept_although_tls_messages_make_it_readable() -> None:
    # A late session ticket has the same effect. A request for the client's certificate can be made at any time.
    asking = serving()
    asking.verify_mode = ssl.CERT_OPTIONAL
    trusting_client = trusting()
    asking.post_handshake_auth = trusting_client.post_handshake_auth = True
    trust(asking)

    def script(peer: Peer) -> None:
        peer.request().answer(*HIT)
        assert isinstance(peer.sock, ssl.SSLSocket)
        peer.sock.verify_client_post_handshake()
        peer.sock.do_handshake()
        answering(HIT, HIT)(peer)

    with ScriptedServer(script, tls=asking) as server, client_of(server, Settings(tls=trusting_client)) as client:
        for _ in range(3):
            assert client.get("key") == b"right"
            sleep(IDLE)  # long enough for the check of an idle connection
        assert server.accepted == 1


def test_an_idle_tls_connection_that_the_server_closed_is_dialled_again() -> None:
    once = in_turn(lambda peer: peer.request().answer(b"HD"), Peer.fin)
    with (
        ScriptedServer(once, answering((b"HD", None)), tls=serving()) as server,
        client_of(server, Settings(tls=trusting())) as client,
    ):
        assert client.set("key", b"v")
        sleep(IDLE)  # the server's end has arrived, and the connection counts as idle
        assert client.set("key", b"v")


def test_an_untrusted_certificate_is_a_connect_error(tls_server: Memcached) -> None:
    settings = Settings(tls=ssl.create_default_context())
    with connect(tls_server.url, settings=settings) as client, pytest.raises(ConnectError, match="certificate was not"):
        client.set("key", b"v")


def test_a_memcacheds_url_verifies_certificates(tls_server: Memcached) -> None:
    url = tls_server.url.replace("memcached:", "memcacheds:")
    with connect(url) as client, pytest.raises(ConnectError, match="certificate was not accepted"):
        client.get("key")


def test_a_certificate_of_another_host_is_a_connect_error() -> None:
    server = ScriptedServer(silent, tls=serving("other.invalid"))
    with (
        client_of(server, Settings(tls=trusting())) as client,
        pytest.raises(ConnectError, match="certificate was not accepted"),
    ):
        client.get("key")
    with pytest.raises(ssl.SSLError):  # the error on the server's side
        server.__exit__(None, None, None)


def test_tls_to_a_port_that_does_not_speak_it_is_a_connect_error(shared_memcached: Memcached) -> None:
    with (
        connect(shared_memcached.url, settings=Settings(tls=trusting(), timeout=2.0)) as client,
        pytest.raises(ConnectError),
    ):
        client.get("key")


def test_tls_over_a_unix_socket_that_wants_a_host_name_is_a_connect_error() -> None:
    with (
        ScriptedServer(silent, unix=True) as server,
        client_of(server, Settings(tls=trusting())) as client,
        pytest.raises(ConnectError, match="TLS is not possible here"),
    ):
        client.get("key")


def test_many_sets_over_tls_leave_no_decrypted_request_unanswered(tls_server: Memcached) -> None:
    with connect(tls_server.url, settings=Settings(tls=trusting(), timeout=20.0)) as client:
        for size, count in ((100, 500), (5_000, 200), (16_300, 60), (20_000, 60), (100_000, 20)):
            items = {f"tls-{size}-{number}": bytes([number % 251]) * size for number in range(count)}
            assert all(client.set_many(items).values())
            assert client.get_many(items) == items
            assert all(client.delete_many(items).values())


def test_every_tls_write_ends_with_a_request_and_packs_at_most_16_kib_of_several() -> None:
    records: list[bytes] = []

    def recording(peer: Peer) -> None:
        # One recv of a TLS socket gives at most one record, and a write of up to 16 KiB is one record.
        answered = 0
        while answered < 100:
            records.append(peer.sock.recv(65536))
            head = records[-1]
            while head:
                line, _, rest = head.partition(b"\r\n")
                size = int(line.split(b" ")[2])
                assert rest[size : size + 2] == b"\r\n", "a record ends within a request"
                opaque = b" O" + line.partition(b" O")[2] if b" O" in line else b""
                peer.send(b"HD" + opaque + b"\r\n")
                answered += 1
                head = rest[size + 2 :]
        peer.expect_end()

    with (
        ScriptedServer(recording, tls=serving()) as server,
        client_of(server, Settings(tls=trusting(), timeout=10.0)) as client,
    ):
        items = {f"key-{number}": b"x" * (1_000 + 150 * (number % 7)) for number in range(100)}
        assert all(client.set_many(items).values())
    assert 1 < len(records) < 100
    assert all(len(record) <= 16_384 for record in records)


class Interrupt(BaseException):
    """The exception of a signal handler."""


# An exception in the constructor of the first socket leaves it to the garbage collector, which warns.
@pytest.mark.filterwarnings("ignore:.*unclosed", "ignore:Exception ignored in")
def test_a_signal_at_any_line_while_a_socket_becomes_one_of_tls_closes_its_descriptor_once(
    tls_server: Memcached,
) -> None:
    left = 0

    def enter(frame: FrameType, _event: str, _: object) -> Any:  # Any: a trace function
        return strike if frame.f_code.co_filename in (ssl.__file__, socket.__file__) else None

    def strike(_: FrameType, event: str, __: object) -> Any:  # Any: as above
        nonlocal left
        left -= event == "line"
        if event == "line" and not left:
            raise Interrupt
        return strike

    def interrupted() -> list[BaseException]:
        with connect(tls_server.url, settings=Settings(tls=trusting())) as client:
            sys.settrace(enter)
            try:
                client.get("key")
            except Interrupt as error:
                return [error]
            finally:
                sys.settrace(None)
        return []

    places = 0
    for places in itertools.count(1):
        left = places
        with ThreadPoolExecutor(1) as threads:  # the trace function of the coverage stays that of this thread
            kept = threads.submit(interrupted).result()
        if not kept:
            break
        pipe = os.pipe()  # takes the descriptor that is free
        kept.clear()
        gc.collect()
        for descriptor in pipe:
            os.fstat(descriptor)  # raises if it was closed
            os.close(descriptor)
    assert places > 40
