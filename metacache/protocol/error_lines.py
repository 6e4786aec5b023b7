"""Error lines: the error that each one means, and whether the connection must close.

One table holds the lines that servers and proxies send (protocol.txt, "Error strings"), with the error to raise. The
text of an error comes from the table. It never quotes an unknown line, because on a broken stream that may be a part of
a value.
"""

from __future__ import annotations

import re
from typing import Final, final

import attrs

from metacache.errors import (
    AuthenticationError,
    ClientError,
    ConnectError,
    MetacacheError,
    ProtocolError,
    ServerError,
)
from metacache.protocol.commands import Command

__all__ = ["Refusal", "refusal", "server_hint", "unexpected_line"]


@final
@attrs.frozen(eq=False)
class Refusal:
    """The meaning of an error line: the error to raise, and whether the connection must close."""

    error: MetacacheError
    closes: bool


@final
@attrs.frozen
class _ErrorLine:
    """A row of the table: how a line begins, and the class and the text of its error.

    ``closes``: the connection must close after any command.
    """

    start: bytes
    error: type[MetacacheError]
    text: str
    closes: bool = False


_GONE = "the key's old value is gone"
_NO_MEMORY = f"out of memory storing object: give the server more memory (-m) or smaller values; {_GONE}"

# The first row that fits counts, so a longer start comes before a shorter one.
_ERROR_LINES: Final = (
    _ErrorLine(
        b"SERVER_ERROR object too large for cache",
        ServerError,
        f"object too large for cache (server option -I); {_GONE}",
    ),
    _ErrorLine(b"SERVER_ERROR out of memory storing object", ServerError, _NO_MEMORY),
    _ErrorLine(b"SERVER_ERROR Out of memory during read", ServerError, _NO_MEMORY),
    _ErrorLine(
        b"SERVER_ERROR out of memory reading request", ServerError, "out of memory reading request", closes=True
    ),
    _ErrorLine(b"SERVER_ERROR out of memory", ServerError, "out of memory: give the server more memory (-m)"),
    _ErrorLine(
        b"SERVER_ERROR refcount overflow during fetch", ServerError, "refcount overflow during fetch: try again"
    ),
    _ErrorLine(
        b"SERVER_ERROR backend failure", ServerError, "backend failure: the proxy could not reach its memcached"
    ),
    _ErrorLine(b"SERVER_ERROR lua failure", ServerError, "lua failure in the proxy"),
    _ErrorLine(b"SERVER_ERROR active request limit reached", ServerError, "active request limit reached in the proxy"),
    _ErrorLine(
        b"CLIENT_ERROR unauthenticated",
        AuthenticationError,
        "the server wants a user and password (-Y): give Settings(username=..., password=...) or "
        "memcached://user:password@host",
        closes=True,
    ),
    _ErrorLine(
        b"CLIENT_ERROR authentication failure",
        AuthenticationError,
        "user or password refused: they are not in the server's file (-Y)",
        closes=True,
    ),
    _ErrorLine(
        b"CLIENT_ERROR bad authentication token format", AuthenticationError, "user or password malformed", closes=True
    ),
    _ErrorLine(b"CLIENT_ERROR parsing request", ClientError, "the proxy could not parse the request", closes=True),
    _ErrorLine(
        b"CLIENT_ERROR request too long", ClientError, "the proxy takes request lines below 500 bytes", closes=True
    ),
    _ErrorLine(
        b"CLIENT_ERROR cannot increment or decrement non-numeric value", ClientError, "the stored value is not a number"
    ),
    _ErrorLine(b"CLIENT_ERROR bad data chunk", ClientError, "bad data chunk"),
    _ErrorLine(b"CLIENT_ERROR bad command line format", ClientError, "bad command line format"),
    _ErrorLine(b"CLIENT_ERROR bad command line", ClientError, "bad command line: an argument is missing or malformed"),
    _ErrorLine(b"CLIENT_ERROR usage: stats detail", ClientError, "stats detail takes on, off or dump"),
    _ErrorLine(b"CLIENT_ERROR Illegal slab id", ClientError, "there is no such slab class (stats slabs lists them)"),
    _ErrorLine(b"CLIENT_ERROR bad token in command line format", ClientError, "bad token in command line format"),
    _ErrorLine(b"CLIENT_ERROR error decoding key", ClientError, "error decoding key (not padded base64)"),
    _ErrorLine(b"CLIENT_ERROR invalid or duplicate flag", ClientError, "invalid or duplicate flag"),
    _ErrorLine(b"CLIENT_ERROR invalid flag", ClientError, "invalid flag"),
    _ErrorLine(b"CLIENT_ERROR duplicate flag", ClientError, "duplicate flag"),
    _ErrorLine(b"CLIENT_ERROR opaque token too long", ClientError, "opaque token too long"),
    _ErrorLine(b"CLIENT_ERROR flush_all not allowed", ClientError, "flush_all not allowed (server option -F)"),
    _ErrorLine(b"CLIENT_ERROR stats detail not allowed", ClientError, "stats detail not allowed (server option -X)"),
    _ErrorLine(b"CLIENT_ERROR invalid exptime argument", ClientError, "invalid exptime argument"),
    _ErrorLine(b"ERROR Too many open connections", ConnectError, "the server has no free connection (-c)", closes=True),
)

_ERROR_WORDS: Final = ((b"SERVER_ERROR", ServerError), (b"CLIENT_ERROR", ClientError), (b"ERROR", ProtocolError))
_is_status_word = re.compile(rb"[A-Z_]{2,16}").fullmatch


def refusal(header: bytes, command: Command) -> Refusal | None:
    """Return the meaning of the error line *header* for a request of *command*; None if it is not an error line."""
    word, error = next((row for row in _ERROR_WORDS if header.startswith(row[0])), (b"", None))
    if error is None:
        return None
    # After CLIENT_ERROR to an ms it is uncertain whether the server has read the data block.
    closes = command.closes_on_client_error and error is ClientError
    row = next((row for row in _ERROR_LINES if header.startswith(row.start)), None)
    if row is not None:
        return Refusal(row.error(row.text), closes or row.closes)
    if error is ProtocolError:
        return _unknown_command(command)
    return Refusal(error(f"{word.decode()} with an unlisted message of {len(header) - len(word)} bytes"), closes)


def _unknown_command(command: Command) -> Refusal:
    if command.is_admin:
        text = f"this server does not take {command.name!r}, or not with this argument (a proxy, or another release)"
        return Refusal(ClientError(text), closes=False)
    # The server has read the line, but not the data block of an ms.
    text = f"the server does not know {command.name!r}: memcached 1.6.18 or newer is needed"
    return Refusal(ProtocolError(text), closes=True)


# The first bytes of other servers, sent before a request or after one that they do not understand. No memcached reply
# begins with them.
_OTHER_SERVERS: Final = (
    (rb"[\x14-\x17]\x03", "TLS"),
    (rb"(?i:HTTP/|<!DOCTYPE|<html|<\?xml)", "HTTP"),
    (rb"SSH-", "SSH"),
    (rb"-[A-Z]{2,} |\+(?:OK|PONG)", "Redis"),
    (rb"[1-5][0-9]{2}[ -]", "SMTP or FTP"),
    (rb"\* (?:OK|BYE|BAD|PREAUTH)", "IMAP"),
    (rb"RFB [0-9]", "VNC"),
    (rb"AMQP", "AMQP"),
)
LONGEST_START: Final = 64  # bytes that are compared with these patterns


def server_hint(data: bytes, pos: int = 0) -> str | None:
    """Return a question for the user if the bytes at *pos* of *data* are from another kind of server; else None.

    The bytes may be part of a value, so the question quotes none of them.
    """
    start = data[pos : pos + LONGEST_START]
    name = next((name for pattern, name in _OTHER_SERVERS if re.match(pattern, start)), None)
    if name is None:
        return None
    if name == "TLS":
        return "does this port speak TLS? use memcacheds://"
    return f"it looks like {name}: is this memcached?"


def unexpected_line(header: bytes, command: Command) -> ProtocolError:
    """Return the error for a line that cannot answer *command*.

    The line may be part of a value, so the error quotes it only if it looks like a status word.
    """
    seen = repr(header.decode()) if _is_status_word(header) else f"a line of {len(header)} bytes"
    hint = server_hint(header)
    why = f" ({hint})" if hint else ""
    return ProtocolError(f"{seen} is not a reply to {command.name}{why}; the connection is closed")
