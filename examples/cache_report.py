"""Reports how the cache of a program is used: hit rates by prefix, and the slowest request of each node.

CACHE_URL=memcached://localhost:11211 python examples/cache_report.py
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from metacache import Called, Cluster, Dialled, Exchanged, NodesChanged, Retried, StateChanged, Waited

CACHE_URL = os.environ.get("CACHE_URL", "memcached://localhost:11211")

logger = logging.getLogger("cache_report")


class CacheReport:
    """An observer that adds up events. Threads call it at the same time, so a lock guards its numbers.

    The lock is held for a few additions only, because an observer runs inside the calls of the program.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reads: Counter[tuple[str, str]] = Counter()
        self.slowest: dict[str, float] = {}
        self.failures: Counter[str] = Counter()

    def called(self, event: Called, /) -> None:
        """Count the reads of a call by prefix, and its error."""
        with self._lock:
            self.reads[event.prefix, "hit"] += event.hits
            self.reads[event.prefix, "miss"] += event.misses
            self.reads[event.prefix, "undecodable"] += event.undecodable
            if event.error is not None:
                self.failures[event.error.__name__] += 1

    def exchanged(self, event: Exchanged, /) -> None:
        """Keep the longest time of a request by node."""
        with self._lock:
            self.slowest[event.node.name] = max(event.seconds, self.slowest.get(event.node.name, 0.0))

    def happened(self, event: Dialled | Waited | Retried | StateChanged | NodesChanged, /) -> None:
        """Log the changes of nodes."""
        if isinstance(event, StateChanged):
            logger.warning("%s: %s, was %s", event.node.name, event.after.value, event.before.value)

    def lines(self) -> list[str]:
        """Return the report."""
        with self._lock:
            reads, slowest, failures = self.reads.copy(), dict(self.slowest), self.failures.copy()
        prefixes = sorted({prefix for prefix, _ in reads})
        rates = [_rate(prefix, reads[prefix, "hit"], reads[prefix, "miss"]) for prefix in prefixes]
        nodes = [f"{node}: slowest request {1000 * seconds:.1f} ms" for node, seconds in sorted(slowest.items())]
        return [*rates, *nodes, *(f"{name}: {count} calls" for name, count in sorted(failures.items()))]


def _rate(prefix: str, hits: int, misses: int) -> str:
    total = hits + misses
    share = f"{100 * hits / total:.0f} % hits" if total else "no reads"
    return f"{prefix or '(no prefix)'}: {hits} hits, {misses} misses, {share}"


def load_name(number: int) -> str:
    """Stand for a slow query of your service."""
    return f"user {number}"


def main() -> None:
    """Let four threads read users, and print the report."""
    report = CacheReport()
    with Cluster.from_url(CACHE_URL, observer=report) as cluster:
        names = cluster.client(str, prefix="name:", default_ttl=60)
        visits = cluster.client(int, prefix="visits:", default_ttl=60)

        def visit(number: int) -> None:
            names.get_or_compute(str(number), lambda: load_name(number))
            visits.increment(str(number), initial=1)
            visits.get(str(number))

        for number in range(10):
            names.delete(str(number))
        with ThreadPoolExecutor(4) as threads:
            for _ in range(2):  # the first round computes, the second one hits
                list(threads.map(visit, range(10)))
        visits.get("unknown")
    print("\n".join(report.lines()))


if __name__ == "__main__":
    main()
