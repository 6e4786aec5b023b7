"""Replies: what one header line says, and what each error line means for the request and for the connection.

Knows the reply grammar (protocol.txt, "Meta Commands" and "Error strings") and one table of error lines; keeps no state
between replies.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias, final

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

__all__ = [
    "HD_REPLY",
    "MAX_HEADER",
    "OPAQUES",
    "Opaque",
    "Refusal",
    "Reply",
    "find_flag",
    "foreign",
    "known_sizes",
    "parse_size",
    "refusal",
    "return_flags",
    "strange",
    "whole_reply",
]

MAX_HEADER: Final = 2048  # the server builds a header in 1024 bytes; a longer line without CRLF is a broken stream


Reply: TypeAlias = tuple[list[bytes], bytes | None]
"""A reply that is no error: the header split at spaces (its first token is the code), and the data block or None.

A plain tuple, for one is made per request: a class with an ``__init__`` costs 1,700 instructions more.
"""


HD_REPLY: Final[Reply] = ([b"HD"], None)

Opaque: TypeAlias = tuple[bytes, bytes, bytes, bytes]
"""How one opaque is written.

Behind a request (``b" O7\\r\\n"``), as the token that comes back (``b"O7"``), as the commonest reply
(``b"HD O7\\r\\n"``), and behind a header line (``b" O7"``).
"""

# Opaques are taken in turn from this table: a ready one costs 300 instructions, formatting one 1,200. Their number only
# has to exceed what can be in flight on one connection for a reply out of its place to be recognised.
OPAQUES: Final[tuple[Opaque, ...]] = tuple(
    (b" O%d\r\n" % n, b"O%d" % n, b"HD O%d\r\n" % n, b" O%d" % n) for n in range(2048)
)
NO_OPAQUE: Final[Opaque] = (b"\r\n", b"", b"HD\r\n", b"")


def find_flag(tokens: list[bytes], letter: bytes) -> bytes | None:
    """Return what follows *letter* in the first of *tokens* that begins with it; None when none does.

    Give it the return flags only (`return_flags`): a size or a code is no flag.
    """
    for token in tokens:
        if token[:1] == letter:
            return token[1:]
    return None


def return_flags(reply: Reply) -> list[bytes]:
    """Return the return flags of *reply*: its tokens without the code, and without the size of a VA."""
    tokens, _ = reply
    return tokens[2:] if tokens[0] == b"VA" else tokens[1:]


# Header lines seen before, without opaque: the same few sizes and flags come again and again. Looking one up costs 400
# instructions, parsing it 3,500. The size is -1 for a line that announces no value.
known_headers: Final[dict[bytes, tuple[int, list[bytes]]]] = {}
known_sizes: Final[dict[bytes, int]] = {}
KNOWN_HEADERS: Final = 4096  # and none longer than LONGEST_KNOWN bytes
LONGEST_KNOWN: Final = 64
LONGEST_PLAIN: Final = 1024  # with an opaque still below MAX_HEADER


def value_header(header: bytes) -> tuple[int, list[bytes]]:
    """Return (size, tokens) of a VA header without opaque; (-1, tokens) when it is none."""
    tokens = header.split(b" ")
    is_value = tokens[0] == b"VA" and len(tokens) > 1 and len(tokens[1]) <= 10 and tokens[1].isdigit()
    is_plain = is_value and b"\n" not in header and len(header) <= LONGEST_PLAIN
    if len(known_headers) >= KNOWN_HEADERS:
        known_headers.clear()
        known_sizes.clear()
    parsed = (int(tokens[1]) if is_plain else -1, tokens)
    if len(header) <= LONGEST_KNOWN:
        known_headers[header], known_sizes[header] = parsed, parsed[0]
    return parsed


def whole_reply(data: bytes, suffix: bytes, command: Command, limit: int) -> Reply | None:
    """Return the reply if *data* is that reply, whole and plain, to the only request under way; None if in any doubt.

    The shortcut for nearly every reply, done in C. What it leaves (W, X or Z behind the opaque, half a reply, an error)
    goes to the incremental parser, which it never contradicts.
    """
    header, found, rest = data.partition(suffix)
    if rest:
        size, tokens = known_headers.get(header) or value_header(header)
        value, _, surplus = rest.rpartition(b"\r\n")
        return (tokens, value) if len(value) == size <= limit and not surplus and command.has_value else None
    return ([header], None) if found and header in command.whole else None


@final
@attrs.frozen(eq=False)
class Refusal:
    """An error line: what to raise, and whether the connection must close."""

    error: MetacacheError
    closes: bool


@final
@attrs.frozen
class _ErrorLine:
    """A row: the line begins so; raise this; close always, or else as the command says; tell this."""

    start: bytes
    error: type[MetacacheError]
    told: str
    closes: bool = False


_GONE = "the key's old value is gone"
_NO_MEMORY = f"out of memory storing object: give the server more memory (-m) or smaller values; {_GONE}"

# The text told is the table's, never the wire's: after a desync the line may be part of a value.
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
    _ErrorLine(b"SERVER_ERROR: shutdown not enabled", ClientError, "shutdown not enabled (server option -A)"),
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
    _ErrorLine(b"CLIENT_ERROR invalid shutdown mode", ClientError, "invalid shutdown mode"),
    _ErrorLine(b"ERROR Too many open connections", ConnectError, "the server has no free connection (-c)", closes=True),
    _ErrorLine(b"ERROR: shutdown not enabled", ClientError, "shutdown not enabled (server option -A)"),
)

_ERROR_WORDS: Final = ((b"SERVER_ERROR", ServerError), (b"CLIENT_ERROR", ClientError), (b"ERROR", ProtocolError))
_is_status_word = re.compile(rb"[A-Z_]{2,16}").fullmatch


def refusal(header: bytes, command: Command) -> Refusal | None:
    """Return what the error line *header* means for a request of *command*; None when it is no error line."""
    word = next(((start, error) for start, error in _ERROR_WORDS if header.startswith(start)), None)
    if word is None:
        return None
    row = next((row for row in _ERROR_LINES if header.startswith(row.start)), None)
    if row is not None:
        closes = row.closes or (command.closes_on_client_error and word[1] is ClientError)
        return Refusal(row.error(row.told), closes)
    if word[1] is ProtocolError:
        return _unknown_command(command)
    told = f"{word[0].decode()} with an unlisted message of {len(header) - len(word[0])} bytes"
    return Refusal(word[1](told), command.closes_on_client_error and word[1] is ClientError)


def _unknown_command(command: Command) -> Refusal:
    # ERROR: the line was consumed, but the data block of an ms was not.
    if command.is_admin:
        return Refusal(
            ClientError(
                f"this server does not take {command.name!r}, or not with this argument (a proxy, or another release)"
            ),
            closes=False,
        )
    unknown = f"the server does not know {command.name!r}: memcached 1.6.18 or newer is needed"
    return Refusal(ProtocolError(unknown), closes=True)


# How servers of other protocols begin, before they are asked or when they do not understand. None begins like a reply.
_FOREIGN: Final = (
    (re.compile(rb"[\x14-\x17]\x03"), "TLS"),
    (re.compile(rb"HTTP/|<!DOCTYPE|<html|<\?xml", re.IGNORECASE), "HTTP"),
    (re.compile(rb"SSH-"), "SSH"),
    (re.compile(rb"-[A-Z]{2,} |\+(?:OK|PONG)"), "Redis"),
    (re.compile(rb"[1-5][0-9]{2}[ -]"), "SMTP or FTP"),
    (re.compile(rb"\* (?:OK|BYE|BAD|PREAUTH)"), "IMAP"),
    (re.compile(rb"RFB [0-9]"), "VNC"),
    (re.compile(rb"AMQP"), "AMQP"),
)


def foreign(data: bytes, pos: int = 0) -> str | None:
    """Return a question for the user if the bytes at *pos* of *data* are of another kind of server, else None.

    They may be part of a value: nothing of them is quoted.
    """
    name = next((name for pattern, name in _FOREIGN if pattern.match(data, pos)), None)
    if name is None:
        return None
    return (
        "does this port speak TLS? use memcacheds://" if name == "TLS" else f"{name} servers say so: is this memcached?"
    )


def strange(header: bytes, command: Command) -> ProtocolError:
    """Return the error for a line that cannot answer *command*.

    It may be part of a value: only a status word is quoted.
    """
    seen = repr(header.decode()) if _is_status_word(header) else f"a line of {len(header)} bytes"
    hint = foreign(header)
    return ProtocolError(
        f"{seen} is not a reply to {command.name}{f' ({hint})' if hint else ''}; the connection is closed"
    )


def parse_size(tokens: list[bytes], limit: int) -> int:
    """Return the size that a VA header announces.

    Raises ProtocolError when it is missing, not plain ASCII digits (``int`` would take ``+3``, ``1_0`` and ``٣``) or
    above *limit*.
    """
    digits = tokens[1] if len(tokens) > 1 else b""
    if not digits.isdigit() or len(digits) > 10:
        raise ProtocolError("VA with a malformed size; the connection is closed")
    size = int(digits)
    if size > limit:
        raise ProtocolError(f"VA announces {size} bytes, the limit is {limit} (Settings.max_reply_size)")
    return size
