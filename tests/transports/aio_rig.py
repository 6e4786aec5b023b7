"""Helpers for asyncio tests: clients, checks for leaked tasks and sockets, and scripts in their own interpreter."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

from fuzzing.links import Recorder
from metacache import AsyncClient, AsyncConnection, Node, Settings
from metacache.operations.options import Options
from metacache.operations.policies import UndecodablePolicy
from metacache.operations.readers import Reader
from metacache.operations.requests import Operations
from metacache.operations.statistics import Counts
from metacache.serializers.frame import Frame
from metacache.serializers.plain import BytesSerializer

__all__ = [
    "HIT",
    "OPERATIONS",
    "PATIENT",
    "SHORT",
    "Recorder",
    "client_of",
    "nothing_left",
    "run_alone",
    "sockets",
    "until",
    "value_of",
]

T = TypeVar("T")

HIT: Final = (b"VA 5 f0", b"right")
PATIENT: Final = Settings(timeout=10.0, connect_timeout=10.0)
SHORT: Final = 0.2  # seconds
PATIENCE: Final = 10.0
OPERATIONS: Final = Operations(
    Reader(Frame(BytesSerializer(), reads_plain=True), UndecodablePolicy(strict=False), Counts()),
    Options(),
    lambda: 0.0,
)


def value_of(key: str) -> bytes:
    """Return the one value that *key* may have. The sizes differ, and the value contains line ends."""
    return key.encode() + b":" + b"EN\r\n" * (sum(key.encode()) % 40) * (30 if key.endswith("77") else 1)


@asynccontextmanager
async def client_of(node: Node, settings: Settings = PATIENT) -> AsyncGenerator[AsyncClient[bytes]]:
    """Yield a client with its own connection."""
    async with AsyncClient(AsyncConnection(node, settings=settings), owns=True) as client:
        yield client


async def until(reached: Callable[[], bool]) -> None:
    """Run the loop until *reached* returns True."""
    end = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < end, "the condition did not become true"
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
    """Check that the code inside leaks no task and no socket, and that the loop reports no exception."""
    loop = asyncio.get_running_loop()
    reported: list[object] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    tasks, before = asyncio.all_tasks(), sockets()
    yield
    await until(lambda: asyncio.all_tasks() == tasks and sockets() <= before)
    loop.set_exception_handler(None)
    assert reported == []


def run_alone(body: str, *arguments: str) -> str:
    """Run *body* in an interpreter where warnings are errors, check that stderr is empty, and return its output."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(body), *arguments],
        capture_output=True,
        text=True,
        timeout=30.0,
        check=False,
    )
    # On a busy machine, the debug mode of asyncio complains of slow steps.
    complaints = re.sub(r"^Executing <.*> took [0-9.]+ seconds\n", "", done.stderr, flags=re.MULTILINE)
    assert complaints == "", complaints
    assert done.returncode == 0
    return done.stdout


async def settled(*awaitables: Awaitable[T]) -> list[T | BaseException]:
    """Return the result or the exception of each of *awaitables*."""
    return await asyncio.gather(*awaitables, return_exceptions=True)
