"""Measure the cost of routing: RendezvousRouter against pymemcache's RendezvousHash, in one run.

RendezvousHash has no weights. In the weighted runs it has the same nodes without weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from typing import Final

from pymemcache.client.rendezvous import RendezvousHash

from benchmarks.pairing import Times, ratio, take_times
from benchmarks.tables import print_table
from metacache import Node
from metacache.routing import RendezvousRouter

__all__ = ["print_routing", "time_routing"]

NODES: Final = (3, 10, 30)
WEIGHTS: Final[Mapping[str, tuple[float, ...]]] = {"equal": (1.0,), "3 weights": (1.0, 2.0, 4.0)}
KEYS: Final = [f"user:{number}:profile" for number in range(200)]
RAW_KEYS: Final = [key.encode() for key in KEYS]  # metacache encodes a key once, before routing


def time_routing(count: int, weights: tuple[float, ...], *, rounds: int = 15) -> Times:
    """Return the seconds for all of KEYS, by subject, over *count* nodes with *weights* in turn."""
    nodes = [Node(f"10.0.0.{number}:11211", weight=weights[number % len(weights)]) for number in range(count)]
    router, theirs = RendezvousRouter(nodes), RendezvousHash([node.name for node in nodes])

    def pick_each() -> None:
        for key in RAW_KEYS:
            router.pick(key)

    def get_each_node() -> None:
        for key in KEYS:
            theirs.get_node(key)

    subjects = {"pick": pick_each, "split": lambda: router.split(RAW_KEYS), "pymemcache": get_each_node}
    return take_times({name: _repeat(run) for name, run in subjects.items()}, rounds=rounds, count=1)


def _repeat(run: Callable[[], object]) -> Callable[[int], None]:
    def repeat(count: int) -> None:
        for _ in range(count):
            run()

    return repeat


def print_routing() -> None:
    """Print the µs per key, and the ratio to the time of pymemcache, for each number of nodes."""
    rows: list[list[str]] = []
    for count in NODES:
        for kind, weights in WEIGHTS.items():
            times = time_routing(count, weights)
            figures = [f"{median(times[name]) / len(KEYS) * 1e6:.2f}" for name in ("pick", "split", "pymemcache")]
            ratios = [ratio(times, name, "pymemcache") for name in ("pick", "split")]
            rows.append([f"{count} nodes, {kind}", *figures, *ratios])
    print("Routing: µs per key, and the ratio to the time of pymemcache (median, quartiles)")
    print_table(["", "pick", "split", "pymemcache", "pick : theirs", "split : theirs"], rows)


if __name__ == "__main__":
    print_routing()
