"""A live cache stampede for the demo: many callers ask for one absent key, with and without `get_or_compute`."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from metacache import connect, connect_async
from metacache.testing.served import PrivateServer

__all__ = ["TASKS", "THREADS", "VALUE", "tasks_ask", "threads_ask"]

THREADS: Final = 50
TASKS: Final = 200
QUERY: Final = 0.05  # seconds that one run of the query takes
VALUE: Final = "42 orders"


def threads_ask(server: PrivateServer, *, compute_once: bool) -> tuple[int, set[str]]:
    """Let `THREADS` threads ask for one absent key at the same time.

    *compute_once*: by `get_or_compute`; else by `get` and `set`. Return how often the query ran, and all answers.
    """
    runs: list[int] = []
    start = threading.Barrier(THREADS)

    def query() -> str:
        runs.append(1)
        time.sleep(QUERY)
        return VALUE

    def ask(_: int) -> str:
        start.wait()
        if compute_once:
            return client.get_or_compute("orders", query)
        found = client.get("orders")
        if found is None:
            found = query()
            client.set("orders", found)
        return found

    with connect(server.url, str, timeout=5.0) as client, ThreadPoolExecutor(THREADS) as threads:
        client.delete("orders")
        answers = set(threads.map(ask, range(THREADS)))
    return len(runs), answers


async def tasks_ask(server: PrivateServer, *, compute_once: bool) -> tuple[int, set[str]]:
    """Let `TASKS` tasks ask for one absent key at the same time; else as `threads_ask`."""
    runs: list[int] = []

    async def query() -> str:
        runs.append(1)
        await asyncio.sleep(QUERY)
        return VALUE

    async def ask() -> str:
        if compute_once:
            return await client.get_or_compute("orders", query)
        found = await client.get("orders")
        if found is None:
            found = await query()
            await client.set("orders", found)
        return found

    async with connect_async(server.url, str, timeout=5.0) as client:
        await client.delete("orders")
        answers = set(await asyncio.gather(*(ask() for _ in range(TASKS))))
    return len(runs), answers
