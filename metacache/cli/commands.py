"""The table of the commands: name, purpose, example, arguments, and where the function that runs it is.

A command is a row. Its module is imported when the command runs, so that ``--help`` stays quick. The function takes a
`Session` and the parsed arguments, and returns a `Status`. A command with ``is_program`` is a function without
arguments that returns its own exit status.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, final

import attrs

from metacache.cli.given import count, interval

__all__ = ["COMMANDS", "Argument", "Command"]


@final
@attrs.frozen
class Argument:
    """One argument of a command: its names, and the keywords of ``ArgumentParser.add_argument``."""

    names: tuple[str, ...]
    keywords: Mapping[str, Any]  # Any: argparse declares a type of its own for each keyword


@final
@attrs.frozen
class Command:
    """One command.

    Attributes:
        summary: what it does, in one line.
        example: one use of it.
        function: ``module:function``.
        arguments: its arguments, beside those of all commands.
        details: more for its help.
        is_program: see the module.
    """

    summary: str
    example: str
    function: str
    arguments: tuple[Argument, ...] = ()
    details: str = ""
    is_program: bool = False


# Any: as in `Argument`.
def _argument(*names: str, **keywords: Any) -> Argument:
    return Argument(names, keywords)


KEY: Final = _argument("key", metavar="KEY")
BASE64: Final = _argument("--base64", action="store_true", help="KEY is base64, for a key that is not text")
TTL_HELP: Final = "seconds, or a number with s, m, h or d, or never"

_PEEK: Final = (
    "It is not counted as a read: the idle time and the place in the LRU stay. A stale item gets another CAS, because "
    "the read consumes its win flag, and the request that gives the flag back changes the CAS."
)

COMMANDS: Final[Mapping[str, Command]] = {
    "ping": Command("connect to every node", "metacache ping", "metacache.cli.nodes:ping"),
    "get": Command(
        "show an item of any client: value, flags, TTL, CAS, size",
        "metacache get user:ada",
        "metacache.cli.items:get",
        (
            KEY,
            BASE64,
            _argument("--raw", action="store_true", help="write the bytes of the value only, decompressed"),
            _argument("--all", action="store_true", help="show all lines of a long value"),
        ),
        details=_PEEK,
    ),
    "set": Command(
        "store a value",
        "metacache set greeting hello --ttl 5m",
        "metacache.cli.items:set_",
        (
            KEY,
            _argument("value", metavar="VALUE", nargs="?", help="the value; or use --file"),
            BASE64,
            _argument("--file", metavar="PATH", help="read the value from a file; - is standard input"),
            _argument("--ttl", default="never", metavar="TTL", help=f"{TTL_HELP} (default: never)"),
            _argument(
                "--type",
                choices=("str", "bytes", "int", "json"),
                default="str",
                help="the type of the client that can read it (default: str); json has no fingerprint",
            ),
        ),
    ),
    "delete": Command("delete an item", "metacache delete user:ada", "metacache.cli.items:delete", (KEY, BASE64)),
    "touch": Command(
        "set the TTL of an item",
        "metacache touch user:ada 1h",
        "metacache.cli.items:touch",
        (KEY, _argument("ttl", metavar="TTL", help=TTL_HELP), BASE64),
        details="It consumes the win flag of a stale item, and deletes a lease placeholder.",
    ),
    "inspect": Command(
        "show the metadata of an item, without a read",
        "metacache inspect user:ada",
        "metacache.cli.items:inspect",
        (KEY,),
        details="Keys with a space or a control byte are refused, because not every server can inspect them.",
    ),
    "exists": Command(
        "say whether there is an item of any client",
        "metacache exists user:ada",
        "metacache.cli.items:exists",
        (KEY, BASE64),
        details=_PEEK,
    ),
    "explain": Command(
        "show which node owns a key, or what a change of nodes moves",
        "metacache explain user:ada --move add=cache-3:11211",
        "metacache.cli.explain:explain",
        (
            _argument("key", metavar="KEY", nargs="?"),
            BASE64,
            _argument(
                "--move",
                action="append",
                default=[],
                metavar="CHANGE",
                help="add=host:port, remove=name or weight=name:2; several apply in order",
            ),
        ),
        details="It sends nothing to a node.",
    ),
    "keys": Command(
        "list the items of all nodes",
        "metacache keys --prefix user: --limit 100",
        "metacache.cli.keys:keys",
        (
            _argument("--prefix", default="", help="only keys that begin so"),
            _argument("--limit", type=count, metavar="N", help="stop after N items"),
        ),
        details="Columns: bytes in the server, seconds to live (- never expires), seconds since the last use, key.",
    ),
    "stats": Command(
        "show the statistics of every node",
        "metacache stats",
        "metacache.cli.nodes:stats",
        (
            _argument("group", metavar="GROUP", nargs="?", help="settings, items, slabs, sizes, conns, …"),
            _argument("--all", action="store_true", help="show every statistic"),
        ),
    ),
    "top": Command(
        "show a live table of the nodes; Ctrl-C ends it",
        "metacache top --interval 1",
        "metacache.cli.top:top",
        (
            _argument("--interval", type=interval, default=2.0, metavar="SECONDS", help="between samples (default: 2)"),
            _argument("--count", type=count, metavar="N", help="end after N samples"),
        ),
        details="Without a terminal it writes one table after the other; with --json, one line for each sample.",
    ),
    "flush": Command(
        "expire all items of all nodes, after a question",
        "metacache flush --yes",
        "metacache.cli.nodes:flush",
        (
            _argument("--yes", action="store_true", help="do not ask"),
            _argument("--delay", type=int, default=0, metavar="SECONDS", help="expire them later (default: 0)"),
        ),
    ),
    "demo": Command(
        "store typed objects in private memcached servers, and print both sides",
        "metacache demo",
        "metacache.testing.demo:main",
        is_program=True,
    ),
    "serve": Command(
        "serve an embedded memcached from memory, for laptops and CI",
        "metacache serve --port 11311",
        "metacache.cli.serve:serve",
        (
            _argument("--host", help="the address to listen on (default: 127.0.0.1)"),
            _argument("--port", type=int, help="the TCP port (default: 11211); 0: a free one"),
            _argument("--unix", metavar="PATH", help="listen on this unix socket instead"),
            _argument("--memory-limit", type=count, default=64, metavar="MB", help="for items (default: 64)"),
            _argument("--max-item-size", type=count, default=1 << 20, metavar="BYTES", help="(default: 1048576)"),
        ),
        details="It has no TLS, no authentication and no classic commands, and its items end with it.",
    ),
    "version": Command("print the version of metacache", "metacache version", "metacache.cli.main:version"),
}
