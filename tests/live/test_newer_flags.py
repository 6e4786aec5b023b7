"""The flags that are newer than the oldest supported release do what the flag table says, where the server has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pytest

from metacache import Connection
from metacache.operations.requests import operation
from metacache.protocol.commands import Request
from metacache.protocol.flags import REQUEST_FLAGS, Token
from metacache.protocol.replies import Reply, find_flag, return_flags
from metacache.testing import Memcached
from metacache.transports.base import Verb
from tests import raw_requests
from tests.releases import PATIENT, needs

NEWER: Final = {flag.name: flag.since for flag in REQUEST_FLAGS if flag.since != "1.6.18"}
VALUE: Final[Mapping[str, Token]] = {"value": True, "return_client_flags": True, "return_cas": True, "return_ttl": True}


class Server:
    """Runs requests on a server of the release that *flag* needs; skips the test on an older one."""

    def __init__(self, server: Memcached, flag: str) -> None:
        needs(server.node, NEWER[flag])
        self._connection = Connection(server.node, settings=PATIENT)

    def run(self, request: Request) -> Reply:
        verb = Verb(request.command.name, request.command)
        return self._connection.run(operation(verb, None, b"", request.head, request.body, lambda reply: reply))

    def set(self, key: bytes, body: bytes, **flags: Token) -> Reply:
        return self.run(raw_requests.meta_set(key, body, flags))

    def get(self, key: bytes, **flags: Token) -> tuple[bytes, Mapping[bytes, bytes | None], bytes | None]:
        """Return the code, the returned flags by letter, and the value."""
        tokens, value = reply = self.run(raw_requests.meta_get(key, {**VALUE, **flags}))
        found = {letter: find_flag(return_flags(reply), letter) for letter in (b"f", b"c", b"t", b"W", b"X")}
        return tokens[0], found, value


def test_every_newer_flag_is_tested() -> None:
    names = {"return_stored_size", "vivify_append", "new_cas", "unless_cas", "dropped_client_flags", "drop_value"}
    assert names == set(NEWER)


def test_a_store_returns_the_size_of_the_whole_value(shared_memcached: Memcached) -> None:
    server = Server(shared_memcached, "return_stored_size")
    assert find_flag(return_flags(server.set(b"newer-size", b"12345", return_stored_size=True)), b"s") == b"5"
    appended = server.set(b"newer-size", b"678", mode="A", return_stored_size=True)
    assert find_flag(return_flags(appended), b"s") == b"8"


@pytest.mark.parametrize("mode", ["A", "P"])
def test_an_append_creates_a_missing_item(shared_memcached: Memcached, mode: str) -> None:
    server = Server(shared_memcached, "vivify_append")
    key = b"newer-append-" + mode.encode()
    assert server.set(key, b"a", mode=mode)[0][0] == b"NS"
    assert server.set(key, b"a", mode=mode, vivify_append=60)[0][0] == b"HD"
    code, flags, value = server.get(key)
    assert (code, value) == (b"VA", b"a")
    assert flags[b"t"] in (b"59", b"60")


def test_a_write_takes_the_given_cas(shared_memcached: Memcached) -> None:
    server = Server(shared_memcached, "new_cas")
    server.set(b"newer-cas", b"1", new_cas=2**63)
    assert server.get(b"newer-cas")[1][b"c"] == b"%d" % 2**63
    assert server.run(raw_requests.meta_delete(b"newer-cas", {"compare_cas": 2**63 - 1}))[0][0] == b"EX"
    assert server.run(raw_requests.meta_delete(b"newer-cas", {"compare_cas": 2**63}))[0][0] == b"HD"


@pytest.mark.parametrize("flags", [None, 7])
def test_a_delete_can_drop_the_value_only(shared_memcached: Memcached, flags: int | None) -> None:
    server = Server(shared_memcached, "drop_value" if flags is None else "dropped_client_flags")
    server.set(b"newer-drop", b"value", client_flags=3, ttl=100)
    given: dict[str, Token] = {} if flags is None else {"dropped_client_flags": flags}
    assert server.run(raw_requests.meta_delete(b"newer-drop", {"drop_value": True, **given}))[0][0] == b"HD"
    code, found, value = server.get(b"newer-drop")
    assert (code, value) == (b"VA", b"")
    assert found[b"f"] == b"%d" % (flags or 0)
    assert found[b"t"] == b"-1"


def test_a_get_with_the_current_cas_returns_no_value(shared_memcached: Memcached) -> None:
    server = Server(shared_memcached, "unless_cas")
    server.set(b"newer-fetch", b"value")
    cas = int(server.get(b"newer-fetch")[1][b"c"] or b"0")
    assert server.get(b"newer-fetch", unless_cas=cas)[::2] == (b"HD", None)
    assert server.get(b"newer-fetch", unless_cas=cas + 1)[::2] == (b"VA", b"value")
