"""`with_options`: a view of a client with some options changed, and with the same transport and counters."""

from __future__ import annotations

import time
from typing import Any, Final

import pytest

from metacache import (
    ConnectError,
    InvalidArgumentError,
    InvalidKeyError,
    InvalidTypeError,
    OperationTimeout,
    ServerError,
    Zlib,
)
from metacache.serializers import BytesSerializer, IntSerializer, StrSerializer
from tests.client.failing import SHAPES, failing
from tests.client.rig import BLOCKING, KINDS, Clients, store
from tests.scripted import ScriptedServer, silent

QUICK: Final = 0.1  # seconds


async def test_a_view_has_the_given_options_and_the_others_of_its_client(clients: Clients, key: str) -> None:
    client = clients.make(
        StrSerializer(), prefix=f"{key}:a:", default_ttl=500, long_keys="hash", compressor=Zlib(min_size=10)
    )
    view = client.with_options(prefix=f"{key}:b:")
    assert await view.set("k" * 300, "x" * 1_000)
    item = await view.get_item("k" * 300)
    assert item is not None
    assert item.ttl is not None
    assert 490 < item.ttl <= 500
    assert item.size < 1_000
    assert await client.get("k" * 300) is None, "under the prefix of the client there is nothing"
    assert await clients.make(StrSerializer(), long_keys="hash").get(f"{key}:b:" + "k" * 300) == "x" * 1_000


async def test_a_view_of_a_view_keeps_the_changes_of_the_first(clients: Clients, key: str) -> None:
    view = clients.blobs().with_options(default_ttl=500).with_options(prefix=f"{key}:")
    await view.set("k", b"v")
    item = await clients.blobs().get_item(f"{key}:k")
    assert item is not None
    assert item.ttl is not None


async def test_a_view_and_its_client_do_not_change_one_another(clients: Clients, key: str) -> None:
    client = clients.blobs(default_ttl=500)
    eternal = client.with_options(default_ttl=None)
    await eternal.set_many({f"{key}:1": b"v"})
    await client.set_many({f"{key}:2": b"v"})
    items = await client.get_items([f"{key}:1", f"{key}:2"])
    assert items[f"{key}:1"].ttl is None
    assert items[f"{key}:2"].ttl is not None


async def test_a_view_shares_the_counters_of_its_client(clients: Clients, key: str) -> None:
    store(clients.node, key, b"no number")
    client = clients.make(IntSerializer())
    view = client.with_options(default_ttl=5)
    for reader, count in ((client, 1), (view, 2), (view.with_options(prefix=""), 3), (client, 4)):
        assert await reader.get(key) is None
        assert client.undecodable["decode"] == view.undecodable["decode"] == count


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_view_may_return_misses_for_errors_that_its_client_raises(shape: str) -> None:
    client = failing(shape, ServerError, BytesSerializer())
    lenient = client.with_options(on_error="miss")
    assert await lenient.get("k") is None
    assert await lenient.get_many(["a", "b"]) == {}
    assert client.errors_as_misses == {"ServerError": 3}
    with pytest.raises(ServerError):
        await client.get("k")
    with pytest.raises(ServerError):
        await lenient.with_options(on_error="raise").get("k")
    assert lenient.errors_as_misses == {"ServerError": 3}


@pytest.mark.parametrize("kind", KINDS)
async def test_the_timeout_of_a_view_applies_to_operations_and_batches(kind: str) -> None:
    # A blocking client closes a connection after a timeout; an asyncio client keeps it and drops the late reply.
    with ScriptedServer(*[silent] * (4 if kind in BLOCKING else 1)) as server:
        clients = Clients(kind, server.node)  # the timeout of the transport is ten seconds
        hasty = clients.blobs().with_options(timeout=QUICK)
        for call in (hasty.get("k"), hasty.set("k", b"v"), hasty.touch("k", 5)):
            began = time.monotonic()
            with pytest.raises(OperationTimeout):
                await call
            assert QUICK * 0.9 < time.monotonic() - began < 5.0
        outcomes = await hasty.get_many_outcomes(["k"])
        assert type(outcomes.errors["k"]) is OperationTimeout
        await clients.aclose()


async def test_a_view_without_timeout_waits_as_long_as_the_transport(clients: Clients, key: str) -> None:
    hopeless = clients.blobs(timeout=1e-9)
    with pytest.raises((OperationTimeout, ConnectError)):
        await hopeless.get(key)
    patient = hopeless.with_options(timeout=None)
    assert await patient.set(key, b"v")
    assert await patient.get_many([key]) == {key: b"v"}


# Any, here: wrong types on purpose.
BAD: Final[tuple[dict[str, Any], ...]] = (
    {"prefix": 5},
    {"prefix": None},
    {"default_ttl": 0},
    {"default_ttl": True},
    {"default_ttl": 1.5},
    {"default_ttl": 2**31},
    {"on_error": "never"},
    {"timeout": 0},
    {"timeout": -1},
    {"timeout": float("nan")},
    {"timeout": float("inf")},
    {"timeout": True},
    {"timeout": "1"},
)


@pytest.mark.parametrize("options", BAD, ids=str)
async def test_an_invalid_option_is_refused_by_name(clients: Clients, key: str, options: dict[str, Any]) -> None:
    client = clients.blobs()
    (name,) = options
    for make in (client.with_options, clients.blobs):
        with pytest.raises(InvalidArgumentError, match=name):
            make(**options)
    assert clients.sent == []
    assert await client.set(key, b"v"), "it is as good as it was"


@pytest.mark.parametrize("options", [{"on_undecodable": "hit"}, {"long_keys": "cut"}], ids=str)
async def test_an_invalid_choice_is_refused_by_name(clients: Clients, options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(InvalidArgumentError, match=f"{name} is '.*' or '.*', not '"):
        clients.blobs(**options)


async def test_a_prefix_counts_for_the_length_of_a_key(clients: Clients) -> None:
    client = clients.blobs(prefix="p" * 200)
    assert await client.get("k" * 50) is None
    with pytest.raises(InvalidKeyError, match="251 bytes with the prefix, the limit is 250"):
        await client.get("k" * 51)


@pytest.mark.parametrize("options", [{"compressor": None}, {"on_undecodable": "raise"}, {"long_keys": "hash"}], ids=str)
async def test_an_option_that_a_view_cannot_change_is_refused(clients: Clients, options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(InvalidTypeError, match=f"prefix, default_ttl, on_error, timeout, not {name}"):
        clients.blobs().with_options(**options)
