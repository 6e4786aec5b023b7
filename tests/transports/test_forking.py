"""After a fork, the child dials its own connection, and the parent continues to use the old one."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from typing import Final

import pytest

from metacache import Client
from tests.scripted import Peer, ScriptedServer, answering
from tests.transports.rig import HIT, client_of

CHILD: Final = (b"VA 5 f0", b"child")


def in_child(work: Callable[[], bytes | None]) -> bytes:
    """Return what *work* returns in a forked child, or the error it raises as text."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns because this process has threads (those of the scripted server).
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            output = work() or b"nothing"
        except BaseException as error:  # the child must not continue the test run
            output = repr(error).encode()
        os.write(write, output)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        output = pipe.read()
    os.waitpid(pid, 0)
    return output


def get(client: Client[bytes]) -> Callable[[], bytes | None]:
    return lambda: client.get("key")


def test_a_forked_child_dials_its_own_connection_and_the_parent_keeps_its_own() -> None:
    with ScriptedServer(answering(HIT, HIT), answering(CHILD)) as server, client_of(server) as client:
        assert client.get("key") == b"right"
        assert in_child(get(client)) == b"child"
        assert client.get("key") == b"right"
        assert server.accepted == 2


def test_a_child_of_a_forked_child_dials_its_own_connection() -> None:
    with ScriptedServer(answering(HIT, HIT), answering(CHILD), answering(CHILD)) as server, client_of(server) as client:
        assert client.get("key") == b"right"

        def child() -> bytes | None:
            client.get("key")
            return in_child(get(client))

        assert in_child(child) == b"child"
        assert client.get("key") == b"right"


def test_a_forked_child_does_not_wait_for_a_request_of_a_thread_of_the_parent() -> None:
    asked, release = threading.Event(), threading.Event()

    def slow(peer: Peer) -> None:
        first = peer.request()
        asked.set()
        release.wait(10.0)
        first.answer(*HIT)
        peer.expect_end()

    with ScriptedServer(slow, answering(CHILD)) as server, client_of(server) as client:
        got: list[bytes | None] = []
        other = threading.Thread(target=lambda: got.append(client.get("key")))
        other.start()
        assert asked.wait(5.0)
        assert in_child(get(client)) == b"child"
        release.set()
        other.join()
        assert got == [b"right"]


def test_a_forked_child_that_closes_its_client_sends_nothing_on_the_connection_of_the_parent() -> None:
    def close(client: Client[bytes]) -> bytes:
        client.close()
        return b"closed"

    with ScriptedServer(answering(HIT, HIT)) as server, client_of(server) as client:
        assert client.get("key") == b"right"
        assert in_child(lambda: close(client)) == b"closed"
        assert client.get("key") == b"right"
        assert server.accepted == 1


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_connection_that_was_closed_before_the_fork_stays_closed(*, is_closed: bool) -> None:
    scripts = [answering(HIT)] if is_closed else [answering(HIT), answering(CHILD)]
    with ScriptedServer(*scripts) as server, client_of(server) as client:
        assert client.get("key") == b"right"
        if is_closed:
            client.close()
        output = in_child(get(client))
        assert output.startswith(b"ClosedError") if is_closed else output == b"child"
