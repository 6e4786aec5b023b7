"""Requests as bytes, and which replies each command can get.

Knows every line this client can send (protocol.txt, "Meta Commands" and the admin lines); knows nothing of how a
reply is parsed, and trusts no argument.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Final, final

import attrs

from metacache.errors import InvalidArgumentError, InvalidTypeError
from metacache.protocol.flags import Commands, Token, encode_flags
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
    "SHUTDOWN",
    "STATS",
    "VERBOSITY",
    "VERSION",
    "Command",
    "Framing",
    "Request",
    "authenticate",
    "cache_memlimit",
    "config_get_cluster",
    "flush_all",
    "meta_arithmetic",
    "meta_debug",
    "meta_delete",
    "meta_get",
    "meta_noop",
    "meta_set",
    "shutdown",
    "stats",
    "verbosity",
    "version",
]

MAX_BODY: Final = 2**31 - 3  # ms: a longer datalen is refused without swallowing the data


class Framing(enum.Enum):
    """How the end of a reply is found."""

    META = enum.auto()  # one line, and a data block behind VA
    KEYED = enum.auto()  # one line, which repeats the key behind ME
    STATS = enum.auto()  # STAT, ITEM or PREFIX lines up to END
    CONFIG = enum.auto()  # CONFIG cluster 0 <len>, data, END


def _has_value(command: Command) -> bool:
    return b"VA" in command.codes


def _has_plain_hd(command: Command) -> bool:
    return b"HD" in command.codes and not command.has_value


def _whole(command: Command) -> frozenset[bytes]:
    return command.codes - {b"VA", b"ME", b"STAT", b"ITEM", b"PREFIX", b"CONFIG"}


@final
@attrs.frozen(eq=False)
class Command:
    """One kind of request, as far as its reply goes.

    ``codes``: the words that can begin its reply beside the three error words; anything else is a desync.
    ``echoes``: an opaque is sent and every reply but an error line brings it back.
    ``closes_on_client_error``: after CLIENT_ERROR it is unknown whether the server swallowed the data.
    ``ends``: the server answers by closing the connection.
    ``receive``: bytes worth asking of one recv.
    ``has_value``: a hit brings a data block. ``has_plain_hd``: HD is its usual reply.
    ``whole``: those of the codes that may be all of a reply.
    """

    name: str
    codes: frozenset[bytes]
    echoes: bool = False
    closes_on_client_error: bool = False
    framing: Framing = Framing.META
    is_admin: bool = False
    ends: bool = False
    receive: int = 65536
    has_value: bool = attrs.field(init=False, default=attrs.Factory(_has_value, takes_self=True))
    has_plain_hd: bool = attrs.field(init=False, default=attrs.Factory(_has_plain_hd, takes_self=True))
    whole: frozenset[bytes] = attrs.field(init=False, default=attrs.Factory(_whole, takes_self=True))


def _codes(text: str) -> frozenset[bytes]:
    return frozenset(text.encode().split())


# protocol.txt, "Meta Get" … "Meta Arithmetic". A VA to an mg without v, or an HD to one with it, is an off-by-one.
MG: Final = Command("mg", _codes("HD EN"), echoes=True)
MG_VALUE: Final = Command("mg", _codes("VA EN"), echoes=True)
MG_CONDITIONAL: Final = Command("mg", _codes("VA HD EN"), echoes=True)
MS: Final = Command("ms", _codes("HD NS EX NF"), echoes=True, closes_on_client_error=True, receive=448)
MD: Final = Command("md", _codes("HD NF EX"), echoes=True)
MD_DROP: Final = Command("md", _codes("HD NF EX NS"), echoes=True)
MA: Final = Command("ma", _codes("HD NF EX NS"), echoes=True)
MA_VALUE: Final = Command("ma", _codes("VA NF EX NS"), echoes=True)
ME: Final = Command("me", _codes("ME EN"), framing=Framing.KEYED)
MN: Final = Command("mn", _codes("MN"))
VERSION: Final = Command("version", _codes("VERSION"), is_admin=True)
STATS: Final = Command("stats", _codes("STAT ITEM PREFIX END RESET OK"), framing=Framing.STATS, is_admin=True)
FLUSH_ALL: Final = Command("flush_all", _codes("OK"), is_admin=True)
VERBOSITY: Final = Command("verbosity", _codes("OK"), is_admin=True)
CACHE_MEMLIMIT: Final = Command("cache_memlimit", _codes("OK MEMLIMIT_TOO_SMALL MEMLIMIT_ADJUST_FAILED"), is_admin=True)
SHUTDOWN: Final = Command("shutdown", _codes("OK"), is_admin=True, ends=True)
CONFIG_GET_CLUSTER: Final = Command("config", _codes("CONFIG"), framing=Framing.CONFIG, is_admin=True)
AUTHENTICATE: Final = Command("authenticate", _codes("STORED"), closes_on_client_error=True)


@final
@attrs.frozen
class Request:
    """One request: *head* without opaque and CRLF, and the data block of an ms (None: no block).

    The data block is a value or a credential, so the repr leaves it out.
    """

    command: Command
    head: bytes
    body: bytes | None = attrs.field(default=None, repr=False)


def meta_get(key: bytes, flags: Mapping[str, Token]) -> Request:
    """Return ``mg key flags``.

    *key* is a wire token of at most 250 bytes (`KeyEncoder`); flags by name (`REQUEST_FLAGS`).
    """
    wants_value = bool(flags.get("value"))
    command = (MG_CONDITIONAL if flags.get("unless_cas") else MG_VALUE) if wants_value else MG
    return Request(command, _head("mg", key, encode_flags(Commands.MG, flags)))


def meta_set(key: bytes, body: bytes, flags: Mapping[str, Token]) -> Request:
    """Return ``ms key datalen flags`` with its data block of at most `MAX_BODY` bytes."""
    if not isinstance(body, bytes):
        raise InvalidTypeError(f"the data block is bytes, not {type(body).__name__}")
    if len(body) > MAX_BODY:
        raise InvalidArgumentError(f"the data block is {len(body)} bytes, the protocol takes {MAX_BODY}")
    return Request(MS, _head("ms", key, b" %d" % len(body) + encode_flags(Commands.MS, flags)), body)


def meta_delete(key: bytes, flags: Mapping[str, Token]) -> Request:
    """Return ``md key flags``."""
    command = MD_DROP if flags.get("drop_value") else MD
    return Request(command, _head("md", key, encode_flags(Commands.MD, flags)))


def meta_arithmetic(key: bytes, flags: Mapping[str, Token]) -> Request:
    """Return ``ma key flags``; the mode is ``"+"`` (or I) and ``"-"`` (or D)."""
    return Request(MA_VALUE if flags.get("value") else MA, _head("ma", key, encode_flags(Commands.MA, flags)))


def meta_debug(key: bytes, *, base64: bool = False) -> Request:
    """Return ``me key``. Since 1.6.40 one ``b`` is ignored; two work on every release."""
    return Request(ME, _head("me", key, b" b b" if base64 else b""))


def meta_noop() -> Request:
    """Return ``mn``, which answers MN when everything before it was answered."""
    return Request(MN, b"mn")


def version() -> Request:
    """Return ``version``; through a proxy the answer names the proxy."""
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
    """Return ``flush_all [delay]``: every item expires *delay* seconds from now."""
    checked = _at_least(0, "delay", delay)
    return Request(FLUSH_ALL, b"flush_all %d" % checked if checked else b"flush_all")


def verbosity(level: int) -> Request:
    """Return ``verbosity level``."""
    return Request(VERBOSITY, b"verbosity %d" % _at_least(0, "level", level))


def cache_memlimit(megabytes: int) -> Request:
    """Return ``cache_memlimit megabytes``; the server takes 8 and more."""
    return Request(CACHE_MEMLIMIT, b"cache_memlimit %d" % _at_least(1, "megabytes", megabytes))


def shutdown(*, graceful: bool = False) -> Request:
    """Return ``shutdown [graceful]``. It works under ``memcached -A`` and is answered by the end of the connection."""
    return Request(SHUTDOWN, b"shutdown graceful" if graceful else b"shutdown")


def config_get_cluster() -> Request:
    """Return ``config get cluster``, which ElastiCache and Memorystore discovery endpoints answer."""
    return Request(CONFIG_GET_CLUSTER, b"config get cluster")


def authenticate(username: str, password: str) -> Request:
    """Return the classic ``set`` that carries user and password (ASCII auth, ``memcached -Y``).

    A server that wants them ignores key and exptime. One that does not takes it for a set: of an item that has expired
    already, so that nobody can read them, under a key that is nobody else's.
    """
    body = f"{username} {password}".encode()
    return Request(AUTHENTICATE, b"set metacache_authentication 0 -1 %d" % len(body), body)


# items.c sends one STAT line for these, and no END.
_ENDLESS: Final = frozenset((b"sizes_enable", b"sizes_disable"))

_is_token = re.compile(rb"[^\x00-\x20\x7f]{1,250}").fullmatch
_is_words = re.compile(r"[A-Za-z0-9_:. -]{0,64}").fullmatch


def _head(name: str, key: bytes, rest: bytes) -> bytes:
    if not isinstance(key, bytes):
        raise InvalidTypeError(f"a wire key is bytes, not {type(key).__name__}")
    if not _is_token(key):
        raise InvalidArgumentError("a wire key is 1 to 250 bytes without space, control byte or DEL")
    return b"%b %b%b" % (name.encode(), key, rest)


def _words(what: str, text: str) -> bytes:
    if not isinstance(text, str):
        raise InvalidTypeError(f"the {what} is a str, not {type(text).__name__}")
    if not _is_words(text):
        raise InvalidArgumentError(f"the {what} holds letters, digits, spaces and _ : . - only")
    return text.strip().encode()


def _at_least(low: int, what: str, number: int) -> int:
    if isinstance(number, bool) or not isinstance(number, int):
        raise InvalidTypeError(f"{what} is an int, not {type(number).__name__}")
    if not low <= number <= 2**31 - 1:
        raise InvalidArgumentError(f"{what} is between {low} and {2**31 - 1}, not {number_text(number)}")
    return number
