"""Helpers for tests of many nodes: values that contain their keys, threads, and the counters of the servers."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic, sleep
from typing import Final, final

from metacache import Client, Cluster, Settings

PATIENCE: Final = 60.0  # seconds
PATIENT: Final = Settings(timeout=20.0, connect_timeout=20.0)
KEYS: Final = 500
SIZES: Final = (0, 10, 100, 1_000, 20_000)
# The counters of memcached that count each request for a key once. A store that replaces nothing counts too.
COUNTED: Final = ("cmd_get", "cmd_set", "cmd_touch", "delete_hits", "delete_misses")


@final
class ForeignValue(Exception):
    """A key got the value of another key."""


def value_of(key: str, chance: random.Random) -> bytes:
    """Return a value that contains its key, and then other bytes."""
    return key.encode() + b":" + chance.randbytes(chance.choice(SIZES))


def check(values: Mapping[str, bytes | None]) -> None:
    """Raise ForeignValue unless each value is None or contains its key."""
    for key, value in values.items():
        if value is not None and not value.startswith(key.encode() + b":"):
            raise ForeignValue(key)


def mixed(client: Client[bytes], chance: random.Random) -> int:
    """Run one operation on one key or on 40; return the number of keys. Raises ForeignValue."""
    number = chance.randrange(KEYS)
    key, keys = f"key:{number}", [f"key:{(number + each) % KEYS}" for each in range(40)]
    match chance.randrange(8):
        case 0:
            client.set(key, value_of(key, chance))
        case 1:
            client.set_many({each: value_of(each, chance) for each in keys})
            return len(keys)
        case 2:
            client.delete(key)
        case 3:
            check(client.get_many(keys))
            return len(keys)
        case 4:
            item = client.get_item(key)
            check({key: None if item is None else item.value})
        case 5:
            client.add(key, value_of(key, chance))
        case 6:
            check({key: client.get_and_touch(key, 1000)})
        case _:
            check({key: client.get(key)})
    return 1


def in_threads(count: int, work: Callable[[random.Random], None]) -> None:
    """Run *work* in *count* threads; raise the first exception of a thread."""
    with ThreadPoolExecutor(count) as threads:
        for done in [threads.submit(work, random.Random(seed)) for seed in range(count)]:
            done.result()


def until(condition: Callable[[], bool]) -> None:
    """Poll *condition* until it holds, with a limit that is long enough for a loaded machine."""
    end = monotonic() + PATIENCE
    while not condition():
        assert monotonic() < end, "it never came to this"
        sleep(0.001)


def requests(cluster: Cluster) -> int:
    """Return the number of requests for keys that the servers of *cluster* have counted."""
    total = 0
    for counts in cluster.stats().values():
        assert isinstance(counts, dict), counts
        total += sum(int(counts[name]) for name in COUNTED)
    return total


def descriptors() -> int:
    """Return the number of open file descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))
