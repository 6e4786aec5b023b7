"""Measure the cost of routing: RendezvousRouter against pymemcache's RendezvousHash, in one run.

RendezvousHash has no weights. In the weighted runs it has the same nodes without weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Final

from pymemcache.client.rendezvous import RendezvousHash

from benchmarks.pairing import Times, ratio, take_times
from benchmarks.repeating import repeat_each, repeat_one
from benchmarks.tables import print_table
from metacache import Node
from metacache.routing import RendezvousRouter
from metacache.routing.rendezvous import MOST_KNOWN

__all__ = ["print_routing", "time_routing"]

NODES: Final = (3, 10, 30)
WEIGHTS: Final[Mapping[str, tuple[float, ...]]] = {"equal": (1.0,), "3 weights": (1.0, 2.0, 4.0)}
KEYS: Final = [f"user:{number}:profile" for number in range(200)]
RAW_KEYS: Final = [key.encode() for key in KEYS]  # metacache encodes a key once, before routing
# In turn, so that a router in pure Python has forgotten the keys of a batch when their turn comes again.
NEW_KEYS: Final = [[b"%b:%d" % (key, batch) for key in RAW_KEYS] for batch in range(MOST_KNOWN // len(KEYS) + 2)]
NAMES: Final = ("pick", "pick, new keys", "split", "split, new keys", "pymemcache")


def time_routing(count: int, weights: tuple[float, ...], *, rounds: int = 15) -> Times:
    """Return the seconds for all of KEYS, by subject, over *count* nodes with *weights* in turn."""
    nodes = [Node(f"10.0.0.{number}:11211", weight=weights[number % len(weights)]) for number in range(count)]
    theirs = RendezvousHash([node.name for node in nodes])

    def pick_each() -> Callable[[Sequence[bytes]], None]:
        router = RendezvousRouter(nodes)

        def pick_from(keys: Sequence[bytes]) -> None:
            for key in keys:
                router.pick(key)

        return pick_from

    def get_each_node(keys: Sequence[str]) -> None:
        for key in keys:
            theirs.get_node(key)

    subjects = {
        "pick": repeat_one(pick_each(), RAW_KEYS),
        "pick, new keys": repeat_each(pick_each(), NEW_KEYS),
        "split": repeat_one(RendezvousRouter(nodes).split, RAW_KEYS),
        "split, new keys": repeat_each(RendezvousRouter(nodes).split, NEW_KEYS),
        "pymemcache": repeat_one(get_each_node, KEYS),
    }
    return take_times(subjects, rounds=rounds, count=1)


def print_routing() -> None:
    """Print the µs per key, and the ratio to the time of pymemcache, for each number of nodes."""
    rows: list[list[str]] = []
    for count in NODES:
        for kind, weights in WEIGHTS.items():
            times = time_routing(count, weights)
            figures = [f"{median(times[name]) / len(KEYS) * 1e6:.2f}" for name in NAMES]
            ratios = [ratio(times, name, "pymemcache") for name in NAMES[:-1]]
            rows.append([f"{count} nodes, {kind}", *figures, *ratios])
    print("Routing: µs per key, and the ratio to the time of pymemcache (median, quartiles)")
    print_table(["", *NAMES, *(f"{name} : theirs" for name in NAMES[:-1])], rows)


if __name__ == "__main__":
    print_routing()
