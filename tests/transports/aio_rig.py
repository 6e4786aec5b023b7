"""What the tests of this room share: operations by hand, and how they come to know that nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

from metacache import AsyncClient, AsyncConnection, Node, Settings

__all__ = ["HIT", "PATIENT", "SHORT", "client_of", "nothing_left", "run_alone", "sockets", "until", "value_of"]

T = TypeVar("T")

HIT: Final = (b"VA 5 f0", b"right")
PATIENT: Final = Settings(timeout=10.0, connect_timeout=10.0)
SHORT: Final = 0.2  # seconds
PATIENCE: Final = 10.0


def value_of(key: str) -> bytes:
    """Return the one value that *key* may have: of many sizes, full of line ends."""
    return key.encode() + b":" + b"EN\r\n" * (sum(key.encode()) % 40) * (30 if key.endswith("77") else 1)


@asynccontextmanager
async def client_of(node: Node, settings: Settings = PATIENT) -> AsyncGenerator[AsyncClient[bytes]]:
    """Give a client with a connection of its own."""
    async with AsyncClient(AsyncConnection(node, settings=settings), owns=True) as client:
        yield client


async def until(reached: Callable[[], bool]) -> None:
    """Let the loop run until *reached*."""
    end = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < end, "it was never reached"
        await asyncio.sleep(0.001)


def sockets() -> int:
    """Return how many sockets this process has open."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            count += os.readlink(entry).startswith("socket:")
        except FileNotFoundError:  # the one that lists them
            continue
    return count


@asynccontextmanager
async def nothing_left() -> AsyncGenerator[None]:
    """Check that no task and no socket is left of what is done inside, and that the loop had nothing to complain of."""
    loop = asyncio.get_running_loop()
    complaints: list[object] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    tasks, before = asyncio.all_tasks(), sockets()
    yield
    await until(lambda: asyncio.all_tasks() == tasks and sockets() <= before)
    loop.set_exception_handler(None)
    assert complaints == []


def run_alone(body: str, *arguments: str) -> str:
    """Run *body* in an interpreter that takes warnings for errors; check that it complains of nothing, and return
    what it prints.
    """
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(body), *arguments],
        capture_output=True,
        text=True,
        timeout=30.0,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


async def settled(*awaitables: Awaitable[T]) -> list[T | BaseException]:
    """Return what each came to."""
    return await asyncio.gather(*awaitables, return_exceptions=True)
