"""Each value contains its key: in 100,000 operations of many threads on one connection, no key gets a foreign value."""

from __future__ import annotations

import random
import threading
from typing import Final

from typing_extensions import override

from metacache import Client, Connection, Settings, StoreResult
from metacache.testing import Memcached

THREADS: Final = 8
ROUNDS: Final = 60
KEYS: Final = 100  # a batch
SINGLES: Final = 10  # between two batches


class Canary(threading.Thread):
    """Stores and reads keys that other threads use too, and counts foreign values."""

    def __init__(self, client: Client[bytes], seed: int) -> None:
        super().__init__(name=f"canary-{seed}")
        self._client = client
        self._random = random.Random(seed)
        self.operations = 0
        self.foreign: list[str] = []
        self.failure: BaseException | None = None

    @override
    def run(self) -> None:
        try:
            for _ in range(ROUNDS):
                self._round()
        except BaseException as failure:  # the thread of the test raises it
            self.failure = failure

    def _round(self) -> None:
        stored = {key: self._value(key) for key in self._keys(KEYS)}
        results = self._client.set_many(stored)
        assert set(results.values()) == {StoreResult.STORED}
        asked = self._keys(KEYS)
        self._look(self._client.get_many(asked))
        self.operations += len(stored) + len(asked)
        for key in self._keys(SINGLES):
            self._client.set(key, self._value(key))
            value = self._client.get(key)
            self._look({} if value is None else {key: value})
            self.operations += 2

    def _keys(self, count: int) -> list[str]:
        return list({f"canary:{self._random.randrange(2000)}" for _ in range(count)})

    def _value(self, key: str) -> bytes:
        # Of all sizes, with many line ends.
        size = self._random.choice((0, 1, 10, 100, 1000, 20_000 if self._random.random() < 0.02 else 50))
        return key.encode() + b":" + self._random.randbytes(size) + self._random.choice((b"", b"\r\n", b"EN\r\n"))

    def _look(self, found: dict[str, bytes]) -> None:
        self.foreign += [key for key, value in found.items() if not value.startswith(key.encode() + b":")]


def test_no_key_ever_gets_the_value_of_another(shared_memcached: Memcached) -> None:
    with Connection(shared_memcached.node, settings=Settings(timeout=30.0)) as connection:
        canaries = [Canary(Client(connection), seed) for seed in range(THREADS)]
        for canary in canaries:
            canary.start()
        for canary in canaries:
            canary.join()
    assert [canary.failure for canary in canaries] == [None] * THREADS
    assert [canary.foreign for canary in canaries] == [[]] * THREADS
    assert sum(canary.operations for canary in canaries) >= 100_000
