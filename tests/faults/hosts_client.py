"""The client of `tests.faults.hosts`: reads calls from stdin, one in each line, and prints what they did."""

from __future__ import annotations

import asyncio
import json
import sys
import time

from metacache import AsyncClient, MetacacheError, Node, Settings
from tests.faults.rig import opened


async def serve(kind: str, address: str, timeout: float) -> None:
    """Answer lines until the end of stdin."""
    async with opened(kind, Node(address), Settings(timeout=timeout, connect_timeout=timeout, pool_size=2)) as client:
        while line := await asyncio.to_thread(sys.stdin.readline):
            method, *arguments = json.loads(line)
            print(json.dumps(await answer(client, method, arguments)), flush=True)  # noqa: T201 - to the test


async def answer(client: AsyncClient[bytes], method: str, arguments: list[str]) -> tuple[str | None, str, float]:
    """Return the result, the name of the error and the seconds of one call."""
    began = time.monotonic()
    result, error = None, ""
    try:
        if method == "set":
            result = str(await client.set(arguments[0], arguments[1].encode()))
        else:
            found = await client.get(arguments[0])
            result = None if found is None else found.decode()
    except MetacacheError as failure:
        error = type(failure).__name__
    return result, error, time.monotonic() - began


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2], float(sys.argv[3])))
