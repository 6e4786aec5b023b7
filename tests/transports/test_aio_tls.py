"""TLS under asyncio: with requests of any number and size, each key has its own value, and the server never waits."""

from __future__ import annotations

import asyncio
import random
import ssl
from typing import Final

import attrs
import pytest

from metacache import ConnectError, Settings
from metacache.testing import Memcached
from tests.certificates import trusting
from tests.transports.aio_rig import PATIENT, client_of, nothing_left

BATCHES: Final = 25
LARGEST: Final = 2_000_000  # bytes of one batch
# (fewest, most) bytes of a value. A TLS record has 16,384 bytes at most, as has a pack of several requests.
SIZES: Final = (
    (0, 10),
    (0, 2_000),
    (8_000, 8_400),
    (16_200, 16_500),
    (0, 40_000),
    (60_000, 70_000),
    (4 * 10**5, 9 * 10**5),
)


@pytest.fixture
def secure() -> Settings:
    return attrs.evolve(PATIENT, tls=trusting())


def batch_of(chance: random.Random, name: str) -> dict[str, bytes]:
    """Return items whose values begin with their keys. *chance* decides how many and how large."""
    items: dict[str, bytes] = {}
    left, most = LARGEST, chance.choice((1, 2, 30, 300, 1_000))
    fewest_bytes, most_bytes = chance.choice(SIZES)
    while len(items) < most and left > 0:
        key = f"{name}:{len(items)}"
        items[key] = key.encode() + b"=" + chance.randbytes(chance.randint(fewest_bytes, most_bytes))
        left -= len(items[key])
    return items


@pytest.mark.both_loops
@pytest.mark.parametrize("seed", range(BATCHES))
async def test_every_key_of_a_random_batch_has_its_own_value(
    tls_server: Memcached, secure: Settings, request: pytest.FixtureRequest, seed: int
) -> None:
    chance = random.Random(seed)
    async with nothing_left(), client_of(tls_server.node, secure) as client:
        # Two batches at the same time, so that windows of both are in flight, and single requests between them.
        one, other = (batch_of(chance, f"{request.node.name}:{name}") for name in ("one", "other"))
        stored = await asyncio.gather(client.set_many(one), client.set_many(other))
        assert all(all(results.values()) for results in stored)
        wanted = chance.sample(list(one), len(one)) + [f"{request.node.name}:none:{number}" for number in range(10)]
        single = chance.sample(list(other), min(10, len(other)))
        singles = asyncio.gather(*(client.get(key) for key in single))
        found, all_of_other, values = await asyncio.gather(client.get_many(wanted), client.get_many(other), singles)
        foreign = [key for key, value in found.items() if not value.startswith(key.encode() + b"=")]
        assert foreign == []
        assert found == one
        assert all_of_other == other
        assert values == [other[key] for key in single]
        assert all((await client.delete_many([*one, *other])).values())


@pytest.mark.both_loops
async def test_many_concurrent_sets_over_tls_never_hang(tls_server: Memcached, secure: Settings) -> None:
    async with nothing_left(), client_of(tls_server.node, secure) as client:
        for size in range(200, 25_000, 2_500):
            items = {f"concurrent:{n}": b"%d:" % n + b"x" * size for n in range(40)}
            assert all(await asyncio.gather(*(client.set(key, value) for key, value in items.items())))
            assert all((await client.set_many(items)).values())
            assert await client.get_many(items) == items


async def test_an_untrusted_certificate_is_refused(tls_server: Memcached) -> None:
    settings = attrs.evolve(PATIENT, tls=ssl.create_default_context())
    async with nothing_left(), client_of(tls_server.node, settings) as client:
        with pytest.raises(ConnectError, match="certificate"):
            await client.get("key")
