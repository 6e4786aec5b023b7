"""The command line: `python -m metacache demo` and `python -m metacache version`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Final

from metacache import __version__
from metacache.testing import demo


def main() -> int:
    """Run the command that the arguments name; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m metacache", description="metacache, a typed memcached client.")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    for name, (_, description) in COMMANDS.items():
        commands.add_parser(name, help=description, description=description)
    run, _ = COMMANDS[parser.parse_args().command]
    return run()


def _version() -> int:
    print(f"metacache {__version__}")
    return 0


COMMANDS: Final[dict[str, tuple[Callable[[], int], str]]] = {
    "demo": (demo.main, "store typed objects in a private memcached, read them back, and print both sides"),
    "version": (_version, "print the version"),
}


if __name__ == "__main__":
    sys.exit(main())
