"""A real server accepts every request flag of the oldest supported release, and replies as the flag tables say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import pytest

from metacache import Connection
from metacache.operations.requests import operation
from metacache.protocol.commands import Request
from metacache.protocol.flags import REQUEST_FLAGS, Commands, Flag, Token
from metacache.protocol.replies import Reply, find_flag, return_flags
from metacache.testing import Memcached
from metacache.transports.base import Verb
from tests import raw_requests

Flags = Mapping[str, Token]

BUILD: Final[dict[Commands, Callable[[bytes, Flags], Request]]] = {
    Commands.MG: raw_requests.meta_get,
    Commands.MS: lambda key, flags: raw_requests.meta_set(key, b"5", flags),
    Commands.MD: raw_requests.meta_delete,
    Commands.MA: raw_requests.meta_arithmetic,
}

# A valid token for each flag that has one. The connection adds the opaque itself.
TOKENS: Final[dict[str, Token]] = {
    "proxy_hint": "near",
    "router_hint": "far",
    "ttl": 60,
    "stale_ttl": 60,
    "vivify": 60,
    "recache": 30,
    "compare_cas": 2**63,
    "client_flags": 2**32 - 1,
    "initial": 2**64 - 1,
    "delta": 0,
    "mode": "S",
}
# Without q, because the test needs a reply, and without O, which the connection adds.
LEFT_OUT: Final = {"quiet", "opaque"}
OLD: Final = [flag for flag in REQUEST_FLAGS if flag.since == "1.6.18" and flag.name not in LEFT_OUT]
PAIRS: Final = [(flag, command) for flag in OLD for command in Commands.ALL if flag.commands & command]


def run(connection: Connection, request: Request) -> Reply:
    verb = Verb(request.command.name, request.command)
    return connection.run(operation(verb, None, b"", request.head, request.body, lambda reply: reply))


def _name(value: object) -> str | None:
    return value.name if isinstance(value, Flag | Commands) else None


@pytest.mark.parametrize(("flag", "command"), PAIRS, ids=_name)
def test_a_real_server_accepts_the_flag(shared_memcached: Memcached, flag: Flag, command: Commands) -> None:
    token: Token = True if flag.token is None else TOKENS[flag.name]
    if flag.name == "mode" and command is Commands.MA:
        token = "-"
    flags: dict[str, Token] = {flag.name: token}
    if flag.beside:
        flags[flag.beside[0]] = TOKENS.get(flag.beside[0], True)
    key = b"Zmxh" if flag.name == "base64" else b"fla"
    with Connection(shared_memcached.node) as connection:
        run(connection, raw_requests.meta_set(key, b"5", {"base64": True} if flag.name == "base64" else {}))
        tokens, _ = reply = run(connection, BUILD[command](key, flags))
        assert tokens[0] in (b"HD", b"VA", b"EX")
        if flag.name.startswith("return_"):
            assert find_flag(return_flags(reply), flag.letter) is not None
        assert "idle" in repr(connection)


def test_every_flag_with_a_token_is_tested() -> None:
    assert {flag.name for flag in OLD if flag.token is not None} == set(TOKENS)


def test_a_vivified_item_is_a_placeholder_that_one_reader_wins(shared_memcached: Memcached) -> None:
    get = raw_requests.meta_get(b"flags-lease", {"value": True, "vivify": 30, "return_client_flags": True})
    with Connection(shared_memcached.node) as connection:
        run(connection, raw_requests.meta_delete(b"flags-lease", {}))
        for state in (b"W", b"Z", b"Z"):
            tokens, value = run(connection, get)
            assert (tokens[:3], value) == ([b"VA", b"0", b"f0"], b"")
            assert state in tokens


def test_flags_run_from_left_to_right(shared_memcached: Memcached) -> None:
    with Connection(shared_memcached.node) as connection:
        run(connection, raw_requests.meta_set(b"flags-order", b"v", {"ttl": 500}))
        before = run(connection, raw_requests.meta_get(b"flags-order", {"return_ttl": True, "ttl": 50}))
        after = run(connection, raw_requests.meta_get(b"flags-order", {"ttl": 900, "return_ttl": True}))
        assert int(find_flag(return_flags(before), b"t") or b"") in (499, 500)
        assert int(find_flag(return_flags(after), b"t") or b"") in (899, 900)
