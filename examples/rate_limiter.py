"""A rate limit for a WSGI service, shared by all its processes and machines.

CACHE_URL=memcached://localhost:11211 python examples/rate_limiter.py 8000
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING
from wsgiref.simple_server import make_server

from metacache import Client, connect

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

CACHE_URL = os.environ.get("CACHE_URL", "memcached://localhost:11211")


class RateLimiter:
    """Allows *limit* calls in each window of *window* seconds. A window begins with its first call.

    One exchange per call. The server counts, so calls of several machines at the same time are all counted.
    """

    def __init__(self, counters: Client[int], limit: int, window: int) -> None:
        # Without its cache the limiter lets every call pass: `increment` returns its `initial`, which is 1.
        self._counters = counters.with_options(on_error="ignore")
        self._limit = limit
        self._window = window

    def allows(self, caller: str) -> bool:
        """Count a call of *caller*; return whether it is within the limit."""
        return self._counters.increment(caller, initial=1, initial_ttl=self._window) <= self._limit


class RateLimited:
    """A WSGI application that answers 429 when the caller's address is over the limit."""

    def __init__(self, application: WSGIApplication, limiter: RateLimiter) -> None:
        self._application = application
        self._limiter = limiter

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        if self._limiter.allows(environ["REMOTE_ADDR"]):
            return self._application(environ, start_response)
        start_response("429 Too Many Requests", [("Content-Type", "text/plain")])
        return [b"too many requests\n"]


def hello(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Stand for your service."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"hello, this is {environ['PATH_INFO']}\n".encode()]


def main(port: int) -> None:
    """Serve on *port* of this machine, five requests in a minute for each address."""
    with connect(CACHE_URL, int, prefix="requests:", timeout=0.25) as counters:
        service = RateLimited(hello, RateLimiter(counters, limit=5, window=60))
        with make_server("127.0.0.1", port, service) as server:
            print(f"http://127.0.0.1:{server.server_port}", flush=True)
            server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
