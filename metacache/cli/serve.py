"""The command `serve`: an embedded server on a socket, until SIGINT or SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import signal

from metacache.cli.session import Session
from metacache.cli.statuses import Status
from metacache.errors import InvalidArgumentError
from metacache.memory.serve import Listener
from metacache.memory.server import MemoryServer

__all__ = ["serve"]

MEGABYTE = 1024 * 1024


def serve(session: Session, args: argparse.Namespace) -> Status:
    """Listen, print where, and serve until a signal. Raises InvalidArgumentError if it cannot listen."""
    if args.unix is not None and not (args.host is args.port is None):
        raise InvalidArgumentError("serve listens on a unix socket or on a TCP port; leave --host and --port out")
    server = MemoryServer(memory_limit=args.memory_limit * MEGABYTE, max_item_size=args.max_item_size)
    port = 11211 if args.port is None else args.port
    listener = Listener(server, host=args.host or "127.0.0.1", port=port, unix=args.unix)
    try:
        asyncio.run(_serve_until_signal(session, listener))
    except (OSError, OverflowError) as error:
        raise InvalidArgumentError(f"serve cannot listen: {error}") from error
    return Status.DONE


async def _serve_until_signal(session: Session, listener: Listener) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    await listener.start()
    session.output.text(f"listening on {listener.url}; Ctrl-C ends the server\n")
    session.output.flush()
    await ended.wait()
    await listener.aclose()
