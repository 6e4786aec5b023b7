"""The flags of the meta commands: one table, and functions that turn the flags of a request into bytes. Pure.

A new flag is a new row. Tokens and their ranges are those of protocol.txt ("Meta Commands").
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias, final

import attrs

from metacache.errors import InvalidArgumentError, InvalidTypeError

__all__ = [
    "I32_MAX",
    "MAX_FLAGS",
    "REQUEST_FLAGS",
    "U64_MAX",
    "Commands",
    "Flag",
    "Token",
    "encode_flags",
    "numeric_flag",
]

Token: TypeAlias = int | str | bytes | bool

I32_MAX: Final = 2**31 - 1
U32_MAX: Final = 2**32 - 1
U64_MAX: Final = 2**64 - 1
MAX_OPAQUE: Final = 31  # bytes; the server's limit of 32 counts the letter O
MAX_FLAGS: Final = 16  # of an ms on 1.6.18; mg, md and ma take 17, and 1.6.45 takes one more for each command


class Commands(enum.Flag):
    """The commands on which a flag acts.

    The server ignores a known flag on another command. `encode_flags` refuses it, because it would fail silently.
    """

    MG = enum.auto()
    MS = enum.auto()
    MD = enum.auto()
    MA = enum.auto()
    ALL = MG | MS | MD | MA


def _bounded(low: int, high: int) -> Callable[[str, Token], bytes]:
    def encode(name: str, token: Token) -> bytes:
        if isinstance(token, bool) or not isinstance(token, int):
            raise InvalidTypeError(f"{name} is an int, not {type(token).__name__}")
        if not low <= token <= high:
            raise InvalidArgumentError(f"{name} is between {low} and {high}, not {token}")
        return b"%d" % token

    return encode


def _text(pattern: str, rule: str) -> Callable[[str, Token], bytes]:
    fullmatch = re.compile(pattern.encode()).fullmatch

    def encode(name: str, token: Token) -> bytes:
        if not isinstance(token, str | bytes):
            raise InvalidTypeError(f"{name} is str or bytes, not {type(token).__name__}")
        raw = token.encode(errors="replace") if isinstance(token, str) else token
        if not fullmatch(raw):
            raise InvalidArgumentError(f"{name} is {rule}")
        return raw

    return encode


_i32 = _bounded(-1, I32_MAX)
_u32 = _bounded(0, U32_MAX)
_u64 = _bounded(0, U64_MAX)
_cas = _bounded(1, U64_MAX)
_opaque = _text(rf"[^\x00-\x20\x7f]{{0,{MAX_OPAQUE}}}", f"at most {MAX_OPAQUE} bytes without space or control byte")
_hint = _text(r"[^\x00-\x20\x7f]{0,64}", "at most 64 bytes without space or control byte")
_mode = _text(r"[A-Za-z+-]", "one letter, + or -")


@final
@attrs.frozen
class Flag:
    """One request flag: its letter, its name in this package, the encoder of its token, and the commands it acts on.

    ``token`` is None for a flag without token. ``since``: the first memcached release that knows the flag, if newer
    than 1.6.18. An older release ignores it or answers with an error. ``beside``: the flag has an effect only if the
    request has one of these flags too.
    """

    letter: bytes
    name: str
    token: Callable[[str, Token], bytes] | None
    commands: Commands
    since: str = "1.6.18"
    beside: tuple[str, ...] = ()


_MG, _MS, _MD, _MA, _ALL = Commands.MG, Commands.MS, Commands.MD, Commands.MA, Commands.ALL

REQUEST_FLAGS: Final = (
    Flag(b"b", "base64", None, _ALL),
    Flag(b"k", "return_key", None, _ALL),
    Flag(b"O", "opaque", _opaque, _ALL),
    Flag(b"q", "quiet", None, _ALL),
    Flag(b"P", "proxy_hint", _hint, _ALL),
    Flag(b"L", "router_hint", _hint, _ALL),
    Flag(b"v", "value", None, _MG | _MA),
    Flag(b"s", "return_size", None, _MG),
    Flag(b"s", "return_stored_size", None, _MS, since="1.6.20"),
    Flag(b"t", "return_ttl", None, _MG | _MA),
    Flag(b"c", "return_cas", None, _MG | _MS | _MA),
    Flag(b"f", "return_client_flags", None, _MG),
    Flag(b"h", "return_fetched", None, _MG),
    Flag(b"l", "return_idle", None, _MG),
    Flag(b"u", "no_bump", None, _MG),
    Flag(b"T", "ttl", _i32, _MG | _MS | _MA),
    Flag(b"T", "stale_ttl", _i32, _MD, beside=("invalidate", "drop_value")),
    Flag(b"N", "vivify", _i32, _MG | _MA),
    Flag(b"N", "vivify_append", _i32, _MS, since="1.6.20"),  # append and prepend
    Flag(b"R", "recache", _i32, _MG),
    Flag(b"E", "new_cas", _u64, _ALL, since="1.6.27"),  # 0: the server's counter; mg only when it vivifies
    Flag(b"C", "compare_cas", _cas, _MS | _MD | _MA),
    Flag(b"C", "unless_cas", _cas, _MG, since="1.6.40"),  # conditional fetch: equal CAS gives HD, not VA
    Flag(b"F", "client_flags", _u32, _MS),
    Flag(b"F", "dropped_client_flags", _u32, _MD, since="1.6.27", beside=("drop_value",)),
    Flag(b"I", "invalidate", None, _MS | _MD),
    Flag(b"M", "mode", _mode, _MS | _MA),
    Flag(b"J", "initial", _u64, _MA, beside=("vivify",)),
    Flag(b"D", "delta", _u64, _MA),
    Flag(b"x", "drop_value", None, _MD, since="1.6.27"),
)

_BY_NAME: Final = {flag.name: flag for flag in REQUEST_FLAGS}


def encode_flags(command: Commands, flags: Mapping[str, Token]) -> bytes:
    """Return the flags of one request as bytes, each with a space before it, in the order given.

    The server executes flags from left to right: ``{"return_ttl": True, "ttl": 60}`` returns the TTL from before the
    touch. A flag without token takes True, or False to leave it out.

    Raises InvalidArgumentError (InvalidTypeError) for an unknown flag, a flag without effect, an invalid token, two
    flags of one letter, more flags than all servers accept, and ``base64`` together with ``return_key``.
    """
    given = {name: token for name, token in flags.items() if token is not False or _takes_token(name)}
    chosen = [(_acting(name, command, given), token) for name, token in given.items()]
    letters = [flag.letter for flag, _ in chosen]
    if len(set(letters)) != len(letters):
        raise InvalidArgumentError("two flags of one request have the same letter")
    if len(letters) > MAX_FLAGS:
        raise InvalidArgumentError(f"{len(letters)} flags in one request; every server takes {MAX_FLAGS}")
    if b"b" in letters and b"k" in letters:
        # For an item that N created, k returns the raw key, with its spaces and CRLF, in the header line.
        raise InvalidArgumentError("base64 and return_key together can break the stream; match replies by opaque")
    return b"".join(b" " + flag.letter + _token(flag, token) for flag, token in chosen)


def numeric_flag(name: str) -> bytes:
    """Return the format of a flag with a number: ``b" T%d"`` for ``"ttl"``.

    For requests that are built often. The caller checks the number.
    """
    return b" " + _BY_NAME[name].letter + b"%d"


def _takes_token(name: str) -> bool:
    """Return whether the flag *name* has a token, so that False would be a wrong one; True for an unknown flag."""
    flag = _BY_NAME.get(name)
    return flag is None or flag.token is not None


def _acting(name: str, command: Commands, given: Mapping[str, Token]) -> Flag:
    flag = _BY_NAME.get(name)
    if flag is None:
        raise InvalidArgumentError(f"no request flag is called {name!r}")
    if not flag.commands & command:
        raise InvalidArgumentError(f"flag {name!r} does nothing on {command.name}")
    if flag.beside and not any(other in given for other in flag.beside):
        raise InvalidArgumentError(f"flag {name!r} acts only beside {' or '.join(flag.beside)}")
    return flag


def _token(flag: Flag, token: Token) -> bytes:
    if flag.token is not None:
        return flag.token(flag.name, token)
    if token is not True:
        raise InvalidTypeError(f"flag {flag.name!r} takes True, not {type(token).__name__}")
    return b""
