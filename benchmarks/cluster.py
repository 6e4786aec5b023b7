"""Measure the cost of several nodes: routing, and a get_many over five nodes against pymemcache's HashClient."""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median
from typing import Final

from pymemcache import HashClient

from benchmarks.pairing import Times, ratio, take_times
from benchmarks.peers import host_and_port
from benchmarks.repeating import Repeat, repeat_one
from benchmarks.routing import print_routing
from benchmarks.subjects import BATCH, VALUE_SIZE
from benchmarks.tables import print_table
from metacache import Client, Cluster, Node
from metacache.testing import Memcached

__all__ = ["main", "time_get_many"]

NODES: Final = 5
ROUNDS: Final = 40
COUNT: Final = 20
VALUE: Final = b"v" * VALUE_SIZE

OURS: Final = "metacache, Cluster"
THEIRS: Final = "pymemcache, HashClient"


def main() -> None:
    """Print the cost of routing, then the cost of a get_many."""
    print_routing()
    times = time_get_many()
    print(f"get_many of {BATCH} keys over {NODES} nodes: median of {ROUNDS} rounds, and the ratio (quartiles)")
    rows = [[name, f"{median(spent) * 1e6:,.0f}", ratio(times, name, THEIRS)] for name, spent in times.items()]
    print_table(["", "us", f"by {THEIRS}"], rows)


def time_get_many() -> Times:
    """Return the seconds per get_many of BATCH keys with Cluster and with HashClient, on the same servers."""
    with ExitStack() as stack:
        nodes = [stack.enter_context(Memcached()).node for _ in range(NODES)]
        subjects = {OURS: _set_up_cluster(nodes, stack), THEIRS: _set_up_hash_client(nodes, stack)}
        return take_times(subjects, rounds=ROUNDS, count=COUNT)


def _set_up_cluster(nodes: list[Node], stack: ExitStack) -> Repeat:
    client = Client(stack.enter_context(Cluster(nodes)))
    keys = [f"cluster:{number}" for number in range(BATCH)]
    client.set_many(dict.fromkeys(keys, VALUE))
    _check(len(client.get_many(keys)))
    return repeat_one(client.get_many, keys)


def _set_up_hash_client(nodes: list[Node], stack: ExitStack) -> Repeat:
    # No use_pooling, which would make it slower, but safe to share between threads.
    client = HashClient([host_and_port(node) for node in nodes], no_delay=True, default_noreply=False)
    stack.callback(client.close)
    keys = [f"hashed:{number}" for number in range(BATCH)]  # its own keys, because it routes keys differently
    client.set_many(dict.fromkeys(keys, VALUE))
    _check(len(client.get_many(keys)))
    return repeat_one(client.get_many, keys)


def _check(found: int) -> None:
    if found != BATCH:
        raise RuntimeError(f"get_many found {found} of {BATCH} keys")
