"""Count the lines and words of files in threads, and keep the results in memcached for the next run.

CACHE_URL=memcached://localhost:11211 python examples/threaded_worker.py README.md docs/*.md
"""

import os
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from metacache import Cluster

CACHE_URL = os.environ.get("CACHE_URL", "memcached://localhost:11211")


@dataclass(frozen=True)
class Count:
    """The result for one file."""

    lines: int
    words: int


class Worker:
    """Counts files. Threads may share one worker, because they may share its clients.

    With `on_error="ignore"` a worker without its cache does the work again, and never fails.
    """

    def __init__(self, cluster: Cluster) -> None:
        # Two types, two clients, one set of connections. A path may be longer than a key.
        self.counts = cluster.client(
            Count, serializer="msgspec", prefix="count:", default_ttl=86_400, long_keys="hash", on_error="ignore"
        )
        self.totals = cluster.client(int, prefix="total:", on_error="ignore")

    def count(self, path: Path) -> Count:
        """Return the count of a file, from the cache if the file has not changed."""
        state = path.stat()
        key = f"{path.resolve()}:{state.st_mtime_ns}:{state.st_size}"
        count = self.counts.get(key)
        if count is None:
            text = path.read_text(errors="replace")
            count = Count(lines=text.count("\n"), words=len(text.split()))
            self.counts.set(key, count)
            self.totals.increment("files", initial=1)
        return count


def count_all(worker: Worker, paths: Iterable[Path], threads: int = 8) -> Mapping[Path, Count]:
    """Count *paths* in threads."""
    ordered = list(paths)
    with ThreadPoolExecutor(threads) as executor:
        return dict(zip(ordered, executor.map(worker.count, ordered), strict=True))


def main(arguments: list[str]) -> int:
    """Print the count of each file, and where the counts came from."""
    if not arguments:
        print("usage: python examples/threaded_worker.py FILE...", file=sys.stderr)
        return 2
    with Cluster.from_url(CACHE_URL) as cluster:
        worker = Worker(cluster)
        for path, count in count_all(worker, map(Path, arguments)).items():
            print(f"{count.lines:8} {count.words:8} {path}")
        counts = worker.counts.statistics
        print(f"{counts.hits} from the cache, {counts.misses} counted now, {worker.totals.get('files', 0)} in total")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
