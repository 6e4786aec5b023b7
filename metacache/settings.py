"""Settings: every number and credential of a transport, frozen and checked when made.

Knows what may be set and in which unit; acts on none of it.
"""

from __future__ import annotations

import math
import re
from ssl import SSLContext  # for the type only: nothing here opens a connection
from typing import Final, final

import attrs

from metacache.errors import InvalidArgumentError, InvalidTypeError

__all__ = ["Settings"]

GIB: Final = 1 << 30


def _wrong_type(field: str, wanted: str, value: object) -> InvalidTypeError:
    return InvalidTypeError(f"Settings.{field} is {wanted}, not {type(value).__name__}")


def _seconds(_: Settings, field: attrs.Attribute[float], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong_type(field.name, "a number of seconds", value)
    if not (math.isfinite(value) and value > 0):
        raise InvalidArgumentError(f"Settings.{field.name} is a finite number of seconds above 0, not {value}")


def _whole(_: Settings, field: attrs.Attribute[int], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong_type(field.name, "a whole number", value)
    if value < 1:
        raise InvalidArgumentError(f"Settings.{field.name} is at least 1, not {value}")


_optional_whole: attrs._ValidatorType[int | None] = attrs.validators.optional(_whole)


def _context(_: Settings, field: attrs.Attribute[SSLContext | None], value: object) -> None:
    if value is not None and not isinstance(value, SSLContext):
        raise _wrong_type(field.name, "an ssl.SSLContext", value)


def _credential(forbidden: str, told: str) -> attrs._ValidatorType[str | None]:
    """A validator that never shows what it checks."""

    def check(_: Settings, field: attrs.Attribute[str | None], value: object) -> None:
        if value is None:
            return
        if not isinstance(value, str):
            raise _wrong_type(field.name, "a str", value)
        if not value or re.search(forbidden, value):
            raise InvalidArgumentError(f"Settings.{field.name} is empty or contains {told}; the server cannot take it")

    return check


@final
@attrs.frozen(kw_only=True)
class Settings:
    """How a transport behaves. Frozen; ``attrs.evolve(settings, timeout=0.1)`` makes a changed copy.

    Args:
        timeout: seconds for a whole operation: name resolution, connect, I/O and retry together.
        connect_timeout: seconds for name resolution, dial, TLS handshake and authentication; ``timeout`` bounds it too.
        tls: speak TLS through this context. Make it with ``ssl.create_default_context()`` to verify certificates.
        username, password: ASCII authentication (``memcached -Y``). Never shown in a repr or an error.
        keepalive: seconds of silence before TCP keepalive probes; None leaves them off.
        max_value_size: refuse to send a larger encoded value (bytes, ValueTooLargeError); None lets the server answer.
        max_reply_size: a reply that announces a larger value (bytes) is a ProtocolError before memory is taken.

    Raises InvalidArgumentError (InvalidTypeError for a wrong type) that names the field.
    """

    timeout: float = attrs.field(default=1.0, validator=_seconds)
    connect_timeout: float = attrs.field(default=1.0, validator=_seconds)
    tls: SSLContext | None = attrs.field(default=None, validator=_context)
    # protocol.txt, "Authentication": user and password are one line "user pass" in the body of a `set`, and the
    # server's file has lines "user:pass": a user holds no space or colon.
    username: str | None = attrs.field(
        default=None, repr=False, validator=_credential(r"[\s:\x00-\x20\x7f]", "a space, colon or control byte")
    )
    password: str | None = attrs.field(
        default=None, repr=False, validator=_credential(r"[\x00-\x1f\x7f]", "a control byte")
    )
    keepalive: int | None = attrs.field(default=None, validator=_optional_whole)
    max_value_size: int | None = attrs.field(default=None, validator=_optional_whole)
    max_reply_size: int = attrs.field(default=GIB, validator=_whole)

    def __attrs_post_init__(self) -> None:
        if (self.username is None) != (self.password is None):
            raise InvalidArgumentError("Settings.username and Settings.password go together: give both or neither")
