"""Batches that end early because the server sends an error line and closes: every key has its reply or its error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import pytest

from metacache import (
    AsyncClient,
    AsyncConnection,
    Client,
    ConnectError,
    Connection,
    ConnectionLost,
    DeleteResult,
    Node,
    Outcomes,
    ServerError,
    Settings,
    StoreResult,
)
from tests.scripted import Peer, Script, ScriptedServer

KEYS: Final = [f"key-{number}" for number in range(6)]
SETTINGS: Final = Settings(timeout=10.0)

Run = Callable[[Node, str, Any], Outcomes[str, Any]]  # Any: of every kind of batch


def blocking(node: Node, verb: str, argument: Any) -> Outcomes[str, Any]:  # Any: as above
    with Connection(node, settings=SETTINGS) as connection:
        outcomes: Outcomes[str, Any] = getattr(Client(connection), verb)(argument)
        return outcomes


def under_asyncio(node: Node, verb: str, argument: Any) -> Outcomes[str, Any]:  # Any: as above
    async def run() -> Outcomes[str, Any]:
        async with AsyncConnection(node, settings=SETTINGS) as connection:
            outcomes: Outcomes[str, Any] = await getattr(AsyncClient(connection), verb)(argument)
            return outcomes

    return asyncio.run(run())


def ending(count: int, good: bytes, line: bytes) -> Script:
    """Return a script that answers *count* of the six requests with *good*, then sends *line* and closes."""

    def script(peer: Peer) -> None:
        asked = peer.requests(len(KEYS))
        replies = [asked[0].reply(good), *[good + b"\r\n"] * (count - 1)][:count]
        peer.send(b"".join(replies) + line + b"\r\n")
        peer.fin()

    return script


BATCHES: Final[tuple[tuple[str, Iterable[str] | Mapping[str, bytes], bytes, object, bool], ...]] = (
    ("set_many_outcomes", dict.fromkeys(KEYS, b"v"), b"HD", StoreResult.STORED, True),
    ("delete_many_outcomes", KEYS, b"HD", DeleteResult.DELETED, True),
    ("get_many_outcomes", KEYS, b"EN", None, False),
)


@pytest.mark.parametrize("run", [blocking, under_asyncio])
@pytest.mark.parametrize(("verb", "argument", "good", "result", "is_write"), BATCHES)
def test_requests_after_an_error_line_that_closes_are_reported_as_lost(
    run: Run, verb: str, argument: Any, good: bytes, result: object, *, is_write: bool
) -> None:
    line = b"SERVER_ERROR out of memory reading request"
    with ScriptedServer(ending(2, good, line)) as server:
        outcomes = run(server.node, verb, argument)
    assert outcomes.results == ({} if result is None else dict.fromkeys(KEYS[:2], result))
    assert list(outcomes.errors) == KEYS[2:]
    refused, *lost = outcomes.errors.values()
    assert isinstance(refused, ServerError)
    assert {type(error) for error in lost} == {ConnectionLost}
    assert {error.maybe_applied for error in lost} == {is_write}
    assert [error.key for error in outcomes.errors.values()] == KEYS[2:]


@pytest.mark.parametrize("run", [blocking, under_asyncio])
@pytest.mark.parametrize(("verb", "argument", "good", "result", "is_write"), BATCHES)
def test_a_full_server_applies_no_request_of_a_batch(
    run: Run, verb: str, argument: Any, good: bytes, result: object, *, is_write: bool
) -> None:
    del result, is_write
    with ScriptedServer(ending(0, good, b"ERROR Too many open connections")) as server:
        outcomes = run(server.node, verb, argument)
    assert outcomes.results == {}
    assert {type(error) for error in outcomes.errors.values()} == {ConnectError}
    assert not any(error.maybe_applied for error in outcomes.errors.values())
    assert [error.key for error in outcomes.errors.values()] == KEYS
