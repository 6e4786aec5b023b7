"""The first caller of a transport finds a stream idle: it joins no queue. The limits count that stream as any other."""

from __future__ import annotations

import pytest

from metacache import Client, Connection, Pool, Settings
from metacache.testing import Memcached
from metacache.transports.blocking.checkout import Checkout


@pytest.mark.parametrize("kind", [Connection, Pool])
def test_the_first_caller_joins_no_queue(
    kind: type[Connection | Pool], shared_memcached: Memcached, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object, __: float) -> None:
        raise AssertionError("it waited for a stream")

    with kind(shared_memcached.node) as transport:
        monkeypatch.setattr(Checkout, "take", refuse)
        assert Client(transport).get("absent") is None


def test_the_first_stream_is_one_of_the_pool(shared_memcached: Memcached) -> None:
    with Pool(shared_memcached.node, settings=Settings(pool_size=1, pool_wait=0.0)) as pool:
        before = pool.statistics
        assert (before.idle, before.in_use, before.created) == (0, 0, 0)
        assert Client(pool).get("absent") is None
        after = pool.statistics
        assert (after.idle, after.in_use, after.created) == (1, 0, 1)
