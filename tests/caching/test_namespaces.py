"""Namespaces: groups of keys that one write makes unreachable."""

from __future__ import annotations

from base64 import b64encode

import pytest

from metacache import AsyncClient, InvalidArgumentError, InvalidKeyError, InvalidTypeError, TransportError
from metacache.serializers import IntSerializer
from metacache.testing import Memcached
from tests.caching.rig import Rig


async def test_clearing_makes_all_values_unreachable(both: Rig, key: str) -> None:
    client = both.texts(prefix=f"{key}:")
    before = await client.namespace("users")
    await before.set("1", "Zoë")
    assert await (await client.namespace("users")).get("1") == "Zoë"
    assert await client.get("1") is None
    assert await (await client.namespace("orders")).get("1") is None
    await client.clear_namespace("users")
    after = await client.namespace("users")
    assert await after.get("1") is None
    assert await before.get("1") == "Zoë"  # the view belongs to the namespace as it was
    await after.set("1", "Ann")
    assert await (await client.namespace("users")).get("1") == "Ann"


async def test_clients_of_other_types_share_the_namespaces_of_a_prefix(both: Rig, key: str) -> None:
    texts, numbers = both.texts(prefix=f"{key}:"), both.make(IntSerializer(), prefix=f"{key}:")
    await (await texts.namespace("n")).set("a", "text")
    await (await numbers.namespace("n")).set("b", 5)
    other = both.texts(prefix=f"{key}x:")
    assert await (await other.namespace("n")).get("a") is None
    await numbers.clear_namespace("n")
    assert await (await texts.namespace("n")).get("a") is None


def token_key(prefix: str, name: str) -> str:
    return b64encode(f"{prefix}\0n{name}".encode()).decode()


async def test_the_token_is_random_without_expiry_and_stored_as_bytes(both: Rig, key: str) -> None:
    await both.texts(prefix=f"{key}:", default_ttl=5).namespace("n")
    address = token_key(f"{key}:", "n")
    first = both.wire(f"mg {address} b v f t s\r\n".encode())
    assert first.startswith(b"VA 16 f2952790048 t-1 s16\r\n")
    await both.texts(prefix=f"{key}:", default_ttl=5).clear_namespace("n")
    second = both.wire(f"mg {address} b v f t s\r\n".encode())
    assert second.startswith(b"VA 16 f2952790048 t-1 s16\r\n")
    assert first != second


async def test_an_evicted_token_does_not_bring_old_values_back(both: Rig, key: str) -> None:
    client = both.texts(prefix=f"{key}:")
    await (await client.namespace("n")).set("a", "old")
    both.wire(f"md {token_key(f'{key}:', 'n')} b\r\n".encode())
    assert await (await client.namespace("n")).get("a") is None


@pytest.mark.parametrize("wrong", ["ms K 3 b F12345\r\nabc", "ms K 3 b F2952790048\r\nabc", "ms K 0 b\r\n"])
async def test_what_is_no_token_is_replaced(both: Rig, key: str, wrong: str) -> None:
    both.wire(wrong.replace("K", token_key(f"{key}:", "n"), 1).encode() + b"\r\n")
    client = both.texts(prefix=f"{key}:")
    await (await client.namespace("n")).set("a", "value")
    assert await (await client.namespace("n")).get("a") == "value"


async def test_callers_that_make_a_namespace_at_the_same_time_agree(rig: Rig, key: str) -> None:
    client = rig.texts(prefix=f"{key}:")
    views = await rig.together([lambda: client.namespace("n") for _ in range(20)])
    prefixes: set[object] = set()
    for view in views:
        assert not isinstance(view, BaseException)
        prefixes.add(getattr(view, "_client", view)._core.options.prefix)
    assert len(prefixes) == 1


async def test_get_or_compute_works_in_a_namespace(both: Rig, key: str) -> None:
    runs: list[int] = []

    async def make() -> str:
        runs.append(1)
        return f"value {len(runs)}"

    client = both.texts(prefix=f"{key}:")
    for _ in range(2):
        view = await client.namespace("n")
        assert await view.get_or_compute("a", both.factory(make)) == "value 1"
    await client.clear_namespace("n")
    view = await client.namespace("n")
    assert await view.get_or_compute("a", both.factory(make)) == "value 2"


@pytest.mark.parametrize("name", ["", 5, b"n", None])
async def test_a_wrong_name_is_refused(both: Rig, name: str) -> None:
    for call in (both.texts().namespace, both.texts().clear_namespace):
        with pytest.raises((InvalidArgumentError, InvalidTypeError), match="namespace"):
            await call(name)


@pytest.mark.parametrize("on_error", ["raise", "miss", "ignore"])
async def test_failures_raise_with_any_policy(kind: str, memcached: Memcached, on_error: str) -> None:
    rig = Rig(kind, memcached.node)
    client: AsyncClient[str] = rig.texts(on_error=on_error)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # one of its literals
    memcached.kill()
    with pytest.raises(TransportError) as reading:
        await client.namespace("n")
    with pytest.raises(TransportError) as clearing:
        await client.clear_namespace("n")
    # The caller's method and name, and not those of the token.
    assert (reading.value.operation, reading.value.key) == ("namespace", "n")
    assert (clearing.value.operation, clearing.value.key) == ("clear_namespace", "n")
    await rig.aclose()


async def test_a_name_that_is_too_long_is_refused_by_its_own_name(both: Rig) -> None:
    name = "n" * 200
    for call, method in ((both.texts().namespace, "namespace"), (both.texts().clear_namespace, "clear_namespace")):
        with pytest.raises(InvalidKeyError) as refused:
            await call(name)
        assert (refused.value.operation, refused.value.key) == (method, name)
