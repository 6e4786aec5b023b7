"""The routing formula in its simplest form, and the topologies of the golden file.

`owner` shares only the hash function with the library, and a test checks that one against its published test vector.
The golden file protects the keys of users. If a change needs ``python -m tests.routing.reference`` to write the file
again, it moves stored keys.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from xxhash import xxh3_64

from metacache import Node

GOLDEN: Final = Path(__file__).with_name("golden.csv")

TOPOLOGIES: Final[dict[str, dict[str, float]]] = {
    "three equal": {f"10.0.0.{n}:11211": 1.0 for n in range(1, 4)},
    "five sizes": {"a": 1.0, "b": 2.0, "c": 3.0, "d": 0.5, "e": 0.1},
    "ten and a big one": {**{f"cache-{n}.example:11211": 1.0 for n in range(10)}, "big.example:11211": 5.0},
    "one drained": {"[::1]:11211": 1.0, "unix:/run/memcached.sock": 0.0, "Кэш": 1.5},
    "thirty of three weights": {f"node-{n:02}": (1.0, 2.0, 4.0)[n % 3] for n in range(30)},
}


def owner(weights: Mapping[str, float], key: bytes) -> str:
    """Return the name of the node that owns *key*."""
    costs: list[tuple[float, str]] = []
    for name, weight in weights.items():
        h = xxh3_64(key, seed=xxh3_64(name.encode()).intdigest()).intdigest()
        u = ((h >> 12) + 0.5) * 2**-52
        costs.append((-math.log(u) / weight if weight else math.inf, name))
    return min(costs)[1]


def key(number: int) -> bytes:
    """Return one of a thousand keys: all lengths up to 250, because XXH3 has a branch for each range; some not text."""
    text = b"%d:" % number if number % 3 else b"\xff%d\x00" % number
    return (text * 250)[: max(len(text), number % 251)]


KEYS: Final = [key(number) for number in range(1000)]


def nodes(weights: Mapping[str, float]) -> list[Node]:
    """Return nodes with these names and weights."""
    return [Node("127.0.0.1:11211", name=name, weight=weight) for name, weight in weights.items()]


def write_golden() -> None:
    with GOLDEN.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["key", *TOPOLOGIES])
        for number, raw in enumerate(KEYS):
            rows.writerow([number, *(owner(weights, raw) for weights in TOPOLOGIES.values())])


if __name__ == "__main__":
    write_golden()
