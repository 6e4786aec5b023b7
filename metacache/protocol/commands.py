"""The commands, with the codes that can answer each, and functions that build the requests without flags.

The commands are those of protocol.txt ("Meta Commands" and the admin lines). `flags` has their flags, and `operations`
builds the requests for items. The functions here check their arguments. This module parses no reply.
"""

from __future__ import annotations

import re
from typing import Final, final

import attrs

from metacache.errors import InvalidArgumentError, InvalidTypeError
from metacache.settings import number_text

__all__ = [
    "AUTHENTICATE",
    "CACHE_MEMLIMIT",
    "CONFIG_GET_CLUSTER",
    "FLUSH_ALL",
    "MA",
    "MAX_BODY",
    "MA_VALUE",
    "MD",
    "MD_DROP",
    "ME",
    "MG",
    "MG_CONDITIONAL",
    "MG_VALUE",
    "MN",
    "MS",
    "STATS",
    "VERBOSITY",
    "VERSION",
    "Command",
    "Request",
    "authenticate",
    "authentication",
    "cache_memlimit",
    "config_get_cluster",
    "flush_all",
    "meta_noop",
    "stats",
    "verbosity",
    "version",
]

MAX_BODY: Final = 2**31 - 3  # bytes; the server refuses a longer datalen without reading the data


def _has_value(command: Command) -> bool:
    return b"VA" in command.codes


def _has_plain_hd(command: Command) -> bool:
    return b"HD" in command.codes and not command.has_value


def _whole(command: Command) -> frozenset[bytes]:
    return command.codes - {b"VA", b"ME", b"STAT", b"ITEM", b"PREFIX", b"CONFIG"}


@final
@attrs.frozen(eq=False)
class Command:
    """One kind of request: what the parser must know to read its reply.

    Attributes:
        name: the first word of the request, for errors.
        codes: the words with which its reply can begin, in addition to the three error words. Any other word means that
            the stream is broken.
        echoes: True if the request has an opaque. Every reply repeats it, except an error line.
        closes_on_client_error: True if CLIENT_ERROR leaves open whether the server has read the data block.
        is_admin: True if ERROR refuses only this line, and the connection stays open.
        receive: the number of bytes that the first recv of a single reply asks for, in pure Python.
        has_value: True if the reply to a hit has a data block.
        has_plain_hd: True if HD is the usual reply.
        whole: the codes whose header line can be the whole reply.
    """

    name: str
    codes: frozenset[bytes]
    echoes: bool = False
    closes_on_client_error: bool = False
    is_admin: bool = False
    receive: int = 65536
    has_value: bool = attrs.field(init=False, default=attrs.Factory(_has_value, takes_self=True))
    has_plain_hd: bool = attrs.field(init=False, default=attrs.Factory(_has_plain_hd, takes_self=True))
    whole: frozenset[bytes] = attrs.field(init=False, default=attrs.Factory(_whole, takes_self=True))


def _codes(text: str) -> frozenset[bytes]:
    return frozenset(text.encode().split())


# protocol.txt, "Meta Get" … "Meta Arithmetic". A VA for an mg without v, or an HD for an mg with v, belongs to another
# request. No operation of this package uses MG_CONDITIONAL (C on mg), MD_DROP (x) or MA (no v). They complete the
# table, and the tests send such requests to real servers.
MG: Final = Command("mg", _codes("HD EN"), echoes=True)
MG_VALUE: Final = Command("mg", _codes("VA EN"), echoes=True)
MG_CONDITIONAL: Final = Command("mg", _codes("VA HD EN"), echoes=True)
MS: Final = Command("ms", _codes("HD NS EX NF"), echoes=True, closes_on_client_error=True, receive=448)
MD: Final = Command("md", _codes("HD NF EX"), echoes=True)
MD_DROP: Final = Command("md", _codes("HD NF EX NS"), echoes=True)
MA: Final = Command("ma", _codes("HD NF EX NS"), echoes=True)
MA_VALUE: Final = Command("ma", _codes("VA NF EX NS"), echoes=True)
ME: Final = Command("me", _codes("ME EN"))
MN: Final = Command("mn", _codes("MN"))
VERSION: Final = Command("version", _codes("VERSION"), is_admin=True)
STATS: Final = Command("stats", _codes("STAT ITEM PREFIX END RESET OK"), is_admin=True)
FLUSH_ALL: Final = Command("flush_all", _codes("OK"), is_admin=True)
VERBOSITY: Final = Command("verbosity", _codes("OK"), is_admin=True)
CACHE_MEMLIMIT: Final = Command("cache_memlimit", _codes("OK MEMLIMIT_TOO_SMALL MEMLIMIT_ADJUST_FAILED"), is_admin=True)
CONFIG_GET_CLUSTER: Final = Command("config", _codes("CONFIG"), is_admin=True)
AUTHENTICATE: Final = Command("authenticate", _codes("STORED"), closes_on_client_error=True)


@final
@attrs.frozen
class Request:
    """One request: *head* without opaque and CRLF, and the data block of an ms, or None.

    The data block is a value or a credential, so the repr leaves it out.
    """

    command: Command
    head: bytes
    body: bytes | None = attrs.field(default=None, repr=False)


def meta_noop() -> Request:
    """Return ``mn``. The server answers MN when it has answered every earlier request."""
    return Request(MN, b"mn")


def version() -> Request:
    """Return ``version``. A proxy answers with its own version."""
    return Request(VERSION, b"version")


def stats(arg: str = "") -> Request:
    """Return ``stats [arg]``.

    *arg*: settings, items, slabs, sizes, conns, extstore, proxy, reset, detail on|off|dump, cachedump <class> <count>.
    """
    words = _words("stats argument", arg)
    if words.split(b" ")[0] in _ENDLESS:
        raise InvalidArgumentError(f"the reply to stats {words.decode()} has no end; the server option is track_sizes")
    return Request(STATS, b"stats " + words if words else b"stats")


def flush_all(delay: int = 0) -> Request:
    """Return ``flush_all [delay]``, which makes every item expire *delay* seconds from now."""
    checked = _at_least(0, "delay", delay)
    return Request(FLUSH_ALL, b"flush_all %d" % checked if checked else b"flush_all")


def verbosity(level: int) -> Request:
    """Return ``verbosity level``."""
    return Request(VERBOSITY, b"verbosity %d" % _at_least(0, "level", level))


def cache_memlimit(megabytes: int) -> Request:
    """Return ``cache_memlimit megabytes``. The server takes 8 or more."""
    return Request(CACHE_MEMLIMIT, b"cache_memlimit %d" % _at_least(1, "megabytes", megabytes))


def config_get_cluster() -> Request:
    """Return ``config get cluster``, which the discovery endpoints of ElastiCache and Memorystore answer."""
    return Request(CONFIG_GET_CLUSTER, b"config get cluster")


def authenticate(username: str, password: str) -> Request:
    """Return the classic ``set`` that carries user and password (ASCII auth, ``memcached -Y``).

    A server with authentication ignores the key and the expiration time. A server without it stores an item that has
    already expired, under a key that no application uses. So no client can read the credentials.
    """
    body = f"{username} {password}".encode()
    return Request(AUTHENTICATE, b"set metacache_authentication 0 -1 %d" % len(body), body)


def authentication(username: str | None, password: str | None) -> Request | None:
    """Return the request that sends the credentials, or None if there are none.

    The callers hold only the request, whose repr shows no credential: their frames are in tracebacks.
    """
    return None if username is None or password is None else authenticate(username, password)


# items.c sends one STAT line for these, and no END, so the client would wait for the rest.
_ENDLESS: Final = frozenset((b"sizes_enable", b"sizes_disable"))

_is_words = re.compile(r"[A-Za-z0-9_:. -]{0,64}").fullmatch


def _words(name: str, text: str) -> bytes:
    if not isinstance(text, str):
        raise InvalidTypeError(f"the {name} is a str, not {type(text).__name__}")
    if not _is_words(text):
        raise InvalidArgumentError(f"the {name} has at most 64 letters, digits, spaces and _ : . -")
    return text.strip().encode()


def _at_least(low: int, name: str, number: int) -> int:
    if isinstance(number, bool) or not isinstance(number, int):
        raise InvalidTypeError(f"{name} is an int, not {type(number).__name__}")
    if not low <= number <= 2**31 - 1:
        raise InvalidArgumentError(f"{name} is between {low} and {2**31 - 1}, not {number_text(number)}")
    return number
