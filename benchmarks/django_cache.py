"""Compare Django's caches: metacache-django beside Django's own PyMemcacheCache, on private servers, in one process.

Three figures: the time of a `get`, the time of an `aget` with many tasks, and the connections that requests dial under
ASGI. Times are taken in rounds, and ratios compare times of the same round.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import django
from django.conf import settings
from django.core.cache import caches
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path

from benchmarks.pairing import Times, ratio, take_times
from benchmarks.tables import print_table
from metacache import Cluster
from metacache.testing import Memcached

if TYPE_CHECKING:
    from django.core.cache import BaseCache

__all__ = ["main"]

BACKENDS: Final = {
    "metacache-django": "metacache_django.MetaCache",
    "PyMemcacheCache": "django.core.cache.backends.memcached.PyMemcacheCache",
}
OURS, THEIRS = BACKENDS
VALUE: Final = {"id": 1, "name": "Ada Lovelace", "tags": ["a", "b", "c"], "score": 36.5}
ROUNDS: Final = 100
GETS: Final = 100  # per round
TASKS: Final = 50
GETS_OF_A_TASK: Final = 4  # per round
REQUESTS: Final = 400


def main() -> None:
    """Print three tables."""
    if not settings.configured:
        settings.configure(SECRET_KEY="only for this benchmark", ALLOWED_HOSTS=["*"])
        django.setup()
    with ExitStack() as stack:
        servers = {name: stack.enter_context(Memcached()) for name in BACKENDS}
        configured = {
            name: {"BACKEND": backend, "LOCATION": str(servers[name].node.address)}
            for name, backend in BACKENDS.items()
        }
        used = {"default": configured[OURS], **configured}
        stack.enter_context(override_settings(CACHES=used, ROOT_URLCONF=__name__))
        for name in BACKENDS:
            caches[name].set("k", VALUE)
        print(f"Django {django.__version__}. Ratio: the time of {THEIRS} / the time of {OURS}, median (quartiles)\n")
        _print("get of a dict", take_times({name: _gets(caches[name]) for name in BACKENDS}, rounds=ROUNDS, count=GETS))
        _print(f"aget by {TASKS} tasks", asyncio.run(_agets()))
        _print_dials(asyncio.run(_dials(servers)))


def _print(title: str, times: Times) -> None:
    rows = [[name, f"{median(times[name]) * 1e6:.0f}", ratio(times, THEIRS, name)] for name in BACKENDS]
    print_table([title, "µs each", "ratio"], rows)


def _gets(cache: BaseCache) -> Callable[[int], None]:
    def repeat(count: int) -> None:
        get = cache.get
        for _ in range(count):
            get("k")

    return repeat


async def _agets() -> Times:
    times: dict[str, list[float]] = {name: [] for name in BACKENDS}
    for name in BACKENDS:
        await _aget_by_tasks(caches[name])  # warm up
    for number in range(ROUNDS):
        for name in sorted(BACKENDS, reverse=bool(number % 2)):
            gc.collect()
            began = perf_counter()
            await _aget_by_tasks(caches[name])
            times[name].append((perf_counter() - began) / (TASKS * GETS_OF_A_TASK))
    return times


async def _aget_by_tasks(cache: BaseCache) -> None:
    async def work() -> None:
        for _ in range(GETS_OF_A_TASK):
            assert await cache.aget("k") == VALUE

    await asyncio.gather(*(work() for _ in range(TASKS)))


# --- requests under ASGI ---------------------------------------------------------------------------------------------


async def view(_: HttpRequest, name: str) -> HttpResponse:
    """Answer with the value of the cache *name*."""
    return HttpResponse(str(await caches[name].aget("k")))


urlpatterns = [path("<str:name>/", view)]


async def _dials(servers: Mapping[str, Memcached]) -> Mapping[str, int]:
    """Return how many connections the requests dialled, by cache."""
    application = ASGIHandler()
    before = {name: _total(server) for name, server in servers.items()}
    for name in servers:
        for _ in range(REQUESTS):
            await asyncio.create_task(
                _request(application, f"/{name}/")
            )  # a task has a context of its own, as in a server
    # One connection asked for the total.
    return {name: _total(server) - before[name] - 1 for name, server in servers.items()}


async def _request(application: ASGIHandler, where: str) -> None:
    sent: list[Mapping[str, Any]] = []  # Any: the form of a message of ASGI
    received: Sequence[Mapping[str, Any]] = [{"type": "http.request", "body": b""}]
    messages = iter(received)

    async def receive() -> Mapping[str, Any]:  # Any: as above
        message = next(messages, None)
        return message if message is not None else await asyncio.Future[Mapping[str, Any]]()

    async def send(message: Mapping[str, Any]) -> None:  # Any: as above
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": where, "headers": [(b"host", b"localhost")], "query_string": b""}
    run: Callable[..., Awaitable[None]] = application
    await run(scope, receive, send)
    assert sent[0]["status"] == 200
    assert str(VALUE).encode() in sent[1]["body"]


def _total(server: Memcached) -> int:
    with Cluster([server.node]) as cluster:
        stats = cluster.stats()[server.node]
    assert isinstance(stats, dict)
    return int(stats["total_connections"])


def _print_dials(dials: Mapping[str, int]) -> None:
    title = f"{REQUESTS} requests under ASGI, one after the other"
    print_table([title, "connections dialled"], [[name, str(number)] for name, number in dials.items()])
