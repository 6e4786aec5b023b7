"""The command line: `python -m metacache demo`, `serve` and `version`."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable
from typing import Final

from metacache import __version__
from metacache.errors import InvalidArgumentError
from metacache.memory.serve import Listener
from metacache.memory.server import DEFAULT_MEMORY, MAX_ITEM_SIZE, MemoryServer
from metacache.testing import demo

MEGABYTE: Final = 1024 * 1024


def main() -> int:
    """Run the command that the arguments name; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m metacache", description="metacache, a typed memcached client.")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    for name, (_, description) in COMMANDS.items():
        added = commands.add_parser(name, help=description, description=description)
        if name == "serve":
            _add_serve_options(added)
    arguments = parser.parse_args()
    run, _ = COMMANDS[arguments.command]
    return run(arguments)


def _demo(_: argparse.Namespace) -> int:
    return demo.main()


def _version(_: argparse.Namespace) -> int:
    print(f"metacache {__version__}")
    return 0


# --- serve -----------------------------------------------------------------------------------------------------------


def _add_serve_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="the address to listen on (127.0.0.1)")
    add("--port", type=int, default=11211, help="the TCP port (11211); 0: a free one")
    add("--unix", metavar="PATH", help="listen on this unix socket instead")
    add("--memory-limit", type=int, default=DEFAULT_MEMORY // MEGABYTE, metavar="MB", help="megabytes for items (64)")
    add("--max-item-size", type=int, default=MAX_ITEM_SIZE, metavar="BYTES", help="largest item (1048576)")


def _serve(arguments: argparse.Namespace) -> int:
    try:
        server = MemoryServer(memory_limit=arguments.memory_limit * MEGABYTE, max_item_size=arguments.max_item_size)
        listener = Listener(server, host=arguments.host, port=arguments.port, unix=arguments.unix)
        asyncio.run(_serve_until_signal(listener))
    except (OSError, OverflowError, InvalidArgumentError) as error:
        print(f"serve: {error}", file=sys.stderr)
        return 2
    return 0


async def _serve_until_signal(listener: Listener) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    await listener.start()
    print(f"metacache serves {listener.url} from memory; end it with Ctrl-C", flush=True)
    await ended.wait()
    await listener.aclose()


COMMANDS: Final[dict[str, tuple[Callable[[argparse.Namespace], int], str]]] = {
    "demo": (_demo, "store typed objects in a private memcached, read them back, and print both sides"),
    "serve": (_serve, "serve an embedded memcached from memory, for laptops and CI"),
    "version": (_version, "print the version"),
}


if __name__ == "__main__":
    sys.exit(main())
