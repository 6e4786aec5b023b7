"""Many threads on five real servers: no foreign value, no error, no leak."""

from __future__ import annotations

import random

import attrs

from metacache import Cluster
from metacache.testing import Memcached
from tests.live.rig import KEYS, PATIENT, check, descriptors, in_threads, mixed, requests, value_of


def test_64_threads_on_five_nodes_get_no_foreign_value_and_leak_nothing(servers: list[Memcached]) -> None:
    before = descriptors()
    with Cluster([server.node for server in servers], settings=PATIENT) as cluster:
        client = cluster.client()

        def work(chance: random.Random) -> None:
            done = 0
            while done < 1_600:
                done += mixed(client, chance)

        in_threads(64, work)
        assert requests(cluster) >= 100_000, "the servers count what was done"
        found = client.get_many([f"key:{number}" for number in range(KEYS)])
        assert len(found) > KEYS / 2, "most of what was read was there"
        assert all(client.get(key) == value for key, value in found.items())
        for statistics in cluster.statistics.values():
            assert statistics.in_use == statistics.waiting == 0
            assert 1 <= statistics.idle <= statistics.size == 8
            assert statistics.created == statistics.idle, "no connection was given up"
    assert descriptors() == before


def test_16_threads_of_five_node_batches_on_pools_of_two_have_no_error(servers: list[Memcached]) -> None:
    before = descriptors()
    keys = [f"key:{number}" for number in range(50)]
    with Cluster([server.node for server in servers], settings=attrs.evolve(PATIENT, pool_size=2)) as cluster:
        client = cluster.client()

        def work(chance: random.Random) -> None:
            for _ in range(63):
                assert all(client.set_many({key: value_of(key, chance) for key in keys}).values())
                found = client.get_many(keys)
                check(found)
                assert len(found) == len(keys)

        in_threads(16, work)
        assert requests(cluster) >= 100_000, "the servers count what was done"
        for statistics in cluster.statistics.values():
            assert statistics.in_use == statistics.waiting == 0
            assert 1 <= statistics.idle <= statistics.size == 2
            assert statistics.created == statistics.idle, "no connection was given up"
    assert descriptors() == before
