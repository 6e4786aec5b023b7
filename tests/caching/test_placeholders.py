"""A placeholder, which one caller's computation will fill, is a value for no method of the client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest

from metacache import AsyncClient, DeleteResult, Serializer, StoreResult
from metacache.serializers import BytesSerializer, IntSerializer, StrSerializer
from tests.caching.rig import Rig

Case = Callable[[Any, str], Awaitable[object]]  # Any: an AsyncClient of any type


async def update(client: AsyncClient[Any], key: str) -> object:
    seen: list[object] = []

    def change(value: object) -> Any:  # Any: a value of the client
        seen.append(value)
        return VALUES[client]

    VALUES[client] = await sample(client)
    await client.update(key, change)
    return seen[0]


async def sample(client: AsyncClient[Any]) -> Any:  # Any: a value of the client
    """Return a value that the client takes."""
    for value in (b"v", "v", 5):
        try:
            await client.set("caching:sample", value)
        except Exception:
            continue
        return value
    raise AssertionError("the client takes none of the samples")


async def outcomes(client: AsyncClient[Any], key: str) -> object:
    found = await client.get_many_outcomes([key])
    return dict(found.results), dict(found.errors)


VALUES: dict[object, Any] = {}  # Any: of any client

MISSES: Final[dict[str, tuple[Case, object]]] = {
    "get": (lambda client, key: client.get(key), None),
    "get with a default": (lambda client, key: client.get(key, "default"), "default"),
    "get_item": (lambda client, key: client.get_item(key), None),
    "get_many": (lambda client, key: client.get_many([key]), {}),
    "get_items": (lambda client, key: client.get_items([key]), {}),
    "exists": (lambda client, key: client.exists(key), False),
    "get_and_touch": (lambda client, key: client.get_and_touch(key, 100), None),
    "get_many_outcomes": (outcomes, ({}, {})),
    "update": (update, None),
}


SERIALIZERS: Final[dict[str, Serializer[Any]]] = {
    "bytes": BytesSerializer(),
    "str": StrSerializer(),
    "int": IntSerializer(),
}


@pytest.mark.parametrize("on_undecodable", ["miss", "raise"])
@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("taken", ["Z", "W"])
@pytest.mark.parametrize("case", MISSES)
async def test_reads_show_a_miss(
    both: Rig, key: str, case: str, taken: str, serializer: str, on_undecodable: Any
) -> None:
    client = both.make(SERIALIZERS[serializer], on_undecodable=on_undecodable)
    both.wire(f"mg {key} N30 v\r\n".encode())
    if taken == "W":
        both.wire(f"md {key} I\r\n".encode())
    call, wanted = MISSES[case]
    assert await call(client, key) == wanted
    assert not any(client.undecodable.values())


@pytest.mark.parametrize("on_undecodable", ["miss", "raise"])
@pytest.mark.parametrize("serializer", ["bytes", "str"])
async def test_nothing_is_appended_to_a_placeholder(both: Rig, key: str, serializer: str, on_undecodable: Any) -> None:
    client: Any = both.make(SERIALIZERS[serializer], on_undecodable=on_undecodable)  # Any: bytes or str
    value = b"more" if serializer == "bytes" else "more"
    both.wire(f"mg {key} N30 v\r\n".encode())
    assert await client.append(key, value) is not StoreResult.STORED
    assert await client.prepend(key, value) is not StoreResult.STORED
    assert both.remaining(key)[:2] == (b"", "Z")


async def test_no_number_is_added_to_a_placeholder(both: Rig, key: str) -> None:
    numbers = both.make(IntSerializer())
    both.wire(f"mg {key} N30 v\r\n".encode())
    try:
        found = await numbers.increment(key, 5)
    except Exception:
        found = None
    assert found is None
    assert both.remaining(key)[0] == b""


async def test_touch_reports_what_the_server_has_and_a_store_fills(both: Rig, key: str) -> None:
    texts = both.texts()
    both.wire(f"mg {key} N30 v\r\n".encode())
    assert await texts.get(key) is None
    assert await texts.set(key, "value")
    assert await texts.get(key) == "value"
    assert await texts.delete(key) is DeleteResult.DELETED


async def test_an_empty_value_is_no_placeholder(both: Rig, key: str) -> None:
    texts = both.texts()

    async def make() -> str:
        return ""

    assert await texts.get_or_compute(key, both.factory(make)) == ""
    assert await texts.get(key) == ""
    assert await texts.get_many([key]) == {key: ""}


async def test_a_computation_that_runs_is_invisible(both: Rig, key: str) -> None:
    texts = both.texts()
    seen: list[object] = []

    async def make() -> str:
        reader = both.texts(on_undecodable="raise")
        seen.extend([await reader.get(key), await reader.get_many([key]), await reader.exists(key)])
        return "new"

    assert await texts.get_or_compute(key, both.factory(make)) == "new"
    assert seen == [None, {}, False]
