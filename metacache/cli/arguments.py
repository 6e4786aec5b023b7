"""Makes the parser of the command line from the table of commands. Its errors never quote a URL."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Mapping
from typing import NoReturn, final

from metacache.cli.commands import COMMANDS, Command
from metacache.marks import override

__all__ = ["DEFAULT_URL", "UsageError", "parse", "url_of"]

DEFAULT_URL = "memcached://127.0.0.1:11211"
VARIABLE = "METACACHE_URL"
EPILOG = f"""\
Exit status: 0 done or found, 1 not found or answered no, 2 invalid arguments,
3 a server failed, 130 Ctrl-C, 141 the reader of the output left.

The URL is that of --url, else of {VARIABLE}, else
{DEFAULT_URL}. Other users of this machine can see --url in
the list of processes. Give a URL with a password in {VARIABLE}.
"""


@final
class UsageError(Exception):
    """The arguments are invalid. The message quotes no URL."""


@final
class _Parser(argparse.ArgumentParser):
    @override
    def error(self, message: str) -> NoReturn:
        raise _usage_error(self.prog, message)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the parsed *arguments*. Raises UsageError; SystemExit after ``--help``."""
    args, unknown = _parser().parse_known_args(arguments)
    if unknown:
        # Not `parse_args`: its error names the help of all commands, and not that of this one.
        raise _usage_error(f"metacache {args.command}", f"unrecognized arguments: {' '.join(unknown)}")
    return args


def _usage_error(program: str, message: str) -> UsageError:
    # argparse quotes arguments. One of them may be a URL with a password, in the wrong place.
    quotes_url = "://" in message or "@" in message
    shown = "an argument is in the wrong place; give the URL with --url" if quotes_url else message
    return UsageError(f"{program}: {shown}; see {program} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="metacache",
        description="Look into memcached servers and change what they store.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_common(parser, url=None, as_json=False)
    commands = parser.add_subparsers(dest="command", metavar="command", required=True, parser_class=_Parser)
    for name, command in COMMANDS.items():
        _add_command(commands, name, command)
    return parser


def _add_common(parser: argparse.ArgumentParser, **defaults: object) -> None:
    """Add the arguments of all commands. Without *defaults* they leave what the main parser found."""
    url, as_json = defaults.get("url", argparse.SUPPRESS), defaults.get("as_json", argparse.SUPPRESS)
    parser.add_argument("--url", metavar="URL", default=url, help=f"the servers (default: ${VARIABLE})")
    parser.add_argument("--json", dest="as_json", action="store_true", default=as_json, help="print JSON")


def _add_command(commands: argparse._SubParsersAction[_Parser], name: str, command: Command) -> None:
    details = f"\n\n{textwrap.fill(command.details, 76)}" if command.details else ""
    parser = commands.add_parser(
        name,
        help=command.summary,
        description=f"{command.summary[0].upper()}{command.summary[1:]}.{details}",
        epilog=f"example:\n  {command.example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for argument in command.arguments:
        parser.add_argument(*argument.names, **argument.keywords)
    if not command.is_program:
        _add_common(parser)


def url_of(args: argparse.Namespace, environment: Mapping[str, str]) -> str:
    """Return the URL of the servers."""
    given: str | None = args.url
    return given or environment.get(VARIABLE) or DEFAULT_URL
