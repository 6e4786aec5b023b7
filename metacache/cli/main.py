"""`main`: runs one command and returns its exit status. Errors become one line on standard error."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Final, TextIO, cast

from metacache import __version__, accelerated
from metacache.cli.arguments import UsageError, parse, url_of
from metacache.cli.commands import COMMANDS
from metacache.cli.output import output_of
from metacache.cli.session import Session
from metacache.cli.statuses import Status
from metacache.errors import (
    InvalidArgumentError,
    InvalidKeyError,
    MetacacheError,
    SerializationError,
    SerializerNotFound,
    ValueTooLargeError,
)

__all__ = ["main", "version"]

# Faults of the arguments: nothing was sent.
_OF_ARGUMENTS: Final = (
    InvalidArgumentError,
    InvalidKeyError,
    SerializationError,
    SerializerNotFound,
    ValueTooLargeError,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that *arguments* (default: those of the process) name; return the exit status."""
    for stream in (sys.stdout, sys.stderr):
        _never_fail_to_encode(stream)
    try:
        status = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return Status.INTERRUPTED
    except BrokenPipeError:
        # The reader is gone. Python would report the same error again when it flushes standard output at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Status.PIPE_CLOSED
    return status


def _never_fail_to_encode(stream: TextIO) -> None:
    """Write an escape for a character that the encoding of *stream* lacks."""
    reconfigure = getattr(stream, "reconfigure", None)  # a replaced stream may have none
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def _run(arguments: list[str]) -> int:
    try:
        args = parse(arguments)
        return _run_command(args)
    except UsageError as error:
        status, message = Status.USAGE, str(error)
    except MetacacheError as error:
        status = Status.USAGE if isinstance(error, _OF_ARGUMENTS) else Status.FAILED
        message = f"metacache: {error}"
    output_of(sys.stdout, sys.stderr, {}).message(message)
    return status


def _run_command(args: argparse.Namespace) -> int:
    command = COMMANDS[args.command]
    module, _, name = command.function.partition(":")
    function: object = getattr(import_module(module), name)
    if command.is_program:
        return cast("Callable[[], int]", function)()  # the table names it; a test calls each row
    output = output_of(sys.stdout, sys.stderr, os.environ)
    session = Session(url_of(args, os.environ), output, sys.stdin, as_json=args.as_json)
    # As above.
    return cast("Callable[[Session, argparse.Namespace], int]", function)(session, args)


def version(session: Session, args: argparse.Namespace) -> Status:  # noqa: ARG001 - the shape of a command
    """Print the version of metacache, and whether compiled primitives are used."""
    if session.as_json:
        session.output.json({"version": __version__, "accelerated": accelerated})
    else:
        kind = "with compiled primitives" if accelerated else "in pure Python"
        session.output.text(f"metacache {__version__}\n{kind}\n")
    return Status.DONE
